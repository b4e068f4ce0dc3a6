"""Which ticks come next, those first that are overdue.

The leader decides a tick at once, and moves the watermark every few seconds. So a tick that the
watermark hasn't passed yet is overdue only if no run of it is there, and it fell into no outage:
such ticks wait for that one's end, and may become one record for many.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from etcsched.core.limits import Limits
from etcsched.core.records import CLUSTER, Gap, Job, Kind, Pause
from etcsched.core.timeline import next_tick, ticks
from etcsched.core.times import Utc, ms_of, tick_id, utc_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range, range_end_of
from etcsched.operator.calendars import read_calendars
from etcsched.operator.store import found, listed, read_all, read_ranges
from etcsched.ports import Etcd

__all__ = ["NextTick", "next_ticks"]

_DECIDED_WITHIN_MS: Final = 2_000
_JOBS: Final = 20
"""So many are asked for; if none of them is overdue, the others aren't either."""
_TICKS_OF_A_JOB: Final = 60


class NextTick(msgspec.Struct, frozen=True):
    job: str
    at: Utc


class _Passed(NamedTuple):
    """A job of which a tick is no longer to come: the first one that isn't decided for sure."""

    tick_ms: int
    job: Job
    decided_ms: int


async def next_ticks(
    etcd: Etcd,
    keys: Keys,
    cluster_pause: Pause | None,
    watermark: Utc | None,
    now_ms: int,
    count: int,
) -> list[NextTick]:
    """The nearest, of as many jobs."""
    jobs = await read_all(etcd, keys.all_of(Kind.JOB), Job)
    pauses: dict[str, Pause] = {}
    for kv in await listed(etcd, keys.all_of(Kind.PAUSE)):
        pause, place = found(Pause, kv), keys.parse(kv.key)
        if pause is not None and place is not None and place[1][0] != CLUSTER:
            pauses[place[1][0]] = pause
    calendars = await read_calendars(etcd, keys)
    limits = {job.name: Limits((pauses.get(job.name), cluster_pause), calendars) for job in jobs}
    after_ms = ms_of(watermark) if watermark is not None else now_ms
    passed: list[_Passed] = []
    nearest: dict[str, int] = {}
    gaps = {gap.job: gap for gap in await read_all(etcd, keys.all_of(Kind.GAP), Gap)}
    for job in jobs:
        decided_ms = _decided_ms(gaps.get(job.name), after_ms, now_ms)
        tick_ms = next_tick(job, limits[job.name], decided_ms)
        if tick_ms is not None and tick_ms <= now_ms:
            passed.append(_Passed(tick_ms, job, decided_ms))
            tick_ms = next_tick(job, limits[job.name], now_ms)
        if tick_ms is not None:
            nearest[job.name] = tick_ms
    nearest |= await _overdue(etcd, keys, passed, limits, now_ms)
    upcoming = ((tick_ms, name) for name, tick_ms in nearest.items())
    return [NextTick(name, utc_of(at)) for at, name in heapq.nsmallest(count, upcoming)]


async def _overdue(
    etcd: Etcd,
    keys: Keys,
    passed: Sequence[_Passed],
    limits: dict[str, Limits],
    now_ms: int,
) -> dict[str, int]:
    """The first tick of each job that should have been decided by now, and has no run."""
    through_ms = now_ms - _DECIDED_WITHIN_MS
    first = heapq.nsmallest(_JOBS, passed, key=lambda one: (one.tick_ms, one.job.name))
    asked = [
        (job.name, tick_ms)
        for _, job, decided_ms in first
        for tick_ms in islice(ticks(job, limits[job.name], decided_ms, through_ms), _TICKS_OF_A_JOB)
    ]
    spans = [span for job, tick_ms in asked for span in _of_tick(keys, job, tick_ms)]
    results, _ = await read_ranges(etcd, spans)
    overdue: dict[str, int] = {}
    for place, (job_name, tick_ms) in enumerate(asked):
        if not any(result.count for result in results[2 * place : 2 * place + 2]):
            overdue.setdefault(job_name, tick_ms)
    return overdue


def _decided_ms(gap: Gap | None, watermark_ms: int, now_ms: int) -> int:
    """Through when there is nothing to decide of a job now: what is later than an open account
    waits for the outage's end. A closed one stays until the watermark has passed it."""
    if gap is None:
        return watermark_ms
    return max(watermark_ms, ms_of(gap.decided_through)) if gap.closed else now_ms


def _of_tick(keys: Keys, job: str, tick_ms: int) -> tuple[Range, Range]:
    """Its runs, also one for each host."""
    tick = tick_id(tick_ms)
    keys_of = (keys.of(Kind.RUN, job, tick), keys.archive(job, tick))
    active, archived = (Range(key, range_end_of(key), count_only=True) for key in keys_of)
    return active, archived
