"""Each invariant: a history by hand that violates it is caught, by number and in words."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.audit.auditor import Auditor
from etcsched.audit.history import (
    FaultKind,
    Fence,
    Guarded,
    Hole,
    NodeView,
    OperationKind,
    OperationOutcome,
    Truth,
    WordKind,
)
from etcsched.audit.verdict import Invariant, Outcome
from etcsched.core.records import (
    Answer,
    ConflictGroup,
    Drain,
    Edited,
    FanOut,
    Follow,
    Kind,
    Pause,
    PauseInterval,
    Report,
    Request,
    RequestKind,
    ScheduleVersion,
    Source,
    StartSeen,
)
from etcsched.core.schedule import Cron
from etcsched.core.states import JobState, Origin, Overlap, Recovery, RunState
from etcsched.core.states import Outcome as AttemptOutcome
from etcsched.core.times import Utc
from etcsched.keyspace.codec import encode
from tests.unit.audit.story import (
    DONE,
    KEYS,
    Story,
    a_job,
    a_run,
    an_assignment,
    an_attempt,
    at,
    tick,
)

ONE = tick(60)
TWO = tick(120)


@pytest.fixture
def story() -> Story:
    return Story().opened()


def check(story: Story, invariant: Invariant, *words: str) -> None:
    """It alone is violated, and said in these words."""
    verdict = story.verdict()
    assert verdict.outcome is Outcome.VIOLATED, verdict.invalid_because
    assert {violation.invariant for violation in verdict.violations} == {invariant}, [
        str(violation) for violation in verdict.violations
    ]
    for word in words:
        assert any(word in violation.text for violation in verdict.violations), verdict.violations
    (result,) = [result for result in verdict.results if result.invariant is invariant]
    assert result.violated == len(verdict.violations)


def check_clean(story: Story) -> None:
    verdict = story.verdict()
    assert verdict.violations == ()
    assert verdict.outcome is Outcome.CLEAN, verdict.invalid_because


# --- nothing is wrong


def test_an_orderly_history(story: Story) -> None:
    story.done(60)
    story.done(120)
    story.delete(KEYS.of(Kind.ELECTION, "1"))
    story.led(2)
    story.now_s = 180.02
    token = story.created(tick(180), term=2)
    story.claimed(tick(180), token)
    story.ran(tick(180), token)
    story.claimed(tick(180), token, outcome=AttemptOutcome.COMPLETED)
    story.through(181, term=2)
    done = a_run(tick(180), *DONE, term=2, attempts=(an_attempt(token),))
    story.commit(
        (KEYS.archive("job", tick(180)), encode(done)),
        (KEYS.of(Kind.RUN, "job", tick(180)), None),
        (KEYS.of(Kind.ASSIGNMENT, "a", "job", tick(180)), None),
        (KEYS.of(Kind.REPORT, "a", "job", tick(180)), None),
    )
    story.now_s = 200
    story.quiet(processes=(), leases=2, nodes=2, views=())
    verdict = story.auditor.finish()
    assert verdict.violations == ()
    assert verdict.outcome is Outcome.CLEAN
    assert sum(verdict.lateness.counts) == 3
    assert verdict.lateness.worst_ms == 20
    checked = {result.invariant for result in verdict.results if result.checked}
    assert {Invariant.I1, Invariant.I2, Invariant.I4, Invariant.I6, Invariant.I7} <= checked


def test_an_agent_is_lost_and_its_run_moves(story: Story) -> None:
    story.staffed("b")
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.fault(FaultKind.KILLED, 60.5, 70)
    story.ran(ONE, token, ends=False)
    story.now_s = 66
    story.delete(KEYS.of(Kind.PRESENCE, "a"))
    run = a_run(
        ONE, RunState.ASSIGNED, RunState.ASSIGNED, agent="b", attempt=2,
        attempts=(an_attempt(token, AttemptOutcome.DIED),),
    )  # fmt: skip
    second = story.commit(
        (KEYS.of(Kind.RUN, "job", ONE), encode(run)),
        (KEYS.of(Kind.ASSIGNMENT, "a", "job", ONE), None),
        (KEYS.of(Kind.REPORT, "a", "job", ONE), None),
        (KEYS.of(Kind.ASSIGNMENT, "b", "job", ONE), encode(an_assignment("b", ONE, 2))),
    )
    story.claimed(ONE, second, agent="b")
    story.ran(ONE, second)
    verdict = story.verdict()
    assert verdict.violations == ()
    assert verdict.least_fence_slack_ms == 4990


# --- I1


def test_i1_a_tick_that_is_lost(story: Story) -> None:
    story.done(60)
    story.through(125)
    check(story, Invariant.I1, "job, due 2026-11-22T12:02:00.000Z: lost")


def test_i1_a_run_that_wasnt_due(story: Story) -> None:
    story.now_s = 61.01
    story.created(tick(61))
    check(story, Invariant.I1, "wasn't due")


def test_i1_a_run_of_a_paused_time(story: Story) -> None:
    pause = Pause(intervals=(PauseInterval(since=at(50), until=at(70)),))
    story.put((KEYS.of(Kind.PAUSE, "job"), pause))
    story.now_s = 71
    story.put((KEYS.archive("job", ONE), a_run(ONE, RunState.MISSED)))
    check(story, Invariant.I1, "wasn't due")


def test_i1_a_run_created_twice(story: Story) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    story.delete(KEYS.of(Kind.ASSIGNMENT, "a", "job", ONE))
    story.ended(ONE, token, RunState.FAILED)
    story.created(ONE)
    invariants = {violation.invariant for violation in story.verdict().violations}
    assert invariants == {Invariant.I1, Invariant.I7}


def test_i1_a_tick_recorded_twice(story: Story) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    story.ended(ONE, token, RunState.FAILED)
    story.through(65)
    story.now_s = 66
    summary = a_run(TWO, RunState.MISSED, missed_count=2, missed_through=at(180))
    story.put((KEYS.archive("job", TWO), summary))
    story.created(
        tick(180),
    )
    check(story, Invariant.I1, "decided twice")


def test_i1_a_watermark_that_goes_back(story: Story) -> None:
    story.through(0.4)
    check(story, Invariant.I1, "the watermark went from")


def test_i1_a_definition_from_before_the_watermark(story: Story) -> None:
    story.through(59)
    old, new = a_job().versions[0], ScheduleVersion(since=at(30), patterns=(Cron("1 * * * *"),))
    story.defined(a_job(versions=(old, new)))
    check(story, Invariant.I1, "before the watermark")


def test_i1_a_tick_owed_by_a_gap_is_lost_when_it_closes(story: Story) -> None:
    story.now_s = 60.5
    story.put(story.gap(59.9))
    story.through(65)
    assert story.auditor.violations == []
    story.put(story.gap(70, closed=True))
    check(story, Invariant.I1, "its gap passed it undecided")


def test_i1_the_definition_in_force_at_its_time_decides(story: Story) -> None:
    old = a_job().versions[0]
    off = ScheduleVersion(since=at(90), state=JobState.DISABLED, patterns=old.patterns)
    story.done(60)
    story.defined(a_job(versions=(old, off)))
    story.through(125)
    check_clean(story)


def test_i1_a_history_that_begins_in_the_middle() -> None:
    """What was decided before it began isn't asked for, what comes after it is."""
    whole = Story().opened()
    whole.done(60)
    rest = whole.continued()
    rest.through(125)
    check(rest, Invariant.I1, "12:02:00.000Z: lost")


