"""Auto retry, told as stories in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.records import CLUSTER, Assignment, Condition, Kind, Link, Release, Retry, Run
from etcsched.core.schedule import At
from etcsched.core.states import (
    ConditionOp,
    HostsFor,
    JobState,
    OnAgentLoss,
    Origin,
    Outcome,
    Overlap,
    Recovery,
    RunState,
)
from etcsched.core.times import Utc
from etcsched.testing.world import World
from tests.support.jobs import cancel, job, release, trigger

ONCE = At(Utc("2026-11-22T12:00:05.000Z"))
TWICE = (ONCE, At(Utc("2026-11-22T12:01:05.000Z")))
RUN, NEXT = "20261122T120005Z", "20261122T120105Z"
RETRY = Retry(max=3, interval_s=30.0)
"""The first attempt ends at 12:00:06; so its retry is due at 12:00:36."""


@pytest.fixture
def world() -> World:
    world = World()
    world.scheduler("s1")
    world.agent("a1", ends_as=Outcome.FAILED)
    world.advance(0.5)
    return world


def run_of(world: World, run: str = RUN) -> Run:
    return world.runs("backup")[run]


def starts_of(world: World, run: str = RUN) -> list[float]:
    spans = [s for agent in world.agents.values() for s in agent.spans if s.run == run]
    return sorted(round(span.start_s, 1) for span in spans)


def test_each_retry_keeps_its_distance_to_the_attempt_before(world: World) -> None:
    retry = Retry(max=3, interval_s=30.0, exponential=True, cap_s=100.0)
    world.apply(job("backup", ONCE, retry=retry))
    world.advance(300)
    run = run_of(world)
    assert (run.state.value, run.retries, run.attempt) == ("failed", 3, 4)
    assert [attempt.outcome for attempt in run.attempts] == [Outcome.FAILED] * 4
    assert starts_of(world) == [5.0, 36.0, 97.0, 198.0]  # each attempt takes a second
    tokens = [attempt.token for attempt in run.attempts]
    assert tokens == sorted(set(tokens))
    for kind in (Kind.RUN, Kind.ASSIGNMENT, Kind.REPORT, Kind.ORDER):
        assert world.records(kind) == {}


def test_a_run_between_two_attempts_leaves_nothing_at_its_agent(world: World) -> None:
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    run = run_of(world)
    assert (run.state.value, run.agent, run.retries) == ("retrying", "", 1)
    assert run.retry_at == "2026-11-22T12:00:36.000Z"
    for kind in (Kind.ASSIGNMENT, Kind.REPORT, Kind.ORDER):
        assert world.records(kind) == {}


def test_it_completes_on_another_agent(world: World) -> None:
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    world.agent("a2")
    world.advance(30)
    run = run_of(world)
    assert (run.state.value, run.agent, run.retries) == ("completed", "a2", 1)


def test_where_all_have_tried_it_another_than_the_last_one_goes_on(world: World) -> None:
    world.agent("a2", ends_as=Outcome.FAILED)
    world.apply(job("backup", ONCE, retry=replace(RETRY, max=5)))
    world.advance(600)
    agents = [attempt.agent for attempt in run_of(world).attempts]
    assert len(agents) == 6
    assert all(one != other for one, other in pairwise(agents))


def test_the_same_agent_will_do_where_no_other_is_eligible(world: World) -> None:
    world.apply(job("backup", ONCE, retry=RETRY, hosts=("a1",)))
    world.agent("a2")
    world.advance(10)
    world.agents["a1"].ends_as = Outcome.COMPLETED
    world.advance(30)
    assert (run_of(world).state.value, run_of(world).agent) == ("completed", "a1")


def test_a_timeout_is_each_attempts(world: World) -> None:
    world.agents["a1"].ends_as = Outcome.TIMED_OUT
    world.apply(job("backup", ONCE, retry=RETRY, timeout_s=7.0))
    world.advance(10)
    assert run_of(world).state.value == "retrying"
    world.agents["a1"].takes_s = 100.0
    world.advance(28)
    (change,) = world.records(Kind.ASSIGNMENT).values()
    assert isinstance(change.record, Assignment)
    assert (change.record.attempt, change.record.timeout_s) == (2, 7.0)


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.COMPLETED])
def test_what_is_no_failure_isnt_retried(world: World, outcome: Outcome) -> None:
    world.agents["a1"].ends_as = outcome
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(100)
    run = run_of(world)
    assert (run.state.value, run.attempt) == (outcome.value, 1)


def test_a_failure_after_a_cancel_isnt_retried(world: World) -> None:
    world.agents["a1"].takes_s = 100.0
    world.agents["a1"].obeys_as = Outcome.FAILED
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    world.request(cancel("c1", RUN))
    world.advance(100)
    run = run_of(world)
    assert (run.state.value, run.attempt) == ("failed", 1)


# --- leaders


@pytest.mark.parametrize("away_s", [1.0, 60.0])
def test_it_survives_a_change_of_leader(world: World, away_s: float) -> None:
    """Also one that finds it due long ago."""
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    world.nodes["s1"].kill()
    world.advance(away_s)
    world.agents["a1"].ends_as = Outcome.COMPLETED
    world.scheduler("s2")
    world.advance(60)
    run = run_of(world)
    assert (run.state.value, run.attempt, run.retries) == ("completed", 2, 1)
    assert starts_of(world)[1] >= 36.0


def test_an_attempt_that_ended_while_no_one_led_counts_from_its_end(world: World) -> None:
    """And the five seconds by which its agent's clock might be behind."""
    world.agents["a1"].takes_s = 10.0
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    world.nodes["s1"].kill()
    world.advance(15)  # It ended at 12:00:15.
    world.scheduler("s2")
    world.advance(12)
    assert run_of(world).retry_at == "2026-11-22T12:00:50.000Z"
    world.advance(20)
    assert starts_of(world) == [5.0, 50.0]


