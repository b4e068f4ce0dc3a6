"""One scheduler or agent as a child process, with its log as lines."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Literal

from etcsched.etcd.embedded import EXEC_BOUND_TO_PARENT

Role = Literal["scheduler", "agent"]
OnLine = Callable[[str, str], None]
"""(node, line) of a node's log."""

MOST_LINE_BYTES = 1 << 16


class NodeProcess:
    """Its own session, so that Ctrl-C reaches whoever owns it first; killed by the kernel with its
    parent, however that ends. ``environment`` None: the parent's."""

    def __init__(
        self,
        role: Role,
        name: str,
        argv: tuple[str, ...],
        on_line: OnLine,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.role: Role = role
        self.name = name
        self.last_line = ""
        self._argv = argv
        self._on_line = on_line
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """0 when it doesn't run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else 0

    @property
    def exit_code(self) -> int | None:
        """None before the first start and while it runs; negative: the signal that ended it."""
        return self._process.returncode if self._process is not None else None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", EXEC_BOUND_TO_PARENT, str(os.getpid())),
            *self._argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            limit=MOST_LINE_BYTES,
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # A line beyond the limit; what follows is read on.
                continue
            if not line:
                return
            self.last_line = line.decode(errors="replace").rstrip()
            self._on_line(self.name, self.last_line)

    def signal(self, number: signal.Signals) -> None:
        """Nothing happens where it doesn't run."""
        if self.pid:
            assert self._process is not None
            self._process.send_signal(number)

    async def wait(self) -> int:
        """Its exit code, once it has ended and its last line is read."""
        assert self._process is not None
        code = await self._process.wait()
        if self._reader is not None:
            await self._reader
        return code

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, and kill it where it hasn't within ``grace_s``."""
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(grace_s):
                await self.wait()
        except TimeoutError:
            self._on_line(self.name, f"hasn't stopped within {grace_s:g} s: killed")
            self.signal(signal.SIGKILL)
            await self.wait()
