"""From an assignment to what is executed: argument list and environment."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from etcsched.core.records import Assignment, Exec, Noop, Shell
from etcsched.core.times import ms_of

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")
_ARGV_MOST = 4 << 20
"""No host takes more by default; a parameter may be named thousands of times."""
_OF_THE_AGENTS_USER = frozenset({"HOME", "USER", "LOGNAME", "SHELL", "MAIL"})


class UnknownParameter(Exception):
    """No command can be made: it names a parameter that the run doesn't have, or grows too long."""


def argv_of(assignment: Assignment) -> tuple[str, ...]:
    """``{name}`` is replaced, once, by the parameter's value; ``{{`` and ``}}`` are braces; a brace
    that encloses no name stands for itself. Raises ``UnknownParameter``."""
    match assignment.action:
        case Exec(argv):
            values = {**assignment.params, **_builtins(assignment)}
            if sum(_most_length(element, values) for element in argv) > _ARGV_MOST:
                raise UnknownParameter(f"with its parameters it is beyond {_ARGV_MOST} characters")
            return tuple(_substitute(element, values) for element in argv)
        case Shell(command):
            return ("/bin/sh", "-c", command)
        case Noop():
            return ()


def environment_of(
    assignment: Assignment, *, base: dict[str, str], token: int, results_path: str, own_user: bool
) -> dict[str, str]:
    """``base``, then the job's own, then ours. Where the job runs as another user, what of
    ``base`` belongs to the agent's user is left out."""
    env = {
        name: value for name, value in base.items() if own_user or name not in _OF_THE_AGENTS_USER
    }
    env.update(assignment.env)
    for name, value in assignment.params.items():
        env["ETCSCHED_PARAM_" + _NOT_IN_NAMES.sub("_", name.upper())] = value
    env["ETCSCHED_JOB"] = assignment.job
    env["ETCSCHED_RUN"] = assignment.run
    env["ETCSCHED_ATTEMPT"] = str(assignment.attempt)
    env["ETCSCHED_TOKEN"] = str(token)
    env["ETCSCHED_SCHEDULED_TIME"] = assignment.scheduled_at or assignment.assigned_at
    env["ETCSCHED_AGENT"] = assignment.agent
    env["ETCSCHED_RESULTS"] = results_path
    occasion = assignment.occasion or assignment.stands_for
    if occasion is not None:
        env["ETCSCHED_LIFECYCLE"] = occasion.value
    if assignment.source is not None:
        env["ETCSCHED_SOURCE_JOB"] = assignment.source.job
        env["ETCSCHED_SOURCE_RUN"] = assignment.source.run
        env["ETCSCHED_SOURCE_STATE"] = assignment.source.state.value
    return env


def _builtins(assignment: Assignment) -> dict[str, str]:
    """A run that no schedule made counts as scheduled when it was assigned. The date is that of
    the job's zone."""
    scheduled = assignment.scheduled_at or assignment.assigned_at
    moment = datetime.fromtimestamp(ms_of(scheduled) / 1000, UTC)
    source = assignment.source
    local = moment if assignment.timezone == "UTC" else _in_zone(moment, assignment.timezone)
    return {
        "scheduled_time": scheduled,
        "scheduled_date": local.date().isoformat(),
        "job": assignment.job,
        "run": assignment.run,
        "attempt": str(assignment.attempt),
        "source_job": source.job if source is not None else "",
        "source_run": source.run if source is not None else "",
        "source_state": source.state.value if source is not None else "",
    }


def _in_zone(moment: datetime, timezone: str) -> datetime:
    try:
        return moment.astimezone(ZoneInfo(timezone))
    except (LookupError, ValueError, OSError):
        raise UnknownParameter(f"this agent's host doesn't know the zone {timezone}") from None


def _most_length(element: str, values: dict[str, str]) -> int:
    named = _PLACEHOLDER.finditer(element) if "{" in element else ()
    return len(element) + sum(len(values.get(match[1], "")) for match in named)


def _substitute(element: str, values: dict[str, str]) -> str:
    if "{" not in element and "}" not in element:
        return element

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return match[0][0]
        try:
            return values[name]
        except KeyError:
            known = ", ".join(sorted(values))
            raise UnknownParameter(
                f"{{{name}}} in {element!r} is no parameter of this run (it has {known})"
            ) from None

    return _PLACEHOLDER.sub(value_of, element)
