"""What one party of a world has seen of the watched range."""

from __future__ import annotations

import random

from etcsched.core.records import Change
from etcsched.keyspace.codec import MalformedRecord, change_of, change_of_event
from etcsched.keyspace.feed import read_or_absent
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import WatchEvent
from etcsched.testing.model_store import ModelStore


class Watcher:
    """Whole revisions, in order. As with etcd's watch, what changes outside of the range doesn't
    move the revision that is seen."""

    def __init__(self, store: ModelStore, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._read_through = 0

    @property
    def has_news(self) -> bool:
        return self._read_through == 0 or bool(self._events())

    def changes(self, chance: random.Random | None = None) -> tuple[tuple[Change, ...], int]:
        """What is new, and the revision up to which it is (with ``chance``: a part of it)."""
        keys = self._keys
        if self._read_through == 0:
            snapshot = self._store.snapshot(keys.watched, keys.watched_end)
            self._read_through = snapshot.revision
            found = [read_or_absent(keys, change_of, kv, _ignored) for kv in snapshot.kvs]
        else:
            events = self._events()
            revisions = [event.kv.mod_revision for event in events]
            self._read_through = revisions[-1] if chance is None else chance.choice(revisions)
            found = [
                read_or_absent(keys, change_of_event, event, _ignored)
                for event in events
                if event.kv.mod_revision <= self._read_through
            ]
        return tuple(change for change in found if change is not None), self._read_through

    def _events(self) -> tuple[WatchEvent, ...]:
        keys = self._keys
        if self._store.revision == self._read_through:
            return ()
        return self._store.events_since(self._read_through + 1, keys.watched, keys.watched_end)


def _ignored(key: str, error: MalformedRecord) -> None:
    """Who reads etcd itself says so (``Feed``)."""
