"""One agent cut off from an etcd that is well, by a firewall, in a network of the test's own.

The network is a namespace with nothing but loopback. Since sockets belong to the namespace of the
thread that makes them, the scenario (``cut_off.py``) is a run of pytest of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

TOOLS = ("unshare", "ip", "iptables", "setpriv")
IN_NETWORK = 'ip link set lo up && exec "$@"'
CASES = ("dropped", "reset", "refused", "one-down")


def _can() -> bool:
    return (
        os.geteuid() == 0
        and all(shutil.which(tool) for tool in TOOLS)
        and subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0
    )


@pytest.mark.skipif(not _can(), reason=f"needs root, namespaces, and {', '.join(TOOLS)}")
@pytest.mark.parametrize("case", CASES)
def test_an_agent_that_alone_is_cut_off(case: str) -> None:
    scenario = Path(__file__).with_name("cut_off.py")
    test = f"{scenario}::test_{case.replace('-', '_')}"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    # Not below pytest's own: a Unix socket's path may have 107 bytes. What fails stays to be read.
    directory = Path(tempfile.mkdtemp(prefix="cut-off-"))
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", IN_NETWORK, "sh", *command, f"--basetemp={directory}/in"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(directory)
