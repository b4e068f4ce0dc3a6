"""Runs as people see them: where each stands, newest first."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Final

import msgspec

from etcsched.core.errors import NotFound, UsageError
from etcsched.core.missed import is_summary, place_of
from etcsched.core.records import Kind, Report, Run
from etcsched.core.running import shown_state
from etcsched.core.states import FINAL, Origin, Outcome, RunState
from etcsched.core.times import Utc, ms_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, Range
from etcsched.operator.choosing import Wanted, is_plain_tick, jobs_of, time_by_id, time_of
from etcsched.operator.store import found, listed, pages, read, read_ranges
from etcsched.ports import Etcd

__all__ = [
    "NewestRuns",
    "RunView",
    "archived_keys",
    "last_of_each",
    "list_active",
    "list_runs",
    "newest_of_all",
    "pages_of_records",
    "parse_run_name",
    "read_run",
    "read_some",
    "record_of_tick",
    "view_of",
]

_REST: Final = 19
_RECORDS_PER_PAGE: Final = 200
"""A record with its attempts and their output takes some ten KiB."""
_RECORDS_LEAST: Final = 20
"""Fewer aren't worth a request."""


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run with what follows from its claim. ``lateness_ms``: from the time it was scheduled for
    to its first process's start, where both are known. ``started_at`` of one that runs is when its
    agent claimed it, right before the process. ``reported``: how the current attempt ended
    by its agent's word, until a leader has taken that in; the run is ``assigned`` till then."""

    name: str
    state: RunState
    run: Run
    agent: str = ""
    started_at: Utc | None = None
    ended_at: Utc | None = None
    lateness_ms: int | None = None
    reported: Outcome | None = None

    @property
    def at(self) -> Utc:
        """What lists sort by: when it was due, or asked for."""
        return time_of(self.run)


def parse_run_name(name: str) -> tuple[str, str]:
    """``job/id``, as every list names a run."""
    job, _, run = name.partition("/")
    if not job or not run or "/" in run:
        raise UsageError(f"{name!r} names no run; write job/id, e.g. close_books/20261122T190000Z")
    return job, run


def view_of(run: Run, report: Report | None = None) -> RunView:
    """``report`` is the agent's claim on the current attempt, if it has made one."""
    state, reported = run.state, None
    began = run.first_that_ran
    if report is not None and report.attempt == run.attempt and run.state is RunState.ASSIGNED:
        state = shown_state(run, report)
        reported = report.outcome
        ended_at, agent = report.ended_at, run.agent
        first = began.started_at if began is not None else report.started_at
        # Its agent tells when the process started with how it ended.
        claimed_at = report.claimed_at if report.outcome is None else None
        started_at = report.started_at or claimed_at
    else:
        last = run.last_attempt
        agent = run.agent or (last.agent if last is not None else "")
        # Of one that waits, what its attempts took is over, and it isn't.
        is_over = last is not None and state in FINAL
        started_at = last.started_at if last is not None and is_over else None
        ended_at = last.ended_at if last is not None and is_over else None
        first = began.started_at if began is not None else None
    late = run.origin is Origin.SCHEDULE and run.scheduled_at is not None and first is not None
    return RunView(
        name=f"{run.job}/{run.id}",
        state=state,
        run=run,
        agent=agent,
        started_at=started_at,
        ended_at=ended_at,
        lateness_ms=ms_of(first) - ms_of(run.not_before or run.scheduled_at)
        if late and run.scheduled_at is not None and first is not None
        else None,
        reported=reported,
    )


async def read_run(etcd: Etcd, keys: Keys, job: str, run: str) -> RunView:
    """``NotFound`` where there is none (any more). Of a missed tick that shares a record with
    others, that one."""
    place = [keys.of(Kind.RUN, job, run), keys.archive(job, run)]
    (active, archived), revision = await read(etcd, place)
    kv = active or archived
    record = found(Run, kv)
    if record is None:
        record = await record_of_tick(etcd, keys, job, run)
    if record is None:
        raise NotFound(f"run {job}/{run}: there is none; see etcsched runs list {job}")
    return (await _with_claims(etcd, keys, [record], revision))[0]


async def record_of_tick(etcd: Etcd, keys: Keys, job: str, run: str) -> Run | None:
    """The record of several missed ticks of which this is one. No tick of its job that has a record
    of its own lies in between, so it is the last that begins before."""
    if not is_plain_tick(run):
        return None
    first, _ = keys.archive_of(job)
    last = ""
    async for page in pages(etcd, first, keys.archive(job, run), keys_only=True):
        places = [(keys.parse_archive(kv.key), kv.key) for kv in page.kvs]
        last = next((k for place, k in reversed(places) if place and is_plain_tick(place[1])), last)
    if not last:
        return None
    (kv,), _ = await read(etcd, [last])
    record = found(Run, kv)
    is_in = record is not None and is_summary(record) and place_of(record, run) is not None
    return record if is_in else None


