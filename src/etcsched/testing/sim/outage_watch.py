"""What an agent sees of etcd's members when it hears nothing from them, as ``etcd.outage_watch``
and ``etcd.member_line`` do; what follows from it is the product's own."""

from __future__ import annotations

from collections.abc import Callable

from etcsched.core.outage import POLLS_PER_ELECTION_TIMEOUT, OutageProof, Poll, Sight
from etcsched.testing.sim.network import Link
from etcsched.testing.sim.parts import Parts

REFRESH_S = 20.0
STALE_S = 90.0
CALM_AFTER = 3
ELECTION_TIMEOUT_S = 4 / 3
"""As measured by the least TTL that is granted."""


class SimOutageWatch:
    """``silent_s()``: for how long no keepalive was acknowledged (0: there is no session)."""

    def __init__(
        self,
        link: Link,
        parts: Parts,
        *,
        silent_s: Callable[[], float],
        suspicious_s: Callable[[], float],
        on_proved: Callable[[float], None],
    ) -> None:
        self._link = link
        self._process = link.process
        self._parts = parts
        self._silent_s = silent_s
        self._suspicious_s = suspicious_s
        self._on_proved = on_proved
        self._listed_s: float | None = None
        self._is_polling = False
        self._calm_s = 0.0
        self._proof: OutageProof | None = None

    def heard(self) -> None:
        """etcd answers: once in a while its members are listed, and a connection to each is
        there."""
        now_s = self._process.clock.mono_s()
        if self._listed_s is None or now_s - self._listed_s >= REFRESH_S:
            self._listed_s = now_s

    def unanswered(self) -> None:
        """A keepalive was."""
        if self._silent_s() > self._suspicious_s():
            self.suspect()

    def suspect(self) -> None:
        """A connection ended, or keepalives stay unanswered."""
        now_s = self._process.clock.mono_s()
        is_current = self._listed_s is not None and now_s <= self._listed_s + STALE_S
        if self._is_polling or not is_current:
            return
        self._is_polling = True
        self._calm_s = now_s + CALM_AFTER * ELECTION_TIMEOUT_S
        self._proof = self._parts.outage_proof(ELECTION_TIMEOUT_S)
        self._poll()

    def _poll(self) -> None:
        sent_s = self._process.clock.mono_s()
        self._process.after(self._link.latency_s(), self._seen, sent_s)

    def _seen(self, sent_s: float) -> None:
        step_s = ELECTION_TIMEOUT_S / POLLS_PER_ELECTION_TIMEOUT
        sights = {member: self._sight(member) for member in range(self._link.etcd.members)}
        if Sight.UNKNOWN in sights.values():
            # Who doesn't answer is waited for.
            self._process.after(step_s, self._polled, sent_s, sights)
        else:
            self._polled(sent_s, sights)

    def _sight(self, member: int) -> Sight:
        link, etcd = self._link, self._link.etcd
        if link.cut_out or link.cut_in:
            return self._parts.sight_of_refusal if link.rejects else Sight.UNKNOWN
        return etcd.sight(member)

    def _polled(self, sent_s: float, sights: dict[int, Sight]) -> None:
        assert self._proof is not None
        now_s = self._process.clock.mono_s()
        if Sight.HAS_LEADER not in sights.values():
            self._calm_s = now_s + CALM_AFTER * ELECTION_TIMEOUT_S
        proved_s = self._proof.polled(Poll(sent_s=sent_s, done_s=now_s, sights=sights))
        if proved_s is not None:
            self._link.etcd.count("outage proved")
            self._on_proved(proved_s)
        is_calm = now_s > self._calm_s and self._silent_s() <= self._suspicious_s()
        if proved_s is None and is_calm:
            self._is_polling = False
            return
        step_s = ELECTION_TIMEOUT_S / POLLS_PER_ELECTION_TIMEOUT
        self._process.after(max(sent_s + step_s - now_s, 0.0), self._poll)
