"""Many small writes as few guarded transactions (DESIGN 5), purely: what is sent together, what has
to wait, and what an answer means. Whoever owns an outbox does the sending.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

import msgspec

from etcsched.core.errors import InvalidTransaction
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

__all__ = ["Committed", "Outbox", "Refused", "Rejected", "Sending", "WriteResult"]


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
        self.keys = sorted(touched(txn))  # In an order: so what waits for them goes on in one.
        self.cost = cost(txn)
        self.size_bytes = size_bytes(txn)
        self.blockers = 0


class Sending:
    """``txn`` is to be sent, identically, until its answer is definite."""

    __slots__ = ("txn", "writes")

    def __init__(self, writes: list[_Write], txn: Txn) -> None:
        self.writes = writes
        self.txn = txn

    def __len__(self) -> int:
        return len(self.writes)


class Outbox:
    """Writes of one guard. Those that share a key are sent in the order submitted, each only after
    the one before it is settled; the others in no order."""

    def __init__(self, guard: LeaderGuard | AgentGuard) -> None:
        self._guard = guard
        self._ready: deque[_Write] = deque()
        self._ready_bytes = 0
        self._queues: dict[str, deque[_Write]] = {}
        self.unsettled = 0

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    @property
    def is_full(self) -> bool:
        """Whether a transaction's worth is ready."""
        return len(self._ready) >= MAX_OPERATIONS or self._ready_bytes >= MAX_BYTES

    def submit(self, write_id: Hashable, txn: Txn) -> bool:
        """False: it waits for another write."""
        write = _Write(write_id, txn)
        for key in write.keys:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque((write,))
            else:
                queue.append(write)
                write.blockers += 1
        self.unsettled += 1
        if write.blockers == 0:
            self._enqueue(write)
        return write.blockers == 0

    def take(self) -> Sending:
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
        return self._sending(batch)

    def answered(self, sending: Sending, result: TxnResult) -> list[WriteResult] | None:
        """A definite answer; None: the guard is refused, and with it everything."""
        if not result.succeeded:
            return None
        answers = zip(sending.writes, result.responses, strict=True)
        results = [_result_of(write, answer, result) for write, answer in answers]
        self._settle(sending.writes)
        return results

    def rejected(
        self, sending: Sending, error: InvalidTransaction
    ) -> tuple[list[WriteResult], list[Sending]]:
        """etcd won't take its form: which of several writes it is for, its halves tell."""
        writes = sending.writes
        if len(writes) == 1:
            self._settle(writes)
            return [Rejected(writes[0].id, error)], []
        middle = len(writes) // 2
        return [], [self._sending(writes[:middle]), self._sending(writes[middle:])]

    def _sending(self, writes: list[_Write]) -> Sending:
        return Sending(writes, guarded(self._guard, [write.txn for write in writes]))

    def _enqueue(self, write: _Write) -> None:
        self._ready.append(write)
        self._ready_bytes += write.size_bytes

    def _settle(self, writes: list[_Write]) -> None:
        for write in writes:
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
        self.unsettled -= len(writes)


def _result_of(write: _Write, answer: OperationResult, outer: TxnResult) -> WriteResult:
    assert isinstance(answer, TxnResult)
    kind = Committed if answer.succeeded else Refused
    # etcd fills in the revision of the outermost answer only.
    return kind(write.id, outer.revision, answer.responses)