# --- I2


def test_i2_a_start_that_is_late(story: Story) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    story.now_s = 63
    story.claimed(ONE, token)
    story.word(WordKind.START, ONE, token)
    check(story, Invariant.I2, "started 3000 ms after its tick", "no fault is recorded")


def test_i2_a_start_that_is_early(story: Story) -> None:
    story.now_s = 59
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.word(WordKind.START, ONE, token)
    check(story, Invariant.I2, "started 1000 ms before its tick")


@pytest.mark.parametrize("early_s", [1, 59])
@pytest.mark.parametrize("kind", [FaultKind.CLOCK, FaultKind.CUT_OFF])
def test_i2_only_a_wrong_clock_excuses_a_start_that_is_early(
    story: Story, kind: FaultKind, early_s: int
) -> None:
    story.now_s = 60 - early_s
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.word(WordKind.START, ONE, token)
    story.fault(kind, 0, 60 - early_s)
    if kind is FaultKind.CLOCK:
        check_clean(story)
    else:
        check(
            story, Invariant.I2, f"started {early_s}000 ms before its tick", "no fault is recorded"
        )


def test_i2_a_fault_excuses_it_until_the_recovery_bound(story: Story) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    story.now_s = 63
    story.claimed(ONE, token)
    story.word(WordKind.START, ONE, token)
    story.fault(FaultKind.CUT_OFF, 59, 62)
    check_clean(story)


def test_i2_not_beyond_the_recovery_bound(story: Story) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    story.now_s = 95
    story.claimed(ONE, token)
    story.word(WordKind.START, ONE, token)
    story.fault(FaultKind.CUT_OFF, 59, 62)
    check(story, Invariant.I2, "33000 ms after the last heal")


# --- I3


def overlapping(story: Story) -> None:
    """The first attempt beats until 69 s, the second starts at 67 s."""
    story.staffed("b")
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.word(WordKind.START, ONE, token, agent="a")
    story.now_s = 66
    story.delete(KEYS.of(Kind.PRESENCE, "a"))
    attempts = (an_attempt(token, AttemptOutcome.DIED),)
    run = a_run(ONE, RunState.ASSIGNED, RunState.ASSIGNED, agent="b", attempt=2, attempts=attempts)
    second = story.commit(
        (KEYS.of(Kind.RUN, "job", ONE), encode(run)),
        (KEYS.of(Kind.ASSIGNMENT, "a", "job", ONE), None),
        (KEYS.of(Kind.REPORT, "a", "job", ONE), None),
        (KEYS.of(Kind.ASSIGNMENT, "b", "job", ONE), encode(an_assignment("b", ONE, 2))),
    )
    story.claimed(ONE, second, agent="b")
    story.now_s = 67
    story.word(WordKind.START, ONE, second, agent="b")
    story.now_s = 69
    story.word(WordKind.BEAT, ONE, token, agent="a")
    story.word(WordKind.END, ONE, second, agent="b")


def test_i3_two_attempts_overlap(story: Story) -> None:
    overlapping(story)
    story.fault(FaultKind.ETCD, 60, 66)  # So that the session's end was nobody's to foresee.
    check(story, Invariant.I3, "lived for 2000 ms beside")


def test_i3_but_for_a_host_that_was_frozen_whole(story: Story) -> None:
    overlapping(story)
    story.fault(FaultKind.HOST_FROZEN, 61, 68.5)
    check_clean(story)


def test_i3_an_attempt_that_starts_twice(story: Story) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.word(WordKind.START, ONE, token)
    story.word(WordKind.START, ONE, token)
    check(story, Invariant.I3, "was started twice")


# --- I4


def test_i4_a_second_attempt_while_the_first_runs(story: Story) -> None:
    story.staffed("b")
    story.now_s = 60.01
    story.claimed(ONE, story.created(ONE))
    run = a_run(ONE, RunState.ASSIGNED, RunState.ASSIGNED, agent="b", attempt=2)
    story.put(
        (KEYS.of(Kind.RUN, "job", ONE), run),
        (KEYS.of(Kind.ASSIGNMENT, "b", "job", ONE), an_assignment("b", ONE, 2)),
    )
    check(story, Invariant.I4, "while attempt 1 ran on a", "stands beside")


