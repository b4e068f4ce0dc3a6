"""Calendars: written as files say, and as people see them, with the jobs that use them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from etcsched.core import timeline
from etcsched.core.errors import CalendarInUse, NotFound, Refused
from etcsched.core.records import Calendar, Gap, Job, Kind, Watermark
from etcsched.core.states import JobState
from etcsched.core.text import some
from etcsched.core.times import Utc
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.transactions import delete_calendar as delete_txn
from etcsched.keyspace.transactions import write_calendar
from etcsched.operator.changes import ChangeKind, FieldChange
from etcsched.operator.decided import decided_of_all
from etcsched.operator.store import committed, found, mod_of, read, read_all
from etcsched.ports import Etcd

__all__ = [
    "CalendarChange",
    "CalendarView",
    "apply_calendars",
    "delete_calendar",
    "list_calendars",
    "no_such_calendar",
    "plan_calendars",
    "read_calendar",
    "read_calendars",
]

_TRIES: Final = 100
"""Many where outages are just being accounted for: each account is looked at anew."""


class CalendarChange(msgspec.Struct, frozen=True):
    calendar: str
    kind: ChangeKind
    fields: tuple[FieldChange, ...] = ()

    @property
    def what(self) -> str:
        return f"calendars: {self.calendar}"


class CalendarView(msgspec.Struct, frozen=True):
    """As it is now; ``jobs`` use it."""

    name: str
    exclude: tuple[str, ...]
    include: tuple[str, ...]
    since: Utc
    jobs: tuple[str, ...]
    changed_by: str = ""


async def read_calendars(
    etcd: Etcd, keys: Keys, names: Iterable[str] | None = None
) -> dict[str, Calendar]:
    """Those that are there, by name; None: all."""
    if names is None:
        calendars = await read_all(etcd, keys.all_of(Kind.CALENDAR), Calendar)
    else:
        kvs, _ = await read(etcd, [keys.of(Kind.CALENDAR, name) for name in sorted(names)])
        calendars = [each for kv in kvs if (each := found(Calendar, kv)) is not None]
    return {calendar.name: calendar for calendar in calendars}


async def plan_calendars(
    etcd: Etcd, keys: Keys, calendars: Sequence[Calendar]
) -> list[CalendarChange]:
    """What ``apply_calendars`` would do."""
    there = await read_calendars(etcd, keys, [calendar.name for calendar in calendars])
    return [_change(there.get(calendar.name), calendar) for calendar in calendars]


async def apply_calendars(
    etcd: Etcd, keys: Keys, calendars: Sequence[Calendar], now: Utc, by: str, *, timeout_s: float
) -> list[CalendarChange]:
    """From now on they say what these say; done again, it changes nothing."""
    return [await _apply(etcd, keys, calendar, now, by, timeout_s) for calendar in calendars]


async def delete_calendar(
    etcd: Etcd, keys: Keys, name: str, *, timeout_s: float, expected: Calendar | None = None
) -> None:
    """``NotFound`` where there is none, ``CalendarInUse`` where jobs use it, or did so just now;
    ``Refused`` where it isn't as ``expected`` any more."""
    is_sent = False
    for _ in range(_TRIES):
        wanted = [keys.of(Kind.CALENDAR, name), keys.of(Kind.EDITED), keys.watermark]
        (kv, edited, at_watermark), _revision = await read(etcd, wanted)
        if kv is None:
            if is_sent:
                return
            raise no_such_calendar(name)
        if expected is not None and found(Calendar, kv) != expected:
            raise Refused(f"calendar {name} was changed by others while this went on, so it stays")
        watermark = found(Watermark, at_watermark)
        users = await _users(etcd, keys, name, watermark.through if watermark else None)
        if users:
            raise CalendarInUse(
                f"calendar {name}: used by {some(users)}; take it out of their "
                "files first (ticks just past are decided by what was in force then, so it may "
                "take a minute until it counts as unused)"
            )
        is_sent = True
        seen = mod_of(edited)
        txn = delete_txn(keys, name, kv.mod_revision, seen)
        if await committed(etcd, txn, timeout_s=timeout_s):
            return
    raise _raced(name)


