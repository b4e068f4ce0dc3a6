"""Calendars as sets of days: which days a job's ticks may fall on (SEMANTICS, calendars).

A day is a proleptic Gregorian ordinal (``datetime.date.toordinal``), and means the job's own: the
same calendar is another stretch of time in another zone.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from typing import Final

from etcsched.core.records import CalendarVersion
from etcsched.core.schedule.zone import instant_of_wall_s, period_at

__all__ = ["Days", "days_of", "local_day", "parse_days", "start_of_day_ms"]

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DAY_S: Final = 86_400
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()

# Ticks lie in the years 1970 to 9000. Days beyond that, as in 9999-12-31 for "for ever", count as
# the nearest ones outside of it: arithmetic ends with the year 9999.
_FIRST_DAY: Final = _EPOCH_DAY - 1
_LAST_DAY: Final = date(9001, 1, 1).toordinal()

Stretch = tuple[int, int]
"""First and last day, both included."""


def parse_days(text: str) -> Stretch:
    """``2026-12-25``, or ``2026-12-24/2027-01-01`` with both ends; ``ValueError`` for others."""
    first_text, slash, last_text = text.partition("/")
    try:
        first = _day(first_text)
        last = _day(last_text) if slash else first
    except ValueError:
        raise ValueError(
            f"{text!r} is no date; write 2026-12-25, or 2026-12-24/2027-01-01 for a stretch"
        ) from None
    if last < first:
        raise ValueError(f"{text!r} ends before it begins")
    return first, last


def _day(text: str) -> int:
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    return min(max(date.fromisoformat(text).toordinal(), _FIRST_DAY), _LAST_DAY)


class Days:
    """Those within ``include`` (None: all) and outside of ``exclude``: exclusion wins."""

    __slots__ = ("_exclude", "_include")

    def __init__(self, exclude: Iterable[Stretch], include: Iterable[Stretch] | None) -> None:
        self._exclude: Final = _merged(exclude)
        self._include: Final = None if include is None else _merged(include)

    def first_from(self, day: int) -> int | None:
        """The first allowed day that isn't earlier; None: there is none."""
        while True:
            excluded = _stretch_at(self._exclude, day)
            if excluded is not None:
                day = excluded[1] + 1
            if self._include is not None and _stretch_at(self._include, day) is None:
                place = bisect_right(self._include, (day, day))
                if place == len(self._include):
                    return None
                day = self._include[place][0]
            elif excluded is None:
                return day

    def last_until(self, day: int) -> int | None:
        """The last allowed day that isn't later; None: there is none."""
        while True:
            excluded = _stretch_at(self._exclude, day)
            if excluded is not None:
                day = excluded[0] - 1
            if self._include is not None and _stretch_at(self._include, day) is None:
                place = bisect_right(self._include, (day, day))
                if place == 0:
                    return None
                day = self._include[place - 1][1]
            elif excluded is None:
                return day


@lru_cache(maxsize=1024)
def days_of(versions: tuple[CalendarVersion, ...]) -> Days:
    """What several calendars leave together: a day that any excludes is out, and where some say
    what they include, it must be in one of those."""
    include: list[str] | None = None
    for version in versions:
        if version.include:
            include = [*(include or ()), *version.include]
    exclude = [text for version in versions for text in version.exclude]
    return Days(map(parse_days, exclude), None if include is None else map(parse_days, include))


def local_day(timezone: str, at_ms: int) -> int:
    at_s = at_ms // 1000
    return _EPOCH_DAY + (at_s + period_at(timezone, at_s).offset_s) // _DAY_S


def start_of_day_ms(timezone: str, day: int) -> int:
    """The first instant of a day, or of the next where the zone skips that day."""
    return instant_of_wall_s(timezone, (day - _EPOCH_DAY) * _DAY_S) * 1000


def _merged(stretches: Iterable[Stretch]) -> list[Stretch]:
    merged: list[Stretch] = []
    for first, last in sorted(stretches):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _stretch_at(stretches: list[Stretch], day: int) -> Stretch | None:
    place = bisect_right(stretches, (day, 1 << 31)) - 1
    return stretches[place] if place >= 0 and stretches[place][1] >= day else None
