"""Every call of the client, against one real member."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from etcsched.core.errors import (
    ClusterUnreachable,
    Compacted,
    InvalidTransaction,
    LeaseGone,
    NoSpace,
)
from etcsched.etcd.admin import Alarm, EtcdAdmin
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.embedded import EtcdOptions
from etcsched.etcd.versions import check_server
from etcsched.keyspace.ops import (
    Compare,
    Delete,
    DeleteResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
    range_end_of,
)
from tests.conftest import StartEtcd
from tests.support.etcd_cluster import SharedEtcd


@pytest_asyncio.fixture
async def client(etcd: SharedEtcd) -> AsyncIterator[EtcdClient]:
    async with EtcdClient(EtcdConfig(**etcd.config_kwargs)) as client:
        yield client


async def test_transactions_and_ranges(client: EtcdClient, etcd: SharedEtcd) -> None:
    a, b = etcd.prefix + "a", etcd.prefix + "b\udcff"
    created = await client.txn(Txn((Compare(a, Target.CREATE, 0),), (Put(a, b"1"), Put(b, b"2"))))
    assert created.succeeded
    assert created.responses == (PutResult(created.revision), PutResult(created.revision))
    assert created.raft_term == client.last_raft_term > 0

    nested = Txn((Compare(a, Target.VALUE, b"2"),), (Put(a, b"3"),), (Delete(b), Range(a)))
    outer = await client.txn(
        Txn((Compare(a, Target.MOD, created.revision - 1, Relation.GREATER),), (nested,))
    )
    (inner,) = outer.responses
    assert isinstance(inner, TxnResult)
    assert outer.succeeded
    assert not inner.succeeded
    deleted, read = inner.responses
    assert deleted == DeleteResult(1, outer.revision)
    assert isinstance(read, RangeResult)
    assert [(kv.key, kv.value, kv.mod_revision) for kv in read.kvs] == [(a, b"1", created.revision)]

    before = await client.range(
        Range(etcd.prefix, range_end_of(etcd.prefix), revision=created.revision, limit=1)
    )
    assert [kv.key for kv in before.kvs] == [a]
    assert (before.count, before.more) == (2, True)
    keys = await client.range(Range(a, keys_only=True))
    assert (keys.kvs[0].value, keys.kvs[0].create_revision) == (b"", created.revision)
    assert (await client.range(Range(b))).kvs == ()


async def test_leases(client: EtcdClient, etcd: SharedEtcd) -> None:
    granted = await client.lease_grant(60)
    assert granted.ttl_s == 60
    await client.txn(Txn((), (Put(etcd.prefix + "a", b"", granted.lease),)))
    assert (await client.lease_keepalive_once(granted.lease)).ttl_s == 60
    assert 0 < (await client.lease_time_to_live(granted.lease)).ttl_s <= 60
    await client.lease_revoke(granted.lease)
    await client.lease_revoke(granted.lease)
    assert (await client.lease_keepalive_once(granted.lease)).ttl_s == 0
    assert (await client.lease_time_to_live(granted.lease)).has_ended
    assert (await client.range(Range(etcd.prefix + "a"))).count == 0
    with pytest.raises(LeaseGone, match=r"etcd at 127\.0\.0\.1:"):
        await client.txn(Txn((), (Put(etcd.prefix + "a", b"", granted.lease),)))
    chosen = 0x5EED0000 + int(etcd.prefix.split("/")[2])
    assert (await client.lease_grant(60, lease=chosen)).lease == chosen
    await client.lease_revoke(chosen)


async def test_refused_transactions(client: EtcdClient, etcd: SharedEtcd) -> None:
    key = etcd.prefix + "a"
    for operations in (
        (Put(key, b"1"), Put(key, b"2")),
        tuple(Put(f"{key}{number}", b"") for number in range(129)),
        (Put(key, bytes(1_700_000)),),
        (Put(key, bytes(4_000_000)),),
    ):
        with pytest.raises(InvalidTransaction, match="nothing was applied"):
            await client.txn(Txn((), operations))
    assert (await client.range(Range(etcd.prefix, range_end_of(etcd.prefix)))).count == 0


async def test_responses_far_over_grpcs_default_limit(client: EtcdClient, etcd: SharedEtcd) -> None:
    for number in range(6):
        await client.txn(Txn((), (Put(f"{etcd.prefix}{number}", bytes(1_000_000)),)))
    everything = await client.range(Range(etcd.prefix, range_end_of(etcd.prefix)))
    assert sum(len(kv.value) for kv in everything.kvs) == 6_000_000


async def test_status_and_members(client: EtcdClient, etcd: SharedEtcd) -> None:
    (status,) = await client.status()
    assert status.version == etcd.cluster.binary.version
    assert status.leader_id == status.member_id
    assert status.revision
    assert status.db_size_bytes
    (member,) = await EtcdAdmin(client).members()
    assert member.member_id == status.member_id
    assert member.client_urls
    assert not member.learner
    assert await check_server(client, embedded=False) == await client.status()


async def test_compaction(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd()
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        for number in range(3):
            last = await client.txn(Txn((), (Put("a", b"%d" % number),)))
        await client.compact(last.revision)
        with pytest.raises(Compacted):
            await client.range(Range("a", revision=last.revision - 1))
        with pytest.raises(Compacted):
            await client.compact(last.revision)
        await EtcdAdmin(client).defragment(client.connections[0])


async def test_a_member_without_a_leader_raises_no_alarm(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(members=3)
    cluster.kill(1)
    cluster.kill(2)
    one = {**cluster.config_kwargs, "endpoints": cluster.endpoints[:1]}
    async with EtcdClient(EtcdConfig(**one)) as client, asyncio.timeout(30):
        while True:
            (status,) = await client.status()
            assert status.alarms == ()
            if not status.leader_id:
                return
            await asyncio.sleep(0.05)


async def test_a_full_database_is_said_and_mended(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(
        options=EtcdOptions(quota_bytes=16 * 1024**2, compaction_retention="0", fsync=False)
    )
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        admin = EtcdAdmin(client)
        fill = Txn((), (Put("a", bytes(1_000_000)),))

        async def fill_up() -> None:
            # etcd looks at the size of what its backend has flushed, which lags behind writes.
            for _ in range(200):
                await client.txn(fill)

        with pytest.raises(NoSpace, match="compact, defragment, then disarm"):
            await fill_up()
        (alarm,) = await admin.alarms()
        (status,) = await client.status()
        assert status.member_id
        assert status.revision
        assert alarm == Alarm(status.member_id, "NOSPACE")
        assert status.alarms == ("NOSPACE",)
        await client.compact(status.revision)
        await admin.defragment(client.connections[0])
        await admin.disarm(alarm)
        assert (await client.txn(Txn((), (Put("a", b""),)))).succeeded


async def test_nothing_listens() -> None:
    async with EtcdClient(EtcdConfig(endpoints=("127.0.0.1:1", "[::1]:1"))) as client:
        with pytest.raises(ClusterUnreachable, match="connection refused") as refusal:
            await client.range(Range("a"))
        assert type(refusal.value) is ClusterUnreachable
        assert "127.0.0.1:1: " in str(refusal.value)
        assert "[::1]:1: " in str(refusal.value)
        with pytest.raises(ClusterUnreachable) as unsent:
            await client.txn(Txn((), (Put("a", b""),)))
        assert type(unsent.value) is ClusterUnreachable
        assert all(status.error for status in await client.status())
