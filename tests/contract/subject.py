"""What the contract suite is run on: the model, and the real client on each etcd there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from etcsched.keyspace.ops import (
    Compare,
    KeyValue,
    Operation,
    Put,
    Range,
    RangeResult,
    Txn,
    TxnResult,
    WatchBatch,
    WatchEvent,
    range_end_of,
)
from etcsched.ports import Etcd, Snapshot, WatchUpdate

DEADLINE_S = 15.0
# Of the clusters and the models of this suite: 1.5 times the election timeout, in whole seconds.
LEAST_TTL_S = 1


class Subject:
    """An etcd and a prefix in it that is the test's own. Keys are given without the prefix."""

    def __init__(
        self,
        etcd: Etcd,
        prefix: str,
        let_pass: Callable[[float], Awaitable[None]],
        cut: Callable[[], Awaitable[None]],
        mend: Callable[[], Awaitable[None]],
        direct: Etcd,
        set_no_space: Callable[[bool], Awaitable[None]],
    ) -> None:
        self.etcd = etcd
        self.prefix = prefix
        self.end = range_end_of(prefix)
        self.let_pass = let_pass
        """Seconds of the subject's own time."""
        self.cut = cut
        """End ``etcd``'s connections and refuse new ones."""
        self.mend = mend
        self.direct = direct
        """Another client of the same etcd, which ``cut`` leaves alone."""
        self.set_no_space = set_no_space
        """Raise or clear the alarm of a full database."""

    def key(self, name: str) -> str:
        return self.prefix + name

    async def put(self, name: str, value: bytes = b"", lease: int = 0) -> int:
        """The revision of the put."""
        return (await self.do(Put(self.key(name), value, lease))).revision

    async def do(self, *operations: Operation) -> TxnResult:
        return await self.etcd.txn(Txn((), operations))

    async def holds(self, *compares: Compare) -> bool:
        return (await self.etcd.txn(Txn(compares, ()))).succeeded

    async def get(self, name: str) -> KeyValue | None:
        result = await self.etcd.range(Range(self.key(name)))
        return result.kvs[0] if result.kvs else None

    async def listing(self, **options: int | bool) -> RangeResult:
        return await self.etcd.range(Range(self.prefix, self.end, **options))  # type: ignore[arg-type]

    async def names(self) -> list[str]:
        return [kv.key.removeprefix(self.prefix) for kv in (await self.listing()).kvs]


async def next_update(updates: AsyncIterator[WatchUpdate]) -> WatchUpdate:
    """The next one that says something: progress notices are left out."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            update = await anext(updates)
            if isinstance(update, Snapshot) or update.events:
                return update


async def next_snapshot(updates: AsyncIterator[WatchUpdate]) -> Snapshot:
    update = await next_update(updates)
    assert isinstance(update, Snapshot), update
    return update


async def next_batches(updates: AsyncIterator[WatchUpdate], revision: int) -> list[WatchBatch]:
    """All up to the one that reaches ``revision``."""
    batches: list[WatchBatch] = []
    while not batches or batches[-1].revision < revision:
        update = await next_update(updates)
        assert isinstance(update, WatchBatch), update
        batches.append(update)
    return batches


async def next_events(updates: AsyncIterator[WatchUpdate], revision: int) -> list[WatchEvent]:
    return [event for batch in await next_batches(updates, revision) for event in batch.events]
