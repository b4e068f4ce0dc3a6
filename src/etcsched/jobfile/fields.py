"""Single fields: from what is written to what a record holds.

Every reader raises ``FieldError`` or ``ValueError`` with a text that says what would be right.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from etcsched.core.checks import MOST_S
from etcsched.core.durations import format_duration, parse_duration_s
from etcsched.core.names import LABEL, flaw_of_label
from etcsched.core.records import MAX_PARAMS_BYTES, Keep, Retry, params_bytes, params_clash
from etcsched.core.retry import MAX_INTERVAL_S, RETRIED
from etcsched.core.schedule import check_timezone
from etcsched.core.states import Outcome
from etcsched.jobfile.nodes import FieldError, Value, unknown_text
from etcsched.jobfile.placeholders import BUILTINS

__all__ = [
    "boolean",
    "check_known",
    "check_params",
    "choice",
    "duration",
    "env",
    "flaw_of_name",
    "flaw_of_param",
    "integer",
    "keep",
    "keep_of",
    "labels",
    "params",
    "preferences",
    "read_job_name",
    "retry",
    "retry_of",
    "text",
    "timezone",
    "user",
    "words",
    "workdir",
]

E = TypeVar("E", bound=enum.Enum)

_NAME: Final = re.compile(r"(?!_)[A-Za-z0-9._-]{1,128}")
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}\$?")
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_MOST_DIGITS: Final = 20
"""Of a number that is worth being read."""
_TOO_LONG: Final = re.compile(r"[0-9]{10,}(?:ms|[dhms])")
_IN_WORDS: Final = re.compile(
    r"([0-9]+) *(|ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)"
)
_RESERVED: Final = "ETCSCHED_"


def text(value: Value) -> str:
    return value.text()


def read_job_name(value: Value, name: str) -> str:
    flaw = flaw_of_name(name, "job")
    if flaw is not None:
        raise FieldError(value, flaw)
    return name


def flaw_of_name(name: str, kind: str) -> str | None:
    """It is part of keys, of commands and of an agent's paths, so it takes no others' characters.
    What begins with ``_`` is the cluster's own (``CLUSTER``)."""
    if _NAME.fullmatch(name) is not None and name not in {".", ".."}:
        return None
    return (
        f"{name!r} is no name for a {kind}; it takes up to 128 letters, digits, '.', '_' and '-', "
        "doesn't begin with '_' and isn't '.' or '..'"
    )


def words(value: Value) -> tuple[str, ...]:
    """Names in a list; one alone may stand without."""
    items = [value] if not value.is_list() else value.items("[a, b]")
    found: dict[str, None] = {}
    for item in items:
        word = item.text()
        if LABEL.fullmatch(word) is None:
            raise FieldError(
                item, f"{word!r} is no name; it takes letters, digits, '.', '_', '/' and '-'"
            )
        found[word] = None
    return tuple(found)


def preferences(value: Value) -> tuple[str, ...]:
    """Agents' names or labels (``disk=ssd``), the most preferred first."""
    items = [value] if not value.is_list() else value.items("[agent-1, disk=ssd]")
    found: dict[str, None] = {}
    for item in items:
        name, is_label, wanted = item.text().partition("=")
        if LABEL.fullmatch(name) is None or (is_label and not wanted):
            raise FieldError(
                item, f"{item.text()!r} is neither an agent's name nor a label like disk=ssd"
            )
        found[item.text()] = None
    return tuple(found)


def choice(kinds: type[E], *without: E) -> Callable[[Value], E]:
    """One of an enumeration's words."""
    known = {kind.value: kind for kind in kinds if kind not in without}

    def read(value: Value) -> E:
        given = value.text()
        if given not in known:
            raise FieldError(value, unknown_text("value", given, list(known)))
        return known[given]

    return read


def boolean(value: Value) -> bool:
    given = value.text()
    if given not in ("true", "false"):
        raise FieldError(value, f"{given!r} is neither true nor false")
    return given == "true"


def integer(least: int, most: int) -> Callable[[Value], int]:
    def read(value: Value) -> int:
        given = value.text()
        if _INTEGER.fullmatch(given) is None:
            raise FieldError(value, f"{given!r} is no whole number; write e.g. {max(least, 1)}")
        if len(given) > _MOST_DIGITS or not least <= int(given) <= most:
            raise FieldError(value, f"{given} is out of range; it takes {least} to {most}")
        return int(given)

    return read


def duration(least_s: float, most_s: float = MOST_S) -> Callable[[Value], float]:
    def read(value: Value) -> float:
        given = value.text()
        try:
            seconds = parse_duration_s(given)
        except ValueError:
            if not _TOO_LONG.fullmatch(given):
                raise FieldError(
                    value, f"{given!r} is no duration; write e.g. {_likely_duration(given)}"
                ) from None
            seconds = math.inf
        if not least_s <= seconds <= most_s:
            raise FieldError(
                value,
                f"{given} is out of range; it takes {format_duration(least_s)} to "
                f"{format_duration(most_s)}",
            )
        return seconds

    return read


