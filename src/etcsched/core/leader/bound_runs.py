"""Runs that are bound to one agent (``per_host``, ``lifecycle``): they wait for that one, but not
for ever.

Nobody else can take them. So one that waits for its agent as long as its pickup buffer lasts ends
``missed``, or ``died`` if an attempt of it was lost there; one that is queued waits as long as an
outage's ticks would be recovered. A startup or shutdown of a host waits as long as its agent is
there, in that incarnation.
"""

from __future__ import annotations

from etcsched.core.leader.buffers import buffer_end_ms
from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import run_matter
from etcsched.core.leader.placement import requirement_of_run
from etcsched.core.leader.run_ends import RunEnds
from etcsched.core.records import Job, Run
from etcsched.core.retry import state_without_retry
from etcsched.core.states import RunState
from etcsched.core.times import Utc, ms_of
from etcsched.core.view import Entry, RunKey


class BoundRuns:
    def __init__(self, context: Context, ends: RunEnds) -> None:
        self._context = context
        self._ends = ends
        self._gone_ms: dict[RunKey, int] = {}
        """By run, since when this leader knows that its agent isn't here."""

    def forget(self, key: RunKey) -> None:
        """The run is over."""
        self._gone_ms.pop(key, None)

    def is_agent_here(self, run: Run, job: Job) -> bool:
        """As far as the run is bound: whether its agent lives and may run it."""
        if not run.host:
            return True
        key = (run.job, run.id)
        is_here = self._context.agents.has_eligible(requirement_of_run(job, run))
        if is_here:
            self._gone_ms.pop(key, None)
        else:
            self._gone_ms.setdefault(key, self._context.wall_ms)
        return is_here

    def end_if_given_up(self, entry: Entry[Run], job: Job) -> bool:
        """For a run whose agent isn't here, and for which it has waited long enough since it went,
        as far as this leader knows. False: it waits on."""
        context, run = self._context, entry.record
        if run.is_bound_to_incarnation:
            return False
        wait_ms = self._waits_until_ms(run, job) - context.wall_ms
        if wait_ms > 0:
            wakes_s = context.mono_s + wait_ms / 1000
            context.wake_again_at(wakes_s, run_matter((run.job, run.id)))
            return False
        cause = f"{context.agents.why_none(requirement_of_run(job, run))}, as long as it waited"
        self._end(entry, cause)
        return True

    def _waits_until_ms(self, run: Run, job: Job) -> int:
        end_ms = buffer_end_ms(run, job)
        if end_ms is not None and end_ms > ms_of(run.created_at):
            return end_ms
        # It is or was within no buffer: as long as its agent was here it may have waited for
        # something else, for its turn or its conflict groups, say.
        since_ms = max(ms_of(_waits_since(run)), self._gone_ms.get((run.job, run.id), 0))
        return since_ms + int(_waits_s(run, job) * 1000)

    def end_if_pointless(self, entry: Entry[Run], job: Job) -> bool:
        """For a run about an agent's coming or going, once that is past, or nothing may start
        there before it goes."""
        cause = self.why_pointless(entry.record, job)
        if cause is None:
            return False
        self._end(entry, cause)
        return True

    def _end(self, entry: Entry[Run], cause: str) -> None:
        run = entry.record
        if run.state is RunState.RETRYING:
            state = state_without_retry(run)
        else:
            state = RunState.DIED if run.attempts else RunState.MISSED
        self._ends.end_waiting(entry, state, cause)

    def why_pointless(self, run: Run, job: Job) -> str | None:
        context, agent = self._context, run.host
        if not run.is_bound_to_incarnation:
            return None
        entry = context.view.presences.get(agent)
        if entry is None or entry.record.incarnation != run.incarnation:
            return f"{agent} was gone before it could run"
        assert run.occasion is not None
        if not run.occasion.is_shutdown:
            return f"{agent} stops before it could run" if entry.record.draining else None
        if (paused := context.view.what_is_paused(run.job)) is not None:
            return f"{paused} is paused, and {agent} doesn't wait for that"
        why = context.agents.why_not(requirement_of_run(job, run), entry.record)
        return f"{agent} {why}" if why is not None else None


def _waits_since(run: Run) -> Utc:
    if run.state is RunState.RETRYING and run.retry_at is not None:
        return run.retry_at
    return max(run.since, run.not_before or run.created_at)


def _waits_s(run: Run, job: Job) -> float:
    return job.recover_within_s if run.state is RunState.QUEUED else job.pickup_buffer_s
