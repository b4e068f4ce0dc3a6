"""Many small writes as few guarded transactions (DESIGN 5).

A leader's and an agent's writes go the same way: collected for a moment, committed as one outer
transaction with one nested transaction each, several of them in flight.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Hashable

import msgspec

from etcsched.core.errors import (
    ClusterUnreachable,
    InvalidTransaction,
    NoSpace,
    OutcomeUnknown,
)
from etcsched.keyspace.ops import OperationResult, Txn, TxnResult
from etcsched.keyspace.transactions import (
    MAX_BYTES,
    MAX_OPERATIONS,
    AgentGuard,
    LeaderGuard,
    cost,
    guarded,
    size_bytes,
    touched,
)
from etcsched.ports import Etcd

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 2.0
"""A proposal that went to an etcd leader which died is lost without a word: the sooner it is sent
again, the less is late. Sending again is safe at any time, so this may be short."""

_BACKOFF_FIRST_S = 0.05
_BACKOFF_MOST_S = 2.0


class Committed(msgspec.Struct, frozen=True, gc=False):
    """Its compares held. ``revision`` is the store's at the commit, so what it put has it as
    mod revision."""

    id: Hashable
    revision: int
    responses: tuple[OperationResult, ...]


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A compare of its own failed; ``responses`` are those of its else branch.

    Also the answer to a write that an earlier, identical sending had committed already.
    """

    id: Hashable
    revision: int
    responses: tuple[OperationResult, ...]


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """etcd doesn't take the form of this write, alone in its transaction; nothing was applied."""

    id: Hashable
    error: InvalidTransaction


WriteResult = Committed | Refused | Rejected


class _Write:
    """``blockers`` counts the keys on which an earlier write is unsettled."""

    __slots__ = ("blockers", "cost", "id", "keys", "size_bytes", "txn")

    def __init__(self, write_id: Hashable, txn: Txn) -> None:
        self.id = write_id
        self.txn = txn
        self.keys = touched(txn)
        self.cost = cost(txn)
        self.size_bytes = size_bytes(txn)
        self.blockers = 0


