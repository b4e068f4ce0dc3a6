"""One field of a cron expression, as the bit mask of the values it allows.

croniter expands names' numbers, lists, ranges and steps. Where it reads an item otherwise than cron
does, it isn't asked: ``5-5`` (to croniter the whole cycle), ranges that run backwards (their steps
go astray in it), ``H`` and ``R``. The days' ``L``, ``W`` and ``#`` are in ``days``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec
from croniter import croniter

__all__ = [
    "DAY_OF_MONTH",
    "DAY_OF_WEEK",
    "HOUR",
    "MINUTE",
    "MONTH",
    "SECOND",
    "Field",
    "mask_of",
    "number_of",
]


class Field(msgspec.Struct, frozen=True):
    """``low`` to ``high`` are the numbers that may be written; ``position`` is croniter's."""

    name: str
    position: int
    low: int
    high: int
    names: tuple[str, ...] = ()


SECOND: Final = Field("second", 0, 0, 59)  # to croniter like a minute
MINUTE: Final = Field("minute", 0, 0, 59)
HOUR: Final = Field("hour", 1, 0, 23)
DAY_OF_MONTH: Final = Field("day of month", 2, 1, 31)
MONTH: Final = Field(
    "month",
    3,
    1,
    12,
    ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
)
DAY_OF_WEEK: Final = Field(
    "day of week", 4, 0, 7, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
)

_ITEM: Final = re.compile(
    r"(?:(?P<all>\*)|(?P<first>[0-9A-Z]{1,9})(?:-(?P<last>[0-9A-Z]{1,9}))?)(?:/(?P<step>[0-9]{1,4}))?"
)


@lru_cache(maxsize=4096)
def mask_of(field: Field, text: str) -> int:
    """Bit n is set where value n is allowed; Sunday is bit 0. ``text`` is in capitals."""
    items = [_canonical(field, item) for item in text.split(",")]
    columns = ["*"] * 5
    columns[field.position] = ",".join(items)
    values = croniter.expand(" ".join(columns))[0][field.position]
    if values == ["*"]:
        last = 6 if field is DAY_OF_WEEK else field.high
        values = list(range(field.low, last + 1))
    mask = 0
    for value in values:
        assert isinstance(value, int), "items in canonical form expand to numbers"
        mask |= 1 << value
    return mask


def number_of(field: Field, text: str) -> int:
    """The value that a number or a name stands for; SUN is 0, 7 stays 7."""
    if text in field.names:
        return field.names.index(text) + field.low
    if not text.isdecimal():
        known = f", {field.names[0]} to {field.names[-1]}" if field.names else ""
        raise ValueError(f"{text!r} is not a value; it takes {field.low} to {field.high}{known}")
    number = int(text)
    if not field.low <= number <= field.high:
        raise ValueError(f"{text} is out of range; it takes {field.low} to {field.high}")
    return number


def _canonical(field: Field, item: str) -> str:
    """The item in the numbers, the order and the form that croniter reads as cron does."""
    match = _ITEM.fullmatch(item)
    if match is None:
        raise ValueError(
            f"{item!r} is not understood; write a value, a range a-b, * or one of them with a /step"
        )
    step = int(match["step"] or 1)
    values = field.high - field.low + (1 if field is not DAY_OF_WEEK else 0)
    if not 1 <= step <= values:
        raise ValueError(f"step {step} in {item!r} must be from 1 to {values}")
    if match["all"]:
        return f"*/{step}"
    first = number_of(field, match["first"])
    if match["last"]:
        last = number_of(field, match["last"])
        if field is DAY_OF_WEEK and match["last"] == "SUN" and first > 0:
            last = 7
    elif match["step"]:
        last = field.high
    else:
        last = first
    if first > last:
        raise ValueError(
            f"range {item!r} runs backwards; write two: "
            f"{first}-{6 if field is DAY_OF_WEEK else field.high},{field.low}-{last}"
        )
    return str(first) if first == last else f"{first}-{last}/{step}"
