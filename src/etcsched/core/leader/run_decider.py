"""What becomes of each run that isn't over: who looks at which run, and when.

Level-triggered: a run is looked at again whenever something that it depends on has changed, and
the decision follows from the view alone, not from what happened. So a new leader continues where
the old one stopped, by looking at every run once. The decisions are ``waiting_runs``',
``retrying_runs``', ``assigned_runs``' and ``held_runs``'; how runs end is ``run_ends``'.
"""

from __future__ import annotations

from etcsched.core.leader.assigned_runs import AssignedRuns
from etcsched.core.leader.chains import Chains
from etcsched.core.leader.context import Context, run_matter
from etcsched.core.leader.held_runs import HeldRuns
from etcsched.core.leader.loss import Losses
from etcsched.core.leader.open_ticks import OpenTicks
from etcsched.core.leader.pace import Pace
from etcsched.core.leader.retrying_runs import RetryingRuns
from etcsched.core.leader.run_ends import RunEnds
from etcsched.core.leader.waiting import Waiting
from etcsched.core.leader.waiting_runs import WaitingRuns
from etcsched.core.records import Run
from etcsched.core.states import RunState
from etcsched.core.view import Entry, RunKey, job_of

_BLOCKED = (RunState.READY, RunState.CONFLICTED, RunState.RETRYING)
"""Besides queued ones: runs that may wait for their conflict groups."""


class RunDecider:
    def __init__(
        self, context: Context, losses: Losses, open_ticks: OpenTicks, led_from_ms: int
    ) -> None:
        """``led_from_ms``: see ``WaitingRuns``."""
        self._context = context
        self._view = context.view
        self._dirty: dict[RunKey, None] = {}
        waiting = Waiting()
        recovering: set[str] = set()
        self.chains = Chains(context)
        self.ends = RunEnds(context, waiting, self.chains)
        self.retrying = RetryingRuns(context, waiting, self.ends, open_ticks, recovering)
        self.pace = Pace(context)
        self.waiting = WaitingRuns(
            context, waiting, self.ends, self.retrying, self.pace, open_ticks, recovering,
            led_from_ms,
        )  # fmt: skip
        self.held = HeldRuns(context, self.ends)
        self._assigned = AssignedRuns(
            context, losses, self.ends, self.retrying, self.held, self.pace
        )

    def look_at(self, key: RunKey) -> None:
        self._dirty[key] = None

    def look_at_all(self) -> None:
        for key in self._view.runs:
            self._dirty[key] = None

    def look_at_job(self, job: str) -> None:
        for run in self._view.runs_of_job.get(job, ()):
            self._dirty[(job, run)] = None

    def look_at_waiting(self, lane: str) -> None:
        """A run of the lane came, changed or went, or a tick was decided: the turn of those behind
        may have come, in the lane or in the job's conflict groups, or a retry's end. What isn't
        bound to an agent waits for those of its job that are, too."""
        job = job_of(lane)
        for each in dict.fromkeys((lane, job)):
            for key in self.waiting.to_look_at(each):
                self._dirty[key] = None
            for run in self._view.retrying_of.get(each, ()):
                self._dirty[(job, run)] = None
        if lane == job and job in self._view.bound_of:
            # A run that was chained to ends retries on each agent.
            for retrying in self._view.runs_in(job, RunState.RETRYING):
                self._dirty[(job, retrying.id)] = None
            self.look_at_bound(job)
        conflicts = self._context.conflicts
        if conflicts.is_in_group(job):
            for other in (job, *conflicts.groups.rivals(job)):
                self.look_at_bound(other)
                for key in self.waiting.to_look_at(other):
                    self._dirty[key] = None
                for key in self.waiting.turns.blocked_of(other):
                    self._dirty[key] = None
                for blocked in self._view.runs_in(other, *_BLOCKED):
                    self._dirty[(other, blocked.id)] = None

    def look_at_bound(self, job: str) -> None:
        """Its runs that are bound to an agent, each in a lane of its own."""
        for run in self._view.bound_of.get(job, ()):
            self._dirty[(job, run)] = None

    def look_at_agent(self, agent: str) -> None:
        for key in self._view.assigned_to.get(agent, ()):
            self._dirty[key] = None
        for key in self._view.bound_to.get(agent, ()):
            self._dirty[key] = None

    def look_at_all_bound(self) -> None:
        for keys in self._view.bound_to.values():
            for key in keys:
                self._dirty[key] = None

    def look_at_paced(self) -> None:
        """The next of those that wait for their turn after an outage or a loss."""
        for key in self.pace.due():
            self._dirty[key] = None

    def is_unsettled(self, job: str) -> bool:
        """Whether a write that concerns the job, or one of its runs, is in flight."""
        context = self._context
        return context.is_coming(job) or any(
            context.is_busy(run_matter((job, run))) for run in self._view.runs_of_job.get(job, ())
        )

    @property
    def is_due(self) -> bool:
        return bool(self._dirty)

    def decide(self) -> None:
        """Look at everything that is due for a look, then fill free slots."""
        dirty, self._dirty = self._dirty, {}
        dirty |= dict.fromkeys(self.waiting.turns.passed_over_no_more())
        for key in sorted(dirty):
            entry = self._view.runs.get(key)
            if entry is None:
                self.waiting.forget(key)
                self.retrying.forget(key)
                continue
            matter = run_matter(key)
            if not (self._context.is_busy(matter) or self._context.rests(matter)):
                self.waiting.turns.is_looked_at(key)
                with self._context.contain(matter):
                    self._decide(key, entry)
        self.waiting.fill_slots()

    def _decide(self, key: RunKey, entry: Entry[Run]) -> None:
        match entry.record.state:
            case RunState.READY | RunState.QUEUED | RunState.CONFLICTED:
                self.waiting.decide(key, entry)
            case RunState.RETRYING:
                self.retrying.decide(key, entry)
            case RunState.HELD:
                self.held.decide(key, entry, self._assigned.finish)
            case RunState.ASSIGNED:
                self._assigned.decide(key, entry)
            case _:
                # Final runs live in the archive, and "running" is never written.
                self._context.say(
                    f"found in state {entry.record.state.value} among the active runs: left alone",
                    run=key,
                    warn=True,
                )
