"""``overlap: replace``, told as stories in virtual time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from etcsched.core.records import Kind, Retry, Run
from etcsched.core.schedule import At
from etcsched.core.states import JobState, OnAgentLoss, Origin, Outcome, Overlap, Recovery
from etcsched.core.times import Utc
from etcsched.testing.world import World
from tests.support.jobs import job, trigger

FIRST, SECOND, THIRD = "20261122T120005Z", "20261122T120015Z", "20261122T120025Z"
TICKS = tuple(At(Utc(f"2026-11-22T12:00:{second:02}.000Z")) for second in (5, 15, 25))


def states(world: World) -> dict[str, str]:
    return {run: record.state.value for run, record in world.runs("backup").items()}


def run_of(world: World, run: str) -> Run:
    return world.runs("backup")[run]


def check_no_overlap(world: World) -> None:
    spans = [span for agent in world.agents.values() for span in agent.spans]
    spans.sort(key=lambda span: span.start_s)
    assert all(one.end_s is not None and one.end_s <= two.start_s for one, two in pairwise(spans))


def test_the_newest_tick_takes_over(world: World) -> None:
    world.apply(job("backup", *TICKS, overlap=Overlap.REPLACE))
    world.advance(200)
    assert states(world) == {FIRST: "cancelled", SECOND: "cancelled", THIRD: "completed"}
    assert run_of(world, FIRST).history[-1].cause == f"replaced by {SECOND}"
    check_no_overlap(world)


def test_it_starts_only_when_the_old_attempt_is_over(world: World) -> None:
    """A process that takes its time to end."""
    world.agents["a1"].obeys_as = None
    world.agents["a1"].takes_s = 40.0
    world.apply(job("backup", *TICKS[:2], overlap=Overlap.REPLACE))
    world.advance(44)
    assert states(world) == {FIRST: "assigned", SECOND: "queued"}
    assert len(world.records(Kind.ORDER)) == 1
    world.advance(50)
    assert states(world) == {FIRST: "completed", SECOND: "completed"}
    check_no_overlap(world)


def test_its_agent_is_lost_before_it_hears(world: World) -> None:
    world.apply(job("backup", *TICKS[:2], overlap=Overlap.REPLACE))
    world.agent("a2")
    world.advance(14)
    (holder,) = [agent for agent in world.agents.values() if agent.spans]
    holder.is_cut_off = True
    world.advance(8)
    assert states(world) == {FIRST: "assigned", SECOND: "queued"}
    world.advance(10)
    assert states(world) == {FIRST: "cancelled", SECOND: "completed"}
    check_no_overlap(world)


@pytest.mark.parametrize("writes", range(1, 10))
def test_a_leader_may_die_after_any_write(writes: int) -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=100.0)
    world.advance(0.5)
    world.leader_dies_after = world.leader_writes + writes
    world.apply(job("backup", *TICKS[:2], overlap=Overlap.REPLACE))
    world.scheduler("s2")
    world.advance(250)
    assert states(world) == {FIRST: "cancelled", SECOND: "completed"}
    check_no_overlap(world)


def test_what_waits_is_replaced_at_once(world: World) -> None:
    """No slot was free for the first."""
    world.agents["a1"].claims_nothing = True
    world.apply(job("other", TICKS[0]))
    world.agent("a2", slots=1, takes_s=60.0, labels={"role": "x"})
    world.apply(job("filler", TICKS[0], require={"role": "x"}, priority=1))
    world.apply(job("backup", *TICKS[:2], overlap=Overlap.REPLACE, require={"role": "x"}))
    world.advance(10)
    assert states(world) == {FIRST: "ready"}
    world.advance(10)
    assert states(world)[FIRST] == "cancelled"
    assert run_of(world, FIRST).history[-1].cause == f"replaced by {SECOND}"
    world.advance(200)
    assert states(world)[SECOND] == "completed"


def test_an_unclaimed_run_is_replaced(world: World) -> None:
    world.agents["a1"].claims_nothing = True
    world.apply(job("backup", *TICKS[:2], overlap=Overlap.REPLACE))
    world.advance(16)
    assert states(world) == {FIRST: "cancelled", SECOND: "assigned"}


def test_a_run_on_request_is_replaced_by_the_next_tick(world: World) -> None:
    asked = "20261122T120001.000Z-01"
    world.apply(job("backup", TICKS[0], overlap=Overlap.REPLACE))
    world.request(trigger(asked))
    world.advance(7)
    assert states(world) == {asked: "cancelled", FIRST: "assigned"}


def test_a_run_on_request_after_the_tick_isnt(world: World) -> None:
    asked = "20261122T120016.000Z-01"
    world.apply(job("backup", *TICKS[:2], overlap=Overlap.REPLACE))
    world.agents["a1"].obeys_as = None
    world.advance(16)
    world.request(trigger(asked))
    world.advance(1)
    assert states(world) == {FIRST: "assigned", SECOND: "queued", asked: "assigned"}
    assert set(world.records(Kind.ORDER)) == {("a1", "backup", FIRST)}


def test_one_that_fails_as_it_is_replaced_isnt_retried(world: World) -> None:
    world.agents["a1"].obeys_as = Outcome.FAILED
    fields: dict[str, Any] = {"overlap": Overlap.REPLACE, "retry": Retry(max=3, interval_s=1.0)}
    world.apply(job("backup", *TICKS[:2], **fields))
    world.advance(20)
    assert states(world) == {FIRST: "failed", SECOND: "assigned"}
    assert run_of(world, FIRST).attempt == 1


def test_late_ticks_end_with_the_newest(world: World) -> None:
    world.apply(job("backup", *TICKS, overlap=Overlap.REPLACE))
    world.nodes["s1"].kill()
    world.advance(40)
    world.scheduler("s2")
    world.advance(150)
    assert states(world) == {FIRST: "cancelled", SECOND: "cancelled", THIRD: "completed"}
    check_no_overlap(world)


def test_runs_that_catch_up_are_not_replaced(world: World) -> None:
    world.agents["a1"].takes_s = 6.0
    fields: dict[str, Any] = {
        "overlap": Overlap.REPLACE,
        "recovery": Recovery.ALL,
        "pickup_buffer_s": 1.0,
    }
    world.apply(job("backup", every_s=10, **fields))
    world.drain("a1")
    world.advance(35)
    world.undrain("a1")
    world.advance(25)
    recovered = [run for run in world.runs("backup").values() if run.origin is Origin.RECOVERY]
    assert [run.state.value for run in recovered] == ["completed"] * 3


def test_runs_that_catch_up_replace_nothing(world: World) -> None:
    """They wait for the run from before the outage; the next tick doesn't."""
    fields: dict[str, Any] = {
        "overlap": Overlap.REPLACE,
        "recovery": Recovery.ALL,
        "pickup_buffer_s": 1.0,
    }
    world.apply(job("backup", every_s=20, since=Utc("2026-11-22T12:00:01.000Z"), **fields))
    world.advance(22)
    world.nodes["s1"].kill()
    world.advance(46)
    world.scheduler("s2")
    world.advance(5)
    before = [run.state.value for run in world.runs("backup").values()]
    assert before == ["assigned", "queued", "queued"]
    assert world.records(Kind.ORDER) == {}
    world.advance(10)
    after = [run.state.value for run in world.runs("backup").values()]
    assert after == ["cancelled", "assigned", "queued", "queued"]


def test_a_stop_while_it_waits(world: World) -> None:
    world.apply(job("backup", *TICKS[:2], overlap=Overlap.REPLACE))
    world.agents["a1"].obeys_as = None
    world.advance(16)
    world.set_state("backup", JobState.DISABLED)
    world.advance(1)
    assert states(world)[SECOND] == "cancelled"


def test_a_held_run_goes_with_its_attempt(world: World) -> None:
    """What its agent says later is of a run that is over, and is kept as an event of it."""
    hold = OnAgentLoss.HOLD
    world.apply(job("backup", *TICKS[:1], At(Utc("2026-11-22T12:00:45.000Z")),
                    overlap=Overlap.REPLACE, on_agent_loss=hold))  # fmt: skip
    world.advance(6)
    world.agents["a1"].kill()
    world.advance(20)
    assert states(world) == {FIRST: "held"}
    world.agent("a2", takes_s=1.0)
    world.advance(60)
    assert states(world) == {FIRST: "cancelled", "20261122T120045Z": "completed"}
    assert [attempt.agent for attempt in run_of(world, FIRST).attempts] == ["a1"]
    assert world.records(Kind.ASSIGNMENT) == world.records(Kind.REPORT) == {}
