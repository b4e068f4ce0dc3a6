"""Jobs that run on each agent, have windows, stand in groups, or change while an outage ends."""

from __future__ import annotations

from typing import Any

import pytest

from etcsched.audit.history import OperationKind, OperationOutcome, WordKind
from etcsched.audit.verdict import Invariant
from etcsched.core.records import (
    ConflictGroup,
    FanOut,
    Kind,
    ScheduleVersion,
    Window,
)
from etcsched.core.schedule import Cron
from etcsched.core.states import JobState, OnDisconnect, Origin, Recovery, RunState
from etcsched.keyspace.codec import encode
from tests.unit.audit.story import KEYS, Story, a_job, a_run, at, tick
from tests.unit.audit.test_rules import check, check_clean, in_an_outage, recovered

ONE = tick(60)
READY = (RunState.READY,)


@pytest.fixture
def story() -> Story:
    return Story().opened()


# --- per_host


def fanned_out(story: Story, seconds: float, *agents: str, **fields: Any) -> None:
    story.now_s = seconds + 0.01
    fan_out = FanOut(
        **{
            "job": "job", "run": tick(seconds), "scheduled_at": at(seconds), "agents": agents,
            "origin": Origin.SCHEDULE, "cause": "due", "at": at(seconds), "term": 1, **fields,
        }
    )  # fmt: skip
    story.put((KEYS.of(Kind.FAN_OUT, "job", fan_out.run), fan_out))


def run_on(story: Story, seconds: float, agent: str) -> None:
    run = a_run(f"{tick(seconds)}@{agent}", *READY, scheduled_at=at(seconds))
    story.put((KEYS.of(Kind.RUN, "job", run.id), run))


def forgotten(story: Story, seconds: float) -> None:
    story.delete(KEYS.of(Kind.FAN_OUT, "job", tick(seconds)))


def test_a_tick_is_decided_by_its_fan_out(story: Story) -> None:
    story.defined(a_job(per_host=True))
    fanned_out(story, 60, "a", "b")
    story.through(61)
    run_on(story, 60, "a")
    run_on(story, 60, "b")
    forgotten(story, 60)
    check_clean(story)


def test_a_tick_that_nobody_fanned_out(story: Story) -> None:
    story.defined(a_job(per_host=True))
    story.now_s = 62.0
    story.through(61)
    check(story, Invariant.I1, "lost; the watermark passed it undecided")


def test_an_agent_that_a_fan_out_forgot(story: Story) -> None:
    story.defined(a_job(per_host=True))
    fanned_out(story, 60, "a", "b")
    story.through(61)
    run_on(story, 60, "a")
    forgotten(story, 60)
    check(story, Invariant.I1, "there was no run on b")


def test_a_run_on_an_agent_that_no_fan_out_names(story: Story) -> None:
    story.defined(a_job(per_host=True))
    fanned_out(story, 60, "a")
    run_on(story, 60, "a")
    run_on(story, 60, "b")
    story.through(61)
    check(story, Invariant.I1, "no fan-out of its tick names b")


@pytest.mark.parametrize(("agent", "is_wrong"), [("a", True), ("b", False)])
def test_a_bound_run_waits_for_what_its_agent_has(story: Story, agent: str, is_wrong: bool) -> None:
    story.staffed("b")
    story.created(ONE, agent=agent)
    story.defined(a_job(per_host=True))
    story.now_s = 90.0
    again: dict[str, Any] = {"origin": Origin.RESUBMISSION, "scheduled_at": None}
    story.created("r1@a", agent="a", **again)
    told = [violation.text for violation in story.verdict().violations]
    assert any(f"assigned beside job/{ONE}" in text for text in told) == is_wrong


