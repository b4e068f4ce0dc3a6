"""Agents that die, freeze, lose their supervisor or their key, come back, or come twice."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time

import pytest

from etcsched.core.records import Kind, Report, Run
from etcsched.core.states import Outcome, RunState
from etcsched.keyspace.ops import Delete, Txn
from tests.e2e.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")
LONG_TTL_S = 20
"""For a restart within the lease: its processes are told to end when half of it is over."""
LOST_DISK_TTL_S = 10
"""For an agent that is started again while its old lease lives."""
QUICK = {"kill_grace": "500ms"}
"""Each of these jobs has a child that ignores SIGTERM."""


async def start_long(scene: Scene, job: str, **fields: object) -> str:
    """A run that beats until told to end; returns the agent that it runs on."""
    go = scene.world.directory / f"go-{job}"
    await scene.apply(**{job: {"run": scene.beats(f"until={go}", "child"), **QUICK, **fields}})
    triggered = await scene.cli("jobs", "trigger", job)
    assert triggered.code == 0, triggered
    await scene.beating(job)
    agent, _ = await scene.claimed(job)
    return agent


def let_end(scene: Scene, job: str) -> None:
    (scene.world.directory / f"go-{job}").touch()


def check_moved(scene: Scene, run: Run, first: str) -> None:
    """It went from ``first`` to another agent, and completed there, without overlap (I3 by the
    beats of all its processes is judged by ``settle``)."""
    assert run.state is RunState.COMPLETED
    before, after = run.attempts
    assert (before.agent, before.outcome) == (first, Outcome.DIED)
    assert after.agent != first
    assert (after.number, after.outcome) == (2, Outcome.COMPLETED)
    died, moved = scene.executions(run.job)
    assert (died.token, moved.token) == (before.token, after.token)


async def late_folded(scene: Scene, job: str) -> Run:
    """The job's only run, once its first agent's late word is in its record."""

    def look() -> Run | None:
        (run,) = scene.ended(job)
        return run if run.late_reports else None

    return await scene.history.until(look, f"the late report of {job} in the run's record")


def check_late_word(run: Run, first: str) -> None:
    """It is kept as an event, and changed nothing."""
    (late,) = run.late_reports
    before = run.attempts[0]
    assert (late.agent, late.token, late.outcome) == (first, before.token, Outcome.DIED)


async def test_a_killed_agents_run_moves(cluster: Scene) -> None:
    """Its supervisor ends it first; the agent, started again, says late what became of it."""
    agent = await start_long(cluster, "of_killed")
    before = cluster.presence(agent)
    assert before is not None
    await cluster.world.kill(agent)
    await cluster.beating("of_killed", 2)
    let_end(cluster, "of_killed")
    check_moved(cluster, await cluster.run_ended("of_killed"), agent)
    await cluster.world.start(agent)
    await cluster.all_here()
    after = cluster.presence(agent)
    assert after is not None
    assert after.incarnation != before.incarnation
    check_late_word(await late_folded(cluster, "of_killed"), agent)
    await cluster.settle()


async def test_a_frozen_agent_is_fenced_and_its_late_word_kept(cluster: Scene) -> None:
    agent = await start_long(cluster, "of_frozen")
    cluster.world.freeze(agent)
    await cluster.beating("of_frozen", 2)
    cluster.world.thaw(agent)
    let_end(cluster, "of_frozen")
    check_moved(cluster, await cluster.run_ended("of_frozen"), agent)
    check_late_word(await late_folded(cluster, "of_frozen"), agent)
    await cluster.settle()


async def test_a_killed_supervisors_run_starts_anew(cluster: Scene) -> None:
    """The agent lives and says so: no lease has to end."""
    agent = await start_long(cluster, "of_supervisor")
    supervisor = cluster.world.supervisor_pid(agent)
    assert supervisor
    os.kill(supervisor, signal.SIGKILL)
    await cluster.beating("of_supervisor", 2)
    let_end(cluster, "of_supervisor")
    run = await cluster.run_ended("of_supervisor")
    assert run.state is RunState.COMPLETED
    assert [attempt.outcome for attempt in run.attempts] == [Outcome.DIED, Outcome.COMPLETED]
    await cluster.settle()


@pytest.mark.parametrize("how", ["SIGKILL", "SIGHUP"])
async def test_an_agent_restarted_within_its_lease_goes_on(cluster: Scene, how: str) -> None:
    job, name = f"of_restarted_{how}", f"keeper-{how}"
    cluster.world.add_agent(name, "--label=role=keeper", ttl_s=LONG_TTL_S)
    await cluster.world.start(name)
    await cluster.all_here()
    assert await start_long(cluster, job, require={"role": "keeper"}) == name
    before = cluster.presence(name)
    sessions = _lines(cluster, name, "session ")
    if how == "SIGHUP":
        cluster.world.nodes[name].signal(signal.SIGHUP)
    else:
        await cluster.world.kill(name)
        await cluster.world.start(name)
    await cluster.told(lambda: _lines(cluster, name, "session ") > sessions, "its session")
    (execution,) = cluster.executions(job)
    seen_ms = execution.last_ms
    await cluster.told(lambda: cluster.executions(job)[-1].last_ms > seen_ms, "a beat after it")
    let_end(cluster, job)
    run = await cluster.run_ended(job)
    assert run.state is RunState.COMPLETED
    assert [attempt.token for attempt in run.attempts] == [execution.token]
    after = cluster.presence(name)
    assert before is not None
    assert after is not None
    assert after.incarnation == before.incarnation
    assert await cluster.world.end(name) == 0
    del cluster.world.nodes[name]
    await cluster.settle()


def _lines(scene: Scene, node: str, text: str) -> int:
    return sum(text in line for name, line in scene.world.log if name == node)


async def test_a_presence_says_how_long_its_session_lasts(cluster: Scene) -> None:
    """The leader believes a loss only once one raft term has outlasted that (DESIGN 3)."""
    for name in cluster.world.names("agent"):
        presence = cluster.presence(name)
        assert presence is not None
        assert presence.session_ttl_s == cluster.world.ttl_s
    cluster.is_settled = True


async def test_a_second_agent_with_the_same_id_is_refused(cluster: Scene) -> None:
    cluster.world.add_agent("twin", id_="a1")
    await cluster.world.start("twin")
    node = cluster.world.nodes.pop("twin")
    async with asyncio.timeout(30):
        assert await node.wait() == 5
    lines = [line for name, line in cluster.world.log if name == "twin"]
    assert lines[-1].startswith("etcsched: ")
    assert "a1" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert cluster.world.supervisor_pid("twin") == 0
    await cluster.settle()


async def test_an_agent_whose_disk_is_lost_begins_anew(cluster: Scene) -> None:
    """As docs/operations.md has it: its host came back with an empty disk, within the old lease."""
    name, moving, staying = "diskless", "of_lost_disk", "held_on_lost_disk"
    cluster.world.add_agent(name, ttl_s=LOST_DISK_TTL_S)
    await cluster.world.start(name)
    await cluster.all_here()
    assert await start_long(cluster, moving, prefer=[name]) == name
    assert await start_long(cluster, staying, prefer=[name], on_agent_loss="hold") == name
    before = cluster.presence(name)
    assert before is not None
    supervisor = cluster.world.supervisor_pid(name)
    await cluster.world.kill(name)
    os.kill(supervisor, signal.SIGKILL)
    await cluster.told(lambda: not cluster.processes(), "what ran on the host to be gone")
    shutil.rmtree(cluster.world.directory / name)

    # Started again and again, as its service unit has it, until its old lease is over.
    await cluster.world.start(name)
    async with asyncio.timeout(LOST_DISK_TTL_S):
        assert await cluster.world.nodes[name].wait() == 5
    assert _lines(cluster, name, f"agent {name} is already running on host") == 1
    await cluster.history.until(lambda: cluster.presence(name) is None, "its old lease to end")
    await cluster.world.start(name)
    await cluster.all_here()
    after = cluster.presence(name)
    assert after is not None
    assert after.incarnation != before.incarnation
    shown = await cluster.cli("agents", "show", name)
    assert f"session  {after.incarnation}\n" in shown.out, shown

    # What had been claimed goes by on_agent_loss; the new disk knows nothing of it.
    await cluster.beating(moving, 2)
    let_end(cluster, moving)
    assert [attempt.outcome for attempt in (await cluster.run_ended(moving)).attempts] == [
        Outcome.DIED,
        Outcome.COMPLETED,
    ]
    (held,) = [ids[1] for ids in cluster.history.ids(Kind.RUN) if ids[0] == staying]
    record = cluster.history.record(Kind.RUN, Run, staying, held)
    assert record is not None
    assert record.state is RunState.HELD
    released = await cluster.cli("runs", "release", f"{staying}/{held}", "--died")
    assert released.code == 0, released
    assert not (await cluster.run_ended(staying)).late_reports
    assert await cluster.world.end(name) == 0
    del cluster.world.nodes[name]
    await cluster.settle()


async def test_a_presence_deleted_by_hand_makes_no_second_copy(cluster: Scene) -> None:
    agent = await start_long(cluster, "of_deleted_key")
    before = cluster.presence(agent)
    key = cluster.keys.of(Kind.PRESENCE, agent)
    deleted = await cluster.etcd.txn(Txn((), (Delete(key),)))
    await cluster.history.reached(deleted.revision)
    await cluster.history.until(lambda: key in cluster.history.now, "its presence")
    after = cluster.presence(agent)
    assert before is not None
    assert after is not None
    assert after.incarnation == before.incarnation
    let_end(cluster, "of_deleted_key")
    run = await cluster.run_ended("of_deleted_key")
    assert run.state is RunState.COMPLETED
    assert len(run.attempts) == len(cluster.executions("of_deleted_key")) == 1
    await cluster.settle()


async def test_all_agents_gone_is_a_gap(cluster: Scene) -> None:
    """... of which, when they are back, each job recovers what its mode says."""
    common = {"cron": "* * * * * *", "pickup_buffer": "1s", "overlap": "queue"}
    await cluster.apply(
        **{
            f"gap_{mode}": {"run": cluster.beats("beats=2"), "recovery": mode, **common}
            for mode in ("all", "last", "none")
        }
    )
    await cluster.runs_ended("gap_all", 1)
    for name in cluster.world.names("agent"):
        await cluster.world.kill(name)
    gaps = {("gap_all",), ("gap_last",), ("gap_none",)}
    await cluster.history.until(lambda: cluster.history.ids(Kind.GAP) >= gaps, "the gaps")
    opened_s = time.time()
    await cluster.told(lambda: time.time() > opened_s + 3, "three ticks in the gap")
    await cluster.world.start()
    await cluster.all_here()
    await cluster.settle()
    states = {
        mode: {run.id: run.state for run in cluster.ended(f"gap_{mode}")}
        for mode in ("all", "last", "none")
    }
    assert RunState.MISSED not in states["all"].values()
    assert RunState.MISSED in states["last"].values()
    assert RunState.MISSED in states["none"].values()


async def test_a_held_run_waits_for_an_operators_word(cluster: Scene) -> None:
    agent = await start_long(cluster, "of_hold", on_agent_loss="hold")
    await cluster.world.kill(agent)
    (run,) = [ids[1] for ids in cluster.history.ids(Kind.RUN) if ids[0] == "of_hold"]

    def is_held() -> bool:
        record = cluster.history.record(Kind.RUN, Run, "of_hold", run)
        return record is not None and record.state is RunState.HELD

    await cluster.history.until(is_held, "the run of of_hold to be held")
    refused = await cluster.cli("runs", "release", "of_hold/none", "--died")
    assert refused.code == 4, refused
    released = await cluster.cli("runs", "release", f"of_hold/{run}", "--reassign")
    assert released.code == 0, released
    await cluster.beating("of_hold", 2)
    let_end(cluster, "of_hold")
    check_moved(cluster, await cluster.run_ended("of_hold"), agent)
    await cluster.world.start(agent)
    check_late_word(await late_folded(cluster, "of_hold"), agent)
    await cluster.settle()


async def test_an_agent_back_within_the_grace_takes_its_attempt_up_again(cluster: Scene) -> None:
    """Frozen beyond its lease, so that its presence is gone; the process goes on meanwhile."""
    agent = await start_long(cluster, "of_grace", disconnect_grace="60s")
    before = cluster.presence(agent)
    assert before is not None
    cluster.world.freeze(agent)
    await cluster.history.until(lambda: cluster.presence(agent) is None, "its presence to go")
    cluster.world.thaw(agent)

    def is_adopted() -> bool:
        (run,) = [ids[1] for ids in cluster.history.ids(Kind.RUN) if ids[0] == "of_grace"]
        claim = cluster.history.record(Kind.REPORT, Report, agent, "of_grace", run)
        return claim is not None and claim.incarnation != before.incarnation

    await cluster.history.until(is_adopted, "the claim to name the new session")
    (execution,) = cluster.executions("of_grace")
    seen_ms = execution.last_ms
    await cluster.told(lambda: cluster.executions("of_grace")[-1].last_ms > seen_ms, "a beat")
    let_end(cluster, "of_grace")
    run = await cluster.run_ended("of_grace")
    assert run.state is RunState.COMPLETED
    assert [attempt.token for attempt in run.attempts] == [execution.token]
    await cluster.settle()


async def test_an_agent_restarted_beyond_its_lease_takes_its_attempt_up_again(
    cluster: Scene,
) -> None:
    agent = await start_long(cluster, "of_grace_killed", disconnect_grace="60s")
    await cluster.world.kill(agent)
    await cluster.history.until(lambda: cluster.presence(agent) is None, "its presence to go")
    await cluster.world.start(agent)
    await cluster.all_here()
    let_end(cluster, "of_grace_killed")
    run = await cluster.run_ended("of_grace_killed")
    assert run.state is RunState.COMPLETED
    (execution,) = cluster.executions("of_grace_killed")
    assert [attempt.token for attempt in run.attempts] == [execution.token]
    await cluster.settle()


async def test_what_continues_reports_late(cluster: Scene) -> None:
    agent = await start_long(cluster, "of_continue", on_disconnect="continue")
    cluster.world.freeze(agent)
    await cluster.beating("of_continue", 2)
    let_end(cluster, "of_continue")
    moved = await cluster.run_ended("of_continue")
    assert [attempt.outcome for attempt in moved.attempts] == [Outcome.DIED, Outcome.COMPLETED]
    cluster.world.thaw(agent)
    (late,) = (await late_folded(cluster, "of_continue")).late_reports
    assert (late.agent, late.outcome) == (agent, Outcome.COMPLETED)
