"""Whom outer transactions are guarded by."""

from __future__ import annotations

import pytest

from etcsched.core.records import (
    Term,
)
from etcsched.keyspace import transactions as tx
from etcsched.keyspace.codec import encode
from etcsched.keyspace.ops import Compare, Delete, Put, Target, Txn
from etcsched.testing.model_store import ModelStore
from tests.unit.keyspace.writing import (
    KEYS,
    NOW,
    PLACES,
)


@pytest.mark.parametrize("place", ["election", "term"])
def test_the_leaders_guard(place: str) -> None:
    store = ModelStore()
    token = store.txn(Txn((), (Put(PLACES["election"], b"{}"),))).revision
    term = Term(number=1, leader="s1", election_key="5", token=token, since=NOW)
    term_revision = store.txn(Txn((), (Put(KEYS.term, encode(term)),))).revision
    guard = tx.LeaderGuard(KEYS, term, term_revision)
    outer = tx.guarded(guard, [Txn((), (Put("/x", b""),))])
    assert store.txn(outer).succeeded
    if place == "election":
        store.txn(Txn((), (Delete(PLACES["election"]),)))
    store.txn(Txn((), (Put(PLACES[place], b"{}"),)))
    assert not store.txn(outer).succeeded


def test_a_candidate_may_renew_what_it_says_of_itself_under_its_guard() -> None:
    assert {c.target for c in tx.AgentGuard(KEYS, "a1", 5).compares} == {Target.CREATE}
    term = Term(number=1, leader="s1", election_key="5", token=3, since=NOW)
    own, _ = tx.LeaderGuard(KEYS, term, 9).compares
    assert own == Compare(PLACES["election"], Target.CREATE, 3)