def test_i4_a_session_that_comes_back_after_its_run_moved(story: Story) -> None:
    story.staffed("b")
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.delete(KEYS.of(Kind.PRESENCE, "a"))
    attempts = (an_attempt(token, AttemptOutcome.DIED),)
    run = a_run(ONE, RunState.ASSIGNED, RunState.ASSIGNED, agent="b", attempt=2, attempts=attempts)
    story.commit(
        (KEYS.of(Kind.RUN, "job", ONE), encode(run)),
        (KEYS.of(Kind.ASSIGNMENT, "a", "job", ONE), None),
        (KEYS.of(Kind.REPORT, "a", "job", ONE), None),
        (KEYS.of(Kind.ASSIGNMENT, "b", "job", ONE), encode(an_assignment("b", ONE, 2))),
    )
    story.staffed("a")
    check(story, Invariant.I4, "the session a1 still lives")


# --- I5


def test_i5_a_report_with_a_stale_token(story: Story) -> None:
    story.now_s = 60.01
    story.claimed(ONE, story.created(ONE) - 1)
    check(story, Invariant.I5, "reported with the token")


def test_i5_a_resource_that_accepts_an_older_token(story: Story) -> None:
    for token in (5, 7, 6):
        story.tell(Guarded(resource="ledger", token=token, accepted=True, at_ms=story.now_ms))
    check(story, Invariant.I5, "ledger accepted the token 6 after 7")


def test_i5_a_refused_one_is_right(story: Story) -> None:
    for token, accepted in ((5, True), (7, True), (6, False)):
        story.tell(Guarded(resource="l", token=token, accepted=accepted, at_ms=story.now_ms))
    check_clean(story)


# --- I6


def test_i6_a_write_without_the_election_key(story: Story) -> None:
    story.delete(KEYS.of(Kind.ELECTION, "1"))
    story.through(30)
    check(story, Invariant.I6, "while the election key of s1, term 1 was gone")


def test_i6_a_write_of_an_older_term(story: Story) -> None:
    story.delete(KEYS.of(Kind.ELECTION, "1"))
    story.led(2)
    story.through(30, term=1)
    check(story, Invariant.I6, "written by term 1 in term 2")


def test_i6_a_term_of_the_second_in_the_queue(story: Story) -> None:
    story.led(2)
    check(story, Invariant.I6, "stood before it")


# --- I7


def test_i7_a_final_state_that_changes(story: Story) -> None:
    token = story.done(60)
    changed = a_run(ONE, RunState.ASSIGNED, RunState.FAILED, attempts=(an_attempt(token),))
    story.put((KEYS.archive("job", ONE), changed))
    check(story, Invariant.I7, "it had ended completed, and is failed now")


def test_i7_an_outcome_that_is_lost(story: Story) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.claimed(ONE, token, outcome=AttemptOutcome.FAILED)
    run = a_run(ONE, RunState.ASSIGNED, RunState.READY)
    story.commit(
        (KEYS.of(Kind.RUN, "job", ONE), encode(run)),
        (KEYS.of(Kind.ASSIGNMENT, "a", "job", ONE), None),
        (KEYS.of(Kind.REPORT, "a", "job", ONE), None),
    )
    check(story, Invariant.I7, "the outcome failed was acknowledged, and lost")


def test_i7_what_completed_runs_again(story: Story) -> None:
    story.staffed("b")
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.claimed(ONE, token, outcome=AttemptOutcome.COMPLETED)
    attempts = (an_attempt(token),)
    run = a_run(ONE, RunState.ASSIGNED, RunState.ASSIGNED, agent="b", attempt=2, attempts=attempts)
    story.commit(
        (KEYS.of(Kind.RUN, "job", ONE), encode(run)),
        (KEYS.of(Kind.ASSIGNMENT, "a", "job", ONE), None),
        (KEYS.of(Kind.REPORT, "a", "job", ONE), None),
        (KEYS.of(Kind.ASSIGNMENT, "b", "job", ONE), encode(an_assignment("b", ONE, 2))),
    )
    check(story, Invariant.I7, "had completed, and attempt 2 began")


def test_i7_a_run_that_vanishes(story: Story) -> None:
    story.now_s = 60.01
    story.created(ONE)
    story.delete(KEYS.of(Kind.RUN, "job", ONE), KEYS.of(Kind.ASSIGNMENT, "a", "job", ONE))
    check(story, Invariant.I7, "vanished without a record of its end")


def test_i7_a_completion_that_no_process_knows_of(story: Story) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.ran(ONE, token, ends=False)
    story.claimed(ONE, token, outcome=AttemptOutcome.COMPLETED)
    story.ended(ONE, token)
    check(story, Invariant.I7, "its process never said so")


# --- I8


@pytest.mark.parametrize(
    ("outcome", "times", "words"),
    [
        (OperationOutcome.ACKNOWLEDGED, 0, "was acknowledged, and is lost"),
        (OperationOutcome.ACKNOWLEDGED, 2, "took effect 2 times"),
        (OperationOutcome.FAILED, 1, "had failed, and took effect 1 times"),
        (OperationOutcome.UNKNOWN, 2, "took effect 2 times"),
    ],
)
def test_i8_an_operation_and_its_effect(
    story: Story, outcome: OperationOutcome, times: int, words: str
) -> None:
    for _ in range(times):
        story.put((KEYS.of(Kind.DRAIN, "a"), Drain(agent="a", since=at(1), by="op7")))
    story.operation(OperationKind.DRAIN, "a", outcome, mark="op7")
    check(story, Invariant.I8, words)


