"""``overlap: replace``: a tick's run waits until those that it takes the place of are over.

The run is created ``queued``; as long as it waits its turn, whatever is in its way is ended. So
this can be taken up at any point by whoever leads, and nothing overlaps.
"""

from __future__ import annotations

from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import run_matter
from etcsched.core.leader.run_ends import RunEnds
from etcsched.core.records import Job, Run
from etcsched.core.states import WAITING, Origin, Overlap, RunState
from etcsched.core.view import Entry


class Replacing:
    def __init__(self, context: Context, ends: RunEnds) -> None:
        self._context = context
        self._view = context.view
        self._ends = ends

    def clear_the_way(self, job: Job, run: Run) -> None:
        """End what the queued ``run`` replaces, as far as that isn't under way."""
        if job.overlap is not Overlap.REPLACE or run.origin is not Origin.SCHEDULE:
            return
        beside = self._view.unbound_on(run.job, run.host) if run.host else ()
        for other in (*self._view.active_runs(run.lane), *beside):
            key = (other.job, other.id)
            if is_replaced(other, run) and not self._context.is_busy(run_matter(key)):
                self._end(self._view.runs[key], f"replaced by {run.id}")

    def _end(self, entry: Entry[Run], cause: str) -> None:
        assignment, report = self._ends.attempt_of(entry.record)
        if report is not None and report.record.outcome is not None:
            return  # It ends by itself.
        if entry.record.state is RunState.HELD:
            self._ends.end_held(entry, RunState.CANCELLED, cause)
        elif entry.record.state in WAITING:
            self._ends.end_waiting(entry, RunState.CANCELLED, cause)
        elif assignment is None or entry.record.state is not RunState.ASSIGNED:
            return  # It ends by itself.
        elif report is None:
            self._ends.end_assigned(entry, assignment, None, RunState.CANCELLED, cause)
        elif not self._ends.is_told_to_end(entry, assignment):
            self._ends.tell_to_end(entry, assignment, cause)


def is_replaced(other: Run, run: Run) -> bool:
    """Whether the tick of ``run`` found ``other`` active: what came before it, but for runs that
    catch up on an outage or were resubmitted."""
    if other.id == run.id or other.origin in (Origin.RECOVERY, Origin.RESUBMISSION):
        return False
    return other.due_at < run.due_at
