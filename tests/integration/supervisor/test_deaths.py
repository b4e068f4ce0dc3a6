"""What dies or freezes, and what becomes of the attempts: each with real processes and signals."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import uvloop

from etcsched.agent import supervised, supervisor_client
from etcsched.agent.state_dir import StateDir
from etcsched.agent.supervisor.kernel import boottime_s
from etcsched.agent.supervisor.messages import Ended, EndReason, Started
from etcsched.agent.supervisor_client import SupervisorTaken, SupervisorUnavailable
from etcsched.core.agent import events as ev
from tests.integration.supervisor.host import (
    WITHIN_S,
    Agent,
    Host,
    dead_within,
    is_alive,
    supervisors_of,
)

STUBBORN = "trap '' TERM; echo $$ > $PHONE; while :; do sleep 1000; done"
DAEMON = "(setsid sh -c 'trap \"\" TERM; echo $$ > $PHONE; exec sleep 1000' &) ; exec sleep 1000"
NAMELESS_DAEMON = DAEMON.replace("setsid", "setsid env -i PHONE=$PHONE")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = 65534


async def start_stubborn(agent: Agent, attempt_id: str = "a", **changes: object) -> int:
    agent.shell(attempt_id, STUBBORN, **changes)
    await agent.started(attempt_id)
    return await agent.host.phone.pid()


# Fencing


async def test_without_an_agent_an_attempt_dies_at_its_deadline(host: Host) -> None:
    async with host.agent() as agent:
        deadline_s = boottime_s() + 4.0
        pid = await start_stubborn(agent, deadline_mono_s=deadline_s)
    assert await dead_within(pid, WITHIN_S)
    assert -0.05 <= boottime_s() - deadline_s < 0.5
    async with host.agent("agent-2") as agent:
        outcome = await agent.outcome("a")
        assert (outcome.reason, outcome.signal) == (EndReason.FENCED, signal.SIGKILL)


async def test_fencing_asks_first(host: Host) -> None:
    """SIGTERM when a quarter of the time is left, if that is less than the kill grace."""
    script = "trap 'exit 3' TERM; while :; do sleep 0.01; done"
    async with host.agent() as agent:
        deadline_ms = time.time() * 1000 + 4000
        agent.shell("a", script, deadline_mono_s=boottime_s() + 4.0, kill_grace_s=60.0)
        ended = await agent.ended("a")
        assert (ended.reason, ended.exit_code) == (EndReason.FENCED, 3)
        assert 0 < deadline_ms - ended.ended_ms <= 1000


async def test_a_moved_deadline_keeps_attempts_alive_except_those_named(host: Host) -> None:
    async with host.agent() as agent:
        soon_s = boottime_s() + 4.0
        kept = await start_stubborn(agent, "kept", deadline_mono_s=soon_s)
        await start_stubborn(agent, "left", deadline_mono_s=soon_s)
        agent.client.move_deadline(boottime_s() + 60.0, {"left": soon_s})
        assert (await agent.ended("left")).reason is EndReason.FENCED
        assert boottime_s() >= soon_s
        assert is_alive(kept)
        agent.client.move_deadline(None, {"kept": boottime_s()})
        assert (await agent.ended("kept")).reason is EndReason.FENCED


async def test_without_a_descriptor_nothing_is_reported_over_that_lives(host: Host) -> None:
    """Nor does it end by it, or turn without a pause: what it can't do it does once it can."""
    async with host.agent() as agent:
        agent.shell("a", DAEMON)
        main = (await agent.started("a")).pid
        daemon = await host.phone.pid()
        supervisor = agent.supervisor_pid()
        limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (0, limits[1]))
        os.kill(main, signal.SIGKILL)
        assert await dead_within(main, WITHIN_S)
        agent.shell("b", "true")
        # Answered after the turn that saw the death.
        await agent.start_failed("b")
        agent.shell("c", "true")
        await agent.start_failed("c")
        assert is_alive(daemon)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)
        assert (await agent.ended("a")).signal == signal.SIGKILL
        assert not is_alive(daemon)
    said = (host.directory / "supervisor.log").read_text()
    assert said.count("looking for processes that are left: Too many open files") == 1


