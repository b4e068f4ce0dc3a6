"""The language of etcd's key-value store, as plain values.

Shapes follow etcd's rpc.proto. Keys are text here and bytes on the wire; values are bytes.
A range is [key, range_end); ``range_end`` None means the single key.
"""

from __future__ import annotations

import enum

import msgspec


class Target(enum.Enum):
    """Which property of a key a compare looks at. A key that doesn't exist has revisions,
    version and lease 0; a compare of its value is always false."""

    __hash__ = object.__hash__  # Members are singletons; enum's own is Python, and slow.

    CREATE = "create"
    MOD = "mod"
    VERSION = "version"
    VALUE = "value"
    LEASE = "lease"


class Relation(enum.Enum):
    __hash__ = object.__hash__

    EQUAL = "="
    NOT_EQUAL = "!="
    GREATER = ">"
    LESS = "<"


class Compare(msgspec.Struct, frozen=True):
    """``target(key) relation operand``; the operand is bytes for VALUE, else an integer.

    Of a range every key must hold; an empty one is compared as one key that doesn't exist.
    """

    key: str
    target: Target
    operand: int | bytes
    relation: Relation = Relation.EQUAL
    range_end: str | None = None


class Put(msgspec.Struct, frozen=True):
    key: str
    value: bytes
    lease: int = 0


class Delete(msgspec.Struct, frozen=True):
    key: str
    range_end: str | None = None


class Range(msgspec.Struct, frozen=True):
    """Sorted by key, ascending. ``revision`` 0 is the newest; ``limit`` 0 is none.

    ``newest_first``: by mod revision, descending, and so the limit cuts the oldest; etcd reads and
    sorts the whole range for that.
    """

    key: str
    range_end: str | None = None
    limit: int = 0
    revision: int = 0
    keys_only: bool = False
    count_only: bool = False
    newest_first: bool = False


class Txn(msgspec.Struct, frozen=True):
    """If all compares hold, ``then``, else ``otherwise``. Operations may be Txns (nested ones)."""

    compares: tuple[Compare, ...]
    then: tuple[Operation, ...]
    otherwise: tuple[Operation, ...] = ()

    @property
    def only_reads(self) -> bool:
        return all(
            isinstance(each, Range) or (isinstance(each, Txn) and each.only_reads)
            for each in (*self.then, *self.otherwise)
        )


Operation = Put | Delete | Range | Txn


class KeyValue(msgspec.Struct, frozen=True):
    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


class RangeResult(msgspec.Struct, frozen=True):
    """``count`` is how many keys the range holds, ``more`` whether the limit cut it."""

    kvs: tuple[KeyValue, ...]
    count: int
    more: bool
    revision: int
    raft_term: int


class PutResult(msgspec.Struct, frozen=True):
    revision: int


class DeleteResult(msgspec.Struct, frozen=True):
    deleted: int
    revision: int


class TxnResult(msgspec.Struct, frozen=True):
    """``revision`` is the store's at the commit; ``responses`` stand in the order of the branch's
    operations."""

    succeeded: bool
    responses: tuple[OperationResult, ...]
    revision: int
    raft_term: int


OperationResult = RangeResult | PutResult | DeleteResult | TxnResult


class EventType(enum.Enum):
    PUT = "put"
    DELETE = "delete"


class WatchEvent(msgspec.Struct, frozen=True):
    """One change. A deletion's ``kv`` has the key and the deletion's mod_revision, no value;
    ``prev`` is there only where the watch asked for previous values."""

    type: EventType
    kv: KeyValue
    prev: KeyValue | None = None


class WatchBatch(msgspec.Struct, frozen=True):
    """All changes of the watched range up to and including ``revision``, from after the batch
    before. A revision is never split over two batches. No events: a progress notice.

    ``late_through``: what is of a revision up to this one wasn't seen as it was written: the watch
    was away, and has made up for it."""

    events: tuple[WatchEvent, ...]
    revision: int
    late_through: int = 0

    def seen_late(self, through: int) -> WatchBatch:
        """As a watch tells it that was opened as the store was at revision ``through``."""
        if not self.events or self.events[0].kv.mod_revision > through:
            return self
        return msgspec.structs.replace(self, late_through=through)


class Snapshot(msgspec.Struct, frozen=True):
    """The whole range as it stood at ``revision``; it replaces whatever was known before.

    First update of every watch, and again whenever history was compacted away under it: keys
    known before and absent here were deleted in between.
    """

    kvs: tuple[KeyValue, ...]
    revision: int


WatchUpdate = Snapshot | WatchBatch


def range_end_of(prefix: str) -> str:
    """The end of the range that holds all keys with this prefix (last character + 1)."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
