"""Watches: a snapshot first, then every change, in order, whole revisions, without a gap."""

from __future__ import annotations

import pytest

from etcsched.core.errors import Compacted
from etcsched.keyspace.ops import Delete, EventType, KeyValue, Put, Txn, WatchBatch
from tests.contract.subject import (
    Subject,
    next_batches,
    next_events,
    next_snapshot,
    next_update,
)


async def test_snapshot_first(subject: Subject) -> None:
    await subject.put("a", b"1")
    revision = await subject.put("b", b"2")
    async with subject.etcd.watch(subject.prefix, subject.end) as updates:
        snapshot = await next_snapshot(updates)
    assert snapshot.revision == revision
    assert snapshot.kvs == (await subject.listing()).kvs


async def test_an_empty_range_has_a_snapshot_too(subject: Subject) -> None:
    revision = (await subject.listing()).revision
    async with subject.etcd.watch(subject.prefix, subject.end) as updates:
        snapshot = await next_snapshot(updates)
        assert (snapshot.kvs, snapshot.revision) == ((), revision)
        put = await subject.put("k")
        assert [event.kv.key for event in await next_events(updates, put)] == [subject.key("k")]


async def test_changes_after_the_snapshot(subject: Subject) -> None:
    created = await subject.put("k", b"1")
    async with subject.etcd.watch(subject.prefix, subject.end) as updates:
        await next_snapshot(updates)
        put = await subject.put("k", b"2")
        deletion = (await subject.do(Delete(subject.key("k")))).revision
        first, second = await next_events(updates, deletion)
    key = subject.key("k")
    assert (first.type, first.prev) == (EventType.PUT, None)
    assert first.kv == KeyValue(key, b"2", created, put, 2, 0)
    assert (second.type, second.prev) == (EventType.DELETE, None)
    assert second.kv == KeyValue(key, b"", 0, deletion, 0, 0)


async def test_previous_values(subject: Subject) -> None:
    created = await subject.put("old", b"1")
    async with subject.etcd.watch(subject.prefix, subject.end, prev_kv=True) as updates:
        await next_snapshot(updates)
        put = await subject.put("old", b"2")
        await subject.put("new")
        deletion = (await subject.do(Delete(subject.key("old")))).revision
        again = await subject.put("old", b"3")
        events = await next_events(updates, again)
    key = subject.key("old")
    assert [event.kv.mod_revision for event in events] == [put, put + 1, deletion, again]
    assert [event.prev for event in events] == [
        KeyValue(key, b"1", created, created, 1, 0),
        None,
        KeyValue(key, b"2", created, put, 2, 0),
        None,
    ]


async def test_a_revision_comes_whole_and_in_the_order_of_its_operations(subject: Subject) -> None:
    names = ["m", "z", "a", "k"]
    async with subject.etcd.watch(subject.prefix, subject.end) as updates:
        await next_snapshot(updates)
        revision = (await subject.do(*(Put(subject.key(name), b"") for name in names))).revision
        (batch,) = await next_batches(updates, revision)
    assert batch.revision == revision
    assert [event.kv.key for event in batch.events] == [subject.key(name) for name in names]


async def test_put_and_deleted_in_one_revision(subject: Subject) -> None:
    """Before it, the key was as the revision before left it."""
    await subject.put("old", b"1")
    async with subject.etcd.watch(subject.prefix, subject.end, prev_kv=True) as updates:
        await next_snapshot(updates)
        puts = (Put(subject.key("new"), b"2"), Put(subject.key("old"), b"2"))
        deletes = (Delete(subject.key("new")), Delete(subject.key("old")))
        result = await subject.do(Txn((), puts), Txn((), deletes))
        events = await next_events(updates, result.revision)
    assert [(event.type, event.prev and event.prev.value) for event in events] == [
        (EventType.PUT, None),
        (EventType.PUT, b"1"),
        (EventType.DELETE, None),
        (EventType.DELETE, b"1"),
    ]


async def test_other_keys_and_failed_transactions_dont_show(subject: Subject) -> None:
    async with subject.etcd.watch(subject.key("b"), subject.key("d")) as updates:
        await next_snapshot(updates)
        revisions = {name: await subject.put(name) for name in "abcde"}
        await subject.do(Delete(subject.key("b")), Delete(subject.key("e")))
        last = await subject.put("c")
        events = await next_events(updates, last)
    assert [event.kv.key.removeprefix(subject.prefix) for event in events] == ["b", "c", "b", "c"]
    assert events[0].kv.mod_revision == revisions["b"]


