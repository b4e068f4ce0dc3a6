"""Runs that agents have declined: whether another is asked, and how long one is waited for.

An attempt that was declined hasn't begun. Each agent is asked once; then the run waits for those
that haven't declined it, full or not, as long as its buffer lasts. One without a buffer, a due
retry, say, waits so long for any of them to be here: nobody may ever take it, and others of its job
may wait behind it.
"""

from __future__ import annotations

from msgspec.structs import replace

from etcsched.core.leader.buffers import buffer_end_ms
from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import run_matter
from etcsched.core.leader.placement import Requirement, declines_of
from etcsched.core.leader.pool import NOBODY
from etcsched.core.leader.run_ends import RunEnds
from etcsched.core.leader.waiting import Waiting
from etcsched.core.records import Job, Run
from etcsched.core.retry import is_waiting_for_retry, state_without_retry
from etcsched.core.states import RunState
from etcsched.core.view import Entry, RunKey

MOST_DECLINES = 100
"""In a row, so that a run's record, which names them, stays small."""


class Declines:
    def __init__(self, context: Context, waiting: Waiting, ends: RunEnds) -> None:
        self._context = context
        self._waiting = waiting
        self._ends = ends
        self._hopeless_from_ms: dict[RunKey, int] = {}
        """Of those without a buffer: since when, as far as this leader knows, all have declined it
        who are here."""
        self._looked_at = 0

    def forget(self, key: RunKey) -> None:
        """The run is over."""
        self._hopeless_from_ms.pop(key, None)

    def look_again(self) -> list[RunKey]:
        """Of the runs that wait, those that were declined, where anybody has come or gone."""
        agents, view = self._context.agents, self._context.view
        if self._looked_at == agents.changes:
            return []
        self._looked_at = agents.changes
        for key in list(self._hopeless_from_ms):
            # Also what waits for something else by now, its job's turn, say.
            entry, job = view.runs.get(key), view.jobs.get(key[0])
            if entry is None or job is None or not self.have_all(agents.wanted(job, entry.record)):
                self.forget(key)
        return self._waiting.declined()

    def end_if_given_up(self, entry: Entry[Run], job: Job, requirement: Requirement) -> bool:
        """For a run without a buffer that all have declined who are here. False: it waits on."""
        context, run, key = self._context, entry.record, (entry.record.job, entry.record.id)
        if not self.have_all(requirement):
            self.forget(key)
            return False
        if buffer_end_ms(run, job) is not None:
            return False
        since_ms = self._hopeless_from_ms.setdefault(key, context.wall_ms)
        wait_ms = since_ms + int(job.pickup_buffer_s * 1000) - context.wall_ms
        if wait_ms > 0:
            context.wake_again_at(context.mono_s + wait_ms / 1000, run_matter(key))
            return False
        cause = f"{words_of(run)}: all that are here"
        self._ends.end_waiting(entry, state_when_declined(run), cause)
        return True

    def have_all(self, requirement: Requirement) -> bool:
        """Whether somebody is here, and nobody who hasn't declined it."""
        agents = self._context.agents
        if not requirement.without or agents.has_eligible(requirement):
            return False
        return agents.has_eligible(replace(requirement, without=NOBODY))


def may_ask_another(run: Run) -> bool:
    """After one has declined it. What is bound to an agent gets to no other."""
    return not run.host and len(declines_of(run)) < MOST_DECLINES


def state_when_declined(run: Run) -> RunState:
    """How a run ends that nobody takes: one that has run before has to run again, and didn't."""
    if is_waiting_for_retry(run):
        return state_without_retry(run)
    return RunState.FAILED if run.has_run else RunState.ABANDONED


def words_of(run: Run) -> str:
    count = len(_who_declined(run))
    return f"{count} agents declined" if count != 1 else "1 agent declined"


def did_several_decline(run: Run) -> bool:
    return len(_who_declined(run)) > 1


def _who_declined(run: Run) -> set[str]:
    return {attempt.agent for attempt in declines_of(run)}
