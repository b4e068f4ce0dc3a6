"""Conflict groups: written as files say, and as people see them: who holds one, who waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from etcsched.core.errors import NotFound, Refused
from etcsched.core.leader.conflicts import HOLDING, holds_groups
from etcsched.core.records import Assignment, ConflictGroup, Job, Kind, Run
from etcsched.core.states import JobState, RunState
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, Range
from etcsched.keyspace.transactions import MAX_BYTES, write_group
from etcsched.keyspace.transactions import delete_group as delete_txn
from etcsched.operator.changes import ChangeKind, FieldChange
from etcsched.operator.store import committed, found, mod_of, read, read_all, read_ranges
from etcsched.ports import Etcd

__all__ = [
    "GroupChange",
    "GroupView",
    "Member",
    "apply_groups",
    "check_groups",
    "delete_group",
    "list_groups",
    "no_such_group",
    "plan_groups",
    "read_group",
]

_TRIES: Final = 30
_BLOCKED: Final = (RunState.READY, RunState.CONFLICTED)


class GroupChange(msgspec.Struct, frozen=True):
    group: str
    kind: ChangeKind
    fields: tuple[FieldChange, ...] = ()

    @property
    def what(self) -> str:
        return f"conflicts: {self.group}"


class Member(msgspec.Struct, frozen=True):
    """``running`` hold the group, among them held runs whose process may run on; ``waiting`` are
    blocked, or due and not assigned yet."""

    job: str
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    is_known: bool


class GroupView(msgspec.Struct, frozen=True):
    """``members``: highest priority first."""

    name: str
    members: tuple[Member, ...]
    changed_by: str = ""


async def plan_groups(etcd: Etcd, keys: Keys, groups: Sequence[ConflictGroup]) -> list[GroupChange]:
    """What ``apply_groups`` would do; refused as it would be."""
    await check_groups(etcd, keys, groups)
    kvs, _ = await read(etcd, [keys.of(Kind.CONFLICT, group.group) for group in groups])
    return [_change(found(ConflictGroup, kv), group) for kv, group in zip(kvs, groups, strict=True)]


async def check_groups(etcd: Etcd, keys: Keys, groups: Sequence[ConflictGroup]) -> None:
    """``Refused`` for one that can't be written; for whoever has other things to write first."""
    for group in groups:
        wanted = [keys.of(Kind.CONFLICT, group.group)]
        wanted += [keys.of(Kind.JOB, job) for job in group.jobs]
        (at_group, *at_jobs), _ = await read(etcd, wanted)
        if _gains(found(ConflictGroup, at_group), group):
            _check_size(group, at_jobs)


async def apply_groups(
    etcd: Etcd, keys: Keys, groups: Sequence[ConflictGroup], by: str, *, timeout_s: float
) -> list[GroupChange]:
    """Each group is written whole or not at all; done again, it changes nothing.

    ``Refused`` where jobs of one are together too large for a request.
    """
    return [await _apply(etcd, keys, group, by, timeout_s) for group in groups]


async def delete_group(
    etcd: Etcd, keys: Keys, name: str, *, timeout_s: float, expected: ConflictGroup | None = None
) -> None:
    """``NotFound`` where there is none; ``Refused`` where it isn't as ``expected`` any more."""
    key = keys.of(Kind.CONFLICT, name)
    is_sent = False
    for _ in range(_TRIES):
        (kv,), _revision = await read(etcd, [key])
        if kv is None:
            if is_sent:
                return
            raise no_such_group(name)
        if expected is not None and found(ConflictGroup, kv) != expected:
            raise Refused(
                f"conflict group {name} was changed by others while this went on, so it stays"
            )
        is_sent = True
        txn = delete_txn(keys, name, kv.mod_revision)
        if await committed(etcd, txn, timeout_s=timeout_s):
            return
    raise _raced(name)


async def list_groups(etcd: Etcd, keys: Keys) -> list[GroupView]:
    groups = await read_all(etcd, keys.all_of(Kind.CONFLICT), ConflictGroup)
    return await _views(etcd, keys, groups)


async def read_group(etcd: Etcd, keys: Keys, name: str) -> GroupView:
    (kv,), _ = await read(etcd, [keys.of(Kind.CONFLICT, name)])
    group = found(ConflictGroup, kv)
    if group is None:
        raise no_such_group(name)
    return (await _views(etcd, keys, [group]))[0]


