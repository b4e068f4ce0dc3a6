"""A model of etcd's store: transactions and leases, in virtual time.

Synchronous, deterministic and without any I/O, so that a simulator can put time and faults around
it. What it answers, etcd answers: tests/contract holds both to one suite.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, assert_never

from etcsched.core.errors import InvalidTransaction, LeaseGone, NoSpace, Refused
from etcsched.keyspace.ops import (
    Compare,
    Delete,
    DeleteResult,
    KeyValue,
    OperationResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
    WatchEvent,
)
from etcsched.ports import LeaseInfo, Snapshot
from etcsched.testing.model_history import History
from etcsched.testing.txn_rules import MAX_REQUEST_BYTES, MAX_TXN_OPS, check_form

__all__ = ["ModelStore", "next_look_s"]

LEAST_TTL_S = 2
MOST_TTL_S = 9_000_000_000
EXPIRY_LOOK_S = 0.5
"""How often etcd looks for expired leases; one lives until the first look after its end."""


class _Lease:
    __slots__ = ("expires_s", "keys", "look_s", "ttl_s")

    def __init__(self, ttl_s: int) -> None:
        self.ttl_s = ttl_s
        self.expires_s = 0.0
        self.look_s = 0.0
        self.keys: set[str] = set()


class _Path(NamedTuple):
    """A transaction once its compares are decided: only the operations that will happen."""

    succeeded: bool
    steps: tuple[Put | Delete | Range | _Path, ...]


class ModelStore:
    """``now_s`` is virtual and moves only by ``advance``. ``no_space`` is the alarm of that name,
    for whoever drives the model to raise and clear; ``rejects`` are transactions whose form it
    doesn't take beyond those that no etcd does. Without a leader (``lose_leader``) nothing
    expires; that nothing is answered then either is for whoever drives the model to see to.

    Errors are those of ``core.errors``; a call that raises has changed nothing.
    """

    def __init__(
        self,
        *,
        now_s: float = 0.0,
        revision: int = 1,
        raft_term: int = 2,
        least_ttl_s: int = LEAST_TTL_S,
        max_txn_ops: int = MAX_TXN_OPS,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        self.now_s = now_s
        self.raft_term = raft_term
        self.no_space = False
        self.rejects: Callable[[Txn], bool] | None = None
        self.has_leader = True
        self._least_ttl_s = least_ttl_s
        self._max_txn_ops = max_txn_ops
        self._max_request_bytes = max_request_bytes
        self._history = History(revision)
        self._leases: dict[int, _Lease] = {}
        self._looks: list[tuple[float, int]] = []
        """Heap of when a lease may have expired; entries of renewed leases are stale."""
        self._last_lease = 0
        self._listeners: list[Callable[[], None]] = []

    @property
    def revision(self) -> int:
        return self._history.revision

    @property
    def compact_revision(self) -> int:
        return self._history.compact_revision

    @property
    def lease_count(self) -> int:
        return len(self._leases)

    # Keys

    def txn(self, txn: Txn) -> TxnResult:
        check_form(txn, self._max_txn_ops, self._max_request_bytes)
        if self.rejects is not None and self.rejects(txn):
            raise InvalidTransaction("rejected as a fault")
        if self.no_space and _puts(txn):
            raise NoSpace("database space exceeded")
        path = self._decide(txn)
        steps = list(_flattened(path))
        self._check_taken(steps)
        changes = any(self._changes(step) for step in steps)
        if changes:
            self._history.begin()
        result = self._apply(path)
        if changes:
            self._commit()
        return result

    def range(self, request: Range) -> RangeResult:
        if not request.key:
            raise InvalidTransaction("key is not provided")
        self._history.check_revision(request.revision)
        return self._range(request)

    def compact(self, revision: int) -> None:
        """Forget what was overwritten or deleted at or before ``revision``, which itself can still
        be read."""
        self._history.compact(revision)

    # Changes

    def snapshot(self, key: str, range_end: str | None) -> Snapshot:
        return Snapshot(tuple(self._history.kvs(key, range_end)), self.revision)

    def events_since(
        self, revision: int, key: str, range_end: str | None, *, prev_kv: bool = False
    ) -> tuple[WatchEvent, ...]:
        """All changes of a range at and after ``revision``, in order. A previous value that is
        compacted away is left out, as etcd does."""
        return self._history.events_since(revision, key, range_end, prev_kv=prev_kv)

    @property
    def last_events(self) -> list[WatchEvent]:
        """What the newest revision changed, with previous values."""
        return self._history.last_events

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each new revision, until the function returned is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # Leases

    def lease_grant(self, ttl_s: int, lease: int = 0) -> LeaseInfo:
        """``lease`` 0: the store chooses. A short ``ttl_s`` is raised to the store's least."""
        if self.no_space:
            raise NoSpace("database space exceeded")
        if ttl_s > MOST_TTL_S:
            raise Refused("too large lease TTL")
        if lease in self._leases:
            raise Refused("lease already exists")
        while lease == 0 or lease in self._leases:
            self._last_lease += 1
            lease = self._last_lease
        self._leases[lease] = granted = _Lease(max(ttl_s, self._least_ttl_s))
        self._renew(lease, granted)
        return LeaseInfo(lease, granted.ttl_s, self.raft_term)

    def lease_keepalive(self, lease: int) -> LeaseInfo:
        """``ttl_s`` 0: too late, even if nobody has looked yet."""
        renewed = self._unexpired(lease)
        if renewed is None:
            return LeaseInfo(lease, 0, self.raft_term)
        self._renew(lease, renewed)
        return LeaseInfo(lease, renewed.ttl_s, self.raft_term)

    def lease_revoke(self, lease: int) -> bool:
        """Whether there was such a lease. Its keys go in one revision."""
        revoked = self._leases.get(lease)
        if revoked is None:
            return False
        if revoked.keys:
            self._history.begin()
            for key in sorted(revoked.keys):
                self._delete(key)
            self._commit()
        del self._leases[lease]
        return True

    def lease_time_to_live(self, lease: int) -> LeaseInfo:
        """Whole seconds, rounded towards 0: one that has run out shows 0 for a second, and then
        less, until it is revoked. -1 of 0: gone."""
        found = self._leases.get(lease)
        if found is None:
            return LeaseInfo(lease, -1, self.raft_term)
        return LeaseInfo(lease, int(found.expires_s - self.now_s), self.raft_term, found.ttl_s)

    # Time and elections

    def advance(self, now_s: float) -> None:
        """Let time pass, and leases expire on the way, each in a revision of its own."""
        while (due_s := self.next_expiry_s()) is not None and due_s <= now_s:
            self.now_s = max(self.now_s, due_s)
            _, lease = heapq.heappop(self._looks)
            self.lease_revoke(lease)
        self.now_s = max(self.now_s, now_s)

    def next_expiry_s(self) -> float | None:
        """When the next lease will be revoked, unless it is renewed."""
        if not self.has_leader:
            return None
        while self._looks:
            look_s, lease = self._looks[0]
            found = self._leases.get(lease)
            if found is not None and found.look_s == look_s:
                return look_s
            heapq.heappop(self._looks)
        return None

    def lose_leader(self) -> None:
        """Until ``elect``, no lease expires."""
        self.has_leader = False

    def regain_leader(self) -> None:
        """The one that was lost was only frozen: what should have expired does so now."""
        self.has_leader = True

    def elect(self, election_timeout_s: float = 1.0) -> None:
        """etcd gets a new leader: a higher term, and every lease starts anew and a bit longer,
        since the new leader doesn't know when it was last renewed."""
        self.raft_term += 1
        self.has_leader = True
        for lease, renewed in self._leases.items():
            self._renew(lease, renewed, election_timeout_s)

    # Inside

    def _decide(self, txn: Txn) -> _Path:
        """All compares, nested ones too, look at the state before the whole transaction."""
        succeeded = True
        for compare in txn.compares:
            if not self._holds(compare):
                succeeded = False
                break
        steps = [
            self._decide(operation) if isinstance(operation, Txn) else operation
            for operation in (txn.then if succeeded else txn.otherwise)
        ]
        return _Path(succeeded, tuple(steps))

    def _holds(self, compare: Compare) -> bool:
        if not compare.range_end:
            return self._holds_for(compare.key, compare)
        found = self._history.keys(compare.key, compare.range_end) or [compare.key]
        return all(self._holds_for(key, compare) for key in found)

    def _holds_for(self, key: str, compare: Compare) -> bool:
        kv = self._history.get(key)
        match compare.target:
            case Target.VALUE:
                if kv is None:
                    return False
                actual: int | bytes = kv.value
            case Target.CREATE:
                actual = kv.create_revision if kv else 0
            case Target.MOD:
                actual = kv.mod_revision if kv else 0
            case Target.VERSION:
                actual = kv.version if kv else 0
            case Target.LEASE:
                actual = kv.lease if kv else 0
            case _:
                assert_never(compare.target)
        return _related(actual, compare)

    def _check_taken(self, steps: list[Put | Delete | Range]) -> None:
        """What branches that are taken can fail the whole transaction with. etcd looks at all
        leases before any revision."""
        revisions = []
        for step in steps:
            if isinstance(step, Put):
                if step.lease and step.lease not in self._leases:
                    raise LeaseGone(f"requested lease not found: {step.lease:x}")
            elif isinstance(step, Range):
                revisions.append(step.revision)
        for revision in revisions:
            self._history.check_revision(revision)

    def _changes(self, step: Put | Delete | Range) -> bool:
        match step:
            case Put():
                return True
            case Delete():
                return bool(self._history.keys(step.key, step.range_end))
            case Range():
                return False

    def _apply(self, path: _Path) -> TxnResult:
        """Nothing can fail any more. Reads see what stands before them in the transaction."""
        responses = tuple([self._apply_step(step) for step in path.steps])
        return TxnResult(path.succeeded, responses, self.revision, self.raft_term)

    def _apply_step(self, step: Put | Delete | Range | _Path) -> OperationResult:
        match step:
            case Put():
                self._put(step)
                return PutResult(self.revision)
            case Delete():
                keys = self._history.keys(step.key, step.range_end)
                for key in keys:
                    self._delete(key)
                return DeleteResult(len(keys), self.revision)
            case Range():
                return self._range(step)
            case _Path():
                return self._apply(step)

    def _put(self, put: Put) -> None:
        self._detach(put.key)
        self._history.put(put.key, put.value, put.lease)
        if put.lease:
            self._leases[put.lease].keys.add(put.key)

    def _delete(self, key: str) -> None:
        self._detach(key)
        self._history.delete(key)

    def _detach(self, key: str) -> None:
        before = self._history.get(key)
        if before is not None and before.lease:
            self._leases[before.lease].keys.discard(key)

    def _commit(self) -> None:
        self._history.commit()
        for listener in tuple(self._listeners):
            listener()

    def _range(self, request: Range) -> RangeResult:
        kvs = self._history.kvs(request.key, request.range_end, request.revision)
        count = len(kvs)
        if request.count_only:
            return RangeResult((), count, False, self.revision, self.raft_term)
        if request.newest_first:
            kvs.sort(key=lambda kv: kv.mod_revision, reverse=True)
        if request.limit:
            del kvs[request.limit :]
        if request.keys_only:
            kvs = [_without_value(kv) for kv in kvs]
        return RangeResult(tuple(kvs), count, len(kvs) < count, self.revision, self.raft_term)

    def _unexpired(self, lease: int) -> _Lease | None:
        found = self._leases.get(lease)
        return found if found is not None and found.expires_s > self.now_s else None

    def _renew(self, lease: int, renewed: _Lease, more_s: float = 0.0) -> None:
        renewed.expires_s = self.now_s + renewed.ttl_s + more_s
        renewed.look_s = _first_look(renewed.expires_s)
        heapq.heappush(self._looks, (renewed.look_s, lease))


