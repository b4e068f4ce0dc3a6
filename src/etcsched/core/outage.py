"""The outage proof: when etcd surely has no leader that could end a lease (DESIGN 3; ADR 19).

An agent that can't reach etcd has to stop its jobs: others may see its lease expire. But if no
member of etcd has a leader, nobody can see anything, and stopping all jobs of a fleet would be the
disaster. That no member has one is proven by looks at all voting members, again and again, for
longer than any old leader can go on without its followers.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

__all__ = ["OutageProof", "Poll", "Sight", "election_timeout_of"]

POLLS_PER_ELECTION_TIMEOUT = 3


class Sight(enum.Enum):
    """What one look at a member showed."""

    DOWN = "down"
    """An idle connection to it was ended by its side, and a new one is refused."""
    LEADERLESS = "leaderless"
    """It says that it has no leader."""
    HAS_LEADER = "has a leader"
    UNKNOWN = "unknown"
    """Nothing is proven: no answer, no way there, or never seen before."""


_PROVES = frozenset({Sight.DOWN, Sight.LEADERLESS})


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """One look at each voting member, by its id: the first look began at ``sent_s``, the last one
    was over at ``done_s``."""

    sent_s: float
    done_s: float
    sights: Mapping[int, Sight]


class OutageProof:
    """Fold polls in the order in which they were made.

    Every member counts, not just a majority: one that shows nothing may be the old leader, frozen
    as it is, and wake up just when its followers are back (ADR 19).
    """

    def __init__(self, election_timeout_s: float) -> None:
        self._election_timeout_s = election_timeout_s
        self._members: frozenset[int] = frozenset()
        self._since_s = 0.0
        self._last_sent_s = 0.0
        self._has_begun = False
        self.why_broken = ""
        """What the last poll lacked, in words; nothing while the proof goes on."""

    def polled(self, poll: Poll) -> float | None:
        """The time that counts like the sending of an acknowledged keepalive, if it is proven."""
        members = frozenset(poll.sights)
        lasts_at_most_s = self._election_timeout_s / 2
        self.why_broken = _what_it_lacks(poll, lasts_at_most_s)
        if self.why_broken:
            self._has_begun = False
            return None
        gap_s = poll.sent_s - self._last_sent_s
        if self._has_begun and gap_s > lasts_at_most_s:
            self._has_begun = False
            self.why_broken = f"no look for {gap_s:.1f} s"
        if not self._has_begun or members != self._members:
            # What was seen lies anywhere within the poll: the window begins at its end.
            self._members, self._since_s, self._has_begun = members, poll.done_s, True
        self._last_sent_s = poll.sent_s
        if poll.sent_s - self._since_s > 2 * self._election_timeout_s:
            return poll.sent_s
        return None


def _what_it_lacks(poll: Poll, lasts_at_most_s: float) -> str:
    if not poll.sights:
        return "no member is known"
    proves_nothing = [f"{m:x} {s.value}" for m, s in poll.sights.items() if s not in _PROVES]
    if proves_nothing:
        return ", ".join(sorted(proves_nothing))
    took_s = poll.done_s - poll.sent_s
    return f"a look at all took {took_s:.1f} s" if took_s > lasts_at_most_s else ""


def election_timeout_of(least_ttl_s: float) -> float:
    """At most so long is etcd's election timeout, if this is the least TTL that it grants: one and
    a half election timeouts, rounded up to whole seconds."""
    return least_ttl_s / 1.5
