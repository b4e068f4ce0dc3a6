"""``windows``: dated changes of a job's schedule or state, which revert by themselves."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from etcsched.core.records import Window
from etcsched.core.schedule import parse_at
from etcsched.core.states import JobState
from etcsched.core.times import Utc, ms_of
from etcsched.jobfile import fields
from etcsched.jobfile.nodes import FieldError, Value
from etcsched.jobfile.schedules import BESIDE_PATTERN, beside_pattern, read_patterns

__all__ = ["read_windows"]

_EXAMPLE: Final = "{from: 2026-12-24, until: 2027-01-02, state: disabled}"
_FIELDS: Final = ["from", "until", "state", "schedule"]


def read_windows(value: Value, timezone: str) -> tuple[Window, ...]:
    """In the order of their times. A date stands for its first instant in the job's zone; an
    ``every`` is anchored at its window's begin."""
    items = value.items(f"[{_EXAMPLE}]") if value.is_list() else [value]
    windows = sorted(((_window(item, timezone), item) for item in items), key=_since)
    for (before, _), (after, at) in pairwise(windows):
        if before.until > after.since:
            raise FieldError(
                at,
                f"overlaps the window from {before.since[:19]}Z until {before.until[:19]}Z; "
                "windows can only follow each other",
            )
    return tuple(window for window, _ in windows)


def _since(place: tuple[Window, Value]) -> Utc:
    return place[0].since


def _window(value: Value, timezone: str) -> Window:
    entries = value.entries(_EXAMPLE)
    fields.check_known(entries, _FIELDS)
    for field in ("from", "until"):
        if field not in entries:
            raise FieldError(value, f"has no {field}; write e.g. {_EXAMPLE}")
    since, until = (_instant(entries[field], timezone) for field in ("from", "until"))
    if until <= since:
        raise FieldError(entries["until"], "isn't later than its from")
    state, schedule = entries.get("state"), entries.get("schedule")
    if state is None and schedule is None:
        raise FieldError(value, f"changes nothing; write a state or a schedule, e.g. {_EXAMPLE}")
    for field in BESIDE_PATTERN:
        if (given := beside_pattern(schedule, field)) is not None:
            raise FieldError(given, "is the job's own matter; leave it out here")
    return Window(
        since=since,
        until=until,
        state=None if state is None else fields.choice(JobState, JobState.DELETED)(state),
        patterns=None
        if schedule is None
        else read_patterns(schedule, timezone, ms_of(since), in_window=True),
    )


def _instant(value: Value, timezone: str) -> Utc:
    try:
        return parse_at(value.text(), timezone).time
    except FieldError:
        raise
    except ValueError as error:
        raise FieldError(value, str(error).removeprefix("at ")) from None
