"""A session as ``etcd.session`` keeps it: its validity is the product's own."""

from __future__ import annotations

from collections.abc import Callable

from etcsched.core.errors import ClusterUnreachable, EtcschedError, LeaseGone, OutcomeUnknown
from etcsched.core.session import SessionEnd, SessionValidity
from etcsched.ports import LeaseInfo
from etcsched.testing.sim.network import Link
from etcsched.testing.sim.parts import Parts

RENEWALS_PER_TTL = 4
ATTEMPTS_PER_RENEWAL = 2


class SimSession:
    """From grant, or takeover of ``lease``, to its end; ``on_lost`` is called once."""

    def __init__(
        self,
        link: Link,
        parts: Parts,
        *,
        ttl_s: int,
        lease: int,
        on_begun: Callable[[SimSession | EtcschedError], None],
        on_renewed: Callable[[float], None],
        on_lost: Callable[[str], None],
        on_unanswered: Callable[[], None] = lambda: None,
    ) -> None:
        self.lease = lease
        self._link = link
        self._parts = parts
        self._process = link.process
        self._on_begun = on_begun
        self._on_renewed = on_renewed
        self._on_lost = on_lost
        self._on_unanswered = on_unanswered
        self._validity: SessionValidity | None = None
        self._acknowledged_s = 0.0
        etcd, sent_s = link.etcd, self._mono_s()
        if lease:
            link.call(
                lambda: etcd.keep_alive(lease, link.member),
                lambda answer: self._begun(answer, sent_s),
                5.0,
                is_write=True,
            )
        else:
            link.call(
                lambda: etcd.grant(ttl_s),
                lambda answer: self._begun(answer, sent_s),
                5.0,
                is_write=True,
            )

    def _mono_s(self) -> float:
        return self._process.clock.mono_s()

    @property
    def _current(self) -> SessionValidity:
        assert self._validity is not None
        return self._validity

    @property
    def deadline_mono_s(self) -> float:
        return self._current.deadline_s

    @property
    def ttl_s(self) -> float:
        """As granted."""
        return self._current.ttl_s

    def valid(self) -> bool:
        return self._validity is not None and self._validity.valid_at(self._mono_s())

    def silent_s(self) -> float:
        """For how long no keepalive was acknowledged; 0: it is over."""
        if self._validity is None or self._validity.end is not None:
            return 0.0
        return self._mono_s() - self._acknowledged_s

    def outage_proved(self, sent_s: float) -> None:
        before = self._current
        self._validity = after = before.outage_proved(sent_s=sent_s, now_s=self._mono_s())
        if after.end is None and after.deadline_s > before.deadline_s:
            self._on_renewed(after.deadline_s)

    def give_up(self) -> None:
        if self._validity is not None:
            self._validity = self._validity.ended(SessionEnd.GIVEN_UP)

    def _begun(self, answer: LeaseInfo | EtcschedError, sent_s: float) -> None:
        if isinstance(answer, EtcschedError):
            self._on_begun(answer)
            return
        if answer.ttl_s <= 0:
            self._on_begun(LeaseGone(f"lease {self.lease:x} is gone"))
            return
        self.lease = answer.lease
        validity = self._parts.first_validity(
            sent_s=sent_s, ttl_s=answer.ttl_s, raft_term=answer.raft_term
        ).at(self._mono_s())
        if validity.end is not None:
            self._on_begun(OutcomeUnknown("etcd's answer came after the session's deadline"))
            return
        self._validity, self._acknowledged_s = validity, sent_s
        self._on_begun(self)
        self._process.after(self._interval_s, self._renew, 0)
        self._process.after(validity.deadline_s - self._mono_s(), self._look)

    @property
    def _interval_s(self) -> float:
        return self._current.ttl_s / RENEWALS_PER_TTL

    def _renew(self, tried: int) -> None:
        if self._look_at_it():
            return
        sent_s = self._mono_s()
        etcd, link, lease = self._link.etcd, self._link, self.lease
        left_s = self._current.deadline_s - sent_s
        self._link.call(
            lambda: etcd.keep_alive(lease, link.member),
            lambda answer: self._answered(answer, sent_s, tried),
            min(self._interval_s / ATTEMPTS_PER_RENEWAL, left_s),
            is_write=True,
        )

    def _answered(self, answer: LeaseInfo | EtcschedError, sent_s: float, tried: int) -> None:
        if self._current.end is not None:
            return
        if isinstance(answer, ClusterUnreachable):
            self._again(tried)
            return
        assert isinstance(answer, LeaseInfo), answer
        before = self._current
        self._validity = after = before.acknowledged(
            sent_s=sent_s, now_s=self._mono_s(), ttl_s=answer.ttl_s, raft_term=answer.raft_term
        )
        if after.end is not None:
            self._lost(after)
        elif after.deadline_s > before.deadline_s:
            self._acknowledged_s = sent_s
            self._on_renewed(after.deadline_s)
            self._process.after(self._interval_s, self._renew, 0)
        else:
            self._again(tried)

    def _again(self, tried: int) -> None:
        """The next endpoint at once, all of them after a pause."""
        self._on_unanswered()
        if tried + 1 < self._link.etcd.members:
            self._renew(tried + 1)
        else:
            self._process.after(self._interval_s / 4, self._renew, 0)

    def _look(self) -> None:
        if not self._look_at_it():
            self._process.after(self._current.deadline_s - self._mono_s(), self._look)

    def _look_at_it(self) -> bool:
        """Whether it is over."""
        if self._current.end is not None:
            return True
        self._validity = now = self._current.at(self._mono_s())
        if now.end is None:
            return False
        self._lost(now)
        return True

    def _lost(self, validity: SessionValidity) -> None:
        assert validity.end is not None
        if validity.end is not SessionEnd.GIVEN_UP:
            self._on_lost(validity.end.value)
