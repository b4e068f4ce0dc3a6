"""What becomes of each run that isn't over: the leader's decisions on single runs.

Level-triggered: a run is looked at again whenever something that it depends on has changed, and
the decision follows from the view alone, not from what happened. So a new leader continues where
the old one stopped, by looking at every run once.
"""

from __future__ import annotations

from typing import assert_never

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context, Matter, job_matter
from etcsched.core.leader.loss import Losses
from etcsched.core.leader.placement import Requirement, requirement_of
from etcsched.core.leader.runs import assigned, assignment_of, attempt_of, step
from etcsched.core.leader.waiting import Waiting
from etcsched.core.records import Assignment, Attempt, Job, Presence, Report, Run
from etcsched.core.states import JobState, OnAgentLoss, Origin, Outcome, Overlap, RunState
from etcsched.core.times import ms_of
from etcsched.core.view import Entry, RunKey, revision_of

_FINAL_OF: dict[Outcome, RunState] = {
    Outcome.COMPLETED: RunState.COMPLETED,
    Outcome.FAILED: RunState.FAILED,
    Outcome.TIMED_OUT: RunState.TIMED_OUT,
    Outcome.CANCELLED: RunState.CANCELLED,
    Outcome.DIED: RunState.DIED,
    Outcome.DECLINED: RunState.FAILED,
}


def matter_of(key: RunKey) -> Matter:
    return ("run", *key)


