from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from etcsched.core.session import SessionEnd, first_validity, margin_of


def test_margins() -> None:
    assert margin_of(2) == pytest.approx(0.6)
    assert margin_of(5) == pytest.approx(1.5)
    assert margin_of(10) == pytest.approx(1.5)
    assert margin_of(60) == pytest.approx(6)


@given(st.floats(2, 3600))
def test_a_margin_leaves_most_of_the_ttl(ttl_s: float) -> None:
    assert 0.1 * ttl_s <= margin_of(ttl_s) <= 0.3 * ttl_s


def test_the_time_of_sending_counts_not_that_of_the_answer() -> None:
    session = first_validity(sent_s=100, ttl_s=10, raft_term=2)
    assert session.deadline_s == pytest.approx(108.5)
    session = session.acknowledged(sent_s=102, now_s=107, ttl_s=10, raft_term=2)
    assert session.deadline_s == pytest.approx(110.5)


def test_an_answer_after_the_deadline_revives_nothing() -> None:
    session = first_validity(sent_s=100, ttl_s=10, raft_term=2)
    late = session.acknowledged(sent_s=108, now_s=108.5, ttl_s=10, raft_term=2)
    assert late.end is SessionEnd.EXPIRED
    assert not late.valid_at(108.5)
    assert not late.outage_proved(sent_s=108, now_s=108.5).valid_at(108.5)


def test_a_deposed_leaders_answer_extends_nothing() -> None:
    session = first_validity(sent_s=100, ttl_s=10, raft_term=2)
    session = session.acknowledged(sent_s=103, now_s=103, ttl_s=10, raft_term=3)
    assert session.acknowledged(sent_s=104, now_s=105, ttl_s=10, raft_term=2) == session
    assert session.acknowledged(sent_s=104, now_s=105, ttl_s=0, raft_term=2) == session


def test_a_lease_that_is_gone_ends_the_session_at_once() -> None:
    session = first_validity(sent_s=100, ttl_s=10, raft_term=2)
    session = session.acknowledged(sent_s=101, now_s=101, ttl_s=0, raft_term=2)
    assert session.end is SessionEnd.LEASE_GONE
    assert not session.valid_at(101)


def test_the_first_end_stays() -> None:
    session = first_validity(sent_s=100, ttl_s=10, raft_term=2).ended(SessionEnd.GIVEN_UP)
    assert session.at(200).end is SessionEnd.GIVEN_UP
    assert session.ended(SessionEnd.STALLED).end is SessionEnd.GIVEN_UP


class AgainstALessor(RuleBasedStateMachine):
    """etcd's lease beside the session, with keepalives delayed and lost both ways: while the
    session is valid, the lease stands for at least the margin."""

    TTL_S = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.expiry_s = self.now_s + self.TTL_S
        self.session = first_validity(sent_s=self.now_s, ttl_s=self.TTL_S, raft_term=1)
        self.deadlines = [self.session.deadline_s]
        self.sent: list[float] = []
        self.handled: list[tuple[float, float]] = []
        self.was_invalid = False

    @rule(seconds=st.floats(0, 4))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def keepalive_sent(self) -> None:
        self.sent.append(self.now_s)

    @rule(data=st.data())
    def etcd_handles_one(self, data: st.DataObject) -> None:
        if self.sent:
            sent_s = self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1)))
            alive = self.now_s < self.expiry_s
            if alive:
                self.expiry_s = self.now_s + self.TTL_S
            self.handled.append((sent_s, self.TTL_S if alive else 0.0))

    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        if self.handled:
            sent_s, ttl_s = self.handled.pop(data.draw(st.integers(0, len(self.handled) - 1)))
            self.session = self.session.acknowledged(
                sent_s=sent_s, now_s=self.now_s, ttl_s=ttl_s, raft_term=1
            )
            self.deadlines.append(self.session.deadline_s)

    @invariant()
    def valid_only_while_the_lease_stands(self) -> None:
        if self.session.valid_at(self.now_s):
            assert not self.was_invalid
            assert self.now_s + margin_of(self.TTL_S) < self.expiry_s + 1e-6
        else:
            self.was_invalid = True

    @invariant()
    def the_deadline_never_moves_back(self) -> None:
        assert self.deadlines == sorted(self.deadlines)


TestAgainstALessor = AgainstALessor.TestCase
