"""Jobs that run on each agent, told as stories in virtual time."""

from __future__ import annotations

import random
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from etcsched.core.leader import effects as fx
from etcsched.core.records import Keep, Kind, Link, Retry, Run
from etcsched.core.schedule import At
from etcsched.core.splay import delay_ms
from etcsched.core.states import (
    FINAL,
    JobState,
    OnAgentLoss,
    Origin,
    Outcome,
    Overlap,
    Recovery,
    RunState,
)
from etcsched.core.times import Utc
from etcsched.testing.simulated_agent import SimulatedAgent
from etcsched.testing.world import World
from tests.support.jobs import job, trigger

ONCE = At(Utc("2026-11-22T12:00:05.000Z"))
TICK = "20261122T120005Z"


@pytest.fixture
def world() -> World:
    world = World()
    world.scheduler("s1")
    for name in ("a1", "a2", "a3"):
        world.agent(name, takes_s=1.0)
    world.advance(0.5)
    return world


def by_agent(world: World, name: str = "backup") -> dict[str, Run]:
    """Of the only tick."""
    return {run.id.partition("@")[2]: run for run in world.runs(name).values()}


def states(world: World) -> dict[str, str]:
    return {host: run.state.value for host, run in by_agent(world).items()}


def test_one_run_on_each_eligible_agent(world: World) -> None:
    world.agent("a4", labels={"disk": "ssd"})
    world.drain("a2")
    world.apply(job("backup", ONCE, per_host=True))
    world.apply(job("trim", ONCE, per_host=True, require={"disk": "ssd"}))
    world.advance(10)
    runs = by_agent(world)
    assert {host: (run.id, run.agent) for host, run in runs.items()} == {
        host: (f"{TICK}@{host}", host) for host in ("a1", "a3", "a4")
    }
    assert set(states(world).values()) == {"completed"}
    assert by_agent(world, "trim").keys() == {"a4"}
    assert not world.records(Kind.FAN_OUT)


def test_more_agents_than_a_transaction_takes() -> None:
    world = World()
    world.scheduler("s1")
    for number in range(150):
        world.agent(f"a{number:03}", takes_s=1.0)
    world.apply(job("backup", ONCE, per_host=True, keep=Keep(runs=1000)))
    world.advance(30)
    assert len(by_agent(world)) == 150
    assert set(states(world).values()) == {"completed"}


@pytest.mark.parametrize("writes", range(1, 16))
def test_a_leader_that_dies_on_the_way_leaves_no_agent_out(world: World, writes: int) -> None:
    """Whoever joins meanwhile gets none."""
    world.scheduler("s2")
    world.apply(job("backup", ONCE, per_host=True))
    world.advance(4)
    world.leader_dies_after = world.leader_writes + writes
    world.advance(2)
    world.agent("late", takes_s=1.0)
    world.advance(40)
    made = world.records(Kind.FAN_OUT), states(world)
    assert made[1].keys() - {"late"} == {"a1", "a2", "a3"}
    was_decided = world.runs("backup")[f"{TICK}@a1"].history[0].term
    assert set(made[1].values()) == {"completed"}
    for agent in world.agents.values():
        assert len(agent.spans) == (1 if agent.name in made[1] else 0)
    if was_decided == 1:
        assert "late" not in made[1]
    assert not made[0]


def test_overlap_is_a_matter_of_each_agent(world: World) -> None:
    world.agents["a1"].takes_s = 15.0
    world.apply(job("backup", every_s=10, per_host=True))
    world.advance(45)
    found: dict[str, list[str]] = {}
    for run in world.runs("backup").values():
        found.setdefault(run.id.partition("@")[2], []).append(run.state.value)
    assert found["a1"] == ["completed", "overlapped", "completed", "overlapped"]
    assert found["a2"] == found["a3"] == ["completed"] * 4


@pytest.mark.parametrize("overlap", [Overlap.QUEUE, Overlap.REPLACE, Overlap.ALLOW])
def test_other_overlaps_of_each_agent(world: World, overlap: Overlap) -> None:
    world.agents["a1"].takes_s = 15.0
    world.apply(job("backup", every_s=10, per_host=True, overlap=overlap))
    world.advance(39)
    mine = [run.state.value for key, run in world.runs("backup").items() if key.endswith("@a1")]
    assert (
        mine
        == {
            Overlap.QUEUE: ["completed", "assigned", "queued"],
            Overlap.REPLACE: ["cancelled", "cancelled", "assigned"],
            Overlap.ALLOW: ["completed", "completed", "assigned"],
        }[overlap]
    )
    others = [run for key, run in world.runs("backup").items() if not key.endswith("@a1")]
    assert {run.state.value for run in others} == {"completed"}