@pytest.mark.parametrize(("agent", "is_wrong"), [("a", False), ("b", True)])
def test_a_bound_run_whose_job_has_other_hosts_by_now(
    story: Story, agent: str, is_wrong: bool
) -> None:
    story.defined(a_job(per_host=True))
    story.staffed("b")
    fanned_out(story, 60, "a")
    run_on(story, 60, "a")
    story.through(61)
    story.defined(a_job(per_host=True, hosts=("b",)))
    story.created(f"{ONE}@a", agent=agent, scheduled_at=at(60))
    told = [violation.text for violation in story.verdict().violations]
    assert any("not among the job's hosts a" in text for text in told) == is_wrong


def test_a_fan_out_for_nobody(story: Story) -> None:
    story.defined(a_job(per_host=True))
    fanned_out(story, 60)
    check(story, Invariant.I1, "it is fanned out for nobody")


def test_a_fan_out_that_wasnt_due(story: Story) -> None:
    story.defined(a_job(per_host=True))
    fanned_out(story, 75, "a")
    check(story, Invariant.I1, "it is fanned out, and wasn't due")


def test_too_many_fan_outs_of_an_outage(story: Story) -> None:
    in_an_outage(story, Recovery.LAST, per_host=True)
    for seconds in (240, 300):
        fanned_out(story, seconds, "a", origin=Origin.RECOVERY)
        story.now_s = 359.5
    recovered(story, [60, 120, 180], [])
    check(story, Invariant.I9, "recovery last, and 2 missed ticks run")


# --- an outage whose job changes


def test_a_mode_that_changes_before_the_first_decision(story: Story) -> None:
    in_an_outage(story, Recovery.ALL)
    story.defined(a_job(recovery=Recovery.NONE, pickup_buffer_s=10.0))
    recovered(story, [60, 120, 180, 240], [300])
    check(story, Invariant.I9, "recovery none, and 1 missed ticks run")


def test_a_mode_that_changes_in_the_middle(story: Story) -> None:
    in_an_outage(story, Recovery.ALL)
    story.put(
        (
            KEYS.of(Kind.RUN, "job", ONE),
            a_run(ONE, RunState.QUEUED, origin=Origin.RECOVERY),
        )
    )
    story.defined(a_job(recovery=Recovery.NONE, pickup_buffer_s=10.0))
    recovered(story, [120, 180, 240, 300], [])
    check_clean(story)


def test_an_outage_without_a_gap_of_its_own(story: Story) -> None:
    """What was decided in the ordinary way since tells the next one from it."""
    story.defined(a_job(recovery=Recovery.LAST, pickup_buffer_s=10.0))
    story.now_s = 75.0
    chosen = a_run(ONE, RunState.QUEUED, origin=Origin.RECOVERY)
    story.put((KEYS.of(Kind.RUN, "job", ONE), chosen))
    story.now_s = 120.01
    story.put((KEYS.of(Kind.RUN, "job", tick(120)), a_run(tick(120), *READY)))
    story.through(121)
    story.now_s = 180.5
    story.put(story.gap(179.9))
    story.through(359)
    story.now_s = 359.5
    recovered(story, [180, 240], [300])
    check_clean(story)


@pytest.mark.parametrize(("term", "is_wrong"), [(1, True), (2, False)])
def test_two_leaders_each_choose_a_last_one(story: Story, term: int, is_wrong: bool) -> None:
    """The first died before its account of an outage, and another one followed it."""
    in_an_outage(story, Recovery.LAST)
    first = a_run(tick(180), RunState.QUEUED, origin=Origin.RECOVERY)
    story.put((KEYS.of(Kind.RUN, "job", first.id), first))
    if term == 2:
        story.delete(KEYS.of(Kind.ELECTION, "1"))
        story.led(2)
    second = a_run(tick(300), RunState.QUEUED, origin=Origin.RECOVERY, term=term)
    missed = [
        (KEYS.archive("job", tick(s)), a_run(tick(s), RunState.MISSED, term=term))
        for s in (60, 120, 240)
    ]
    story.put(story.gap(359.5, closed=True), (KEYS.of(Kind.RUN, "job", second.id), second), *missed)
    told = [violation.text for violation in story.verdict().violations]
    assert any("recovery last, and 2 missed ticks run" in text for text in told) == is_wrong


