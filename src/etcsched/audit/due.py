"""When a schedule is due: by a look at every minute, an hour at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from etcsched.audit.cron import Meaning, read_cron
from etcsched.core.schedule.patterns import At, Cron, Every
from etcsched.core.times import ms_of

__all__ = ["due_within", "is_due"]

_HOUR_S = 3600
_MINUTE = timedelta(minutes=1)
_SHOWN_BEFORE_S = 48 * _HOUR_S
"""No clock was ever set back by more: what was shown longer ago can't be shown again."""

Patterns = tuple[Any, ...]


def due_within(patterns: Patterns, timezone: str, after_ms: int, through_ms: int) -> Iterator[int]:
    """The due times in (after, through], ascending, each once. ``ValueError`` for a pattern or a
    zone that is none. It costs some 30 µs for an hour, whatever is due in it."""
    hour_s = (after_ms // 1000 + 1) // _HOUR_S * _HOUR_S
    while hour_s * 1000 <= through_ms:
        for due_s in _due_in_hour(patterns, timezone, hour_s):
            if after_ms < due_s * 1000 <= through_ms:
                yield due_s * 1000
        hour_s += _HOUR_S


def is_due(patterns: Patterns, timezone: str, at_ms: int) -> bool:
    return next(due_within(patterns, timezone, at_ms - 1, at_ms), None) is not None


@lru_cache(maxsize=4096)
def _due_in_hour(patterns: Patterns, timezone: str, hour_s: int) -> tuple[int, ...]:
    found: set[int] = set()
    for pattern in patterns:
        match pattern:
            case Cron(expression=text):
                found |= _cron_in_hour(read_cron(text), timezone, hour_s)
            case Every(interval_s=interval_s, anchor=anchor):
                anchor_s = ms_of(anchor) // 1000
                first = max(1, -((anchor_s - hour_s) // interval_s))
                found.update(range(anchor_s + first * interval_s, hour_s + _HOUR_S, interval_s))
            case At(time=time):
                if hour_s <= ms_of(time) // 1000 < hour_s + _HOUR_S:
                    found.add(ms_of(time) // 1000)
            case _:
                raise ValueError(f"{pattern!r} is no pattern that the auditor knows")
    return tuple(sorted(found))


def _cron_in_hour(meaning: Meaning, timezone: str, hour_s: int) -> set[int]:
    zone = ZoneInfo(timezone)
    minutes = range(hour_s, hour_s + _HOUR_S, 60)
    found: set[int] = set()
    if _is_steady(timezone, hour_s):
        wall = _wall(zone, hour_s)
        for at_s in minutes:
            if _matches(meaning, wall):
                found.update(at_s + second for second in meaning.seconds)
            wall += _MINUTE
        return found
    if meaning.elapsed:
        for at_s in minutes:
            if _matches(meaning, _wall(zone, at_s)):
                found.update(at_s + second for second in meaning.seconds)
        return found
    shown = max(_wall(zone, at_s) for at_s in range(hour_s - _SHOWN_BEFORE_S, hour_s, 60))
    for at_s in minutes:
        wall = _wall(zone, at_s)
        skipped = shown + _MINUTE
        while skipped < wall:
            if _matches(meaning, skipped):
                found.add(at_s)
            skipped += _MINUTE
        if wall > shown:
            shown = wall
            if _matches(meaning, wall):
                found.update(at_s + second for second in meaning.seconds)
    return found


@lru_cache(maxsize=4096)
def _is_steady(timezone: str, hour_s: int) -> bool:
    """Whether the zone's clock wasn't changed in this hour, nor so shortly before that something
    could be shown twice."""
    zone = ZoneInfo(timezone)
    offsets = {
        datetime.fromtimestamp(at_s, zone).utcoffset()
        for at_s in range(hour_s - _SHOWN_BEFORE_S, hour_s + _HOUR_S + 1, _HOUR_S // 4)
    }
    return len(offsets) == 1


def _wall(zone: ZoneInfo, at_s: int) -> datetime:
    return datetime.fromtimestamp(at_s, UTC).astimezone(zone).replace(tzinfo=None)


def _matches(meaning: Meaning, wall: datetime) -> bool:
    return wall.minute in meaning.minutes and wall.hour in meaning.hours and meaning.on(wall.date())
