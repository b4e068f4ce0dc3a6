"""Jobs for tests, by what matters to the test."""

from __future__ import annotations

from typing import Any

from etcsched.core.records import Job, Noop, Release, Request, RequestKind, ScheduleVersion
from etcsched.core.schedule import Cron, Every, Pattern
from etcsched.core.states import JobState
from etcsched.core.times import Utc

NOON = Utc("2026-11-22T12:00:00.000Z")


def job(
    name: str = "backup",
    *patterns: Pattern,
    every_s: int | None = None,
    cron: str | None = None,
    state: JobState = JobState.ENABLED,
    since: Utc = NOON,
    **fields: Any,
) -> Job:
    if every_s is not None:
        patterns = (*patterns, Every(every_s, NOON))
    if cron is not None:
        patterns = (*patterns, Cron(cron))
    timeline = {
        name: fields.pop(name) for name in ("timezone", "calendars", "windows") if name in fields
    }
    version = ScheduleVersion(since=since, state=state, patterns=patterns, **timeline)
    return Job(name=name, run=Noop(), versions=(version,), **fields)


def trigger(request_id: str, name: str = "backup", **fields: Any) -> Request:
    values = {"at": NOON, **fields}
    return Request(id=request_id, kind=RequestKind.TRIGGER, job=name, by="ada", **values)


def resubmit(request_id: str, run: str, name: str = "backup", **fields: Any) -> Request:
    return Request(
        id=request_id, kind=RequestKind.RESUBMIT, job=name, at=NOON, by="ada", run=run, **fields
    )


def release(request_id: str, run: str, how: Release, name: str = "backup") -> Request:
    return Request(
        id=request_id, kind=RequestKind.RELEASE, job=name, at=NOON, by="ada", run=run, release=how
    )


def cancel(request_id: str, run: str, name: str = "backup") -> Request:
    return Request(id=request_id, kind=RequestKind.CANCEL, job=name, at=NOON, by="ada", run=run)
