"""Applying job files and deleting jobs: what would change, and changing it.

A batch of some jobs is written whole or not at all, each job as it was seen, and the watermark too,
since timelines are counted from it. Whoever loses a race looks again. Batches come one after the
other, so whoever ends in between has written some of them; done again, the others come as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from graphlib import TopologicalSorter
from typing import Final

import msgspec

from etcsched.core import timeline
from etcsched.core.errors import NotFound, Refused
from etcsched.core.records import Job, Kind, Watermark
from etcsched.core.schedule import At
from etcsched.core.states import JobState
from etcsched.core.times import Utc
from etcsched.jobfile.writing import fields_of
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.transactions import MAX_BYTES, TicksSeen, write_jobs
from etcsched.operator.changes import ChangeKind, FieldChange
from etcsched.operator.decided import Decided, decided_of
from etcsched.operator.store import check_there, committed, found, mod_of, read
from etcsched.ports import Etcd

__all__ = ["ChangeKind", "FieldChange", "JobChange", "apply", "delete", "plan", "prune"]

_BATCH: Final = 25
_COMPARES: Final = 128
"""So many etcd takes of a transaction: the watermark, five a job, and one a calendar."""
_BATCH_BYTES: Final = MAX_BYTES // 2
"""A record has earlier versions of its schedule, too, so it may be larger than its file says."""
_TRIES: Final = 30


class JobChange(msgspec.Struct, frozen=True):
    job: str
    kind: ChangeKind
    fields: tuple[FieldChange, ...] = ()


class _Seen(msgspec.Struct, frozen=True):
    """What a batch rests on, all of one revision."""

    watermark: Utc | None
    watermark_revision: int
    jobs: tuple[tuple[Job | None, int], ...]
    decided: tuple[Decided, ...]
    ticks: TicksSeen


_Revise = Callable[[_Seen, int], Job | None]
"""The record to write for the job at an index; the very one that was seen, or None where there is
none: nothing."""


async def plan(etcd: Etcd, keys: Keys, jobs: Sequence[Job], now: Utc) -> list[JobChange]:
    """What ``apply`` would do."""
    changes = []
    for batch in _batches(jobs):
        seen = await _look(etcd, keys, [job.name for job in batch], now)
        for index, job in enumerate(batch):
            changes.append(_change(seen.jobs[index][0], _revised(seen, index, job)))
    return changes


async def apply(
    etcd: Etcd,
    keys: Keys,
    jobs: Sequence[Job],
    now: Utc,
    by: str,
    *,
    timeout_s: float,
    progress: Callable[[int], None] = lambda _: None,
) -> list[JobChange]:
    """Make these jobs what the cluster knows them as. Done again, it changes nothing.

    No job comes before those that it chains to. ``progress`` hears how many are written.
    """
    changes: dict[str, JobChange] = {}
    for batch in _batches(_targets_first(jobs)):
        named = [msgspec.structs.replace(job, changed_by=by) for job in batch]

        def revise(seen: _Seen, index: int, named: list[Job] = named) -> Job:
            return _revised(seen, index, named[index])

        names = [job.name for job in named]
        written = await _write(etcd, keys, names, revise, now, timeout_s)
        changes |= {change.job: change for change in written}
        progress(len(changes))
    return [changes[job.name] for job in jobs]


async def delete(
    etcd: Etcd,
    keys: Keys,
    names: Sequence[str],
    now: Utc,
    by: str,
    *,
    timeout_s: float,
    progress: Callable[[int], None] = lambda _: None,
) -> list[JobChange]:
    """End these jobs: no tick from now on, waiting runs are cancelled, running ones end.

    ``NotFound`` for one that isn't there: then none is deleted, unless others delete it while this
    goes on. ``progress`` hears how many are deleted.
    """
    was_there: set[str] = set()

    def revise_in(batch: Sequence[str]) -> _Revise:
        def revise(seen: _Seen, index: int) -> Job | None:
            name, old = batch[index], seen.jobs[index][0]
            if old is None or old.current.state is JobState.DELETED:
                if name in was_there:
                    return old  # Our own work, whose answer was lost.
                raise _no_such_job(name)
            was_there.add(name)
            decided = seen.decided[index]
            return timeline.delete(old, decided.begin, seen.watermark, decided.open_from, by)

        return revise

    names = list(dict.fromkeys(names))
    kvs, _ = await read(etcd, [keys.of(Kind.JOB, name) for name in names])
    jobs: list[Job] = []
    for name, kv in zip(names, kvs, strict=True):
        job = found(Job, kv)
        if job is None or job.current.state is JobState.DELETED:
            raise _no_such_job(name)
        jobs.append(job)
    changes: list[JobChange] = []
    for batch in _batches(jobs):
        in_it = [job.name for job in batch]
        changes += await _write(etcd, keys, in_it, revise_in(in_it), now, timeout_s)
        progress(len(changes))
    return changes


async def prune(
    etcd: Etcd, keys: Keys, jobs: Sequence[Job], now: Utc, by: str, *, timeout_s: float
) -> list[JobChange]:
    """Delete these jobs as they were looked at. ``Refused`` where one has been changed since: then
    it, and those of its batch and of later ones, stay."""
    changes: list[JobChange] = []

    def revise_in(batch: Sequence[Job]) -> _Revise:
        def revise(seen: _Seen, index: int) -> Job | None:
            old = seen.jobs[index][0]
            if old is None or old.current.state is JobState.DELETED:
                return old
            if old != batch[index]:
                gone = sum(change.kind is ChangeKind.DELETE for change in changes)
                so_far = f"; {gone} jobs are removed already" if gone else ""
                raise Refused(
                    f"job {old.name} was changed by {old.changed_by or 'others'} while this went "
                    f"on, so it stays, and what else was to be removed{so_far}; look again with "
                    "--dry-run"
                )
            decided = seen.decided[index]
            return timeline.delete(old, decided.begin, seen.watermark, decided.open_from, by)

        return revise

    for batch in _batches(jobs):
        names = [job.name for job in batch]
        changes += await _write(etcd, keys, names, revise_in(batch), now, timeout_s)
    return changes


async def _write(
    etcd: Etcd, keys: Keys, names: Sequence[str], revise: _Revise, now: Utc, timeout_s: float
) -> list[JobChange]:
    told: list[JobChange] = []
    for _ in range(_TRIES):
        seen = await _look(etcd, keys, names, now)
        revised = [revise(seen, index) for index in range(len(names))]
        changes = [
            _change(old, new) if new is not None else JobChange(name, ChangeKind.UNCHANGED)
            for name, (old, _), new in zip(names, seen.jobs, revised, strict=True)
        ]
        # A lost answer makes the next look find our own work; what it was is in an earlier plan.
        # What others did in between, and this undoes, is only in a later one.
        told = [
            later if earlier.kind is ChangeKind.UNCHANGED else earlier
            for earlier, later in zip(told or changes, changes, strict=True)
        ]
        pairs = zip(seen.jobs, revised, strict=True)
        writes = [
            (new, revision) for (old, revision), new in pairs if new is not None and new is not old
        ]
        if not writes:
            return told
        calendars = {name for job, _ in writes for name in job.current.calendars}
        await check_there(etcd, keys, Kind.CALENDAR, sorted(calendars), _deleted_meanwhile)
        txn = write_jobs(keys, writes, seen.watermark_revision, seen.ticks, calendars)
        if await committed(etcd, txn, timeout_s=timeout_s):
            return told
    raise Refused(
        f"{len(names)} jobs from {names[0]} on were changed by others while being written, "
        f"{_TRIES} times in a row; nothing of them was, try again"
    )


def _deleted_meanwhile(calendar: str) -> Refused:
    return Refused(f"calendar {calendar}: others have deleted it just now; apply it, too")


async def _look(etcd: Etcd, keys: Keys, names: Sequence[str], now: Utc) -> _Seen:
    wanted = [keys.watermark, *(keys.of(Kind.JOB, name) for name in names)]
    (at_watermark, *at_jobs), revision = await read(etcd, wanted)
    decided, ticks = await decided_of(etcd, keys, names, now, revision)
    watermark = found(Watermark, at_watermark)
    return _Seen(
        watermark=watermark.through if watermark is not None else None,
        watermark_revision=mod_of(at_watermark),
        jobs=tuple((found(Job, kv), mod_of(kv)) for kv in at_jobs),
        decided=tuple(decided),
        ticks=ticks,
    )


def _revised(seen: _Seen, index: int, new: Job) -> Job:
    (old, revision), decided = seen.jobs[index], seen.decided[index]
    revised = timeline.revise(old, new, decided.begin, seen.watermark, decided.open_from, revision)
    current, had = revised.current, old.current.patterns if old is not None else ()
    for pattern in current.patterns:
        # As files were read it was still to come: whoever was asked, or etcd, took their time, or
        # the schedulers' clocks are ahead.
        if isinstance(pattern, At) and pattern.time < current.since and pattern not in had:
            raise Refused(
                f"job {new.name}: at {pattern.time[:19]}Z has passed meanwhile (what is applied "
                f"now holds from {current.since} on); give a later time, or take the pattern out"
            )
    return revised


def _change(old: Job | None, new: Job) -> JobChange:
    if new is old:
        return JobChange(new.name, ChangeKind.UNCHANGED)
    if new.current.state is JobState.DELETED:
        return JobChange(new.name, ChangeKind.DELETE)
    if old is None or old.current.state is JobState.DELETED:
        return JobChange(new.name, ChangeKind.CREATE)
    before, after = fields_of(old), fields_of(new)
    return JobChange(
        new.name,
        ChangeKind.UPDATE,
        tuple(
            FieldChange(field, before.get(field), after.get(field))
            for field in {**before, **after}
            if before.get(field) != after.get(field)
        ),
    )


def _no_such_job(name: str) -> NotFound:
    return NotFound(f"job {name}: there is none; see etcsched jobs list")


def _targets_first(jobs: Sequence[Job]) -> list[Job]:
    """Chains have no cycles: no files with one are taken."""
    by_name = {job.name: job for job in jobs}
    targets = {job.name: [link.to for link in job.chain if link.to in by_name] for job in jobs}
    return [by_name[name] for name in TopologicalSorter(targets).static_order()]


def _batches(jobs: Sequence[Job]) -> list[list[Job]]:
    """Each fits into a transaction."""
    batches: list[list[Job]] = []
    calendars: set[str] = set()
    size_bytes = 0
    for job in jobs:
        own_bytes = len(encode(job))
        calendars |= {*job.current.calendars}
        size_bytes += own_bytes
        compares = 1 + 5 * (len(batches[-1]) + 1 if batches else 1) + len(calendars)
        if (
            not batches
            or len(batches[-1]) == _BATCH
            or compares > _COMPARES
            or size_bytes > _BATCH_BYTES
        ):
            batches.append([])
            calendars, size_bytes = {*job.current.calendars}, own_bytes
        batches[-1].append(job)
    return batches