class RunDecider:
    def __init__(self, context: Context, losses: Losses, outage_began_ms: int) -> None:
        """Between ``outage_began_ms`` (the watermark found at the takeover) and the takeover no
        one decided: a buffer that ended in between belongs to that outage."""
        self._context = context
        self._view = context.view
        self._losses = losses
        self._outage_ms = (outage_began_ms, context.wall_ms)
        self._dirty: dict[RunKey, None] = {}
        self.waiting = Waiting()
        self.outage_jobs: dict[str, None] = {}
        self.recovering: set[str] = set()
        """Jobs whose outage is over and being recovered from: their runs that waited in it are
        the recovery's matter."""

    def look_at(self, key: RunKey) -> None:
        self._dirty[key] = None

    def look_at_job(self, job: str) -> None:
        for run in self._view.runs_of_job.get(job, ()):
            self._dirty[(job, run)] = None

    def look_at_queued(self, job: str) -> None:
        """A run of the job came, changed or went: the turn of those behind it may have come."""
        for run in self._view.runs_of_job.get(job, ()):
            if self._view.runs[(job, run)].record.state is RunState.QUEUED:
                self._dirty[(job, run)] = None

    # --- a job's runs

    def active_runs(self, job: str) -> list[Run]:
        return [self._view.runs[(job, run)].record for run in self._view.runs_of_job.get(job, ())]

    def is_unsettled(self, job: str) -> bool:
        """Whether a write that concerns the job, or one of its runs, is in flight."""
        context = self._context
        return context.is_busy(job_matter(job)) or any(
            context.is_busy(matter_of((job, run))) for run in self._view.runs_of_job.get(job, ())
        )

    # --- what is looked at

    def look_at_all(self) -> None:
        for key in self._view.runs:
            self._dirty[key] = None

    def look_at_agent(self, agent: str) -> None:
        for key in self._view.assigned_to.get(agent, ()):
            self._dirty[key] = None

    def decide(self) -> None:
        """Look at everything that is due for a look, then fill free slots."""
        dirty, self._dirty = self._dirty, {}
        for key in sorted(dirty):
            entry = self._view.runs.get(key)
            if entry is None:
                self.waiting.discard(key)
                continue
            if not self._context.is_busy(matter_of(key)):
                self._decide(key, entry)
        self._fill_slots()

    def _decide(self, key: RunKey, entry: Entry[Run]) -> None:
        match entry.record.state:
            case RunState.READY | RunState.QUEUED:
                self._decide_waiting(key, entry)
            case RunState.ASSIGNED:
                self._decide_assigned(key, entry)
            case _:
                # Final runs live in the archive, and "running" is never written.
                self._context.say(
                    f"found in state {entry.record.state.value} among the active runs: left alone",
                    run=key,
                    warn=True,
                )

    # --- waiting

    def _decide_waiting(self, key: RunKey, entry: Entry[Run]) -> None:
        run = entry.record
        job = self._view.jobs.get(run.job)
        if job is None or not _may_start(job.record, run):
            self._end(entry, RunState.CANCELLED, "the job was stopped before it started")
            return
        if run.state is RunState.READY and self._is_buffer_over(key, entry, job.record):
            self.waiting.discard(key)
            return
        if self._view.is_paused(run.job):
            self.waiting.discard(key)
            return
        if run.state is RunState.QUEUED and not self._is_its_turn(run):
            self.waiting.discard(key)
            return
        self.waiting.put(run, requirement_of(job.record))

    def _is_its_turn(self, run: Run) -> bool:
        """Queued runs go one at a time, oldest first, when no other run of the job is active. Where
        runs may overlap, they wait only for those that catch up on an outage."""
        job = self._view.jobs.get(run.job)
        may_overlap = job is not None and job.record.overlap is Overlap.ALLOW
        for other in self.active_runs(run.job):
            if may_overlap and other.origin is not Origin.RECOVERY:
                continue
            if other.state is not RunState.QUEUED:
                return False
            if (other.scheduled_at or "", other.id) < (run.scheduled_at or "", run.id):
                return False
        return True

    def _is_buffer_over(self, key: RunKey, entry: Entry[Run], job: Job) -> bool:
        """End a run that found no agent in its time, or leave it to the outage it belongs to."""
        run = entry.record
        if run.attempt > 0:
            return False  # The buffer counts for a run's first assignment only.
        due_ms = ms_of(run.scheduled_at or run.created_at)
        end_ms = due_ms + int(job.pickup_buffer_s * 1000)
        if self._context.wall_ms < end_ms:
            wait_s = (end_ms - self._context.wall_ms) / 1000
            self._context.wake_at(self._context.mono_s + wait_s, matter_of(key))
            return False
        is_tick = run.origin is not Origin.REQUEST
        gap = self._view.gaps.get(run.job)
        is_gap_open = gap is not None and not gap.record.closed
        if is_tick and (is_gap_open or run.job in self.recovering):
            return True
        began_ms, over_ms = self._outage_ms
        nobody_led = began_ms < end_ms <= over_ms
        if self._context.has_eligible(requirement_of(job)) and not nobody_led:
            why = "the job was paused" if self._view.is_paused(run.job) else "no slot was free"
            cause = f"{why} until its pickup buffer of {job.pickup_buffer_s:g} s was over"
            self._end(entry, RunState.ABANDONED, cause)
        elif is_tick:
            # Nobody was there as the buffer ended: the run is its job's outage's matter.
            self.outage_jobs[run.job] = None
        else:
            why = self._context.why_none(requirement_of(job))
            self._end(entry, RunState.MISSED, f"{why}, as long as its pickup buffer lasted")
        return True

    def _fill_slots(self) -> None:
        self.waiting.serve(self._offer)

    def _offer(self, requirement: Requirement, key: RunKey) -> bool:
        presence = self._context.choose(requirement)
        if presence is None:
            return False
        self._dispatch(key, presence.record.agent)
        return True

    def _dispatch(self, key: RunKey, agent: str) -> None:
        context = self._context
        entry = self._view.runs.get(key)
        job = self._view.jobs.get(key[0])
        if entry is None or job is None or context.is_busy(matter_of(key)):
            return  # It is looked at again when its write is settled.
        if entry.record.state is RunState.QUEUED and not self._is_its_turn(entry.record):
            return
        presence = self._view.presences[agent]
        run = assigned(context.author, entry.record, entry.mod_revision, agent, "a slot is free")
        seen = self._view.start_seen(run.job, agent)
        context.write(
            fx.Dispatch(
                seq=context.next_seq(),
                run=run,
                run_revision=entry.mod_revision,
                assignment=assignment_of(context.author, run, job.record, presence.record, seen),
                presence_revision=presence.mod_revision,
            ),
            matter_of(key),
            agent=agent,
        )

    # --- assigned

    def _decide_assigned(self, key: RunKey, entry: Entry[Run]) -> None:
        run = entry.record
        place = (run.agent, *key)
        assignment = self._view.assignments.get(place)
        if assignment is None:
            self.end_without_assignment(entry, None)
            return
        report = self._view.reports.get(place)
        if report is not None and report.record.outcome is not None:
            self._finish(entry, assignment, report)
            return
        presence = self._view.presences.get(run.agent)
        is_gone = presence is None or presence.record.incarnation != assignment.record.incarnation
        if report is None:
            if is_gone:
                self._withdraw(entry, assignment, f"{run.agent} is gone, it hadn't started")
            elif presence is not None and self._has_changed(assignment, presence.record):
                self._withdraw(entry, assignment, "what its assignment rested on has changed")
        elif is_gone and self._losses.is_confirmed(assignment.record):
            self._lose(entry, assignment, report)

    def _has_changed(self, assignment: Entry[Assignment], presence: Presence) -> bool:
        """An unclaimed assignment whose grounds have changed can't be claimed any more."""
        record = assignment.record
        return presence.draining or record.seen != self._view.start_seen(record.job, record.agent)

    def _withdraw(self, entry: Entry[Run], assignment: Entry[Assignment], cause: str) -> None:
        """Nobody has claimed it: another agent gets it, unless its job mustn't start any more."""
        job = self._view.jobs.get(entry.record.job)
        if job is not None and _may_start(job.record, entry.record):
            self._move(entry, assignment, None, cause)
        else:
            cause = "the job was stopped before it started"
            self._end_assigned(entry, assignment, None, RunState.CANCELLED, cause)

    def _finish(
        self, entry: Entry[Run], assignment: Entry[Assignment], report: Entry[Report]
    ) -> None:
        outcome = report.record.outcome
        assert outcome is not None
        if outcome in (Outcome.DIED, Outcome.DECLINED):
            if self._is_cancelled(entry, assignment):
                self._end_assigned(entry, assignment, report, RunState.CANCELLED, "cancelled")
                return
            if self._may_reassign(entry, outcome):
                cause = f"attempt {outcome.value}: {report.record.reason}"
                self._move(entry, assignment, report, cause)
                return
        cause = report.record.reason or outcome.value
        self._end_assigned(entry, assignment, report, _FINAL_OF[outcome], cause)

    def _lose(
        self, entry: Entry[Run], assignment: Entry[Assignment], report: Entry[Report]
    ) -> None:
        """A claimed attempt whose agent is surely gone."""
        reason = f"{entry.record.agent} was lost"
        if self._is_cancelled(entry, assignment):
            self._end_assigned(entry, assignment, report, RunState.CANCELLED, reason)
        elif self._may_reassign(entry, Outcome.DIED):
            self._move(entry, assignment, report, reason)
        else:
            self._end_assigned(entry, assignment, report, RunState.DIED, reason)

    def _is_cancelled(self, entry: Entry[Run], assignment: Entry[Assignment]) -> bool:
        """Whether its agent was told to end it: then no other one starts it."""
        run = entry.record
        order = self._view.orders.get((run.agent, run.job, run.id))
        return order is not None and order.record.token == assignment.mod_revision

    def _may_reassign(self, entry: Entry[Run], outcome: Outcome) -> bool:
        job = self._view.jobs.get(entry.record.job)
        if job is None or not _may_start(job.record, entry.record):
            return False
        if entry.record.reassigns >= job.record.max_reassigns:
            return False
        match job.record.on_agent_loss:
            case OnAgentLoss.REASSIGN:
                return True
            case OnAgentLoss.DIED:
                return outcome is Outcome.DECLINED  # It never started.
            case other:
                assert_never(other)

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
        presence = None
        if job is not None and not self._view.is_paused(run.job):
            avoid = frozenset({run.agent}) if report is not None else frozenset[str]()
            presence = context.choose(requirement_of(job.record), avoid)
        changes: dict[str, object] = {}
        if report is not None:
            over = self._attempt_over(assignment, report, cause)
            changes = {"attempts": (*run.attempts, over), "reassigns": run.reassigns + 1}
        agent = presence.record.agent if presence is not None else None
        if job is not None and agent is not None and presence is not None:
            moved = assigned(context.author, run, entry.mod_revision, agent, cause, **changes)
            seen = self._view.start_seen(run.job, agent)
            new = assignment_of(context.author, moved, job.record, presence.record, seen)
        else:
            moved = step(
                context.author, run, entry.mod_revision, RunState.READY, cause, agent="", **changes
            )
            new = None
        context.write(
            fx.MoveRun(
                seq=context.next_seq(),
                run=moved,
                run_revision=entry.mod_revision,
                old=self._old(entry, assignment, report),
                assignment=new,
                presence_revision=revision_of(presence),
            ),
            matter_of((run.job, run.id)),
            agent=agent,
        )
        where = f"to {agent}" if agent is not None else "to wait for an agent"
        context.say(f"moved from {run.agent} {where}: {cause}", run=(run.job, run.id), warn=True)

    # --- ends

    def end_waiting(
        self, entry: Entry[Run], state: RunState, cause: str, consumed: fx.Consumed | None
    ) -> None:
        """End a run that has no attempt in progress."""
        run, context = entry.record, self._context
        self.waiting.discard((run.job, run.id))
        matters = [matter_of((run.job, run.id))]
        if consumed is not None:
            matters.append(("request", consumed.answer.request))
        context.write(
            fx.EndRun(
                seq=context.next_seq(),
                run=step(context.author, run, entry.mod_revision, state, cause),
                run_revision=entry.mod_revision,
                consumed=consumed,
            ),
            *matters,
        )
        context.say(f"{state.value}: {cause}", run=(run.job, run.id), warn=True)

    def end_unclaimed(
        self, entry: Entry[Run], assignment: Entry[Assignment], cause: str, consumed: fx.Consumed
    ) -> None:
        """Cancel an assigned run before its agent has claimed it."""
        self._end_assigned(entry, assignment, None, RunState.CANCELLED, cause, consumed)

    def end_without_assignment(self, entry: Entry[Run], consumed: fx.Consumed | None) -> None:
        """Somebody deleted the assignment by hand. Its agent ends the process when it sees that;
        nothing fences it, so the run doesn't move."""
        context, run = self._context, entry.record
        report = self._view.reports.get((run.agent, run.job, run.id))
        cause = "its assignment was deleted by hand"
        matters = [matter_of((run.job, run.id))]
        if consumed is not None:
            matters.append(("request", consumed.answer.request))
        context.write(
            fx.EndRun(
                seq=context.next_seq(),
                run=step(context.author, run, entry.mod_revision, RunState.DIED, cause),
                run_revision=entry.mod_revision,
                old=fx.OldAttempt(
                    agent=run.agent, assignment_revision=0, report_revision=revision_of(report)
                ),
                consumed=consumed,
            ),
            *matters,
        )
        context.say(f"died: {cause}", run=(run.job, run.id), warn=True)

    def _end(self, entry: Entry[Run], state: RunState, cause: str) -> None:
        self.end_waiting(entry, state, cause, None)

    def _end_assigned(
        self,
        entry: Entry[Run],
        assignment: Entry[Assignment],
        report: Entry[Report] | None,
        state: RunState,
        cause: str,
        consumed: fx.Consumed | None = None,
    ) -> None:
        context, run = self._context, entry.record
        attempts = run.attempts
        if report is not None:
            attempts = (*attempts, self._attempt_over(assignment, report, cause))
        matters = [matter_of((run.job, run.id))]
        if consumed is not None:
            matters.append(("request", consumed.answer.request))
        context.write(
            fx.EndRun(
                seq=context.next_seq(),
                run=step(context.author, run, entry.mod_revision, state, cause, attempts=attempts),
                run_revision=entry.mod_revision,
                old=self._old(entry, assignment, report),
                consumed=consumed,
            ),
            *matters,
        )
        context.say(
            f"{state.value} on {run.agent}" + ("" if cause == state.value else f": {cause}"),
            run=(run.job, run.id),
            warn=state is not RunState.COMPLETED,
        )

    def _attempt_over(
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

    def _old(
        self, entry: Entry[Run], assignment: Entry[Assignment], report: Entry[Report] | None
    ) -> fx.OldAttempt:
        """Where the agent has given no outcome, the decision rests on its presence as seen."""
        is_final = report is not None and report.record.outcome is not None
        presence = self._view.presences.get(entry.record.agent)
        return fx.OldAttempt(
            agent=entry.record.agent,
            assignment_revision=assignment.mod_revision,
            report_revision=revision_of(report),
            presence_revision=None if is_final else revision_of(presence),
        )


def _may_start(job: Job, run: Run) -> bool:
    """Whether the job's definition lets this run start, for the first time or again."""
    match job.current.state:
        case JobState.ENABLED:
            return True
        case JobState.AD_HOC_ACTIVE:
            return run.origin is Origin.REQUEST
        case JobState.DISABLED | JobState.DELETED:
            return False
        case other:
            assert_never(other)
