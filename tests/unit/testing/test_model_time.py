"""What the model of etcd adds to the contract: virtual time and changes of etcd's leader."""

from __future__ import annotations

import pytest

from etcsched.core.errors import ClusterUnreachable, OutcomeUnknown
from etcsched.keyspace.ops import Put, Range, Txn
from etcsched.testing.model_etcd import ModelEtcd
from etcsched.testing.model_store import ModelStore


def put(store: ModelStore, key: str, lease: int = 0) -> int:
    return store.txn(Txn((), (Put(key, b"", lease),))).revision


def keys(store: ModelStore) -> list[str]:
    return [kv.key for kv in store.snapshot("a", "z").kvs]


def test_a_lease_ends_at_the_first_look_after_its_ttl() -> None:
    store = ModelStore(now_s=100.2)
    lease = store.lease_grant(2).lease
    put(store, "k", lease)
    assert store.next_expiry_s() == 102.5
    store.advance(102.4)
    assert keys(store) == ["k"]
    assert store.lease_keepalive(lease).ttl_s == 0  # too late already
    assert not store.lease_time_to_live(lease).has_ended  # but not over
    store.advance(102.5)
    assert keys(store) == []
    assert store.lease_time_to_live(lease).has_ended
    assert store.next_expiry_s() is None


def test_a_lease_that_has_run_out_begins_anew_under_a_new_leader() -> None:
    store = ModelStore(now_s=100.0)
    lease = store.lease_grant(2).lease
    put(store, "k", lease)
    store.lose_leader()
    store.advance(104.0)
    run_out = store.lease_time_to_live(lease)
    assert (run_out.ttl_s, run_out.granted_s, run_out.has_ended) == (-2, 2, False)
    store.elect()
    assert store.lease_keepalive(lease).ttl_s == 2
    assert keys(store) == ["k"]


def test_leases_end_in_the_order_of_time_each_in_its_own_revision() -> None:
    store = ModelStore()
    late, soon = store.lease_grant(9).lease, store.lease_grant(3).lease
    put(store, "late", late)
    last = put(store, "soon", soon)
    store.advance(60.0)
    events = store.events_since(last + 1, "a", "z")
    assert [(event.kv.key, event.kv.mod_revision) for event in events] == [
        ("soon", last + 1),
        ("late", last + 2),
    ]
    assert store.now_s == 60.0


def test_a_renewed_lease_counts_from_its_renewal() -> None:
    store = ModelStore()
    lease = store.lease_grant(5).lease
    store.advance(4.0)
    assert store.lease_keepalive(lease).ttl_s == 5
    assert store.next_expiry_s() == 9.0
    assert store.lease_time_to_live(lease).ttl_s == 5


def test_time_doesnt_run_backwards() -> None:
    store = ModelStore(now_s=10.0)
    store.advance(5.0)
    assert store.now_s == 10.0


def test_a_new_leader_of_etcd_renews_every_lease() -> None:
    store = ModelStore(raft_term=7)
    lease = store.lease_grant(5).lease
    store.advance(4.0)
    store.elect(election_timeout_s=1.0)
    assert store.raft_term == 8
    assert store.next_expiry_s() == 10.0
    assert store.lease_keepalive(lease).raft_term == 8


def test_a_listener_hears_of_each_revision_until_it_leaves() -> None:
    store = ModelStore()
    heard: list[int] = []
    leave = store.subscribe(lambda: heard.append(store.revision))
    revisions = [put(store, "k"), put(store, "k")]
    store.range(Range("k"))
    leave()
    put(store, "k")
    assert heard == revisions


async def test_a_cut_client_fails_at_once_and_changes_nothing() -> None:
    store = ModelStore()
    client = ModelEtcd(store)
    client.cut()
    with pytest.raises(OutcomeUnknown):
        await client.txn(Txn((), (Put("k", b""),)))
    with pytest.raises(ClusterUnreachable):
        await client.range(Range("k"))
    assert (await client.status())[0].error
    client.mend()
    assert (await client.range(Range("k"))).count == 0
