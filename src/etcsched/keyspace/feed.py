"""From what a watch delivers to what a view takes in, purely."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from etcsched.core.records import Change, Kind
from etcsched.core.view import View
from etcsched.keyspace.codec import MalformedRecord, change_of, change_of_event
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, Snapshot, WatchBatch, WatchEvent, WatchUpdate

HOW_TO_MEND: Final = (
    "etcdctl get --rev shows what it was; never delete the watermark, since everything from the "
    "first apply on would be decided anew (docs/operations.md, An unreadable watermark)"
)

S = TypeVar("S", KeyValue, WatchEvent)


class Feed:
    """Keeps ``view`` at what has come by. After a snapshot in the middle (history was compacted
    away) the deletions that nobody told of are derived.

    A value that isn't a record counts as absent, and ``on_malformed`` is told its key and why.
    ``unreadable`` are the kinds, without which nobody can lead, that are so now.
    """

    def __init__(
        self,
        keys: Keys,
        view: View,
        on_malformed: Callable[[str, MalformedRecord], None],
        read_kv: Callable[[Keys, KeyValue], Change | None] = change_of,
        read_event: Callable[[Keys, WatchEvent], Change | None] = change_of_event,
    ) -> None:
        self.view = view
        self._keys = keys
        self._on_malformed = on_malformed
        self._read_kv = read_kv
        self._read_event = read_event
        self._unreadable: set[Kind] = set()

    @property
    def unreadable(self) -> tuple[str, ...]:
        return tuple(sorted(kind.value for kind in self._unreadable))

    def take(self, update: WatchUpdate) -> tuple[Change, ...]:
        """The changes that the view has then taken in."""
        changes = self._changes(update)
        self.view.apply(changes, update.revision)
        for change in changes:
            if change.kind in (Kind.TERM, Kind.WATERMARK):
                # Not told of a deletion: a value that can't be read was created once.
                if change.record is None and change.create_revision:
                    self._unreadable.add(change.kind)
                else:
                    self._unreadable.discard(change.kind)
        return changes

    def _changes(self, update: WatchUpdate) -> tuple[Change, ...]:
        match update:
            case Snapshot():
                found = read_all(self._keys, self._read_kv, update.kvs, self._on_malformed)
                return tuple(self.view.differences(found, update.revision))
            case WatchBatch():
                return read_all(self._keys, self._read_event, update.events, self._on_malformed)


def read_all(
    keys: Keys,
    read: Callable[[Keys, S], Change | None],
    raws: Iterable[S],
    on_malformed: Callable[[str, MalformedRecord], None],
) -> tuple[Change, ...]:
    """Of each what ``read_or_absent`` has, but for what is no record's."""
    changes = (read_or_absent(keys, read, raw, on_malformed) for raw in raws)
    return tuple(change for change in changes if change is not None)


def read_or_absent(
    keys: Keys,
    read: Callable[[Keys, S], Change | None],
    raw: S,
    on_malformed: Callable[[str, MalformedRecord], None],
) -> Change | None:
    """As ``read`` has it. A value that can't be read counts as absent; unlike a deletion's, its
    change has a create revision."""
    try:
        return read(keys, raw)
    except MalformedRecord as error:
        kv = raw.kv if isinstance(raw, WatchEvent) else raw
        on_malformed(kv.key, error)
        place = keys.parse(kv.key)
        if place is None:
            return None
        return Change(
            kind=place[0],
            ids=place[1],
            record=None,
            mod_revision=kv.mod_revision,
            create_revision=kv.create_revision,
        )
