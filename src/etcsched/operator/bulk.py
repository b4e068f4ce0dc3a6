"""Asking the leader for the same of many runs.

Each is a request of its own, so what was asked for survives this process and any leader. No more
than a few dozen are open at once, whatever their number, so the leader goes on with its work.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from etcsched.core.errors import ClusterRefused, ClusterUnreachable, OutcomeUnknown
from etcsched.core.records import Answer, Kind, Request, RequestKind
from etcsched.core.times import Utc
from etcsched.keyspace.codec import decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, range_end_of
from etcsched.keyspace.transactions import submit_request
from etcsched.operator.store import commit
from etcsched.ports import Etcd, Snapshot, WatchUpdate

__all__ = ["Asked", "Asker", "Progress", "ask_all", "id_for"]

_OPEN_AT_ONCE: Final = 64


class Asker(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and by which clock. ``timeout_s`` bounds each write and each wait for the next
    answer."""

    request_id: str
    now: Callable[[], Utc]
    by: str
    timeout_s: float

    def request(self, kind: RequestKind, job: str, run: str) -> Request:
        """Of the run; the same again for the same run."""
        id_ = id_for(self.request_id, job, run)
        return Request(id=id_, kind=kind, job=job, run=run, at=self.now(), by=self.by)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The leader's word on one run."""

    run: str
    accepted: bool
    message: str


class Progress:
    """How far ``ask_all`` has come: what was asked for stays, whatever becomes of who asked."""

    def __init__(self) -> None:
        self.number = 0
        self.asked = 0
        self.answered = 0
        self.is_sending = False
        """Of one more it isn't known whether it was asked for."""

    def __str__(self) -> str:
        waiting = self.asked - self.answered
        rest = self.number - self.asked - self.is_sending
        runs = "run" if self.number == 1 else "runs"
        text = f"of {self.number} {runs} {self.answered} are known to be done"
        if waiting or self.is_sending:
            most = f" or {waiting + 1}" if self.is_sending else ""
            text += f", {waiting}{most} more are asked for (whoever leads does them; see etcsched "
            text += "leader)"
        if rest:
            text += ", the rest aren't"
        return text


def id_for(request_id: str, job: str, run: str) -> str:
    """Of one of many requests: the same for the same run."""
    return f"{request_id}-{hashlib.sha256(f'{job}/{run}'.encode()).hexdigest()[:12]}"


async def ask_all(
    etcd: Etcd,
    keys: Keys,
    asker: Asker,
    requests: Sequence[Request],
    progress: Progress | None = None,
) -> list[Answer]:
    """The leader's word on each, in their order; they are all ``Asker.request``s.

    ``OutcomeUnknown`` if it answers nothing for the timeout, or etcd is gone in between: what was
    asked for by then stays. Each error says how far it came.
    """
    progress = progress or Progress()
    progress.number = len(requests)
    timeout_s = asker.timeout_s
    answers: dict[str, Answer] = {}
    first = keys.of(Kind.ANSWER, f"{asker.request_id}-")
    async with etcd.watch(first, range_end_of(first)) as updates:
        news = aiter(updates)
        while len(answers) < len(requests):
            while (
                progress.asked < len(requests)
                and progress.asked - progress.answered < _OPEN_AT_ONCE
            ):
                # As of its own sending: the leader does nothing that comes half a day after it was
                # asked for, and somebody may confirm them, or wake this machine, that much later.
                request = replace(requests[progress.asked], at=asker.now())
                submit = submit_request(keys, request)
                progress.is_sending = True
                try:
                    # Refused only where it was sent already.
                    await commit(etcd, submit, timeout_s=timeout_s)
                except ClusterUnreachable as error:
                    progress.is_sending = isinstance(error, OutcomeUnknown)
                    if not progress.asked and not progress.is_sending:
                        raise
                    raise OutcomeUnknown(f"{error}: {progress}") from None
                except ClusterRefused as error:
                    progress.is_sending = False
                    if not progress.asked:
                        raise
                    raise ClusterRefused(f"{error}: {progress}") from None
                progress.is_sending = False
                progress.asked += 1
            try:
                async with asyncio.timeout(timeout_s):
                    update = await anext(news)
            except TimeoutError:
                raise OutcomeUnknown(
                    f"no leader answered within {timeout_s:g} s: {progress}"
                ) from None
            answers |= {answer.request: answer for answer in _answers_in(update)}
            progress.answered = len(answers)
    return [answers[request.id] for request in requests]


def _answers_in(update: WatchUpdate) -> list[Answer]:
    kvs = (
        update.kvs
        if isinstance(update, Snapshot)
        else tuple(event.kv for event in update.events if event.type is EventType.PUT)
    )
    return [decode(Answer, kv.value) for kv in kvs]
