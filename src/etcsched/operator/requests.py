"""Asking the leader for something once: it answers in the transaction that does it."""

from __future__ import annotations

import asyncio
from difflib import get_close_matches
from typing import Final

from etcsched.core.errors import NotFound, OutcomeUnknown, Refused
from etcsched.core.records import Answer, Job, Kind, Release, Request, RequestKind
from etcsched.core.states import JobState
from etcsched.core.times import Utc
from etcsched.keyspace.codec import decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType
from etcsched.keyspace.transactions import submit_request
from etcsched.operator.params import check_params
from etcsched.operator.store import commit, found, listed, read
from etcsched.ports import Etcd, Snapshot

__all__ = ["check_active", "check_known", "no_such_job", "release", "trigger"]

_NAMES_LOOKED_THROUGH: Final = 2000
_SIMILAR: Final = 20
_NAMED: Final = 3


async def trigger(
    etcd: Etcd,
    keys: Keys,
    job: str,
    params: dict[str, str],
    *,
    request_id: str,
    now: Utc,
    by: str,
    timeout_s: float,
) -> Answer:
    """Ask for a run now; it exists when this returns, and its id is the request's.

    ``NotFound`` without the job, ``Refused`` for a misspelt parameter, or with the
    leader's reason, ``OutcomeUnknown`` if no leader answered in time (the request stays, and counts
    once one leads).
    """
    record = await check_known(etcd, keys, job)
    if record is not None:
        await check_params(etcd, keys, record, params)
    request = Request(
        id=request_id, kind=RequestKind.TRIGGER, job=job, at=now, by=by, params=params
    )
    return await _ask(etcd, keys, request, timeout_s)


async def release(
    etcd: Etcd,
    keys: Keys,
    job: str,
    run: str,
    as_: Release,
    *,
    request_id: str,
    now: Utc,
    by: str,
    timeout_s: float,
) -> Answer:
    """Say what becomes of a held run.

    ``NotFound`` without the run, ``Refused`` where it is over or isn't held; else as ``trigger``.
    """
    await check_active(etcd, keys, job, run, "held", "released")
    request = Request(
        id=request_id, kind=RequestKind.RELEASE, job=job, at=now, by=by, run=run, release=as_
    )
    return await _ask(etcd, keys, request, timeout_s)


async def check_active(etcd: Etcd, keys: Keys, job: str, run: str, states: str, done: str) -> None:
    """``NotFound`` without the run, ``Refused`` where it is over: only in ``states`` can it be
    ``done``."""
    place = [keys.of(Kind.RUN, job, run), keys.archive(job, run)]
    (active, archived), _ = await read(etcd, place, keys_only=True)
    if active is None and archived is None:
        raise NotFound(f"run {job}/{run}: there is none; see etcsched runs list {job}")
    if active is None:
        raise Refused(
            f"run {job}/{run}: is over already; only one that is {states} can be {done}, see "
            f"etcsched runs show {job}/{run}"
        )


async def no_such_job(etcd: Etcd, keys: Keys, job: str) -> NotFound:
    """The error: it is deleted, or there is none, with names that come near and are there."""
    prefix = keys.of(Kind.JOB)
    span = keys.all_of(Kind.JOB)
    some = await listed(etcd, span, keys_only=True, limit=_NAMES_LOOKED_THROUGH)
    names = [kv.key.removeprefix(prefix) for kv in some]
    similar = [name for name in get_close_matches(job, names, n=_SIMILAR) if name != job]
    kvs, _ = await read(etcd, [keys.of(Kind.JOB, name) for name in (job, *similar)])
    records = [found(Job, kv) for kv in kvs]
    if records[0] is not None and records[0].current.state is JobState.DELETED:
        return NotFound(f"job {job}: is deleted; apply its file again to bring it back")
    near = [
        name
        for name, record in zip(similar, records[1:], strict=True)
        if record is not None and record.current.state is not JobState.DELETED
    ][:_NAMED]
    hint = f"did you mean {' or '.join(near)}?" if near else "see etcsched jobs list"
    return NotFound(f"job {job}: there is none; {hint}")


async def check_known(etcd: Etcd, keys: Keys, job: str) -> Job | None:
    """``NotFound``, with near names, unless the job is there. None: it is, but can't be read."""
    (at_job,), _ = await read(etcd, [keys.of(Kind.JOB, job)])
    record = found(Job, at_job)
    is_deleted = record is not None and record.current.state is JobState.DELETED
    if at_job is None or is_deleted:
        raise await no_such_job(etcd, keys, job)
    return record


async def _ask(etcd: Etcd, keys: Keys, request: Request, timeout_s: float) -> Answer:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    # Refused only where the request or its answer is there: then it was sent already.
    await commit(etcd, submit_request(keys, request), timeout_s=timeout_s)
    try:
        async with asyncio.timeout_at(deadline_s):
            answer = await _answer_to(etcd, keys, request.id)
    except TimeoutError:
        raise OutcomeUnknown(
            f"no leader answered request {request.id} within {timeout_s:g} s; it stays, and will "
            "be answered once a scheduler leads: see etcsched leader"
        ) from None
    if not answer.accepted:
        raise Refused(answer.message)
    return answer


async def _answer_to(etcd: Etcd, keys: Keys, request: str) -> Answer:
    """The leader's word, however long it takes."""
    key = keys.of(Kind.ANSWER, request)
    async with etcd.watch(key, key + "\0") as updates:
        async for update in updates:
            kvs = (
                update.kvs
                if isinstance(update, Snapshot)
                else tuple(e.kv for e in update.events if e.type is EventType.PUT)
            )
            for kv in kvs:
                return decode(Answer, kv.value)
    raise AssertionError("a watch goes on until it is left")
