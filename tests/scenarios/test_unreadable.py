"""Records that can't be read: written by a hand, by a faulty program, or by a disk. Each counts as
absent, and holds up nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.records import ClusterSettings, Kind, Link, Report
from etcsched.core.schedule import Cron
from etcsched.core.states import Lifecycle, Outcome, RunState
from etcsched.keyspace.codec import MalformedRecord, decode, encode
from etcsched.keyspace.ops import Put, Txn
from etcsched.testing.world import World
from tests.support.jobs import job, trigger

EACH_MINUTE = Cron("* * * * *")
ASKED = "20261122T120001.000Z-aa"


def started(*agents: str) -> World:
    world = World()
    world.scheduler("s1")
    for name in agents:
        world.agent(name, slots=10, takes_s=1.0)
    world.advance(1)
    return world


def spoil(world: World, kind: Kind, *ids: str) -> None:
    world.store.txn(Txn((), (Put(world.keys.of(kind, *ids), b"nonsense"),)))


@pytest.mark.parametrize("kind", [Kind.PAUSE, Kind.CALENDAR, Kind.GAP, Kind.ROTATION])
def test_what_one_job_rests_on(kind: Kind) -> None:
    world = started("a1")
    fields: dict[str, Any] = {}
    if kind is Kind.CALENDAR:
        world.calendar("days", exclude=("2026-12-25",))
        fields["calendars"] = ("days",)
    if kind is Kind.GAP:
        fields["hosts"] = ("elsewhere",)
    world.apply(job("bad", EACH_MINUTE, **fields))
    world.apply(job("other", EACH_MINUTE))
    world.advance(61)
    spoil(world, kind, "days" if kind is Kind.CALENDAR else "bad")
    world.advance(300)
    assert list(world.states("other").values()) == ["completed"] * 6


def respell(world: World, kind: Kind, *ids: str, **times: str) -> None:
    record = world.records(kind)[ids].record
    assert record is not None
    world.put(kind, replace(record, **times), *ids)


def test_a_time_in_what_is_known_of_an_outage() -> None:
    world = started("a1")
    world.apply(job("bad", EACH_MINUTE, hosts=("a2",)))
    world.apply(job("other", EACH_MINUTE))
    world.advance(121)
    respell(world, Kind.GAP, "bad", decided_through="2026-02-31T12:00:00.000Z")
    world.agent("a2", slots=10, takes_s=1.0)
    world.advance(180)
    assert list(world.states("other").values()) == ["completed"] * 5
    assert "completed" in world.states("bad").values()


def test_a_time_in_what_is_known_of_an_agent_that_is_gone() -> None:
    world = started("a1", "a2")
    world.apply(job("up", lifecycle=Lifecycle.HOST_STARTUP))
    world.agents["a2"].kill()
    world.advance(60)
    respell(world, Kind.LIVE, "a2", since="2026-02-31T12:00:00.000Z")
    world.advance(60)
    world.agent("a3", slots=10, takes_s=1.0)
    world.advance(5)
    assert [run.state for run in world.runs("up").values()] == [RunState.COMPLETED]


def test_a_drain() -> None:
    world = started("a1", "a2")
    spoil(world, Kind.DRAIN, "a1")
    world.apply(job("other", EACH_MINUTE))
    world.advance(300)
    assert list(world.states("other").values()) == ["completed"] * 5


def test_a_seat() -> None:
    world = started("a1", "a2", "a3")
    spoil(world, Kind.SEAT, "a1")
    world.put(Kind.SETTINGS, ClusterSettings(max_active_agents=2))
    world.apply(job("other", EACH_MINUTE))
    world.advance(300)
    assert list(world.states("other").values()) == ["completed"] * 5
    assert len(world.records(Kind.SEAT)) == 2


def test_the_job_that_a_chain_goes_to() -> None:
    world = started("a1")
    world.apply(job("target"))
    world.apply(job("source", chain=(Link(to="target"),)))
    spoil(world, Kind.JOB, "target")
    world.request(trigger(ASKED, "source"))
    world.advance(20)
    assert list(world.states("source").values()) == ["completed"]


def test_a_join() -> None:
    world = started("a1")
    world.apply(job("target"))
    for name in ("source", "second"):
        world.apply(job(name, chain=(Link(to="target", joins=True),)))
    world.request(trigger(ASKED, "source"))
    spoil(world, Kind.JOIN, "target", ASKED)
    world.advance(20)
    assert list(world.states("source").values()) == ["completed"]


def test_what_is_known_of_an_agents_coming() -> None:
    world = started("a1")
    world.apply(job("up", lifecycle=Lifecycle.HOST_STARTUP))
    spoil(world, Kind.LIVE, "a2")
    world.agent("a2", takes_s=1.0)
    world.agent("a3", takes_s=1.0)
    world.advance(20)
    assert list(world.states("up").values()) == ["completed"] * 2


def test_the_presence_of_one_among_others_that_come_and_go() -> None:
    """Where it is put again, with its session, nothing has happened."""
    world = started("a1")
    world.apply(job("up", lifecycle=Lifecycle.HOST_STARTUP))
    world.apply(job("down", lifecycle=Lifecycle.HOST_SHUTDOWN))
    spoil(world, Kind.PRESENCE, "a1")
    for name in ("a2", "a3"):
        world.agent(name, takes_s=1.0)
        world.advance(5)
    assert list(world.states("up").values()) == ["completed"] * 2
    world.agents["a2"].stop()
    world.advance(5)
    assert list(world.states("down").values()) == ["completed"]
    world.remove(Kind.PRESENCE, "a1")
    world.agents["a1"].put_presence_again()
    world.advance(5)
    assert len(world.states("up")) == 2


def test_the_presence_of_the_only_one() -> None:
    """It has come, and is there still: who comes next isn't the first, nor the last to go."""
    world = World()
    world.scheduler("s1")
    world.apply(job("up", lifecycle=Lifecycle.CLUSTER_STARTUP))
    world.apply(job("down", lifecycle=Lifecycle.CLUSTER_SHUTDOWN))
    world.agent("a1", slots=10, takes_s=1.0)
    world.advance(5)
    spoil(world, Kind.PRESENCE, "a1")
    world.agent("a2", takes_s=1.0)
    world.advance(5)
    assert list(world.states("up").values()) == ["completed"]
    world.agents["a2"].stop()
    world.advance(30)
    assert not world.agents["a2"].is_alive
    assert not world.states("down")
    world.agents["a1"].kill()
    world.remove(Kind.PRESENCE, "a1")
    world.advance(5)
    world.agent("a3", takes_s=1.0)
    world.advance(5)
    assert list(world.states("up").values()) == ["completed"] * 2