@pytest.mark.parametrize(
    ("outcome", "times"),
    [
        (OperationOutcome.ACKNOWLEDGED, 1),
        (OperationOutcome.FAILED, 0),
        (OperationOutcome.UNKNOWN, 0),
        (OperationOutcome.UNKNOWN, 1),
    ],
)
def test_i8_what_is_right(story: Story, outcome: OperationOutcome, times: int) -> None:
    for _ in range(times):
        story.put((KEYS.of(Kind.DRAIN, "a"), Drain(agent="a", since=at(1), by="op7")))
    story.operation(OperationKind.DRAIN, "a", outcome, mark="op7")
    check_clean(story)


def test_i8_an_acknowledged_revision_that_holds_something_else(story: Story) -> None:
    revision = story.put((KEYS.of(Kind.EDITED), Edited()))
    story.operation(OperationKind.PAUSE, "job", OperationOutcome.ACKNOWLEDGED, revision=revision)
    check(story, Invariant.I8, "where nothing of it is")


def a_request(story: Story) -> Request:
    request = Request(id="r1", kind=RequestKind.TRIGGER, job="job", at=at(1))
    story.put((KEYS.of(Kind.REQUEST, "r1"), request))
    return request


def test_i8_a_request_consumed_without_an_answer(story: Story) -> None:
    a_request(story)
    story.delete(KEYS.of(Kind.REQUEST, "r1"))
    check(story, Invariant.I8, "consumed without an answer")


def test_i8_a_request_accepted_without_a_run(story: Story) -> None:
    a_request(story)
    answer = Answer(request="r1", accepted=True, message="", at=at(1), job="job", run="r1")
    story.commit((KEYS.of(Kind.REQUEST, "r1"), None), (KEYS.of(Kind.ANSWER, "r1"), encode(answer)))
    check(story, Invariant.I8, "accepted, and no run of job began")


# --- I9


def in_an_outage(story: Story, recovery: Recovery, **fields: Any) -> None:
    """Of the ticks at 1 to 5 minutes none was decided; it is 6 minutes past noon."""
    story.defined(a_job(recovery=recovery, pickup_buffer_s=10.0, **fields))
    story.now_s = 60.5
    story.put(story.gap(59.9))
    story.through(359)
    story.now_s = 359.5


def recovered(story: Story, missed: list[float], chosen: list[float]) -> None:
    records = [(KEYS.archive("job", tick(s)), a_run(tick(s), RunState.MISSED)) for s in missed]
    records += [
        (
            KEYS.of(Kind.RUN, "job", tick(s)),
            a_run(tick(s), RunState.QUEUED, origin=Origin.RECOVERY),
        )
        for s in chosen
    ]
    story.put(story.gap(359.5, closed=True), *records)


@pytest.mark.parametrize(
    ("recovery", "missed", "chosen", "words"),
    [
        (Recovery.NONE, [60, 120, 180, 240], [300], "recovery none, and 1 missed ticks run"),
        (Recovery.LAST, [60, 120, 180], [240, 300], "recovery last, and 2 missed ticks run"),
        (Recovery.LAST, [60, 120, 180, 240, 300], [], "the last one missed, and none runs"),
        (Recovery.LAST, [60, 120, 180, 300], [240], "the last one missed, and none runs"),
        (Recovery.ALL, [60, 120], [180, 240, 300], "recovery all, and it doesn't run"),
        (Recovery.ALL, [60, 300], [120, 180, 240], "an older one does"),
        (Recovery.CONFLICTED, [60, 120, 180, 240], [300], "recovery conflicted"),
    ],
)
def test_i9_a_mode_that_isnt_followed(
    story: Story, recovery: Recovery, missed: list[float], chosen: list[float], words: str
) -> None:
    in_an_outage(story, recovery)
    recovered(story, missed, chosen)
    check(story, Invariant.I9, words)


@pytest.mark.parametrize(
    ("recovery", "missed", "chosen"),
    [
        (Recovery.NONE, [60, 120, 180, 240, 300], []),
        (Recovery.LAST, [60, 120, 180, 240], [300]),
        (Recovery.ALL, [], [60, 120, 180, 240, 300]),
    ],
)
def test_i9_a_mode_that_is_followed(
    story: Story, recovery: Recovery, missed: list[float], chosen: list[float]
) -> None:
    in_an_outage(story, recovery)
    recovered(story, missed, chosen)
    check_clean(story)


def test_i9_more_than_the_limit(story: Story) -> None:
    in_an_outage(story, Recovery.ALL, catch_up_limit=2)
    recovered(story, [60, 120], [180, 240, 300])
    check(story, Invariant.I9, "3 missed ticks run, the limit is 2")


def caught_up_alone(story: Story, now_s: float) -> None:
    """No one led as the tick at 1 minute was due; it was decided by itself, and left no gap."""
    story.defined(a_job(recovery=Recovery.LAST, pickup_buffer_s=10.0))
    story.now_s = now_s
    run = a_run(tick(60), RunState.QUEUED, origin=Origin.RECOVERY)
    story.put((KEYS.of(Kind.RUN, "job", tick(60)), run))


def test_i9_a_gap_of_its_own_is_another_outage(story: Story) -> None:
    caught_up_alone(story, now_s=80)
    story.now_s = 120.5
    story.put(story.gap(119.9))
    story.through(359)
    story.now_s = 359.5
    recovered(story, [120, 180, 240], [300])
    check_clean(story)


def test_i9_a_gap_that_holds_what_is_left_of_an_outage_is_the_same_one(story: Story) -> None:
    caught_up_alone(story, now_s=200)
    story.put(story.gap(60.1))
    story.through(359)
    story.now_s = 359.5
    recovered(story, [120, 180, 240], [300])
    check(story, Invariant.I9, "recovery last, and 2 missed ticks run")


