"""Every event of one cluster's keys, from the first revision on, by a watcher of the tests' own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from typing import Protocol, TypeVar

from etcsched.core.records import Kind, Record, Run
from etcsched.etcd.client import EtcdClient
from etcsched.keyspace.codec import RECORD_TYPES, decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, KeyValue, Range, WatchEvent, range_end_of
from etcsched.ports import Snapshot, WatchUpdate

T = TypeVar("T")
R = TypeVar("R", bound=Record)
PATIENCE_S = 20.0


class Judge(Protocol):
    def judge(
        self, revision: int, events: list[WatchEvent], before: Mapping[str, KeyValue]
    ) -> None: ...


class Gap(AssertionError):
    """The recorder missed an event: whatever else the test says means nothing."""


class History:
    """``now`` is the keyspace at ``revision``. Each revision goes to ``judge`` with the keyspace
    before it; each event's previous value must be what was recorded, or the record has a gap."""

    def __init__(self, etcd: EtcdClient, keys: Keys, judge: Judge) -> None:
        self._etcd = etcd
        self._keys = keys
        self._judge = judge
        self.now: dict[str, KeyValue] = {}
        self.archive: dict[tuple[str, str], Run] = {}
        """Every run that ever was in the archive, as it was last, by job and id."""
        self.events: list[WatchEvent] = []
        self.seen_s: dict[int, float] = {}
        """When each revision was seen: Unix time."""
        self.changed_at: dict[str, int] = {}
        """The revision of each key's last event."""
        self.revision = 0
        self._failure: BaseException | None = None
        self._moved = asyncio.Condition()

    async def follow(self) -> None:
        """For ever. What goes wrong is raised by whoever waits."""
        prefix = self._keys.prefix
        try:
            async with self._etcd.watch(
                prefix, range_end_of(prefix), prev_kv=True, start_revision=1
            ) as updates:
                async for update in updates:
                    self._take_all(update)
                    async with self._moved:
                        self._moved.notify_all()
        except Exception as failure:
            self._failure = failure
            async with self._moved:
                self._moved.notify_all()

    def _take_all(self, update: WatchUpdate) -> None:
        if isinstance(update, Snapshot):
            raise Gap("history was compacted under the recorder")
        for revision, events in groupby(update.events, lambda event: event.kv.mod_revision):
            self._take(revision, list(events))
        self.revision = update.revision

    def _take(self, revision: int, events: list[WatchEvent]) -> None:
        for event in events:
            if event.prev != self.now.get(event.kv.key):
                raise Gap(f"{event.kv.key} at {revision}: {event.prev} went before, unseen")
        self._judge.judge(revision, events, self.now)
        for event in events:
            self.changed_at[event.kv.key] = revision
            if event.type is EventType.PUT:
                self.now[event.kv.key] = event.kv
                if event.kv.key.startswith(self._keys.archive_prefix):
                    place = self._keys.parse_archive(event.kv.key)
                    self.archive[place] = decode(Run, event.kv.value)
            else:
                del self.now[event.kv.key]
        self.events += events
        self.seen_s[revision] = time.time()

    async def until(
        self, look: Callable[[], T | None], what: str, within_s: float = PATIENCE_S
    ) -> T:
        """The first answer that is neither None nor False, asked anew with each revision."""
        try:
            async with asyncio.timeout(within_s), self._moved:
                while True:
                    if self._failure is not None:
                        raise self._failure
                    found = look()
                    if found is not None and found is not False:
                        return found
                    await self._moved.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within_s:g} s: {what}") from None

    async def reached(self, revision: int) -> None:
        await self.until(lambda: self.revision >= revision, f"revision {revision}")

    async def check_complete(self) -> None:
        """Everything up to now is recorded, and adds up, event by event, to what etcd holds."""
        prefix = self._keys.prefix
        held = await self._etcd.range(Range(prefix, range_end_of(prefix)))
        await self.reached(max((kv.mod_revision for kv in held.kvs), default=0))
        for kv in held.kvs:
            mine = self.now.get(kv.key)
            changed_since = self.changed_at.get(kv.key, 0) > held.revision
            if mine != kv and not changed_since:
                raise Gap(f"{kv.key}: etcd holds {kv}, recorded was {mine}")

    def tell(self) -> str:
        """All events with the time at which they were seen, for whoever looks into a failure."""
        lines = []
        for event in self.events:
            at = datetime.fromtimestamp(self.seen_s[event.kv.mod_revision], UTC)
            lines.append(
                f"{at:%H:%M:%S.%f} {event.kv.mod_revision} {event.type.value} {event.kv.key} "
                f"{event.kv.value.decode()}"
            )
        return "\n".join(lines)

    # --- reading

    def records(self, kind: Kind, type_: type[R]) -> dict[tuple[str, ...], R]:
        """The current ones by the ids in their keys."""
        assert RECORD_TYPES[kind] is type_
        return {
            ids: decode(type_, kv.value)
            for kv, ids in self._of_kind(kind)
        }  # fmt: skip

    def ids(self, kind: Kind) -> set[tuple[str, ...]]:
        return {ids for _, ids in self._of_kind(kind)}

    def record(self, kind: Kind, type_: type[R], *ids: str) -> R | None:
        kv = self.now.get(self._keys.of(kind, *ids))
        return decode(type_, kv.value) if kv is not None else None

    def _of_kind(self, kind: Kind) -> Iterator[tuple[KeyValue, tuple[str, ...]]]:
        for key, kv in self.now.items():
            place = self._keys.parse(key)
            if place is not None and place[0] is kind:
                yield kv, place[1]
