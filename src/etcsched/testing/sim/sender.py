"""Sends an outbox as ``etcd.writer`` does."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from etcsched.core.errors import EtcschedError, InvalidTransaction
from etcsched.keyspace.ops import Txn, TxnResult
from etcsched.keyspace.outbox import Refused, Sending, WriteResult
from etcsched.keyspace.transactions import AgentGuard, LeaderGuard
from etcsched.testing.sim.network import Link
from etcsched.testing.sim.parts import Parts

LINGER_S = 0.002
MAX_IN_FLIGHT = 4
WRITE_TIMEOUT_S = 2.0


class Sender:
    def __init__(
        self,
        link: Link,
        parts: Parts,
        guard: LeaderGuard | AgentGuard,
        on_results: Callable[[list[WriteResult]], None],
        on_guard_refused: Callable[[], None],
    ) -> None:
        self._link = link
        self._parts = parts
        self._outbox = parts.outbox(guard)
        self._on_results = on_results
        self._on_guard_refused = on_guard_refused
        self._in_flight = 0
        self._is_lingering = False
        self._is_due = False
        self.is_over = False

    @property
    def unsettled(self) -> int:
        return self._outbox.unsettled

    def stop(self) -> None:
        """Nothing more is sent; what is in flight still gets its answer."""
        self.is_over = True

    def submit(self, write_id: Hashable, txn: Txn) -> None:
        if not self.is_over and self._outbox.submit(write_id, txn):
            self._pump()

    def _pump(self) -> None:
        while not self.is_over and self._outbox.has_ready and self._in_flight < MAX_IN_FLIGHT:
            if not (self._outbox.is_full or self._is_due):
                if not self._is_lingering:
                    self._is_lingering = True
                    self._link.process.after(LINGER_S, self._lingered)
                return
            self._is_due = False
            self._in_flight += 1
            self._send([self._outbox.take()])

    def _lingered(self) -> None:
        self._is_lingering = False
        self._is_due = True
        self._pump()

    def _send(self, parts: list[Sending]) -> None:
        """One in-flight slot, until all of ``parts`` has its results."""
        if not parts or self.is_over:
            self._in_flight -= 1
            self._pump()
            return
        part = parts.pop()
        store, txn = self._link.etcd.store, part.txn
        if self._parts.unknown_is_failure:
            self._link.call(
                lambda: store.txn(txn),
                lambda answer: self._answered(answer, part, parts),
                WRITE_TIMEOUT_S,
                is_write=True,
            )
            return
        self._link.until_definite(
            lambda: lambda: store.txn(txn),
            lambda answer: self._answered(answer, part, parts),
            timeout_s=WRITE_TIMEOUT_S,
            is_write=True,
            give_up=lambda: self.is_over,
        )

    def _answered(
        self, answer: TxnResult | EtcschedError, part: Sending, parts: list[Sending]
    ) -> None:
        match answer:
            case InvalidTransaction():
                rejected, halves = self._outbox.rejected(part, answer)
                self._link.etcd.count("batch bisected")
                if rejected:
                    self._on_results(rejected)
                parts += reversed(halves)
            case TxnResult():
                results = self._outbox.answered(part, answer)
                if results is None:
                    self._refuse()
                else:
                    self._on_results(results)
            case _:
                assert self._parts.unknown_is_failure, answer
                unsent = TxnResult(False, (), 0, 0)
                none = tuple(unsent for _ in range(len(part)))
                failed = self._outbox.answered(part, TxnResult(True, none, 0, 0)) or []
                self._on_results([Refused(result.id, 0, ()) for result in failed])
        self._send(parts)

    def _refuse(self) -> None:
        if not self.is_over:
            self.stop()
            self._on_guard_refused()
