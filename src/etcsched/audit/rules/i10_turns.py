"""I10: runs of a job that doesn't overlap itself take turns, and their retries in any case."""

from __future__ import annotations

from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Job, Kind, Run, host_in
from etcsched.core.states import Origin, Overlap, RunState

_HOLDING = (RunState.ASSIGNED, RunState.HELD)

_BESIDE_OTHERS = frozenset({Origin.REQUEST, Origin.LIFECYCLE})
"""What an operator asks for begins beside others, and so does what agents' coming and going asks
for; their retries don't."""


class Turns(Rule):
    """Of a job that runs on each agent, each agent's; what isn't bound to one waits for all of
    them. Judged on the state after the revision; runs that were made while the job might still
    overlap itself do so."""

    invariant = Invariant.I10
    places = frozenset({Kind.ASSIGNMENT, Kind.JOB})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._overlapped_at: dict[str, int] = {}
        """By job, the last revision up to which it might overlap itself."""

    def wrote(self, write: Write, step: Step) -> None:
        before = write.old
        if isinstance(before, Job) and before.overlap is Overlap.ALLOW:
            self._overlapped_at[before.name] = step.revision

    def committed(self, step: Step) -> None:
        for write in step.writes:
            if write.place is Kind.ASSIGNMENT and write.is_new:
                _, name, run_id = write.ids
                before = _state_before(step, name, run_id)
                if before not in _HOLDING:  # What moves on to another agent has its turn.
                    is_retry = before is RunState.RETRYING
                    self._judge(name, run_id, step, is_retry=is_retry)

    def _judge(self, name: str, run_id: str, step: Step, *, is_retry: bool) -> None:
        job = self.state.record(Job, Kind.JOB, name)
        if job is None or job.overlap is Overlap.ALLOW:
            return
        if not self._takes_turns(name, run_id, is_retry=is_retry):
            return
        for other_id in self.state.runs_of.get(name, set()) - {run_id}:
            if not self._is_in_turn_with(job, run_id, other_id, step):
                continue
            if not self._takes_turns(name, other_id, is_retry=is_retry):
                continue
            if is_retry and self._begins_beside(name, other_id, step):
                continue
            text = f"{name}/{run_id}: assigned beside {name}/{other_id}, which it has to wait for"
            self.expect(not self._is_assigned(name, other_id), text, step)

    def _is_in_turn_with(self, job: Job, run_id: str, other_id: str, step: Step) -> bool:
        """What is bound to an agent waits for what is bound to none; where its job runs on each, or
        it is about that agent's coming, only for what that agent has. The other way round in any
        case. Of two that are in different lanes, either may come right behind the other."""
        host, other = host_in(run_id), host_in(other_id)
        if host == other:
            return True
        run = self.state.record(Run, Kind.RUN, job.name, run_id)
        if run is not None and run.is_for_shutdown:
            return False  # Its agent waits for it to go.
        if (host and other) or not self._was_assigned(job.name, other_id, step):
            return False
        is_here_only = job.per_host or (run is not None and run.is_bound_to_incarnation)
        return not (host and is_here_only) or self._agent_of(job.name, other_id) == host

    def _agent_of(self, name: str, run_id: str) -> str:
        run = self.state.record(Run, Kind.RUN, name, run_id)
        return run.agent if run is not None else ""

    def _takes_turns(self, name: str, run_id: str, *, is_retry: bool) -> bool:
        """``is_retry``: whether it, or who would begin beside it, begins with a retry. One that was
        ever retried isn't as it was asked for any more, also once it has begun or was moved."""
        held = self.state.of(Kind.RUN, name, run_id)
        if held is None or held.create_revision <= self._overlapped_at.get(name, 0):
            return False
        run = held.record
        return isinstance(run, Run) and (
            is_retry or run.retries > 0 or run.origin not in _BESIDE_OTHERS
        )

    def _was_assigned(self, name: str, run_id: str, step: Step) -> bool:
        """Before this revision."""
        held = self.state.of(Kind.RUN, name, run_id)
        return held is not None and held.mod_revision < step.revision

    def _begins_beside(self, name: str, run_id: str, step: Step) -> bool:
        """It is assigned in this very revision, as it may be beside whatever is; who of the two was
        first, nobody can tell."""
        run = self.state.record(Run, Kind.RUN, name, run_id)
        is_new = any(
            write.is_new and write.place is Kind.ASSIGNMENT and write.ids[1:] == (name, run_id)
            for write in step.writes
        )
        return is_new and run is not None and run.origin in _BESIDE_OTHERS and not run.retries

    def _is_assigned(self, name: str, run_id: str) -> bool:
        run = self.state.record(Run, Kind.RUN, name, run_id)
        return run is not None and run.state is RunState.ASSIGNED


def _state_before(step: Step, name: str, run_id: str) -> RunState | None:
    """None: the run is new."""
    write = step.of(Kind.RUN, name, run_id)
    before = write.old if write is not None else None
    return before.state if isinstance(before, Run) else None