def test_an_agent_that_is_away_is_left_out_and_none_is_an_outage(world: World) -> None:
    world.apply(job("backup", every_s=10, per_host=True, recovery=Recovery.LAST))
    world.agents["a3"].leave()
    world.advance(11)
    assert by_agent(world).keys() == {"a1", "a2"}
    for name in ("a1", "a2"):
        world.agents[name].leave()
    world.advance(300)
    assert world.records(Kind.GAP)
    world.agent("a1")
    world.agent("a2")
    world.advance(18)
    after = [run for run in world.runs("backup").values() if run.created_at > "2026-11-22T12:05:00"]
    ran = {run.id: run.state.value for run in after if run.agent}
    assert {key.partition("@")[2] for key in ran} == {"a1", "a2"}
    assert set(ran.values()) == {"completed"}
    missed = [run for run in after if run.state.value == "missed"]
    assert sum(run.missed_count or 1 for run in missed) > 10
    assert all("@" not in run.id for run in missed)


def test_while_nobody_leads_late_ticks_come_to_each_agent(world: World) -> None:
    world.apply(job("backup", every_s=10, per_host=True))
    world.advance(11)
    world.nodes["s1"].kill()
    world.advance(30)
    world.scheduler("s2")
    world.advance(30)
    ticks: dict[str, set[str]] = {}
    for key, run in world.runs("backup").items():
        tick, _, host = key.partition("@")
        ticks.setdefault(tick, set()).add(host)
        assert run.state.value == "completed", run
    assert all(hosts == {"a1", "a2", "a3"} for hosts in ticks.values())
    assert len(ticks) == 7


@pytest.mark.parametrize("loss", list(OnAgentLoss))
def test_a_run_never_moves_to_another_agent(world: World, loss: OnAgentLoss) -> None:
    world.agents["a1"].takes_s = 100.0
    world.apply(job("backup", ONCE, per_host=True, on_agent_loss=loss))
    world.advance(7)
    world.agents["a1"].kill()
    world.advance(30)
    run = by_agent(world)["a1"]
    assert run.state.value == ("held" if loss is OnAgentLoss.HOLD else "died")
    assert [span.run for span in world.agents["a2"].spans] == [f"{TICK}@a2"]


@pytest.mark.parametrize(("away_s", "state"), [(60, "completed"), (200, "missed")])
def test_unclaimed_it_waits_for_its_agent_a_while(world: World, away_s: float, state: str) -> None:
    world.agents["a1"].claims_nothing = True
    world.apply(job("backup", ONCE, per_host=True, pickup_buffer_s=120.0))
    world.advance(7)
    world.agents["a1"].kill()
    world.advance(away_s)
    world.agent("a1", takes_s=1.0)
    world.advance(20)
    assert states(world) == {"a1": state, "a2": "completed", "a3": "completed"}


def test_a_reported_death_is_tried_again_on_the_same_agent(world: World) -> None:
    world.agents["a1"].ends_as = Outcome.DIED
    world.apply(job("backup", ONCE, per_host=True, max_reassigns=2))
    world.advance(20)
    run = by_agent(world)["a1"]
    assert run.state.value == "died"
    assert [attempt.agent for attempt in run.attempts] == ["a1"] * 3


@pytest.mark.parametrize("seed", range(8))
def test_a_tick_wins_over_a_retry_of_its_instant(seed: int) -> None:
    """Also between the tick's decision and its run on the agent that the retry waits for."""
    world = World(chance=random.Random(seed))
    world.scheduler("s1")
    world.agent("a1", takes_s=1.0, ends_as=Outcome.FAILED)
    world.advance(0.5)
    world.apply(job("backup", every_s=10, per_host=True, retry=Retry(max=3, interval_s=9.0)))
    world.advance(35)
    first, second, last = world.runs("backup").values()
    for ended in (first, second):
        assert ended.state is RunState.FAILED
        assert "the job's next run is there" in ended.history[-1].cause
        assert len(ended.attempts) == 1
    assert last.state is RunState.RETRYING


