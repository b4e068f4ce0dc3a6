"""Which agent gets which run, told as stories in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.leader.agents import Agents
from etcsched.core.records import Kind, Link, Presence
from etcsched.core.schedule import At
from etcsched.core.states import HostsFor, JobState, Outcome, Placement
from etcsched.core.times import Utc
from etcsched.keyspace.codec import decode, encode
from etcsched.keyspace.ops import Put, Range, Txn
from etcsched.testing.world import World
from tests.support.jobs import job, trigger


@pytest.fixture
def world() -> World:
    world = World()
    world.scheduler("s1")
    for name in ("a1", "a2", "a3"):
        world.agent(name, takes_s=1.0)
    world.advance(0.5)
    return world


def agents(world: World, name: str = "backup") -> list[str]:
    return [run.agent for run in world.runs(name).values()]


def test_round_robin_goes_on_where_it_was_under_another_leader(world: World) -> None:
    world.scheduler("s2")
    world.apply(job("backup", every_s=10, placement=Placement.ROUND_ROBIN))
    world.advance(25)
    world.nodes["s1"].stop()
    world.advance(40)
    assert world.leader().name == "s2"
    found = agents(world)
    first = ["a1", "a2", "a3"].index(found[0])
    assert found == [f"a{(first + number) % 3 + 1}" for number in range(len(found))]
    assert len(found) == 6


def test_the_rotation_goes_with_its_job(world: World) -> None:
    world.apply(job("backup", every_s=10, placement=Placement.ROUND_ROBIN))
    world.advance(15)
    assert world.records(Kind.ROTATION)
    world.delete("backup")
    world.advance(60)
    assert not world.records(Kind.ROTATION)


def test_a_fixed_priority_falls_back_and_returns(world: World) -> None:
    wanted = job("backup", every_s=10, hosts=("a3", "a1"), placement=Placement.FIXED_PRIORITY)
    world.apply(wanted)
    world.advance(11)
    world.drain("a3")
    world.advance(10)
    world.undrain("a3")
    world.advance(10)
    assert agents(world) == ["a3", "a1", "a3"]


def test_the_most_preferred_that_lives_else_any(world: World) -> None:
    world.agent("big", takes_s=1.0, labels={"disk": "ssd"}, slots=1)
    world.apply(job("backup", every_s=10, prefer=("gone", "disk=ssd")))
    world.apply(job("other", every_s=10, prefer=("disk=ssd",)))
    world.advance(11)
    assert sorted([*agents(world), *agents(world, "other")]) == ["a1", "big"]
    world.agents["big"].kill()
    world.advance(30)
    assert "big" not in agents(world)[2:]


def test_who_declined_or_did_not_start_it_comes_last(world: World) -> None:
    for name in ("a1", "a2"):
        world.agents[name].ends_as = Outcome.DECLINED
    world.apply(job("backup", every_s=60, prefer=("a1", "a2")))
    world.advance(70)
    (run,) = world.runs("backup").values()
    assert [attempt.agent for attempt in run.attempts] == ["a1", "a2", "a3"]
    assert run.state.value == "completed"


@pytest.mark.parametrize(
    ("hosts_for", "state"), [(HostsFor.ALL, "ready"), (HostsFor.SCHEDULED, "completed")]
)
def test_whether_requests_respect_hosts(world: World, hosts_for: HostsFor, state: str) -> None:
    world.apply(job("backup", hosts=("away",), hosts_for=hosts_for, state=JobState.AD_HOC_ACTIVE))
    world.request(trigger("r1"))
    world.advance(5)
    assert world.states("backup") == {"r1": state}


def test_a_clock_that_is_shown_changes_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand agents one shows its clock every few milliseconds: nothing is found out anew by
    that, and runs go by the presence that there is."""
    looks: list[str] = []
    found_out = Agents.changed

    def look(agents: Agents) -> None:
        looks.append("look")
        found_out(agents)

    monkeypatch.setattr(Agents, "changed", look)
    key = world.keys.of(Kind.PRESENCE, "a1")
    (kv,) = world.store.range(Range(key)).kvs
    before = decode(Presence, kv.value)
    later = replace(before, clock=Utc("2026-11-22T12:00:30.000Z"))
    for presence, expected in ((later, 0), (replace(later, slots=9), 1), (before, 2)):
        world.store.txn(Txn((), (Put(key, encode(presence), kv.lease),)))
        world.advance(1)
        assert len(looks) == expected
    world.apply(job("backup", every_s=10, hosts=("a1",)))
    world.store.txn(Txn((), (Put(key, encode(later), kv.lease),)))
    world.advance(15)
    assert agents(world) == ["a1"]


