"""A watch delivers every change, once, whole and in order, whatever happens to members, streams
and history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from etcsched.core.errors import Compacted
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.watch import WatchTiming
from etcsched.keyspace.ops import Delete, EventType, Put, Txn, WatchBatch, WatchEvent
from etcsched.ports import Snapshot, WatchUpdate
from tests.conftest import StartEtcd
from tests.support.etcd_cluster import EtcdCluster, certainly

QUICK = WatchTiming(open_s=1.0, quiet_s=0.3, answer_s=0.5)


def client_of(cluster: EtcdCluster) -> EtcdClient:
    return EtcdClient(EtcdConfig(**cluster.config_kwargs), watch_timing=QUICK)


async def events_up_to(updates: AsyncIterator[WatchUpdate], revision: int) -> list[WatchEvent]:
    events: list[WatchEvent] = []
    async with asyncio.timeout(30):
        while not events or events[-1].kv.mod_revision < revision:
            batch = await anext(updates)
            assert isinstance(batch, WatchBatch)
            assert all(event.kv.mod_revision <= batch.revision for event in batch.events)
            events.extend(batch.events)
    return events


def check_consecutive(events: list[WatchEvent], first_revision: int) -> None:
    """One event a revision, none missing, none twice."""
    revisions = [event.kv.mod_revision for event in events]
    assert revisions == list(range(first_revision, first_revision + len(events)))


async def put(client: EtcdClient, value: bytes = b"") -> int:
    """Once at least: who isn't told puts again, which makes another revision."""
    return (await certainly(client, Txn((), (Put("w/a", value),)))).revision


async def test_snapshot_in_pages_then_changes(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd()
    async with client_of(cluster) as client:
        for block in range(120):
            keys = tuple(Put(f"w/{block:03}/{number:03}", b"1") for number in range(100))
            last = await client.txn(Txn((), keys))
        await client.txn(Txn((), (Put("elsewhere", b""),)))
        async with client.watch("w/", "w0", prev_kv=True) as updates:
            snapshot = await anext(updates)
            assert isinstance(snapshot, Snapshot)
            assert snapshot.revision == last.revision + 1
            assert len({kv.key for kv in snapshot.kvs}) == len(snapshot.kvs) == 12_000
            both = await client.txn(Txn((), (Delete("w/000/000"), Put("w/000/001", b"2"))))
            batch = await anext(updates)
            assert isinstance(batch, WatchBatch)
            assert batch.revision == both.revision
            assert [(event.type, event.kv.value) for event in batch.events] == [
                (EventType.DELETE, b""),
                (EventType.PUT, b"2"),
            ]
            assert [event.prev.value for event in batch.events if event.prev] == [b"1", b"1"]


async def test_resumes_over_kills_of_its_member(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(members=3)
    async with (
        client_of(cluster) as watcher,
        EtcdClient(watcher.config) as writer,
        watcher.watch("w/", "w0") as updates,
    ):
        snapshot = await anext(updates)
        seen: list[WatchEvent] = []
        for _ in range(3):
            seen += await events_up_to(updates, await put(writer))
            victim = watcher.connections.index(watcher.preferred())
            others = [index for index in range(3) if index != victim]
            cluster.kill(victim)
            await cluster.wait_healthy(*others)
            for _ in range(5):
                revision = await put(writer)
            seen += await events_up_to(updates, revision)
            await cluster.restart(victim)
            await cluster.wait_healthy()
        check_consecutive(seen, snapshot.revision + 1)


async def test_leaves_a_member_that_went_silent(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(members=3)
    async with (
        client_of(cluster) as watcher,
        EtcdClient(watcher.config) as writer,
        watcher.watch("w/", "w0") as updates,
    ):
        snapshot = await anext(updates)
        seen = await events_up_to(updates, await put(writer))
        frozen = watcher.connections.index(watcher.preferred())
        cluster.freeze(frozen)
        others = [index for index in range(3) if index != frozen]
        await cluster.wait_healthy(*others)
        while writer.connections.index(writer.preferred()) == frozen:
            writer.put_behind(writer.preferred())
        seen += await events_up_to(updates, await put(writer))
        cluster.thaw(frozen)
        check_consecutive(seen, snapshot.revision + 1)


async def test_a_quiet_watch_stays_where_it_is(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd()
    async with client_of(cluster) as client, client.watch("w/", "w0") as updates:
        await anext(updates)
        waiting = asyncio.ensure_future(anext(updates))
        done, _ = await asyncio.wait({waiting}, timeout=4 * QUICK.quiet_s)
        assert not done
        revision = await put(client)
        assert (await waiting).revision == revision


async def test_compaction_under_a_watch_gives_a_new_snapshot(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd()
    async with (
        client_of(cluster) as watcher,
        EtcdClient(watcher.config) as writer,
        watcher.watch("w/", "w0") as updates,
    ):
        await anext(updates)
        await events_up_to(updates, await put(writer))
        # Nobody reads on while the stream dies and history goes.
        cluster.kill(0)
        await cluster.restart(0)
        deleted = await writer.txn(Txn((), (Delete("w/a"),)))
        last = await writer.txn(Txn((), (Put("w/b", b""),)))
        await writer.compact(last.revision)
        async with asyncio.timeout(30):
            snapshot = await anext(updates)
        assert isinstance(snapshot, Snapshot)
        assert snapshot.revision == last.revision > deleted.revision
        assert [kv.key for kv in snapshot.kvs] == ["w/b"]
        await events_up_to(updates, await put(writer))


async def test_a_compacted_start_is_said(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd()
    async with client_of(cluster) as client:
        for _ in range(3):
            revision = await put(client)
        await client.compact(revision)
        after = await put(client)
        for start in (revision - 1, revision):
            async with client.watch("w/", "w0", start_revision=start) as updates:
                with pytest.raises(Compacted) as error:
                    await anext(updates)
            assert error.value.compact_revision == revision
        async with client.watch("w/", "w0", start_revision=after) as updates:
            check_consecutive(await events_up_to(updates, after), after)


async def test_revisions_stay_whole_in_large_responses(start_etcd: StartEtcd) -> None:
    """Together far over etcd's limit of 1.5 MiB, so it sends fragments, which cut revisions."""
    cluster = await start_etcd()
    async with client_of(cluster) as client:
        async with client.watch("w/", "w0") as updates:
            snapshot = await anext(updates)
        for number in range(30):
            keys = tuple(Put(f"w/{number}/{part}", bytes(10_000)) for part in range(70))
            last = await client.txn(Txn((), keys))
        start = snapshot.revision + 1
        async with client.watch("w/", "w0", prev_kv=True, start_revision=start) as updates:
            position = snapshot.revision
            while position < last.revision:
                batch = await anext(updates)
                assert isinstance(batch, WatchBatch)
                revisions = [event.kv.mod_revision for event in batch.events]
                whole = range(position + 1, batch.revision + 1)
                assert revisions == [revision for revision in whole for _ in range(70)]
                position = batch.revision


async def test_changes_of_other_keys_are_no_gap(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd()
    async with client_of(cluster) as client, client.watch("w/", "w0") as updates:
        snapshot = await anext(updates)
        for _ in range(5):
            await client.txn(Txn((), (Put("elsewhere", b""),)))
        cluster.kill(0)
        await cluster.restart(0)
        revision = await put(client)
        (event,) = await events_up_to(updates, revision)
        assert event.kv.mod_revision == snapshot.revision + 6
