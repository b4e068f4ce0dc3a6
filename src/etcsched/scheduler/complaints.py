"""What is wrong with who stands for election, as this scheduler sees it: said in its log once a
minute, and in its health.

None of it is put right here: whatever a hand wrote, only a hand takes away, since it may be there
for a reason; and of two schedulers of one name nobody knows which is meant to be there.
"""

from __future__ import annotations

import logging

from etcsched.core.candidate import CandidateMachine, Standing
from etcsched.core.clock import CLOCK_EVERY_S
from etcsched.core.records import Candidate, Kind
from etcsched.keyspace.keys import Keys

__all__ = ["ElectionComplaints"]

log = logging.getLogger(__name__)

_TTLS_TO_END_IN = 2
"""The key of one that was killed, and started again, is gone within so many TTLs."""


class ElectionComplaints:
    """Told the time now and then. ``namesakes`` are other schedulers of this one's name, as far as
    that is certain: harmless to what runs, but records name who led by this name alone."""

    def __init__(self, candidate: CandidateMachine, keys: Keys, session_ttl_s: float) -> None:
        self._candidate = candidate
        self._keys = keys
        self._ends_within_s = _TTLS_TO_END_IN * session_ttl_s
        self._seen_s: dict[str, float] = {}
        self._again_s: dict[str, float] = {}
        self.namesakes: tuple[Candidate, ...] = ()

    def time_passed(self, mono_s: float) -> None:
        unleased = self._candidate.unleased
        if self._is_due("unleased", mono_s, is_so=bool(unleased)):
            log.error("who stands behind it can't lead: %s", self._how_to_clear(unleased))
        self._look_for_namesakes(mono_s)
        if self._is_due("namesakes", mono_s, is_so=bool(self.namesakes)):
            log.warning("%s", self._about_namesakes())

    def _is_due(self, what: str, mono_s: float, *, is_so: bool) -> bool:
        if not is_so:
            self._again_s.pop(what, None)
            return False
        if mono_s < self._again_s.get(what, mono_s):
            return False
        self._again_s[what] = mono_s + CLOCK_EVERY_S
        return True

    def _look_for_namesakes(self, mono_s: float) -> None:
        if self._candidate.standing is Standing.OUT:
            # Cut off from etcd it doesn't see its own key go.
            self._seen_s, self.namesakes = {}, ()
            return
        found = {name: entry for name, entry in self._candidate.namesakes.items() if entry.lease}
        self._seen_s = {name: self._seen_s.get(name, mono_s) for name in found}
        own_token = self._candidate.own_token
        self.namesakes = tuple(
            entry.record
            for name, entry in found.items()
            # What was put after this node's own key is no session before it.
            if 0 < own_token < entry.create_revision
            or mono_s - self._seen_s[name] >= self._ends_within_s
        )

    def _about_namesakes(self) -> str:
        others = " and ".join(
            f"on host {other.host} as process {other.pid} (since {other.since})"
            for other in self.namesakes
        )
        return (
            f"another scheduler of this name runs {others}: what they do can't be told apart; "
            "stop one, or give it another --id"
        )

    @property
    def lacking(self) -> str:
        """Why its turn to lead never comes; empty: it may."""
        stuck_behind = self._candidate.stuck_behind
        return f"can't lead: {self._how_to_clear(stuck_behind)}" if stuck_behind else ""

    @property
    def remark(self) -> str:
        """Behind what it is, for whoever asks after its health."""
        return "; another scheduler has its name" if self.namesakes else ""

    def _how_to_clear(self, unleased: tuple[str, ...]) -> str:
        keys = [self._keys.of(Kind.ELECTION, name) for name in unleased]
        commands = "; ".join(f"etcdctl del {key}" for key in keys)
        return (
            f"{' '.join(keys)} in the election without a lease, so that it never goes: no "
            f"scheduler put it there; delete it: {commands}"
        )
