"""How long a run waits for its first agent: its pickup buffer (SEMANTICS, recovery)."""

from __future__ import annotations

from itertools import pairwise

from etcsched.core.records import Job, Run
from etcsched.core.states import Recovery, RunState
from etcsched.core.times import ms_of


def buffer_end_ms(run: Run, job: Job) -> int | None:
    """When a run that waits for its first agent gives up. None: it has no buffer, as what has had
    an attempt, is or was queued, belongs to an agent's coming or going, or waits for its conflict
    to clear however late. An assignment that nobody claimed is no attempt; one that was declined
    hasn't begun."""
    if run.state not in (RunState.READY, RunState.CONFLICTED) or run.has_run:
        return None
    if run.is_bound_to_incarnation:
        return None  # It waits as long as its agent is there.
    if run.state is RunState.CONFLICTED and job.recovery is Recovery.CONFLICTED:
        return None
    end_ms = ms_of(run.starts_at) + int(job.pickup_buffer_s * 1000)
    return None if _was_kept(run, end_ms) else end_ms


def _was_kept(run: Run, end_ms: int) -> bool:
    """Whether it has waited outside its buffer: in a queue, for an operator, or for a conflict that
    cleared late. That an agent which got it then went without claiming it ends no such run."""
    return any(
        before.state in (RunState.QUEUED, RunState.HELD)
        or (before.state is RunState.CONFLICTED and ms_of(after.at) >= end_ms)
        for before, after in pairwise(run.history)
    )
