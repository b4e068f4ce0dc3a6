"""The outage proof, poll by poll. The election timeout is 1 s."""

from __future__ import annotations

import pytest

from etcsched.core.outage import OutageProof, Poll, Sight, election_timeout_of

D, N, L, U = Sight.DOWN, Sight.LEADERLESS, Sight.HAS_LEADER, Sight.UNKNOWN
STEP_S, TOOK_S = 0.3, 0.05


def polls(*sights: tuple[Sight, ...], step_s: float = STEP_S, took_s: float = TOOK_S) -> list[Poll]:
    return [
        Poll(sent_s=n * step_s, done_s=n * step_s + took_s, sights=dict(enumerate(each)))
        for n, each in enumerate(sights)
    ]


def proven(given: list[Poll]) -> list[float]:
    """In tenths of a second, so that they compare."""
    proof = OutageProof(election_timeout_s=1.0)
    return [round(at, 1) for poll in given if (at := proof.polled(poll)) is not None]


@pytest.mark.parametrize(
    "sights",
    [(D, D, D), (D, D, N), (N, N, N), (D,), (N,)],
    ids=lambda s: " ".join(each.value for each in s),
)
def test_proven_after_two_election_timeouts(sights: tuple[Sight, ...]) -> None:
    """The first poll ends at 0.05, so the first that is sent more than 2 s later is that of 2.1."""
    assert proven(polls(*[sights] * 9)) == [2.1, 2.4]


@pytest.mark.parametrize("other", [L, U])
@pytest.mark.parametrize("where", range(3))
def test_every_member_counts(other: Sight, where: int) -> None:
    """Also where a majority is surely down: the third may be the old leader, frozen."""
    sights = [D, D, D]
    sights[where] = other
    assert proven(polls(*[tuple(sights)] * 20)) == []


@pytest.mark.parametrize("other", [L, U])
def test_one_poll_that_shows_something_else_begins_it_anew(other: Sight) -> None:
    down = (D, D, D)
    assert proven(polls(*[down] * 5, (D, other, D), *[down] * 7)) == []
    assert proven(polls(*[down] * 5, (D, other, D), *[down] * 8)) == [3.9]


def test_one_poll_proves_nothing_however_late_it_comes() -> None:
    assert proven([Poll(sent_s=100.0, done_s=100.01, sights={1: D})]) == []


def test_a_member_may_come_back_leaderless_or_go_down() -> None:
    assert proven(polls(*[(D, N, N)] * 4, *[(N, D, N)] * 4)) == [2.1]


def test_polls_far_from_each_other_prove_nothing() -> None:
    """In between a leader can have come and gone."""
    assert proven(polls(*[(D, D, D)] * 20, step_s=0.6)) == []


def test_a_poll_that_takes_long_proves_nothing() -> None:
    assert proven(polls(*[(D, D, D)] * 20, took_s=0.6)) == []


def test_other_members_are_another_proof() -> None:
    before = polls(*[(D, D, D)] * 6)
    after = [
        Poll(sent_s=p.sent_s + 1.8, done_s=p.done_s + 1.8, sights={**p.sights, 7: D})
        for p in before
    ]
    assert proven([*before, *after]) == []


def test_no_member_at_all_proves_nothing() -> None:
    assert proven(polls(*[()] * 20)) == []


@pytest.mark.parametrize(("timeout_s", "least_ttl_s"), [(0.5, 1), (1.0, 2), (1.3, 2), (5.0, 8)])
def test_the_election_timeout_by_the_least_ttl(timeout_s: float, least_ttl_s: int) -> None:
    """What etcd 3.4 and 3.5 grant (``tests/integration/etcd``)."""
    assert timeout_s <= election_timeout_of(least_ttl_s) < timeout_s + 1
