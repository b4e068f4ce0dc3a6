"""How many agents receive runs, and who stands by, told as stories in virtual time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from etcsched.core.records import ClusterSettings, Gap, Kind
from etcsched.core.states import Overlap, Recovery
from etcsched.testing.world import World
from tests.support.jobs import job


def bound(world: World, most: int | None) -> None:
    world.put(Kind.SETTINGS, ClusterSettings(max_active_agents=most))


def seated(world: World) -> set[str]:
    return {agent for (agent,) in world.records(Kind.SEAT)}


def ran_on(world: World) -> set[str]:
    return {agent.name for agent in world.agents.values() if agent.spans}


@pytest.fixture
def world() -> World:
    world = World()
    world.scheduler("s1")
    for name in ("a1", "a2", "a3"):
        world.agent(name, slots=1, takes_s=1.0)
    world.advance(0.5)
    return world


def test_without_a_bound_there_are_no_seats(world: World) -> None:
    world.apply(job("backup", every_s=2, overlap=Overlap.ALLOW))
    world.advance(5)
    assert not seated(world)


def test_only_agents_with_a_seat_get_runs(world: World) -> None:
    bound(world, 2)
    world.apply(job("backup", every_s=5))
    for name in ("b", "c"):
        world.apply(job(name, every_s=5))
    world.advance(21)
    assert seated(world) == ran_on(world) == {"a1", "a2"}
    assert not world.records(Kind.GAP)


def test_the_seat_of_one_that_is_gone_goes_to_a_standby_for_good(world: World) -> None:
    bound(world, 2)
    world.apply(job("backup", every_s=5))
    world.advance(6)
    world.agents["a1"].kill()
    world.advance(12)
    assert seated(world) == {"a2", "a3"}
    world.agent("a1", slots=1)
    world.advance(10)
    assert seated(world) == {"a2", "a3"}


def test_one_that_returns_gets_its_old_seat_if_it_is_free(world: World) -> None:
    world.agents["a3"].leave()
    bound(world, 2)
    world.advance(1)
    seats = world.records(Kind.SEAT)
    world.agents["a1"].kill()
    world.advance(12)
    assert world.records(Kind.SEAT) == seats
    world.agent("a1", slots=1)
    world.advance(1)
    world.agent("late", slots=1)
    world.advance(1)
    assert world.records(Kind.SEAT) == seats


def test_what_is_due_while_the_first_seats_are_given_is_no_outage(world: World) -> None:
    """The bound comes in the same instant as the tick, and is seen first."""
    world.apply(job("backup", every_s=5))
    world.advance(4.499)

    def bound_and_seen() -> None:
        bound(world, 1)
        world.nodes["s1"].see()

    world.at(5.0, bound_and_seen)
    seen: list[int] = []
    world.agents["a1"].on_claim = lambda assignment: seen.append(assignment.seen.seat)
    world.advance(3)
    assert seen == [world.records(Kind.SEAT)[("a1",)].mod_revision]
    assert world.states("backup") == {"120005": "completed"}
    assert not world.records(Kind.GAP)
    assert seated(world) == {"a1"}


def test_fewer_seats_let_what_runs_end_and_more_are_given_at_once(world: World) -> None:
    for agent in world.agents.values():
        agent.takes_s = 7.0
    bound(world, 3)
    for name in ("b", "c", "d"):
        world.apply(job(name, every_s=60))
    world.advance(60)
    assert ran_on(world) == {"a1", "a2", "a3"}
    bound(world, 1)
    world.advance(10)
    assert seated(world) == {"a1"}
    assert {s for name in ("b", "c", "d") for s in world.states(name).values()} == {"completed"}
    bound(world, None)
    world.advance(1)
    assert not seated(world)


def test_a_job_whose_host_stands_by_has_an_outage(world: World) -> None:
    bound(world, 2)
    world.apply(job("backup", every_s=5, hosts=("a3",), recovery=Recovery.ALL))
    world.advance(21)
    (gap,) = world.records(Kind.GAP).values()
    assert isinstance(gap.record, Gap)
    assert "a3 stands by" in gap.record.reason
    world.agents["a1"].leave()
    world.advance(20)
    assert seated(world) == {"a2", "a3"}
    gaps = [change.record for change in world.records(Kind.GAP).values()]
    assert all(isinstance(gap, Gap) and gap.closed for gap in gaps)
    assert world.agents["a3"].spans


def test_a_drained_standby_waits(world: World) -> None:
    world.drain("a1")
    bound(world, 2)
    world.advance(1)
    assert seated(world) == {"a2", "a3"}
    world.undrain("a1")
    bound(world, 3)
    world.advance(1)
    assert seated(world) == {"a1", "a2", "a3"}


def test_more_seats_than_one_transaction_gives() -> None:
    world = World()
    world.scheduler("s1")
    for number in range(80):
        world.agent(f"a{number:02}")
    world.advance(0.5)
    bound(world, 70)
    world.advance(1)
    assert len(seated(world)) == 70
    bound(world, 3)
    world.advance(1)
    assert len(seated(world)) == 3


@pytest.mark.parametrize("writes", range(1, 7))
def test_a_leader_that_dies_on_the_way_gives_no_seat_twice(world: World, writes: int) -> None:
    world.scheduler("s2")
    world.apply(job("backup", every_s=5))
    world.advance(6)
    world.leader_dies_after = world.leader_writes + writes
    bound(world, 2)
    world.advance(6)
    world.agents["a2"].kill()
    for _ in range(60):
        world.advance(0.5)
        assert len(seated(world)) <= 2
    assert seated(world) == {"a1", "a3"}
    states = [run.state.value for run in world.runs("backup").values()]
    assert states.count("completed") >= 6


def test_a_claim_is_refused_where_the_seat_is_gone(world: World) -> None:
    bound(world, 3)
    world.apply(job("backup", every_s=10, hosts=("a3",)))
    world.agents["a3"].claims_nothing = True
    world.advance(10)
    (before,) = world.records(Kind.ASSIGNMENT)
    assert before[0] == "a3"
    bound(world, 2)
    world.advance(1)
    assert not world.records(Kind.ASSIGNMENT)
    assert set(world.states("backup").values()) <= {"ready"}
    world.put(Kind.SETTINGS, replace(ClusterSettings(), max_active_agents=3))
    world.agents["a3"].claims_nothing = False
    world.advance(3)
    assert set(world.states("backup").values()) == {"completed"}
