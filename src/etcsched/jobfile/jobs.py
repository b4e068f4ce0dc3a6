"""One job out of its fields and the defaults of its file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from etcsched.core.records import Job, ScheduleVersion
from etcsched.core.states import (
    HostsFor,
    JobState,
    Lifecycle,
    OnAgentLoss,
    OnDisconnect,
    Overlap,
    Placement,
    Recovery,
)
from etcsched.core.times import utc_of
from etcsched.jobfile import fields
from etcsched.jobfile.calendars import read_names
from etcsched.jobfile.chains import read_chain, read_results
from etcsched.jobfile.hosts import check_hosts
from etcsched.jobfile.nodes import Problems, Value, unknown_text
from etcsched.jobfile.notify import notified, read_notify
from etcsched.jobfile.placeholders import BUILTINS
from etcsched.jobfile.schedules import (
    PastAt,
    check_placeholders,
    place_of_splay,
    read_action,
    read_patterns,
)
from etcsched.jobfile.windows import read_windows

__all__ = ["MAX_JOB_BYTES", "known_entries", "read_defaults", "read_job"]

MAX_JOB_BYTES: Final = 64 << 10

_Reader = Callable[[Value], Any]

# As written in a file -> (as named in the record, how it is read).
_PLAIN: Final[dict[str, tuple[str, _Reader]]] = {
    "description": ("description", fields.text),
    "owner": ("owner", fields.text),
    "tags": ("tags", fields.words),
    "recovery": ("recovery", fields.choice(Recovery)),
    "pickup_buffer": ("pickup_buffer_s", fields.duration(1.0)),
    "recover_within": ("recover_within_s", fields.duration(0.0)),
    "catch_up_limit": ("catch_up_limit", fields.integer(1, 10_000)),
    "overlap": ("overlap", fields.choice(Overlap)),
    "timeout": ("timeout_s", fields.duration(0.001)),
    "kill_grace": ("kill_grace_s", fields.duration(0.0, 3600.0)),
    "on_agent_loss": ("on_agent_loss", fields.choice(OnAgentLoss)),
    "max_reassigns": ("max_reassigns", fields.integer(0, 1000)),
    "disconnect_grace": ("disconnect_grace_s", fields.duration(0.0, 7 * 86400.0)),
    "on_disconnect": ("on_disconnect", fields.choice(OnDisconnect)),
    "hosts": ("hosts", fields.words),
    "prefer": ("prefer", fields.preferences),
    "placement": ("placement", fields.choice(Placement)),
    "per_host": ("per_host", fields.boolean),
    "lifecycle": ("lifecycle", fields.choice(Lifecycle)),
    "hosts_for": ("hosts_for", fields.choice(HostsFor)),
    "splay": ("splay_s", fields.duration(0.0, 86400.0)),
    "priority": ("priority", fields.integer(-1_000_000, 1_000_000)),
    "chain": ("chain", read_chain),
    "results": ("results", read_results),
    "workdir": ("workdir", fields.workdir),
    "user": ("user", fields.user),
}

# Maps: a job's entries are added to those of the defaults, and win.
_MERGED: Final[dict[str, _Reader]] = {
    "params": fields.params,
    "env": fields.env,
    "require": fields.labels,
    "keep": fields.keep,
    "retry": fields.retry,
}

_SCHEDULING: Final[dict[str, _Reader]] = {
    "timezone": fields.timezone,
    "state": fields.choice(JobState, JobState.DELETED),
}

KNOWN: Final = [
    "run",
    "schedule",
    "calendars",
    "windows",
    "notify",
    *_SCHEDULING,
    *_PLAIN,
    *_MERGED,
]


def known_entries(value: Value) -> dict[str, Value]:
    """A job's fields (or the defaults'); unknown ones are problems."""
    entries = value.entries("{run: {exec: [/bin/true]}, schedule: {every: 1h}}")
    for name, entry in entries.items():
        if name not in KNOWN:
            entry.refuse(unknown_text("field", name, KNOWN))
    return {name: entry for name, entry in entries.items() if name in KNOWN}


def read_defaults(problems: Problems, value: Value, now_ms: int) -> dict[str, Value]:
    """The defaults' fields, looked through for problems even where no job uses them."""
    defaults = problems.attempt(known_entries, value) or {}
    _read_all(problems, defaults, {}, now_ms, [])
    return defaults


