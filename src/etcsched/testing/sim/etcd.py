"""etcd as nodes meet it: the model of its store behind members that freeze, are gone, or elect."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from etcsched.core.errors import EtcschedError
from etcsched.core.records import Change
from etcsched.keyspace.codec import change_of, change_of_event
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, WatchEvent
from etcsched.ports import LeaseInfo
from etcsched.testing.model_store import ModelStore
from etcsched.testing.sim.loop import Loop

if TYPE_CHECKING:
    from etcsched.testing.sim.watch import Watch

ELECTION_TIMEOUT_S = 1.0


class SimEtcd:
    """``is_down``: no member answers (``refuses``: and says so), and no lease expires.
    ``frozen``: members that answer nothing until they thaw, and then do what they were sent.
    """

    members = 3

    def __init__(self, store: ModelStore, loop: Loop, keys: Keys, chance: random.Random) -> None:
        self.store = store
        self.loop = loop
        self.keys = keys
        self.chance = chance
        self.is_down = False
        self.refuses = False
        self.frozen: set[int] = set()
        self.watches: list[Watch] = []
        self.counts: Counter[str] = Counter()
        self.renewed_s: dict[int, tuple[float, int]] = {}
        """Of each lease: when its last keepalive came, and its TTL."""
        self._held: dict[int, list[Callable[[], Any]]] = {}
        self._stale_term = 0
        self._stale_until_s = 0.0
        self._stale_members: frozenset[int] = frozenset()
        self._read: dict[tuple[str, int], Change | None] = {}
        store.subscribe(self._committed)

    @property
    def raft_term(self) -> int:
        return self.store.raft_term

    def serves(self, member: int) -> bool:
        return not self.is_down and member not in self.frozen

    def count(self, what: str) -> None:
        self.counts[what] += 1

    # --- leases

    def grant(self, ttl_s: int) -> LeaseInfo:
        info = self.store.lease_grant(ttl_s)
        self.renewed_s[info.lease] = (self.loop.now_s, info.ttl_s)
        return info

    def keep_alive(self, lease: int, member: int) -> LeaseInfo:
        """A leader that is deposed and doesn't know it yet acknowledges, which binds nobody."""
        if member in self._stale_members and self.loop.now_s < self._stale_until_s:
            self.count("keepalive of a deposed leader")
            _, ttl_s = self.renewed_s.get(lease, (0.0, 0))
            return LeaseInfo(lease, ttl_s, self._stale_term)
        info = self.store.lease_keepalive(lease)
        if info.ttl_s > 0:
            self.renewed_s[lease] = (self.loop.now_s, info.ttl_s)
        return info

    def expires_ms(self, lease: int) -> int | None:
        """From when on etcd may count it as expired."""
        if lease not in self.renewed_s:
            return None
        at_s, ttl_s = self.renewed_s[lease]
        return self.loop.start_ms + round((at_s + ttl_s) * 1000)

    # --- faults

    def elect(self, revoked: tuple[int, ...] = (), stale: frozenset[int] = frozenset()) -> None:
        """``revoked``: leases whose revocation is in the log that the new leader has. ``stale``:
        members whose leases the old leader still answers for, until it finds that it lost its
        quorum."""
        self._stale_term, self._stale_members = self.store.raft_term, stale
        self._stale_until_s = self.loop.now_s + 0.95 * ELECTION_TIMEOUT_S
        self.store.elect(ELECTION_TIMEOUT_S)
        self.count("election")
        for lease in revoked:
            if self.store.lease_revoke(lease):
                self.count("lease lost in an election")

    def go_down(self, *, refuses: bool) -> None:
        self.is_down, self.refuses = True, refuses
        self.store.lose_leader()
        for watch in list(self.watches):
            watch.break_off()

    def come_up(self) -> None:
        self.is_down = False
        self.elect()

    def freeze(self, member: int) -> None:
        self.frozen.add(member)

    def thaw(self, member: int) -> None:
        self.frozen.discard(member)
        for do in self._held.pop(member, []):
            self.count("late commit")
            with suppress(EtcschedError):
                do()
        self.kick(member)

    def hold(self, member: int, do: Callable[[], Any]) -> None:
        self._held.setdefault(member, []).append(do)

    def kick(self, member: int) -> None:
        for watch in list(self.watches):
            if watch.link.member == member:
                watch.kick()

    # --- what changes, decoded once for all that see it

    def _committed(self) -> None:
        events = self.store.last_events
        for watch in self.watches:
            watch.committed(events)

    def read_event(self, keys: Keys, event: WatchEvent) -> Change | None:
        place = (event.kv.key, event.kv.mod_revision)
        if place not in self._read:
            self._read[place] = change_of_event(keys, event)
        return self._read[place]

    def read_kv(self, keys: Keys, kv: KeyValue) -> Change | None:
        place = (kv.key, kv.mod_revision)
        if place not in self._read:
            self._read[place] = change_of(keys, kv)
        return self._read[place]
