"""``notify``: a command on chosen final states, as a chained job of its own.

So a notification is a run like any other: it is made in the transaction that ends what it tells
of, tried again where it fails, and seen. Its job is ``<job>.notify``, the next ``<job>.notify2``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from etcsched.core.durations import format_duration
from etcsched.core.records import Action, Job, Link, Retry
from etcsched.core.states import JobState, Overlap, RunState
from etcsched.jobfile.chains import MAX_LINKS, read_final_states
from etcsched.jobfile.fields import check_known, duration, read_job_name
from etcsched.jobfile.nodes import FieldError, Value
from etcsched.jobfile.placeholders import BUILTINS
from etcsched.jobfile.schedules import check_placeholders, read_action
from etcsched.jobfile.writing import action_of

__all__ = [
    "Notice",
    "is_notification",
    "notifications_of",
    "notified",
    "read_notify",
    "told_of",
]

_DEFAULT_ON: Final = (
    RunState.FAILED,
    RunState.TIMED_OUT,
    RunState.DIED,
    RunState.ABANDONED,
    RunState.MISSED,
)
_RETRY: Final = Retry(max=5, interval_s=30.0, exponential=True, cap_s=600.0)
_BUFFER_S: Final = 3600.0
_NAME: Final = re.compile(r"(.+)\.notify[0-9]*")
_TIMEOUT_S: Final = 60.0


class Notice(msgspec.Struct, frozen=True):
    """One notification as written; ``value`` is its place, ``run`` that of its command."""

    value: Value
    run: Value
    action: Action
    on: tuple[RunState, ...]
    timeout_s: float


def read_notify(value: Value) -> tuple[Notice, ...]:
    """One notification or a list of them."""
    items = value.items("[{run: {exec: [/usr/bin/alert]}}]") if value.is_list() else [value]
    return tuple(_read(item) for item in items)


def _read(value: Value) -> Notice:
    entries = value.entries("{on: [failed], run: {exec: [/usr/bin/alert]}}")
    if "webhook" in entries:
        raise FieldError(
            entries["webhook"],
            "isn't there yet; write run: {exec: [curl, -fsS, -d, "
            "'{source_job}/{source_run} {source_state}', URL]}",
        )
    check_known(entries, ["on", "run", "timeout"])
    if "run" not in entries:
        raise FieldError(value, "has no run; write e.g. run: {exec: [/usr/bin/alert]}")
    return Notice(
        value,
        entries["run"],
        read_action(entries["run"]),
        read_final_states(entries["on"]) if "on" in entries else _DEFAULT_ON,
        duration(0.001, 3600.0)(entries["timeout"]) if "timeout" in entries else _TIMEOUT_S,
    )


def notified(job: Job, notices: tuple[Notice, ...]) -> list[Job]:
    """The job with links to its notifications, and these. ``FieldError`` where that can't be."""
    made: list[Job] = []
    links: list[Link] = []
    for number, notice in enumerate(notices, start=1):
        name = _name(job, number)
        read_job_name(notice.value, name)
        check_placeholders(notice.run, notice.action, [*job.params, *job.results, *BUILTINS])
        links.append(Link(to=name, on=notice.on))
        made.append(_notification(job, name, notice.action, notice.timeout_s))
    chain = (*job.chain, *links)
    if len(chain) > MAX_LINKS:
        text = f"makes {len(chain)} links with the chain; {MAX_LINKS} are allowed"
        raise FieldError(notices[0].value, text)
    return [replace(job, chain=chain), *made]


def told_of(name: str) -> str:
    """The job whose notification has this name; empty: no notification has."""
    found = _NAME.fullmatch(name)
    return found[1] if found is not None else ""


def is_notification(job: Job) -> bool:
    """Made by a ``notify``, as it says itself, whatever has become of the job that it tells of."""
    about = told_of(job.name)
    return bool(about) and job.description == _description(about)


def notifications_of(job: Job, jobs: Mapping[str, Job]) -> dict[str, dict[str, Any]]:
    """The other way round: which of ``jobs`` are this one's notifications, each by its name and as
    a file's ``notify`` says it. The last links of the job's chain are theirs."""
    found: dict[str, dict[str, Any]] = {}
    for number in range(1, len(job.chain) + 1):
        name = _name(job, number)
        links = [link for link in job.chain if link.to == name]
        other = jobs.get(name)
        if other is None or len(links) != 1 or links[0] != Link(to=name, on=links[0].on):
            break
        timeout_s = other.timeout_s or 0.0
        expected = _notification(job, name, other.run, timeout_s)
        if timeout_s <= 0 or not _is_as_written(other, expected):
            break
        notice = {"on": [state.value for state in links[0].on], "run": action_of(other.run)}
        if timeout_s != _TIMEOUT_S:
            notice["timeout"] = format_duration(timeout_s)
        found[name] = notice
    is_last = [link.to for link in job.chain[len(job.chain) - len(found) :]] == list(found)
    return found if is_last else {}


def _is_as_written(job: Job, expected: Job) -> bool:
    """Apart from what the cluster adds."""
    current = replace(expected.current, since=job.current.since)
    return (
        replace(job, versions=(current,), changed_by="", unknown=None)
        == replace(expected, versions=(current,))
        and current == job.current
    )


def _name(job: Job, number: int) -> str:
    return f"{job.name}.notify" + (f"{number}" if number > 1 else "")


def _description(job: str) -> str:
    return f"tells how runs of {job} ended"


def _notification(job: Job, name: str, action: Action, timeout_s: float) -> Job:
    """Neither the job's windows nor its calendars say anything of when people are told."""
    version = replace(
        job.current, state=JobState.CHAIN_ACTIVE, patterns=(), calendars=(), windows=()
    )
    return Job(
        name=name,
        run=action,
        versions=(version,),
        description=_description(job.name),
        owner=job.owner,
        tags=job.tags,
        overlap=Overlap.ALLOW,
        pickup_buffer_s=_BUFFER_S,
        timeout_s=timeout_s,
        retry=_RETRY,
        params=dict.fromkeys(job.results, ""),
        env=job.env,
        workdir=job.workdir,
        user=job.user,
        keep=job.keep,
        from_file=True,
    )