class Writer:
    """Commits nested transactions under one guard, for as long as that guard holds.

    - Each write gets exactly one result, in batches as their answers come, in no order between
      batches; except that writes which share a key are committed in the order submitted, each
      only after the one before it is settled.
    - Siblings of a batch see the store as it was before the batch: whoever submits keeps writes
      apart of which one compares what another puts.
    - A transaction of unknown outcome is sent again, identically, for ever; so is one that found
      no server, or no space in etcd. A batch that etcd refuses for its form is bisected.
    - Once the guard is refused, ``on_guard_refused`` is called, once; nothing more is sent, and
      submissions are dropped. Answers to what was in flight then still come where they were
      committed. Any other write may or may not have been committed by an earlier sending.

    Both callbacks run in the event loop and mustn't block. A new guard needs a new writer.
    """

    def __init__(
        self,
        etcd: Etcd,
        guard: LeaderGuard | AgentGuard,
        on_results: Callable[[list[WriteResult]], None],
        on_guard_refused: Callable[[], None],
        *,
        linger_s: float = 0.002,
        max_in_flight: int = 4,
        timeout_s: float = WRITE_TIMEOUT_S,
    ) -> None:
        self._etcd = etcd
        self._guard = guard
        self._on_results = on_results
        self._on_guard_refused = on_guard_refused
        self._linger_s = linger_s
        self._max_in_flight = max_in_flight
        self._timeout_s = timeout_s
        self._ready: deque[_Write] = deque()
        self._ready_bytes = 0
        self._queues: dict[str, deque[_Write]] = {}
        self._unsettled = 0
        self._in_flight = 0
        self._lingering: asyncio.TimerHandle | None = None
        self._due = False
        self._group: asyncio.TaskGroup | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._over = asyncio.Event()

    @property
    def unsettled(self) -> int:
        """How many writes have no result yet."""
        return self._unsettled

    async def run(self) -> None:
        """Send what is submitted, until the guard is refused (or ``stop``) and all that is in
        flight is answered.

        Cancel it to stop earlier; writes in flight may or may not be committed then. Raises what
        no waiting can mend (``ClusterRefused``): the first such error.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._pump()
                await self._over.wait()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._group = None
            if self._lingering is not None:
                self._lingering.cancel()
                self._lingering = None

    def stop(self) -> None:
        """Send nothing more; ``run`` returns once all in flight is answered."""
        self._over.set()
        self._idle.set()

    async def settled(self) -> None:
        """Wait until every write has its result, or nothing more is sent."""
        await self._idle.wait()

    def submit(self, write_id: Hashable, txn: Txn) -> None:
        """``write_id`` comes back in the result; the writer gives it no meaning."""
        if self._over.is_set():
            return
        write = _Write(write_id, txn)
        for key in write.keys:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque((write,))
            else:
                queue.append(write)
                write.blockers += 1
        self._unsettled += 1
        self._idle.clear()
        if write.blockers == 0:
            self._enqueue(write)
            self._pump()

    def _enqueue(self, write: _Write) -> None:
        self._ready.append(write)
        self._ready_bytes += write.size_bytes

    def _pump(self) -> None:
        """Send full batches at once, others when their first write has lingered."""
        if self._group is None or self._over.is_set():
            return
        while self._ready and self._in_flight < self._max_in_flight:
            full = len(self._ready) >= MAX_OPERATIONS or self._ready_bytes >= MAX_BYTES
            if not (full or self._due):
                if self._lingering is None:
                    loop = asyncio.get_running_loop()
                    self._lingering = loop.call_later(self._linger_s, self._lingered)
                return
            self._due = False
            self._in_flight += 1
            self._group.create_task(self._commit(self._take()))

    def _lingered(self) -> None:
        self._lingering = None
        self._due = True
        self._pump()

    def _take(self) -> list[_Write]:
        """As many ready writes as one transaction holds, at least one."""
        batch: list[_Write] = []
        most, total_bytes = 0, 0
        while self._ready:
            write = self._ready[0]
            most = max(most, write.cost)
            total_bytes += write.size_bytes
            if batch and (len(batch) + 1 + most > MAX_OPERATIONS or total_bytes > MAX_BYTES):
                break
            batch.append(self._ready.popleft())
            self._ready_bytes -= write.size_bytes
        return batch

    async def _commit(self, batch: list[_Write]) -> None:
        """Own one in-flight slot until every write of the batch has its result."""
        parts = [batch]
        while parts and not self._over.is_set():
            part = parts.pop()
            try:
                result = await self._send_until_definite(part)
            except InvalidTransaction as error:
                if len(part) == 1:
                    log.error("etcd rejects the write %s: %s", part[0].id, error)  # noqa: TRY400
                    self._settle(part, [Rejected(part[0].id, error)])
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                continue
            if result is None:
                continue
            if not result.succeeded:
                self._refuse()
                continue
            answers = zip(part, result.responses, strict=True)
            self._settle(part, [_result_of(write, answer, result) for write, answer in answers])
        self._in_flight -= 1
        self._pump()

    async def _send_until_definite(self, part: list[_Write]) -> TxnResult | None:
        """None: the guard was found refused meanwhile by another batch, and etcd is away."""
        txn = guarded(self._guard, [write.txn for write in part])
        backoff_s = _BACKOFF_FIRST_S
        unknown = 0
        while True:
            try:
                return await self._etcd.txn(txn, timeout_s=self._timeout_s)
            except (OutcomeUnknown, ClusterUnreachable, NoSpace) as error:
                unknown += 1
                if unknown == 1 or unknown % 20 == 0:
                    log.warning("%d writes sent again (%d.): %s", len(part), unknown, error)
            if self._over.is_set():
                return None
            await asyncio.sleep(random.uniform(0.5, 1.0) * backoff_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MOST_S)

    def _settle(self, part: list[_Write], results: list[WriteResult]) -> None:
        for write in part:
            for key in write.keys:
                queue = self._queues[key]
                queue.popleft()
                if not queue:
                    del self._queues[key]
                    continue
                following = queue[0]
                following.blockers -= 1
                if following.blockers == 0:
                    self._enqueue(following)
        self._unsettled -= len(part)
        if self._unsettled == 0:
            self._idle.set()
        self._on_results(results)

    def _refuse(self) -> None:
        if self._over.is_set():
            return
        self.stop()
        self._on_guard_refused()


def _result_of(write: _Write, answer: OperationResult, outer: TxnResult) -> WriteResult:
    assert isinstance(answer, TxnResult)
    kind = Committed if answer.succeeded else Refused
    # etcd fills in the revision of the outermost answer only.
    return kind(write.id, outer.revision, answer.responses)
