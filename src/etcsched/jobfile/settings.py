"""The top-level map ``settings``: what holds for the whole cluster, as far as a file says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from etcsched.core.records import LEAST_RECOVERY_RATE, MOST_ACTIVE_AGENTS, MOST_RECOVERY_RATE
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


# Settings and their readers; the names are the record's.
_SETTINGS: Final[dict[str, Callable[[Value], Any]]] = {
    "resubmit_states": _final_states,
    "recovery_rate": _rate,
    "max_active_agents": _most_agents,
}


def read_settings(problems: Problems, value: Value, places: dict[str, str]) -> dict[str, Any]:
    """The fields given; ``places`` knows where earlier maps gave theirs."""
    read: dict[str, Any] = {}
    entries = problems.attempt(lambda v: v.entries("{resubmit_states: [failed]}"), value) or {}
    for name, entry in entries.items():
        if name not in _SETTINGS:
            entry.refuse(unknown_text("setting", name, list(_SETTINGS)))
            continue
        if name in places:
            entry.refuse(f"is given twice; first in {places[name]}")
        places.setdefault(name, entry.place)
        made = problems.attempt(_SETTINGS[name], entry)
        if made is not None:
            read[name] = None if isinstance(made, _NoBound) else made
    return read