def read_job(
    problems: Problems,
    name: str,
    value: Value,
    defaults: dict[str, Value],
    now_ms: int,
    past: list[PastAt],
) -> list[Job]:
    """The job, and those that its notifications are; nothing, and problems noted, where there is
    anything wrong. Its times that have passed are added to ``past``."""
    before = len(problems)
    problems.attempt(lambda v: fields.read_job_name(v, name), value)
    own = problems.attempt(known_entries, value)
    if own is None:
        return []
    read = _read_all(problems, own, defaults, now_ms, past)
    run = own.get("run", defaults.get("run"))
    if run is None:
        value.refuse("has no run; write e.g. run: {exec: [/bin/true]}")
    elif "run" in read:
        names = [*read.get("params", {}), *BUILTINS]
        check_placeholders(run, read["run"], names)
    if "params" in read:
        at = own.get("params", defaults.get("params", value))
        problems.attempt(lambda v: fields.check_params(v, read["params"]), at)
    if "retry" in read:
        parts, at = read["retry"], own.get("retry", defaults.get("retry", value))
        read["retry"] = problems.attempt(lambda v: fields.retry_of(v, parts), at)
    state = read.get("state", JobState.ENABLED)
    is_scheduled = "schedule" in {*own, *defaults} or any(w.patterns for w in read["windows"])
    has_lifecycle = read.get("lifecycle", Lifecycle.NONE) is not Lifecycle.NONE
    if state is JobState.ENABLED and not is_scheduled and not has_lifecycle:
        value.refuse(
            "has no schedule; give it one, or a lifecycle, or state: ad_hoc_active if it runs on "
            "request only, chain_active if other jobs chain to it"
        )
    if state is JobState.CHAIN_ACTIVE and has_lifecycle:
        own.get("lifecycle", defaults.get("lifecycle", value)).refuse(
            "a job that is chain_active runs at no startup and no shutdown; its state would be "
            "enabled or ad_hoc_active"
        )
    problems.attempt(lambda _: check_hosts(own, defaults, read), value)
    if len(problems) > before:
        return []
    made = [_build(name, read, now_ms)]
    if "notify" in read:
        notices, at = read["notify"], own.get("notify", defaults.get("notify", value))
        made = problems.attempt(lambda _: notified(made[0], notices), at) or []
    return [job for job in made if _fits(job, value)]


def _read_all(
    problems: Problems,
    own: dict[str, Value],
    defaults: dict[str, Value],
    now_ms: int,
    past: list[PastAt],
) -> dict[str, Any]:
    """What could be read, by the fields' names in files."""
    read: dict[str, Any] = {}
    readers: dict[str, _Reader] = {"run": read_action, "notify": read_notify, **_SCHEDULING}
    readers |= {field: reader for field, (_, reader) in _PLAIN.items()}
    splay = place_of_splay(own, defaults)
    for name, reader in readers.items():
        given = splay if name == "splay" else own.get(name, defaults.get(name))
        if given is not None and (made := problems.attempt(reader, given)) is not None:
            read[name] = made
    for name, reader in _MERGED.items():
        for entries in (defaults, own):
            if name in entries and (made := problems.attempt(reader, entries[name])) is not None:
                read[name] = {**read.get(name, {}), **made}
    schedule = own.get("schedule", defaults.get("schedule"))
    if schedule is not None:
        timezone = read.get("timezone", "UTC")
        patterns = problems.attempt(lambda v: read_patterns(v, timezone, now_ms, past), schedule)
        read["schedule"] = patterns or ()
    calendars = read_names(problems, own, defaults)
    read["calendars"] = tuple(dict.fromkeys(item.text() for item in calendars))
    windows = own.get("windows", defaults.get("windows"))
    timezone = read.get("timezone", "UTC")
    read["windows"] = ()
    if windows is not None:
        made = problems.attempt(lambda v: read_windows(v, timezone), windows)
        read["windows"] = made or ()
    return read


def _build(name: str, read: dict[str, Any], now_ms: int) -> Job:
    version = ScheduleVersion(
        since=utc_of(now_ms),
        state=read.get("state", JobState.ENABLED),
        patterns=read.get("schedule", ()),
        timezone=read.get("timezone", "UTC"),
        calendars=read["calendars"],
        windows=read["windows"],
    )
    plain = {record: read[field] for field, (record, _) in _PLAIN.items() if field in read}
    merged = {
        field: read[field] for field in ("params", "env", "require", "retry") if field in read
    }
    return Job(
        name=name,
        run=read["run"],
        versions=(version,),
        keep=fields.keep_of(read.get("keep", {})),
        from_file=True,
        **plain,
        **merged,
    )


def _fits(job: Job, value: Value) -> bool:
    size = len(msgspec.json.encode(job))
    if size > MAX_JOB_BYTES:
        value.refuse(f"takes {size} bytes; a job may take {MAX_JOB_BYTES}")
    return size <= MAX_JOB_BYTES
