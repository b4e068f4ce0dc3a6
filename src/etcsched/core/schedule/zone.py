"""A time zone as periods of constant offset, so that schedules count in whole numbers.

*Wall* seconds count what the zone's clocks show as if those were UTC: wall = instant + offset.
zoneinfo keeps its transitions to itself, so they are found by asking for offsets; what is found is
kept per process.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

import msgspec

__all__ = ["Period", "check_timezone", "instant_of_wall_s", "period_at"]

_DAY_S: Final = 86_400
# Periods are found a stretch at a time; 400 days, so that a year's schedule meets few.
_STRETCH_S: Final = 400 * _DAY_S
# No zone's clock was ever set back or forward by more than a day, nor is any so far from UTC.
_LARGEST_SHIFT_S: Final = _DAY_S
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Period(msgspec.Struct, frozen=True, gc=False):
    """Instants ``start_s`` <= t < ``end_s``, in which the zone's offset is ``offset_s``.

    ``fresh_wall_s``: no clock has shown this wall time, or any later one, before ``start_s``. It is
    earlier than the wall time at the start where the clocks were set forward (between the two lies
    the gap), later where they were set back (between the two lies what is repeated).
    """

    start_s: int
    end_s: int
    offset_s: int
    fresh_wall_s: int


def period_at(timezone: str, instant_s: int) -> Period:
    """The period, cut off at the ends of its stretch: neighbours can have equal offsets."""
    for period in _periods(timezone, instant_s // _STRETCH_S):
        if instant_s < period.end_s:
            return period
    raise AssertionError("a stretch's periods cover it")


def instant_of_wall_s(timezone: str, wall_s: int) -> int:
    """The first instant at which the zone's clocks show ``wall_s`` or later: the first of two
    where they show it twice, the end of the gap where they skip it."""
    period = period_at(timezone, wall_s - _LARGEST_SHIFT_S)
    while wall_s >= period.end_s + period.offset_s:
        period = period_at(timezone, period.end_s)
    return max(period.start_s, wall_s - period.offset_s)


def check_timezone(timezone: str) -> None:
    """``ValueError`` with near matches for what is no IANA zone."""
    known = _known_timezones()
    if timezone in known:
        return
    by_folded = {name.casefold(): name for name in known}
    folded = timezone.casefold().replace(" ", "_")
    near = [by_folded[name] for name in get_close_matches(folded, by_folded, n=3, cutoff=0.7)]
    near += [name for name in sorted(known) if name.casefold().endswith(f"/{folded}")]
    near = list(dict.fromkeys(near))[:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "write it like Europe/Berlin or UTC"
    raise ValueError(f"timezone {timezone!r} is unknown; {hint}")


@cache
def _known_timezones() -> frozenset[str]:
    """Without those that aren't the same on every host (``localtime``) or count leap seconds."""
    return frozenset(available_timezones() - {"localtime", "posixrules", "Factory"})


@lru_cache(maxsize=8192)
def _periods(timezone: str, stretch: int) -> tuple[Period, ...]:
    zone = ZoneInfo(timezone)
    first_s = stretch * _STRETCH_S
    last_s = first_s + _STRETCH_S
    # What was shown before the stretch matters as far back as clocks were ever set back.
    start_s = first_s - 2 * _LARGEST_SHIFT_S
    fresh_wall_s = start_s + _offset_s(zone, start_s)
    periods = []
    for end_s in (*_transitions(zone, start_s, last_s), last_s):
        offset_s = _offset_s(zone, start_s)
        if end_s > first_s:
            kept_start_s = max(start_s, first_s)
            if kept_start_s > start_s:
                fresh_wall_s = max(fresh_wall_s, kept_start_s + offset_s)
            periods.append(Period(kept_start_s, end_s, offset_s, fresh_wall_s))
        fresh_wall_s = end_s + offset_s  # periods are longer than what a clock is set back by
        start_s = end_s
    return tuple(periods)


def _transitions(zone: ZoneInfo, start_s: int, end_s: int) -> list[int]:
    """The instants in (start, end) from which another offset holds.

    Asks once a day: since 1970, no zone changed its offset twice within less than six days.
    """
    found = []
    before_s = _offset_s(zone, start_s)
    for day_s in range(start_s, end_s, _DAY_S):
        next_s = min(day_s + _DAY_S, end_s - 1)
        after_s = _offset_s(zone, next_s)
        if after_s != before_s:
            low, high = day_s, next_s
            while high - low > 1:
                middle = (low + high) // 2
                if _offset_s(zone, middle) == before_s:
                    low = middle
                else:
                    high = middle
            found.append(high)
            before_s = after_s
    return found


def _offset_s(zone: ZoneInfo, instant_s: int) -> int:
    offset = (_EPOCH + timedelta(seconds=instant_s)).astimezone(zone).utcoffset()
    assert offset is not None, "a ZoneInfo knows its offset at any instant"
    return offset.days * _DAY_S + offset.seconds
