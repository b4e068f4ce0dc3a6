"""What a new tick becomes beside the active runs of its lane (``overlap``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec

from etcsched.core.records import Job, Run
from etcsched.core.states import Origin, Outcome, Overlap, RunState
from etcsched.core.times import Utc, ms_of
from etcsched.core.view import View


class Away(msgspec.Struct, frozen=True):
    """Between these instants, in Unix milliseconds, nobody led."""

    from_ms: int
    until_ms: int


HELD_UP_MS = 250
"""Ticks are decided within some milliseconds; beyond this, something stood still."""


def state_by_overlap(
    view: View, job: Job, lane: str, tick_ms: int, away: Away, now_ms: int
) -> RunState:
    return state_beside(view, job, view.active_runs(lane), tick_ms, away, now_ms)


def state_beside(
    view: View, job: Job, beside: Sequence[Run], tick_ms: int, away: Away, now_ms: int
) -> RunState:
    """A job that catches up on an outage queues its new ticks, whatever ``overlap`` says."""
    all_active = beside
    if not job.per_host:
        # What is queued for its own agent, which may be gone, goes behind others of the job.
        all_active = [r for r in all_active if not (r.host and r.state is RunState.QUEUED)]
    if any(run.origin is Origin.RECOVERY for run in all_active):
        return RunState.QUEUED
    active = [run for run in all_active if run.origin is not Origin.RESUBMISSION]
    if not active:
        # Resubmissions overlap nothing: a tick waits for the one that runs, not for others.
        is_busy = any(run.state is not RunState.QUEUED for run in all_active)
        has_to_wait = is_busy and job.overlap is not Overlap.ALLOW
        return RunState.QUEUED if has_to_wait else RunState.READY
    match job.overlap:
        case Overlap.ALLOW:
            return RunState.READY
        case Overlap.QUEUE | Overlap.REPLACE:
            return RunState.QUEUED
        case Overlap.SKIP:
            # Ticks that came due while no one led, or none could be decided, run one after the
            # other: that they came at once is no fault of the job's.
            were_away = tick_ms <= away.until_ms and all(
                away.from_ms < ms_of(run.due_at) <= away.until_ms for run in active
            )
            were_late = now_ms - tick_ms > HELD_UP_MS or all(map(_was_late, active))
            # (One may be due since the watermark, and have begun in its time all the same.)
            had_any_begun = any(had_begun(view, run, tick_ms) for run in active)
            is_queued = (were_away or were_late) and not had_any_begun
            return RunState.QUEUED if is_queued else RunState.OVERLAPPED
        case other:
            assert_never(other)


def _was_late(run: Run) -> bool:
    return ms_of(run.created_at) - ms_of(run.due_at) > HELD_UP_MS


def had_begun(view: View, run: Run, at_ms: int) -> bool:
    """Whether any attempt of it ran before that, as its agents tell: not before they were given
    it, though, by clocks that are behind. One that was declined didn't."""
    ran = (each for each in run.attempts if each.outcome is not Outcome.DECLINED)
    if any(_began_ms(each.claimed_at, each.assigned_at) < at_ms for each in ran):
        return True
    place = (run.agent, run.job, run.id)
    report, assignment = view.reports.get(place), view.assignments.get(place)
    if report is None or assignment is None:
        return False
    return _began_ms(report.record.claimed_at, assignment.record.assigned_at) < at_ms


def _began_ms(claimed_at: Utc | None, assigned_at: Utc) -> int:
    return ms_of(max(claimed_at or assigned_at, assigned_at))