def test_the_presence_of_one_that_has_a_seat() -> None:
    world = started("a1", "a2")
    world.put(Kind.SETTINGS, ClusterSettings(max_active_agents=2))
    world.advance(1)
    spoil(world, Kind.PRESENCE, "a1")
    world.agent("a3", takes_s=1.0)
    world.advance(5)
    assert {agent for (agent,) in world.records(Kind.SEAT)} == {"a2", "a3"}


@pytest.mark.parametrize("claims", [True, False])
def test_the_presence_of_one_that_has_a_run(claims: bool) -> None:
    """A hand put it there: it outlasts the lease."""
    world = started("a1")
    world.agents["a1"].takes_s = 1000.0
    world.agents["a1"].claims_nothing = not claims
    world.apply(job("other", EACH_MINUTE))
    world.advance(61)
    spoil(world, Kind.PRESENCE, "a1")
    world.agents["a1"].kill()
    world.agent("a2", takes_s=1.0)
    world.advance(30)
    assert list(world.states("other").values()) == ["completed"]


def test_an_assignment() -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", slots=10, takes_s=30.0)
    world.advance(1)
    world.apply(job("backup", EACH_MINUTE))
    world.advance(65)
    spoil(world, Kind.ASSIGNMENT, "a1", "backup", "20261122T120100Z")
    world.advance(1)
    run = world.runs("backup")["20261122T120100Z"]
    assert run.history[-1].cause == "its assignment can't be read"
    world.advance(599)
    assert list(world.states("backup").values()).count("completed") > 8


DEEP = [b"[" * 2000, b'{"v":1,"x":' + b"[" * 2000 + b"]" * 2000 + b"}"]


@pytest.mark.parametrize("value", DEEP)
def test_a_value_that_is_nested_too_deeply(value: bytes) -> None:
    """Where an agent may write."""
    with pytest.raises(MalformedRecord):
        decode(Report, value)
    world = started("a1")
    world.apply(job("other", EACH_MINUTE))
    world.store.txn(Txn((), (Put(world.keys.of(Kind.REPORT, "a1", "any", "run"), value),)))
    world.advance(300)
    assert list(world.states("other").values()) == ["completed"] * 5


def test_a_late_report_under_a_key_that_is_no_text() -> None:
    world = started("a1")
    world.apply(job("other", EACH_MINUTE))
    world.advance(62)
    (run,) = world.runs("other")
    report = Report(
        job="other", run=run, attempt=1, token=7, incarnation="5", supervisor="5",
        claimed_at=world.now, ended_at=world.now, outcome=Outcome.COMPLETED,
    )  # fmt: skip
    key = world.keys.of(Kind.LATE_REPORT, "\udcff", "other", run, "7")
    world.store.txn(Txn((), (Put(key, encode(report)),)))
    world.advance(300)
    assert list(world.states("other").values()) == ["completed"] * 6
