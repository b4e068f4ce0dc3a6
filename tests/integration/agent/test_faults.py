"""What happens to attempts when the agent, its supervisor, its keys or etcd go away."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from etcsched.agent.state_dir import StateDir
from etcsched.agent.supervisor.launch import LOCK_FILE
from etcsched.agent.supervisor.processes import read_stat
from etcsched.core.errors import AgentIdInUse
from etcsched.core.records import Kind, Noop, Presence
from etcsched.core.states import OnDisconnect, Outcome
from etcsched.serving.address import Address, Listen
from tests.conftest import StartEtcd
from tests.integration.agent.fleet import (
    AgentProcess,
    Fleet,
    beating,
    first_beat,
    last_beat_s,
    until,
)
from tests.integration.supervisor.host import dead_within
from tests.support.etcd_cluster import TEST_OPTIONS
from tests.support.slow_calls import slow_exec

GONE_S = 10.0
SHORT_TTL_S = 2
"""For those whose lease has to end."""
RESTART_TTL_S = 30
"""Its processes are told to end when three quarters of it are over; starting takes its time."""


async def a_job_that_waits(fleet: Fleet, run: str, go: Path) -> int:
    """It runs on return, ends with exit code 7 once ``go`` is there, and beats meanwhile."""
    beats = go.with_suffix(".beats")
    token = await fleet.assign(
        run, f"until test -e {go}; do date +%s%N >> {beats}; sleep 0.02; done; exit 7"
    )
    await first_beat(beats)
    return token


async def lease_gone_s(fleet: Fleet) -> float:
    """Unix time at which the presence was first seen to be gone."""

    async def look() -> float | None:
        return time.time() if await fleet.presence() is None else None

    return await until(look, "the end of the presence", GONE_S)


@pytest.mark.parametrize("signals", [1, 40])
async def test_a_restart_by_signal_takes_running_attempts_back(
    fleet: Fleet, tmp_path: Path, signals: int
) -> None:
    """Also by many, some of which come while it restarts."""
    agent = fleet.agent(session_ttl_s=RESTART_TTL_S)
    agent.start()
    before = await fleet.joined()
    await a_job_that_waits(fleet, "r1", tmp_path / "go")
    for _ in range(signals):
        agent.signal(signal.SIGHUP)
        await asyncio.sleep(0.05)
    await restarted(agent, times=2)
    (tmp_path / "go").touch()
    report = await fleet.outcome("r1")
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 7)
    assert report.incarnation == before.incarnation
    assert (await fleet.joined()).incarnation == before.incarnation
    await fleet.assign("r2", "true")
    await fleet.outcome("r2")


async def supervisor_of(agent: AgentProcess) -> int:
    async def look() -> int | None:
        with contextlib.suppress(OSError):
            return agent.supervisor_pid
        return None

    return await until(look, "its supervisor")


async def test_a_stop_that_comes_as_it_starts_leaves_no_supervisor(fleet: Fleet) -> None:
    """It is there long before there is a session, or anybody who listens to signals."""
    agent = fleet.agent()
    agent.start()
    supervisor = await supervisor_of(agent)
    agent.signal(signal.SIGTERM)
    await fleet.let_go()
    assert await agent.exit_code() == 0
    assert await dead_within(supervisor, GONE_S)


async def test_a_supervisor_that_dies_as_its_agent_goes_leaves_no_successor(fleet: Fleet) -> None:
    """Its start has begun by then, and can't be taken back."""
    agent = fleet.agent()
    agent.start()
    await fleet.joined()
    os.kill(await supervisor_of(agent), signal.SIGKILL)
    await until(said(agent, "the supervisor died"), "its word on the supervisor's death")
    for _ in range(2):
        agent.signal(signal.SIGTERM)
        await asyncio.sleep(0.02)
    assert await agent.exit_code() == 0
    assert agent.log().count("attempts run") == 1, "it went before the successor was there"
    with (agent.config.directory / "supervisor" / LOCK_FILE).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Held while there is a supervisor.


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.03, 0.1, 0.2, 0.4])
async def test_a_stop_is_heard_while_it_restarts(fleet: Fleet, after_s: float) -> None:
    """Whichever of its two programs is there by then, or none yet."""
    agent = fleet.agent(session_ttl_s=RESTART_TTL_S)
    agent.start()
    await fleet.joined()
    supervisor = await supervisor_of(agent)
    agent.signal(signal.SIGHUP)
    await asyncio.sleep(after_s)
    agent.signal(signal.SIGTERM)
    await fleet.let_go()
    assert await agent.exit_code() == 0
    assert await dead_within(supervisor, GONE_S)
    assert await fleet.presence() is None


