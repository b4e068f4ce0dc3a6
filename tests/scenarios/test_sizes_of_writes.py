"""What is written at once fits into one request of etcd's, however long the names are."""

from __future__ import annotations

from typing import Any

from etcsched.core.leader import effects as fx
from etcsched.core.records import Kind, Link, Presence, Watermark
from etcsched.core.schedule import At, Every
from etcsched.core.states import JobState, Lifecycle, Recovery, RunState
from etcsched.core.times import Utc
from etcsched.testing.world import World
from tests.support.jobs import job

NOON = Utc("2026-11-22T12:00:00.000Z")
LONG = "n" * 120


def named(number: int) -> str:
    return f"{LONG}-{number:03}"


def world_of(agents: int, *, slots: int) -> World:
    """Agents that are here and do nothing."""
    world = World()
    for number in range(agents):
        presence = Presence(
            agent=named(number), incarnation=f"{number + 1:x}", supervisor="s", slots=slots,
            host="h", pid=1, since=NOON, clock=NOON, version="0", users=("app",),
            default_user="app",
        )  # fmt: skip
        world.put(Kind.PRESENCE, presence, named(number))
    return world


def rejected(world: World, kind: type[fx.Write]) -> bool:
    return any(isinstance(write, kind) for write in world.rejected)


def test_agents_that_come_together_with_much_to_run() -> None:
    world = world_of(20, slots=1)
    for number in range(500):
        world.apply(job(named(number), lifecycle=Lifecycle.HOST_STARTUP))
    world.rejects = lambda write: isinstance(write, fx.Dispatch)
    world.scheduler("s1")
    world.advance(1)
    assert not rejected(world, fx.ChangeLive)
    assert len(world.records(Kind.RUN)) == 500 * 20


def test_a_recovery_on_many_agents() -> None:
    world = world_of(1000, slots=1)
    every = Every(60, NOON)
    world.apply(job("check", every, per_host=True, recovery=Recovery.ALL, catch_up_limit=14))
    world.put(Kind.WATERMARK, Watermark(through=NOON, term=0))
    world.advance(15 * 60)
    world.rejects = lambda write: isinstance(write, fx.CreateRun)
    world.scheduler("s1")
    world.advance(1)
    assert not rejected(world, fx.RecoverTicks)
    assert len(world.records(Kind.FAN_OUT)) == 15


def test_a_takeover_with_missed_ticks_of_many_jobs_that_are_all_followed() -> None:
    """Each of these writes is about one record, whatever else its job's outage leaves."""
    world = World()
    world.scheduler("s1")
    targets = [f"t{number:02}" for number in range(24)]
    for name in targets:
        world.apply(job(name, state=JobState.CHAIN_ACTIVE, pickup_buffer_s=3600.0))
    links = tuple(Link(to=name, on=(RunState.MISSED,)) for name in targets)
    fields: dict[str, Any] = {
        "pickup_buffer_s": 25.0,
        "recovery": Recovery.ALL,
        "catch_up_limit": 16,
    }
    for number in range(200):
        chain = links if number < 20 else links[:1]
        world.apply(job(f"j{number:04}", every_s=2, chain=chain, **fields))
    world.advance(90)
    world.nodes["s1"].kill()
    world.agent("a1", takes_s=1.0, slots=0)
    world.scheduler("s2")
    world.advance(11)
    assert not world.rejected
    counts = {name: len(world.runs(name)) for name in targets}
    assert counts == {name: 200 if name == "t00" else 20 for name in targets}


def test_a_run_that_comes_to_many_joins() -> None:
    """What doesn't fit in is left out, and its record says so."""
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", takes_s=1.0, slots=100)
    world.advance(0.5)
    targets = [f"t{number}" for number in range(16)]
    for name in targets:
        world.apply(job(name, state=JobState.CHAIN_ACTIVE))
    links = tuple(Link(to=name, joins=True) for name in targets)
    sources = [f"s{number:02}" for number in range(14)]
    for name in sources:
        agent.hands_on[name] = {"found": ("x" * 15_000,)}
        world.apply(job(name, At(Utc("2026-11-22T12:00:05.000Z")), chain=links))
    world.apply(job("never", state=JobState.AD_HOC_ACTIVE, chain=links))
    world.advance(20)
    assert not world.rejected
    runs = [run for name in sources for run in world.runs(name).values()]
    assert [run.state for run in runs] == [RunState.COMPLETED] * 14
    notes = [follow.note for run in runs for follow in run.followed_by]
    assert len(notes) == 14 * 16
    assert any("more than" in note for note in notes)


def test_what_takes_more_room_as_json() -> None:
    """Three joins at their limit, and as much again in runs that follow at once."""
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", takes_s=1.0, slots=100)
    world.advance(0.5)
    joined = [f"t{number}" for number in range(3)]
    plain = [f"p{number:02}" for number in range(13)]
    for name in (*joined, *plain):
        world.apply(job(name, state=JobState.CHAIN_ACTIVE))
    links = tuple(Link(to=name, joins=True) for name in joined)
    sources = [f"s{number:02}" for number in range(17)]
    for name in sources:
        agent.hands_on[name] = {"found": ('"' * 15_000,)}
        chain = (*links, *(Link(to=each) for each in plain)) if name == "s16" else links
        world.apply(job(name, At(Utc("2026-11-22T12:00:05.000Z")), chain=chain))
    world.apply(job("never", state=JobState.AD_HOC_ACTIVE, chain=links))
    world.advance(30)
    assert not world.rejected
    runs = [run for name in sources for run in world.runs(name).values()]
    assert [run.state for run in runs] == [RunState.COMPLETED] * 17
