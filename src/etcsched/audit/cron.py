"""What a cron expression means, read as plainly as can be: what a minute's clock shows either
matches or doesn't (SEMANTICS, schedule; DESIGN 9).

The product expands expressions with croniter and jumps from match to match; this one shares
neither. It reads only what the product accepts, and isn't asked to explain what is wrong.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import date
from functools import cache, lru_cache

import msgspec

__all__ = ["Meaning", "read_cron"]

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_FRIDAY = 5

Dates = Callable[[date], bool]


class Meaning(msgspec.Struct, frozen=True):
    """``elapsed``: its hour is ``*`` or ``*/n``, so it goes by time elapsed; else by what the
    clock on the wall shows first."""

    seconds: tuple[int, ...]
    minutes: frozenset[int]
    hours: frozenset[int]
    on: Dates
    elapsed: bool


@lru_cache(maxsize=4096)
def read_cron(text: str) -> Meaning:
    """``ValueError`` for what makes no sense."""
    fields = _MACROS.get(text.strip().lower(), text).upper().split()
    if len(fields) == 5:
        fields = ["0", *fields]
    second, minute, hour, day, month, weekday = fields
    months = _numbers(month, 1, 12, _MONTHS, 1)
    by_date = [_date_rule(item) for item in day.split(",")]
    by_weekday = [_weekday_rule(item) for item in weekday.split(",")]
    both = day[0] in "*?" or weekday[0] in "*?"

    @cache
    def on(when: date) -> bool:
        if when.month not in months:
            return False
        fits = (any(r(when) for r in by_date), any(r(when) for r in by_weekday))
        return all(fits) if both else any(fits)

    return Meaning(
        seconds=tuple(sorted(_numbers(second, 0, 59))),
        minutes=frozenset(_numbers(minute, 0, 59)),
        hours=frozenset(_numbers(hour, 0, 23)),
        on=on,
        elapsed=hour == "*" or (hour.startswith("*/") and "," not in hour),
    )


def _numbers(
    text: str, low: int, high: int, names: tuple[str, ...] = (), first_name: int = 0
) -> set[int]:
    found: set[int] = set()
    for item in text.split(","):
        span, _, step = item.partition("/")
        if span in "*?":
            start, end = low, high
        else:
            head, _, tail = span.partition("-")
            start = _number(head, names, first_name)
            end = _number(tail, names, first_name) if tail else high if step else start
        if not low <= start <= end <= high:
            raise ValueError(f"{item!r} isn't within {low} to {high}")
        found.update(range(start, end + 1, int(step or 1)))
    return found


def _number(text: str, names: tuple[str, ...], first_name: int) -> int:
    return names.index(text) + first_name if text in names else int(text)


def _date_rule(item: str) -> Dates:
    if item in ("*", "?"):
        return lambda _: True
    if item == "L":
        return lambda when: when.day == _length(when)
    if item == "LW":
        return lambda when: when.day == max(d for d in _workdays(when))
    if item.endswith("W"):
        wanted = int(item[:-1])
        return lambda when: (
            wanted <= _length(when)
            and when.day == min(_workdays(when), key=lambda d: (abs(d - wanted), d))
        )
    days = _numbers(item, 1, 31)
    return lambda when: when.day in days


def _weekday_rule(item: str) -> Dates:
    if item in ("*", "?"):
        return lambda _: True
    if "#" in item:
        name, _, nth = item.partition("#")
        weekday, week = _number(name, _DAYS, 0) % 7, int(nth)
        return lambda when: when.isoweekday() % 7 == weekday and (when.day + 6) // 7 == week
    if "L" in item:
        weekday = _number(item.replace("L", ""), _DAYS, 0) % 7
        return lambda when: when.isoweekday() % 7 == weekday and when.day + 7 > _length(when)
    if item.endswith("-SUN") and not item.startswith("SUN"):
        item = item[:-3] + "7"
    days = {number % 7 for number in _numbers(item, 0, 6 if item[0] == "*" else 7, _DAYS)}
    return lambda when: when.isoweekday() % 7 in days


def _length(when: date) -> int:
    return calendar.monthrange(when.year, when.month)[1]


def _workdays(when: date) -> list[int]:
    days = range(1, _length(when) + 1)
    return [day for day in days if when.replace(day=day).isoweekday() <= _FRIDAY]