@pytest.mark.parametrize("chained_s", [30.0, 68.5])
def test_being_chained_to_ends_the_retries_on_each_agent(world: World, chained_s: float) -> None:
    """A chained run is bound to no agent, and yet a run of the job; also where it comes just as
    the retries are due."""
    for name in ("a1", "a2"):
        world.agents[name].ends_as = Outcome.FAILED
    retry = Retry(max=2, interval_s=64.0)
    world.apply(job("backup", ONCE, per_host=True, retry=retry))
    world.apply(job("load", state=JobState.AD_HOC_ACTIVE, chain=(Link(to="backup"),)))
    world.advance(10)
    assert states(world) == {"a1": "retrying", "a2": "retrying", "a3": "completed"}
    for agent in world.agents.values():
        agent.ends_as = Outcome.COMPLETED
    world.advance(chained_s - world.now_s)
    world.request(trigger("20261122T120100Z-r1", "load"))
    world.advance(2)
    for name in ("a1", "a2"):
        run = by_agent(world)[name]
        assert run.state is RunState.FAILED
        assert "no retry any more: the job's next run is there" in run.history[-1].cause
    world.advance(60)
    assert [run.state for run in world.runs("backup").values() if not run.host] == [
        RunState.COMPLETED
    ]


def test_the_splay_is_each_agents_own(world: World) -> None:
    world.apply(job("backup", ONCE, per_host=True, splay_s=60.0))
    world.advance(80)
    begun = {name: agent.spans[0].start_s - 5 for name, agent in world.agents.items()}
    assert len(set(begun.values())) == 3
    assert all(0 <= delay_s < 60 for delay_s in begun.values())


def test_a_stop_between_decision_and_runs(world: World) -> None:
    """It is known as the tick's runs are made."""
    world.apply(job("backup", ONCE, per_host=True))
    world.advance(4)
    world.leader_dies_after = world.leader_writes + 2
    world.advance(2)
    world.set_state("backup", JobState.DISABLED)
    world.scheduler("s2")
    world.advance(30)
    assert set(states(world).values()) <= {"missed", "completed", "cancelled"}
    assert states(world).keys() == {"a1", "a2", "a3"} or states(world).keys() == {""}


def test_what_is_queued_behind_a_bound_run_goes_as_that_ends(world: World) -> None:
    world.agents["a1"].takes_s = 100.0
    world.apply(job("backup", ONCE, per_host=True))
    world.advance(10)
    world.agents["a1"].takes_s = 1.0
    world.apply(job("source", At(Utc("2026-11-22T12:00:20.000Z")), chain=(Link(to="backup"),)))
    world.advance(60)
    (chained,) = [r for r in world.runs("backup").values() if r.origin is Origin.CHAIN]
    assert chained.state is RunState.QUEUED
    world.advance(60)
    assert world.runs("backup")[chained.id].state is RunState.COMPLETED


def test_what_is_queued_doesnt_wait_for_bound_runs_that_wait_themselves(world: World) -> None:
    """One for a retry, one behind another on an agent that is gone."""
    world.agents["a1"].ends_as, world.agents["a2"].takes_s = Outcome.FAILED, 90.0
    retry = Retry(max=1, interval_s=3600.0)
    ticks = (At(Utc("2026-11-22T12:01:00.000Z")), At(Utc("2026-11-22T12:02:00.000Z")))
    world.apply(job("backup", *ticks, per_host=True, overlap=Overlap.QUEUE, retry=retry))
    at = At(Utc("2026-11-22T12:01:30.000Z"))  # Before the run whose retry it would end else.
    world.apply(job("source", at, hosts=("a3",), chain=(Link(to="backup"),)))
    world.advance(145)
    world.agents["a1"].ends_as = Outcome.COMPLETED
    world.agents["a2"].kill()
    world.advance(60)
    waits = {run.host: run.state for run in world.runs("backup").values() if run.host != "a3"}
    assert waits == {"a1": RunState.RETRYING, "a2": RunState.QUEUED, "": RunState.COMPLETED}
    (chained,) = [r for r in world.runs("backup").values() if r.origin is Origin.CHAIN]
    assert chained.state is RunState.COMPLETED


