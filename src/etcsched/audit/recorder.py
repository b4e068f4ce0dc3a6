"""Follows a cluster's keyspace by a watch of its own, apart from the system that it watches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import groupby

from msgspec.structs import replace

from etcsched.audit.history import Begun, Entry, Hole, Revision, Truth
from etcsched.core.errors import Compacted
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, KeyValue, Range, WatchEvent, range_end_of
from etcsched.ports import Etcd, Snapshot, WatchUpdate

__all__ = ["Recorder", "discreet", "now_ms"]

PAGE = 1000
DELETIONS_WITHIN_S = 10.0
"""What was deleted shows in no listing: its events are waited for."""


class Recorder:
    """``tell`` gets every entry, in order. Whoever has other entries gives them to ``tell`` too,
    after the first.

    From revision 1 where etcd still has it; else from the oldest one that it has, with the
    keyspace as it stood then. A history that is compacted under it is a hole.
    """

    def __init__(
        self, etcd: Etcd, keys: Keys, tell: Callable[[Entry], None], holds: tuple[Truth, ...] = ()
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._tell = tell
        self._holds = holds
        self.revision = 0
        """Everything through it is told."""
        self.began = asyncio.Event()
        self._moved = asyncio.Condition()
        self._failure: BaseException | None = None
        self._past_revision = 0
        self._mod_revisions: dict[str, int] = {}
        """Of each key that is held, by what was told."""

    async def follow(self) -> None:
        """For ever; the caller cancels it. What goes wrong is raised here, and by ``reached``."""
        try:
            await self._follow()
        except BaseException as failure:
            self._failure = failure
            async with self._moved:
                self._moved.notify_all()
            raise

    async def _follow(self) -> None:
        prefix = self._keys.prefix
        held = await self._etcd.range(Range(prefix, range_end_of(prefix), count_only=True))
        self._past_revision = held.revision
        kvs: tuple[KeyValue, ...] = ()
        revision = 0
        while not self.began.is_set():
            try:
                await self._watch_from(kvs, revision)
            except Compacted as gone:
                if self.began.is_set():
                    raise
                kvs, revision = await self._list(gone.compact_revision)

    async def _watch_from(self, kvs: tuple[KeyValue, ...], revision: int) -> None:
        prefix = self._keys.prefix
        async with self._etcd.watch(
            prefix, range_end_of(prefix), prev_kv=True, start_revision=revision + 1
        ) as updates:
            async for update in updates:
                if not self.began.is_set():
                    self._begin(kvs, revision)
                self._take(update)
                async with self._moved:
                    self._moved.notify_all()

    def _begin(self, kvs: tuple[KeyValue, ...], revision: int) -> None:
        prefix, told = self._keys.prefix, tuple(discreet(self._keys, kv) for kv in kvs)
        self._tell(
            Begun(at_ms=now_ms(), prefix=prefix, revision=revision, kvs=told, holds=self._holds)
        )
        self.revision = revision
        self._mod_revisions = {kv.key: kv.mod_revision for kv in kvs}
        self.began.set()

    def _take(self, update: WatchUpdate) -> None:
        at_ms = now_ms()
        if isinstance(update, Snapshot):
            self._tell(Hole(at_ms=at_ms, reason="history was compacted under the recorder"))
            self.revision = update.revision
            return
        for revision, events in groupby(update.events, lambda event: event.kv.mod_revision):
            seen_ms = at_ms if revision > self._past_revision else 0
            told = tuple(_discreet_event(self._keys, event) for event in events)
            for event in told:
                if event.type is EventType.PUT:
                    self._mod_revisions[event.kv.key] = revision
                else:
                    self._mod_revisions.pop(event.kv.key, None)
            self._tell(Revision(revision=revision, at_ms=seen_ms, events=told))
        self.revision = update.revision

    async def _list(self, revision: int) -> tuple[tuple[KeyValue, ...], int]:
        """All keys as they stood at this revision, page by page."""
        key, end = self._keys.prefix, range_end_of(self._keys.prefix)
        found: list[KeyValue] = []
        while True:
            page = await self._etcd.range(Range(key, end, limit=PAGE, revision=revision))
            found += page.kvs
            if not page.more:
                return tuple(found), revision
            key = page.kvs[-1].key + "\0"

    async def reached(self, revision: int) -> None:
        """Until everything through this revision, which changed a key, is told."""
        async with self._moved:
            await self._moved.wait_for(
                lambda: self._failure is not None or self.revision >= revision
            )
        if self._failure is not None:
            raise self._failure

    async def catch_up(self) -> int:
        """Until everything that etcd holds now is told, and adds up to that; else that is a hole.
        The last revision that is told."""
        prefix = self._keys.prefix
        held = await self._etcd.range(Range(prefix, range_end_of(prefix), keys_only=True))
        await self.reached(max((kv.mod_revision for kv in held.kvs), default=0))
        theirs = {kv.key: kv.mod_revision for kv in held.kvs}
        try:
            async with asyncio.timeout(DELETIONS_WITHIN_S), self._moved:
                await self._moved.wait_for(lambda: not self._differing(theirs, held.revision))
        except TimeoutError:
            differing = self._differing(theirs, held.revision)
            reason = f"the recorder missed what happened to {', '.join(differing[:3])}"
            self._tell(Hole(at_ms=now_ms(), reason=reason))
        return self.revision

    def _differing(self, theirs: dict[str, int], revision: int) -> list[str]:
        """Keys that etcd held otherwise at this revision; those that changed since say nothing."""
        mine = self._mod_revisions
        return sorted(
            key
            for key in theirs.keys() | mine.keys()
            if theirs.get(key) != mine.get(key)
            and mine.get(key, 0) <= revision
            and (key in mine or self.revision <= revision)
        )


def discreet(keys: Keys, kv: KeyValue) -> KeyValue:
    """As it is recorded: a recording is handed around, so it has no tokens."""
    return replace(kv, value=b"") if kv.key.startswith(keys.access_prefix) else kv


def _discreet_event(keys: Keys, event: WatchEvent) -> WatchEvent:
    if not event.kv.key.startswith(keys.access_prefix):
        return event
    before = discreet(keys, event.prev) if event.prev is not None else None
    return replace(event, kv=discreet(keys, event.kv), prev=before)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
