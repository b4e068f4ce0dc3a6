"""How runs end: the one place that sends a run to the archive, with what belongs to it."""

from __future__ import annotations

from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.leader.chains import Chains
from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import Matter, request_matter, run_matter
from etcsched.core.leader.runs import attempt_of, step
from etcsched.core.leader.waiting import Waiting
from etcsched.core.records import Assignment, Attempt, Kind, Order, Report, Run
from etcsched.core.states import OnDisconnect, Outcome, RunState
from etcsched.core.view import Entry, revision_of


class RunEnds:
    def __init__(self, context: Context, waiting: Waiting, chains: Chains) -> None:
        self._context = context
        self._chains = chains
        self._waiting = waiting
        self._view = context.view

    def end_waiting(
        self,
        entry: Entry[Run],
        state: RunState,
        cause: str,
        consumed: fx.Consumed | None = None,
    ) -> None:
        """End a run that has no attempt in progress."""
        self._end(entry, state, cause, consumed=consumed)

    def end_assigned(
        self,
        entry: Entry[Run],
        assignment: Entry[Assignment],
        report: Entry[Report] | None,
        state: RunState,
        cause: str,
        consumed: fx.Consumed | None = None,
    ) -> None:
        """End a run with its attempt; ``report`` None: it wasn't claimed."""
        changes: dict[str, object] = {}
        if report is not None:
            over = self.attempt_over(assignment, report, cause)
            changes = {"attempts": (*entry.record.attempts, over), **self.results_of(report, state)}
        old = self.old_attempt(entry, assignment, report)
        if state is RunState.CANCELLED and self.may_run_on(assignment, report):
            old = replace(old, order=self._order_of(entry, assignment, cause))
            cause = f"{cause}; should {old.agent} come back with its process, it ends that"
        self._end(entry, state, cause, old=old, consumed=consumed, **changes)

    def may_run_on(self, assignment: Entry[Assignment], report: Entry[Report] | None) -> bool:
        """Of an attempt whose agent is gone: whether its process may go on there for ever."""
        is_over = report is None or report.record.outcome is not None
        return not is_over and assignment.record.on_disconnect is OnDisconnect.CONTINUE

    def end_held(
        self,
        entry: Entry[Run],
        state: RunState,
        cause: str,
        consumed: fx.Consumed | None = None,
    ) -> None:
        """With the attempt whose agent is lost, if it is held for that."""
        assignment, report = self.attempt_of(entry.record)
        if assignment is None:
            self.end_waiting(entry, state, cause, consumed)
        else:
            self.end_assigned(entry, assignment, report, state, cause, consumed)

    def results_of(self, report: Entry[Report], state: RunState | None = None) -> dict[str, object]:
        """What the attempt that is over leaves to its run, which ends so, or goes on. One that was
        declined leaves what the last that ran has left."""
        record = report.record
        if record.outcome is Outcome.DECLINED:
            return {}
        return {"results": record.results, "results_problem": self._results_problem(record, state)}

    def attempt_of(self, run: Run) -> tuple[Entry[Assignment] | None, Entry[Report] | None]:
        place = (run.agent, run.job, run.id)
        return self._view.assignments.get(place), self._view.reports.get(place)

    def _results_problem(self, report: Report, state: RunState | None) -> str:
        """What the agent says of the file, and what the job promises and a completed run lacks."""
        job = self._view.jobs.get(report.job)
        declared = job.record.results if job is not None and state is RunState.COMPLETED else ()
        missing = [name for name in declared if name not in report.results]
        texts = [report.results_problem, f"no {', '.join(missing)}" if missing else ""]
        return "; ".join(filter(None, texts))

    def end_without_assignment(
        self, entry: Entry[Run], consumed: fx.Consumed | None = None
    ) -> None:
        """Somebody deleted the assignment by hand, or wrote over it. Its agent ends the process
        when it sees that it is gone; nothing fences it, so the run doesn't move."""
        run = entry.record
        place = (run.agent, run.job, run.id)
        is_there = self._view.is_unreadable(Kind.ASSIGNMENT, *place)
        old = fx.OldAttempt(
            agent=run.agent,
            assignment_revision=self._view.seen(Kind.ASSIGNMENT, *place),
            report_revision=self._view.seen(Kind.REPORT, *place),
        )
        why = "can't be read" if is_there else "was deleted by hand"
        cause = f"its assignment {why}"
        self._end(entry, RunState.DIED, cause, old=old, consumed=consumed)

    def is_told_to_end(self, entry: Entry[Run], assignment: Entry[Assignment]) -> bool:
        run = entry.record
        order = self._view.orders.get((run.agent, run.job, run.id))
        return order is not None and order.record.token == assignment.mod_revision

    def tell_to_end(
        self,
        entry: Entry[Run],
        assignment: Entry[Assignment],
        cause: str,
        by: str = "",
        consumed: fx.Consumed | None = None,
    ) -> None:
        """Order a claimed attempt's agent to end it; the run is over once it reports."""
        context, run = self._context, entry.record
        context.write(
            fx.SendOrder(
                seq=context.next_seq(),
                agent=run.agent,
                order=self._order_of(entry, assignment, cause, by),
                run_revision=entry.mod_revision,
                consumed=consumed,
            ),
            *_matters(run, consumed),
        )

    def _order_of(
        self, entry: Entry[Run], assignment: Entry[Assignment], cause: str, by: str = ""
    ) -> Order:
        run = entry.record
        return Order(
            job=run.job,
            run=run.id,
            token=assignment.mod_revision,
            at=self._context.now,
            by=by,
            reason=cause,
        )

    def attempt_over(
        self, assignment: Entry[Assignment], report: Entry[Report], cause: str
    ) -> Attempt:
        outcome = report.record.outcome or Outcome.DIED
        return attempt_of(
            assignment.record,
            assignment.mod_revision,
            report.record,
            outcome,
            cause,
            self._context.now,
        )

    def old_attempt(
        self, entry: Entry[Run], assignment: Entry[Assignment], report: Entry[Report] | None
    ) -> fx.OldAttempt:
        """Where the agent has given no outcome, the decision rests on its presence as seen."""
        is_final = report is not None and report.record.outcome is not None
        agent = entry.record.agent
        return fx.OldAttempt(
            agent=agent,
            assignment_revision=assignment.mod_revision,
            report_revision=revision_of(report),
            presence_revision=None if is_final else self._view.seen(Kind.PRESENCE, agent),
        )

    def _end(
        self,
        entry: Entry[Run],
        state: RunState,
        cause: str,
        *,
        old: fx.OldAttempt | None = None,
        consumed: fx.Consumed | None = None,
        **changes: object,
    ) -> None:
        context, run = self._context, entry.record
        self._waiting.discard((run.job, run.id))
        over = step(context.author, run, entry.mod_revision, state, cause, **changes)
        ended_at = over.attempts[-1].ended_at if "attempts" in changes else None
        over, following = self._chains.after(over, ended_at)
        if self._chains.is_beginning(following):
            self._chains.wait(following, *_matters(run, consumed))
            return
        if following is None:
            # That nothing follows rests on the job's definition, too.
            at_job = self._view.seen(Kind.JOB, run.job)
            following = fx.Following(created=(), joins=(), jobs=((run.job, at_job),))
        context.write(
            fx.EndRun(
                seq=context.next_seq(),
                run=over,
                run_revision=entry.mod_revision,
                old=old,
                consumed=consumed,
                following=following,
            ),
            *_matters(run, consumed),
            *self._chains.matters(following),
        )
        self._chains.sent(following)
        where = f" on {run.agent}" if old is not None else ""
        why = "" if cause == state.value else f": {cause}"
        is_warning = state is not RunState.COMPLETED
        context.say(f"{state.value}{where}{why}", run=(run.job, run.id), warn=is_warning)


def _matters(run: Run, consumed: fx.Consumed | None) -> list[Matter]:
    matters = [run_matter((run.job, run.id))]
    if consumed is not None:
        matters.append(request_matter(consumed.answer.request))
    return matters
