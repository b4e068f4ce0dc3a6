"""System calls that take their time: each such call of a process is held up, by ``strace``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

EFFECT_TIMEOUT_S = 20.0


@contextlib.asynccontextmanager
async def slow_disk(pid: int, log: Path, *, sync_s: float) -> AsyncIterator[None]:
    """As long as it lasts, every fsync of the process takes ``sync_s`` longer. Entered once one
    has been held up, so that nobody takes a disk for slow that isn't.

    On exit the process runs on by itself, as fast as before."""
    async with _slow(pid, log, "fsync,fdatasync", f"delay_exit={_us(sync_s)}") as tracer:
        await _until(tracer, lambda: _has(log, "(DELAYED)"))
        yield


@contextlib.asynccontextmanager
async def slow_exec(
    pid: int, log: Path, *, before_s: float
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """As long as it lasts, the process' next program begins ``before_s`` after its main thread
    has asked for it; its other threads run on until then. Gives what waits for the asking."""
    how = f"delay_enter={_us(before_s)}:when=1"
    async with _slow(pid, log, "execve", how, with_threads=False) as tracer:
        await _until(tracer, lambda: _tracer_of(pid) == tracer.pid)
        yield lambda: _until(tracer, lambda: _has(log, "execve("))


@contextlib.asynccontextmanager
async def _slow(
    pid: int, log: Path, calls: str, how: str, *, with_threads: bool = True
) -> AsyncIterator[asyncio.subprocess.Process]:
    strace = shutil.which("strace")
    if strace is None or os.geteuid() != 0:
        pytest.skip("needs strace, and root")
    tracer = await asyncio.create_subprocess_exec(
        strace, *["--follow-forks"] * with_threads, f"--attach={pid}", f"--output={log}",
        f"--trace={calls}", f"--inject={calls}:{how}",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield tracer
    finally:
        if tracer.returncode is None:
            tracer.terminate()
            await tracer.wait()


async def _until(tracer: asyncio.subprocess.Process, is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(EFFECT_TIMEOUT_S):
        while not is_so():
            assert tracer.returncode is None, f"strace ended with {tracer.returncode}"
            await asyncio.sleep(0.02)


def _has(log: Path, words: str) -> bool:
    return log.exists() and words in log.read_text()


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)


def _tracer_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("TracerPid:")))