@pytest.mark.parametrize(
    ("hosts_for", "state"), [(HostsFor.ALL, "ready"), (HostsFor.SCHEDULED, "completed")]
)
def test_whether_chained_runs_respect_hosts(world: World, hosts_for: HostsFor, state: str) -> None:
    once = At(Utc("2026-11-22T12:00:02.000Z"))
    world.apply(job("backup", hosts=("away",), hosts_for=hosts_for, state=JobState.CHAIN_ACTIVE))
    world.apply(job("load", once, chain=(Link(to="backup"),)))
    world.advance(7)
    assert list(world.states("load").values()) == ["completed"]
    assert list(world.states("backup").values()) == [state]


def test_hosts_for_scheduled_still_binds_ticks(world: World) -> None:
    world.apply(job("backup", every_s=5, hosts=("a2",), hosts_for=HostsFor.SCHEDULED))
    world.advance(21)
    assert agents(world) == ["a2"] * 4


@pytest.mark.parametrize("less", [{"slots": 1}, {"slots": 0}, {"labels": {}}])
def test_what_an_agent_that_starts_anew_with_less_hasnt_claimed_goes_elsewhere(
    less: dict[str, Any],
) -> None:
    """It was assigned while the agent started, within its session. That has no slot for it now, as
    long as another run goes on, or as its supervisor stops, or not the label any more."""
    world = World()
    world.scheduler("s1")
    erp = {"role": "erp"}
    a1 = world.agent("a1", takes_s=1000.0, slots=2, labels=erp)
    world.advance(0.5)
    world.apply(job("long", At(Utc("2026-11-22T12:00:05.000Z"))))
    world.apply(job("report", At(Utc("2026-11-22T12:00:10.000Z")), require=erp))
    world.advance(6)
    a1.claims_nothing = True
    world.agent("a2", takes_s=1.0, slots=2, labels=erp)
    world.drain("a2")
    world.advance(5)
    assert set(world.states("report").values()) == {"assigned"}
    world.undrain("a2")
    a1.say_anew(**less)
    world.advance(30)
    assert set(world.states("report").values()) == {"completed"}
    assert set(world.states("long").values()) == {"assigned"}


@pytest.mark.parametrize("claims_first", [False, True])
def test_only_what_an_agent_that_starts_anew_has_no_slot_for_is_taken_back(
    claims_first: bool,
) -> None:
    """What it was given last; but it may claim just that while the leader takes it back."""
    world = World()
    world.scheduler("s1")
    a1 = world.agent("a1", takes_s=1000.0, slots=5)
    world.advance(0.5)
    a1.claims_nothing = True
    names = [f"j{number}" for number in range(5)]
    for name in names:
        world.apply(job(name, At(Utc("2026-11-22T12:00:05.000Z"))))
    world.advance(6)
    taken_back: list[str] = []

    def claims(write: fx.Write) -> bool:
        if isinstance(write, fx.MoveRun):
            taken_back.append(write.run.job)
            if claims_first and len(taken_back) < 3:
                a1.claim(write.run.job, write.run.id)
        return False

    world.rejects = claims
    a1.say_anew(slots=3)
    world.advance(3)
    expected = ["j3", "j4", "j2", "j1"] if claims_first else ["j3", "j4"]
    assert taken_back == expected
    states = {name: state for name in names for state in world.states(name).values()}
    gone = expected[-2:]
    assert states == {name: "ready" if name in gone else "assigned" for name in names}