def caught_up_until_the_agents_went(story: Story, *chosen: float) -> None:
    """Ticks of an outage were decided one by one, until no agent was left for the others."""
    story.defined(a_job(recovery=Recovery.ALL, catch_up_limit=2, pickup_buffer_s=10.0))
    story.now_s = 200
    for seconds in chosen:
        run = a_run(tick(seconds), RunState.QUEUED, origin=Origin.RECOVERY)
        story.put((KEYS.of(Kind.RUN, "job", tick(seconds)), run))
    story.delete(KEYS.of(Kind.PRESENCE, "a"))
    story.staffed()
    story.put(story.gap(chosen[-1] + 0.1))
    story.through(359)
    story.now_s = 359.5


def test_i9_an_outage_for_want_of_agents_has_a_limit_of_its_own(story: Story) -> None:
    caught_up_until_the_agents_went(story, 60)
    recovered(story, [120, 180], [240, 300])
    check_clean(story)


def test_i9_an_account_that_begins_with_fan_outs_is_no_other_outage(story: Story) -> None:
    def fanned_out(seconds: float) -> tuple[str, FanOut]:
        run = tick(seconds)
        record = FanOut(
            job="job", run=run, scheduled_at=at(seconds), agents=("a",), origin=Origin.RECOVERY,
            cause="recovered", at=at(359.5), term=1,
        )  # fmt: skip
        return KEYS.of(Kind.FAN_OUT, "job", run), record

    job = a_job(recovery=Recovery.ALL, catch_up_limit=2, pickup_buffer_s=10.0, per_host=True)
    story.defined(job)
    story.now_s = 359.5
    story.put(story.gap(180.1), fanned_out(120), fanned_out(180))
    missed = (KEYS.archive("job", tick(60)), a_run(tick(60), RunState.MISSED))
    story.put(story.gap(359.5, closed=True), missed, fanned_out(240), fanned_out(300))
    check(story, Invariant.I9, "4 missed ticks run, the limit is 2")


def test_i9_what_else_ends_as_the_agents_go_doesnt_matter(story: Story) -> None:
    asked = KEYS.of(Kind.RUN, "job", "r-1")
    story.put((asked, a_run("r-1", RunState.READY, origin=Origin.REQUEST)))
    story.defined(a_job(recovery=Recovery.ALL, catch_up_limit=2, pickup_buffer_s=10.0))
    story.now_s = 200
    run = a_run(tick(60), RunState.QUEUED, origin=Origin.RECOVERY)
    story.put((KEYS.of(Kind.RUN, "job", tick(60)), run))
    story.delete(KEYS.of(Kind.PRESENCE, "a"))
    story.staffed()
    gap, over = story.gap(60.1), a_run("r-1", RunState.CANCELLED, origin=Origin.REQUEST)
    changes = [(key, encode(record)) for key, record in (gap, (KEYS.archive("job", "r-1"), over))]
    story.commit(*changes, (asked, None))
    story.through(359)
    story.now_s = 359.5
    recovered(story, [120, 180], [240, 300])
    assert "missed ticks run" not in " ".join(v.text for v in story.verdict().violations)


def test_i9_neither_outage_may_go_beyond_the_limit(story: Story) -> None:
    caught_up_until_the_agents_went(story, 60)
    recovered(story, [120], [180, 240, 300])
    check(story, Invariant.I9, "3 missed ticks run, the limit is 2")
    other = Story().opened()
    caught_up_until_the_agents_went(other, 60, 120, 180)
    recovered(other, [240], [300])
    check(other, Invariant.I9, "3 missed ticks run, the limit is 2")


def test_i9_no_mode_runs_what_isnt_due_yet(story: Story) -> None:
    """A wrong clock took the watermark ahead: what it passed is recorded as missed."""
    in_an_outage(story, Recovery.LAST)
    story.through(479)
    story.now_s = 359.5
    ahead = a_run(tick(360), RunState.MISSED, missed_count=2, missed_through=at(420))
    story.put(
        story.gap(479, closed=True),
        *(
            (KEYS.archive("job", tick(s)), a_run(tick(s), RunState.MISSED))
            for s in (60, 120, 180, 240)
        ),
        (
            KEYS.of(Kind.RUN, "job", tick(300)),
            a_run(tick(300), RunState.QUEUED, origin=Origin.RECOVERY),
        ),
        (KEYS.archive("job", tick(360)), ahead),
    )
    check_clean(story)


def test_i9_two_catch_up_at_once(story: Story) -> None:
    in_an_outage(story, Recovery.ALL, overlap=Overlap.ALLOW)
    recovered(story, [], [60, 120, 180, 240, 300])
    for seconds in (60, 120):
        run = a_run(
            tick(seconds), RunState.QUEUED, RunState.ASSIGNED, origin=Origin.RECOVERY, agent="a"
        )
        story.put(
            (KEYS.of(Kind.RUN, "job", run.id), run),
            (KEYS.of(Kind.ASSIGNMENT, "a", "job", run.id), an_assignment("a", run.id)),
        )
    check(story, Invariant.I9, "catches up while")