@pytest.mark.parametrize("behind_s", [-3600.0, 0.0, 20.0, 3600.0])
@pytest.mark.parametrize("cut_off_s", [0.0, 8.0])
def test_it_is_never_earlier_whatever_the_agents_clock_says(
    world: World, behind_s: float, cut_off_s: float
) -> None:
    """An outcome that comes late doesn't wait its whole interval again."""
    agent = world.agents["a1"]
    agent.behind_s = behind_s
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(5)
    agent.is_cut_off = cut_off_s > 0
    world.advance(cut_off_s)
    agent.is_cut_off = False
    world.advance(60)
    first, second, *_ = starts_of(world)
    assert first == 5.0
    assert second >= 36.0
    assert second <= 41.0 or behind_s < 0, "a clock that is ahead tells nothing"


@pytest.mark.parametrize("writes", range(1, 12))
def test_a_leader_may_die_after_any_write(writes: int) -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", ends_as=Outcome.FAILED)
    world.advance(0.5)
    world.leader_dies_after = world.leader_writes + writes
    world.apply(job("backup", *TWICE, retry=RETRY))
    world.scheduler("s2")
    world.advance(250)
    runs = world.runs("backup")
    assert {run: record.state.value for run, record in runs.items()} == {
        RUN: "failed",
        NEXT: "failed",
    }
    assert runs[NEXT].attempt == 4
    spans = sorted((s.start_s, s.end_s) for a in world.agents.values() for s in a.spans)
    assert all(end is not None and end <= start for (_, end), (start, _) in pairwise(spans))
    assert all(later - before >= 31 for before, later in pairwise(starts_of(world)))


# --- what ends a pending retry, and what doesn't


def test_the_next_tick_ends_it(world: World) -> None:
    world.apply(job("backup", *TWICE, retry=Retry(max=3, interval_s=300.0)))
    world.advance(64)
    assert run_of(world).state.value == "retrying"
    world.advance(1)
    run = run_of(world)
    assert run.state.value == "failed"
    assert run.history[-1].cause == f"no retry any more: the job's next run is there: {NEXT}"
    assert run_of(world, NEXT).history[0].cause == "due"  # A wait doesn't overlap it.


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE, Overlap.ALLOW])
def test_a_tick_wins_over_a_retry_that_is_due_at_its_instant(
    world: World, overlap: Overlap
) -> None:
    retry = Retry(max=3, interval_s=59.0)
    world.apply(job("backup", *TWICE, retry=retry, overlap=overlap))
    world.advance(70)
    assert starts_of(world) == [5.0]
    assert run_of(world).state.value == "failed"
    assert starts_of(world, NEXT) == [65.0]


