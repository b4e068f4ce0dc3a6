"""All that operators want, as it stands at one revision: jobs, calendars, groups, settings.

What can't be read is named and not part of it; nobody may take its absence for a fact.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from etcsched.core.records import Calendar, ClusterSettings, ConflictGroup, Job, Kind, Record
from etcsched.core.states import JobState
from etcsched.jobfile import JobFiles, Known
from etcsched.keyspace.keys import Keys
from etcsched.operator.store import found, listed, read
from etcsched.ports import Etcd

__all__ = ["Defined", "read_defined"]

R = TypeVar("R", bound=Record)


class Defined(msgspec.Struct, frozen=True):
    """By their names; deleted jobs are among them until they are forgotten. ``unreadable`` are
    keys."""

    jobs: dict[str, Job]
    calendars: dict[str, Calendar]
    conflicts: dict[str, ConflictGroup]
    settings: ClusterSettings
    unreadable: tuple[str, ...] = ()

    def known(self) -> Known:
        return Known(jobs=self.jobs, calendars=self.calendars, conflicts=self.conflicts)

    def unnamed(self, files: JobFiles) -> Defined:
        """What came from files once and isn't in these. Settings stay what they are."""
        jobs = {job.name for job in files.jobs}
        calendars = {calendar.name for calendar in files.calendars}
        groups = {group.group for group in files.conflicts}
        return Defined(
            {
                name: job
                for name, job in self.jobs.items()
                if job.from_file and name not in jobs and job.current.state is not JobState.DELETED
            },
            {n: c for n, c in self.calendars.items() if c.from_file and n not in calendars},
            {n: g for n, g in self.conflicts.items() if g.from_file and n not in groups},
            self.settings,
        )

    def without(self, other: Defined) -> Defined:
        return Defined(
            {name: job for name, job in self.jobs.items() if name not in other.jobs},
            {name: one for name, one in self.calendars.items() if name not in other.calendars},
            {name: one for name, one in self.conflicts.items() if name not in other.conflicts},
            self.settings,
            self.unreadable,
        )


async def read_defined(etcd: Etcd, keys: Keys) -> Defined:
    (at_settings,), revision = await read(etcd, [keys.of(Kind.SETTINGS)])
    unreadable: list[str] = []

    async def all_of(kind: Kind, type_: type[R]) -> list[R]:
        records = []
        for kv in await listed(etcd, keys.all_of(kind), revision=revision):
            record = found(type_, kv)
            if record is None:
                unreadable.append(kv.key)
            else:
                records.append(record)
        return records

    jobs = {job.name: job for job in await all_of(Kind.JOB, Job)}
    calendars = {one.name: one for one in await all_of(Kind.CALENDAR, Calendar)}
    groups = {one.group: one for one in await all_of(Kind.CONFLICT, ConflictGroup)}
    settings = found(ClusterSettings, at_settings)
    if at_settings is not None and settings is None:
        unreadable.append(at_settings.key)
    return Defined(jobs, calendars, groups, settings or ClusterSettings(), tuple(unreadable))
