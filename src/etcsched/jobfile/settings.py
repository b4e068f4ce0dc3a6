"""The top-level map ``settings``: what holds for the whole cluster, as far as a file says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from etcsched.core.records import (
    LEAST_HISTORY_BYTES,
    LEAST_RECOVERY_RATE,
    MOST_ACTIVE_AGENTS,
    MOST_HISTORY_BYTES,
    MOST_RECOVERY_RATE,
)
from etcsched.core.sizes import parse_size_bytes, size_text
from etcsched.core.states import FINAL, RunState
from etcsched.jobfile import fields
from etcsched.jobfile.nodes import FieldError, Problems, Value, unknown_text

__all__ = ["read_settings"]


def _final_states(value: Value) -> tuple[RunState, ...]:
    read = fields.choice(RunState, *(state for state in RunState if state not in FINAL))
    items = value.items("[failed, died]") if value.is_list() else [value]
    states = tuple(dict.fromkeys(read(item) for item in items))
    if not states:
        raise FieldError(value, "is empty; write e.g. [failed, timed_out, died]")
    return states


_RATE: Final = re.compile(r"([0-9]{1,9}(?:[.][0-9]{1,6})?) *(?:/ *s)?")


def _rate(value: Value) -> float:
    given = value.text()
    match = _RATE.fullmatch(given)
    if match is None:
        raise FieldError(value, f"{given!r} is no rate; write e.g. 10/s")
    rate = float(match[1])
    if not LEAST_RECOVERY_RATE <= rate <= MOST_RECOVERY_RATE:
        raise FieldError(
            value,
            f"{given!r} is out of range; it takes {LEAST_RECOVERY_RATE:g}/s to "
            f"{MOST_RECOVERY_RATE:g}/s",
        )
    return rate


_UNLIMITED: Final = "unlimited"


class _NoBound:
    """``unlimited``: a value of its own, since None is that nothing could be read."""


def _most_agents(value: Value) -> int | _NoBound:
    if value.text() == _UNLIMITED:
        return _NoBound()
    try:
        return fields.integer(1, MOST_ACTIVE_AGENTS)(value)
    except FieldError as error:
        raise FieldError(error.value, f"{error.text}, or unlimited") from None


def _history_bytes(value: Value) -> int:
    given = value.text()
    try:
        size_bytes = parse_size_bytes(given)
    except ValueError as error:
        raise FieldError(value, str(error)) from None
    if not LEAST_HISTORY_BYTES <= size_bytes <= MOST_HISTORY_BYTES:
        raise FieldError(
            value,
            f"{given!r} is out of range; it takes {size_text(LEAST_HISTORY_BYTES)} to "
            f"{size_text(MOST_HISTORY_BYTES)}",
        )
    return size_bytes


# Settings, the record's field, and what reads it.
_SETTINGS: Final[dict[str, tuple[str, Callable[[Value], Any]]]] = {
    "resubmit_states": ("resubmit_states", _final_states),
    "recovery_rate": ("recovery_rate", _rate),
    "max_active_agents": ("max_active_agents", _most_agents),
    "max_history": ("max_history_bytes", _history_bytes),
}


def read_settings(problems: Problems, value: Value, places: dict[str, str]) -> dict[str, Any]:
    """The record's fields given; ``places`` knows where earlier maps gave theirs."""
    read: dict[str, Any] = {}
    entries = problems.attempt(lambda v: v.entries("{resubmit_states: [failed]}"), value) or {}
    for name, entry in entries.items():
        if name not in _SETTINGS:
            entry.refuse(unknown_text("setting", name, list(_SETTINGS)))
            continue
        if name in places:
            entry.refuse(f"is given twice; first in {places[name]}")
        places.setdefault(name, entry.place)
        field, reader = _SETTINGS[name]
        made = problems.attempt(reader, entry)
        if made is not None:
            read[field] = None if isinstance(made, _NoBound) else made
    return read
