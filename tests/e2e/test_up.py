"""``etcsched up``, as its user meets it: what dies comes back, and Ctrl-C ends everything."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from etcsched.etcd.binaries import EtcdBinary
from etcsched.local.cluster import COMMAND
from tests.support.command_lines import processes_naming

STARTS_WITHIN_S = 60.0
LEADS_WITHIN_S = 60.0


class Up:
    def __init__(self, data: Path, process: asyncio.subprocess.Process) -> None:
        self.data = data
        self.process = process
        self.endpoints = ""

    async def says(self, words: str) -> str:
        """The next line with these words in it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(STARTS_WITHIN_S):
            while line := (await self.process.stdout.readline()).decode():
                if "ETCSCHED_ENDPOINTS=" in line:
                    self.endpoints = line.strip().rpartition("=")[2]
                if words in line:
                    return line
        raise AssertionError(f"it ended without {words!r}")

    def pid_of(self, *words: str) -> int:
        def is_it(pid: int) -> bool:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                return False  # It has ended meanwhile.
            return all(word.encode() in command for word in words)

        (pid,) = filter(is_it, processes_naming(self.data))
        return pid

    async def leader(self, unlike: str = "") -> str:
        """Who leads, once somebody does."""
        async with asyncio.timeout(LEADS_WITHIN_S):
            while True:
                asked = await asyncio.create_subprocess_exec(
                    *COMMAND, f"--endpoints={self.endpoints}", "leader", "--json",
                    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
                out, _ = await asked.communicate()
                if asked.returncode == 0 and (name := json.loads(out)["node"]) != unlike:
                    return str(name)


@pytest.fixture
async def up(etcd_binary: EtcdBinary, tmp_path: Path) -> AsyncIterator[Up]:
    data = tmp_path / "up"
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "up", f"--data={data}", "--etcd-port=0", "--ttl=3", "--agents=1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PATH": f"{etcd_binary.path.parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    running = Up(data, process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_what_dies_is_started_again(up: Up) -> None:
    await up.says("ETCSCHED_ENDPOINTS=")
    first = await up.leader()
    os.kill(up.pid_of("scheduler", f"--id={first}"), signal.SIGKILL)
    await up.leader(unlike=first)

    os.kill(up.pid_of("--listen-client-urls"), signal.SIGKILL)
    assert "starts again" in await up.says("was ended by SIGKILL")
    await up.says("serves again")
    await up.leader()

    up.process.send_signal(signal.SIGINT)
    await up.says("stopped")
    assert await up.process.wait() == 0
    assert processes_naming(up.data) == []
