"""Whether a failed attempt is tried again, when, and what ends that."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from etcsched.core.leader.buffers import buffer_end_ms
from etcsched.core.leader.runs import Author, new_run, step
from etcsched.core.records import Attempt, Retry, Run
from etcsched.core.retry import (
    CLAIMED_WITHIN_MS,
    MAX_INTERVAL_S,
    chained_runs_supersede,
    delay_s,
    due_at,
    has_retry,
    is_waiting_for_retry,
    state_without_retry,
    supersedes,
)
from etcsched.core.states import Origin, Outcome, Overlap, RunState
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.keyspace.codec import encode
from tests.support.jobs import NOON, job

CREATED = Utc("2026-11-22T12:00:05.500Z")
TICK = Utc("2026-11-22T12:00:05.000Z")
NOW = Utc("2026-11-22T12:10:00.000Z")
BEFORE, AFTER = Utc("2026-11-22T12:00:00.000Z"), Utc("2026-11-22T12:01:00.000Z")


def run(retries: int = 0, attempt: int = 1, origin: Origin = Origin.SCHEDULE) -> Run:
    return Run(
        job="j", id="r", state=RunState.ASSIGNED, origin=origin, created_at=CREATED,
        scheduled_at=None if origin is Origin.REQUEST else TICK, retries=retries, attempt=attempt,
    )  # fmt: skip


def over(outcome: Outcome, ended_at: Utc | None = AFTER) -> Attempt:
    return Attempt(
        number=1, agent="a1", token=7, assigned_at=CREATED, outcome=outcome, ended_at=ended_at
    )


@pytest.mark.parametrize(
    ("retry", "retries", "outcome", "has"),
    [
        (Retry(), 0, Outcome.FAILED, False),
        (Retry(max=1), 0, Outcome.FAILED, True),
        (Retry(max=1), 1, Outcome.FAILED, False),
        (Retry(max=2), 1, Outcome.TIMED_OUT, True),
        (Retry(max=1, on=(Outcome.FAILED,)), 0, Outcome.TIMED_OUT, False),
        (Retry(max=1), 0, Outcome.DIED, False),
        (Retry(max=1), 0, Outcome.DECLINED, False),
        (Retry(max=1), 0, Outcome.CANCELLED, False),
        (Retry(max=1), 0, Outcome.COMPLETED, False),
    ],
)
def test_who_is_retried(retry: Retry, retries: int, outcome: Outcome, has: bool) -> None:
    assert has_retry(job("j", retry=retry), run(retries), outcome) is has


@pytest.mark.parametrize(
    ("retry", "waits"),
    [
        (Retry(interval_s=30), [30, 30, 30, 30]),
        (Retry(interval_s=30, exponential=True), [30, 60, 120, 240]),
        (Retry(interval_s=30, exponential=True, cap_s=100), [30, 60, 100, 100]),
        (Retry(interval_s=0), [0, 0, 0, 0]),
        (Retry(interval_s=MAX_INTERVAL_S / 2, exponential=True), [15 * 86400, *[30 * 86400] * 3]),
    ],
)
def test_waits(retry: Retry, waits: list[float]) -> None:
    assert [delay_s(retry, run(retries)) for retries in range(4)] == waits


def test_a_wait_of_many_doublings_stays_a_time() -> None:
    assert delay_s(Retry(interval_s=60, exponential=True), run(999)) == MAX_INTERVAL_S


def test_jitter_only_delays_and_is_the_same_for_every_leader() -> None:
    retry = Retry(interval_s=30, jitter_s=10)
    waits = [delay_s(retry, run(attempt=attempt)) for attempt in range(1, 200)]
    assert waits == [delay_s(retry, run(attempt=attempt)) for attempt in range(1, 200)]
    assert all(30 <= wait < 40 for wait in waits)
    assert max(waits) - min(waits) > 9


@pytest.mark.parametrize("takes_s", [0.0, 0.1, 5.0])
@pytest.mark.parametrize("behind_s", [-7200.0, -20.0, 0.0, 0.1, 20.0, 3600.0])
@pytest.mark.parametrize("ended_ago_s", [0.0, 0.1, 60.0, 500.0])
def test_it_is_never_earlier_than_the_interval_after_the_end(
    takes_s: float, behind_s: float, ended_ago_s: float
) -> None:
    """Assigned ten minutes ago, claimed within ``takes_s``, by a clock that is ``behind_s``."""

    def told(at_ms: float) -> Utc:
        return utc_of(round(at_ms - behind_s * 1000))

    ended_ms, assigned_ms = ms_of(NOW) - ended_ago_s * 1000, ms_of(NOW) - 600_000
    attempt = replace(
        over(Outcome.FAILED, told(ended_ms)),
        assigned_at=utc_of(assigned_ms),
        claimed_at=told(assigned_ms + takes_s * 1000),
    )
    due_ms = ms_of(due_at(Retry(interval_s=30), run(), attempt, NOW))
    assert ended_ms + 30_000 <= due_ms <= ms_of(NOW) + 30_000
    if behind_s >= -5.0 + takes_s:
        assert due_ms <= ended_ms + 30_000 + CLAIMED_WITHIN_MS


@pytest.mark.parametrize(
    ("claimed_at", "ended_at"), [(None, AFTER), (CREATED, None), (AFTER, AFTER)]
)
def test_it_counts_from_now_where_the_end_cant_be_told(
    claimed_at: Utc | None, ended_at: Utc | None
) -> None:
    """A claim that came late doesn't tell whether its agent's clock is behind."""
    attempt = replace(over(Outcome.FAILED, ended_at), claimed_at=claimed_at)
    assert due_at(Retry(interval_s=30), run(), attempt, NOW) == "2026-11-22T12:10:30.000Z"


@pytest.mark.parametrize(
    ("attempts", "waits"),
    [
        ((), False),
        ((over(Outcome.FAILED),), True),
        ((over(Outcome.TIMED_OUT),), True),
        ((over(Outcome.FAILED), over(Outcome.DIED)), False),
    ],
)
def test_whose_next_attempt_is_a_retry(attempts: tuple[Attempt, ...], waits: bool) -> None:
    waiting = replace(run(), attempts=attempts)
    assert is_waiting_for_retry(waiting) is waits
    if waits:
        assert state_without_retry(waiting).value == attempts[-1].outcome.value


@pytest.mark.parametrize(
    ("origin", "other", "at", "ends"),
    [
        (Origin.SCHEDULE, Origin.SCHEDULE, AFTER, True),
        (Origin.SCHEDULE, Origin.SCHEDULE, TICK, False),
        (Origin.SCHEDULE, Origin.SCHEDULE, BEFORE, False),
        (Origin.SCHEDULE, Origin.RECOVERY, AFTER, True),
        (Origin.SCHEDULE, Origin.REQUEST, AFTER, False),
        (Origin.REQUEST, Origin.SCHEDULE, AFTER, True),
        (Origin.REQUEST, Origin.SCHEDULE, TICK, False),
        (Origin.RECOVERY, Origin.SCHEDULE, AFTER, True),
    ],
)
def test_what_ends_a_retry(origin: Origin, other: Origin, at: Utc, ends: bool) -> None:
    scheduled = None if other is Origin.REQUEST else at
    second = replace(run(origin=other), id="s", scheduled_at=scheduled, created_at=at)
    assert supersedes(second, run(origin=origin)) is ends


@pytest.mark.parametrize("overlap", list(Overlap))
def test_chained_runs_that_may_overlap_end_no_retry(overlap: Overlap) -> None:
    definition = job("a", overlap=overlap)
    assert chained_runs_supersede(definition) is (overlap is not Overlap.ALLOW)


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.HELD])
def test_what_took_a_run_out_of_its_buffer_stays_in_its_history(state: RunState) -> None:
    author, definition = Author(1, NOON), job()
    tried = new_run(author, definition, "1", RunState.READY, "due", origin=Origin.CHAIN)
    if state is RunState.HELD:
        tried = step(author, tried, 1, RunState.ASSIGNED, "due")
    tried = step(author, tried, 1, state, "it waits")
    for _ in range(200):
        tried = step(author, tried, 1, RunState.ASSIGNED, "its turn has come")
        tried = step(author, tried, 1, RunState.READY, "attempt declined")
    assert len(tried.history) == 64
    assert [each.state for each in tried.history].count(state) == 1
    assert buffer_end_ms(tried, definition) is None


def test_the_record_of_a_run_that_is_tried_as_often_as_may_be_fits_into_a_request() -> None:
    """1,000 retries and as many lost agents; of the last attempts the output's end is kept."""
    author = Author(1, NOON)
    tried = new_run(author, job(), "1", RunState.READY, "due", origin=Origin.SCHEDULE)
    for number in range(1, 2001):
        attempt = Attempt(
            number=number, agent="a" * 190, token=number, assigned_at=NOON, claimed_at=NOON,
            started_at=NOON, ended_at=NOON, outcome=Outcome.FAILED, exit_code=1,
            reason="ü" * 300, tail="x" * 4096,
        )  # fmt: skip
        attempts = (*tried.attempts, attempt)
        tried = step(author, tried, 1, RunState.ASSIGNED, "due", attempts=attempts)
        tried = step(author, tried, 1, RunState.READY, "its agent is lost")
    assert [attempt.number for attempt in tried.attempts] == [1, *range(1502, 2001)]
    assert [len(attempt.tail) for attempt in tried.attempts[-20:]] == [0] * 4 + [4096] * 16
    assert len(encode(tried)) < 1200 << 10
    assert len(tried.history) == 64
    long = step(author, tried, 1, RunState.ASSIGNED, "command not found: " + "x" * 4000)
    assert len(long.history[-1].cause) == 300
