"""A cron expression as masks of calendar fields, and the search for what matches next.

It knows wall time only: seconds since 1970 as a clock on the wall counts them. What a zone's clock
changes do to it is in ``dst``.
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Final

from etcsched.core.schedule.days import day_masks, shape_of
from etcsched.core.schedule.fields import HOUR, MINUTE, MONTH, SECOND, Field, mask_of

__all__ = ["CronExpression", "parse_cron"]

_ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ELAPSED_HOURS: Final = re.compile(r"\*(/[0-9]+)?")
_LENGTHS: Final = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAY_S: Final = 86_400
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_SEARCH_START_S: Final = (date(2000, 1, 1).toordinal() - _EPOCH_ORDINAL) * _DAY_S
# The rarest day is a 29 February on one weekday: every 28 years, 40 across a year like 2100.
_RAREST_MONTHS: Final = 12 * 40 + 1


class CronExpression:
    """Immutable. ``elapsed`` tells the rule for DST: true where the hour is ``*`` or ``*/n``."""

    __slots__ = (
        "_days",
        "_first_of_day_s",
        "_hours",
        "_last_of_day_s",
        "_minutes",
        "_months",
        "_seconds",
        "elapsed",
        "text",
    )

    def __init__(self, text: str) -> None:
        """``ValueError``, one line: which field, what would be right."""
        self.text = text
        second, minute, hour, day_of_month, month, day_of_week = _columns(text)
        try:
            self._seconds = _mask(SECOND, second)
            self._minutes = _mask(MINUTE, minute)
            self._hours = _mask(HOUR, hour)
            self._months = _mask(MONTH, month)
            self._days = day_masks(day_of_month, day_of_week)
        except ValueError as error:
            raise ValueError(f"cron {text!r}: {error}") from None
        self._first_of_day_s = (
            _lowest(self._hours) * 3600 + _lowest(self._minutes) * 60 + _lowest(self._seconds)
        )
        self._last_of_day_s = (
            _highest(self._hours) * 3600 + _highest(self._minutes) * 60 + _highest(self._seconds)
        )
        self.elapsed = _ELAPSED_HOURS.fullmatch(hour) is not None
        if self.first(_SEARCH_START_S) is None:
            raise ValueError(
                f"cron {text!r}: never due: no year has such a day in such a month "
                f"(day of month {day_of_month}, month {month}, day of week {day_of_week})"
            )

    def __repr__(self) -> str:
        return f"CronExpression({self.text!r})"

    def first(self, wall_s: int) -> int | None:
        """The earliest match at or after ``wall_s`` (1970 to 9999); None if there is none within
        the 40 years that the rarest day can take."""
        day, second_s = divmod(wall_s, _DAY_S)
        today = date.fromordinal(day + _EPOCH_ORDINAL)
        year, month, index = today.year, today.month, today.day
        before = day - index  # the day before the month's first: its day n is before + n
        allowed = self._days_of(year, month, before)
        if allowed >> index & 1:
            found_s = self._first_in_day(second_s)
            if found_s is not None:
                return day * _DAY_S + found_s
        allowed &= -2 << index
        for _ in range(_RAREST_MONTHS):
            if allowed:
                return (before + _lowest(allowed)) * _DAY_S + self._first_of_day_s
            before += _length(year, month)
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
            allowed = self._days_of(year, month, before)
        return None

    def last(self, wall_s: int) -> int | None:
        """The latest match at or before ``wall_s``; None as in ``first``."""
        day, second_s = divmod(wall_s, _DAY_S)
        today = date.fromordinal(day + _EPOCH_ORDINAL)
        year, month, index = today.year, today.month, today.day
        before = day - index
        allowed = self._days_of(year, month, before)
        if allowed >> index & 1:
            found_s = self._last_in_day(second_s)
            if found_s is not None:
                return day * _DAY_S + found_s
        allowed &= (1 << index) - 1
        for _ in range(_RAREST_MONTHS):
            if allowed:
                return (before + _highest(allowed)) * _DAY_S + self._last_of_day_s
            year, month = (year, month - 1) if month > 1 else (year - 1, 12)
            before -= _length(year, month)
            allowed = self._days_of(year, month, before)
        return None

    def _days_of(self, year: int, month: int, before: int) -> int:
        if not self._months >> month & 1:
            return 0
        # 1970-01-01, day 0, was a Thursday: weekday 4.
        return self._days[shape_of((before + 5) % 7, _length(year, month))]

    def _first_in_day(self, second_s: int) -> int | None:
        """The earliest match at or after that second of a day."""
        hour, rest_s = divmod(second_s, 3600)
        if self._hours >> hour & 1:
            minute, second = divmod(rest_s, 60)
            if self._minutes >> minute & 1:
                later = self._seconds >> second << second
                if later:
                    return second_s - second + _lowest(later)
            later = self._minutes & -2 << minute
            if later:
                return hour * 3600 + _lowest(later) * 60 + _lowest(self._seconds)
        later = self._hours & -2 << hour
        return _lowest(later) * 3600 + self._first_of_day_s % 3600 if later else None

    def _last_in_day(self, second_s: int) -> int | None:
        """The latest match at or before that second of a day."""
        hour, rest_s = divmod(second_s, 3600)
        if self._hours >> hour & 1:
            minute, second = divmod(rest_s, 60)
            if self._minutes >> minute & 1:
                earlier = self._seconds & (2 << second) - 1
                if earlier:
                    return second_s - second + _highest(earlier)
            earlier = self._minutes & (1 << minute) - 1
            if earlier:
                return hour * 3600 + _highest(earlier) * 60 + _highest(self._seconds)
        earlier = self._hours & (1 << hour) - 1
        return _highest(earlier) * 3600 + self._last_of_day_s % 3600 if earlier else None


@lru_cache(maxsize=16384)
def parse_cron(text: str) -> CronExpression:
    """Shared: jobs of one expression hold one object, whatever their zones."""
    return CronExpression(text)


def _columns(text: str) -> list[str]:
    """Second, minute, hour, day of month, month, day of week."""
    written = text.strip()
    if written.startswith("@"):
        expression = _ALIASES.get(written.lower())
        if expression is None:
            hint = (
                "what runs when the cluster starts is the job's lifecycle, no tick: set `lifecycle`"
                if written.lower() == "@reboot"
                else f"write one of {', '.join(_ALIASES)}"
            )
            raise ValueError(f"cron {text!r}: not a schedule; {hint}")
        written = expression
    columns = written.upper().split()
    match len(columns):
        case 5:
            return ["0", *columns]
        case 6:
            return columns
        case _:
            raise ValueError(
                f"cron {text!r}: has {len(columns)} fields; write 5 (minute, hour, day of month, "
                "month, day of week) or 6, with seconds first"
            )


def _mask(field: Field, column: str) -> int:
    try:
        return mask_of(field, column)
    except ValueError as error:
        raise ValueError(f"{field.name}: {error}") from None


def _length(year: int, month: int) -> int:
    if month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):
        return 29
    return _LENGTHS[month]


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _highest(mask: int) -> int:
    return mask.bit_length() - 1