# --- I10


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("gone", "that session of the agent isn't there"),
        ("drained", "the agent drains"),
        ("stopping", "the agent drains"),
        ("label", "the job requires zone=b"),
        ("host", "not among the job's hosts b"),
        ("slots", "2 assignments are more than its 1 slots"),
        ("group", "assigned beside other"),
        ("standby", "assigned, but it has no seat"),
        ("seats", "2 seats given, 1 may be"),
        ("empty seat", "b: it gets a seat, and isn't here"),
    ],
)
def test_i10_an_assignment_that_may_not_be(story: Story, case: str, words: str) -> None:
    match case:
        case "gone":
            story.delete(KEYS.of(Kind.PRESENCE, "a"))
        case "drained":
            story.put((KEYS.of(Kind.DRAIN, "a"), Drain(agent="a", since=at(1))))
        case "stopping":
            story.staffed(draining=True)
        case "label":
            story.defined(a_job(require={"zone": "b"}))
        case "host":
            story.defined(a_job(hosts=("b",)))
        case "slots":
            story.staffed(slots=1)
            story.defined(a_job("other"))
            story.now_s = 60.01
            story.created(ONE, job="other")
        case "group":
            group = ConflictGroup(group="g", jobs=("job", "other"))
            story.put((KEYS.of(Kind.CONFLICT, "g"), group))
            story.defined(a_job("other"))
            story.now_s = 60.01
            story.created(ONE, job="other")
        case "standby":
            story.bounded(1)
        case "seats":
            story.bounded(1, "a")
            story.staffed("b")
            story.seated("b")
        case "empty seat":
            story.bounded(2, "a")
            story.seated("b")
    story.now_s = 60.01
    if case not in ("seats", "empty seat"):
        story.created(ONE)
    check(story, Invariant.I10, words)


def test_i10_seats_as_they_should_be(story: Story) -> None:
    """What was decided before the bound may still come in; later it needs a seat, as seen."""
    story.now_s = 50.0
    story.bounded(1)
    story.done(60)
    seat = story.seated("a")
    story.staffed("b")
    story.now_s = 120.01
    token = story.created(TWO, seen=StartSeen(job=1, seat=seat))
    story.claimed(TWO, token)
    story.ran(TWO, token)
    story.claimed(TWO, token, outcome=AttemptOutcome.COMPLETED)
    story.ended(TWO, token)
    story.through(121)
    check_clean(story)


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.ALLOW])
def test_i10_runs_of_a_job_take_turns(story: Story, overlap: Overlap) -> None:
    story.defined(a_job(overlap=overlap))
    story.now_s = 60.01
    story.claimed(ONE, story.created(ONE))
    story.now_s = 120.01
    story.claimed(TWO, story.created(TWO))
    if overlap is Overlap.ALLOW:
        assert story.verdict().violations == ()
    else:
        check(story, Invariant.I10, f"job/{TWO}: assigned beside job/{ONE}")


# --- I11


def test_i11_a_fence_after_the_leases_end(story: Story) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.ran(ONE, token, seconds=5, ends=False)
    fence = Fence(
        agent="a", incarnation="a1", job="job", run=ONE, token=token, at_ms=story.now_ms,
        lease_expires_ms=story.now_ms - 40,
    )  # fmt: skip
    story.tell(fence)
    check(story, Invariant.I11, "gone 40 ms after its lease had expired")


def test_i11_a_process_that_outlives_its_agents_session(story: Story) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.word(WordKind.START, ONE, token)
    story.now_s = 64
    story.delete(KEYS.of(Kind.PRESENCE, "a"))
    story.now_s = 64.5
    story.word(WordKind.BEAT, ONE, token)
    check(story, Invariant.I11, "lived for 500 ms after its agent's session was gone")


# --- I12, I13, I15: at a quiet end


def test_i12_what_is_left_behind(story: Story) -> None:
    a_request(story)
    story.commit((KEYS.prefix + "spec/oddity/x", b"{}"))
    story.quiet(processes=("a: job/1",), leases=3, nodes=2)
    check(
        story, Invariant.I12, "request r1: left behind", "3 leases are left for 2 nodes",
        "process a: job/1", "a key of no kind",
    )  # fmt: skip


def test_i13_a_view_that_differs(story: Story) -> None:
    held = story.auditor.state.mod_revisions()
    stale = NodeView(node="s1", revision=story.revision, mod_revisions={**held, KEYS.watermark: 1})
    right = NodeView(node="s2", revision=story.revision, mod_revisions=held)
    story.quiet(processes=(), leases=2, nodes=2, views=(stale, right))
    check(story, Invariant.I13, "s1 doesn't see what etcd holds: 1 keys differ")


def test_i15_a_run_that_never_ends(story: Story) -> None:
    story.now_s = 60.01
    story.created(ONE)
    story.now_s = 80
    story.quiet(processes=(), leases=2, nodes=2)
    found = {violation.invariant for violation in story.verdict().violations}
    assert found == {Invariant.I12, Invariant.I15}


def test_i15_an_assignment_that_nobody_takes_up(story: Story) -> None:
    story.now_s = 60.01
    story.created(ONE)
    story.now_s = 120
    check(story, Invariant.I15, "assigned to a, which lives and doesn't take it up")


# --- I14


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        ("job", "claimed while its job was paused"),
        ("_cluster", "claimed while the cluster was paused"),
        ("drain", "claimed while its agent was drained"),
        ("disabled", "claimed while its job was disabled"),
    ],
)
def test_i14_a_claim_after_a_stop(story: Story, stop: str, words: str) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    if stop == "drain":
        story.put((KEYS.of(Kind.DRAIN, "a"), Drain(agent="a", since=at(60))))
    elif stop == "disabled":
        off = ScheduleVersion(since=at(60.1), state=JobState.DISABLED)
        story.defined(a_job(versions=(*a_job().versions, off)))
    else:
        pause = Pause(intervals=(PauseInterval(since=at(60.1)),))
        story.put((KEYS.of(Kind.PAUSE, stop), pause))
    story.claimed(ONE, token)
    check(story, Invariant.I14, words)


def test_i14_a_start_without_a_claim(story: Story) -> None:
    story.now_s = 60.01
    token = story.created(ONE)
    story.ran(ONE, token)
    check(story, Invariant.I14, "started without a committed claim")