async def test_a_deadline_that_began_to_stop_an_attempt_is_final(host: Host) -> None:
    script = "trap 'echo asked > $PHONE' TERM; echo ready > $PHONE; while :; do sleep 0.01; done"
    deadline_s = boottime_s() + 4.0
    async with host.agent() as agent:
        agent.shell("a", script, deadline_mono_s=deadline_s, kill_grace_s=60.0)
        assert await host.phone.line() == "ready"
        assert await host.phone.line() == "asked"
        agent.client.move_deadline(boottime_s() + 60.0)
        ended = await agent.ended("a")
        assert (ended.reason, ended.signal) == (EndReason.FENCED, signal.SIGKILL)
        assert abs(boottime_s() - deadline_s) < 0.5


async def test_a_frozen_supervisor_without_agent_holds_no_attempt_past_its_deadline(
    host: Host,
) -> None:
    async with host.agent() as agent:
        deadline_s = boottime_s() + 4.0
        pid = await start_stubborn(agent, deadline_mono_s=deadline_s)
        os.kill(agent.supervisor_pid(), signal.SIGSTOP)
        assert await dead_within(pid, WITHIN_S)
        assert 0 <= boottime_s() - deadline_s < 1.3
        assert (await agent.died()).attempts == ("a",)


async def test_a_frozen_supervisor_is_killed_by_its_agent(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_client, "STUCK_AFTER_S", 0.3)
    async with host.agent() as agent:
        pid = await start_stubborn(agent)
        agent.client.move_deadline(boottime_s() + 60.0)
        os.kill(agent.supervisor_pid(), signal.SIGSTOP)
        agent.client.move_deadline(boottime_s() + 60.0)
        died = await agent.died()
        assert (died.attempts, died.processes_left) == (("a",), False)
        assert not is_alive(pid)


async def test_a_frozen_pair_is_replaced_by_the_next_agent(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_client, "STUCK_AFTER_S", 0.3)
    monkeypatch.setattr(supervisor_client, "DIED_CLEANUP_MAX_S", 3.0)
    async with host.agent() as agent:
        pid = await start_stubborn(agent)
        os.kill(agent.guardian_pid(), signal.SIGSTOP)
        os.kill(agent.supervisor_pid(), signal.SIGSTOP)
        agent.client.move_deadline(boottime_s() + 60.0)
        died = await agent.died()
        assert (died.attempts, died.processes_left) == (("a",), False)
        assert not is_alive(pid)
    async with host.agent() as agent:
        assert [outcome.attempt_id for outcome in agent.client.inventory.outcomes] == ["a"]


# The agent comes and goes


async def test_the_next_agent_takes_the_attempts_over(host: Host) -> None:
    async with host.agent() as agent:
        pid = await start_stubborn(agent)
        agent.start("b", "true")
        await agent.ended("b")
        supervisor = agent.client.inventory.supervisor_incarnation
    async with host.agent("agent-2") as agent:
        inventory = agent.client.inventory
        assert inventory.supervisor_incarnation == supervisor
        (running,) = inventory.running
        assert (running.attempt_id, running.pid, running.ending) == ("a", pid, None)
        assert [outcome.attempt_id for outcome in inventory.outcomes] == ["b"]
        agent.client.acknowledge("b")
        agent.client.kill("a", EndReason.CANCELLED, grace_s=0.0)
        assert (await agent.ended("a")).reason is EndReason.CANCELLED
    async with host.agent("agent-3") as agent:
        assert [outcome.attempt_id for outcome in agent.client.inventory.outcomes] == ["a"]