async def test_from_an_old_revision(subject: Subject) -> None:
    await subject.put("before")
    first = await subject.put("k", b"1")
    await subject.put("k", b"2")
    deletion = (await subject.do(Delete(subject.key("k")))).revision
    async with subject.etcd.watch(
        subject.prefix, subject.end, prev_kv=True, start_revision=first
    ) as updates:
        events = await next_events(updates, deletion)
        assert [event.kv.value for event in events] == [b"1", b"2", b""]
        assert [event.prev and event.prev.value for event in events] == [None, b"1", b"2"]
        last = await subject.put("k", b"4")
        assert [event.kv.value for event in await next_events(updates, last)] == [b"4"]


async def test_from_a_revision_to_come(subject: Subject) -> None:
    revision = await subject.put("k")
    async with subject.etcd.watch(
        subject.prefix, subject.end, start_revision=revision + 2
    ) as updates:
        await subject.put("skipped")
        last = await subject.put("seen")
        events = await next_events(updates, last)
    assert [event.kv.key for event in events] == [subject.key("seen")]


async def test_two_watches_are_independent(subject: Subject) -> None:
    async with (
        subject.etcd.watch(subject.prefix, subject.end) as slow,
        subject.etcd.watch(subject.prefix, subject.end) as quick,
    ):
        await next_snapshot(slow)
        await next_snapshot(quick)
        for i in range(20):
            await next_events(quick, await subject.put(str(i)))
        events = await next_events(slow, (await subject.listing()).revision)
    assert [event.kv.key for event in events] == [subject.key(str(i)) for i in range(20)]


async def test_compaction_doesnt_disturb_who_has_seen_it_all(subject: Subject) -> None:
    async with subject.etcd.watch(subject.prefix, subject.end) as updates:
        await next_snapshot(updates)
        for i in range(3):
            revision = await subject.put("k", str(i).encode())
            await next_events(updates, revision)
            await subject.etcd.compact(revision)


async def test_from_a_compacted_revision(subject: Subject) -> None:
    old = await subject.put("k")
    await subject.put("k")
    last = await subject.put("k")
    await subject.etcd.compact(last)
    for start in (old, last):
        async with subject.etcd.watch(subject.prefix, subject.end, start_revision=start) as updates:
            with pytest.raises(Compacted) as raised:
                await next_update(updates)
        assert raised.value.compact_revision == last


async def test_goes_on_after_a_cut_without_gap_or_repetition(subject: Subject) -> None:
    async with subject.etcd.watch(subject.prefix, subject.end) as updates:
        await next_snapshot(updates)
        revisions = [await subject.put("k")]
        batches: list[WatchBatch] = await next_batches(updates, revisions[0])
        for _ in range(2):
            await subject.cut()
            for _ in range(3):
                result = await subject.direct.txn(Txn((), (Put(subject.key("k"), b""),)))
                revisions.append(result.revision)
            await subject.mend()
            batches += await next_batches(updates, revisions[-1])
    assert [event.kv.mod_revision for batch in batches for event in batch.events] == revisions


async def test_a_new_snapshot_where_history_was_lost_in_a_cut(subject: Subject) -> None:
    for name in ("changed", "deleted", "kept"):
        await subject.put(name, b"1")
    async with subject.etcd.watch(subject.prefix, subject.end) as updates:
        await next_snapshot(updates)
        await subject.cut()
        await subject.direct.txn(
            Txn((), (Delete(subject.key("deleted")), Put(subject.key("changed"), b"2")))
        )
        last = await subject.direct.txn(Txn((), (Put(subject.key("new"), b"1"),)))
        await subject.direct.compact(last.revision)
        await subject.mend()
        snapshot = await next_snapshot(updates)
        assert snapshot.revision == last.revision
        values = {kv.key.removeprefix(subject.prefix): kv.value for kv in snapshot.kvs}
        assert values == {"changed": b"2", "kept": b"1", "new": b"1"}
        revision = await subject.put("k")
        assert len(await next_events(updates, revision)) == 1


async def test_a_deletion_in_the_revision_that_history_was_compacted_to(subject: Subject) -> None:
    """Before 3.4.34 and 3.5.16, etcd forgets it, and yet lets a watch begin there."""
    await subject.put("kept")
    await subject.put("deleted")
    async with subject.etcd.watch(subject.prefix, subject.end) as updates:
        await next_snapshot(updates)
        await subject.cut()
        deleted = await subject.direct.txn(Txn((), (Delete(subject.key("deleted")),)))
        await subject.direct.compact(deleted.revision)
        await subject.mend()
        snapshot = await next_snapshot(updates)
        assert [kv.key for kv in snapshot.kvs] == [subject.key("kept")]