async def read_some(
    etcd: Etcd, keys: Keys, places: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], RunView]:
    """Those of these runs (job, id) that are there."""
    wanted = [
        key for job, run in places for key in (keys.of(Kind.RUN, job, run), keys.archive(job, run))
    ]
    kvs, revision = await read(etcd, wanted)
    records = [run for kv in kvs if (run := found(Run, kv)) is not None]
    views = await _with_claims(etcd, keys, records, revision)
    return {(view.run.job, view.run.id): view for view in views}


async def list_runs(etcd: Etcd, keys: Keys, wanted: Wanted, *, limit: int = 20) -> list[RunView]:
    """Newest first: what is active, and what fits of what is over."""
    jobs = await jobs_of(etcd, keys, wanted)
    views = {view.name: view for view in await _active(etcd, keys, wanted, jobs)}
    # After the active ones: what ends in between is in both, and then it is over.
    archived = await _archived(etcd, keys, wanted, jobs, limit)
    views |= {view.name: view for view in archived}
    return sorted(views.values(), key=_newest, reverse=True)[:limit]


async def list_active(etcd: Etcd, keys: Keys, wanted: Wanted) -> list[RunView]:
    """Newest first: what waits and what runs."""
    jobs = await jobs_of(etcd, keys, wanted)
    return sorted(await _active(etcd, keys, wanted, jobs), key=_newest, reverse=True)


def _newest(view: RunView) -> tuple[Utc, str]:
    return view.at, view.name


async def _active(
    etcd: Etcd, keys: Keys, wanted: Wanted, jobs: Collection[str] | None
) -> list[RunView]:
    span = keys.all_of(Kind.RUN) if wanted.job is None else keys.all_of(Kind.RUN, wanted.job)
    runs = [run for kv in await listed(etcd, span) if (run := found(Run, kv)) is not None]
    views = await _with_claims(etcd, keys, [run for run in runs if jobs is None or run.job in jobs])
    return [view for view in views if wanted.has(view.run, view.state, view.agent)]


async def _archived(
    etcd: Etcd, keys: Keys, wanted: Wanted, jobs: Collection[str] | None, limit: int
) -> list[RunView]:
    """The newest first, as many as are asked for."""
    if wanted == Wanted():
        places, are_all = await _over_last(etcd, keys, limit + _RECORDS_PER_PAGE)
        views, is_certain = await _newest_among(etcd, keys, places, wanted, limit)
        if is_certain or are_all:
            return views
    places = await archived_keys(etcd, keys, wanted, jobs)
    return (await _newest_among(etcd, keys, places, wanted, limit))[0]


async def _newest_among(
    etcd: Etcd, keys: Keys, places: Sequence[str], wanted: Wanted, limit: int
) -> tuple[list[RunView], bool]:
    """Of the wanted ones of these, over last first, those that were due last; and whether it is
    certain that none further back was due later. Records are read only as far as needed, and no
    more of them kept than are asked for."""
    page_size = _RECORDS_PER_PAGE
    if wanted == Wanted(job=wanted.job):
        # All of a page are wanted, so a second one of these mostly is the last.
        page_size = min(max(limit, _RECORDS_LEAST), _RECORDS_PER_PAGE)
    views: list[RunView] = []
    for start in range(0, len(places), page_size):
        page = places[start : start + page_size]
        if len(views) == limit:
            # Of the last it is asked when it was over, however old its id says that it is.
            page = [key for key in page[:-1] if _may_be_newer(keys, key, views[-1])] + [page[-1]]
        kvs, _ = await read(etcd, page)
        runs = [run for kv in kvs if (run := found(Run, kv)) is not None]
        of_page = [view_of(run) for run in runs]
        views += [view for view in of_page if wanted.has(view.run, view.state, view.agent)]
        views.sort(key=_newest, reverse=True)
        del views[limit:]
        since = views[-1].at if len(views) == limit else wanted.since
        # A run is due before it is over (a resubmission, as its original was, long before), so all
        # further back was due before the page's last was over.
        if runs and since is not None and runs[-1].since < since:
            return views, True
    return views, False


def _may_be_newer(keys: Keys, key: str, than: RunView) -> bool:
    place = keys.parse_archive(key)
    at = time_by_id(place[1]) if place is not None else None
    return place is None or at is None or (at, "/".join(place)) > _newest(than)


