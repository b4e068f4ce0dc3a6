"""The days of an iCalendar file's events (RFC 5545), recurring ones up to a horizon."""

from __future__ import annotations

import re
from copy import copy
from datetime import MAXYEAR, UTC, date, datetime, time, timedelta
from typing import Any, Final

import msgspec
import recurring_ical_events
from icalendar import Calendar as Ics

from etcsched.core.errors import InvalidJobFile

__all__ = ["MAX_ICS_BYTES", "EventDays", "days_of_events"]

MAX_ICS_BYTES: Final = 16 << 20
_MAX_DAYS: Final = 10_000
_WITHIN_A_DAY: Final = frozenset({"SECONDLY", "MINUTELY", "HOURLY"})
_RECURS: Final = frozenset({"RRULE", "RDATE", "RECURRENCE-ID"})
_BACK: Final = timedelta(days=366)
_MAX_LENGTH: Final = timedelta(days=36_525)
"""Of one event."""


class EventDays(msgspec.Struct, frozen=True):
    """``days``: (``2026-12-25`` or ``2026-12-24/2026-12-26``, the event's name), in order; of the
    time that was looked through."""

    days: tuple[tuple[str, str], ...]
    since: date
    through: date


def days_of_events(text: str, now_ms: int, years: int) -> EventDays:
    """Every day that an event touches, each stretch once, under its first event's name.
    ``InvalidJobFile`` for what is no iCalendar."""
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    since, through = today - _BACK, today + timedelta(days=round(365.25 * years))
    try:
        calendar: Any = Ics.from_ical(text)
        for event in calendar.walk("VEVENT"):
            _check(event)
            _complete_ends(event)
        singles, others = _parted(calendar)
        events = list(recurring_ical_events.of(others).between(since, through))
        if singles.subcomponents:
            alone = recurring_ical_events.of(singles).all()
            events += [event for event in alone if _days_of(event)[1] >= since]
    except (ArithmeticError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise InvalidJobFile([f"no iCalendar file that can be read: {why}"]) from None
    found: dict[tuple[date, date], str] = {}
    for event in events:
        if str(event.get("STATUS", "")).upper() != "CANCELLED":
            found.setdefault(_days_of(event), _name_of(event))
    if len(found) > _MAX_DAYS:
        raise InvalidJobFile([f"{len(found)} days; up to {_MAX_DAYS} can be imported"])
    days = []
    for (first, last), name in sorted(found.items()):
        day = first.isoformat() if first == last else f"{first}/{last}"
        days.append((day, name))
    return EventDays(tuple(days), since, through)


def _parted(calendar: Any) -> tuple[Any, Any]:
    """Events that stand for themselves, whatever their time, each with a UID of its own (files give
    one to several); and what recurs, with its exceptions."""
    recurring = set()
    for number, event in enumerate(calendar.walk("VEVENT")):
        if event.keys() & _RECURS:
            if "UID" not in event:
                event["UID"] = f"none-{number}"
            recurring.add(str(event["UID"]))
    newest: dict[str, int] = {}
    for event in calendar.walk("VEVENT"):
        uid, sequence = str(event.get("UID")), int(event.get("SEQUENCE", 0))
        newest[uid] = max(sequence, newest.get(uid, 0))
    singles, others = copy(calendar), copy(calendar)
    singles.subcomponents, others.subcomponents = [], []
    for number, part in enumerate(calendar.subcomponents):
        uid = str(part.get("UID"))
        if part.name == "VTIMEZONE":
            singles.subcomponents.append(part)
            others.subcomponents.append(part)
        elif part.name != "VEVENT" or uid in recurring:
            others.subcomponents.append(part)
        elif "UID" not in part or int(part.get("SEQUENCE", 0)) == newest[uid]:
            part["UID"] = str(number)
            singles.subcomponents.append(part)
    return singles, others


def _check(event: Any) -> None:
    """What would be taken for something else, or would take hours."""
    name = _name_of(event) or "an event"
    if "DTSTART" not in event:
        raise ValueError(f"{name} has no DTSTART")
    length = _least_length(event)
    if length < timedelta(0):
        raise ValueError(f"{name} ends before it begins")
    if length > _MAX_LENGTH:
        raise ValueError(f"{name} lasts more than {_MAX_LENGTH.days} days")
    if "EXRULE" in event:
        raise ValueError(f"{name} has an EXRULE, which RFC 5545 has no more; give EXDATE instead")
    for rule in _rules_of(event):
        # This says no more of days than what recurs daily.
        if {str(each).upper() for each in rule.get("FREQ", ())} & _WITHIN_A_DAY:
            raise ValueError(f"{name} recurs more than once a day")
        if any(int(each) < 1 for each in rule.get("INTERVAL", ())):
            raise ValueError(f"{name} recurs with an INTERVAL below 1")


def _rules_of(event: Any) -> list[Any]:
    rules = event.get("RRULE", [])
    return rules if isinstance(rules, list) else [rules]


def _complete_ends(event: Any) -> None:
    """A day as the UNTIL of what recurs at a time, and a time without a zone in one of what has a
    zone, break the RFC (3.3.10) and are found all the same; their last day is meant, and their
    event's zone."""
    start = event["DTSTART"].dt
    if not isinstance(start, datetime):
        return
    for rule in _rules_of(event):
        if "UNTIL" in rule:
            rule["UNTIL"] = [_instant(until, start) for until in rule["UNTIL"]]


def _instant(until: date | datetime, start: datetime) -> datetime:
    if not isinstance(until, datetime):
        until = datetime.combine(until, time.max)
    if until.tzinfo is None and start.tzinfo is not None:
        try:
            return until.replace(tzinfo=start.tzinfo).astimezone(UTC)
        except OverflowError:
            if until.year < MAXYEAR:
                raise
            # What stands for no end.
            return datetime.max.replace(tzinfo=UTC)
    return until


def _least_length(event: Any) -> timedelta:
    """What its end, or its duration, says; a day is counted from its beginning."""
    length = timedelta(0)
    if "DTEND" in event:
        start, end = event["DTSTART"].dt, event["DTEND"].dt
        both_are_times = isinstance(start, datetime) and isinstance(end, datetime)
        if both_are_times and (start.tzinfo is None) == (end.tzinfo is None):
            length = end - start
        else:
            length = date(*end.timetuple()[:3]) - date(*start.timetuple()[:3])
    elif "DURATION" in event:
        length = event["DURATION"].dt
    return length


def _days_of(event: Any) -> tuple[date, date]:
    """First and last day. An event's end isn't part of it, be it a day or a time of one."""
    start, end = event["DTSTART"].dt, event["DTEND"].dt
    if isinstance(start, datetime):
        last = max(start, end - timedelta(microseconds=1))
        return start.date(), last.date()
    return start, max(start, end - timedelta(days=1))


def _name_of(event: Any) -> str:
    """In one line that can stand behind a ``#``."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", str(event.get("SUMMARY", ""))).strip()[:80]
