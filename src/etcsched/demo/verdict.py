"""The auditor's verdict on the demonstration, and what a newcomer wants to know first."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from etcsched.audit import verdict
from etcsched.audit.auditor import Auditor
from etcsched.audit.state import ARCHIVE
from etcsched.audit.verdict import Invariant, Outcome
from etcsched.core.records import Run
from etcsched.core.states import Origin, RunState
from etcsched.core.times import tick_id

__all__ = ["Verdict", "conclude"]

_DOUBLED = frozenset({Invariant.I3, Invariant.I4})


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """``lost``: due ticks that no execution completed. ``doubled``: runs of which more than one
    execution completed, or two overlapped."""

    due: int
    completed: int
    ended: int
    """Due ticks of which a process came to its end, whether or not history still has the run."""
    reassigned: int
    recovered: int
    """Ticks that were missed, since nobody led, and have run after all."""
    retried: int
    conflicted: int
    """Runs that waited until their conflict group was free."""
    chained: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    worst_lateness_ms: int
    """Of all runs, those among them that a kill delayed."""
    audit: verdict.Verdict

    @property
    def is_clean(self) -> bool:
        clean = self.audit.outcome is Outcome.CLEAN
        return clean and self.due > 0 and not (self.lost or self.doubled)


def conclude(auditor: Auditor, jobs: Iterable[str], until_ms: int) -> Verdict:
    """On all ticks of these jobs until then. The auditor is finished with."""
    audit = auditor.finish()
    due = {
        (job, tick_id(tick_ms)): tick_ms
        for job in jobs
        for tick_ms in auditor.definitions.due(job, 0, until_ms)
    }
    runs = {
        ids: held.record
        for ids, held in auditor.state.all_of(ARCHIVE).items()
        if isinstance(held.record, Run) and held.record.origin is not Origin.REQUEST
    }
    well = [run for run in runs.values() if run.state is RunState.COMPLETED]
    executions = auditor.executions.by_run
    done = {ids: sum(e.end_ms is not None for e in its) for ids, its in executions.items()}
    completed = {
        ids
        for ids in due
        if done.get(ids) and ids in runs and runs[ids].state is RunState.COMPLETED
    }
    doubled = {"/".join(ids) for ids, times in done.items() if times > 1}
    doubled |= {v.text for v in audit.violations if v.invariant in _DOUBLED}
    late_ms = [
        min(execution.start_ms for execution in executions[ids]) - tick_ms
        for ids, tick_ms in due.items()
        if ids in executions
    ]
    return Verdict(
        due=len(due),
        completed=len(completed),
        ended=sum(bool(done.get(ids)) for ids in due),
        reassigned=sum(run.reassigns for run in runs.values()),
        recovered=sum(run.origin is Origin.RECOVERY for run in well),
        retried=sum(run.retries for run in runs.values()),
        conflicted=sum(
            any(step.state is RunState.CONFLICTED for step in run.history) for run in well
        ),
        chained=sum(run.origin is Origin.CHAIN for run in well),
        lost=tuple("/".join(ids) for ids in sorted(due.keys() - completed)),
        doubled=tuple(sorted(doubled)),
        worst_lateness_ms=max(late_ms, default=0),
        audit=audit,
    )
