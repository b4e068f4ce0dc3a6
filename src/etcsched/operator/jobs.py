"""Jobs as people see them: definition, pause, next tick, last run, and what runs now."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Sequence

import msgspec

from etcsched.core.limits import Limits, calendars_of
from etcsched.core.records import CLUSTER, Job, Kind, Pause
from etcsched.core.states import JobState
from etcsched.core.timeline import next_tick
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.keyspace.keys import Keys
from etcsched.operator.calendars import read_calendars
from etcsched.operator.claims import read_claims
from etcsched.operator.explain import read_view, waits_of
from etcsched.operator.requests import no_such_job
from etcsched.operator.runs import RunView, last_of_each, view_of
from etcsched.operator.store import found, listed, pages, read, read_all
from etcsched.ports import Etcd

__all__ = ["JobView", "Pausing", "chaining_to", "list_jobs", "paused_among", "read_job"]


class Pausing(enum.Enum):
    NO = "no"
    JOB = "job"
    CLUSTER = "cluster"


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """``waiting`` and ``running`` count its runs that aren't over: what doesn't run waits, be it
    for its agent's claim, or for a leader to take in how it ended. ``last`` is its newest finished
    one. ``why``: the reason of its open outage, or else that of the first of its runs that wait."""

    name: str
    job: Job
    state: JobState
    pausing: Pausing
    next_tick: Utc | None
    last: RunView | None
    waiting: int
    running: int
    limits: Limits
    why: str = ""


async def list_jobs(
    etcd: Etcd,
    keys: Keys,
    now_ms: int,
    *,
    tags: Sequence[str] = (),
    states: Sequence[JobState] = (),
    limit: int = 0,
) -> tuple[list[JobView], bool]:
    """By name; and whether there are more than ``limit`` (0: all). Every tag must be there."""
    jobs: list[Job] = []
    async for page in pages(etcd, *keys.all_of(Kind.JOB)):
        records = (found(Job, kv) for kv in page.kvs)
        jobs += [
            job for job in records if job is not None and _is_wanted(job, now_ms, tags, states)
        ]
        if limit and len(jobs) > limit:
            break
    has_more = bool(limit) and len(jobs) > limit
    return await _views(etcd, keys, jobs[:limit] if limit else jobs, now_ms), has_more


async def read_job(etcd: Etcd, keys: Keys, name: str, now_ms: int) -> JobView:
    """``NotFound``, with near names, for one that isn't there."""
    (kv,), _ = await read(etcd, [keys.of(Kind.JOB, name)])
    job = found(Job, kv)
    if job is None or job.current.state is JobState.DELETED:
        raise await no_such_job(etcd, keys, name)
    return (await _views(etcd, keys, [job], now_ms))[0]


async def chaining_to(etcd: Etcd, keys: Keys, names: Collection[str]) -> dict[str, list[str]]:
    """The other jobs that go on with one of these, by the one that they do so with."""
    found: dict[str, list[str]] = {}
    for job in await read_all(etcd, keys.all_of(Kind.JOB), Job):
        if job.name not in names and job.current.state is not JobState.DELETED:
            for target in {link.to for link in job.chain} & set(names):
                found.setdefault(target, []).append(job.name)
    return found


async def paused_among(etcd: Etcd, keys: Keys, names: Sequence[str]) -> list[str]:
    """Those that are paused themselves, there or not: a job's pause outlives it, and so holds once
    it is applied again."""
    kvs, _ = await read(etcd, [keys.of(Kind.PAUSE, name) for name in names])
    pauses = zip(names, (found(Pause, kv) for kv in kvs), strict=True)
    return [name for name, pause in pauses if pause is not None and pause.active]


def _is_wanted(job: Job, now_ms: int, tags: Sequence[str], states: Sequence[JobState]) -> bool:
    state = job.current.at(now_ms).state
    if state is JobState.DELETED or (states and state not in states):
        return False
    return all(tag in job.tags for tag in tags)


async def _views(etcd: Etcd, keys: Keys, jobs: Sequence[Job], now_ms: int) -> list[JobView]:
    names = [job.name for job in jobs]
    pauses, _ = await read(etcd, [keys.of(Kind.PAUSE, name) for name in (CLUSTER, *names)])
    cluster_pause, *job_pauses = [found(Pause, kv) for kv in pauses]
    calendars = await read_calendars(etcd, keys, {n for job in jobs for n in calendars_of(job)})
    last = await last_of_each(etcd, keys, names)
    active, running = await _activity(etcd, keys, names)
    waits = await _waits(etcd, keys, names, any(active[n] > running[n] for n in names), now_ms)
    views = []
    for job, pause in zip(jobs, job_pauses, strict=True):
        limits = Limits((pause, cluster_pause), calendars)
        tick = _next(job, limits, now_ms)
        views.append(
            JobView(
                name=job.name,
                job=job,
                state=job.current.at(now_ms).state,
                pausing=_pausing(pause, cluster_pause),
                next_tick=tick,
                last=view_of(last[job.name]) if job.name in last else None,
                waiting=active[job.name] - running[job.name],
                running=running[job.name],
                limits=limits,
                why=waits.get(job.name, ""),
            )
        )
    return views


async def _waits(
    etcd: Etcd, keys: Keys, names: Sequence[str], is_any_waiting: bool, now_ms: int
) -> dict[str, str]:
    """Read only where there is something to explain: it takes all that the leader knows."""
    gaps, _ = await read(etcd, [keys.of(Kind.GAP, name) for name in names], keys_only=True)
    if not is_any_waiting and not any(gaps):
        return {}
    waits = waits_of(await read_view(etcd, keys), now_ms)
    return {**{job: reason.text for job, reason in waits.runs.items()}, **waits.outages}


async def _activity(
    etcd: Etcd, keys: Keys, names: Sequence[str]
) -> tuple[Counter[str], Counter[str]]:
    """By job: how many runs are active, and how many of those run."""
    span = keys.all_of(Kind.RUN, names[0]) if len(names) == 1 else keys.all_of(Kind.RUN)
    active: Counter[str] = Counter()
    for kv in await listed(etcd, span, keys_only=True):
        place = keys.parse(kv.key)
        if place is not None:
            active[place[1][0]] += 1
    claims = await read_claims(etcd, keys, set(names)) if active else []
    return active, Counter(one.run.job for one in claims if one.is_running)


def _next(job: Job, limits: Limits, now_ms: int) -> Utc | None:
    tick_ms = next_tick(job, limits, max(now_ms, ms_of(job.current.since) - 1))
    return utc_of(tick_ms) if tick_ms is not None else None


def _pausing(job: Pause | None, cluster: Pause | None) -> Pausing:
    if cluster is not None and cluster.active:
        return Pausing.CLUSTER
    return Pausing.JOB if job is not None and job.active else Pausing.NO
