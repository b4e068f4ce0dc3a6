"""Runs whose agent is lost, or whose process died, and whose job says ``hold`` (``held``).

Nothing is started by itself any more: an operator releases the run, or its agent comes back with
the outcome, or with the process itself. As long as the agent hasn't said how the attempt ended, its
assignment and claim stay in etcd, so that its word counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import request_matter, run_matter
from etcsched.core.leader.reasons import Why
from etcsched.core.leader.run_ends import RunEnds
from etcsched.core.leader.runs import is_of_another, step
from etcsched.core.records import Assignment, Job, Release, Report, Run
from etcsched.core.states import JobState, OnAgentLoss, RunState
from etcsched.core.view import Entry, RunKey

Finish = Callable[[Entry[Run], Entry[Assignment], Entry[Report]], None]


def holds(job: Entry[Job] | None) -> bool:
    """Whether an attempt of the job that died is to be held."""
    return (
        job is not None
        and job.record.current.state is not JobState.DELETED
        and job.record.on_agent_loss is OnAgentLoss.HOLD
    )


def why_held(run: Run) -> str:
    cause = run.history[-1].cause if run.history else ""
    waits = "an operator (etcsched runs release)" + (
        f" or {run.agent}'s return" if run.agent else ""
    )
    return f"{cause}; it waits for {waits}"


class HeldRuns:
    def __init__(self, context: Context, ends: RunEnds) -> None:
        self._context = context
        self._view = context.view
        self._ends = ends

    def hold(
        self,
        entry: Entry[Run],
        assignment: Entry[Assignment],
        report: Entry[Report],
        cause: str,
    ) -> None:
        """An attempt that its agent has reported died is over; one whose agent is lost isn't."""
        context, run = self._context, entry.record
        is_over = report.record.outcome is not None
        changes: dict[str, object] = {}
        if is_over:
            over = self._ends.attempt_over(assignment, report, cause)
            changes = {
                "attempts": (*run.attempts, over),
                "agent": "",
                **self._ends.results_of(report),
            }
        context.write(
            fx.HoldRun(
                seq=context.next_seq(),
                run=step(context.author, run, entry.mod_revision, RunState.HELD, cause, **changes),
                run_revision=entry.mod_revision,
                old=self._ends.old_attempt(entry, assignment, report),
                is_attempt_over=is_over,
            ),
            run_matter((run.job, run.id)),
        )
        context.say(f"held: {cause}; see etcsched runs release", run=(run.job, run.id), warn=True)

    def decide(self, key: RunKey, entry: Entry[Run], finish: Finish) -> None:
        """``finish`` is what an outcome that has come leads to, as for any attempt."""
        place = (entry.record.agent, *key)
        assignment, report = self._view.assignments.get(place), self._view.reports.get(place)
        if assignment is not None and report is not None and self.is_decided(entry.record):
            if report.record.outcome is not None:
                finish(entry, assignment, report)
            else:
                self._resume(entry, assignment, report)
            return
        job = self._view.jobs.get(entry.record.job)
        is_gone = job is None or job.record.current.state is JobState.DELETED
        if job is None or is_gone or is_of_another(job, entry):
            self.end(entry, RunState.CANCELLED, "the job was deleted while it was held")
            return
        self._context.because(key, Why.HELD, lambda: why_held(entry.record))

    def _resume(
        self, entry: Entry[Run], assignment: Entry[Assignment], report: Entry[Report]
    ) -> None:
        context, run = self._context, entry.record
        cause = f"{run.agent} came back with it running"
        context.write(
            fx.ResumeRun(
                seq=context.next_seq(),
                run=step(context.author, run, entry.mod_revision, RunState.ASSIGNED, cause),
                run_revision=entry.mod_revision,
                old=self._ends.old_attempt(entry, assignment, report),
            ),
            run_matter((run.job, run.id)),
        )
        context.say(cause, run=(run.job, run.id), agent=run.agent)

    def is_decided(self, run: Run) -> bool:
        """Whether its agent has said how the attempt ended, or has taken it up again."""
        if run.state is not RunState.HELD:
            return False
        assignment, report = self._ends.attempt_of(run)
        if assignment is None or report is None:
            return False
        presence = self._view.presences.get(run.agent)
        is_back = presence is not None and presence.record.incarnation == report.record.incarnation
        return report.record.outcome is not None or is_back

    # --- an operator's word

    def release(
        self, entry: Entry[Run], release: Release, cause: str, consumed: fx.Consumed
    ) -> None:
        match release:
            case Release.REASSIGN:
                self._reassign(entry, cause, consumed)
            case Release.DIED:
                self.end(entry, RunState.DIED, cause, consumed)
            case other:
                assert_never(other)

    def end(
        self,
        entry: Entry[Run],
        state: RunState,
        cause: str,
        consumed: fx.Consumed | None = None,
    ) -> None:
        self._ends.end_held(entry, state, cause, consumed)

    def _reassign(self, entry: Entry[Run], cause: str, consumed: fx.Consumed) -> None:
        """It waits for an agent as after any loss, and never ends by its pickup buffer."""
        context, run = self._context, entry.record
        assignment, report = self._ends.attempt_of(run)
        old: fx.OldAttempt | None = None
        changes: dict[str, object] = {}
        if assignment is not None:
            old = self._ends.old_attempt(entry, assignment, report)
            if report is not None:
                lost = self._ends.attempt_over(assignment, report, f"{run.agent} was lost")
                changes = {
                    "attempts": (*run.attempts, lost),
                    **self._ends.results_of(report),
                }
        context.write(
            fx.MoveRun(
                seq=context.next_seq(),
                run=step(
                    context.author, run, entry.mod_revision, RunState.READY, cause,
                    agent="", reassigns=run.reassigns + 1, **changes,
                ),
                run_revision=entry.mod_revision,
                old=old,
                consumed=consumed,
            ),
            run_matter((run.job, run.id)),
            request_matter(consumed.answer.request),
        )  # fmt: skip
        context.say(f"released: {cause}", run=(run.job, run.id))