async def _users(etcd: Etcd, keys: Keys, name: str, watermark: Utc | None) -> list[str]:
    """Jobs of which any tick that isn't decided goes by it."""
    open_from = {
        gap.job: gap.decided_through for gap in await read_all(etcd, keys.all_of(Kind.GAP), Gap)
    }
    return [
        job.name
        for job in await read_all(etcd, keys.all_of(Kind.JOB), Job)
        if name in timeline.calendars_in_use(job, watermark, open_from.get(job.name))
    ]


async def list_calendars(etcd: Etcd, keys: Keys) -> list[CalendarView]:
    calendars = await read_calendars(etcd, keys)
    jobs = await _jobs(etcd, keys)
    return [_view(calendar, jobs) for calendar in calendars.values()]


async def read_calendar(etcd: Etcd, keys: Keys, name: str) -> CalendarView:
    there = await read_calendars(etcd, keys, [name])
    if name not in there:
        raise no_such_calendar(name)
    return _view(there[name], await _jobs(etcd, keys))


async def _apply(
    etcd: Etcd, keys: Keys, calendar: Calendar, now: Utc, by: str, timeout_s: float
) -> CalendarChange:
    first: CalendarChange | None = None
    named = msgspec.structs.replace(calendar, changed_by=by)
    for _ in range(_TRIES):
        key = keys.of(Kind.CALENDAR, calendar.name)
        (kv, at_watermark), revision = await read(etcd, [key, keys.watermark])
        decided = await decided_of_all(etcd, keys, now, revision)
        old, watermark = found(Calendar, kv), found(Watermark, at_watermark)
        through = watermark.through if watermark is not None else None
        new = timeline.revise_calendar(old, named, decided.begin, through, decided.open_from)
        # A lost answer makes the next look find our own work; what it was is in the first plan.
        first = first or _change(old, calendar)
        if new is old:
            return first
        txn = write_calendar(
            keys,
            new,
            mod_of(kv),
            mod_of(at_watermark),
            revision,
        )
        if await committed(etcd, txn, timeout_s=timeout_s):
            return first
    raise _raced(calendar.name)


def _change(old: Calendar | None, new: Calendar) -> CalendarChange:
    if old is None:
        return CalendarChange(new.name, ChangeKind.CREATE)
    before, after = _fields(old), _fields(new)
    changed = tuple(
        FieldChange(field, before[field], after[field])
        for field in after
        if before[field] != after[field]
    )
    is_same = not changed and old.from_file == new.from_file
    return CalendarChange(new.name, ChangeKind.UNCHANGED if is_same else ChangeKind.UPDATE, changed)


def _fields(calendar: Calendar) -> dict[str, Any]:
    current = calendar.current
    return {"exclude": list(current.exclude), "include": list(current.include)}


async def _jobs(etcd: Etcd, keys: Keys) -> list[Job]:
    jobs = await read_all(etcd, keys.all_of(Kind.JOB), Job)
    return [
        job for job in jobs if job.current.state is not JobState.DELETED or len(job.versions) > 1
    ]


def _view(calendar: Calendar, jobs: Sequence[Job]) -> CalendarView:
    current = calendar.current
    users = tuple(job.name for job in jobs if calendar.name in job.current.calendars)
    return CalendarView(
        calendar.name, current.exclude, current.include, current.since, users, calendar.changed_by
    )


def no_such_calendar(name: str) -> NotFound:
    return NotFound(f"calendar {name}: there is none; see etcsched calendars list")


def _raced(name: str) -> Refused:
    return Refused(f"calendar {name} was changed by others {_TRIES} times in a row; try again")