async def test_a_stop_on_the_way_to_its_next_program_is_heard(fleet: Fleet, tmp_path: Path) -> None:
    """Where other threads of the first one are still there, and would take it along."""
    agent = fleet.agent(session_ttl_s=RESTART_TTL_S)
    agent.start()
    await fleet.joined()
    supervisor = await supervisor_of(agent)
    async with slow_exec(agent.pid, tmp_path / "strace", before_s=1.0) as asked:
        agent.signal(signal.SIGHUP)
        await asked()
        agent.signal(signal.SIGTERM)
        await until(said(agent, "agent a1 started", times=2), "its next program")
    await fleet.let_go()
    assert await agent.exit_code() == 0
    assert await dead_within(supervisor, GONE_S)


async def test_a_stop_that_comes_before_it_is_to_restart_is_heard(tmp_path: Path) -> None:
    """Both before it knows its etcd, and so before either program may leave."""
    fleet = Fleet(tmp_path, ("127.0.0.1:1",), "/nowhere/")
    agent = fleet.agent()
    agent.start()

    try:
        await until(said(agent, "no session yet"), "it to look for its etcd")
        agent.signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        agent.signal(signal.SIGHUP)
        assert await agent.exit_code() == 0
        assert agent.log().count("agent a1 started") == 2
    finally:
        await fleet.close()


def said(
    agent: AgentProcess, words: str, *, times: int = 1
) -> Callable[[], Awaitable[bool | None]]:
    """Whether its log has them so often."""

    async def look() -> bool | None:
        return agent.log().count(words) >= times or None

    return look


async def restarted(agent: AgentProcess, *, times: int) -> None:
    await until(said(agent, "session ", times=times), "the agent's new session")


async def test_a_killed_agent_that_is_back_within_its_lease_goes_on(
    fleet: Fleet, tmp_path: Path
) -> None:
    agent = fleet.agent(session_ttl_s=RESTART_TTL_S)
    agent.start()
    before = await fleet.joined()
    token = await a_job_that_waits(fleet, "r1", tmp_path / "go")
    await a_job_that_waits(fleet, "r2", tmp_path / "at_once")
    agent.kill()
    (tmp_path / "at_once").touch()
    agent.start()
    assert (await fleet.outcome("r2")).exit_code == 7
    (tmp_path / "go").touch()
    report = await fleet.outcome("r1")
    assert (report.outcome, report.exit_code) == (Outcome.FAILED, 7)
    assert (report.token, report.incarnation) == (token, before.incarnation)
    assert "resumed" in agent.log()


async def test_a_resumed_lease_keeps_the_ttl_that_it_was_granted(fleet: Fleet) -> None:
    agent = fleet.agent(session_ttl_s=RESTART_TTL_S)
    agent.start()
    before = await fleet.joined()
    agent.kill()
    agent = fleet.agent(session_ttl_s=5)
    agent.start()

    async def look() -> Presence | None:
        there = await fleet.joined()
        return there if there.pid == agent.pid else None

    after = await until(look, "the presence of the agent's second process")
    assert after.incarnation == before.incarnation
    assert after.session_ttl_s == before.session_ttl_s == RESTART_TTL_S
    saved = StateDir(agent.config.directory).read_session()
    assert saved is not None
    assert saved.ttl_s == RESTART_TTL_S


