"""A watcher apart from the system: every event of the keyspace, from the first revision on."""

from __future__ import annotations

import asyncio

from etcsched.core.records import Run
from etcsched.etcd.client import EtcdClient
from etcsched.keyspace.codec import decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, WatchBatch, range_end_of


class Recorder:
    """Follows the archive. ``entries`` counts how often each run was put there anew: a rewrite of
    a record that is there (a late report, folded in) isn't a new entry."""

    def __init__(self, etcd: EtcdClient, keys: Keys) -> None:
        self._etcd = etcd
        self._keys = keys
        self.runs: dict[tuple[str, str], Run] = {}
        self.entries: dict[tuple[str, str], int] = {}
        self.terms: list[str] = []
        self.revision = 0
        self._moved = asyncio.Condition()

    async def follow(self) -> None:
        """For ever; the caller cancels it."""
        prefix = self._keys.prefix
        async with self._etcd.watch(prefix, range_end_of(prefix), start_revision=1) as updates:
            async for update in updates:
                assert isinstance(update, WatchBatch), "history was compacted under the recorder"
                self._take(update)
                async with self._moved:
                    self._moved.notify_all()

    def _take(self, batch: WatchBatch) -> None:
        for event in batch.events:
            if event.type is not EventType.PUT:
                continue
            if event.kv.key.startswith(self._keys.archive_prefix):
                key = self._keys.parse_archive(event.kv.key)
                self.runs[key] = decode(Run, event.kv.value)
                if event.kv.version == 1:
                    self.entries[key] = self.entries.get(key, 0) + 1
        self.revision = batch.revision

    async def reached(self, revision: int) -> None:
        """Wait until everything up to this revision is recorded."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.revision >= revision)

    def archived(self) -> list[tuple[Run, int]]:
        return [(run, self.entries.get(key, 0)) for key, run in self.runs.items()]