def _likely_duration(given: str) -> str:
    match = _IN_WORDS.fullmatch(given.lower())
    if match is None:
        return "30s, 2m, 1h30m or 1d"
    count, unit = match.groups()
    return f"{count}{'ms' if unit.startswith(('ms', 'mil')) else unit[:1] or 's'}"


def timezone(value: Value) -> str:
    given = value.text()
    check_timezone(given)
    return given


def labels(value: Value) -> dict[str, str]:
    found = {}
    for name, entry in value.entries("{role: erp}").items():
        flaw = flaw_of_label(name)
        if flaw is not None:
            raise FieldError(entry, flaw)
        found[name] = entry.text()
    return found


def params(value: Value) -> dict[str, str]:
    """Names that can stand in ``{name}`` and in the environment, with their defaults."""
    found = {}
    for name, entry in value.entries("{name: value}").items():
        flaw = flaw_of_param(name)
        if flaw is not None:
            raise FieldError(entry, flaw)
        found[name] = entry.text()
    check_params(value, found)
    return found


def check_params(value: Value, params: dict[str, str]) -> None:
    """What makes sense one by one may not do so together, as those of a job and its defaults."""
    size = params_bytes(params)
    if size > MAX_PARAMS_BYTES:
        raise FieldError(value, f"{size} bytes of parameters; {MAX_PARAMS_BYTES} are allowed")
    clash = params_clash(params, params)
    if clash is not None:
        raise FieldError(value, clash)


def flaw_of_param(name: str) -> str | None:
    if name in BUILTINS:
        return f"every run has its own {name!r}; choose another name"
    return _flaw_of_variable(name)


def env(value: Value) -> dict[str, str]:
    found = {}
    for name, entry in value.entries("{NAME: value}").items():
        flaw = _flaw_of_variable(name)
        if flaw is not None:
            raise FieldError(entry, flaw)
        found[name] = entry.text()
    return found


def workdir(value: Value) -> str:
    given = value.text()
    if not given.startswith("/"):
        raise FieldError(value, f"{given!r} is no absolute path; write e.g. /srv/app")
    return given


def user(value: Value) -> str:
    given = value.text()
    if _USER.fullmatch(given) is None:
        raise FieldError(value, f"{given!r} is no user's name")
    return given


def keep(value: Value) -> dict[str, float]:
    """The parts that are given: ``runs``, ``age_s``."""
    entries = value.entries("{runs: 100, age: 30d}")
    check_known(entries, ["runs", "age"])
    found: dict[str, float] = {}
    if "runs" in entries:
        found["runs"] = integer(1, 100_000)(entries["runs"])
    if "age" in entries:
        found["age_s"] = duration(1.0)(entries["age"])
    return found


def keep_of(parts: dict[str, float]) -> Keep:
    default = Keep()
    return Keep(runs=int(parts.get("runs", default.runs)), age_s=parts.get("age_s", default.age_s))


def retry(value: Value) -> dict[str, Any]:
    """The parts that are given, by their names in the record."""
    known: dict[str, tuple[str, Callable[[Value], Any]]] = {
        "max": ("max", integer(0, 1000)),
        "interval": ("interval_s", duration(0.0, MAX_INTERVAL_S)),
        "exponential": ("exponential", boolean),
        "cap": ("cap_s", duration(0.001, MAX_INTERVAL_S)),
        "jitter": ("jitter_s", duration(0.0, MAX_INTERVAL_S)),
        "on": ("on", _outcomes),
    }
    entries = value.entries("{max: 3, interval: 5m}")
    check_known(entries, list(known))
    return {
        known[name][0]: known[name][1](entry) for name, entry in entries.items() if name in known
    }


def _outcomes(value: Value) -> tuple[Outcome, ...]:
    read = choice(Outcome, *(outcome for outcome in Outcome if outcome not in RETRIED))
    items = value.items("[failed, timed_out]") if value.is_list() else [value]
    for item in items:
        if item.text() == Outcome.DIED.value:
            raise FieldError(item, "an attempt that died goes by on_agent_loss; leave it out here")
    outcomes = tuple(dict.fromkeys(read(item) for item in items))
    if not outcomes:
        raise FieldError(value, "is empty; write e.g. [failed, timed_out], or max: 0 for no retry")
    return outcomes


def retry_of(value: Value, parts: dict[str, Any]) -> Retry:
    """A job's own parts with those of its defaults; ``value`` is where a misfit is refused."""
    made = Retry(**parts)
    if "max" not in parts:
        raise FieldError(value, "has no max: how many retries? write e.g. {max: 3, interval: 5m}")
    if made.cap_s is not None and not made.exponential:
        raise FieldError(value, "cap bounds intervals that double: add exponential: true")
    if made.cap_s is not None and made.cap_s < made.interval_s:
        raise FieldError(value, "cap is shorter than interval")
    return made


def check_known(entries: dict[str, Value], known: list[str]) -> None:
    for name, entry in entries.items():
        if name not in known:
            entry.refuse(unknown_text("field", name, known))


def _flaw_of_variable(name: str) -> str | None:
    if VARIABLE.fullmatch(name) is None:
        return f"{name!r} is no variable's name; it takes letters, digits and '_'"
    if name.upper().startswith(_RESERVED):
        return f"names beginning with {_RESERVED} are set by the agent"
    return None