async def test_an_agent_that_has_another_id_leaves_the_session_of_the_one_before(
    fleet: Fleet,
) -> None:
    """A container that was killed and made anew, with its volume and another host name. Else
    the one before would seem to live on, and be given runs that nobody claims."""
    agent = fleet.agent(directory="kept", session_ttl_s=5)
    agent.start()
    before = await fleet.joined()
    agent.kill()
    agent = fleet.agent("b1", directory="kept", session_ttl_s=5)
    agent.start()
    after = await fleet.joined("b1")
    assert after.incarnation != before.incarnation

    async def look() -> bool | None:
        return await fleet.presence("a1") is None or None

    await until(look, "the end of the session before", within_s=10.0)


async def test_a_copy_of_a_live_agents_disk_is_refused_and_harms_nobody(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Another container or a clone of the machine, of the same host name."""
    agent = fleet.agent(session_ttl_s=5)
    agent.start()
    before = await fleet.joined()
    await a_job_that_waits(fleet, "r1", tmp_path / "go")
    copy = fleet.agent(directory="copy", session_ttl_s=5)
    copy.config.directory.mkdir()
    shutil.copy(agent.config.directory / "session", copy.config.directory)
    copy.start()
    assert await copy.exit_code() == AgentIdInUse.exit_code
    assert f"as process {agent.pid}" in copy.log()
    assert (await fleet.joined()).incarnation == before.incarnation
    (tmp_path / "go").touch()
    report = await fleet.outcome("r1")
    assert (report.exit_code, report.supervisor) == (7, before.supervisor)
    assert "lost" not in agent.log()


def _sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(directory) / name).is_socket()]


async def test_a_session_from_before_a_reboot_is_left_to_end(fleet: Fleet, tmp_path: Path) -> None:
    agent = fleet.agent(session_ttl_s=5)
    agent.start()
    before = await fleet.joined()
    token = await fleet.assign("r1", beating(tmp_path / "beats"))
    await first_beat(tmp_path / "beats")
    agent.kill()
    os.kill(agent.supervisor_pid, signal.SIGKILL)
    saved = StateDir(agent.config.directory).read_session()
    assert saved is not None
    shutil.move(agent.config.directory, tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", agent.config.directory, ignore=_sockets)
    agent.start()
    after = await fleet.joined(unlike=before.incarnation)
    assert after.incarnation != f"{saved.lease:x}"
    report = await fleet.outcome("r1")
    assert (report.token, report.outcome) == (token, Outcome.DIED)


async def test_each_start_adds_its_session_to_those_that_its_disk_knows(fleet: Fleet) -> None:
    agent = fleet.agent(session_ttl_s=SHORT_TTL_S)
    seen: list[str] = []
    for _ in range(3):
        agent.start()
        seen.insert(0, (await fleet.joined(unlike=seen[0] if seen else "")).incarnation)
        saved = StateDir(agent.config.directory).read_session()
        assert saved is not None
        assert [saved.incarnation, *saved.before] == seen
        agent.kill()
        await lease_gone_s(fleet)


@pytest.mark.parametrize("lease", [0, 1 << 63])
async def test_a_session_of_a_lease_that_can_be_none_begins_a_new_one(
    fleet: Fleet, lease: int
) -> None:
    agent = fleet.agent()
    agent.config.directory.mkdir()
    saved = f'{{"lease":{lease},"incarnation":"i1","ttl_s":10}}'
    (agent.config.directory / "session").write_text(saved)
    agent.start()
    found = await until(fleet.presence, "its presence")
    assert found[0].incarnation == f"{found[1].lease:x}"


async def test_a_claim_without_a_process_is_reported_died(fleet: Fleet, tmp_path: Path) -> None:
    """The agent died between claim and start: only etcd knows of the attempt."""
    agent = fleet.agent(session_ttl_s=RESTART_TTL_S)
    agent.start()
    presence = await fleet.joined()
    agent.kill()
    token = await fleet.assign("r1", beating(tmp_path / "beats"))
    claim = await fleet.claim("r1", token, presence)
    agent.start()
    report = await fleet.outcome("r1")
    assert report.outcome is Outcome.DIED
    assert report.claimed_at == claim.claimed_at
    assert not (tmp_path / "beats").exists()


async def test_a_killed_agents_processes_are_dead_before_its_lease(
    fleet: Fleet, tmp_path: Path
) -> None:
    agent = fleet.agent(session_ttl_s=SHORT_TTL_S)
    agent.start()
    await fleet.assign("r1", f"trap '' TERM; {beating(tmp_path / 'beats')}")
    await first_beat(tmp_path / "beats")
    agent.kill()
    gone_s = await lease_gone_s(fleet)
    assert last_beat_s(tmp_path / "beats") < gone_s
    beats = last_beat_s(tmp_path / "beats")
    agent.start()
    report = await fleet.outcome("r1")
    assert report.outcome is Outcome.DIED
    assert last_beat_s(tmp_path / "beats") == beats


async def test_an_agent_that_leaves_gives_its_lease_up_after_its_processes(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Also where its supervisor is frozen, and obeys no longer."""
    agent = fleet.agent()
    agent.start()
    lease = int((await fleet.joined()).incarnation, 16)
    beats = tmp_path / "beats"
    await fleet.assign("r1", beating(beats), on_disconnect=OnDisconnect.CONTINUE)
    await first_beat(beats)
    supervisor = agent.supervisor_pid
    os.kill(supervisor, signal.SIGSTOP)
    for _ in range(2):
        agent.signal(signal.SIGTERM)
        await asyncio.sleep(0.1)

    async def look() -> float | None:
        return time.time() if (await fleet.etcd.lease_time_to_live(lease)).ttl_s <= 0 else None

    gone_s = await until(look, "the end of its lease")
    assert last_beat_s(beats) < gone_s
    assert await dead_within(supervisor, 0.0)
    assert await agent.exit_code() == 0
    assert last_beat_s(beats) < gone_s


async def test_a_lease_runs_out_where_something_may_live_on(fleet: Fleet) -> None:
    """Its guardian would clean up, and hangs."""
    agent = fleet.agent()
    agent.start()
    lease = int((await fleet.joined()).incarnation, 16)
    stat = read_stat(agent.supervisor_pid)
    assert stat is not None
    os.kill(stat.parent, signal.SIGSTOP)
    agent.signal(signal.SIGTERM)
    await fleet.let_go()
    assert await agent.exit_code() == 0
    assert (await fleet.etcd.lease_time_to_live(lease)).ttl_s > 0
    os.kill(stat.parent, signal.SIGCONT)
    assert await dead_within(stat.parent, GONE_S)


async def test_a_frozen_agent_is_fenced_and_its_report_comes_late(
    fleet: Fleet, tmp_path: Path
) -> None:
    agent = fleet.agent(session_ttl_s=SHORT_TTL_S)
    agent.start()
    before = await fleet.joined()
    token = await fleet.assign("r1", beating(tmp_path / "beats"))
    await first_beat(tmp_path / "beats")
    agent.signal(signal.SIGSTOP)
    gone_s = await lease_gone_s(fleet)
    assert last_beat_s(tmp_path / "beats") < gone_s
    await fleet.take_away("r1")
    agent.signal(signal.SIGCONT)
    late = await fleet.late("r1", token)
    assert late.outcome is Outcome.DIED
    after = await fleet.joined()
    assert after.incarnation != before.incarnation
    await fleet.assign("r2", Noop())
    await fleet.outcome("r2")


async def test_a_dead_supervisors_attempts_are_reported_died(fleet: Fleet, tmp_path: Path) -> None:
    agent = fleet.agent()
    agent.start()
    before = await fleet.joined()
    await fleet.assign("r1", beating(tmp_path / "beats"))
    await first_beat(tmp_path / "beats")
    os.kill(agent.supervisor_pid, signal.SIGKILL)
    report = await fleet.outcome("r1")
    assert report.outcome is Outcome.DIED
    assert report.supervisor == before.supervisor
    assert report.ended_at is not None
    after = await fleet.joined(supervisor_unlike=before.supervisor)
    assert after.incarnation == before.incarnation
    beats = last_beat_s(tmp_path / "beats")
    await fleet.assign("r2", "true")
    assert (await fleet.outcome("r2")).outcome is Outcome.COMPLETED
    assert last_beat_s(tmp_path / "beats") == beats


async def test_nothing_is_claimed_while_the_supervisor_is_told_to_stop(
    fleet: Fleet, tmp_path: Path
) -> None:
    agent = fleet.agent()
    agent.start()
    go = tmp_path / "go"
    lasts = f"trap '' TERM; date +%s > {go}.beats; until test -e {go}; do sleep 0.02; done"
    await fleet.assign("r1", lasts, kill_grace_s=60.0)
    await first_beat(tmp_path / "go.beats")
    os.kill(agent.supervisor_pid, signal.SIGTERM)
    await until(said(agent, "the supervisor was told to stop"), "its word on that")

    async def shows(slots: int) -> None:
        async def look() -> bool | None:
            found = await fleet.presence()
            return True if found is not None and found[0].slots == slots else None

        await until(look, f"its word that it has {slots} slots")

    await shows(0)
    runs = [f"r{number}" for number in range(2, 8)]
    for run in runs:
        await fleet.assign(run, "true")
    go.touch()
    assert (await fleet.outcome("r1")).outcome is Outcome.DIED
    assert {(await fleet.outcome(run)).outcome for run in runs} == {Outcome.COMPLETED}
    await shows(agent.config.slot_count)


async def test_a_presence_deleted_by_hand_is_put_again(fleet: Fleet, tmp_path: Path) -> None:
    agent = fleet.agent()
    agent.start()
    before = await fleet.joined()
    await a_job_that_waits(fleet, "r1", tmp_path / "go")
    await fleet.delete(fleet.keys.of(Kind.PRESENCE, "a1"))
    assert (await fleet.joined()).incarnation == before.incarnation
    (tmp_path / "go").touch()
    assert (await fleet.outcome("r1")).exit_code == 7
    await fleet.assign("r2", Noop())
    await fleet.outcome("r2")


async def test_a_presence_that_a_hand_overwrote_gets_its_lease_again(fleet: Fleet) -> None:
    agent = fleet.agent(session_ttl_s=RESTART_TTL_S)
    agent.start()
    before = await fleet.joined()
    agent.kill()
    await fleet.put(fleet.keys.of(Kind.PRESENCE, "a1"), before)
    agent.start()

    async def look() -> bool | None:
        found = await fleet.presence()
        return True if found is not None and found[1].lease else None

    await until(look, "its presence with a lease")
    await fleet.assign("r1", "true")
    assert (await fleet.outcome("r1")).outcome is Outcome.COMPLETED


async def test_a_presence_that_a_hand_put_is_named(fleet: Fleet) -> None:
    """Or a copy of another etcd, whose keys have no leases."""
    other = fleet.agent("other")
    other.start()
    there = await fleet.joined("other")
    await fleet.put(fleet.keys.of(Kind.PRESENCE, "a1"), replace(there, agent="a1"))
    agent = fleet.agent()
    agent.start()
    assert await agent.exit_code() == AgentIdInUse.exit_code
    assert f"etcdctl del {fleet.keys.of(Kind.PRESENCE, 'a1')}" in agent.log().splitlines()[-1]


async def test_a_revoked_lease_stops_everything_at_once(fleet: Fleet, tmp_path: Path) -> None:
    agent = fleet.agent(session_ttl_s=5)
    agent.start()
    before = await fleet.joined()
    await fleet.assign("r1", beating(tmp_path / "beats"))
    await first_beat(tmp_path / "beats")
    found = await fleet.presence()
    assert found is not None
    await fleet.etcd.lease_revoke(found[1].lease)
    assert (await fleet.outcome("r1")).outcome is Outcome.DIED
    assert (await fleet.joined()).incarnation != before.incarnation


async def test_a_session_that_the_disk_does_not_take_is_kept_in_memory(fleet: Fleet) -> None:
    """At the start, and when it is another's successor; it is written once there is room."""
    agent = fleet.agent()
    blocker = agent.config.directory / "session.new"  # The name that it is written under.
    blocker.mkdir(parents=True)
    agent.start()
    before = await fleet.joined()
    found = await fleet.presence()
    assert found is not None
    await fleet.etcd.lease_revoke(found[1].lease)
    after = await fleet.joined(unlike=before.incarnation)
    await fleet.assign("r1", "true")
    assert (await fleet.outcome("r1")).outcome is Outcome.COMPLETED
    assert agent.log().count("can't be written") == 2
    blocker.rmdir()

    async def look() -> bool | None:
        saved = StateDir(agent.config.directory).read_session()
        return True if saved is not None and saved.incarnation == after.incarnation else None

    await until(look, "the session on disk")


async def test_a_second_agent_of_the_same_id_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    first = fleet.agent(session_ttl_s=5)
    second = fleet.agent(directory="another", session_ttl_s=5)
    first.start()
    await fleet.joined()
    await a_job_that_waits(fleet, "r1", tmp_path / "go")
    second.start()
    assert await second.exit_code() == 5
    assert f"as process {first.pid}" in second.log().splitlines()[-1]
    (tmp_path / "go").touch()
    assert (await fleet.outcome("r1")).exit_code == 7


async def test_a_second_agent_in_the_same_directory_is_refused(fleet: Fleet) -> None:
    first, second = fleet.agent(), fleet.agent()
    first.start()
    await fleet.joined()
    second.start()
    assert await second.exit_code() == 5
    await fleet.assign("r1", Noop())
    await fleet.outcome("r1")


async def test_a_restored_cluster_is_refused_until_told(fleet: Fleet) -> None:
    agent = fleet.agent()
    agent.start()
    await fleet.joined()
    agent.signal(signal.SIGTERM)
    await fleet.let_go()
    assert await agent.exit_code() == 0
    (agent.config.directory / "revision").write_text(str(10**12))
    agent.start()
    assert await agent.exit_code() == 5
    assert "--accept-restored-cluster" in agent.log().splitlines()[-1]
    told = fleet.agent(accept_restored_cluster=True)
    told.start()
    await fleet.joined()


# --- etcd away -----------------------------------------------------------------------------


async def spooled(agent: AgentProcess) -> str:
    async def look() -> str | None:
        files = list((agent.config.directory / "spool").glob("*.json"))
        return files[0].name if files else None

    return await until(look, "an outcome in the spool")


async def nothing_spooled(agent: AgentProcess) -> None:
    async def look() -> bool | None:
        return None if list((agent.config.directory / "spool").iterdir()) else True

    await until(look, "an empty spool")


async def test_an_outcome_waits_for_etcd_on_disk(start_etcd: StartEtcd, tmp_path: Path) -> None:
    cluster = await start_etcd()
    fleet = Fleet(tmp_path, cluster.endpoints, "/etcsched/v1/")
    try:
        agent = fleet.agent(session_ttl_s=10)
        agent.start()
        await a_job_that_waits(fleet, "r1", tmp_path / "go")
        cluster.kill(0)
        (tmp_path / "go").touch()
        await spooled(agent)
        await cluster.restart(0)
        assert (await fleet.outcome("r1")).exit_code == 7
        await nothing_spooled(agent)
        await fleet.assign("r2", Noop())
        await fleet.outcome("r2")
    finally:
        await fleet.close()


async def test_a_spooled_outcome_outlives_the_agent(start_etcd: StartEtcd, tmp_path: Path) -> None:
    cluster = await start_etcd()
    fleet = Fleet(tmp_path, cluster.endpoints, "/etcsched/v1/")
    try:
        agent = fleet.agent(session_ttl_s=10)
        agent.start()
        await a_job_that_waits(fleet, "r1", tmp_path / "go")
        cluster.kill(0)
        (tmp_path / "go").touch()
        await spooled(agent)
        agent.kill()
        agent.start()
        await cluster.restart(0)
        assert (await fleet.outcome("r1")).exit_code == 7
        await nothing_spooled(agent)
    finally:
        await fleet.close()


async def test_an_outcome_that_etcd_does_not_take_costs_its_results_and_no_agent(
    start_etcd: StartEtcd, tmp_path: Path
) -> None:
    options = replace(TEST_OPTIONS, extra_arguments=("--max-request-bytes", "8192"))
    fleet = Fleet(tmp_path, (await start_etcd(options=options)).endpoints, "/etcsched/v1/")
    try:
        agent = fleet.agent()
        agent.start()
        await fleet.assign("r0", beating(tmp_path / "beats"))
        await first_beat(tmp_path / "beats")
        long = "printf 'a=%09000d' 0 > $ETCSCHED_RESULTS"
        await fleet.assign("r1", f"{long}; echo words; exit 3")
        report = await fleet.outcome("r1")
        assert (report.outcome, report.exit_code, report.tail) == (Outcome.FAILED, 3, "")
        assert not report.results
        assert "request is too large" in report.results_problem
        assert "r1 attempt 1: etcd doesn't take its outcome" in agent.log()
        await fleet.assign("r2", "true")
        assert (await fleet.outcome("r2")).outcome is Outcome.COMPLETED
        assert (await fleet.report("r0")).outcome is None
        assert agent.log().count("agent a1 started") == 1
    finally:
        await fleet.close()


async def test_a_claim_that_etcd_does_not_take_costs_no_agent(
    start_etcd: StartEtcd, tmp_path: Path
) -> None:
    """It has more compares than an operator allows a transaction."""
    options = replace(TEST_OPTIONS, extra_arguments=("--max-txn-ops", "6"))
    fleet = Fleet(tmp_path, (await start_etcd(options=options)).endpoints, "/etcsched/v1/")
    try:
        agent = fleet.agent(listen=Listen(address=Address("127.0.0.1", 0)))
        agent.start()
        await fleet.assign("r1", "true")
        await until(said(agent, "r1 attempt 1: etcd takes no claim of it"), "its word on the claim")
        await agent.says("0 of 8 slots in use")
        assert await fleet.count(Kind.REPORT) == 0
    finally:
        await fleet.close()


async def test_an_agent_outlives_an_etcd_that_is_away_for_longer_than_its_lease(
    start_etcd: StartEtcd, tmp_path: Path
) -> None:
    cluster = await start_etcd()
    fleet = Fleet(tmp_path, cluster.endpoints, "/etcsched/v1/")
    try:
        agent = fleet.agent(session_ttl_s=SHORT_TTL_S)
        agent.start()
        before = await fleet.joined()
        await fleet.assign("r1", beating(tmp_path / "beats"))
        await first_beat(tmp_path / "beats")
        # One that was killed could be proven to be out, and the session would go on.
        cluster.freeze(0)
        assert "job~r1" in await spooled(agent)
        cluster.thaw(0)
        assert (await fleet.outcome("r1")).outcome is Outcome.DIED
        assert (await fleet.joined(unlike=before.incarnation)).incarnation != before.incarnation
        await fleet.assign("r2", Noop())
        await fleet.outcome("r2")
        await nothing_spooled(agent)
    finally:
        await fleet.close()
