"""What something waits for has changed, in a way that no event on it tells: it goes on at once."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from etcsched.core.records import ClusterSettings, Kind, Link, Retry, Window
from etcsched.core.schedule import At
from etcsched.core.states import JobState, Lifecycle, Outcome, Overlap, Recovery, RunState
from etcsched.core.times import Utc
from etcsched.testing.world import World
from tests.support.jobs import cancel, job, resubmit, trigger

ORDERS = (None, *range(20))
"""In which order answers and events come to the leader."""


def at(time: str) -> At:
    return At(Utc(f"2026-11-22T{time}.000Z"))


def started(*schedulers: str, order: int | None = None) -> World:
    world = World(chance=random.Random(order) if order is not None else None)
    for name in schedulers:
        world.scheduler(name)
    return world


# --- conflict groups


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("hosts", [(), ("elsewhere",)])
def test_those_below_a_job_that_has_recovered(order: int | None, hosts: tuple[str, ...]) -> None:
    """At its takeover a leader lets ticks above go first, of which none runs in the end."""
    world = started("s1", order=order)
    agent = world.agent("a1", takes_s=5.0)
    world.advance(0.5)
    world.apply(
        job("high", at("12:01:00"), pickup_buffer_s=10.0, hosts=hosts, recovery=Recovery.NONE)
    )
    world.apply(job("low", at("12:00:03"), retry=Retry(max=1, interval_s=20.0)))
    world.group("g", "high", "low")
    agent.ends_as = Outcome.FAILED
    world.advance(10)
    agent.ends_as = Outcome.COMPLETED
    world.nodes["s1"].kill()
    world.advance(175)
    world.scheduler("s2")
    world.advance(20)
    assert world.states("low") == {"120003": "completed"}


@pytest.mark.parametrize("what", ["pause", "leave", "drain"])
def test_who_left_its_turn_to_one_that_cant_take_it(what: str) -> None:
    world = started("s1")
    world.agent("a1", takes_s=1000.0)
    a2 = world.agent("a2", takes_s=1000.0)
    world.advance(0.5)
    world.apply(job("high", at("12:00:20"), hosts=("a2",), recovery=Recovery.CONFLICTED))
    world.apply(job("low", at("12:00:10"), at("12:00:30"), overlap=Overlap.ALLOW, hosts=("a1",)))
    world.group("g", "high", "low")
    world.advance(35)
    assert world.states("low") == {"120010": "assigned", "120030": "conflicted"}
    match what:
        case "pause":
            world.pause("high")
        case "leave":
            a2.leave()
        case "drain":
            world.drain("a2")
    world.advance(5)
    assert world.states("low") == {"120010": "assigned", "120030": "assigned"}


def test_a_blocked_run_holds_nobody_up_whom_its_own_agent_cant_help() -> None:
    """That another agent would take other runs of its job doesn't count."""
    world = started("s1")
    world.agent("a1", takes_s=1000.0)
    world.agent("a2", takes_s=1000.0)
    world.advance(0.5)
    world.apply(
        job("high", at("12:00:20"), per_host=True, hosts=("a1", "a2"), pickup_buffer_s=300.0)
    )
    world.apply(job("low", at("12:00:10"), at("12:00:30"), overlap=Overlap.ALLOW, hosts=("a1",)))
    world.group("g", "high", "low")
    world.advance(22)
    world.drain("a2")
    world.request(cancel("20261122T120022Z-c", "20261122T120020Z@a1", "high"))
    world.advance(15)
    assert world.states("high") == {"120020Z@a1": "cancelled", "120020Z@a2": "conflicted"}
    assert world.states("low") == {"120010": "assigned", "120030": "assigned"}


@pytest.mark.parametrize("waits_as", [RunState.QUEUED, RunState.RETRYING])
def test_a_job_that_overlaps_itself_lets_go_whatever_the_blocked_run_waits_as(
    waits_as: RunState,
) -> None:
    world = started("s1")
    agent = world.agent("a1", takes_s=15.0, slots=10)
    retry = Retry(max=int(waits_as is RunState.RETRYING), interval_s=30.0)
    world.advance(0.5)
    world.apply(job("high", state=JobState.AD_HOC_ACTIVE, retry=retry))
    world.apply(job("low", every_s=10, overlap=Overlap.ALLOW))
    world.group("g", "high", "low")
    agent.ends_as = Outcome.FAILED
    world.request(trigger("20261122T120001-t", "high"))
    world.advance(20)
    agent.ends_as = Outcome.COMPLETED
    world.advance(20)
    if waits_as is RunState.QUEUED:
        world.request(resubmit("20261122T120040-r", "20261122T120001-t", "high"))
    world.advance(60)
    assert RunState.COMPLETED in {run.state for run in world.runs("high").values()}


