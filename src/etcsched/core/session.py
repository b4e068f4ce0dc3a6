"""How long a session counts as valid: the arithmetic alone.

Times are monotonic seconds that run on while the machine is suspended. etcd starts a lease's time
to live anew when it handles a keepalive, which is never before that keepalive was sent; so until
sent + TTL the lease stands, whatever the network did to the answer. The margin lets the holder stop
its work first.
"""

from __future__ import annotations

import enum

import msgspec

__all__ = [
    "LEAST_TTL_S",
    "SessionEnd",
    "SessionValidity",
    "first_validity",
    "margin_of",
    "with_grace_s",
]

LEAST_TTL_S = 2
"""What etcd grants with its default election timeout."""


class SessionEnd(enum.Enum):
    EXPIRED = "expired"
    """No keepalive was acknowledged in time."""
    LEASE_GONE = "lease gone"
    """etcd says that the lease doesn't exist."""
    STALLED = "stalled"
    """The owner's loop made no progress."""
    FAILED = "failed"
    """What renews it did."""
    GIVEN_UP = "given up"
    """The owner ended it."""


def margin_of(ttl_s: float) -> float:
    """Seconds before a lease's end at which its session ends."""
    return 0.3 * ttl_s if ttl_s < 5 else max(1.5, 0.1 * ttl_s)


def with_grace_s(deadline_s: float, ttl_s: float, grace_s: float) -> float:
    """The deadline of what may go on for a grace beyond a session that ends at ``deadline_s``:
    ``sent + TTL + grace``, less a margin for both, since clocks of different speed part further
    in a longer time."""
    return deadline_s + margin_of(ttl_s) + grace_s - margin_of(ttl_s + grace_s)


class SessionValidity(msgspec.Struct, frozen=True, kw_only=True):
    """Valid before ``deadline_s`` unless ``end`` is set. Once ended, nothing makes it valid again,
    and the deadline never moves back."""

    ttl_s: float
    deadline_s: float
    raft_term: int = 0
    end: SessionEnd | None = None

    def valid_at(self, now_s: float) -> bool:
        return self.end is None and now_s < self.deadline_s

    def at(self, now_s: float) -> SessionValidity:
        """As it stands now: ended if the deadline has passed."""
        if self.end is None and now_s >= self.deadline_s:
            return self.ended(SessionEnd.EXPIRED)
        return self

    def acknowledged(
        self, *, sent_s: float, now_s: float, ttl_s: float, raft_term: int
    ) -> SessionValidity:
        """A keepalive sent at ``sent_s`` has been answered; a ``ttl_s`` of 0 or less says that
        the lease is gone.

        An answer of an older term than one already seen extends nothing: it may come from a leader
        that was frozen and doesn't know yet that it is deposed, and its word doesn't bind the next.
        """
        current = self.at(now_s)
        if current.end is not None or raft_term < current.raft_term:
            return current
        if ttl_s <= 0:
            return current.ended(SessionEnd.LEASE_GONE)
        deadline_s = max(current.deadline_s, sent_s + ttl_s - margin_of(ttl_s))
        return msgspec.structs.replace(
            current, ttl_s=ttl_s, deadline_s=deadline_s, raft_term=raft_term
        )

    def outage_proved(self, *, sent_s: float, now_s: float) -> SessionValidity:
        """What was sent at ``sent_s`` proved that no etcd leader could have expired the lease: that
        counts like an acknowledged keepalive."""
        current = self.at(now_s)
        deadline_s = sent_s + current.ttl_s - margin_of(current.ttl_s)
        if current.end is not None or deadline_s <= current.deadline_s:
            return current
        return msgspec.structs.replace(current, deadline_s=deadline_s)

    def ended(self, end: SessionEnd) -> SessionValidity:
        """The first end stays."""
        return self if self.end is not None else msgspec.structs.replace(self, end=end)


def first_validity(*, sent_s: float, ttl_s: float, raft_term: int) -> SessionValidity:
    """Of a lease granted, or found alive, by what was sent at ``sent_s``."""
    return SessionValidity(
        ttl_s=ttl_s, deadline_s=sent_s + ttl_s - margin_of(ttl_s), raft_term=raft_term
    )
