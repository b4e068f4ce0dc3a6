"""Runs that an agent has: what becomes of them when it reports, or is gone (``assigned``)."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context
from etcsched.core.leader.declines import (
    did_several_decline,
    may_ask_another,
    state_when_declined,
    words_of,
)
from etcsched.core.leader.held_runs import HeldRuns, holds
from etcsched.core.leader.loss import Losses
from etcsched.core.leader.matters import run_matter
from etcsched.core.leader.pace import Pace
from etcsched.core.leader.placement import requirement_of_run, tried_by, why_not
from etcsched.core.leader.reasons import Why
from etcsched.core.leader.retrying_runs import RetryingRuns
from etcsched.core.leader.run_ends import RunEnds
from etcsched.core.leader.runs import (
    assigned,
    assignment_of,
    is_of_another,
    may_start,
    step,
)
from etcsched.core.records import Assignment, Job, Presence, Report, Run
from etcsched.core.retry import is_waiting_for_retry, state_without_retry
from etcsched.core.states import OnAgentLoss, Outcome, Overlap, RunState
from etcsched.core.times import ms_of
from etcsched.core.view import Entry, RunKey, revision_of

_FINAL_OF: dict[Outcome, RunState] = {
    Outcome.COMPLETED: RunState.COMPLETED,
    Outcome.FAILED: RunState.FAILED,
    Outcome.TIMED_OUT: RunState.TIMED_OUT,
    Outcome.CANCELLED: RunState.CANCELLED,
    Outcome.DIED: RunState.DIED,
}


_LONG_UNCLAIMED_MS = 10_000

_Order = tuple[int, str, str]


def _order_of(assignment: Entry[Assignment]) -> _Order:
    """In which they came; those of one transaction by name."""
    return (assignment.mod_revision, assignment.record.job, assignment.record.run)


class AssignedRuns:
    def __init__(
        self,
        context: Context,
        losses: Losses,
        ends: RunEnds,
        retrying: RetryingRuns,
        held: HeldRuns,
        pace: Pace,
    ) -> None:
        self._context = context
        self._view = context.view
        self._losses = losses
        self._ends = ends
        self._retrying = retrying
        self._held = held
        self._pace = pace
        self._last_come_of: dict[tuple[str, int], frozenset[_Order]] = {}
        self._last_come_at = 0
        """As of which revision."""

    def decide(self, key: RunKey, entry: Entry[Run]) -> None:
        run = entry.record
        place = (run.agent, *key)
        assignment = self._view.assignments.get(place)
        if assignment is None:
            self._ends.end_without_assignment(entry)
            return
        report = self._view.reports.get(place)
        if report is not None and report.record.outcome is not None:
            self.finish(entry, assignment, report)
            return
        presence = self._view.presences.get(run.agent)
        session = (report or assignment).record.incarnation
        is_gone = presence is None or presence.record.incarnation != session
        if report is None:
            if is_gone:
                self._withdraw(entry, assignment, f"{run.agent} is gone, it hadn't started")
            elif presence is not None and self._has_changed(run, assignment, presence):
                self._withdraw(entry, assignment, "what its assignment rested on has changed")
            else:
                self._context.because(key, Why.CLAIM, lambda: self._words_of_claim(assignment))
        elif not is_gone:
            self._say_where(key, entry, assignment)
        elif self._losses.is_final(assignment.record, report.record, self._told(entry, assignment)):
            self._lose(entry, assignment, report)

    def _words_of_claim(self, assignment: Entry[Assignment]) -> str:
        """A claim takes milliseconds; one that etcd takes in no form only its agent knows of."""
        agent, at = assignment.record.agent, assignment.record.assigned_at
        words = f"it is assigned to {agent}, which hasn't claimed it yet"
        if self._context.wall_ms - ms_of(at) < _LONG_UNCLAIMED_MS:
            return words
        return f"{words}, though it was assigned at {at}; see that agent's log"

    def _say_where(self, key: RunKey, entry: Entry[Run], assignment: Entry[Assignment]) -> None:
        run, orders = entry.record, self._view.orders
        if self._ends.is_told_to_end(entry, assignment):
            told = orders[(run.agent, run.job, run.id)].record.reason
            self._context.because(key, Why.ENDING, lambda: f"{run.agent} is told to end it: {told}")
        else:
            cause = run.history[-1].cause if run.history else ""
            self._context.because(key, Why.RUNS, lambda: f"it runs on {run.agent}: {cause}")

    def _told(self, entry: Entry[Run], assignment: Entry[Assignment]) -> str:
        """Of one whose agent is gone: what becomes of an order that waits for that."""
        if not self._ends.is_told_to_end(entry, assignment):
            return ""
        run = entry.record
        order = self._view.orders[(run.agent, run.job, run.id)].record
        return f"it ends cancelled then ({order.reason})"

    def _has_changed(
        self, run: Run, assignment: Entry[Assignment], presence: Entry[Presence]
    ) -> bool:
        """An unclaimed assignment whose grounds have changed can't be claimed any more, or mustn't
        wait for that: its agent has begun anew within its session, with fewer slots, say."""
        record, job = assignment.record, self._view.jobs.get(run.job)
        if job is None or record.seen != self._view.start_seen(record.job, record.agent):
            return True
        if presence.mod_revision < assignment.mod_revision:
            return False  # As it was then.
        if why_not(requirement_of_run(job.record, run), presence.record, False) is not None:
            return True
        return self._is_beyond_slots(assignment, presence.record.slots)

    def _is_beyond_slots(self, assignment: Entry[Assignment], slots: int) -> bool:
        """Whether it is one of so many as its agent has no slot for: those that came last go."""
        view, agent = self._view, assignment.record.agent
        excess = view.slots_taken(agent) - slots
        if excess <= 0:
            return False
        return _order_of(assignment) in self._last_come(agent, excess)

    def _last_come(self, agent: str, most: int) -> frozenset[_Order]:
        """Of the agent's assignments that it hasn't claimed, those that came last. Each of them
        asks: it is found out once for what the view shows now."""
        view = self._view
        if self._last_come_at != view.revision:
            self._last_come_at = view.revision
            self._last_come_of.clear()
        found = self._last_come_of.get((agent, most))
        if found is None:
            unclaimed = (
                _order_of(view.assignments[(agent, *key)])
                for key in view.assigned_to.get(agent, ())
                if (agent, *key) not in view.reports and (agent, *key) in view.assignments
            )
            found = self._last_come_of[(agent, most)] = frozenset(sorted(unclaimed)[-most:])
        return found

    def _withdraw(self, entry: Entry[Run], assignment: Entry[Assignment], cause: str) -> None:
        """Nobody has claimed it: another agent gets it, unless its job mustn't start any more."""
        if self._may_start(entry):
            self._move(entry, assignment, None, cause)
        else:
            self._stop(entry, assignment, None)

    def _may_start(self, entry: Entry[Run]) -> bool:
        job = self._view.jobs.get(entry.record.job)
        return job is not None and may_start(job, entry, self._context.wall_ms)

    def _stop(
        self, entry: Entry[Run], assignment: Entry[Assignment], report: Entry[Report] | None
    ) -> None:
        """Its job mustn't start any more, and its attempt hasn't begun."""
        run, state = entry.record, RunState.CANCELLED
        cause = "the job was stopped before it started"
        if is_waiting_for_retry(run):
            state, cause = state_without_retry(run), "no retry any more: the job was stopped"
        self._ends.end_assigned(entry, assignment, report, state, cause)

    def finish(
        self, entry: Entry[Run], assignment: Entry[Assignment], report: Entry[Report]
    ) -> None:
        """What an attempt's outcome leads to."""
        outcome = report.record.outcome
        assert outcome is not None
        is_cancelled = self._ends.is_told_to_end(entry, assignment)
        if not is_cancelled and self._retrying.begin(entry, assignment, report):
            return
        if is_cancelled and outcome in (Outcome.DIED, Outcome.DECLINED):
            self._ends.end_assigned(entry, assignment, report, RunState.CANCELLED, "cancelled")
            return
        if outcome is Outcome.DECLINED:
            self._ask_another(entry, assignment, report)
            return
        if outcome is Outcome.DIED:
            cause = f"attempt died: {report.record.reason}"
            if self._may_reassign(entry):
                self._move(entry, assignment, report, cause)
                return
            if self._is_to_hold(entry):
                self._held.hold(entry, assignment, report, cause)
                return
        cause = report.record.reason or outcome.value
        order = self._view.orders.get((entry.record.agent, entry.record.job, entry.record.id))
        if outcome is Outcome.CANCELLED and is_cancelled and order is not None:
            cause = order.record.reason
        self._ends.end_assigned(entry, assignment, report, _FINAL_OF[outcome], cause)

    def _ask_another(
        self, entry: Entry[Run], assignment: Entry[Assignment], report: Entry[Report]
    ) -> None:
        """Its agent has declined it: nothing of it has begun."""
        run, reason = entry.record, report.record.reason
        over = self._ends.attempt_over(assignment, report, "")
        declined = replace(run, attempts=(*run.attempts, over))
        if not self._may_start(entry):
            self._stop(entry, assignment, report)
        elif may_ask_another(declined):
            self._move(entry, assignment, report, f"attempt declined: {reason}")
        else:
            cause = reason or Outcome.DECLINED.value
            if did_several_decline(declined):
                cause = f"{words_of(declined)}, the last since {cause}"
            self._ends.end_assigned(entry, assignment, report, state_when_declined(run), cause)

    def _lose(
        self, entry: Entry[Run], assignment: Entry[Assignment], report: Entry[Report]
    ) -> None:
        """A claimed attempt whose agent is surely gone."""
        run, reason = entry.record, f"{entry.record.agent} was lost"
        if self._ends.is_told_to_end(entry, assignment):
            order = self._view.orders[(run.agent, run.job, run.id)].record
            cause = f"{order.reason}, and {reason}"
            self._ends.end_assigned(entry, assignment, report, RunState.CANCELLED, cause)
        elif self._may_reassign(entry):
            self._move(entry, assignment, report, reason)
        elif self._is_to_hold(entry):
            self._held.hold(entry, assignment, report, reason)
        else:
            self._ends.end_assigned(entry, assignment, report, RunState.DIED, reason)

    def _is_to_hold(self, entry: Entry[Run]) -> bool:
        job = self._view.jobs.get(entry.record.job)
        return job is not None and holds(job) and not is_of_another(job, entry)

    def _may_reassign(self, entry: Entry[Run]) -> bool:
        """After an attempt that died, or whose agent did."""
        job = self._view.jobs.get(entry.record.job)
        if job is None or not self._may_start(entry):
            return False
        if entry.record.reassigns >= job.record.max_reassigns:
            return False
        requirement = requirement_of_run(job.record, entry.record)
        if entry.record.host and not self._context.agents.has_eligible(requirement):
            return False  # It never moves to another agent.
        match job.record.on_agent_loss:
            case OnAgentLoss.REASSIGN:
                return True
            case OnAgentLoss.DIED | OnAgentLoss.HOLD:
                return False
            case other:
                assert_never(other)

    def _has_to_wait_there(self, run: Run, job: Job, presence: Entry[Presence]) -> bool:
        """The agent's startup jobs go first; and beside a run of its job that is bound to that
        agent it has to wait for its turn. (One that is bound itself never gets to another.)"""
        if self._context.agents.has_to_start(presence.record):
            return True
        takes_turns = job.overlap is not Overlap.ALLOW and not run.host
        return takes_turns and self._context.is_in_use(job.name, presence.record.agent)

    def _move(
        self,
        entry: Entry[Run],
        assignment: Entry[Assignment],
        report: Entry[Report] | None,
        cause: str,
    ) -> None:
        """T5: end the attempt; the run goes to another agent, or waits for one."""
        context, run = self._context, entry.record
        job = self._view.jobs.get(run.job)
        changes: dict[str, object] = {}
        if report is not None:
            over = self._ends.attempt_over(assignment, report, cause)
            changes = {"attempts": (*run.attempts, over), **self._ends.results_of(report)}
        was_declined = report is not None and report.record.outcome is Outcome.DECLINED
        has_begun = report is not None and not was_declined
        if has_begun:
            changes["reassigns"] = run.reassigns + 1
        presence, is_paced = None, False
        is_free = context.conflicts.holder(run.job) is None  # Groups can change while it runs.
        is_retry = not has_begun and is_waiting_for_retry(run)  # It may end still.
        if job is not None and is_free and not is_retry and not self._view.is_paused(run.job):
            over_run = replace(run, **changes)
            wanted = context.agents.wanted(job, over_run)
            presence = context.agents.choose(wanted, run.job, tried_by(over_run))
            if presence is not None and self._has_to_wait_there(run, job.record, presence):
                presence = None
            elif presence is not None and not (was_declined or self._pace.allow()):
                presence, is_paced = None, True
                cause = f"{cause}; it waits, since {self._pace.reason}"
        agent = presence.record.agent if presence is not None else None
        if job is not None and agent is not None and presence is not None:
            moved = assigned(context.author, run, entry.mod_revision, agent, cause, **changes)
            seen = self._view.start_seen(run.job, agent)
            new = assignment_of(context.author, moved, job.record, presence.record, seen)
        else:
            state = RunState.READY
            if is_retry:
                state = RunState.RETRYING
            elif is_paced and not (has_begun or run.has_run):
                state = RunState.QUEUED  # Outside any buffer, as whatever waits for its turn.
            moved = step(context.author, run, entry.mod_revision, state, cause, agent="", **changes)
            new = None
        context.write(
            fx.MoveRun(
                seq=context.next_seq(),
                run=moved,
                run_revision=entry.mod_revision,
                old=self._ends.old_attempt(entry, assignment, report),
                assignment=new,
                presence_revision=revision_of(presence),
                rotation=context.agents.rotate(job.record, agent) if job is not None else None,
            ),
            run_matter((run.job, run.id)),
            agent=agent,
        )
        where = f"to {agent}" if agent is not None else "to wait for an agent"
        context.say(f"moved from {run.agent} {where}: {cause}", run=(run.job, run.id), warn=True)
