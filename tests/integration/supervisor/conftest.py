from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.supervisor.host import Host, supervisors_of


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    here = Host(tmp_path)
    yield here
    here.phone.close()
    # Whatever the test left behind ends with its supervisor.
    for pid in supervisors_of(tmp_path):
        os.kill(pid, signal.SIGKILL)
