"""Who of a conflict group goes first: what a run that waits has to let go before itself.

``conflicts`` says who holds a group, and in which order its jobs stand; here is who of them could
take their turn now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import job_matter, run_matter
from etcsched.core.leader.open_ticks import OpenTicks
from etcsched.core.leader.pace import Pace, is_paced
from etcsched.core.leader.placement import tried_by
from etcsched.core.leader.reasons import Why
from etcsched.core.leader.requeue import requeue
from etcsched.core.leader.waiting import Waiting
from etcsched.core.records import Presence, Run
from etcsched.core.states import RunState
from etcsched.core.view import Entry, RunKey


class GroupTurns:
    def __init__(
        self,
        context: Context,
        waiting: Waiting,
        pace: Pace,
        open_ticks: OpenTicks,
        is_recovering: Callable[[str], bool],
        dispatch: Callable[[RunKey, str], None],
    ) -> None:
        """``is_recovering``: whether a job's outage decides about its ticks or runs just now.
        ``dispatch`` gives a run to an agent."""
        self._context = context
        self._view = context.view
        self._waiting = waiting
        self._pace = pace
        self._open = open_ticks
        self._is_recovering = is_recovering
        self._dispatch = dispatch
        self._blocked = Waiting()
        """Runs that their conflict groups keep from going, in whatever state they wait."""
        self._passed_over = Waiting()
        """Those of them that leave their turn to one of higher priority."""
        self._let_first: defaultdict[str, dict[RunKey, str]] = defaultdict(dict)
        """By job: runs that leave their turn to a job that itself waits for what is just being
        made."""

    # --- runs that wait for their groups

    def is_looked_at(self, key: RunKey) -> None:
        """What keeps the run from going is found out anew."""
        if (let_first := self._let_first.get(key[0])) is not None:
            let_first.pop(key, None)
            if not let_first:
                del self._let_first[key[0]]
        self._blocked.discard(key)
        self._passed_over.discard(key)

    def let_first_no_more(self) -> list[RunKey]:
        """Runs that left their turn to what was just being made, and isn't any more."""
        let_first = [each for runs in self._let_first.values() for each in runs.items()]
        first_jobs = {job for _, job in let_first}
        held_up = {job for job in first_jobs if self._is_any_coming_above(job)}
        return [key for key, job in let_first if job not in held_up]

    def passed_over_no_more(self) -> dict[str, list[RunKey]]:
        """By job, the first runs that left their turn to another that can't take it any more: it is
        paused, say, or its agent is gone. They can now, or they would only be put to and fro."""
        passed_over, found = self._passed_over, dict[str, list[RunKey]]()
        for job in passed_over.jobs:
            if self._context.conflicts.passed_over(job, self._could_go) is None:
                firsts = list(filter(self._could_take, passed_over.firsts_of(job)))
                if firsts:
                    found[job] = firsts
        return found

    def is_blocked(self, key: RunKey) -> bool:
        """Whether its conflict groups kept it as it was looked at last."""
        return key in self._blocked

    def blocked_of(self, job: str) -> Iterable[RunKey]:
        """Such runs of the job."""
        return self._blocked.all_of(job)

    def let_first_of(self, job: str) -> Iterable[RunKey]:
        """Runs of the job that would go, but for what is just being made above them."""
        return self._let_first.get(job, ())

    def first_blocked_of(self, job: str) -> list[RunKey]:
        """Those of them that go first, should the groups be free."""
        return self._blocked.firsts_of(job)

    def next_blocked_of(self, job: str) -> list[RunKey]:
        """Likewise, where none that asks the same could go by now: who was first has ended, say."""
        return self._blocked.firsts_of(job, but=self._waiting.asked_of(job))

    def block(self, entry: Entry[Run], cause: str) -> None:
        """It waits until its conflict groups are free. What waits behind its own job or for a
        retry says so in its state, and stays in it."""
        key = (entry.record.job, entry.record.id)
        self._waiting.discard(key)
        self._put(self._blocked, entry.record)
        if is_paced(entry.record):
            self._pace.keep_turn(key)
        self._context.because(key, Why.CONFLICT, lambda: cause)
        if entry.record.state is RunState.READY:
            requeue(self._context, entry, RunState.CONFLICTED, f"waits: {cause}")

    # --- a turn

    def is_left(self, key: RunKey) -> bool:
        """Whether a run has to leave its turn to others of its conflict groups: because they hold
        one, or because they come first, and then go now."""
        context, conflicts, job = self._context, self._context.conflicts, key[0]
        entry = self._view.runs.get(key)
        if entry is None or context.is_busy(run_matter(key)):
            return True  # It is looked at again when its write is settled.
        if self._is_any_coming_above(job):
            words = "a run of higher priority in its conflict group is just being made"
            context.because(key, Why.CONFLICT, lambda: words)
            self._let_first[job][key] = job
            return True  # Likewise: what is due at one instant goes by its place in the group.
        while True:
            holder = conflicts.holder(job)
            if holder is not None:
                self.block(entry, f"{holder}")
                return True
            rival = conflicts.passed_over(job, self._could_go)
            if rival is not None:
                self.block(entry, f"{rival} comes first")
                self._put(self._passed_over, entry.record)
                return True
            ahead = conflicts.ahead_of(job, self._could_start)
            first = self._first_to_start(ahead) if ahead is not None else None
            if ahead is None or first is None:
                return False
            if context.is_busy(run_matter(first)) or self._is_any_coming_above(ahead):
                self._let_go_first(key, ahead)
                return True
            presence = self._choose_for(first)
            assert presence is not None, ahead
            self._waiting.discard(first)
            self._dispatch(first, presence.record.agent)

    def _let_go_first(self, key: RunKey, job: str) -> None:
        self._let_first[key[0]][key] = job
        words = f"{job} comes first, and waits for what is just being made"
        self._context.because(key, Why.CONFLICT, lambda: words)

    def _is_coming(self, job: str) -> bool:
        """Whether a run of the job may be there in a moment: a tick is due or decided, or not yet
        there on each agent, or one that waited in an outage waits on."""
        context = self._context
        if context.is_set_aside(job):
            return False  # Its ticks go into its outage, as soon as etcd takes that.
        is_fanning_out = job in context.fanning_out and not context.is_run_rejected(job)
        is_due = self._open.first_of(job) is not None or self._is_recovering(job)
        is_in_flight = context.is_busy(job_matter(job)) or context.is_requeued(job)
        return is_due or is_fanning_out or is_in_flight

    def _could_start(self, job: str) -> bool:
        return self._first_to_start(job) is not None

    def _is_any_coming_above(self, job: str) -> bool:
        return any(self._is_coming(rival) for rival in self._context.conflicts.above(job))

    def _first_to_start(self, job: str) -> RunKey | None:
        """Each may ask for an agent of its own: that the first gets none says nothing of others."""
        return next(filter(self._could_take, self._waiting.firsts_of(job)), None)

    def _could_go(self, job: str) -> bool:
        """But for its conflict groups."""
        is_one_blocked = any(map(self._could_take, self._blocked.firsts_of(job)))
        return is_one_blocked or self._could_start(job)

    def _put(self, waiting: Waiting, run: Run) -> None:
        job = self._view.jobs.get(run.job)
        if job is not None:
            waiting.put(run, self._context.agents.wanted(job, run))

    def _could_take(self, key: RunKey) -> bool:
        return not self._view.is_paused(key[0]) and self._choose_for(key) is not None

    def _choose_for(self, key: RunKey) -> Entry[Presence] | None:
        job, entry = self._view.jobs.get(key[0]), self._view.runs.get(key)
        if job is None or entry is None:
            return None
        agents = self._context.agents
        requirement = agents.wanted(job, entry.record)
        return agents.choose(requirement, key[0], tried_by(entry.record))