@pytest.mark.parametrize("ends_as", [Outcome.COMPLETED, Outcome.FAILED])
def test_one_that_waits_for_a_slot_gives_up_when_its_agent_has_gone(ends_as: Outcome) -> None:
    """Next in its line, or due for a retry, as another job has the only slot."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", slots=1, takes_s=10.0, ends_as=ends_as)
    world.agent("a2", takes_s=1.0)
    world.advance(0.5)
    twice = (At(Utc("2026-11-22T12:03:05.000Z")), At(Utc("2026-11-22T12:03:10.000Z")))
    retry = Retry(max=3, interval_s=1.0)
    ticks = twice if ends_as is Outcome.COMPLETED else twice[:1]
    world.apply(
        job(
            "backup", *ticks, per_host=True, overlap=Overlap.QUEUE, recover_within_s=600.0,
            retry=retry,
        )
    )  # fmt: skip
    at = At(Utc("2026-11-22T12:03:12.000Z"))
    world.apply(job("hog", at, hosts=("a1",), priority=9, on_agent_loss=OnAgentLoss.DIED))
    world.advance(180 + 11)
    world.agents["a1"].takes_s = 4000.0
    world.advance(150)  # No timer of a pickup buffer is left.
    assert list(world.states("hog").values()) == ["assigned"]
    world.agents["a1"].kill()
    world.advance(660)
    last = [run for run in world.runs("backup").values() if run.host == "a1"][-1]
    assert last.state.value == ("missed" if ends_as is Outcome.COMPLETED else "failed")


def test_a_calendar_that_forbids_it_is_acknowledged_before_its_tick(world: World) -> None:
    """And the leader's news of it are late."""
    world.calendar("holidays", exclude=("2026-12-25",))
    for name, per_host in (("backup", True), ("plain", False)):
        world.apply(job(name, ONCE, per_host=per_host, calendars=("holidays",)))
    world.advance(4.0)
    leader = world.nodes["s1"]
    leader.is_cut_off = True
    world.calendar("holidays", exclude=("2026-11-22", "2026-12-25"))
    world.advance(1.0)
    leader.send_all()
    leader.is_cut_off = False
    world.advance(10)
    assert (world.runs("backup"), world.runs("plain")) == ({}, {})


@pytest.mark.parametrize(
    ("mode", "limit", "away_s", "left"),
    [
        (Recovery.NONE, 100, 300, []),
        (Recovery.CONFLICTED, 100, 300, []),
        (Recovery.LAST, 100, 300, ["120007"]),
        (Recovery.LAST, 100, 4000, []),
        (Recovery.ALL, 100, 300, ["120005", "120006", "120007"]),
        (Recovery.ALL, 2, 300, ["120006", "120007"]),
        (Recovery.ALL, 100, 4000, []),
    ],
)
def test_those_that_waited_as_the_leader_went_go_by_recovery(
    mode: Recovery, limit: int, away_s: int, left: list[str]
) -> None:
    """They waited for a slot of their agent, and their buffer ended while nobody led."""
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", slots=1, takes_s=9000.0)
    world.advance(0.5)
    world.apply(job("hog", At(Utc("2026-11-22T12:00:01.000Z"))))
    ticks = [At(Utc(f"2026-11-22T12:00:0{n}.000Z")) for n in (5, 6, 7)]
    world.apply(
        job(
            "backup", *ticks, per_host=True, overlap=Overlap.ALLOW,
            recovery=mode, recover_within_s=3600.0, catch_up_limit=limit,
        )
    )  # fmt: skip
    world.advance(10)
    world.nodes["s1"].kill()
    world.advance(away_s)
    world.scheduler("s2")
    world.advance(60)
    queued = {run.id[9:15] for run in world.runs("backup").values() if run.state.value == "queued"}
    assert sorted(queued) == left
    agent.takes_s = 1.0
    world.advance(9000)
    ended = {run.id[9:15]: run.state.value for run in world.runs("backup").values()}
    assert ended == {
        tick: "completed" if tick in left else "missed" for tick in ("120005", "120006", "120007")
    }


def test_a_late_tick_is_the_last_one_also_for_an_agent() -> None:
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", slots=1, takes_s=400.0)
    world.advance(0.5)
    world.apply(job("hog", At(Utc("2026-11-22T12:00:01.000Z"))))
    ticks = At(Utc("2026-11-22T12:00:05.000Z")), At(Utc("2026-11-22T12:05:00.000Z"))
    world.apply(job("backup", *ticks, per_host=True, overlap=Overlap.ALLOW))
    world.advance(10)
    world.nodes["s1"].kill()
    world.advance(320)
    world.scheduler("s2")
    agent.takes_s = 1.0
    world.advance(100)
    ended = {run.id[9:15]: run.state.value for run in world.runs("backup").values()}
    assert ended == {"120005": "missed", "120500": "completed"}


