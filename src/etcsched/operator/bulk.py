"""Asking the leader for the same of many runs.

Each is a request of its own, so what was asked for survives this process and any leader. No more
than a few dozen are open at once, whatever their number, so the leader goes on with its work.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from etcsched.core.errors import ClusterRefused, ClusterUnreachable, OutcomeUnknown
from etcsched.core.records import Answer, Kind, Request
from etcsched.keyspace.codec import decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, range_end_of
from etcsched.keyspace.transactions import submit_request
from etcsched.operator.store import commit
from etcsched.ports import Etcd, Snapshot, WatchUpdate

__all__ = ["ask_all", "id_for"]

_OPEN_AT_ONCE: Final = 64


def id_for(request_id: str, job: str, run: str) -> str:
    """Of one of many requests: the same for the same run."""
    return f"{request_id}-{hashlib.sha256(f'{job}/{run}'.encode()).hexdigest()[:12]}"


async def ask_all(
    etcd: Etcd,
    keys: Keys,
    requests: Sequence[Request],
    *,
    request_id: str,
    timeout_s: float,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """The leader's word on each, in their order; their ids are from ``id_for``. ``progress`` hears
    how many it has answered.

    ``OutcomeUnknown`` if it answers nothing for ``timeout_s``, or etcd is gone in between: what was
    asked for by then stays. Each error says how far it came.
    """
    answers: dict[str, Answer] = {}
    first = keys.of(Kind.ANSWER, f"{request_id}-")
    asked = 0
    async with etcd.watch(first, range_end_of(first)) as updates:
        news = aiter(updates)
        while len(answers) < len(requests):
            while asked < len(requests) and asked - len(answers) < _OPEN_AT_ONCE:
                try:
                    # Refused only where it was sent already.
                    await commit(etcd, submit_request(keys, requests[asked]), timeout_s=timeout_s)
                except ClusterUnreachable as error:
                    is_unknown = isinstance(error, OutcomeUnknown)
                    if not asked and not is_unknown:
                        raise
                    so_far = _so_far(len(requests), len(answers), asked, is_unknown)
                    raise OutcomeUnknown(f"{error}: {so_far}") from None
                except ClusterRefused as error:
                    if not asked:
                        raise
                    so_far = _so_far(len(requests), len(answers), asked)
                    raise ClusterRefused(f"{error}: {so_far}") from None
                asked += 1
            try:
                async with asyncio.timeout(timeout_s):
                    update = await anext(news)
            except TimeoutError:
                so_far = _so_far(len(requests), len(answers), asked)
                raise OutcomeUnknown(
                    f"no leader answered within {timeout_s:g} s: {so_far}"
                ) from None
            answers |= {answer.request: answer for answer in _answers_in(update)}
            progress(len(answers))
    return [answers[request.id] for request in requests]


def _so_far(number: int, answered: int, asked: int, perhaps_more: bool = False) -> str:
    more = ", and perhaps one more," if perhaps_more else ""
    return (
        f"of {number} runs {answered} are done with, {asked - answered}{more} asked for (they will "
        "be once a scheduler leads: see etcsched leader), the others aren't; the same command "
        "again takes up those"
    )


def _answers_in(update: WatchUpdate) -> list[Answer]:
    kvs = (
        update.kvs
        if isinstance(update, Snapshot)
        else tuple(event.kv for event in update.events if event.type is EventType.PUT)
    )
    return [decode(Answer, kv.value) for kv in kvs]
