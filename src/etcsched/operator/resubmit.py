"""Resubmitting runs, one or thousands: choosing them, and asking the leader for each.

Each is a request of its own, so what was asked for survives this process and any leader. No more
than a few dozen are open at once, whatever their number, so the leader goes on with its work.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from etcsched.core.errors import NotFound, OutcomeUnknown, Refused
from etcsched.core.records import Answer, Job, Kind, Request, RequestKind, Run
from etcsched.core.states import RunState
from etcsched.core.times import Utc
from etcsched.keyspace.codec import decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, range_end_of
from etcsched.keyspace.transactions import submit_request
from etcsched.operator.settings import read_settings
from etcsched.operator.store import commit, found, pages, read, read_all
from etcsched.ports import Etcd, Snapshot, WatchUpdate

__all__ = ["Asked", "Chosen", "Wanted", "choose", "existing", "resubmit"]

_OPEN_AT_ONCE: Final = 64
_RECORDS_PER_PAGE: Final = 200
"""A record with its attempts and their output takes some ten KiB."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Of what job, with which tags, in what states (none: all that may be resubmitted), and
    scheduled (or asked for) when: since, and before ``until``."""

    job: str | None = None
    tags: tuple[str, ...] = ()
    states: tuple[RunState, ...] = ()
    since: Utc | None = None
    until: Utc | None = None


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest first; and how many were left out, since they have been resubmitted before (or
    that was asked for), or stand for several missed ticks."""

    runs: list[Run]
    again: int = 0
    summaries: int = 0


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    accepted: bool
    message: str
    new_run: str = ""


async def choose(etcd: Etcd, keys: Keys, wanted: Wanted) -> Chosen:
    """``Refused`` for states that the settings don't allow."""
    allowed = (await read_settings(etcd, keys)).resubmit_states
    for state in wanted.states:
        if state not in allowed:
            names = ", ".join(each.value for each in allowed)
            raise Refused(f"runs that are {state.value}: the settings allow {names}")
    jobs = await _jobs_with(etcd, keys, wanted.tags) if wanted.tags else None
    states = wanted.states or allowed
    asked_for = await _asked_for(etcd, keys)
    runs: list[Run] = []
    again = summaries = 0
    span = keys.archive_of(wanted.job)
    async for page in pages(etcd, *span, page_size=_RECORDS_PER_PAGE):
        for kv in page.kvs:
            run = found(Run, kv)
            if run is None or not _is_wanted(run, wanted, states, jobs):
                continue
            if run.resubmitted_as or (run.job, run.id) in asked_for:
                again += 1
            elif run.missed_count > 1:
                summaries += 1
            else:
                runs.append(run)
    runs.sort(key=lambda run: (run.scheduled_at or run.created_at, run.job, run.id))
    return Chosen(runs=runs, again=again, summaries=summaries)


def _is_wanted(
    run: Run, wanted: Wanted, states: Collection[RunState], jobs: set[str] | None
) -> bool:
    at = run.scheduled_at or run.created_at
    return (
        run.state in states
        and (jobs is None or run.job in jobs)
        and (wanted.since is None or at >= wanted.since)
        and (wanted.until is None or at < wanted.until)
    )


async def _jobs_with(etcd: Etcd, keys: Keys, tags: Sequence[str]) -> set[str]:
    names = set()
    async for page in pages(etcd, *keys.all_of(Kind.JOB)):
        for kv in page.kvs:
            job = found(Job, kv)
            if job is not None and all(tag in job.tags for tag in tags):
                names.add(job.name)
    return names


async def _asked_for(etcd: Etcd, keys: Keys) -> set[tuple[str, str]]:
    """What no leader has come to yet."""
    requests = await read_all(etcd, keys.all_of(Kind.REQUEST), Request)
    return {(r.job, r.run) for r in requests if r.kind is RequestKind.RESUBMIT}


async def existing(etcd: Etcd, keys: Keys, runs: Sequence[tuple[str, str]]) -> None:
    """``NotFound`` for the first that isn't there, active or over."""
    places = [
        key for job, run in runs for key in (keys.of(Kind.RUN, job, run), keys.archive(job, run))
    ]
    at_keys, _ = await read(etcd, places, keys_only=True)
    for number, (job, run) in enumerate(runs):
        if at_keys[2 * number] is None and at_keys[2 * number + 1] is None:
            raise NotFound(f"run {job}/{run}: there is none; see etcsched runs list {job}")


async def resubmit(
    etcd: Etcd,
    keys: Keys,
    runs: Sequence[tuple[str, str]],
    *,
    params: dict[str, str],
    force: bool,
    request_id: str,
    now: Utc,
    by: str,
    timeout_s: float,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Asked]:
    """The leader's word on each, in their order. ``progress`` hears how many it has answered.

    ``OutcomeUnknown`` if it answers nothing for ``timeout_s``: what was asked for by then stays.
    """
    requests = [
        Request(
            id=f"{request_id}-{_digest(job, run)}",
            kind=RequestKind.RESUBMIT,
            job=job,
            run=run,
            at=now,
            by=by,
            params=params,
            force=force,
        )
        for job, run in runs
    ]
    answers: dict[str, Answer] = {}
    first = keys.of(Kind.ANSWER, f"{request_id}-")
    asked = 0
    async with etcd.watch(first, range_end_of(first)) as updates:
        news = aiter(updates)
        while len(answers) < len(requests):
            while asked < len(requests) and asked - len(answers) < _OPEN_AT_ONCE:
                # Refused only where it was sent already.
                await commit(etcd, submit_request(keys, requests[asked]), timeout_s=timeout_s)
                asked += 1
            try:
                async with asyncio.timeout(timeout_s):
                    update = await anext(news)
            except TimeoutError:
                raise OutcomeUnknown(
                    f"no leader answered within {timeout_s:g} s: of {len(requests)} runs "
                    f"{len(answers)} are done with, {asked - len(answers)} asked for (they will "
                    "be once a scheduler leads: see etcsched leader), the others aren't; the same "
                    "command again takes up those"
                ) from None
            answers |= {answer.request: answer for answer in _answers_in(update)}
            progress(len(answers))
    return [_asked(request, answers[request.id]) for request in requests]


def _digest(job: str, run: str) -> str:
    return hashlib.sha256(f"{job}/{run}".encode()).hexdigest()[:12]


def _answers_in(update: WatchUpdate) -> list[Answer]:
    kvs = (
        update.kvs
        if isinstance(update, Snapshot)
        else tuple(event.kv for event in update.events if event.type is EventType.PUT)
    )
    return [decode(Answer, kv.value) for kv in kvs]


def _asked(request: Request, answer: Answer) -> Asked:
    return Asked(
        run=f"{request.job}/{request.run}",
        accepted=answer.accepted,
        message=answer.message,
        new_run=f"{request.job}/{answer.run}" if answer.accepted else "",
    )