# --- outages


@pytest.mark.parametrize("changes_leader", [False, True])
def test_a_window_in_an_outage_loses_nothing_before_it(changes_leader: bool) -> None:
    world = started("s1", "s2")
    agent = world.agent("a1")
    since, until = Utc("2026-11-22T12:20:00.000Z"), Utc("2026-11-22T12:40:00.000Z")
    off = Window(since=since, until=until, state=JobState.DISABLED)
    world.advance(0.5)
    world.apply(job("backup", every_s=300, windows=(off,), recovery=Recovery.ALL))
    world.advance(30)
    agent.leave()
    world.advance(60 * 25)
    if changes_leader:
        world.leader().kill()
    world.advance(60 * 17)
    world.agent("a2")
    world.advance(60)
    due = ("120500", "121000", "121500", "124000")
    assert world.states("backup") == dict.fromkeys(due, "completed")


@pytest.mark.parametrize("is_led", [True, False])
def test_an_outage_that_only_a_window_let_begin_ends_with_it(is_led: bool) -> None:
    """Whether or not somebody led as it began."""
    world = started("s1")
    agent = world.agent("a1")
    since, until = Utc("2026-11-22T12:01:00.000Z"), Utc("2026-11-22T12:10:00.000Z")
    on = Window(since=since, until=until, state=JobState.ENABLED)
    world.advance(0.5)
    world.apply(job("backup", at("12:02:00"), windows=(on,), state=JobState.DISABLED))
    agent.leave()
    if not is_led:
        world.leader().kill()
        world.advance(60 * 5)
        world.scheduler("s2")
        world.advance(60 * 4)
    else:
        world.advance(60 * 9)
    assert ("backup",) in world.records(Kind.GAP)
    world.advance(70)
    assert not world.records(Kind.GAP)
    assert {run.state for run in world.runs("backup").values()} == {RunState.MISSED}


def test_an_outage_that_a_seat_ends() -> None:
    """a3's seat was to be taken; since a1 is gone, a1's is, and nothing of a3 changes."""
    world = started("s1")
    scheduler = world.nodes["s1"]
    agents = {name: world.agent(name, takes_s=1.0) for name in ("a1", "a2", "a3")}
    world.advance(0.5)
    world.put(Kind.SETTINGS, ClusterSettings(max_active_agents=3))
    world.advance(1)
    world.apply(job("backup", at("12:00:05"), at("18:00:00"), hosts=("a3",)))
    world.advance(3.4)

    def bound() -> None:
        world.put(Kind.SETTINGS, ClusterSettings(max_active_agents=2))
        scheduler.see()
        agents["a3"].stay()  # Its presence is put again, and what rests on it is refused.
        scheduler.send_all()
        scheduler.look()
        scheduler.take_answer(last=True)
        agents["a1"].leave()

    world.at(5.0, bound)
    world.advance(10)
    assert world.states("backup") == {"120005": "completed"}


# --- queues


def test_queued_runs_behind_one_that_waits_for_something_else() -> None:
    """They may overlap: each goes when the one that catches up before it has ended."""
    world = started("s1")
    world.agent("a1", takes_s=60.0)
    world.advance(0.5)
    world.apply(
        job(
            "backup", at("12:01:00"), at("12:01:30"), overlap=Overlap.ALLOW, pickup_buffer_s=5.0,
            recovery=Recovery.ALL, lifecycle=Lifecycle.HOST_STARTUP,
        )
    )  # fmt: skip
    world.drain("a2")
    world.advance(1)
    world.agent("a2")
    world.advance(5)
    world.nodes["s1"].kill()
    world.advance(180)
    world.scheduler("s2")
    world.advance(130)
    states = world.states("backup")
    assert {states.pop("120100"), states.pop("120130")} == {"completed"}
    assert list(states.values()) == ["ready"]


@pytest.mark.parametrize("order", ORDERS)
def test_a_run_that_a_dropped_tick_chains_is_there_at_once(order: int | None) -> None:
    world = started("s1", order=order)
    agent = world.agent("a1", takes_s=7.0, slots=8)
    world.advance(0.5)
    world.apply(job("source", every_s=5, chain=(Link(to="target", on=(RunState.OVERLAPPED,)),)))
    world.apply(job("target", at("12:00:10")))
    world.advance(30)
    spans = [span for span in agent.spans if span.job == "target"]
    assert len(spans) > 1
    for one, other in combinations(sorted(spans, key=lambda span: span.start_s), 2):
        assert one.end_s is not None
        assert one.end_s <= other.start_s + 0.001


