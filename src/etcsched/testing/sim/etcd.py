"""etcd as nodes meet it: the model of its store behind members that freeze, are gone, or elect."""

from __future__ import annotations

import enum
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from etcsched.core.errors import EtcschedError
from etcsched.core.outage import Sight
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


class Outage(enum.IntEnum):
    """What became of the members, of which the last one led."""

    HOSTS_GONE = 0
    KILLED = 1
    NO_QUORUM = 2
    """All but one are killed, and the last one finds out that it leads nobody."""
    LEADER_FROZEN = 3
    """... or it is frozen, and wakes up as the others come back."""


class SimEtcd:
    """``outage``: nothing is answered, and no lease expires. ``frozen``: members that answer
    nothing until they thaw, and then do what they were sent."""

    members = 3

    def __init__(self, store: ModelStore, loop: Loop, keys: Keys, chance: random.Random) -> None:
        self.store = store
        self.loop = loop
        self.keys = keys
        self.chance = chance
        self.outage: Outage | None = None
        self._outage_since_s = 0.0
        self.on_killed: dict[object, Callable[[], None]] = {}
        """Who hears that connections ended, as those of killed processes do."""
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

    @property
    def is_down(self) -> bool:
        return self.outage is not None

    @property
    def refuses(self) -> bool:
        """Whether callers learn at once that nothing answers."""
        return self.outage is Outage.KILLED

    def sight(self, member: int) -> Sight:
        """What somebody sees of a member that it had an idle connection to."""
        if member in self.frozen:
            return Sight.UNKNOWN
        is_last = member == self.members - 1
        match self.outage:
            case None:
                return Sight.HAS_LEADER
            case Outage.HOSTS_GONE:
                return Sight.UNKNOWN
            case Outage.NO_QUORUM if is_last:
                knows = self.loop.now_s > self._outage_since_s + 2 * ELECTION_TIMEOUT_S
                return Sight.LEADERLESS if knows else Sight.HAS_LEADER
            case Outage.LEADER_FROZEN if is_last:
                return Sight.UNKNOWN
            case _:
                return Sight.DOWN

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

    def go_down(self, outage: Outage) -> None:
        self.outage, self._outage_since_s = outage, self.loop.now_s
        self.store.lose_leader()
        for watch in list(self.watches):
            watch.break_off()
        if outage is not Outage.HOSTS_GONE:
            for tell in list(self.on_killed.values()):
                tell()

    def come_up(self) -> None:
        woke = self.outage is Outage.LEADER_FROZEN
        self.outage = None
        if woke and self.chance.random() < 0.5:
            # In time to go on leading, and to find that leases have expired while it slept.
            self.count("old leader goes on")
            self.store.regain_leader()
        else:
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