async def _apply(
    etcd: Etcd, keys: Keys, group: ConflictGroup, by: str, timeout_s: float
) -> GroupChange:
    first: GroupChange | None = None
    for _ in range(_TRIES):
        wanted = [keys.of(Kind.CONFLICT, group.group), keys.of(Kind.EDITED)]
        wanted += [keys.of(Kind.JOB, job) for job in group.jobs]
        (at_group, at_edited, *at_jobs), _revision = await read(etcd, wanted)
        before = found(ConflictGroup, at_group)
        # A lost answer makes the next look find our own work; what it was is in the first plan.
        first = first or _change(before, group)
        if _change(before, group).kind is ChangeKind.UNCHANGED:
            return first
        members: list[tuple[str, Job | None, int]] = []
        if _gains(before, group):
            _check_size(group, at_jobs)
            members = [
                (job, found(Job, kv), mod_of(kv))
                for job, kv in zip(group.jobs, at_jobs, strict=True)
            ]
        named = msgspec.structs.replace(group, changed_by=by)
        txn = write_group(keys, named, mod_of(at_group), members, mod_of(at_edited))
        if await committed(etcd, txn, timeout_s=timeout_s):
            return first
    raise _raced(group.group)


def _gains(before: ConflictGroup | None, after: ConflictGroup) -> bool:
    """A job: then all of its jobs are written with it."""
    return before is None or not set(after.jobs) <= set(before.jobs)


def _check_size(group: ConflictGroup, at_jobs: Sequence[KeyValue | None]) -> None:
    size_bytes = sum(len(kv.value) for kv in at_jobs if kv is not None)
    if size_bytes > MAX_BYTES:
        raise Refused(
            f"conflict group {group.group}: its jobs are {size_bytes >> 10} KiB together, and are "
            f"written at once, which takes {MAX_BYTES >> 10}; leave some out, or make them smaller"
        )


def _change(before: ConflictGroup | None, after: ConflictGroup) -> GroupChange:
    if before is None:
        return GroupChange(after.group, ChangeKind.CREATE)
    if before.jobs == after.jobs and before.from_file == after.from_file:
        return GroupChange(after.group, ChangeKind.UNCHANGED)
    changed = FieldChange("jobs", list(before.jobs), list(after.jobs))
    return GroupChange(after.group, ChangeKind.UPDATE, (changed,))


async def _views(etcd: Etcd, keys: Keys, groups: Sequence[ConflictGroup]) -> list[GroupView]:
    jobs = sorted({job for group in groups for job in group.jobs})
    ranges = [Range(*keys.all_of(Kind.RUN, job)) for job in jobs]
    results, revision = await read_ranges(etcd, ranges)
    there, _ = await read(etcd, [keys.of(Kind.JOB, job) for job in jobs])
    runs = {
        job: [run for kv in result.kvs if (run := found(Run, kv)) is not None]
        for job, result in zip(jobs, results, strict=True)
    }
    holders = await _holders(etcd, keys, [run for each in runs.values() for run in each], revision)
    members: dict[str, Member] = {}
    for job, at_job in zip(jobs, there, strict=True):
        members[job] = Member(
            job,
            tuple(run.id for run in runs[job] if (job, run.id) in holders),
            tuple(run.id for run in runs[job] if run.state in _BLOCKED),
            _is_there(at_job),
        )
    return [
        GroupView(group.group, tuple(members[job] for job in group.jobs), group.changed_by)
        for group in groups
    ]


def _is_there(kv: KeyValue | None) -> bool:
    job = found(Job, kv)
    return kv is not None and (job is None or job.current.state is not JobState.DELETED)


async def _holders(
    etcd: Etcd, keys: Keys, runs: Sequence[Run], revision: int
) -> set[tuple[str, str]]:
    """As the leader sees it at this revision."""
    may_hold = [run for run in runs if run.state in HOLDING]
    places = [keys.of(Kind.ASSIGNMENT, run.agent, run.job, run.id) for run in may_hold]
    kvs, _ = await read(etcd, places, revision=revision)
    return {
        (run.job, run.id)
        for run, kv in zip(may_hold, kvs, strict=True)
        if holds_groups(run, found(Assignment, kv))
    }


def no_such_group(name: str) -> NotFound:
    return NotFound(f"conflict group {name}: there is none; see etcsched conflicts list")


def _raced(name: str) -> Refused:
    return Refused(
        f"conflict group {name}, or a job of it, was changed by others {_TRIES} times in a row; "
        "try again"
    )
