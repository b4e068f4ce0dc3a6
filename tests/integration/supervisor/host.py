"""A supervisor per test, with real processes; nothing waits but for an event, with a deadline."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from etcsched.agent.supervisor.kernel import boottime_s
from etcsched.agent.supervisor.messages import Closing, Ended, Start, Started, StartFailed
from etcsched.agent.supervisor.processes import read_stat
from etcsched.agent.supervisor_client import SupervisorClient, SupervisorDied, SupervisorEvent

WITHIN_S = 15.0
"""Far above what anything takes here; only a failure waits so long."""


class Phone:
    """Lines that jobs write into a FIFO, to say where they are."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o622)
        os.chmod(path, 0o622)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._buffer = b""

    async def line(self) -> str:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._buffer:
            ready = asyncio.Event()
            loop.add_reader(self._fd, ready.set)
            try:
                async with asyncio.timeout(WITHIN_S):
                    await ready.wait()
            finally:
                loop.remove_reader(self._fd)
            self._buffer += os.read(self._fd, 4096)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    async def pid(self) -> int:
        return int(await self.line())

    def close(self) -> None:
        os.close(self._fd)


class Host:
    """One state directory, and the agents that come and go on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "supervisor.sock"
        self.phone = Phone(directory / "phone")
        self.options: dict[str, bool | float] = {"idle_exit_s": 0.5}
        self.seen: list[SupervisorEvent] = []

    def start_as_if_mounts(self, *options: str, may_hang: bool) -> None:
        """A supervisor that takes every file system for one that may never answer, or none,
        whatever other tests mount. It waits long for its agent: another, started in its place,
        would be none such."""
        script = (
            "import sys; from etcsched.agent.supervisor import mounts; "
            f"mounts.some_may_hang = lambda mountinfo: {may_hang}; "
            "from etcsched.agent.supervisor.__main__ import main; sys.exit(main())"
        )
        places = ("--dir", self.directory, "--socket", self.socket)
        patient = ("--idle-exit-s", str(4 * WITHIN_S))
        subprocess.run(
            (sys.executable, "-c", script, *places, *patient, *options),
            check=True,
            timeout=WITHIN_S,
        )

    def let_others_through(self) -> None:
        """Other users reach what lies in it by its path."""
        for directory in (self.directory, *self.directory.parents):
            if directory.stat().st_mode & 0o011 != 0o011:
                directory.chmod(0o711)

    @asynccontextmanager
    async def agent(self, incarnation: str = "agent-1") -> AsyncIterator[Agent]:
        client = await SupervisorClient.connect_or_start(
            self.directory,
            self.socket,
            agent_incarnation=incarnation,
            **self.options,  # type: ignore[arg-type]
        )
        try:
            yield Agent(self, client)
        finally:
            await client.close()


class Agent:
    def __init__(self, host: Host, client: SupervisorClient) -> None:
        self.host = host
        self.client = client
        self._events = client.events()

    def start(self, attempt_id: str, *argv: str, **changes: object) -> Start:
        fields: dict[str, object] = {
            "attempt_id": attempt_id,
            "argv": argv,
            "env": {"PATH": os.environ["PATH"], "PHONE": str(self.host.phone.path)},
            "cwd": "/",
            "output_path": str(self.host.directory / "output" / attempt_id),
            "output_cap_bytes": 1_000_000,
            "kill_grace_s": 5.0,
            "deadline_mono_s": boottime_s() + 60.0,
        }
        start = Start(**(fields | changes))  # type: ignore[arg-type]
        self.client.start(start)
        return start

    def shell(self, attempt_id: str, script: str, **changes: object) -> Start:
        return self.start(attempt_id, "/bin/sh", "-c", script, **changes)

    async def next_event(self) -> SupervisorEvent:
        async with asyncio.timeout(WITHIN_S):
            return await anext(self._events)

    async def started(self, attempt_id: str) -> Started:
        event = await self.next_event()
        assert isinstance(event, Started), event
        assert event.attempt_id == attempt_id
        return event

    async def ended(self, attempt_id: str) -> Ended:
        while True:
            event = await self.next_event()
            assert not isinstance(event, StartFailed | SupervisorDied), event
            if isinstance(event, Ended):
                assert event.attempt_id == attempt_id
                return event

    async def outcome(self, attempt_id: str) -> Ended:
        """Of an attempt whose process is dead, seen by the supervisor already or not yet."""
        for outcome in self.client.inventory.outcomes:
            if outcome.attempt_id == attempt_id:
                assert isinstance(outcome, Ended)
                return outcome
        return await self.ended(attempt_id)

    async def start_failed(self, attempt_id: str) -> StartFailed:
        event = await self.next_event()
        assert isinstance(event, StartFailed), event
        assert event.attempt_id == attempt_id
        return event

    async def closing(self) -> None:
        event = await self.next_event()
        assert isinstance(event, Closing), event

    async def died(self) -> SupervisorDied:
        while True:
            event = await self.next_event()
            if isinstance(event, SupervisorDied):
                return event

    def supervisor_pid(self) -> int:
        """To be asked for while it lives."""
        return pid_of(self.client._process)

    def guardian_pid(self) -> int:
        return pid_of(self.client._guardian)


def pid_of(handle: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{handle}").read_text().splitlines():
        if line.startswith("Pid:"):
            pid = int(line.split()[1])
            assert pid > 0, "that process has ended"
            return pid
    raise AssertionError(f"{handle} is no pidfd")


def is_alive(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.state != "Z"


def parent_of(pid: int) -> int | None:
    stat = read_stat(pid)
    return None if stat is None else stat.parent


async def dead_within(pid: int, seconds: float) -> bool:
    """Waits for the process's end through a handle, not by looking again and again."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(await asyncio.to_thread(poll.poll, seconds * 1000))
    finally:
        os.close(handle)


def supervisors_of(directory: Path) -> list[int]:
    """Guardian and supervisor of that directory."""

    def is_ours(pid: str) -> bool:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"--dir" in command and str(directory).encode() in command

    return [int(name) for name in os.listdir("/proc") if name.isdigit() and is_ours(name)]