@pytest.mark.parametrize(
    ("mode", "state"), [(Recovery.NONE, "missed"), (Recovery.LAST, "completed")]
)
@pytest.mark.parametrize("is_led", [True, False])
def test_an_agents_tick_is_late_by_its_own_splay(mode: Recovery, state: str, is_led: bool) -> None:
    """Two minutes after the tick one agent's buffer is over, and the other's splay isn't."""
    backup = job("backup", ONCE, per_host=True, splay_s=600.0, pickup_buffer_s=30.0, recovery=mode)
    names = [f"a{n}" for n in range(100)]
    early, later = (
        min(names, key=partial(delay_ms, backup)),
        max(names, key=partial(delay_ms, backup)),
    )
    assert delay_ms(backup, early) < 30_000
    assert delay_ms(backup, later) > 500_000
    world = World()
    world.scheduler("s1")
    agents = [world.agent(name, takes_s=1.0) for name in (early, later)]
    world.advance(0.5)
    world.apply(backup)
    world.advance(1)
    if is_led:
        for agent in agents:
            agent.leave()
    else:
        world.nodes["s1"].kill()
    world.advance(180)
    if is_led:
        for name in (early, later):
            world.agent(name, takes_s=1.0)
    else:
        world.scheduler("s2")
    world.advance(20)
    assert states(world) == {early: state, later: "ready"}
    world.advance(600)
    assert states(world) == {early: state, later: "completed"}
    (span,) = world.agents[later].spans
    assert span.start_s == pytest.approx(5 + delay_ms(backup, later) / 1000, abs=0.1)


def test_late_ticks_whose_agents_go_while_they_are_decided() -> None:
    """A new leader decides them one by one; what is left waits for an agent."""
    world = World()
    world.scheduler("s1")
    world.agent("a1")
    world.advance(0.5)
    ticks = [At(Utc(f"2026-11-22T12:01:0{second}.000Z")) for second in range(3)]
    fields: dict[str, Any] = {"pickup_buffer_s": 6.0, "recovery": Recovery.ALL}
    world.apply(job("backup", *ticks, per_host=True, **fields))
    world.advance(59)
    world.nodes["s1"].stop()
    world.advance(8)
    s2 = world.scheduler("s2")
    while s2.leader is None:
        s2.look()
    s2.send_all()
    world.agents["a1"].leave()
    world.advance(30)
    world.agent("a2")
    world.advance(30)
    ticks_run = sorted(run.partition("@")[0] for run in world.states("backup"))
    assert ticks_run == ["120100Z", "120101Z", "120102Z"]


