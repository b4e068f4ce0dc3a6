"""Starts that hang on a file system that doesn't answer."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from etcsched.agent.supervisor.attempts import HANGING_STARTS_MAX
from etcsched.agent.supervisor.kernel import boottime_s
from etcsched.agent.supervisor.messages import Ended, EndReason, Started, StartFailed
from tests.integration.supervisor.host import WITHIN_S, Agent, Host, dead_within, is_alive
from tests.integration.supervisor.test_deaths import kill_pair
from tests.support.hung_mount import hung_mount

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


async def failures(agent: Agent, count: int) -> dict[str, str]:
    """Reasons of the next ``count`` starts that fail; others may go on meanwhile."""
    reasons: dict[str, str] = {}
    while len(reasons) < count:
        event = await agent.next_event()
        assert isinstance(event, Started | StartFailed | Ended), event
        if isinstance(event, StartFailed):
            reasons[event.attempt_id] = event.reason
    return reasons


@pytest.fixture
def hung_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "hung"
    directory.mkdir()
    return directory


@pytest.mark.root
@as_root
@pytest.mark.parametrize("killable", [True, False])
async def test_a_hung_file_system_costs_only_the_starts_on_it(
    host: Host, hung_directory: Path, killable: bool
) -> None:
    host.options["start_within_s"] = 4.0
    async with hung_mount(hung_directory, killable=killable) as hung, host.agent() as agent:
        agent.shell("before", "echo $$ > $PHONE; exec sleep 1000")
        await agent.started("before")
        before = await host.phone.pid()
        agent.start("workdir", "/bin/true", cwd=str(hung))
        agent.start("program", str(hung / "program"))
        agent.start("path", "program", env={"PATH": f"{hung}:/bin"})
        agent.start("as root", "/bin/true", cwd=str(hung), user="root")
        agent.client.move_deadline(boottime_s() + 60.0)
        agent.shell("after", "echo done")
        await agent.started("after")
        assert (await agent.ended("after")).tail == "done\n"
        assert await failures(agent, 4) == {
            "workdir": f"working directory {hung} didn't answer within 4 s",
            "program": f"the file system of the program {hung}/program didn't answer within 4 s",
            "path": "the file system of the program program or a directory of its PATH didn't "
            "answer within 4 s",
            "as root": f"working directory {hung}, or the lookup of user root, didn't answer "
            "within 4 s",
        }
        agent.start("last", "/bin/true")
        await agent.started("last")
        assert (await agent.ended("last")).exit_code == 0
        assert is_alive(before)
        supervisor = agent.supervisor_pid()
        agent.client.shutdown(kill=True)
        assert await dead_within(supervisor, WITHIN_S)


@pytest.mark.root
@as_root
async def test_starts_that_hang_and_cannot_be_killed_are_bounded(
    host: Host, hung_directory: Path
) -> None:
    host.options["start_within_s"] = 2.0
    async with hung_mount(hung_directory, killable=False) as hung, host.agent() as agent:
        for number in range(HANGING_STARTS_MAX):
            agent.start(str(number), "/bin/true", cwd=str(hung))
        await failures(agent, HANGING_STARTS_MAX)
        agent.start("beyond", "/bin/true")
        reason = (await agent.start_failed("beyond")).reason
        assert reason.startswith(f"{HANGING_STARTS_MAX} starts before it hang on file systems")


# Without root: a program that whoever holds a lease on it keeps from being opened.


class HungProgram:
    """Opening it, also to execute it, waits until whoever holds the lease on it gives it up."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    async def is_waited_for(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            # What the lease is to become, once somebody waits for that.
            while fcntl.fcntl(self._fd, fcntl.F_GETLEASE) == fcntl.F_WRLCK:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@contextmanager
def hung_program(path: Path) -> Iterator[HungProgram]:
    path.write_text("#!/bin/sh\necho ran > $PHONE\n")
    path.chmod(0o755)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        os.close(fd)
        pytest.skip(f"no lease on a file here: {error.strerror}")
    try:
        yield HungProgram(path, fd)
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)


async def hang_beside_another(agent: Agent, program: HungProgram) -> None:
    """a hangs, and b, which was asked for after it, has ended."""
    agent.start("a", str(program.path))
    agent.start("b", "/bin/true")
    await agent.started("b")
    await agent.ended("b")
    await program.is_waited_for()


async def test_what_was_given_up_never_runs(host: Host, tmp_path: Path) -> None:
    host.start_as_if_mounts("--start-within-s", "3.0", may_hang=True)
    async with host.agent() as agent:
        with hung_program(tmp_path / "program") as program:
            agent.start("a", str(program.path))
            assert str(program.path) in (await agent.start_failed("a")).reason
        # Now it could be opened; what comes after it would be heard after it.
        agent.shell("b", "echo other > $PHONE")
        assert await host.phone.line() == "other"
        await agent.started("b")
        assert (await agent.ended("b")).exit_code == 0


async def test_a_late_answer_is_a_start(host: Host, tmp_path: Path) -> None:
    host.start_as_if_mounts(may_hang=True)
    async with host.agent() as agent:
        with hung_program(tmp_path / "program") as program:
            await hang_beside_another(agent, program)
        await agent.started("a")
        assert await host.phone.line() == "ran"
        assert (await agent.ended("a")).exit_code == 0


async def test_a_hanging_start_can_be_cancelled_and_is_taken_over(
    host: Host, tmp_path: Path
) -> None:
    host.start_as_if_mounts(may_hang=True)
    with hung_program(tmp_path / "program") as program:
        async with host.agent() as agent:
            await hang_beside_another(agent, program)
        async with host.agent() as agent:
            # Whoever takes over must know of it: it may still run.
            assert [running.attempt_id for running in agent.client.inventory.running] == ["a"]
            agent.client.kill("a", EndReason.CANCELLED, grace_s=5.0)
            await agent.started("a")
            ended = await agent.ended("a")
            assert (ended.reason, ended.signal) == (EndReason.CANCELLED, signal.SIGTERM)
            # The signal was the attempt's alone.
            agent.start("c", "/bin/true")
            await agent.started("c")


async def test_what_begins_holds_nothing_of_the_supervisor_and_dies_with_it(
    host: Host, tmp_path: Path
) -> None:
    host.start_as_if_mounts("--no-cgroup", may_hang=True)
    async with host.agent() as agent:
        with hung_program(tmp_path / "program") as program:
            await hang_beside_another(agent, program)
            (pid,) = [running.pid for running in (await inventory(host)).running]
            open_now = sorted(os.listdir(f"/proc/{pid}/fd"))
            assert open_now == ["0", "1", "2", "3"]
            # No sweep would find it: it doesn't carry the marker yet.
            kill_pair(agent)
            assert await dead_within(pid, WITHIN_S)


async def inventory(host: Host):  # type: ignore[no-untyped-def]
    async with host.agent("agent-2") as other:
        return other.client.inventory
