"""``run`` and ``schedule``: the two fields with a shape of their own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from etcsched.core.records import Action, Exec, Shell
from etcsched.core.schedule import At, Cron, Pattern, parse_at, parse_every, schedule_of
from etcsched.core.times import ms_of, utc_of
from etcsched.jobfile.fields import check_known
from etcsched.jobfile.nodes import FieldError, Value, unknown_text
from etcsched.jobfile.placeholders import names_in

__all__ = [
    "BESIDE_PATTERN",
    "PastAt",
    "beside_pattern",
    "check_placeholders",
    "place_of_splay",
    "read_action",
    "read_patterns",
]

_RUN = "{exec: [/bin/true]}"
_SCHEDULE = "{cron: 0 3 * * *, calendars: [holidays]}"
_EXECUTORS = ["exec", "shell"]
_INSTEAD = {
    "http": "[curl, -fsS, URL]",
    "docker": "[docker, run, --rm, IMAGE]",
    "python": "[python3, -m, MODULE]",
}
"""Of executors that aren't there yet."""
_PATTERNS = ["cron", "every", "at"]
_SEVERAL = "[{cron: 0 3 * * *}, {every: 1h}]"

BESIDE_PATTERN = ["calendars", "splay"]
"""A job's fields that may stand in its schedule, where that is one pattern and no list."""


def read_action(value: Value) -> Action:
    """``{exec: [program, argument, ...]}`` or ``{shell: "a line for /bin/sh"}``."""
    for name, entry in value.entries(_RUN).items():
        if name in _INSTEAD:
            raise FieldError(entry, f"isn't there yet; write e.g. exec: {_INSTEAD[name]}")
    executor, given = _only_entry(value, _RUN, "executor", _EXECUTORS)
    if executor == "shell":
        command = given.text()
        if not command.strip():
            raise FieldError(given, "is empty; write what /bin/sh should run")
        return Shell(command)
    argv = tuple(item.text() for item in given.items('[/bin/echo, "hello"]'))
    if not argv or not argv[0]:
        raise FieldError(given, "names no program; write e.g. [/bin/true]")
    return Exec(argv)


def check_placeholders(value: Value, action: Action, known: list[str]) -> None:
    """Every ``{name}`` of an argv is known; ``value`` is the ``run`` that the action is of."""
    if not isinstance(action, Exec):
        return
    _, argv = _only_entry(value, _RUN, "executor", _EXECUTORS)
    for item in argv.items("[/bin/true]"):
        try:
            names = names_in(item.text())
        except ValueError as error:
            item.refuse(str(error))
            continue
        for name in names:
            if name not in known:
                item.refuse(unknown_text("parameter", name, known))


class PastAt(msgspec.Struct, frozen=True):
    """An ``at`` whose time has passed. ``problem`` is what is wrong with it, unless the job has had
    it before."""

    value: Value
    pattern: At
    problem: str


def read_patterns(
    value: Value,
    timezone: str,
    now_ms: int,
    past: list[PastAt] | None = None,
    *,
    in_window: bool = False,
) -> tuple[Pattern, ...]:
    """One pattern or a list of them. An ``every`` is anchored now; whether an earlier anchor
    holds is for the timeline to say. Times that have passed are put into ``past``, for whoever
    knows the job as it was, or refused where that is None. ``in_window``: now is when the patterns'
    window begins, which is in it."""
    items = value.items(_SEVERAL) if value.is_list() else [value]
    names = set(value.entries(_SCHEDULE)) if value.is_map() else set()
    if names and names <= set(BESIDE_PATTERN):
        raise FieldError(value, f"has no pattern; write e.g. {_SCHEDULE}")
    if not items:
        raise FieldError(value, "has no pattern; write e.g. {cron: 0 3 * * *}, or leave it out")
    patterns: dict[Pattern, None] = {}
    for item in items:
        extra = [] if value.is_list() else BESIDE_PATTERN
        kind, given = _only_entry(
            item, "{cron: 0 3 * * *}", "field", _PATTERNS, extra, several=_SEVERAL
        )
        try:
            pattern = _read_pattern(kind, given.text(), timezone, now_ms)
            latest_past_ms = now_ms - 1 if in_window else now_ms
            if isinstance(pattern, At) and ms_of(pattern.time) <= latest_past_ms:
                why = (
                    f"is before its window, which begins at {utc_of(now_ms)[:19]}Z"
                    if in_window
                    else f"has passed (it is {utc_of(now_ms)} now)"
                )
                flaw = f"{given.text()!r} {why}; give a later time, or take the pattern out"
                if past is None:
                    given.refuse(flaw)
                else:
                    past.append(PastAt(given, pattern, flaw))
            patterns[pattern] = None
        except FieldError:
            raise
        except ValueError as error:
            given.refuse(str(error).removeprefix(f"{kind} "))
    return tuple(patterns)


def beside_pattern(schedule: Value | None, field: str) -> Value | None:
    """What a schedule says of one of ``BESIDE_PATTERN``; None: nothing. Whatever is wrong with it
    is said where its patterns are read."""
    try:
        return schedule.entries(_SCHEDULE).get(field) if schedule is not None else None
    except FieldError:
        return None


def place_of_splay(own: dict[str, Value], defaults: dict[str, Value]) -> Value | None:
    """Where a job's splay is written: beside its schedule or in it, but not in both. Its own comes
    before that of its defaults, and with its own schedule it has nothing of theirs."""
    schedule_of_defaults = None if "schedule" in own else defaults.get("schedule")
    for entries, schedule in ((own, own.get("schedule")), (defaults, schedule_of_defaults)):
        alone, inside = entries.get("splay"), beside_pattern(schedule, "splay")
        if alone is not None and inside is not None:
            inside.refuse(f"is given twice; beside the schedule in line {alone.line}")
        if alone is not None or inside is not None:
            return alone or inside
    return None


def _read_pattern(kind: str, text: str, timezone: str, now_ms: int) -> Pattern:
    if kind == "every":
        return parse_every(text, now_ms)
    if kind == "at":
        return parse_at(text, timezone)
    pattern = Cron(text)
    if schedule_of((pattern,), timezone).next_after(now_ms) is None:
        raise ValueError(f"{text!r} is never due in {timezone}")
    return pattern


def _only_entry(
    value: Value,
    example: str,
    kind: str,
    known: list[str],
    extra: Sequence[str] = (),
    several: str = "",
) -> tuple[str, Value]:
    """The one entry of a map that takes exactly one of the known ones, beside ``extra``.
    ``several``: how more of such maps are written."""
    entries = value.entries(example)
    check_known(entries, [*known, *extra])
    chosen = [(name, entry) for name, entry in entries.items() if name in known]
    if len(chosen) != 1:
        in_list = f"; several stand in a list: {several}" if several else ""
        raise FieldError(
            value, f"takes exactly one of {', '.join(known)}; write e.g. {example}{in_list}"
        )
    return chosen[0]
