"""Wall time: Unix milliseconds in the core, fixed-width RFC 3339 text in records.

``Utc`` text sorts as its instants do, so etcd's key order and comparisons of values are those of
time. All functions cover the years 1 to 9999, and take well below a microsecond.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final, NewType

import msgspec

__all__ = ["Time", "Utc", "instant_after", "ms_of", "ms_of_tick_id", "tick_id", "utc_of"]

Utc = NewType("Utc", str)
"""``2026-11-22T19:00:00.000Z``: always 24 characters, always UTC, always milliseconds."""

Time = Annotated[
    Utc,
    msgspec.Meta(
        pattern=r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3])(:[0-5]\d){2}\.\d{3}Z\Z"
    ),
]
"""A ``Utc`` in a record that others than the leader write: whatever isn't spelled so is refused as
the record is decoded. It costs about 1.5 µs, so the leader's own records go without."""

_LAST: Final = Utc("9999-12-31T23:59:59.999Z")
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - naive on purpose: all of it is UTC
_MINUTE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:")
_MINUTE_OF_ID: Final = re.compile(r"[0-9]{8}T(?:[01][0-9]|2[0-3])[0-9]{2}")

# What follows the minute, as it is written: strict to read, and quicker than formatting.
_SECONDS: Final = tuple(f"{second:02d}" for second in range(60))
_SECONDS_READ: Final = {text: second for second, text in enumerate(_SECONDS)}
_MILLIS: Final = tuple(f".{milli:03d}Z" for milli in range(1000))
_MILLIS_READ: Final = {text: milli for milli, text in enumerate(_MILLIS)}


def utc_of(ms: int) -> Utc:
    """``ValueError`` outside of the years 1 to 9999."""
    minute, rest_ms = divmod(ms, 60_000)
    return Utc(_minute_text(minute) + _SECONDS[rest_ms // 1000] + _MILLIS[rest_ms % 1000])


def ms_of(utc: Utc) -> int:
    """The exact inverse of ``utc_of``; ``ValueError`` for any other spelling of a time."""
    try:
        second_ms = _SECONDS_READ[utc[17:19]] * 1000 + _MILLIS_READ[utc[19:]]
        return _minute_of_text(utc[:17]) * 60_000 + second_ms
    except (KeyError, ValueError):
        raise ValueError(f"{utc!r} is not a time like 2026-11-22T19:00:00.000Z") from None


def instant_after(utc: Utc) -> Utc:
    """A millisecond later; after the last instant of year 9999 comes none, so that one itself."""
    return utc_of(ms_of(utc) + 1) if utc != _LAST else utc


def tick_id(ms: int) -> str:
    """A tick's id, ``20261122T190000Z``; sorts as time does. A tick is a whole second."""
    minute, rest_ms = divmod(ms, 60_000)
    if rest_ms % 1000:
        raise ValueError(f"{utc_of(ms)} is not a whole second, so it can't be a tick")
    return f"{_minute_id(minute)}{_SECONDS[rest_ms // 1000]}Z"


def ms_of_tick_id(text: str) -> int:
    """The exact inverse of ``tick_id``; ``ValueError`` for anything that it doesn't return."""
    try:
        if text[15:] == "Z":
            return _minute_of_id(text[:13]) * 60_000 + _SECONDS_READ[text[13:15]] * 1000
    except (KeyError, ValueError):
        pass
    raise ValueError(f"{text!r} is not a tick's id like 20261122T190000Z")


# Minutes since 1970 as text and back. Cached: a process mostly meets times near now.


@lru_cache(maxsize=8192)
def _minute_text(minute: int) -> str:
    try:
        return (_EPOCH + timedelta(minutes=minute)).isoformat()[:17]
    except OverflowError:
        raise ValueError("a time outside of the years 1 to 9999") from None


@lru_cache(maxsize=8192)
def _minute_id(minute: int) -> str:
    return _minute_text(minute)[:16].translate({ord("-"): None, ord(":"): None})


@lru_cache(maxsize=8192)
def _minute_of_text(text: str) -> int:
    if not _MINUTE.fullmatch(text):
        raise ValueError
    return (datetime.fromisoformat(text[:16]) - _EPOCH) // timedelta(minutes=1)


@lru_cache(maxsize=8192)
def _minute_of_id(text: str) -> int:
    if not _MINUTE_OF_ID.fullmatch(text):
        raise ValueError
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(minutes=1)
