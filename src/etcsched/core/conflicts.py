"""Conflict groups as a whole: who stands in whose way, and who goes first (SEMANTICS, conflicts).

A job stands in nobody's way but that of *other* jobs: what its own runs are to each other is
``overlap``'s matter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from etcsched.core.records import ConflictGroup

__all__ = ["Groups", "contradiction"]


class Groups:
    """``rank`` is one order of all jobs in groups that agrees with the order of every group.

    Groups whose orders contradict those of groups before them (by name) exclude all the same, but
    have no say in the rank: no file may say so, but several files can, one after the other.
    """

    def __init__(self, groups: Iterable[ConflictGroup]) -> None:
        by_name = {group.group: group.jobs for group in sorted(groups, key=lambda g: g.group)}
        self._jobs = by_name
        names_of: defaultdict[str, list[str]] = defaultdict(list)
        for name, jobs in by_name.items():
            for job in jobs:
                names_of[job].append(name)
        self._of = {job: tuple(names) for job, names in names_of.items()}
        self._rank = _ranks(by_name)

    def of(self, job: str) -> tuple[str, ...]:
        """The names of the job's groups."""
        return self._of.get(job, ())

    def jobs(self, group: str) -> tuple[str, ...]:
        return self._jobs[group]

    @property
    def ranked(self) -> tuple[str, ...]:
        """All jobs that are in groups, in the order of their ranks."""
        return tuple(self._rank)

    def rank(self, job: str) -> int:
        return self._rank[job]

    def rivals(self, job: str) -> dict[str, str]:
        """The other jobs of its groups, each with the first group that both are in."""
        found: dict[str, str] = {}
        for group in self.of(job):
            for other in self._jobs[group]:
                if other != job:
                    found.setdefault(other, group)
        return found


def contradiction(groups: Mapping[str, tuple[str, ...]]) -> list[str] | None:
    """Jobs of which each goes before the next, and the last before the first; None: there are
    none such."""
    try:
        tuple(_sorter(groups.values()).static_order())
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle[:-1]
    return None


def _ranks(groups: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    agreeing: list[tuple[str, ...]] = []
    for jobs in groups.values():
        if contradiction({str(n): each for n, each in enumerate((*agreeing, jobs))}) is None:
            agreeing.append(jobs)
        else:
            agreeing += [(job,) for job in jobs]
    return {job: rank for rank, job in enumerate(_sorter(agreeing).static_order())}


def _sorter(groups: Iterable[tuple[str, ...]]) -> TopologicalSorter[str]:
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for jobs in groups:
        for place, job in enumerate(jobs):
            sorter.add(job, *jobs[max(0, place - 1) : place])
    return sorter