def test_a_tick_wins_over_a_retry_that_came_due_while_no_one_led(world: World) -> None:
    world.apply(job("backup", *TWICE, retry=RETRY))
    world.advance(10)
    world.nodes["s1"].kill()
    world.advance(60)
    world.scheduler("s2")
    world.advance(30)
    assert starts_of(world) == [5.0]
    assert run_of(world).state.value == "failed"
    assert len(starts_of(world, NEXT)) == 1


def test_a_tick_wins_over_a_retry_that_came_due_while_no_agent_was_there(world: World) -> None:
    world.apply(job("backup", *TWICE, retry=RETRY))
    world.advance(10)
    world.drain("a1")
    world.advance(60)
    world.undrain("a1")
    world.advance(1)
    assert starts_of(world) == [5.0]
    assert run_of(world).state.value == "failed"
    assert starts_of(world, NEXT) == [70.5]


def test_a_tick_that_isnt_run_leaves_it(world: World) -> None:
    """Missed in an outage: nothing takes its place."""
    world.apply(job("backup", *TWICE, retry=RETRY, recovery=Recovery.NONE, pickup_buffer_s=5.0))
    world.advance(10)
    world.nodes["s1"].kill()
    world.advance(90)
    world.scheduler("s2")
    world.advance(30)
    assert run_of(world, NEXT).state.value == "missed"
    assert run_of(world).attempt >= 2


def test_a_run_that_queued_meanwhile_takes_over_at_once(world: World) -> None:
    """The next tick has arrived already."""
    world.agents["a1"].takes_s = 70.0
    world.apply(job("backup", *TWICE, retry=RETRY, overlap=Overlap.QUEUE))
    world.advance(76)
    run = run_of(world)
    assert [step.state.value for step in run.history] == ["assigned", "failed"]
    assert starts_of(world, NEXT) == [75.0]


def test_a_caught_up_run_gives_way_to_the_next(world: World) -> None:
    """Each of them is the next tick of the one before."""
    fields: dict[str, Any] = {"recovery": Recovery.ALL, "pickup_buffer_s": 1.0}
    world.apply(job("backup", every_s=10, retry=RETRY, **fields))
    world.drain("a1")
    world.advance(45)
    world.undrain("a1")
    world.advance(4.2)
    recovered = [run for run in world.runs("backup").values() if run.origin is Origin.RECOVERY]
    assert [run.state.value for run in recovered] == ["failed"] * 3 + ["retrying"]


@pytest.mark.parametrize(
    "stop",
    [
        lambda world: world.delete("backup"),
        lambda world: world.set_state("backup", JobState.DISABLED),
        lambda world: world.set_state("backup", JobState.AD_HOC_ACTIVE),
    ],
    ids=["delete", "disable", "ad hoc"],
)
def test_a_stop_of_its_job_ends_it(world: World, stop: Callable[[World], None]) -> None:
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    stop(world)
    world.advance(60)
    run = run_of(world)
    assert (run.state.value, run.attempt) == ("failed", 1)
    assert run.history[-1].cause == "no retry any more: the job was stopped"


def test_a_cancel_ends_it(world: World) -> None:
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    world.request(cancel("c1", RUN))
    world.advance(60)
    run = run_of(world)
    assert (run.state.value, run.attempt) == ("cancelled", 1)
    found = world.answer("c1")
    assert found is not None
    assert found.accepted


def test_a_request_doesnt_end_it_and_has_retries_of_its_own(world: World) -> None:
    asked = "20261122T120010.000Z-01"
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    world.request(trigger(asked))
    world.advance(3)
    assert run_of(world, asked).state.value == "retrying"
    assert run_of(world).state.value == "retrying"
    world.advance(25)
    assert starts_of(world) == [5.0, 36.0]


def test_a_due_retry_waits_for_a_run_on_request(world: World) -> None:
    """The job doesn't overlap itself; its run on request started during the wait."""
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    world.agents["a1"].takes_s = 60.0
    world.request(trigger("20261122T120010.000Z-01"))
    world.advance(100)
    assert starts_of(world) == [5.0, 70.5]


@pytest.mark.parametrize("name", ["backup", CLUSTER])
def test_a_pause_holds_it_and_doesnt_end_it(world: World, name: str) -> None:
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    world.pause(name)
    world.advance(90)
    assert (run_of(world).state.value, run_of(world).attempt) == ("retrying", 1)
    world.resume(name)
    world.advance(3)
    assert run_of(world).attempt == 2


