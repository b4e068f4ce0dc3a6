"""What becomes of each run that isn't over: who looks at which run, and when.

Level-triggered: a run is looked at again whenever something that it depends on has changed, and
the decision follows from the view alone, not from what happened. So a new leader continues where
the old one stopped, by looking at every run once. The decisions are ``waiting_runs``',
``retrying_runs``', ``assigned_runs``' and ``held_runs``'; how runs end is ``run_ends``'.
"""

from __future__ import annotations

from collections.abc import Iterable

from etcsched.core.leader.assigned_runs import AssignedRuns
from etcsched.core.leader.chains import Chains
from etcsched.core.leader.context import Context
from etcsched.core.leader.declines import Declines
from etcsched.core.leader.held_runs import HeldRuns
from etcsched.core.leader.loss import Losses
from etcsched.core.leader.matters import run_matter
from etcsched.core.leader.open_ticks import OpenTicks
from etcsched.core.leader.pace import Pace
from etcsched.core.leader.retrying_runs import RetryingRuns
from etcsched.core.leader.run_ends import RunEnds
from etcsched.core.leader.waiting import Waiting
from etcsched.core.leader.waiting_runs import WaitingRuns
from etcsched.core.records import Run
from etcsched.core.states import RunState
from etcsched.core.view import Entry, RunKey, job_of


class RunDecider:
    def __init__(
        self, context: Context, losses: Losses, open_ticks: OpenTicks, led_from_ms: int
    ) -> None:
        """``led_from_ms``: see ``WaitingRuns``."""
        self._context = context
        self._view = context.view
        self._dirty: dict[RunKey, None] = {}
        self._group_members: dict[str, None] = {}
        """Jobs whose conflict groups may be held or free since a moment ago."""
        waiting = Waiting()
        recovering: set[str] = set()
        self.chains = Chains(context)
        self.ends = RunEnds(context, waiting, self.chains)
        self.declines = Declines(context, waiting, self.ends)
        self.retrying = RetryingRuns(
            context, waiting, self.ends, open_ticks, recovering, self.declines
        )
        self.pace = Pace(context)
        self.waiting = WaitingRuns(
            context, waiting, self.ends, self.retrying, self.pace, open_ticks, recovering,
            self.declines, led_from_ms,
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
            self._group_members |= dict.fromkeys((job, *conflicts.groups.rivals(job)))

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
        there = self._view.runs_of_job.get(job, {})
        return context.is_coming(job) or any(run in there for run in context.runs_in_motion(job))

    @property
    def is_due(self) -> bool:
        return bool(self._dirty or self._group_members)

    def decide(self) -> None:
        """Look at everything that is due for a look, then fill free slots."""
        turns = self.waiting.turns
        freed = self._look_at_groups()
        for job, firsts in turns.passed_over_no_more().items():
            freed[job] = list(dict.fromkeys((*freed.get(job, ()), *firsts)))
        dirty, self._dirty = self._dirty, {}
        dirty |= dict.fromkeys(key for firsts in freed.values() for key in firsts)
        dirty |= dict.fromkeys(turns.let_first_no_more())
        dirty |= dict.fromkeys(self.declines.look_again())
        self._decide_each(dirty)
        self._decide_next(freed)
        self.waiting.fill_slots()
        left = self._blocked_of_free(freed)
        if left:
            self._decide_each(left)
            self.waiting.fill_slots()

    def _decide_next(self, freed: dict[str, list[RunKey]]) -> None:
        """Who was first of those blocked may have ended instead, as a retry does whose job's next
        run is there: then the next is first, and goes before those below."""
        turns = self.waiting.turns
        for job, firsts in freed.items():
            looked_at = set(firsts)
            while following := [k for k in turns.next_blocked_of(job) if k not in looked_at]:
                if self._context.conflicts.holder(job) is not None:
                    break
                looked_at.update(following)
                self._decide_each(following)

    def _look_at_groups(self) -> dict[str, list[RunKey]]:
        """Where a job's groups are held, whoever could go is blocked from now on; where they are
        free, the first of those that are blocked may go. Answered: these, by job."""
        members, self._group_members = self._group_members, {}
        turns, freed = self.waiting.turns, dict[str, list[RunKey]]()
        for job in members:
            self._dirty |= dict.fromkeys(turns.let_first_of(job))
            first = turns.first_blocked_of(job)
            if not (first or self.waiting.does_any_wait(job)):
                continue
            if self._context.conflicts.holder(job) is None:
                freed[job] = first
            else:
                could_go = self.waiting.waits_of(job)
                self._dirty |= dict.fromkeys(could_go)
                self._discard_busy(could_go)
        return freed

    def _discard_busy(self, keys: list[RunKey]) -> None:
        """What is written about them tells once it is settled, whether they are blocked."""
        for key in keys:
            if self._context.is_busy(run_matter(key)):
                self.waiting.discard(key)

    def _blocked_of_free(self, freed: dict[str, list[RunKey]]) -> list[RunKey]:
        """Runs that nothing blocks any more, now that those before them have gone, or can't go.
        Mostly there are none: the first that goes holds the groups again."""
        context, turns = self._context, self.waiting.turns
        found: list[RunKey] = []
        for job, firsts in freed.items():
            taken = (key for key in firsts if not context.setbacks.is_rejected(run_matter(key)))
            is_kept = any(map(turns.is_blocked, taken))
            if not is_kept and context.conflicts.holder(job) is None:
                found += turns.blocked_of(job)
        return found

    def _decide_each(self, keys: Iterable[RunKey]) -> None:
        for key in sorted(keys):
            entry = self._view.runs.get(key)
            if entry is None:
                self.waiting.forget(key)
                self.retrying.forget(key)
                self.declines.forget(key)
                continue
            matter = run_matter(key)
            if not (self._context.is_busy(matter) or self._context.rests(matter)):
                self.waiting.turns.is_looked_at(key)
                with self._context.contain(matter):
                    self._decide(key, entry)

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
