"""A model of etcd's keys through all their revisions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import NamedTuple

from etcsched.core.errors import Compacted, Refused
from etcsched.keyspace.ops import EventType, KeyValue, WatchEvent
from etcsched.testing.txn_rules import ALL_FROM_KEY, in_range

__all__ = ["History"]


class _Version(NamedTuple):
    """A key from ``revision`` on; None: deleted."""

    revision: int
    kv: KeyValue | None


class _Commit(NamedTuple):
    """What one revision changed, in order. The events carry previous values."""

    revision: int
    events: list[WatchEvent]


class History:
    """``revision`` is the newest, ``compact_revision`` the oldest that can be read.

    Writes go between ``begin``, which opens the next revision, and ``commit``.
    """

    def __init__(self, revision: int = 1) -> None:
        self.revision = revision
        self.compact_revision = 0
        self._live: dict[str, KeyValue] = {}
        self._live_keys: list[str] = []
        self._versions: dict[str, list[_Version]] = {}
        self._commits: list[_Commit] = []
        self._events: list[WatchEvent] = []

    @property
    def last_events(self) -> list[WatchEvent]:
        """Of the newest commit."""
        return self._commits[-1].events if self._commits else []

    def get(self, key: str) -> KeyValue | None:
        return self._live.get(key)

    def keys(self, start: str, end: str | None) -> list[str]:
        """Those that exist now."""
        if not end:
            return [start] if start in self._live else []
        first = bisect_left(self._live_keys, start)
        last = len(self._live_keys)
        if end != ALL_FROM_KEY:
            last = bisect_left(self._live_keys, end)
        return self._live_keys[first:last]

    def kvs(self, start: str, end: str | None, revision: int = 0) -> list[KeyValue]:
        """As of ``revision``; 0: now."""
        if revision in (0, self.revision):
            return [self._live[key] for key in self.keys(start, end)]
        found = []
        for key in sorted(self._versions):
            if in_range(key, start, end):
                versions = self._versions[key]
                newest = bisect_right(versions, revision, key=_revision_of) - 1
                if newest >= 0 and (kv := versions[newest].kv) is not None:
                    found.append(kv)
        return found

    def check_revision(self, revision: int) -> None:
        """Raise where it can't be read."""
        if revision > self.revision:
            raise Refused("required revision is a future revision")
        if 0 < revision < self.compact_revision:
            raise Compacted("required revision has been compacted", self.compact_revision)

    def events_since(
        self, revision: int, start: str, end: str | None, *, prev_kv: bool
    ) -> tuple[WatchEvent, ...]:
        if revision < self.compact_revision:
            raise Compacted("required revision has been compacted", self.compact_revision)
        first = bisect_left(self._commits, revision, key=_revision_of)
        if not end:
            end = f"{start}\0" if start else ""  # Right behind the single key.
        everything = end == ALL_FROM_KEY
        found: list[WatchEvent] = []
        for commit in self._commits[first:]:
            with_prev = prev_kv and commit.revision > self.compact_revision
            for event in commit.events:
                key = event.kv.key
                if start <= key and (key < end or everything):
                    found.append(event if with_prev else WatchEvent(event.type, event.kv))
        return tuple(found)

    def begin(self) -> None:
        self.revision += 1
        self._events = []

    def put(self, key: str, value: bytes, lease: int) -> None:
        before = self._live.get(key)
        kv = KeyValue(
            key=key,
            value=value,
            create_revision=before.create_revision if before else self.revision,
            mod_revision=self.revision,
            version=before.version + 1 if before else 1,
            lease=lease,
        )
        if before is None:
            insort(self._live_keys, key)
        self._live[key] = kv
        self._events.append(WatchEvent(EventType.PUT, kv, self._value_before(key)))
        self._versions.setdefault(key, []).append(_Version(self.revision, kv))

    def delete(self, key: str) -> None:
        """The key must exist."""
        tombstone = KeyValue(
            key=key, value=b"", create_revision=0, mod_revision=self.revision, version=0, lease=0
        )
        self._events.append(WatchEvent(EventType.DELETE, tombstone, self._value_before(key)))
        self._versions[key].append(_Version(self.revision, None))
        del self._live[key]
        del self._live_keys[bisect_left(self._live_keys, key)]

    def commit(self) -> None:
        self._commits.append(_Commit(self.revision, self._events))

    def compact(self, revision: int) -> None:
        """Forget what was overwritten or deleted at or before ``revision``."""
        if revision <= self.compact_revision:
            raise Compacted("required revision has been compacted", self.compact_revision)
        self.check_revision(revision)
        self.compact_revision = revision
        del self._commits[: bisect_left(self._commits, revision, key=_revision_of)]
        for key, versions in list(self._versions.items()):
            kept_from = bisect_right(versions, revision, key=_revision_of) - 1
            if kept_from >= 0 and versions[kept_from].kv is None:
                kept_from += 1
            del versions[: max(kept_from, 0)]
            if not versions:
                del self._versions[key]

    def _value_before(self, key: str) -> KeyValue | None:
        """As the revision before this one left it."""
        for version in reversed(self._versions.get(key, ())):
            if version.revision < self.revision:
                return version.kv
        return None


def _revision_of(item: _Version | _Commit) -> int:
    return item.revision
