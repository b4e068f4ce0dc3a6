from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.supervisor.host import WITHIN_S, Host, parent_of, supervisors_of


@pytest.fixture(params=["spawned", "forked"])
def either_way(request: pytest.FixtureRequest, host: Host) -> Host:
    """Where no file system can hang, and where one may."""
    host.start_as_if_mounts(may_hang=request.param == "forked")
    return host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    here = Host(tmp_path)
    yield here
    here.phone.close()
    pair = supervisors_of(tmp_path)
    handles: dict[int, int] = {}
    for pid in pair:
        with contextlib.suppress(ProcessLookupError):  # It ended since it was looked up.
            handles[pid] = os.pidfd_open(pid)
    for pid, handle in handles.items():
        # Whatever the test left behind ends with its supervisor; the guardian sees to that.
        if parent_of(pid) in pair:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
    for handle in handles.values():
        assert select.select([handle], [], [], WITHIN_S)[0]
        os.close(handle)