async def test_only_the_newest_connection_is_served(host: Host) -> None:
    async with host.agent() as old, host.agent("agent-2") as new:
        old.start("a", "true")
        with pytest.raises(SupervisorTaken, match="second agent"):
            await old.next_event()
        new.start("b", "true")
        await new.ended("b")


async def test_it_works_on_uvloop(host: Host) -> None:
    async def restart_and_kill() -> tuple[str, ...]:
        async with host.agent() as agent:
            await start_stubborn(agent)
        async with host.agent("agent-2") as agent:
            os.kill(agent.supervisor_pid(), signal.SIGKILL)
            return (await agent.died()).attempts

    assert await asyncio.to_thread(uvloop.run, restart_and_kill()) == ("a",)


async def test_a_supervisor_left_alone_exits(host: Host) -> None:
    async with host.agent() as agent:
        agent.start("a", "true")
        await agent.ended("a")
        pids = (agent.supervisor_pid(), agent.guardian_pid())
    for pid in pids:
        assert await dead_within(pid, WITHIN_S)
    assert not host.socket.exists()
    async with host.agent() as agent:
        assert [outcome.attempt_id for outcome in agent.client.inventory.outcomes] == ["a"]


async def test_an_agent_that_cannot_replace_its_supervisor_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be given runs, and none would begin."""
    monkeypatch.setattr(supervised, "GIVE_UP_AFTER_S", 1.0)
    told: list[ev.Event] = []

    def tell(event: ev.Event) -> None:
        told.append(event)
        if isinstance(event, ev.SupervisorGone):
            agent.restart()

    def fail(*_: object, **__: object) -> bool:
        raise SupervisorUnavailable("no process is left on this host")

    state = StateDir(tmp_path)
    agent = supervised.Supervised(
        state,
        "a1",
        tell,
        slots=1,
        output_cap_bytes=0,
        isolate=False,
        use_cgroup=False,
    )
    await agent.connect()
    monkeypatch.setattr(supervisor_client, "start_supervisor", fail)
    for pid in supervisors_of(state.supervisor):
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(SupervisorUnavailable):
            await agent.run()
    assert isinstance(told[-1], ev.SupervisorGone)


async def test_who_shuts_it_down_is_back_once_it_is_gone(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("a", NAMELESS_DAEMON)
        attempt = await host.phone.pid()
        supervisor, guardian = agent.supervisor_pid(), agent.guardian_pid()
        agent.client.shutdown(kill=True)
        assert await agent.client.close()
        assert not any(is_alive(pid) for pid in (attempt, supervisor, guardian))


async def test_who_shuts_it_down_does_not_wait_for_ever(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_client, "DIED_CLEANUP_MAX_S", 0.2)
    async with host.agent() as agent:
        guardian = agent.guardian_pid()
        os.kill(guardian, signal.SIGSTOP)
        agent.client.shutdown(kill=True)
        assert not await agent.client.close()
        os.kill(guardian, signal.SIGCONT)
        assert await dead_within(guardian, WITHIN_S)


async def test_shutdown_lets_attempts_end_or_kills_them(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("a", "echo $$ > $PHONE; sleep 0.2; exit 3")
        await host.phone.pid()
        agent.client.shutdown(kill=False)
        assert (await agent.ended("a")).exit_code == 3
        assert (await agent.died()).attempts == ()
    async with host.agent() as agent:
        await start_stubborn(agent, "b")
        agent.client.shutdown(kill=True)
        assert (await agent.ended("b")).reason is EndReason.VANISHED
        assert (await agent.died()).attempts == ()


async def test_where_no_supervisor_can_be_one_line_says_why(host: Host) -> None:
    host.socket = host.directory / ("x" * 100)
    with pytest.raises(SupervisorUnavailable, match="x: longer than a Unix socket's path may be"):
        async with host.agent():
            pass


async def test_where_no_process_can_be_started_one_line_says_so(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(SupervisorUnavailable, match="started: Resource temporarily unavailable"):
        async with host.agent():
            pass


async def test_a_supervisor_asked_to_stop_lets_attempts_stop(host: Host) -> None:
    script = "trap 'exit 3' TERM; echo > $PHONE; while :; do sleep 0.01; done"
    async with host.agent() as agent:
        agent.shell("a", script)
        await host.phone.line()
        await agent.started("a")
        os.kill(agent.supervisor_pid(), signal.SIGTERM)
        await agent.closing()
        ended = await agent.ended("a")
        assert (ended.reason, ended.exit_code) == (EndReason.VANISHED, 3)
        assert (await agent.died()).attempts == ()


# The supervisor dies


@pytest.mark.parametrize("script", [STUBBORN, DAEMON, NAMELESS_DAEMON])
async def test_attempts_die_with_their_supervisor(host: Host, script: str) -> None:
    async with host.agent() as agent:
        agent.shell("a", script)
        pid = await host.phone.pid()
        os.kill(agent.supervisor_pid(), signal.SIGKILL)
        assert await dead_within(pid, WITHIN_S)
        died = await agent.died()
        assert (died.attempts, died.processes_left) == (("a",), False)


async def test_attempts_die_with_their_supervisor_without_an_agent(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("a", NAMELESS_DAEMON)
        pid = await host.phone.pid()
        supervisor = agent.supervisor_pid()
    os.kill(supervisor, signal.SIGKILL)
    assert await dead_within(pid, WITHIN_S)


async def test_the_next_supervisor_knows_what_the_dead_one_had(host: Host) -> None:
    async with host.agent() as agent:
        agent.start("stored", "true")
        agent.shell("ended", "exit 5")
        for _ in range(4):
            await agent.next_event()
        agent.client.acknowledge("stored")
        written = f"until [ -s {host.directory}/output/running ]; do :; done"
        agent.shell("running", f"echo so far; {written}; {STUBBORN}")
        await host.phone.pid()
        agent.client.move_deadline(None)
        os.kill(agent.supervisor_pid(), signal.SIGKILL)
        assert (await agent.died()).attempts == ("running",)
    async with host.agent() as agent:
        ended, vanished = agent.client.inventory.outcomes
        assert isinstance(ended, Ended)
        assert isinstance(vanished, Ended)
        assert (ended.attempt_id, ended.exit_code) == ("ended", 5)
        assert (vanished.attempt_id, vanished.reason) == ("running", EndReason.VANISHED)
        assert vanished.tail == "so far\n"
        for outcome in (ended, vanished):
            agent.client.acknowledge(outcome.attempt_id)
        agent.client.shutdown(kill=True)
        await agent.died()
    async with host.agent() as agent:
        assert agent.client.inventory.outcomes == ()


async def test_attempts_die_with_the_guardian(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("a", NAMELESS_DAEMON)
        pid = await host.phone.pid()
        os.kill(agent.guardian_pid(), signal.SIGKILL)
        assert await dead_within(pid, WITHIN_S)
        assert (await agent.ended("a")).reason is EndReason.VANISHED
        assert (await agent.died()).attempts == ()


def kill_pair(agent: Agent) -> None:
    """Neither has time to see the other die."""
    pair = agent.supervisor_pid(), agent.guardian_pid()
    for pid in pair:
        os.kill(pid, signal.SIGSTOP)
    for pid in pair:
        os.kill(pid, signal.SIGKILL)


@as_root
async def test_the_agent_cleans_up_after_both_by_control_group(host: Host) -> None:
    async with host.agent() as agent:
        if agent.client.inventory.cgroup is None:
            pytest.skip("no control group may be made here")
        agent.shell("a", NAMELESS_DAEMON)
        pid = await host.phone.pid()
        kill_pair(agent)
        died = await agent.died()
        assert (died.attempts, died.processes_left) == (("a",), False)
        assert not is_alive(pid)
        assert not os.path.exists(agent.client.inventory.cgroup)  # noqa: ASYNC240


async def test_the_agent_cleans_up_after_both_by_marker(host: Host) -> None:
    host.options["use_cgroup"] = False
    async with host.agent() as agent:
        assert agent.client.inventory.cgroup is None
        agent.shell("a", DAEMON)
        pid = await host.phone.pid()
        kill_pair(agent)
        assert not (await agent.died()).processes_left
        assert not is_alive(pid)


@pytest.mark.parametrize("use_cgroup", [True, False])
async def test_the_next_supervisor_cleans_up_after_both(host: Host, use_cgroup: bool) -> None:
    host.options["use_cgroup"] = use_cgroup
    async with host.agent() as agent:
        agent.shell("a", DAEMON)
        # Told, so in the journal: the process itself can be quicker than that.
        await agent.started("a")
        pid = await host.phone.pid()
        kill_pair(agent)
    async with host.agent() as agent:
        assert not is_alive(pid)
        assert [outcome.attempt_id for outcome in agent.client.inventory.outcomes] == ["a"]


@pytest.mark.root
@as_root
async def test_in_a_pid_namespace_the_kernel_cleans_up_after_both(host: Host) -> None:
    host.options["isolate"] = True
    async with host.agent() as agent:
        agent.shell("a", NAMELESS_DAEMON.replace("echo $$", "readlink /proc/self/ns/pid"))
        namespace = await host.phone.line()
        assert namespace != os.readlink("/proc/self/ns/pid")
        inside = [
            int(name)
            for name in os.listdir("/proc")
            if name.isdigit() and same_namespace(name, namespace)
        ]
        assert len(inside) >= 3
        kill_pair(agent)
        for pid in inside:
            assert await dead_within(pid, WITHIN_S)
        assert (await agent.died()).attempts == ("a",)


def same_namespace(pid: str, namespace: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == namespace
    except OSError:
        return False


# Without root


@pytest.mark.root
@as_root
async def test_without_root_attempts_die_with_their_supervisor_too(host: Host) -> None:
    host.let_others_through()
    own = host.directory / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    host.socket = own / "supervisor.sock"
    # The interpreter may lie where only root can execute it: changes user after the imports.
    script = (
        "import locale, os, pwd, shutil, sys; from etcsched.agent.supervisor.__main__ import main; "
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); sys.exit(main())"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, "--dir", own, "--socket", host.socket
    )
    async with asyncio.timeout(WITHIN_S):
        assert await process.wait() == 0
    async with host.agent() as agent:
        output_path = str(own / "output")
        agent.start("root", "true", user="root", output_path=output_path)
        assert "only an agent that runs as root" in (await agent.start_failed("root")).reason
        agent.shell("self", "id -un", user="nobody", output_path=output_path)
        assert (await agent.ended("self")).tail == "nobody\n"
        agent.shell("a", NAMELESS_DAEMON, output_path=output_path)
        pid = await host.phone.pid()
        os.kill(agent.supervisor_pid(), signal.SIGKILL)
        assert await dead_within(pid, WITHIN_S)
        for left in supervisors_of(own):
            assert await dead_within(left, WITHIN_S)


async def test_nothing_is_left_after_many_attempts(host: Host) -> None:
    """No descriptor, no record: a supervisor may run for years."""
    async with host.agent() as agent:
        counts = []
        for turn in range(2):
            for number in range(100):
                agent.shell(f"{turn}/{number}", "echo x")
            left = 100
            while left:
                event = await agent.next_event()
                if isinstance(event, Ended):
                    agent.client.acknowledge(event.attempt_id)
                    left -= 1
                else:
                    assert isinstance(event, Started)
            counts.append(len(os.listdir(f"/proc/{agent.supervisor_pid()}/fd")))
        assert counts[0] == counts[1]
