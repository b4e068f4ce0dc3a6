"""What operators write: requests, and what they want (jobs, calendars, conflict groups, pauses,
drains, settings)."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from etcsched.core.records import (
    Calendar,
    ClusterSettings,
    ConflictGroup,
    Drain,
    Edited,
    Job,
    Kind,
    Pause,
    Request,
)
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, Delete, Put, Range, Relation, Target, Txn


def submit_request(keys: Keys, request: Request) -> Txn:
    """Created only if neither the request nor its answer exists, so that resending is safe."""
    key = keys.of(Kind.REQUEST, request.id)
    answer = keys.of(Kind.ANSWER, request.id)
    return Txn(
        (Compare(key, Target.MOD, 0), Compare(answer, Target.MOD, 0)),
        (Put(key, encode(request)),),
        (Range(key), Range(answer)),
    )


class TicksSeen(msgspec.Struct, frozen=True):
    """The runs and fan-outs of ticks from ``tick`` on, and the gaps, were looked at in
    ``revision``."""

    tick: str
    revision: int


def write_jobs(
    keys: Keys,
    jobs: list[tuple[Job, int]],
    watermark_revision: int,
    ticks: TicksSeen | None = None,
    calendars: Collection[str] = (),
) -> Txn:
    """All of them or none: each as it was seen (0: new), and the watermark too, since each job's
    timeline is counted from it. So it is from what the leader decided ahead of the watermark: no
    run or fan-out of such a tick, and no word on an outage, may have come since they were looked
    at. ``calendars`` must be there: without them the jobs would be due on all days."""
    compares = [Compare(keys.watermark, Target.MOD, watermark_revision)]
    compares += [Compare(keys.of(Kind.JOB, job.name), Target.MOD, seen) for job, seen in jobs]
    if ticks is not None:
        for job, seen in jobs:
            # Nothing was ever due of a job that isn't there.
            compares += _nothing_decided_since(keys, job.name, ticks) if seen else ()
    compares += [
        Compare(keys.of(Kind.CALENDAR, name), Target.CREATE, 0, Relation.GREATER)
        for name in sorted(calendars)
    ]
    puts = [Put(keys.of(Kind.JOB, job.name), encode(job)) for job, _ in jobs]
    return Txn(tuple(compares), (*puts, _edit(keys)))


def write_calendar(
    keys: Keys, calendar: Calendar, seen: int, watermark_revision: int, gaps_revision: int
) -> Txn:
    """As it was seen, and the watermark too, since its timeline is counted from it; and all gaps as
    of ``gaps_revision``."""
    key = keys.of(Kind.CALENDAR, calendar.name)
    return Txn(
        (
            Compare(key, Target.MOD, seen),
            Compare(keys.watermark, Target.MOD, watermark_revision),
            _no_account_since(keys, gaps_revision),
        ),
        (Put(key, encode(calendar)), _edit(keys)),
    )


def delete_calendar(keys: Keys, name: str, seen: int, edited_revision: int) -> Txn:
    """One that no job uses: no job has changed since they were looked at."""
    key = keys.of(Kind.CALENDAR, name)
    return Txn(
        (
            Compare(key, Target.MOD, seen),
            Compare(keys.of(Kind.EDITED), Target.MOD, edited_revision),
        ),
        (Delete(key), _edit(keys)),
    )


def write_pause(
    keys: Keys,
    name: str,
    pause: Pause,
    seen: int,
    watermark_revision: int,
    ticks: TicksSeen | None = None,
    *,
    gaps_revision: int,
) -> Txn:
    """Pause or resume ``name`` (a job, or the cluster), whose record is as seen; so is the
    watermark, since the interval is counted from it; and ``ticks`` of a job, as for its edit,
    or else all gaps as of ``gaps_revision``."""
    key = keys.of(Kind.PAUSE, name)
    compares = [
        Compare(key, Target.MOD, seen),
        Compare(keys.watermark, Target.MOD, watermark_revision),
    ]
    if ticks is not None:
        compares += _nothing_decided_since(keys, name, ticks)
    else:
        compares.append(_no_account_since(keys, gaps_revision))
    return Txn(tuple(compares), (Put(key, encode(pause)), _edit(keys)))


def _no_account_since(keys: Keys, revision: int) -> Compare:
    """Of any outage's ticks."""
    start, end = keys.all_of(Kind.GAP)
    return Compare(start, Target.MOD, revision + 1, Relation.LESS, end)


def _nothing_decided_since(keys: Keys, job: str, ticks: TicksSeen) -> tuple[Compare, ...]:
    since = ticks.revision + 1
    spans = (*keys.runs_from(job, ticks.tick), keys.fan_outs_from(job, ticks.tick))
    decisions = (Compare(start, Target.CREATE, since, Relation.LESS, end) for start, end in spans)
    return (*decisions, Compare(keys.of(Kind.GAP, job), Target.MOD, since, Relation.LESS))


def _edit(keys: Keys) -> Put:
    return Put(keys.of(Kind.EDITED), encode(Edited()))


def write_drain(keys: Keys, drain: Drain, edited_revision: int, seen: int = 0) -> Txn:
    """Where there is none, and nobody has edited anything since: that one isn't there says nothing
    to a copy that a frozen member of etcd commits as it wakes, when this one is long over."""
    key = keys.of(Kind.DRAIN, drain.agent)
    return Txn(
        (
            Compare(key, Target.MOD, seen),
            Compare(keys.of(Kind.EDITED), Target.MOD, edited_revision),
        ),
        (Put(key, encode(drain)), _edit(keys)),
    )


def end_drain(keys: Keys, agent: str, seen: int) -> Txn:
    """The one that was seen, and no later one."""
    key = keys.of(Kind.DRAIN, agent)
    return Txn((Compare(key, Target.MOD, seen),), (Delete(key),))


def write_group(
    keys: Keys,
    group: ConflictGroup,
    seen: int,
    members: list[tuple[str, Job | None, int]],
    edited_revision: int,
) -> Txn:
    """Put a conflict group, as it was seen; for one that isn't there see ``write_drain``. Where it
    gains a job, ``members`` are all of its jobs as they were seen, and are put anew as they are:
    then nothing starts of them any more that was decided without this group, be it by the leader or
    by an agent's claim."""
    key = keys.of(Kind.CONFLICT, group.group)
    compares = [
        Compare(key, Target.MOD, seen),
        Compare(keys.of(Kind.EDITED), Target.MOD, edited_revision),
    ]
    puts = [Put(key, encode(group)), _edit(keys)]
    for name, job, revision in members:
        at_job = keys.of(Kind.JOB, name)
        compares.append(Compare(at_job, Target.MOD, revision))
        if job is not None:
            puts.append(Put(at_job, encode(job)))
    return Txn(tuple(compares), tuple(puts))


def delete_group(keys: Keys, name: str, seen: int) -> Txn:
    key = keys.of(Kind.CONFLICT, name)
    return Txn((Compare(key, Target.MOD, seen),), (Delete(key),))


def write_settings(keys: Keys, settings: ClusterSettings, seen: int) -> Txn:
    key = keys.of(Kind.SETTINGS)
    return Txn((Compare(key, Target.MOD, seen),), (Put(key, encode(settings)),))