def test_a_change_of_the_jobs_retry_leaves_the_wait_as_it_is(world: World) -> None:
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    world.apply(job("backup", ONCE, retry=Retry()))
    world.advance(90)
    run = run_of(world)
    assert (run.state.value, run.attempt) == ("failed", 2)


# --- agents


def test_it_waits_for_an_agent_outside_any_buffer(world: World) -> None:
    world.apply(job("backup", ONCE, retry=RETRY, pickup_buffer_s=5.0))
    world.advance(10)
    world.drain("a1")
    world.advance(300)
    assert run_of(world).state.value == "retrying"
    world.undrain("a1")
    world.advance(1.5)
    assert run_of(world).attempt == 2


def test_a_loss_during_a_retry_is_no_retry(world: World) -> None:
    world.apply(job("backup", ONCE, retry=Retry(max=1, interval_s=30.0)))
    world.advance(10)
    world.agents["a1"].takes_s = 100.0
    world.advance(30)
    world.agents["a1"].kill()
    world.agent("a2", ends_as=Outcome.FAILED)
    world.advance(30)
    run = run_of(world)
    assert [attempt.outcome.value for attempt in run.attempts] == ["failed", "died", "failed"]
    assert (run.state.value, run.retries, run.reassigns) == ("failed", 1, 1)


def test_a_retry_that_wasnt_claimed_waits_on_as_a_retry(world: World) -> None:
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    world.agents["a1"].claims_nothing = True
    world.advance(30)
    assert run_of(world).state.value == "assigned"
    world.drain("a1")
    world.advance(1)
    assert (run_of(world).state.value, run_of(world).retries) == ("retrying", 1)
    world.agents["a1"].claims_nothing = False
    world.undrain("a1")
    world.advance(1.5)
    run = run_of(world)
    assert (run.state.value, run.attempt, run.retries) == ("retrying", 3, 2)


def test_a_retry_that_wasnt_claimed_ends_as_its_attempt_did(world: World) -> None:
    world.apply(job("backup", ONCE, retry=RETRY))
    world.advance(10)
    world.agents["a1"].claims_nothing = True
    world.advance(30)
    world.set_state("backup", JobState.DISABLED)
    world.advance(1)
    assert run_of(world).state.value == "failed"


def test_a_retry_waits_for_a_held_run_of_its_job(world: World) -> None:
    """What it did may have to be seen to first, and it may be run again."""
    failing = world.agents["a1"]
    world.apply(job("backup", ONCE, retry=RETRY, on_agent_loss=OnAgentLoss.HOLD))
    world.advance(7)
    failing.ends_as = Outcome.COMPLETED
    failing.takes_s = 1000.0
    world.request(trigger("20261122T120008-t"))
    world.advance(1)
    failing.kill()
    world.agent("a2")
    world.advance(60)
    assert world.states("backup") == {"120005": "retrying", "120008-t": "held"}
    world.request(release("20261122T120108-r", "20261122T120008-t", Release.DIED))
    world.advance(5)
    assert run_of(world).state is RunState.COMPLETED


@pytest.mark.parametrize("how", ["the last", "stopped", "the next tick"])
def test_what_a_failed_attempt_hands_on_is_there_when_its_retry_is_given_up(how: str) -> None:
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", ends_as=Outcome.FAILED)
    agent.hands_on = {"backup": {"code": ("7",)}}
    world.advance(0.5)
    when = (Condition(name="code", op=ConditionOp.EQUALS, values=("7",)),)
    link = Link(to="alarm", on=(RunState.FAILED,), when=when)
    retry = Retry(max=0 if how == "the last" else 3, interval_s=300.0)
    world.apply(job("alarm", state=JobState.CHAIN_ACTIVE))
    world.apply(job("backup", every_s=60, retry=retry, chain=(link,)))
    world.advance(70)
    if how == "stopped":
        world.set_state("backup", JobState.DISABLED)
    elif how == "the next tick":
        world.advance(60)
    world.advance(5)
    assert world.runs("backup")["20261122T120100Z"].state is RunState.FAILED
    assert len(world.runs("alarm")) == 1


