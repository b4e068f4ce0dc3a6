"""The installed command on a terminal of its own, which is then as it was, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest

from tests.conftest import StartEtcd
from tests.support.etcd_cluster import SharedEtcd

DEADLINE_S = 60.0
ALTERNATE, ORIGINAL, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"

# What a shell with job control does, and no more: without one nothing can be stopped.
SHELL = """
import os, signal, sys
child = os.fork()
if not child:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
while True:
    _, status = os.waitpid(child, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    print(f"<stopped {child}>", flush=True)
"""


class Terminal:
    """``ours`` is where a person sits, ``its`` what the process has."""

    def __init__(self) -> None:
        self.ours, self.its = pty.openpty()
        self.before = termios.tcgetattr(self.its)
        self.process: asyncio.subprocess.Process
        self._draining: asyncio.Task[None] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, home: Path, *args: str) -> AsyncIterator[Self]:
        terminal = cls()

        def takes_terminal() -> None:
            # Whoever runs the tests may have some of them ignored (nohup, or in the background).
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        terminal.process = await asyncio.create_subprocess_exec(
            sys.executable, *args, stdin=terminal.its, stdout=terminal.its, stderr=terminal.its,
            start_new_session=True, preexec_fn=takes_terminal,
            env={**os.environ, "HOME": str(home), "TERM": "xterm"},
        )  # fmt: skip
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield terminal
        finally:
            if terminal.process.returncode is None:
                terminal.process.kill()
                await terminal.process.wait()
            for end in (terminal.its, terminal.ours):
                with contextlib.suppress(OSError):
                    os.close(end)

    async def shows(self, what: bytes) -> bytes:
        shown = b""
        while what not in shown:
            shown += await asyncio.to_thread(os.read, self.ours, 1 << 16)
        return shown

    async def ends(self) -> tuple[int, bytes]:
        """Its exit code, and what it still wrote: whoever leaves a terminal waits until all that
        it wrote is read."""
        shown = b""
        reading = True

        async def read() -> None:
            nonlocal shown
            with contextlib.suppress(OSError):
                while reading:
                    shown += await asyncio.to_thread(os.read, self.ours, 1 << 16)

        draining = asyncio.create_task(read())
        code = await self.process.wait()
        reading = False
        os.write(self.its, b"<over>")
        await draining
        return code, shown

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.its)[3] & termios.ECHO)


def top(etcd: SharedEtcd) -> tuple[str, ...]:
    where = ("--endpoints", ",".join(etcd.endpoints), "--prefix", etcd.prefix)
    return ("-m", "etcsched_cli", *where, "top")


async def test_q_ends_what_is_shown_again_and_again(etcd: SharedEtcd, tmp_path: Path) -> None:
    async with Terminal.running(tmp_path, *top(etcd)) as terminal:
        assert b"q or Ctrl-C ends this" in await terminal.shows(b"leader")
        os.write(terminal.ours, b"xq")
        code, _ = await terminal.ends()
        assert code == 0
        assert termios.tcgetattr(terminal.its) == terminal.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_signal_ends_it(etcd: SharedEtcd, tmp_path: Path, number: signal.Signals) -> None:
    async with Terminal.running(tmp_path, *top(etcd)) as terminal:
        assert ALTERNATE in await terminal.shows(b"leader")
        assert not terminal.echoes
        terminal.process.send_signal(number)
        code, shown = await terminal.ends()
        assert code == 128 + number
        assert ORIGINAL in shown
        assert CURSOR in shown
        assert termios.tcgetattr(terminal.its) == terminal.before


async def test_a_terminal_that_goes_away_ends_it(etcd: SharedEtcd, tmp_path: Path) -> None:
    async with Terminal.running(tmp_path, *top(etcd)) as terminal:
        await terminal.shows(b"leader")
        os.close(terminal.its)
        os.close(terminal.ours)
        assert await terminal.process.wait() == 128 + signal.SIGHUP


async def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(
    etcd: SharedEtcd, tmp_path: Path
) -> None:
    async with Terminal.running(tmp_path, "-c", SHELL, *top(etcd)) as terminal:
        await terminal.shows(b"leader")
        assert not terminal.echoes
        os.write(terminal.ours, b"\x1a")
        shown = await terminal.shows(b">\r\n")
        left, _, word = shown.partition(b"<stopped ")
        assert ORIGINAL in left
        assert CURSOR in left
        assert termios.tcgetattr(terminal.its) == terminal.before
        os.kill(int(word.partition(b">")[0]), signal.SIGCONT)
        assert ALTERNATE in await terminal.shows(b"leader")
        assert not terminal.echoes
        os.write(terminal.ours, b"q")
        code, _ = await terminal.ends()
        assert code == 0
        assert termios.tcgetattr(terminal.its) == terminal.before


async def test_a_stall_of_etcd_doesnt_end_it(start_etcd: StartEtcd, tmp_path: Path) -> None:
    cluster = await start_etcd()
    where = ("--endpoints", ",".join(cluster.endpoints), "--timeout", "3s")
    async with Terminal.running(tmp_path, "-m", "etcsched_cli", *where, "top") as terminal:
        await terminal.shows(b"leader")
        cluster.freeze(0)
        shown = await terminal.shows(b"looking again")
        assert b"etcd can't be reached" in shown
        shown += await terminal.shows(b"leader") if b"leader" not in shown else b""
        cluster.thaw(0)
        await terminal.shows(b"leader")
        os.write(terminal.ours, b"q")
        code, _ = await terminal.ends()
        assert code == 0
