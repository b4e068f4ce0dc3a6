"""What the shells provide to whoever drives the cores, and what tests provide in their place.

Every implementation of ``Etcd`` (the real client, the model in ``etcsched.testing``) passes the
contract suite under tests/contract.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from etcsched.keyspace.ops import (
    Operation,
    Range,
    RangeResult,
    Snapshot,
    Txn,
    TxnResult,
    WatchUpdate,
)

__all__ = ["Clock", "Etcd", "LeaseInfo", "MemberStatus", "Operation", "Snapshot", "WatchUpdate"]


class LeaseInfo(msgspec.Struct, frozen=True):
    """``ttl_s`` is what remains in whole seconds (time to live; below 0: too late to renew it), or
    was granted (grant, keepalive; 0: it is gone). ``granted_s``, of a time to live: its whole
    length, 0 once it is gone."""

    lease: int
    ttl_s: int
    raft_term: int
    granted_s: int = 0

    @property
    def has_ended(self) -> bool:
        """Of a time to live. One that has run out hasn't ended before etcd revokes it: keys can
        still be put under it, and a new leader of etcd lets it begin anew."""
        return self.ttl_s < 0 and self.granted_s == 0


class MemberStatus(msgspec.Struct, frozen=True):
    """One endpoint's own word. ``error`` is set where it didn't answer, the rest is then empty.

    Where roles hold, some of it is told to root alone: what is None isn't told to this user.
    ``version`` "": it couldn't be learned. ``leader_id`` 0: there is no leader."""

    endpoint: str
    version: str = ""
    member_id: int | None = 0
    leader_id: int | None = 0
    raft_term: int | None = 0
    revision: int | None = 0
    db_size_bytes: int | None = 0
    alarms: tuple[str, ...] | None = ()
    error: str = ""


class Etcd(Protocol):
    """An etcd cluster. Every call has a deadline; a passed deadline of a write is
    ``OutcomeUnknown``, of a read ``ClusterUnreachable``; a transaction that only reads is one.
    Errors are those of ``core.errors``."""

    async def txn(self, txn: Txn, *, timeout_s: float = 5.0) -> TxnResult:
        """Commit once; never resends a write by itself."""

    async def range(self, request: Range, *, timeout_s: float = 5.0) -> RangeResult:
        """Linearizable read."""

    def watch(
        self, key: str, range_end: str, *, prev_kv: bool = False, start_revision: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchUpdate]]:
        """Follow a range for ever: reconnects by itself and resumes without gap or repetition.

        With ``start_revision`` 0 a Snapshot comes first; else batches from that revision on (and
        ``Compacted`` where history was compacted to that one or a later one: not all of what it
        changed can be told). Raises only what no waiting can mend (``ClusterRefused``).
        """

    async def lease_grant(
        self, ttl_s: int, *, lease: int = 0, timeout_s: float = 5.0
    ) -> LeaseInfo: ...

    async def lease_keepalive_once(self, lease: int, *, timeout_s: float = 5.0) -> LeaseInfo: ...

    async def lease_revoke(self, lease: int, *, timeout_s: float = 5.0) -> None:
        """Revoking a lease that is gone is no error."""

    async def lease_time_to_live(self, lease: int, *, timeout_s: float = 5.0) -> LeaseInfo: ...

    async def compact(self, revision: int, *, timeout_s: float = 5.0) -> None: ...

    async def status(self, *, timeout_s: float = 2.0) -> tuple[MemberStatus, ...]:
        """Of every configured endpoint, in order."""

    async def close(self) -> None: ...


class Clock(Protocol):
    """``mono_s`` runs on while the machine is suspended (CLOCK_BOOTTIME); ``wall_ms`` is Unix time
    in milliseconds."""

    def mono_s(self) -> float: ...

    def wall_ms(self) -> int: ...
