"""Runs between two attempts (``retrying``): when the next one begins, and what ends the wait.

A due retry waits on in this state until an agent has it; so, until it has begun, whatever ends a
retry can end it.
"""

from __future__ import annotations

from etcsched.core.leader import effects as fx
from etcsched.core.leader.bound_runs import BoundRuns
from etcsched.core.leader.context import Context
from etcsched.core.leader.declines import Declines
from etcsched.core.leader.matters import run_matter
from etcsched.core.leader.open_ticks import OpenTicks
from etcsched.core.leader.reasons import Why
from etcsched.core.leader.run_ends import RunEnds
from etcsched.core.leader.runs import may_start, step, takes_turns
from etcsched.core.leader.waiting import Waiting
from etcsched.core.records import Assignment, Job, Report, Run
from etcsched.core.retry import (
    chained_runs_supersede,
    due_at,
    has_retry,
    state_without_retry,
    supersedes,
)
from etcsched.core.states import Outcome, Overlap, RunState
from etcsched.core.times import ms_of
from etcsched.core.view import Entry, RunKey


class RetryingRuns:
    def __init__(
        self,
        context: Context,
        waiting: Waiting,
        ends: RunEnds,
        open_ticks: OpenTicks,
        recovering: set[str],
        declines: Declines,
    ) -> None:
        self._context = context
        self._view = context.view
        self._waiting = waiting
        self._ends = ends
        self._bound = BoundRuns(context, ends)
        self._open = open_ticks
        self._recovering = recovering
        self._declines = declines

    def forget(self, key: RunKey) -> None:
        """The run is over."""
        self._bound.forget(key)

    def decide(self, key: RunKey, entry: Entry[Run]) -> None:
        run = entry.record
        job = self._view.jobs.get(run.job)
        later = self._later_run(run)
        if job is None or not may_start(job, entry, self._context.wall_ms):
            self.give_up(entry, "the job was stopped")
            return
        self._context.wake_at_window(job.record, run_matter(key))
        if later is not None:
            self.give_up(entry, f"the job's next run is there: {later.id}")
        elif self._is_over(entry, job.record) or self._has_to_wait(key, run):
            self._waiting.discard(key)
        else:
            context = self._context
            requirement = context.agents.wanted(job, run)
            if self._declines.end_if_given_up(entry, job.record, requirement):
                return
            context.because(key, Why.NO_AGENT, lambda: context.agents.why_none(requirement))
            self._waiting.put(run, requirement)

    def _is_over(self, entry: Entry[Run], job: Job) -> bool:
        """Since its agent has gone, or is waited for no more."""
        if self._bound.end_if_pointless(entry, job):
            return True
        is_here = self._bound.is_agent_here(entry.record, job)
        return not is_here and self._bound.end_if_given_up(entry, job)

    def _has_to_wait(self, key: RunKey, run: Run) -> bool:
        context = self._context
        if not self._is_due(key, run):
            return True
        if (paused := self._view.what_is_paused(run.job)) is not None:
            context.because(key, Why.PAUSED, lambda: f"{paused} is paused")
            return True
        held_up = self.held_up_by(run)
        if held_up is not None:
            context.because(key, Why.RETRY, lambda: f"its retry is due, but {held_up}")
        return held_up is not None

    def held_up_by(self, run: Run) -> str | None:
        """What of its job a due retry has to wait for: for ticks that are due, since each may end
        it, and, unless the job may overlap, for another run's end."""
        # An agent that stops waits for its shutdown's retry: an outage may wait for its successor.
        ahead = None if run.is_for_shutdown else self._ticks_ahead(run)
        job = self._view.jobs.get(run.job)
        if ahead is not None or job is None:
            return ahead
        may_overlap = job.record.overlap is Overlap.ALLOW
        is_beginning = takes_turns(run, job.record) and self._context.is_turn_taken(run)
        if is_beginning or (not may_overlap and self._context.is_starting(run.lane)):
            return "another run of its job is just being assigned"
        if may_overlap:
            return None
        for other in (*self._view.active_runs(run.lane), *self._view.unbound_beside(run)):
            if other.state is RunState.ASSIGNED:
                return f"{other.job}/{other.id} runs on {other.agent}"
            if other.state is RunState.HELD:
                return f"{other.job}/{other.id} is held"
        return None

    def _ticks_ahead(self, run: Run) -> str | None:
        name, gap = run.job, self._view.gaps.get(run.job)
        is_coming = self._context.is_coming_beside(run) or self._context.is_coming(name)
        if is_coming or self._open.first_of(name) is not None:
            return "a tick of its job is being decided"
        # (What no schedule made is no matter of the outage: it waits for an agent, as ever.)
        is_gap_open = gap is not None and not gap.record.closed and run.is_tick
        if name in self._recovering or (is_gap_open and not self._is_others_outage(run)):
            return "its job's outage isn't over"
        return None

    def _is_others_outage(self, run: Run) -> bool:
        """Of one whose agent is here, while its job waits for agents that it was moved to: no tick
        of that outage will be in its lane."""
        entry = self._view.jobs.get(run.job)
        if entry is None or not (run.host and entry.record.per_host):
            return False
        is_here = self._bound.is_agent_here(run, entry.record)
        return is_here and self._context.waits_for_agent(entry.record)

    def give_up(self, entry: Entry[Run], why: str, consumed: fx.Consumed | None = None) -> None:
        """The run ends as its last attempt did."""
        state = state_without_retry(entry.record)
        self._ends.end_waiting(entry, state, f"no retry any more: {why}", consumed)

    def begin(
        self, entry: Entry[Run], assignment: Entry[Assignment], report: Entry[Report]
    ) -> bool:
        """T4a: an attempt is over, and the run waits for the next one. False: there is none."""
        context, run = self._context, entry.record
        job = self._view.jobs.get(run.job)
        outcome = report.record.outcome
        assert outcome is not None
        if job is None or not has_retry(job.record, run, outcome):
            return False
        if not may_start(job, entry, self._context.wall_ms) or self._later_run(run) is not None:
            return False
        cause = report.record.reason or outcome.value
        over = self._ends.attempt_over(assignment, report, cause)
        retry = job.record.retry
        due = due_at(retry, run, over, context.now)
        text = f"{cause}; retry {run.retries + 1} of {retry.max} is due at {due}"
        retrying = step(
            context.author, run, entry.mod_revision, RunState.RETRYING, text,
            agent="", attempts=(*run.attempts, over), retries=run.retries + 1, retry_at=due,
            **self._ends.results_of(report),
        )  # fmt: skip
        context.write(
            fx.MoveRun(
                seq=context.next_seq(),
                run=retrying,
                run_revision=entry.mod_revision,
                old=self._ends.old_attempt(entry, assignment, report),
            ),
            run_matter((run.job, run.id)),
        )
        where = f"{outcome.value} on {run.agent}"
        why = text if outcome is not Outcome.TIMED_OUT else text.removeprefix("timed_out; ")
        context.say(f"{where}: {why}", run=(run.job, run.id), warn=True)
        return True

    def _is_due(self, key: RunKey, run: Run) -> bool:
        context = self._context
        wait_ms = ms_of(run.retry_at or run.created_at) - context.wall_ms
        if wait_ms > 0:
            context.wake_again_at(context.mono_s + wait_ms / 1000, run_matter(key))
            words = f"retry {run.retries} is due at {run.retry_at}"
            context.because(key, Why.RETRY, lambda: words, context.wall_ms + wait_ms)
        return wait_ms <= 0

    def _later_run(self, run: Run) -> Run | None:
        """A tick of its lane; or a run that was chained to, which is bound to no agent."""
        view, name = self._view, run.job
        job = view.jobs.get(name)
        others = list(view.ticks_of.get(run.lane, ()))
        runs_on_each = job is not None and job.record.per_host
        if run.host and not (runs_on_each or run.is_for_shutdown):
            others += (other.id for other in view.unbound_of(name) if other.is_tick)
        if job is None or chained_runs_supersede(job.record):
            others += view.chained_of.get(name, ())
        for other_id in others:
            other = view.runs[(name, other_id)].record
            if other.id != run.id and supersedes(other, run):
                return other
        return None
