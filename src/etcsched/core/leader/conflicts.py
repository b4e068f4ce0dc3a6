"""Who holds a conflict group, as the leader sees it now (SEMANTICS, conflicts; ADR 13).

No key says who holds a group: it follows from the runs. A run holds its job's groups while it is
assigned in the view, or while a write that assigns it is in flight. All runs and assignments are
written by the leader alone, under its term, so the view and the reservations together are never
less than what etcd holds. The groups themselves are an operator's: whoever puts a job into a group
also puts that job's record anew, so that whatever was decided without the group is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from etcsched.core.conflicts import Groups
from etcsched.core.records import Assignment, Run
from etcsched.core.states import OnDisconnect, RunState
from etcsched.core.view import View


class Holder(msgspec.Struct, frozen=True):
    """``run`` is empty while the run's assignment is in flight."""

    group: str
    job: str
    run: str = ""
    agent: str = ""

    def __str__(self) -> str:
        name = f"{self.job}/{self.run}" if self.run else self.job
        where = f" on {self.agent}" if self.agent else ""
        return f"{name}{where} holds {self.group}"


HOLDING: Final = (RunState.ASSIGNED, RunState.HELD)
"""Runs in other states never hold a group (``holds_groups``)."""


def holds_groups(run: Run, assignment: Assignment | None) -> bool:
    """Whether the run keeps others of its job's groups from starting; a held one does only if its
    process may run on somewhere. ``assignment`` is that of the run to its agent."""
    match run.state:
        case RunState.ASSIGNED:
            return True
        case RunState.HELD:
            return assignment is not None and assignment.on_disconnect is OnDisconnect.CONTINUE
        case _:
            return False


class Conflicts:
    def __init__(self, view: View, is_starting: Callable[[str], bool]) -> None:
        """``is_starting``: whether an assignment of the job's is in flight."""
        self._view = view
        self._is_starting = is_starting
        self._groups: Groups | None = None

    def groups_changed(self) -> None:
        self._groups = None

    @property
    def groups(self) -> Groups:
        if self._groups is None:
            self._groups = Groups(entry.record for entry in self._view.conflicts.values())
        return self._groups

    def is_in_group(self, job: str) -> bool:
        return bool(self._view.conflicts) and bool(self.groups.of(job))

    def holder(self, job: str) -> Holder | None:
        """What keeps the job from starting: a run of another job of one of its groups."""
        if not self.is_in_group(job):
            return None
        for rival, group in self.groups.rivals(job).items():
            for run in self._view.runs_in(rival, *HOLDING):
                if self._holds(run):
                    return Holder(group, rival, run.id, run.agent)
            if self._is_starting(rival):
                return Holder(group, rival)
        return None

    def _holds(self, run: Run) -> bool:
        assignment = self._view.assignments.get((run.agent, run.job, run.id))
        return holds_groups(run, assignment.record if assignment is not None else None)

    def above(self, job: str) -> list[str]:
        """The other jobs of its groups that come before it."""
        rank = self.groups.rank
        return [rival for rival in self.groups.rivals(job) if rank(rival) < rank(job)]

    def ahead_of(self, job: str, could_start: Callable[[str], bool]) -> str | None:
        """The job that goes before this one in a group that nobody holds; None: it is this job's
        turn. ``could_start``: whether a run of a job waits and an agent would take it: who can't
        get an agent holds nobody up."""
        groups = self.groups
        mine, taken = set(groups.of(job)), set[str]()
        for other in groups.ranked[: groups.rank(job)]:
            theirs = set(groups.of(other))
            if taken & theirs or not could_start(other) or self.holder(other) is not None:
                continue
            if mine & theirs:
                return other
            taken |= theirs
        return None

    def passed_over(self, job: str, could_take: Callable[[str], bool]) -> str | None:
        """The job of a higher place whose run this job's own run blocks already, so that another
        of this job mustn't join in: else a job that may overlap itself never lets go.
        ``could_take``: whether a run of a job is blocked, and an agent would take it."""
        if not any(self._holds(run) for run in self._view.runs_in(job, *HOLDING)):
            return None
        return next(filter(could_take, self.above(job)), None)