@pytest.mark.parametrize("is_free", [True, False])
def test_a_retry_that_nobody_claimed_ends_by_the_next_tick(is_free: bool) -> None:
    """Whether or not another agent is free as it moves."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", ends_as=Outcome.FAILED)
    world.advance(0.5)
    retry = Retry(max=3, interval_s=40.0)
    world.apply(job("backup", every_s=60, overlap=Overlap.QUEUE, retry=retry))
    world.advance(64.5)
    world.agents["a1"].claims_nothing = True
    world.advance(60)
    if is_free:
        world.agent("a2")
        world.advance(1)
    world.drain("a1")
    world.advance(1)
    if not is_free:
        world.agent("a2")
    world.advance(5)
    assert world.states("backup")["120100"] == "failed"


def test_a_bound_retry_doesnt_wait_for_agents_that_its_job_was_moved_to() -> None:
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", takes_s=1.0, ends_as=Outcome.FAILED)
    world.advance(0.5)
    ticks = [At(Utc(f"2026-11-22T12:00:{second}.000Z")) for second in ("05", "20")]
    fields: dict[str, Any] = {"per_host": True, "retry": Retry(max=3, interval_s=20.0)}
    world.apply(job("backup", *ticks, hosts=("a1",), **fields))
    world.advance(10)
    world.apply(job("backup", *ticks, hosts=("a2",), **fields))
    agent.ends_as = Outcome.COMPLETED
    world.advance(60)
    assert world.states("backup")["120005Z@a1"] == "completed"


def test_a_bound_retry_that_was_paused_outlasts_its_agents_restart() -> None:
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", takes_s=1.0, ends_as=Outcome.FAILED)
    world.advance(0.5)
    tick, retry = At(Utc("2026-11-22T12:00:05.000Z")), Retry(max=3, interval_s=20.0)
    world.apply(job("backup", tick, per_host=True, pickup_buffer_s=60.0, retry=retry))
    world.advance(10)
    world.pause("backup")
    world.advance(300)
    agent.leave()
    world.advance(2)
    world.agent("a1", takes_s=1.0)
    world.advance(2)
    world.resume("backup")
    world.advance(60)
    assert list(world.states("backup").values()) == ["completed"]


def test_what_a_failed_attempt_handed_on_isnt_that_of_the_one_that_died_after_it() -> None:
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", ends_as=Outcome.FAILED)
    agent.hands_on = {"backup": {"code": ("7",)}}
    world.advance(0.5)
    retry = Retry(max=3, interval_s=10.0)
    tick = At(Utc("2026-11-22T12:00:05.000Z"))
    world.apply(job("backup", tick, retry=retry, on_agent_loss=OnAgentLoss.REASSIGN))
    world.advance(10)
    agent.takes_s = 1000.0
    world.advance(12)
    (run,) = world.runs("backup").values()
    assert (run.state, run.results) == (RunState.ASSIGNED, {"code": ("7",)})
    agent.kill()
    world.advance(30)
    world.request(cancel("r1", "20261122T120005Z"))
    world.advance(2)
    (run,) = world.runs("backup").values()
    assert (run.state, run.results) == (RunState.CANCELLED, {})


@pytest.mark.parametrize("by", ["request", "chain"])
def test_what_no_schedule_made_is_retried_though_its_jobs_outage_lasts(
    world: World, by: str
) -> None:
    """That waits for an agent that the schedule's runs alone are for."""
    world.apply(
        job("backup", every_s=10, hosts=("away",), hosts_for=HostsFor.SCHEDULED, retry=RETRY)
    )  # fmt: skip
    world.advance(15)
    assert world.records(Kind.GAP)
    if by == "request":
        world.request(trigger("r1"))
    else:
        link = Link(to="backup", on=(RunState.FAILED,))
        world.apply(job("source", At(Utc("2026-11-22T12:00:16.000Z")), chain=(link,)))
    world.advance(50)
    (run,) = world.runs("backup").values()
    assert (len(run.attempts), run.retries) == (2, 2)
    # The outage's end brings a tick, which takes its place.
    world.agent("away")
    world.advance(60)
    over = run_of(world, run.id)
    assert (over.state, len(over.attempts)) == (RunState.FAILED, 2)
    assert over.history[-1].cause.startswith("no retry any more: the job's next run is there")


def test_what_was_asked_for_is_retried_beside_ticks_that_cant_be_written(world: World) -> None:
    world.apply(job("backup", every_s=10, retry=Retry(max=3, interval_s=2.0)))
    world.rejects = lambda write: isinstance(write, fx.CreateRun) and write.is_tick
    world.advance(30)
    assert world.records(Kind.GAP)
    world.request(trigger("r1"))
    world.advance(20)
    assert len(run_of(world, "r1").attempts) == 4
