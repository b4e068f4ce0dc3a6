"""Whether and when a failed attempt is tried again (SEMANTICS, auto retry)."""

from __future__ import annotations

import hashlib
from typing import Final

from etcsched.core.records import Attempt, Job, Retry, Run
from etcsched.core.states import Origin, Outcome, Overlap, RunState
from etcsched.core.times import Utc, ms_of, utc_of

MAX_INTERVAL_S: Final = 30 * 86400.0
"""No wait between two attempts is longer, however often an interval has doubled."""

CLAIMED_WITHIN_MS: Final = 5000
"""An assignment is, if nothing is in the way. A retry after an outcome that came late waits for so
much longer than it needs to."""

RETRIED: Final = (Outcome.FAILED, Outcome.TIMED_OUT)
"""What can be retried. An attempt that died goes by ``on_agent_loss``, a declined one to another
agent, and a cancelled one is over."""

_SUPERSEDING: Final = frozenset({Origin.SCHEDULE, Origin.RECOVERY})


def has_retry(job: Job, run: Run, outcome: Outcome) -> bool:
    return outcome in job.retry.on and run.retries < job.retry.max


def due_at(retry: Retry, run: Run, over: Attempt, now: Utc) -> Utc:
    """When the run's next retry is due, after the attempt ``over``: counted from the latest time by
    the leader's clock at which that can have ended."""
    ended_ms = _ended_at_latest_ms(over, ms_of(now))
    return utc_of(ended_ms + round(delay_s(retry, run) * 1000))


def _ended_at_latest_ms(over: Attempt, now_ms: int) -> int:
    """Its end is told by its agent's clock, which may be behind the leader's. By how much at most,
    its claim tells, if that came soon after the assignment; else it may have ended just now."""
    if over.claimed_at is None or over.ended_at is None:
        return now_ms
    seems_ms = ms_of(over.claimed_at) - ms_of(over.assigned_at)
    behind_at_most_ms = CLAIMED_WITHIN_MS - seems_ms
    if behind_at_most_ms < 0:
        return now_ms
    return min(ms_of(over.ended_at) + behind_at_most_ms, now_ms)


def delay_s(retry: Retry, run: Run) -> float:
    """Before the run's next retry: the interval, doubled with each retry if it is exponential, at
    most ``cap``; and on top of it this run's and attempt's share of ``jitter``."""
    doublings = min(run.retries, 40) if retry.exponential else 0
    most_s = retry.cap_s if retry.cap_s is not None else MAX_INTERVAL_S
    return min(retry.interval_s * (1 << doublings), most_s) + retry.jitter_s * _share(run)


def _share(run: Run) -> float:
    """In [0, 1): as good as drawn, and the same for whoever leads."""
    digest = hashlib.sha256(f"{run.job}/{run.id}/{run.attempt}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)


def is_waiting_for_retry(run: Run) -> bool:
    """Whether its next attempt, if it hasn't begun, is a retry. One that was declined hasn't."""
    return (last := run.last_that_ran) is not None and last.outcome in RETRIED


def state_without_retry(run: Run) -> RunState:
    """How a run ends that waits for a retry and gets none: as its last attempt did."""
    last = run.last_that_ran
    assert last is not None, (run.job, run.id)
    return RunState(last.outcome.value)


def chained_runs_supersede(job: Job) -> bool:
    """Where the job's runs may overlap, each that it is chained to is an order of its own, and ends
    no other's retries: a notification tells of one run, the next one of another."""
    return job.overlap is not Overlap.ALLOW


def supersedes(other: Run, run: Run) -> bool:
    """Whether ``other``, of the same job, ends the run's retries: the job's next tick, or a run
    that it was chained to since (see ``chained_runs_supersede``). A run on request doesn't."""
    if other.origin is Origin.CHAIN:
        return other.created_at > run.created_at
    is_tick = run.origin in _SUPERSEDING
    since = run.scheduled_at if is_tick and run.scheduled_at is not None else run.created_at
    return other.origin in _SUPERSEDING and (other.scheduled_at or other.created_at) > since
