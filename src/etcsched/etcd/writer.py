"""Sending an outbox: collected for a moment, several transactions in flight, each sent again until
its answer is definite (DESIGN 4 and 5).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Hashable

from etcsched.core.errors import ClusterUnreachable, InvalidTransaction, NoSpace, OutcomeUnknown
from etcsched.keyspace.ops import Txn, TxnResult
from etcsched.keyspace.outbox import Committed, Outbox, Refused, Rejected, Sending, WriteResult
from etcsched.keyspace.transactions import AgentGuard, LeaderGuard
from etcsched.ports import Etcd

__all__ = ["Committed", "Refused", "Rejected", "WriteResult", "Writer"]

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 2.0
"""A proposal that went to an etcd leader which died is lost without a word: the sooner it is sent
again, the less is late. Sending again is safe at any time, so this may be short."""

_BACKOFF_FIRST_S = 0.05
_BACKOFF_MOST_S = 2.0


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

    The callbacks run in the event loop and mustn't block; ``on_sending`` hears how many writes go
    into a transaction. A new guard needs a new writer.
    """

    def __init__(
        self,
        etcd: Etcd,
        guard: LeaderGuard | AgentGuard,
        on_results: Callable[[list[WriteResult]], None],
        on_guard_refused: Callable[[], None],
        *,
        on_sending: Callable[[int], None] | None = None,
        linger_s: float = 0.002,
        max_in_flight: int = 4,
        timeout_s: float = WRITE_TIMEOUT_S,
    ) -> None:
        self._etcd = etcd
        self._outbox = Outbox(guard)
        self._on_results = on_results
        self._on_guard_refused = on_guard_refused
        self._on_sending = on_sending
        self._linger_s = linger_s
        self._max_in_flight = max_in_flight
        self._timeout_s = timeout_s
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
        return self._outbox.unsettled

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
        self._idle.clear()
        if self._outbox.submit(write_id, txn):
            self._pump()

    def _pump(self) -> None:
        """Send full batches at once, others when their first write has lingered: while nothing is
        in flight, until all that is submitted in this turn of the event loop is here; else longer,
        since etcd has something to do already."""
        if self._group is None or self._over.is_set():
            return
        while self._outbox.has_ready and self._in_flight < self._max_in_flight:
            if not (self._outbox.is_full or self._due):
                if self._lingering is None:
                    loop = asyncio.get_running_loop()
                    linger_s = self._linger_s if self._in_flight else 0.0
                    self._lingering = loop.call_later(linger_s, self._lingered)
                return
            self._due = False
            self._in_flight += 1
            batch = self._outbox.take()
            if self._on_sending is not None:
                self._on_sending(len(batch))
            self._group.create_task(self._commit(batch))

    def _lingered(self) -> None:
        self._lingering = None
        self._due = True
        self._pump()

    async def _commit(self, batch: Sending) -> None:
        """Own one in-flight slot until every write of the batch has its result."""
        parts = [batch]
        while parts and not self._over.is_set():
            part = parts.pop()
            try:
                result = await self._send_until_definite(part)
            except InvalidTransaction as error:
                rejected, halves = self._outbox.rejected(part, error)
                if rejected:
                    log.error("etcd rejects the write %s: %s", rejected[0].id, error)  # noqa: TRY400
                    self._settled(rejected)
                parts += reversed(halves)
                continue
            if result is None:
                continue
            results = self._outbox.answered(part, result)
            if results is None:
                self._refuse()
                continue
            self._settled(results)
        self._in_flight -= 1
        self._pump()

    async def _send_until_definite(self, part: Sending) -> TxnResult | None:
        """None: the guard was found refused meanwhile by another batch, and etcd is away."""
        backoff_s = _BACKOFF_FIRST_S
        unknown = 0
        while True:
            try:
                return await self._etcd.txn(part.txn, timeout_s=self._timeout_s)
            except (OutcomeUnknown, ClusterUnreachable, NoSpace) as error:
                unknown += 1
                if unknown == 1 or unknown % 20 == 0:
                    log.warning("%d writes sent again (%d.): %s", len(part), unknown, error)
            if self._over.is_set():
                return None
            await asyncio.sleep(random.uniform(0.5, 1.0) * backoff_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MOST_S)

    def _settled(self, results: list[WriteResult]) -> None:
        if self._outbox.unsettled == 0:
            self._idle.set()
        self._on_results(results)

    def _refuse(self) -> None:
        if self._over.is_set():
            return
        self.stop()
        self._on_guard_refused()
