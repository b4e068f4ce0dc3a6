"""What a record's type can't say: whether its content makes sense where it stands.

Any program with the right to write a key may write nonsense there. A record that fails here counts
as absent and is named, so that one bad record never stops the others.
"""

from __future__ import annotations

import re
from itertools import pairwise

from etcsched.core.calendars import parse_days
from etcsched.core.records import (
    LEAST_HISTORY_BYTES,
    LEAST_RECOVERY_RATE,
    MOST_ACTIVE_AGENTS,
    MOST_HISTORY_BYTES,
    MOST_RECOVERY_RATE,
    Answer,
    Assignment,
    Calendar,
    Candidate,
    ClusterSettings,
    ConflictGroup,
    Drain,
    FanOut,
    Gap,
    Job,
    Join,
    Link,
    Live,
    Order,
    Pause,
    Presence,
    Record,
    Report,
    Request,
    Rotation,
    Run,
    Seat,
    Watermark,
)
from etcsched.core.retry import RETRIED, is_waiting_for_retry
from etcsched.core.schedule.patterns import Cron
from etcsched.core.schedule.schedule import schedule_of
from etcsched.core.schedule.zone import check_timezone
from etcsched.core.states import FINAL, ConditionOp, RunState
from etcsched.core.times import Utc, ms_of

MOST_S = 10 * 365 * 86400.0
"""As job files take it: no time that follows lies beyond the year 9999."""

_LEASE = re.compile(r"[0-9a-f]{1,16}\Z")
_TOKEN = re.compile(r"[0-9]{1,19}\Z")


def problem_with(
    ids: tuple[str, ...], record: Record, *, is_late_report: bool = False
) -> str | None:
    """Why a record makes no sense under the key that ends with these ids; None: it does."""
    named = _names_in(record)
    if named is not None and named != ids[-len(named) :]:
        return f"it is a record of {'/'.join(named)}"
    try:
        for time in _times_in(record):
            ms_of(time)
        match record:
            case Job():
                return _problem_with_job(record)
            case Pause():
                return _problem_with_pause(record)
            case Presence() | Report() | Assignment() | Live() if not _LEASE.match(
                record.incarnation
            ):
                return f"incarnation {record.incarnation!r} is no lease"
            case Watermark():
                ms_of(record.through)
                return None
            case Calendar():
                return _problem_with_calendar(record)
            case ConflictGroup() if len(set(record.jobs)) < len(record.jobs):
                return "a job stands in it twice"
            case ClusterSettings():
                return _problem_with_settings(record)
            case Join() if not record.arrived:
                return "nobody has come to it"
            case Run(state=RunState.RETRYING) if not is_waiting_for_retry(record):
                return "it has no attempt that is retried"
            case Report() if is_late_report and (
                record.outcome is None or not _TOKEN.match(ids[-1])
            ):
                return "a late report names an outcome, and a token in its key"
            case Presence() if record.slots < 0:
                return f"{record.slots} slots"
            case _:
                return None
    except ValueError as error:
        return str(error)


def _times_in(record: Record) -> tuple[Utc, ...]:
    """Those that others than the leader write and it reckons with: their type doesn't know how many
    days a month has. And of what the leader writes, those by which it decides about several jobs or
    agents at a time, so that a hand's would stop them all; a run's stop that run."""
    match record:
        case Candidate(since=since, clock=clock) | Presence(since=since, clock=clock):
            return since, clock
        case Report():
            times = (record.claimed_at, record.started_at, record.ended_at)
            return tuple(time for time in times if time is not None)
        case Request(at=at):
            return (at,)
        case Drain(since=since) | Live(since=since) | FanOut(scheduled_at=since):
            return (since,)
        case Gap(since=since, decided_through=through):
            return since, through
        case _:
            return ()


def _names_in(record: Record) -> tuple[str, ...] | None:
    """What of its key a record repeats."""
    match record:
        case Job(name=name) | Presence(agent=name) | Drain(agent=name) | Request(id=name):
            return (name,)
        case Seat(agent=name) | Live(agent=name):
            return (name,)
        case Answer(request=name) | Gap(job=name) | Rotation(job=name):
            return (name,)
        case ConflictGroup(group=name) | Calendar(name=name):
            return (name,)
        case Join(job=job, instance=instance):
            return (job, instance)
        case Run(job=job, id=run) | Order(job=job, run=run) | FanOut(job=job, run=run):
            return (job, run)
        case Assignment(agent=agent, job=job, run=run):
            return (agent, job, run)
        case _:
            return None


def _problem_with_job(job: Job) -> str | None:
    if not job.versions:
        return "it has no version"
    for version in job.versions:
        ms_of(version.since)
        if version.patterns:
            schedule_of(version.patterns, version.timezone)
        elif any(link.within for link in job.chain):
            check_timezone(version.timezone)  # By its clock its chain goes on, or not.
        for window in version.windows:
            if ms_of(window.until) <= ms_of(window.since):
                return "a window ends before it begins"
            if window.patterns:
                schedule_of(window.patterns, version.timezone)
        if any(before.until > after.since for before, after in pairwise(version.windows)):
            return "its windows overlap, or aren't in the order of their times"
    if any(before.since > after.since for before, after in pairwise(job.versions)):
        return "its versions aren't in the order of their times"
    retry = job.retry
    for seconds in (
        job.pickup_buffer_s, job.recover_within_s, job.timeout_s, job.kill_grace_s,
        job.disconnect_grace_s, job.splay_s, job.keep.age_s,
        retry.interval_s, retry.cap_s, retry.jitter_s,
    ):  # fmt: skip
        if seconds is not None and not 0.0 <= seconds <= MOST_S:
            return f"{seconds:g} s is out of range"
    for outcome in job.retry.on:
        if outcome not in RETRIED:
            return f"nothing is retried that ended {outcome.value}"
    return next((wrong for link in job.chain if (wrong := _problem_with_link(link))), None)


def _problem_with_link(link: Link) -> str | None:
    if link.within:
        schedule_of((Cron(link.within),), "UTC")
    for condition in link.when:
        if condition.op in (ConditionOp.EXISTS, ConditionOp.MISSING):
            continue
        if not condition.values:
            return f"a chain's condition on {condition.name} has no value"
    return None


def _problem_with_calendar(calendar: Calendar) -> str | None:
    if not calendar.versions:
        return "it has no version"
    for version in calendar.versions:
        ms_of(version.since)
        for days in (*version.exclude, *version.include):
            parse_days(days)
    if any(before.since > after.since for before, after in pairwise(calendar.versions)):
        return "its versions aren't in the order of their times"
    return None


def _problem_with_pause(pause: Pause) -> str | None:
    for interval in pause.intervals:
        ms_of(interval.since)
        if interval.until is not None and ms_of(interval.until) < ms_of(interval.since):
            return "an interval ends before it begins"
    if any(before.until is None for before, _ in pairwise(pause.intervals)):
        return "an interval that lasts isn't the last one"
    return None


def _problem_with_settings(settings: ClusterSettings) -> str | None:
    if not LEAST_RECOVERY_RATE <= settings.recovery_rate <= MOST_RECOVERY_RATE:
        return f"no recovery goes at {settings.recovery_rate:g} a second"
    most = settings.max_active_agents
    if most is not None and not 1 <= most <= MOST_ACTIVE_AGENTS:
        return f"{most} active agents"
    if not LEAST_HISTORY_BYTES <= settings.max_history_bytes <= MOST_HISTORY_BYTES:
        return f"{settings.max_history_bytes} bytes of history"
    for state in settings.resubmit_states:
        if state not in FINAL:
            return f"no run ends {state.value}"
    return None
