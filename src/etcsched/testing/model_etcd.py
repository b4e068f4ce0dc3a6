"""``ports.Etcd`` over a ``ModelStore``: for whoever needs an etcd in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from etcsched.core.errors import ClusterUnreachable, Compacted, OutcomeUnknown
from etcsched.keyspace.ops import Range, RangeResult, Txn, TxnResult, WatchBatch
from etcsched.ports import LeaseInfo, MemberStatus, WatchUpdate
from etcsched.testing.model_store import ModelStore

__all__ = ["ModelEtcd"]


class ModelEtcd:
    """One client's connection to a store that others may share.

    Time passes only where somebody calls ``store.advance``. Between ``cut`` and ``mend`` every
    call fails at once, as unknown or unreachable, and watches learn of nothing.
    """

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self._connected = asyncio.Event()
        self._connected.set()

    def cut(self) -> None:
        self._connected.clear()

    def mend(self) -> None:
        self._connected.set()

    async def txn(self, txn: Txn, *, timeout_s: float = 5.0) -> TxnResult:
        if txn.only_reads:
            self._check_read()
        else:
            self._check_write()
        return self.store.txn(txn)

    async def range(self, request: Range, *, timeout_s: float = 5.0) -> RangeResult:
        self._check_read()
        return self.store.range(request)

    @asynccontextmanager
    async def watch(
        self, key: str, range_end: str, *, prev_kv: bool = False, start_revision: int = 0
    ) -> AsyncIterator[AsyncIterator[WatchUpdate]]:
        changed = asyncio.Event()
        unsubscribe = self.store.subscribe(changed.set)
        updates = self._updates(key, range_end, prev_kv, start_revision, changed)
        try:
            yield updates
        finally:
            unsubscribe()
            await updates.aclose()

    async def _updates(
        self, key: str, range_end: str, prev_kv: bool, start_revision: int, changed: asyncio.Event
    ) -> AsyncGenerator[WatchUpdate, None]:
        next_revision = start_revision
        while True:
            await self._connected.wait()
            changed.clear()
            if next_revision == 0:
                snapshot = self.store.snapshot(key, range_end)
                next_revision = snapshot.revision + 1
                yield snapshot
                continue
            compact_revision = self.store.compact_revision
            if next_revision <= compact_revision:
                if start_revision:
                    raise Compacted("required revision has been compacted", compact_revision)
                next_revision = 0
                continue
            events = self.store.events_since(next_revision, key, range_end, prev_kv=prev_kv)
            next_revision = max(next_revision, self.store.revision + 1)
            if events:
                yield WatchBatch(events, events[-1].kv.mod_revision)
            else:
                await changed.wait()

    async def lease_grant(self, ttl_s: int, *, lease: int = 0, timeout_s: float = 5.0) -> LeaseInfo:
        self._check_write()
        return self.store.lease_grant(ttl_s, lease)

    async def lease_keepalive_once(self, lease: int, *, timeout_s: float = 5.0) -> LeaseInfo:
        self._check_write()
        return self.store.lease_keepalive(lease)

    async def lease_revoke(self, lease: int, *, timeout_s: float = 5.0) -> None:
        self._check_write()
        self.store.lease_revoke(lease)

    async def lease_time_to_live(self, lease: int, *, timeout_s: float = 5.0) -> LeaseInfo:
        self._check_read()
        return self.store.lease_time_to_live(lease)

    async def compact(self, revision: int, *, timeout_s: float = 5.0) -> None:
        self._check_write()
        self.store.compact(revision)

    async def status(self, *, timeout_s: float = 2.0) -> tuple[MemberStatus, ...]:
        if not self._connected.is_set():
            return (MemberStatus("model", error="cut off"),)
        return (
            MemberStatus(
                "model",
                version="3.5.0",
                member_id=1,
                leader_id=1,
                raft_term=self.store.raft_term,
                revision=self.store.revision,
                alarms=("NOSPACE",) if self.store.no_space else (),
            ),
        )

    async def close(self) -> None:
        return

    def _check_read(self) -> None:
        if not self._connected.is_set():
            raise ClusterUnreachable("the model of etcd is cut off")

    def _check_write(self) -> None:
        if not self._connected.is_set():
            raise OutcomeUnknown("the model of etcd is cut off")
