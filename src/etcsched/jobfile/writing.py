"""Jobs and settings in the words of job files: what people see of them, and of their changes.

Whatever a file can say of a job stands in ``fields_of``: a change that it didn't show would be one
that nobody sees coming.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, assert_never

from etcsched.core.durations import format_duration
from etcsched.core.records import (
    Action,
    ClusterSettings,
    Condition,
    Exec,
    Job,
    Link,
    Noop,
    Retry,
    Shell,
    Window,
)
from etcsched.core.schedule import At, Cron, Every, Pattern
from etcsched.core.sizes import size_text
from etcsched.core.states import ConditionOp, Lifecycle
from etcsched.core.times import Utc

__all__ = ["action_of", "fields_of", "pattern_text", "schedule_text", "settings_of"]

# What files may write of a time, whatever its offset.
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9000, 12, 31, 23, 59, 59, tzinfo=UTC)


def fields_of(job: Job) -> dict[str, Any]:
    """The current definition, fields that have their default left out."""
    default = Job(name=job.name, run=job.run, versions=job.versions)
    current = job.current
    found: dict[str, Any] = {
        "run": action_of(job.run),
        "schedule": [_pattern(pattern) for pattern in current.patterns],
        "calendars": list(current.calendars),
        "windows": [_window(window) for window in current.windows],
        "timezone": current.timezone,
        "state": current.state.value,
    }
    for field in ("schedule", "calendars", "windows"):
        if not found[field]:
            del found[field]
    for field in ("description", "owner", "catch_up_limit", "max_reassigns", "priority"):
        _put(found, field, getattr(job, field), getattr(default, field), lambda value: value)
    for field in ("workdir", "user"):
        _put(found, field, getattr(job, field), getattr(default, field), lambda value: value)
    for field in ("tags", "hosts", "prefer"):
        _put(found, field, getattr(job, field), (), list)
    for field in (
        "recovery",
        "overlap",
        "on_agent_loss",
        "on_disconnect",
        "placement",
        "hosts_for",
        "lifecycle",
    ):
        _put(found, field, getattr(job, field), getattr(default, field), lambda value: value.value)
    _put(found, "splay", job.splay_s, default.splay_s, format_duration)
    for field in (
        "pickup_buffer",
        "recover_within",
        "timeout",
        "kill_grace",
        "disconnect_grace",
    ):
        seconds, usual_s = getattr(job, f"{field}_s"), getattr(default, f"{field}_s")
        _put(found, field, seconds, usual_s, format_duration)
    _put(found, "per_host", job.per_host, False, lambda value: value)
    for field in ("params", "env", "require"):
        _put(found, field, getattr(job, field), {}, dict)
    if job.retry != default.retry:
        found["retry"] = _retry(job.retry)
    if job.results:
        found["results"] = list(job.results)
    if job.chain:
        found["chain"] = [_link(link) for link in job.chain]
    if job.keep != default.keep:
        found["keep"] = {"runs": job.keep.runs, "age": format_duration(job.keep.age_s)}
    return found


def _window(window: Window) -> dict[str, Any]:
    found: dict[str, Any] = {"from": _instant(window.since), "until": _instant(window.until)}
    _put(found, "state", window.state, None, lambda state: state.value)
    _put(found, "schedule", window.patterns, None, lambda given: [_pattern(p) for p in given])
    return found


def _instant(time: Utc) -> str:
    """In UTC. A midnight of 1970 in Berlin would be in 1969 there, which no file may say; so it is
    written with an offset."""
    at = datetime.fromisoformat(time[:19]).replace(tzinfo=UTC)
    offset = min(max(at, _FIRST), _LAST) - at
    if not offset or abs(offset) >= timedelta(days=1):
        return f"{time[:19]}Z"
    return at.astimezone(timezone(offset)).isoformat()


def _retry(retry: Retry) -> dict[str, Any]:
    usual = Retry()
    found: dict[str, Any] = {"max": retry.max, "interval": format_duration(retry.interval_s)}
    _put(found, "exponential", retry.exponential, usual.exponential, bool)
    _put(found, "cap", retry.cap_s, usual.cap_s, format_duration)
    _put(found, "jitter", retry.jitter_s, usual.jitter_s, format_duration)
    _put(found, "on", retry.on, usual.on, lambda on: [outcome.value for outcome in on])
    return found


def _link(link: Link) -> dict[str, Any]:
    usual = Link(to=link.to)
    found: dict[str, Any] = {"to": link.to}
    _put(found, "on", link.on, usual.on, lambda on: [state.value for state in on])
    if link.when:
        tests: dict[str, dict[str, Any]] = {}
        for condition in link.when:
            tests.setdefault(condition.name, {}).update(_condition(condition))
        found["when"] = tests
    _put(found, "within", link.within, "", str)
    _put(found, "require", link.joins, False, lambda _: "all")
    return found


def _condition(condition: Condition) -> dict[str, Any]:
    match condition.op:
        case ConditionOp.EXISTS | ConditionOp.MISSING:
            return {"exists": condition.op is ConditionOp.EXISTS}
        case ConditionOp.IN | ConditionOp.NOT_IN:
            return {condition.op.value: list(condition.values)}
        case _:
            return {condition.op.value: condition.values[0]}


def settings_of(settings: ClusterSettings) -> dict[str, Any]:
    """All of them, also those that have their default."""
    return {
        "resubmit_states": [state.value for state in settings.resubmit_states],
        # As many digits as files may have.
        "recovery_rate": f"{settings.recovery_rate:.6f}".rstrip("0").rstrip(".") + "/s",
        "max_active_agents": settings.max_active_agents or "unlimited",
        "max_history": size_text(settings.max_history_bytes),
    }


def _put(found: dict[str, Any], field: str, value: Any, usual: Any, write: Any) -> None:
    if value != usual:
        found[field] = None if value is None else write(value)


def schedule_text(job: Job) -> str:
    """Short, for tables; the zone stands behind a cron expression where it isn't UTC. A lifecycle
    stands in its own words."""
    current = job.current
    texts = [pattern_text(pattern) for pattern in current.patterns]
    zone = "" if current.timezone == "UTC" else f" {current.timezone}"
    schedule = (", ".join(texts) + zone) if texts else ""
    lifecycle = "" if job.lifecycle is Lifecycle.NONE else job.lifecycle.value
    return "; ".join(filter(None, (schedule, lifecycle)))


def pattern_text(pattern: Pattern) -> str:
    match pattern:
        case Cron(expression):
            return expression
        case Every(interval_s, _):
            return f"every {format_duration(interval_s)}"
        case At(time):
            return f"at {time[:19]}Z"
        case _:
            assert_never(pattern)


def _pattern(pattern: Pattern) -> dict[str, str]:
    match pattern:
        case Cron(expression):
            return {"cron": expression}
        case Every(interval_s, _):
            return {"every": format_duration(interval_s)}
        case At(time):
            return {"at": _instant(time)}
        case _:
            assert_never(pattern)


def action_of(action: Action) -> dict[str, Any]:
    match action:
        case Exec(argv):
            return {"exec": list(argv)}
        case Shell(command):
            return {"shell": command}
        case Noop():
            return {"noop": True}
        case _:
            assert_never(action)