# --- windows


def windowed(state: JobState, within: JobState) -> ScheduleVersion:
    window = Window(since=at(50), until=at(100), state=within)
    return ScheduleVersion(
        since=at(0.5), state=state, patterns=(Cron("* * * * *"),), windows=(window,)
    )


def test_a_claim_in_a_window_that_lets_it_start(story: Story) -> None:
    story.defined(a_job(versions=(windowed(JobState.DISABLED, JobState.ENABLED),)))
    story.now_s = 60.01
    token = story.created(ONE, assigned_at=at(60.01))
    story.claimed(ONE, token)
    check_clean(story)


def test_a_claim_in_a_window_that_doesnt(story: Story) -> None:
    story.defined(a_job(versions=(windowed(JobState.ENABLED, JobState.DISABLED),)))
    story.put((KEYS.of(Kind.RUN, "job", "r1"), a_run("r1", *READY, origin=Origin.REQUEST)))
    story.now_s = 60.01
    token = story.created("r1", assigned_at=at(60.01))
    story.claimed("r1", token)
    verdict = story.verdict()
    assert any("claimed while its job was disabled" in v.text for v in verdict.violations)


# --- groups


@pytest.mark.parametrize(
    ("on_disconnect", "is_wrong"), [(OnDisconnect.STOP, False), (OnDisconnect.CONTINUE, True)]
)
def test_a_held_run_and_its_group(
    story: Story, on_disconnect: OnDisconnect, is_wrong: bool
) -> None:
    """Whether its copy may run on decides."""
    group = ConflictGroup(group="g", jobs=("job", "other"))
    story.put((KEYS.of(Kind.CONFLICT, "g"), group))
    story.defined(a_job("other"))
    story.staffed("b")
    story.now_s = 60.01
    story.created(ONE, job="other", agent="b", on_disconnect=on_disconnect)
    held = a_run(ONE, RunState.ASSIGNED, RunState.HELD, job="other", agent="b")
    story.put((KEYS.of(Kind.RUN, "other", ONE), held))
    story.created(ONE)
    if is_wrong:
        check(story, Invariant.I10, "assigned beside other")
    else:
        check_clean(story)


def test_a_job_that_is_put_into_a_group_isnt_applied_again(story: Story) -> None:
    job = a_job("other", changed_by="op7")
    story.defined(job)
    story.operation(OperationKind.APPLY, "other", OperationOutcome.ACKNOWLEDGED, mark="op7")
    group = ConflictGroup(group="g", jobs=("job", "other"))
    story.commit(
        (KEYS.of(Kind.CONFLICT, "g"), encode(group)), (KEYS.of(Kind.JOB, "other"), encode(job))
    )
    check_clean(story)


# --- a copy that runs on


@pytest.mark.parametrize(
    ("on_disconnect", "is_wrong"), [(OnDisconnect.STOP, True), (OnDisconnect.CONTINUE, False)]
)
def test_a_lost_copy_beside_the_next_attempt(
    story: Story, on_disconnect: OnDisconnect, is_wrong: bool
) -> None:
    """What the attempt was told counts, whatever its job says by now."""
    story.now_s = 60.01
    first = story.created(ONE, on_disconnect=on_disconnect)
    story.claimed(ONE, first)
    story.word(WordKind.START, ONE, first)
    story.delete(KEYS.of(Kind.PRESENCE, "a"), KEYS.of(Kind.REPORT, "a", "job", ONE))
    story.staffed("b")
    story.delete(KEYS.of(Kind.ASSIGNMENT, "a", "job", ONE))
    second = story.created(ONE, agent="b", attempt=2)
    story.word(WordKind.START, ONE, second, agent="b")
    story.now_s = 65.0
    story.word(WordKind.BEAT, ONE, first)
    told = [violation.invariant for violation in story.verdict().violations]
    assert (Invariant.I3 in told) == is_wrong