# --- what isn't judged


def test_a_missed_event_makes_it_invalid(story: Story) -> None:
    auditor = Auditor()
    story.now_s = 60.01
    token = story.created(ONE)
    story.entries.pop()
    story.claimed(ONE, token)
    story.ended(ONE, token)
    for entry in story.entries:
        auditor.take(entry)
    verdict = auditor.finish()
    assert verdict.outcome is Outcome.INVALID
    assert "nothing was recorded" in verdict.invalid_because[0]


def test_a_hole_makes_it_invalid_although_nothing_is_violated(story: Story) -> None:
    story.tell(Hole(at_ms=story.now_ms, reason="compacted"))
    assert story.verdict().outcome is Outcome.INVALID


def test_a_fault_without_proof_makes_it_invalid(story: Story) -> None:
    story.fault(FaultKind.KILLED, 60, 61, proof="")
    verdict = story.verdict()
    assert verdict.outcome is Outcome.INVALID
    assert "nothing proves" in verdict.invalid_because[0]


def test_what_isnt_recorded_isnt_judged() -> None:
    story = Story(holds=(Truth.FAULTS,)).opened()
    results = {result.invariant: result for result in story.verdict().results}
    for invariant in (Invariant.I3, Invariant.I8, Invariant.I11, Invariant.I12, Invariant.I13):
        assert results[invariant].not_judged, invariant


def test_an_empty_history_is_invalid() -> None:
    assert Auditor().finish().outcome is Outcome.INVALID


# --- chains


@pytest.mark.parametrize(
    ("creates", "knows", "words"),
    [
        (False, False, "which it says it began, is lost"),
        (True, False, "doesn't know of job/"),
        (True, True, ""),
    ],
)
def test_i7_a_chained_run(story: Story, creates: bool, knows: bool, words: str) -> None:
    story.defined(a_job("next", versions=(ScheduleVersion(since=at(0.5)),)))
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.ran(ONE, token)
    story.claimed(ONE, token, outcome=AttemptOutcome.COMPLETED)
    source = a_run(
        ONE, *DONE, attempts=(an_attempt(token),), followed_by=(Follow(job="next", run="c1"),)
    )
    sources = (Source(job="job", run=ONE, state=RunState.COMPLETED),) if knows else ()
    chained = a_run(
        "c1", RunState.READY, job="next", origin=Origin.CHAIN if knows else Origin.REQUEST,
        chained_from=sources,
    )  # fmt: skip
    story.commit(
        (KEYS.archive("job", ONE), encode(source)),
        (KEYS.of(Kind.RUN, "job", ONE), None),
        (KEYS.of(Kind.ASSIGNMENT, "a", "job", ONE), None),
        (KEYS.of(Kind.REPORT, "a", "job", ONE), None),
        *([(KEYS.of(Kind.RUN, "next", "c1"), encode(chained))] if creates else []),
    )
    if words:
        check(story, Invariant.I7, words)
    else:
        check_clean(story)


def test_i7_a_chained_run_that_nothing_began(story: Story) -> None:
    orphan = a_run("c1", RunState.READY, origin=Origin.CHAIN)
    story.put((KEYS.of(Kind.RUN, "job", "c1"), orphan))
    check(story, Invariant.I7, "no run that ended began it")


# --- an attempt that is taken up again (disconnect_grace)


def test_i4_an_attempt_whose_new_session_lives_is_still_running(story: Story) -> None:
    story.staffed("b")
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.delete(KEYS.of(Kind.PRESENCE, "a"))
    story.staffed("a", incarnation="a2")
    report = Report(
        job="job", run=ONE, attempt=1, token=token, incarnation="a2", supervisor="s",
        claimed_at=at(60),
    )  # fmt: skip
    story.put((KEYS.of(Kind.REPORT, "a", "job", ONE), report))
    attempts = (an_attempt(token, AttemptOutcome.DIED),)
    run = a_run(ONE, RunState.ASSIGNED, RunState.ASSIGNED, agent="b", attempt=2, attempts=attempts)
    story.commit(
        (KEYS.of(Kind.RUN, "job", ONE), encode(run)),
        (KEYS.of(Kind.ASSIGNMENT, "a", "job", ONE), None),
        (KEYS.of(Kind.REPORT, "a", "job", ONE), None),
        (KEYS.of(Kind.ASSIGNMENT, "b", "job", ONE), encode(an_assignment("b", ONE, 2))),
    )
    check(story, Invariant.I4, "while attempt 1 ran on a")


@pytest.mark.parametrize("before", [RunState.READY, RunState.RETRYING])
def test_i10_retries_of_what_was_asked_for_take_turns(story: Story, before: RunState) -> None:
    """A request begins beside others; its retry doesn't."""
    story.now_s = 60.01
    for run_id, state in ((ONE, RunState.READY), (TWO, before)):
        tried = (an_attempt(1, AttemptOutcome.FAILED),) if state is RunState.RETRYING else ()
        of: dict[str, Any] = {"origin": Origin.REQUEST, "attempts": tried}
        waits = a_run(run_id, state, **of)
        story.put((KEYS.of(Kind.RUN, "job", run_id), waits))
        begins = a_run(run_id, state, RunState.ASSIGNED, agent="a", **of)
        story.put(
            (KEYS.of(Kind.RUN, "job", run_id), begins),
            (KEYS.of(Kind.ASSIGNMENT, "a", "job", run_id), an_assignment("a", run_id)),
        )
    told = [v.text for v in story.verdict().violations if v.invariant is Invariant.I10]
    assert any("which it has to wait for" in text for text in told) == (before is RunState.RETRYING)


