"""I10: of those that a conflict group keeps waiting, the highest priority goes first."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import msgspec

from etcsched.audit.history import FaultKind
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.standing import SETTLED_MS
from etcsched.audit.state import Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import CLUSTER, ConflictGroup, Job, Kind, Run, host_in
from etcsched.core.states import Origin, RunState
from etcsched.core.times import ms_of

LATE_MS = 1_000
"""A tick that became a run so much later may wait for its turn in the pace of recoveries."""

_WORKS = (RunState.ASSIGNED, RunState.HELD)
_EXCUSES = frozenset({FaultKind.CLOCK, FaultKind.ETCD, FaultKind.BY_HAND, FaultKind.OTHER})
"""Faults by which a leader may take time, slots or what it has written for something else."""
_Ids = tuple[str, ...]


class _Suspect(msgspec.Struct):
    """``run`` went first. ``agents`` could have taken ``blocked``, as far as is known yet;
    ``thirds`` are jobs that may have come between."""

    blocked: _Ids
    run: _Ids
    group: str
    at_ms: int
    revision: int
    agents: set[str]
    thirds: set[str]


class Precedence(Rule):
    """Judged are runs that are ``conflicted``, while one below them in the group begins, and that
    an agent could have taken then for certain: for some seconds before, all that decides it stood
    as it was; and for some seconds after nothing comes that the leader may have had under way.
    What waits for its turn in the pace, belongs to an outage or to an agent's coming or going, or
    whose end comes then, isn't judged."""

    invariant = Invariant.I10
    places = frozenset(
        {
            Kind.RUN, Kind.ASSIGNMENT, Kind.JOB, Kind.PAUSE, Kind.CONFLICT, Kind.GAP, Kind.SETTINGS,
            Kind.TERM,
        }
    )  # fmt: skip

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._standing = court.standing
        self._blocked: dict[str, dict[str, int]] = {}
        """By job, its runs that are ``conflicted``, and since when."""
        self._active_ms: dict[str, int] = {}
        """When a job that has no active runs had one last."""
        self._is_ordered = True
        """Whether the groups' orders don't contradict each other."""
        self._pending: list[_Suspect] = []
        self._suspects: list[_Suspect] = []

    def begun(self) -> None:
        for (job, run_id), held in self.state.all_of(Kind.RUN).items():
            if isinstance(held.record, Run) and held.record.state is RunState.CONFLICTED:
                self._blocked.setdefault(job, {})[run_id] = self.court.began_ms
        self._look_at_groups()

    # --- what changes

    def wrote(self, write: Write, step: Step) -> None:
        match write.place:
            case Kind.RUN:
                self._moved(write, step)
            case Kind.ASSIGNMENT:
                self._assigned(write)
            case Kind.JOB | Kind.PAUSE | Kind.GAP if write.ids[0] != CLUSTER:
                self._pending = [s for s in self._pending if s.blocked[0] != write.ids[0]]
            case _:
                self._pending.clear()

    def _moved(self, write: Write, step: Step) -> None:
        job, run_id = write.ids
        run = write.new
        state = run.state if isinstance(run, Run) else None
        if self._blocked.get(job, {}).pop(run_id, None) is not None and not self._blocked[job]:
            del self._blocked[job]
        if state is RunState.CONFLICTED:
            self._blocked.setdefault(job, {})[run_id] = step.at_ms
        if state is not RunState.ASSIGNED:  # It ends, or waits for something else.
            self._pending = [s for s in self._pending if s.blocked != write.ids]
        self._active_ms[job] = step.at_ms
        self._pending = [s for s in self._pending if job not in s.thirds]

    def _assigned(self, write: Write) -> None:
        if write.after is not None:
            agent, *ids = write.ids
            for suspect in self._pending:
                if tuple(ids) not in (suspect.blocked, suspect.run):
                    suspect.agents.discard(agent)
            self._pending = [suspect for suspect in self._pending if suspect.agents]

    def committed(self, step: Step) -> None:
        if self._pending:
            ripe_ms = step.at_ms - SETTLED_MS
            self._suspects += [s for s in self._pending if s.at_ms < ripe_ms]
            self._pending = [s for s in self._pending if s.at_ms >= ripe_ms]
        for write in step.writes:
            if write.place is Kind.CONFLICT:
                self._look_at_groups()
            elif write.place is Kind.ASSIGNMENT and write.is_new and self._blocked and step.at_ms:
                self._judge(write, step)

    def _look_at_groups(self) -> None:
        sorter: TopologicalSorter[str] = TopologicalSorter()
        for group in self._groups():
            for above, below in zip(group.jobs, group.jobs[1:], strict=False):
                sorter.add(below, above)
        try:
            sorter.prepare()
            self._is_ordered = True
        except CycleError:
            self._is_ordered = False

    def _groups(self) -> Iterator[ConflictGroup]:
        for held in self.state.all_of(Kind.CONFLICT).values():
            if isinstance(held.record, ConflictGroup):
                yield held.record

    # --- who goes

    def _judge(self, write: Write, step: Step) -> None:
        """... of a group, and who has to wait for it."""
        agent, job, run_id = write.ids
        run = self.state.record(Run, Kind.RUN, job, run_id)
        if run is None or run.occasion is not None or not self._is_ordered:
            return
        written = step.of(Kind.RUN, job, run_id)
        before = written.old if written is not None else None
        if isinstance(before, Run) and before.state in _WORKS:
            return  # It moves on to another agent.
        for group in self._groups():
            if job not in group.jobs:
                continue
            for above in group.jobs[: group.jobs.index(job)]:
                for blocked, since_ms in self._blocked.get(above, {}).items():
                    if step.at_ms - since_ms > SETTLED_MS:
                        self._weigh((above, blocked), (job, run_id), agent, group.group, step)

    def _weigh(self, blocked: _Ids, went: _Ids, agent: str, group: str, step: Step) -> None:
        job = self.state.record(Job, Kind.JOB, blocked[0])
        run = self.state.record(Run, Kind.RUN, *blocked)
        if job is None or run is None or not self._could_go(job, run, step):
            return
        thirds = self._thirds(blocked[0], went[0])
        if any(self._was_active(third, step) for third in thirds):
            return
        settled = (p.agent for p in self._standing.agents_for(job, host_in(run.id), step.at_ms))
        agents = {a for a in settled if self._standing.had_slot(a, step.at_ms, but_for=a == agent)}
        self.court.checked[self.invariant] += 1
        if agents:
            suspect = _Suspect(blocked, went, group, step.at_ms, step.revision, agents, thirds)
            self._pending.append(suspect)

    def _could_go(self, job: Job, run: Run, step: Step) -> bool:
        """But for its conflict groups and for want of an agent."""
        is_tick_late = run.is_tick and ms_of(run.created_at) - ms_of(run.starts_at) > LATE_MS
        is_paced = run.attempt > 0 or run.origin is Origin.RECOVERY or is_tick_late
        if is_paced or run.attempts or run.occasion is not None or job.current.windows:
            return False
        if step.at_ms - ms_of(run.starts_at) <= SETTLED_MS:
            return False
        is_settled = self._standing.is_job_settled(job.name, step.at_ms)
        if not is_settled or self._standing.is_paused(job.name):
            return False
        others = (self.state.record(Run, Kind.RUN, job.name, r) for r in self._runs_of(job.name))
        is_behind = any(other is not None and other.state in _WORKS for other in others)
        return not is_behind and self.state.of(Kind.GAP, job.name) is None

    def _runs_of(self, job: str) -> set[str]:
        return self.state.runs_of.get(job, set())

    def _thirds(self, above: str, job: str) -> set[str]:
        """Jobs for whose sake ``job`` may go before ``above``: those that hold a group of that one
        and none of this, and those that go before both."""
        found = set()
        beside = {other for group in self._groups() if job in group.jobs for other in group.jobs}
        for group in self._groups():
            if above in group.jobs:
                place = group.jobs.index(above)
                found |= {*group.jobs[:place], *(set(group.jobs[place + 1 :]) - beside)}
        return found - {above, job}

    def _was_active(self, job: str, step: Step) -> bool:
        is_active = bool(self._runs_of(job))
        return is_active or step.at_ms - self._active_ms.get(job, 0) <= SETTLED_MS

    def finish(self) -> None:
        for suspect in self._suspects:
            excuses = self.court.faults.overlapping(
                suspect.at_ms - SETTLED_MS, suspect.at_ms + SETTLED_MS, _EXCUSES
            )
            text = (
                f"{'/'.join(suspect.run)}: it went before {'/'.join(suspect.blocked)}, which comes "
                f"first in {suspect.group}, and which {', '.join(sorted(suspect.agents))} could "
                "have taken"
            )
            if not excuses:
                self.expect(False, text, at_ms=suspect.at_ms)
