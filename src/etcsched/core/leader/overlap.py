"""What a new tick becomes beside the active runs of its lane (``overlap``)."""

from __future__ import annotations

from typing import assert_never

import msgspec

from etcsched.core.records import Job
from etcsched.core.states import Origin, Overlap, RunState
from etcsched.core.times import ms_of
from etcsched.core.view import View


class Away(msgspec.Struct, frozen=True):
    """Between these instants, in Unix milliseconds, nobody led."""

    from_ms: int
    until_ms: int


def state_by_overlap(view: View, job: Job, lane: str, tick_ms: int, away: Away) -> RunState:
    """A job that catches up on an outage queues its new ticks, whatever ``overlap`` says."""
    all_active = view.active_runs(lane)
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
            # Ticks that all came due while no one led run one after the other: that they came at
            # once is no fault of the job's.
            are_late = tick_ms <= away.until_ms and all(
                away.from_ms < ms_of(run.due_at) <= away.until_ms for run in active
            )
            return RunState.QUEUED if are_late else RunState.OVERLAPPED
        case other:
            assert_never(other)