async def _over_last(etcd: Etcd, keys: Keys, count: int) -> tuple[list[str], bool]:
    """Keys of at most so many runs, over last first, and whether these are all. It costs etcd, not
    us, in proportion to the whole history."""
    span = Range(*keys.archive_of(), limit=count, keys_only=True, newest_first=True)
    kvs = (await etcd.range(span)).kvs
    are_all = len(kvs) < count
    # What was added to later is among these, too, and what was over after it may not be.
    certain = 0 if are_all else kvs[-1].mod_revision
    found_at = sorted(((kv.create_revision, kv.key) for kv in kvs), reverse=True)
    return [key for revision, key in found_at if revision >= certain], are_all


async def archived_keys(
    etcd: Etcd, keys: Keys, wanted: Wanted, jobs: Collection[str] | None
) -> list[str]:
    """Keys of what may be wanted, over last first: a record's key is there since it was over,
    whatever was added to it later."""
    found_at: list[tuple[int, str]] = []
    before: dict[str, tuple[int, str]] = {}
    takes_missed = not wanted.agent and (not wanted.states or RunState.MISSED in wanted.states)
    async for page in pages(etcd, *keys.archive_of(wanted.job), keys_only=True):
        for kv in page.kvs:
            place = keys.parse_archive(kv.key)
            if place is None:
                continue
            job, run = place
            if jobs is not None and job not in jobs:
                continue
            if wanted.may_have(run):
                found_at.append((kv.create_revision, kv.key))
            elif takes_missed and is_plain_tick(run) and wanted.is_before(run):
                before[job] = kv.create_revision, kv.key
    # Where a job's last record before that is of several ticks, later ones of these may be wanted.
    found_at += before.values()
    found_at.sort(reverse=True)
    return [key for _, key in found_at]


async def pages_of_records(etcd: Etcd, places: Sequence[str]) -> AsyncIterator[list[Run]]:
    """Those that are still there."""
    for start in range(0, len(places), _RECORDS_PER_PAGE):
        kvs, _ = await read(etcd, places[start : start + _RECORDS_PER_PAGE])
        yield [run for kv in kvs if (run := found(Run, kv)) is not None]


async def last_of_each(etcd: Etcd, keys: Keys, jobs: Sequence[str]) -> dict[str, Run]:
    """Of each job the finished run with the latest id, if there is one. Lists keys only: a job's
    history is as long as its ``keep`` allows."""
    spans = [Range(*keys.archive_of(job), keys_only=True) for job in jobs]
    histories, _ = await read_ranges(etcd, spans)
    kvs, _ = await read(etcd, [history.kvs[-1].key for history in histories if history.kvs])
    return {run.job: run for kv in kvs if (run := found(Run, kv)) is not None}


async def newest_of_all(etcd: Etcd, keys: Keys, count: int) -> list[Run]:
    """Those that were over last, or added to (a link to a resubmission, a late report), whatever
    their job. It costs etcd, not us, in proportion to the whole history."""
    span = keys.archive_of()
    newest = await etcd.range(Range(*span, limit=count, keys_only=True, newest_first=True))
    at_keys, _ = await read(etcd, [kv.key for kv in newest.kvs])
    return [run for kv in at_keys if (run := found(Run, kv)) is not None]


class NewestRuns:
    """``newest_of_all`` for whoever looks again and again: asked anew only as often as its cost
    allows, which is a twentieth of etcd's time."""

    def __init__(self, count: int = 200) -> None:
        self._count = count
        self._runs: list[Run] = []
        self._stale_s = 0.0

    async def read(self, etcd: Etcd, keys: Keys) -> list[Run]:
        began_s = time.monotonic()
        if began_s >= self._stale_s:
            self._runs = await newest_of_all(etcd, keys, self._count)
            ended_s = time.monotonic()
            self._stale_s = ended_s + _REST * (ended_s - began_s)
        return self._runs


async def _with_claims(
    etcd: Etcd, keys: Keys, runs: Sequence[Run], revision: int = 0
) -> list[RunView]:
    working = [run for run in runs if run.state is RunState.ASSIGNED]
    places = [keys.of(Kind.REPORT, run.agent, run.job, run.id) for run in working]
    kvs, _ = await read(etcd, places, revision=revision)
    claims = _claims(kv for kv in kvs if kv is not None)
    return [view_of(run, claims.get((run.job, run.id))) for run in runs]


def _claims(kvs: Iterable[KeyValue]) -> dict[tuple[str, str], Report]:
    reports = (found(Report, kv) for kv in kvs)
    return {(report.job, report.run): report for report in reports if report is not None}