def _related(actual: int | bytes, compare: Compare) -> bool:
    # The operand is of the same type as what it is compared with.
    order = (actual > compare.operand) - (actual < compare.operand)  # type: ignore[operator]
    match compare.relation:
        case Relation.EQUAL:
            return order == 0
        case Relation.NOT_EQUAL:
            return order != 0
        case Relation.GREATER:
            return order > 0
        case Relation.LESS:
            return order < 0


def _flattened(path: _Path) -> Iterator[Put | Delete | Range]:
    for step in path.steps:
        if isinstance(step, _Path):
            yield from _flattened(step)
        else:
            yield step


def _puts(txn: Txn) -> bool:
    """Whether etcd counts it as a put when its database is full: it looks at both branches, but
    not at what they nest."""
    return any(isinstance(operation, Put) for operation in (*txn.then, *txn.otherwise))


def _without_value(kv: KeyValue) -> KeyValue:
    return KeyValue(kv.key, b"", kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def _first_look(expires_s: float) -> float:
    return math.ceil(expires_s / EXPIRY_LOOK_S) * EXPIRY_LOOK_S


def next_look_s(now_s: float) -> float:
    """When the store looks for expired leases for the first time after ``now_s``."""
    return (math.floor(now_s / EXPIRY_LOOK_S) + 1) * EXPIRY_LOOK_S
