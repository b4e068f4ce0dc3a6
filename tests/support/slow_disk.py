"""A disk that takes its time: each fsync of a process is held up, by ``strace``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

EFFECT_TIMEOUT_S = 20.0
_CALLS = "fsync,fdatasync"
_HELD_UP = "(DELAYED)"


@contextlib.asynccontextmanager
async def slow_disk(pid: int, log: Path, *, sync_s: float) -> AsyncIterator[None]:
    """As long as it lasts, every fsync of the process takes ``sync_s`` longer. Entered once one
    has been held up, so that nobody takes a disk for slow that isn't.

    On exit the process runs on by itself, as fast as before."""
    strace = shutil.which("strace")
    if strace is None or os.geteuid() != 0:
        pytest.skip("needs strace, and root")
    held_up_us = int(sync_s * 1_000_000)
    tracer = await asyncio.create_subprocess_exec(
        strace, "--follow-forks", f"--attach={pid}", f"--output={log}",
        f"--trace={_CALLS}", f"--inject={_CALLS}:delay_exit={held_up_us}",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(EFFECT_TIMEOUT_S):
            while not _has_held_up(log):
                assert tracer.returncode is None, f"strace ended with {tracer.returncode}"
                await asyncio.sleep(0.05)
        yield
    finally:
        if tracer.returncode is None:
            tracer.terminate()
            await tracer.wait()


def _has_held_up(log: Path) -> bool:
    return log.exists() and _HELD_UP in log.read_text()