def assigned_beside(story: Story, first: str, second: str, **of_first: Any) -> bool:
    """Whether the second's being assigned while the first runs is a violation of I10."""
    story.now_s = 60.01
    for run_id, fields in ((first, of_first), (second, {})):
        values = {"origin": Origin.RESUBMISSION, "scheduled_at": None, **fields}
        waits = a_run(run_id, RunState.READY, **values)
        story.put((KEYS.of(Kind.RUN, "job", run_id), waits))
        begins = a_run(run_id, RunState.READY, RunState.ASSIGNED, agent="a", **values)
        story.put(
            (KEYS.of(Kind.RUN, "job", run_id), begins),
            (KEYS.of(Kind.ASSIGNMENT, "a", "job", run_id), an_assignment("a", run_id)),
        )
    told = [v.text for v in story.verdict().violations if v.invariant is Invariant.I10]
    return any("which it has to wait for" in text for text in told)


@pytest.mark.parametrize("retries", [0, 1])
def test_i10_others_wait_for_a_retry_that_has_begun(story: Story, retries: int) -> None:
    is_told = assigned_beside(story, "one", "two", origin=Origin.REQUEST, retries=retries)
    assert is_told == bool(retries)


@pytest.mark.parametrize(
    ("first", "second", "waits"),
    [("one@a", "two", True), ("one", "two@a", True), ("one@a", "two@b", False)],
)
def test_i10_what_isnt_bound_waits_for_what_is(
    story: Story, first: str, second: str, waits: bool
) -> None:
    assert assigned_beside(story, first, second) == waits


def test_i1_a_gaps_account_goes_back(story: Story) -> None:
    """No tick lies between."""
    story.now_s = 75
    story.put(story.gap(75, closed=True))
    story.put(story.gap(74, closed=True))
    check_text(story, "its gap's account went from 2026-11-22T12:01:15.000Z back")


def test_i1_a_gap_is_opened_again(story: Story) -> None:
    story.now_s = 59
    story.put(story.gap(59))
    story.put(story.gap(59))
    check_text(story, "its gap is written again, as it was")


def test_i1_a_gap_that_lasts_for_another_reason(story: Story) -> None:
    story.now_s = 59
    key, gap = story.gap(59)
    story.put((key, gap))
    story.put((key, replace(gap, reason="it is set aside")))
    texts = [violation.text for violation in story.verdict().violations]
    assert not any("written again" in text for text in texts), texts


def check_text(story: Story, words: str) -> None:
    told = [v for v in story.verdict().violations if v.invariant is Invariant.I1]
    assert any(words in violation.text for violation in told), told


@pytest.mark.parametrize(("edited_s", "is_late"), [(61.2, False), (59.9, True)])
def test_i2_a_tick_that_an_edit_made_due_afterwards(
    story: Story, edited_s: float, is_late: bool
) -> None:
    """The operator's clock is behind, and the watermark hadn't come there yet."""
    (version,) = a_job().versions
    again = ScheduleVersion(since=at(59.8), patterns=version.patterns)
    story.now_s = edited_s
    story.defined(a_job(versions=(version, again)))
    story.now_s = 61.3
    story.claimed(ONE, token := story.created(ONE))
    story.ran(ONE, token)
    told = [v for v in story.verdict().violations if v.invariant is Invariant.I2]
    assert bool(told) == is_late, told


def test_i2_a_pause_that_was_over_before_it_was_ended(story: Story) -> None:
    """The operator's clock is behind the watermark, so that nothing of the pause is left."""
    key = KEYS.of(Kind.PAUSE, "job")
    story.now_s = 59.9
    story.put((key, Pause(intervals=(PauseInterval(since=at(59.5)),))))
    story.now_s = 61.2
    story.put((key, Pause(intervals=())))
    story.now_s = 61.3
    story.claimed(ONE, token := story.created(ONE))
    story.ran(ONE, token)
    assert not [v for v in story.verdict().violations if v.invariant is Invariant.I2]


@pytest.mark.parametrize("is_another", [True, False])
def test_i2_awaits_the_start_of_the_attempt_that_was_assigned_at_once(
    story: Story, is_another: bool
) -> None:
    """Its process never began; it was moved, and its job paused meanwhile."""
    story.now_s = 60.01
    token = story.created(ONE)
    story.claimed(ONE, token)
    story.now_s = 160
    story.word(WordKind.START, ONE, token + 7 if is_another else token)
    told = [v for v in story.verdict().violations if v.invariant is Invariant.I2]
    assert bool(told) is not is_another, told


# --- what counts as absent


@pytest.mark.parametrize("place", ["job", "pause", "gap", "run", "fan_out"])
def test_what_no_leader_takes_for_a_record_the_auditor_doesnt_either(
    story: Story, place: str
) -> None:
    """A hand's, with a day that its month doesn't have: it ended the audit."""
    no_time = Utc("2026-02-31T12:00:00.000Z")
    match place:
        case "job":
            version = ScheduleVersion(since=no_time, patterns=(Cron("* * * * *"),))
            story.defined(a_job("other", versions=(version,)))
        case "pause":
            pause = Pause(intervals=(PauseInterval(since=no_time),))
            story.put((KEYS.of(Kind.PAUSE, "other"), pause))
        case "gap":
            key, gap = story.gap(30, job="other")
            story.put((key, replace(gap, decided_through=no_time)))
        case "run":
            run = a_run(ONE, RunState.READY, job="other", scheduled_at=no_time)
            story.put((KEYS.of(Kind.RUN, "other", ONE), run))
        case _:
            fan_out = FanOut(
                job="other", run=ONE, scheduled_at=no_time, agents=("a",), origin=Origin.SCHEDULE,
                cause="due", at=at(0), term=1,
            )  # fmt: skip
            story.put((KEYS.of(Kind.FAN_OUT, "other", ONE), fan_out))
    story.done(60)
    check_clean(story)