def test_one_that_waits_for_its_agent_as_its_job_is_moved_to_others() -> None:
    """Whose outage begins with the next leader. What is bound still goes by the mode."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=60.0, slots=1)
    world.advance(0.5)
    ticks = [At(Utc(f"2026-11-22T12:0{minute}:05.000Z")) for minute in range(3)]
    fields: dict[str, Any] = {"per_host": True, "pickup_buffer_s": 40.0, "recovery": Recovery.ALL}
    world.apply(job("filler", At(Utc("2026-11-22T12:00:03.000Z"))))
    world.apply(job("backup", *ticks, hosts=("a1",), **fields))
    world.advance(8)
    world.apply(job("backup", *ticks, hosts=("a2",), **fields))
    world.advance(2)
    world.nodes["s1"].kill()
    world.advance(200)
    world.scheduler("s2")
    world.advance(600)
    assert world.states("backup") == {"120005Z@a1": "completed"}


@pytest.mark.parametrize("comes_back", [False, True])
def test_it_waits_for_its_agent_as_long_as_its_buffer_whatever_it_waited_for_before(
    comes_back: bool,
) -> None:
    """For its conflict group, and then for a slot."""
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", takes_s=55.0, slots=1)
    world.advance(0.5)
    world.apply(job("rival", At(Utc("2026-11-22T12:00:05.000Z")), hosts=("a1",)))
    fields: dict[str, Any] = {"priority": 9, "on_agent_loss": OnAgentLoss.DIED}
    world.apply(job("hog", At(Utc("2026-11-22T12:00:50.000Z")), hosts=("a1",), **fields))
    world.apply(job("backup", At(Utc("2026-11-22T12:00:10.000Z")), hosts=("a1",), per_host=True))
    world.group("g", "rival", "backup")
    world.advance(75)
    assert world.states("backup") == {"120010Z@a1": "ready"}
    agent.kill()
    if comes_back:
        world.advance(70)
        world.agent("a1", takes_s=30.0, slots=1)
        world.advance(2)
    else:
        world.advance(60)
    assert world.states("backup") == {"120010Z@a1": "missed"}
    (run,) = world.runs("backup").values()
    assert run.history[-1].at == "2026-11-22T12:02:10.000Z"


# --- what waits in no buffer has its time from when its agent goes


def test_what_waits_to_be_tried_again_outlasts_a_start_of_its_agent(world: World) -> None:
    """It has waited for the end of a pause, and for no agent."""
    a1 = world.agents["a1"]
    a1.takes_s, a1.ends_as = 3.0, Outcome.DIED
    world.apply(job("backup", ONCE, per_host=True, hosts=("a1",)))
    world.advance(5.5)
    world.pause("backup")
    world.advance(600)
    assert states(world) == {"a1": "ready"}
    a1.kill()
    world.advance(15)
    world.agent("a1", takes_s=1.0)
    world.advance(5)
    world.resume("backup")
    world.advance(5)
    assert states(world) == {"a1": "completed"}


@pytest.mark.parametrize(("away_s", "state"), [(20.0, "completed"), (900.0, "missed")])
def test_what_waits_for_its_group_however_late_outlasts_a_start_of_its_agent(
    world: World, away_s: float, state: str
) -> None:
    world.agents["a2"].takes_s = 1000.0
    world.apply(job("report", At(Utc("2026-11-22T12:00:03.000Z")), hosts=("a2",)))
    fields: dict[str, Any] = {"hosts": ("a1",), "recovery": Recovery.CONFLICTED}
    world.apply(job("backup", ONCE, per_host=True, **fields))
    world.group("ledger", "report", "backup")
    world.advance(600)
    assert states(world) == {"a1": "conflicted"}
    world.agents["a1"].kill()
    world.advance(away_s)
    world.agent("a1", takes_s=1.0)
    world.advance(600)
    assert states(world) == {"a1": state}


def test_what_isnt_made_yet_as_its_job_is_deleted_doesnt_run_once_it_is_made_anew(
    world: World,
) -> None:
    definition = job("backup", ONCE, per_host=True)
    world.apply(definition)
    edits = [1]

    def edits_before(write: fx.Write) -> bool:
        if edits and isinstance(write, fx.CreateRun):
            edits.pop()
            world.delete("backup")
            world.apply(definition)
        return False

    world.rejects = edits_before
    world.advance(30)
    assert not edits
    assert states(world) == dict.fromkeys(("a1", "a2", "a3"), "missed")
    assert world.records(Kind.FAN_OUT) == {}


def moved_to_each(world: World, overlap: Overlap) -> None:
    """While ``a1`` has a run of it for half a minute, its job comes to run on each agent."""
    world.agents["a1"].takes_s = 30.0
    world.apply(job("backup", ONCE, prefer=("a1",), overlap=overlap))
    world.advance(8)
    world.agents["a1"].takes_s = 1.0
    at = At(Utc("2026-11-22T12:00:20.000Z"))
    world.apply(job("backup", at, per_host=True, overlap=overlap))


def never_at_once(agent: SimulatedAgent) -> bool:
    """Whether no two processes of the job overlapped on it."""
    spans = [(s.start_s, s.end_s or 0.0) for s in agent.spans if s.job == "backup"]
    return all(first[1] <= second[0] for first, second in pairwise(sorted(spans)))


@pytest.mark.parametrize(
    ("overlap", "old", "new"),
    [
        (Overlap.SKIP, "completed", "overlapped"),
        (Overlap.QUEUE, "completed", "completed"),
        (Overlap.REPLACE, "cancelled", "completed"),
    ],
)
def test_what_an_agent_has_since_before_its_job_ran_on_each_is_in_the_way_there(
    world: World, overlap: Overlap, old: str, new: str
) -> None:
    """And nowhere else: two at once on one host are what nobody wants of such a job."""
    moved_to_each(world, overlap)
    world.advance(20)
    by_host = {run.host: run.state.value for run in world.runs("backup").values()}
    assert (by_host["a2"], by_host["a3"]) == ("completed", "completed")
    world.advance(20)
    by_host = {run.host: run.state.value for run in world.runs("backup").values()}
    assert (by_host[""], by_host["a1"]) == (old, new)
    assert never_at_once(world.agents["a1"])


def test_one_that_may_overlap_begins_beside_it(world: World) -> None:
    moved_to_each(world, Overlap.ALLOW)
    world.advance(5 + 9)
    by_host = {run.host: run.state.value for run in world.runs("backup").values()}
    assert by_host == {"": "assigned", "a1": "completed", "a2": "completed", "a3": "completed"}


def test_what_waits_as_its_job_is_moved_to_each_agent_goes_once_none_runs(world: World) -> None:
    for agent in world.agents.values():
        agent.takes_s = 30.0
    ticks = (ONCE, At(Utc("2026-11-22T12:00:10.000Z")))
    world.apply(job("backup", *ticks, overlap=Overlap.QUEUE))
    world.advance(12)
    at = At(Utc("2026-11-22T12:00:20.000Z"))
    world.apply(job("backup", at, per_host=True, overlap=Overlap.QUEUE))
    world.advance(48)
    waits = world.runs("backup")["20261122T120010Z"]
    assert waits.state is RunState.QUEUED
    world.advance(60)
    spans = [span for agent in world.agents.values() for span in agent.spans]
    (begun_s,) = [span.start_s for span in spans if span.run == waits.id]
    assert begun_s >= max(span.end_s or 0.0 for span in spans if span.run != waits.id)
    assert set(world.states("backup").values()) == {"completed"}


def test_what_is_lost_isnt_moved_beside_the_jobs_run_on_another_agent(world: World) -> None:
    for agent in world.agents.values():
        agent.takes_s = 60.0
    world.apply(job("backup", ONCE, prefer=("a1",)))
    world.advance(8)
    at = At(Utc("2026-11-22T12:00:20.000Z"))
    world.apply(job("backup", at, per_host=True, hosts=("a2", "a3")))
    world.advance(15)
    world.agents["a1"].kill()
    world.advance(40)
    old = world.runs("backup")[TICK]
    assert (old.reassigns, old.state) == (1, RunState.QUEUED)
    world.advance(100)
    assert world.runs("backup")[TICK].state is RunState.COMPLETED


@pytest.mark.parametrize("seed", range(12))
def test_on_one_agent_a_jobs_runs_never_meet_whatever_made_them(seed: int) -> None:
    """Chained runs and ticks, while the job is moved to each agent and back, agents are lost, and
    leaders; and in the end nothing is left waiting."""
    chance = random.Random(seed)
    world = World(chance=random.Random(seed + 1))
    for number in range(2):
        world.scheduler(f"s{number}")
    for name in ("a1", "a2", "a3"):
        world.agent(name, takes_s=chance.choice([1.0, 6.0]), slots=4)
    world.advance(0.5)
    overlap = chance.choice([Overlap.SKIP, Overlap.QUEUE, Overlap.REPLACE])
    world.apply(job("source", every_s=9, chain=(Link(to="backup"),), overlap=Overlap.ALLOW))

    def edit(every_s: int = 5) -> None:
        per_host = chance.random() < 0.7
        world.apply(job("backup", every_s=every_s, per_host=per_host, overlap=overlap))

    edit()
    agents = list(world.agents.values())
    for step in range(25):
        world.advance(chance.choice([0.0, 0.01, 1.0, 3.0, 7.0]))
        act = chance.randrange(8)
        if act < 2:
            edit(chance.choice([5, 13]))
        elif act == 2:
            name = chance.choice(sorted(world.agents))
            world.agents[name].kill()
            agents.append(world.agent(name, takes_s=chance.choice([1.0, 6.0]), slots=4))
        elif act == 3:
            world.leader_dies_after = world.leader_writes + 1
            world.scheduler(f"s{step + 2}")
        elif act == 4:
            chance.choice(agents).takes_s = chance.choice([1.0, 6.0, 12.0])
    world.leader_dies_after = None
    world.scheduler("last")
    world.advance(30)
    world.set_state("source", JobState.DISABLED)
    edit(86_400 * 30)
    world.advance(900)
    assert {run.state for run in world.runs("backup").values()} <= FINAL
    for agent in agents:
        assert never_at_once(agent)
