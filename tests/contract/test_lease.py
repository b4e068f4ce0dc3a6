"""Leases: granting, renewing, revoking, expiring, and the keys that hang on them."""

from __future__ import annotations

import pytest

from etcsched.core.errors import LeaseGone, Refused
from etcsched.keyspace.ops import Compare, Delete, EventType, Put, Target, Txn
from tests.contract.subject import LEAST_TTL_S, Subject, next_events, next_snapshot

NO_LEASE = 0x7EAD


async def test_grant_and_time_to_live(subject: Subject) -> None:
    granted = await subject.etcd.lease_grant(60)
    assert granted.lease > 0
    assert granted.ttl_s == 60
    left = await subject.etcd.lease_time_to_live(granted.lease)
    assert left.lease == granted.lease
    assert 55 <= left.ttl_s <= 60
    assert left.granted_s == 60
    assert left.raft_term == granted.raft_term > 0


async def test_a_short_lease_is_lengthened(subject: Subject) -> None:
    for ttl_s in (0, LEAST_TTL_S):
        assert (await subject.etcd.lease_grant(ttl_s)).ttl_s == LEAST_TTL_S


async def test_a_lease_longer_than_300_years_is_refused(subject: Subject) -> None:
    with pytest.raises(Refused):
        await subject.etcd.lease_grant(9_000_000_001)


async def test_an_id_of_ones_own(subject: Subject) -> None:
    lease = (await subject.etcd.lease_grant(60)).lease + 1_000_000_007
    assert (await subject.etcd.lease_grant(60, lease=lease)).lease == lease
    with pytest.raises(Refused):
        await subject.etcd.lease_grant(60, lease=lease)


async def test_a_lease_that_never_was(subject: Subject) -> None:
    assert (await subject.etcd.lease_keepalive_once(NO_LEASE)).ttl_s == 0
    assert (await subject.etcd.lease_time_to_live(NO_LEASE)).has_ended
    await subject.etcd.lease_revoke(NO_LEASE)
    with pytest.raises(LeaseGone):
        await subject.put("k", lease=NO_LEASE)
    assert await subject.names() == []


async def test_revoking_deletes_its_keys_in_one_revision(subject: Subject) -> None:
    lease = (await subject.etcd.lease_grant(60)).lease
    for name in ("b", "c", "a"):
        await subject.put(name, lease=lease)
    revision = await subject.put("other")
    async with subject.etcd.watch(subject.prefix, subject.end) as updates:
        await next_snapshot(updates)
        await subject.etcd.lease_revoke(lease)
        events = await next_events(updates, revision + 1)
    assert [event.type for event in events] == [EventType.DELETE] * 3
    assert [event.kv.key for event in events] == [subject.key(name) for name in "abc"]
    assert {event.kv.mod_revision for event in events} == {revision + 1}
    assert await subject.names() == ["other"]
    assert (await subject.etcd.lease_time_to_live(lease)).has_ended
    assert (await subject.etcd.lease_keepalive_once(lease)).ttl_s == 0


async def test_revoking_a_lease_without_keys_takes_no_revision(subject: Subject) -> None:
    revision = await subject.put("k")
    lease = (await subject.etcd.lease_grant(60)).lease
    await subject.etcd.lease_revoke(lease)
    assert (await subject.listing()).revision == revision


async def test_nothing_is_put_under_a_lease_that_has_ended(subject: Subject) -> None:
    """It runs out before etcd looks, and until then it hasn't ended."""
    lease = (await subject.etcd.lease_grant(LEAST_TTL_S)).lease
    while not (await subject.etcd.lease_time_to_live(lease)).has_ended:
        await subject.let_pass(0.05)
    with pytest.raises(LeaseGone):
        await subject.put("k", lease=lease)


async def test_expiry_deletes_its_keys(subject: Subject) -> None:
    ttl_s = LEAST_TTL_S + 2
    lease = (await subject.etcd.lease_grant(ttl_s)).lease
    revision = (
        await subject.do(
            Put(subject.key("a"), b"1", lease),
            Put(subject.key("b"), b"2", lease),
            Put(subject.key("other"), b""),
        )
    ).revision
    async with subject.etcd.watch(subject.prefix, subject.end, prev_kv=True) as updates:
        await next_snapshot(updates)
        await subject.let_pass(ttl_s + 1.0)
        events = await next_events(updates, revision + 1)
    assert [event.prev.value for event in events if event.prev] == [b"1", b"2"]
    assert {event.kv.mod_revision for event in events} == {revision + 1}
    assert (await subject.etcd.lease_keepalive_once(lease)).ttl_s == 0
    assert (await subject.etcd.lease_time_to_live(lease)).has_ended
    with pytest.raises(LeaseGone):
        await subject.put("a", lease=lease)


async def test_keepalives_hold_off_expiry(subject: Subject) -> None:
    ttl_s = LEAST_TTL_S + 3
    renewed = (await subject.etcd.lease_grant(ttl_s)).lease
    forgotten = (await subject.etcd.lease_grant(ttl_s)).lease
    await subject.put("renewed", lease=renewed)
    await subject.put("forgotten", lease=forgotten)
    for _ in range(4):
        await subject.let_pass(ttl_s / 2)
        answer = await subject.etcd.lease_keepalive_once(renewed)
        assert (answer.lease, answer.ttl_s) == (renewed, ttl_s)
    assert await subject.names() == ["renewed"]


async def test_put_without_a_lease_detaches(subject: Subject) -> None:
    lease = (await subject.etcd.lease_grant(60)).lease
    await subject.put("k", lease=lease)
    await subject.put("k")
    assert await subject.holds(Compare(subject.key("k"), Target.LEASE, 0))
    await subject.etcd.lease_revoke(lease)
    assert await subject.names() == ["k"]


async def test_put_with_another_lease_moves_the_key(subject: Subject) -> None:
    first = (await subject.etcd.lease_grant(60)).lease
    second = (await subject.etcd.lease_grant(60)).lease
    await subject.put("k", lease=first)
    await subject.put("k", lease=second)
    await subject.etcd.lease_revoke(first)
    kv = await subject.get("k")
    assert kv is not None
    assert kv.lease == second
    await subject.etcd.lease_revoke(second)
    assert await subject.names() == []


async def test_a_deleted_key_hangs_on_its_lease_no_more(subject: Subject) -> None:
    lease = (await subject.etcd.lease_grant(60)).lease
    await subject.put("k", lease=lease)
    await subject.do(Delete(subject.key("k")))
    await subject.put("k")
    await subject.etcd.lease_revoke(lease)
    assert await subject.names() == ["k"]


async def test_put_and_deleted_in_one_transaction(subject: Subject) -> None:
    lease = (await subject.etcd.lease_grant(60)).lease
    revision = (
        await subject.do(
            Txn((), (Put(subject.key("k"), b"", lease),)), Txn((), (Delete(subject.key("k")),))
        )
    ).revision
    await subject.etcd.lease_revoke(lease)
    assert (await subject.listing()).revision == revision
