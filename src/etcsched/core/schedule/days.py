"""Which days a cron expression allows: day of month and day of week, with L, W, LW and #.

All of it depends on a month's length and the weekday of its first day only, so the rules of an
expression become 28 bit masks, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from etcsched.core.schedule.fields import DAY_OF_MONTH, DAY_OF_WEEK, mask_of, number_of

__all__ = ["MonthShapes", "day_masks", "shape_of"]

MonthShapes = tuple[int, ...]
"""By ``shape_of``: a mask whose bit d is set where day d of such a month is allowed."""

_Rule = Callable[[int, int], int]
"""From (weekday of day 1, length of the month) to the mask of days."""

_NEAREST: Final = re.compile(r"([0-9]{1,9})W")
_NTH: Final = re.compile(r"([0-9A-Z]{1,9})#([0-9]{1,9})")
_LAST_ONE: Final = re.compile(r"L([0-9])|([0-9]|[A-Z]{3})L")
_SUNDAY: Final = 0
_SATURDAY: Final = 6
_WEEKLY: Final = 1 | 1 << 7 | 1 << 14 | 1 << 21 | 1 << 28


def shape_of(first_weekday: int, length: int) -> int:
    """Of a month of 28 to 31 days; ``first_weekday`` is that of its day 1, Sunday is 0."""
    return (length - 28) * 7 + first_weekday


@lru_cache(maxsize=4096)
def day_masks(day_of_month: str, day_of_week: str) -> MonthShapes:
    """Vixie cron's rule: a day must match either field if both are restricted, else both.

    A field that starts with ``*`` (or is ``?``) counts as unrestricted, so ``*/2`` in one and
    ``MON`` in the other means Mondays of odd date. Errors name the field.
    """
    by_date = _shapes(DAY_OF_MONTH.name, day_of_month, _date_rule)
    by_weekday = _shapes(DAY_OF_WEEK.name, day_of_week, _weekday_rule)
    if day_of_month[0] in "*?" or day_of_week[0] in "*?":
        return tuple(date & weekday for date, weekday in zip(by_date, by_weekday, strict=True))
    return tuple(date | weekday for date, weekday in zip(by_date, by_weekday, strict=True))


@lru_cache(maxsize=2048)
def _shapes(field_name: str, text: str, rule_of: Callable[[str], _Rule]) -> MonthShapes:
    try:
        rules = [rule_of(item) for item in ("*" if text == "?" else text).split(",")]
    except ValueError as error:
        raise ValueError(f"{field_name}: {error}") from None
    shapes = []
    for length in range(28, 32):
        for first_weekday in range(7):
            mask = 0
            for rule in rules:
                mask |= rule(first_weekday, length)
            shapes.append(mask & _all_days(length))
    return tuple(shapes)


def _date_rule(item: str) -> _Rule:
    if item == "L":
        return lambda _, length: 1 << length
    if item == "LW":
        return lambda first, length: 1 << _nearest_weekday(first, length, length)
    if match := _NEAREST.fullmatch(item):
        day = number_of(DAY_OF_MONTH, match[1])
        return lambda first, length: (
            1 << _nearest_weekday(first, length, day) if day <= length else 0
        )
    if "L" in item or "W" in item:
        raise ValueError(f"{item!r} is not understood; write L, LW or a day with W, like 15W")
    mask = mask_of(DAY_OF_MONTH, item)
    return lambda _, __: mask


def _weekday_rule(item: str) -> _Rule:
    if match := _NTH.fullmatch(item):
        weekday, nth = number_of(DAY_OF_WEEK, match[1]) % 7, int(match[2])
        if not 1 <= nth <= 5:
            raise ValueError(f"{item!r}: after # stands 1 to 5, for the first to the fifth")
        return lambda first, _: 1 << _first_on(first, weekday) + 7 * (nth - 1)
    if match := _LAST_ONE.fullmatch(item):
        weekday = number_of(DAY_OF_WEEK, match[1] or match[2]) % 7
        return lambda first, length: 1 << _last_on(first, length, weekday)
    if "#" in item or "L" in item:
        raise ValueError(
            f"{item!r} is not understood; write MON#2 for the second Monday, FRIL for the last "
            "Friday"
        )
    weekdays = mask_of(DAY_OF_WEEK, item)
    return lambda first, _: _all_on(first, weekdays)


def _nearest_weekday(first_weekday: int, length: int, day: int) -> int:
    """The day from Monday to Friday that is nearest to ``day`` and lies in its month."""
    weekday = (first_weekday + day - 1) % 7
    if weekday == _SATURDAY:
        return day - 1 if day > 1 else day + 2
    if weekday == _SUNDAY:
        return day + 1 if day < length else day - 2
    return day


def _first_on(first_weekday: int, weekday: int) -> int:
    return 1 + (weekday - first_weekday) % 7


def _last_on(first_weekday: int, length: int, weekday: int) -> int:
    return length - (first_weekday + length - 1 - weekday) % 7


def _all_on(first_weekday: int, weekdays: int) -> int:
    mask = 0
    for weekday in range(7):
        if weekdays >> weekday & 1:
            mask |= _WEEKLY << _first_on(first_weekday, weekday)
    return mask


def _all_days(length: int) -> int:
    return (1 << length + 1) - 2
