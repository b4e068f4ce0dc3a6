"""The days of an iCalendar file's events (RFC 5545), recurring ones up to a horizon."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import msgspec
import recurring_ical_events
from icalendar import Calendar as Ics

from etcsched.core.errors import InvalidJobFile

__all__ = ["MAX_ICS_BYTES", "EventDays", "days_of_events"]

MAX_ICS_BYTES: Final = 16 << 20
_MAX_DAYS: Final = 10_000
_WITHIN_A_DAY: Final = frozenset({"SECONDLY", "MINUTELY", "HOURLY"})
_BACK: Final = timedelta(days=366)


class EventDays(msgspec.Struct, frozen=True):
    """``days``: (``2026-12-25`` or ``2026-12-24/2026-12-26``, the event's name), in order."""

    days: tuple[tuple[str, str], ...]
    through: date


def days_of_events(text: str, now_ms: int, years: int) -> EventDays:
    """Every day that an event touches, each stretch once, under its first event's name.
    ``InvalidJobFile`` for what is no iCalendar."""
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    through = today + timedelta(days=round(365.25 * years))
    try:
        calendar: Any = Ics.from_ical(text)
        _refuse_many(calendar)
        events = recurring_ical_events.of(calendar).between(today - _BACK, through)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InvalidJobFile([f"no iCalendar file that can be read: {error}"]) from None
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
    return EventDays(tuple(days), through)


def _refuse_many(calendar: Any) -> None:
    """What recurs within a day says no more of days than what recurs daily, and takes hours."""
    for event in calendar.walk("VEVENT"):
        rules = event.get("RRULE", [])
        for rule in rules if isinstance(rules, list) else [rules]:
            if {str(each).upper() for each in rule.get("FREQ", ())} & _WITHIN_A_DAY:
                raise ValueError(f"{_name_of(event) or 'an event'} recurs more than once a day")


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