def test_a_higher_pace_counts_at_once() -> None:
    world = started("s1")
    world.agent("a1", takes_s=1.0, slots=20)
    world.advance(0.5)
    world.put(Kind.SETTINGS, ClusterSettings(recovery_rate=0.01))
    names = [f"j{number}" for number in range(4)]
    for name in names:
        world.apply(job(name, at("12:00:10"), pickup_buffer_s=5.0))
    world.advance(3)
    world.nodes["s1"].kill()
    world.advance(60)
    world.scheduler("s2")
    world.advance(5)
    assert [world.states(name)["120010"] for name in names].count("queued") == 3
    world.put(Kind.SETTINGS, ClusterSettings(recovery_rate=100.0))
    world.advance(3)
    assert {world.states(name)["120010"] for name in names} == {"completed"}


def test_requests_that_were_paced_begin_beside_each_other() -> None:
    world = started("s1")
    world.put(Kind.SETTINGS, ClusterSettings(recovery_rate=2.0))
    lost = world.agent("a1", takes_s=100.0, slots=50)
    world.advance(0.5)
    world.apply(job("backup"))
    world.advance(0.5)
    lost.kill()
    for number in range(8):
        world.request(trigger(f"20261122T120001Z-r{number}", "backup"))
    world.advance(0.5)
    world.agent("a2", takes_s=100.0, slots=50)
    world.advance(40)
    assert list(world.states("backup").values()) == ["assigned"] * 8


def test_who_left_its_turn_isnt_put_to_and_fro_while_all_are_full() -> None:
    world = started("s1")
    agent = world.agent("a1", takes_s=1000.0, slots=2)
    world.advance(0.5)
    world.apply(job("low", every_s=4, overlap=Overlap.ALLOW, pickup_buffer_s=600.0))
    world.apply(job("high", at("12:00:06"), pickup_buffer_s=600.0))
    world.group("g", "high", "low")
    world.advance(5)
    agent.takes_s = 0.5
    world.apply(job("other", every_s=1, overlap=Overlap.ALLOW, priority=-1))
    world.advance(60)
    steps = [len(run.history) for run in world.runs("low").values()]
    others = len(world.runs("other"))
    assert others > 50
    assert max(steps) < others


@pytest.mark.parametrize("stepped_ms", [0, -300, -1200])
def test_a_clock_that_goes_back_a_little_ends_no_outage_too_late(stepped_ms: int) -> None:
    """What wakes at a window's edge then wakes before it."""
    world = started("s1")
    since, until = Utc("2026-11-22T12:00:05.000Z"), Utc("2026-11-22T12:01:20.000Z")
    on = Window(since=since, until=until, state=JobState.ENABLED)
    world.advance(0.4)
    world.apply(job("backup", at("12:00:07"), windows=(on,), state=JobState.DISABLED))
    world.advance(30)
    world.start_ms += stepped_ms
    world.advance(120)
    assert not world.records(Kind.GAP)
    assert {run.state for run in world.runs("backup").values()} == {RunState.MISSED}


@pytest.mark.parametrize("of_a", ["tick", "retry"])
def test_a_clock_that_is_ahead_of_its_timers_starts_nothing_in_a_window(of_a: str) -> None:
    """Tick time follows a clock that was set ahead a little: it comes to a window's edge before
    what wakes there does, and just then there is room."""
    world = started("s1")
    agent = world.agent("a1", slots=1, ends_as=Outcome.FAILED)
    since, until = Utc("2026-11-22T12:00:20.000Z"), Utc("2026-11-22T13:00:00.000Z")
    off = Window(since=since, until=until, state=JobState.DISABLED)
    first = "12:00:02" if of_a == "retry" else "12:00:07"
    world.apply(job("backup", at(first), windows=(off,), retry=Retry(max=1, interval_s=5.0)))
    world.apply(job("other", at("12:00:05")))
    world.advance(4)
    agent.ends_as, agent.takes_s = Outcome.COMPLETED, 14.6
    world.advance(4)
    world.start_ms += 1900
    world.advance(11)
    (run,) = world.runs("backup").values()
    assert run.state is (RunState.RETRYING if of_a == "retry" else RunState.READY)
    world.advance(11)
    assert list(world.states("other").values()) == ["completed"]
    ended = "failed" if of_a == "retry" else "cancelled"
    assert list(world.states("backup").values()) == [ended]
