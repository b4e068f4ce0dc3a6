"""The top-level map ``calendars``, and the jobs' uses of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from etcsched.core.calendars import parse_days
from etcsched.core.records import Calendar, CalendarVersion
from etcsched.core.times import utc_of
from etcsched.jobfile import fields
from etcsched.jobfile.nodes import FieldError, Problems, Value, unknown_text
from etcsched.jobfile.schedules import beside_pattern

__all__ = ["MAX_CALENDAR_BYTES", "check_uses", "read_calendars", "read_names"]

MAX_CALENDAR_BYTES: Final = 64 << 10
MAX_CALENDARS: Final = 8
"""Of one job: each is a compare more in its ticks' transactions."""

_EXAMPLE: Final = "{holidays: {exclude: [2026-12-25]}}"
_DAYS: Final = "[2026-12-25, 2026-12-30/2027-01-01]"


def read_calendars(
    problems: Problems, value: Value, places: dict[str, str], now_ms: int
) -> list[Calendar]:
    """``places`` knows where earlier maps gave theirs."""
    found = []
    entries = problems.attempt(lambda v: v.entries(_EXAMPLE), value) or {}
    for name, entry in entries.items():
        if name in places:
            entry.refuse(f"is given twice; first in {places[name]}")
            continue
        places[name] = entry.place
        read = problems.attempt(
            lambda v, name=name: _calendar(problems, v, name, now_ms),  # type: ignore[misc]
            entry,
        )
        if read is not None:
            found.append(read)
    return found


def read_names(
    problems: Problems, own: dict[str, Value], defaults: dict[str, Value]
) -> list[Value]:
    """The names of calendars in a job's ``calendars`` and in its ``schedule``."""
    schedule = own.get("schedule", defaults.get("schedule"))
    given = [own.get("calendars", defaults.get("calendars"))]
    given.append(beside_pattern(schedule, "calendars"))
    names: list[Value] = []
    for value in given:
        if value is not None:
            names += problems.attempt(_names, value) or []
    if len(names) > MAX_CALENDARS:
        names[-1].refuse(f"{len(names)} calendars; a job may use {MAX_CALENDARS}")
    return names


def check_uses(
    names: Iterable[Value],
    written: Collection[str],
    others: Collection[str] = (),
    *,
    is_asked: bool = False,
) -> None:
    """``others`` are in the cluster; not ``is_asked``: nobody has looked there."""
    known = {*written, *others}
    place = "these files and the cluster" if is_asked else "these files"
    for item in names:
        if item.text() not in known:
            if known:
                item.refuse(unknown_text("calendar", item.text(), sorted(known)))
            else:
                item.refuse(
                    f"unknown calendar {item.text()!r}; {place} have none, write it below the "
                    "top-level map calendars"
                )


def _names(value: Value) -> list[Value]:
    items = value.items("[holidays]") if value.is_list() else [value]
    return [item for item in items if item.text()]


def _calendar(problems: Problems, value: Value, name: str, now_ms: int) -> Calendar:
    flaw = fields.flaw_of_name(name, "calendar")
    if flaw is not None:
        raise FieldError(value, flaw)
    entries = value.entries("{exclude: [2026-12-25]}")
    fields.check_known(entries, ["exclude", "include"])
    days = {
        field: problems.attempt(_days, entry)
        for field, entry in entries.items()
        if field in ("exclude", "include")
    }
    if days.get("include") == ():
        entries["include"].refuse(f"is empty, so it confines nothing; write e.g. {_DAYS}")
    version = CalendarVersion(
        since=utc_of(now_ms), exclude=days.get("exclude") or (), include=days.get("include") or ()
    )
    calendar = Calendar(name=name, versions=(version,), from_file=True)
    size = len(msgspec.json.encode(calendar))
    if size > MAX_CALENDAR_BYTES:
        raise FieldError(value, f"takes {size} bytes; a calendar may take {MAX_CALENDAR_BYTES}")
    return calendar


def _days(value: Value) -> tuple[str, ...]:
    """In order, each once."""
    items = value.items(_DAYS) if value.is_list() else [value]
    found: dict[tuple[int, int], str] = {}
    for item in items:
        try:
            found[parse_days(item.text())] = item.text()
        except FieldError:
            raise
        except ValueError as error:
            raise FieldError(item, str(error)) from None
    return tuple(found[days] for days in sorted(found))
