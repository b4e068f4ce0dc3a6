"""Reading: order, limits, pages, old revisions."""

from __future__ import annotations

import pytest

from etcsched.core.errors import Compacted, InvalidTransaction, Refused
from etcsched.keyspace.ops import Delete, KeyValue, Put, Range, RangeResult, Txn
from tests.contract.subject import Subject


async def test_in_order_of_bytes(subject: Subject) -> None:
    names = ["", "0", "A", "a", "a/", "a0", "b", "\u00e9", "\u20ac", "\U0001f600"]
    for name in reversed(names):
        await subject.put(name)
    assert await subject.names() == names


async def test_start_is_in_and_end_is_out(subject: Subject) -> None:
    for name in "abc":
        await subject.put(name)

    async def names(start: str, end: str | None) -> list[str]:
        result = await subject.etcd.range(Range(start, end))
        return [kv.key.removeprefix(subject.prefix) for kv in result.kvs]

    assert await names(subject.key("a"), subject.key("c")) == ["a", "b"]
    assert await names(subject.key("b"), None) == ["b"]
    assert await names(subject.key("b"), subject.key("b")) == []
    assert await names(subject.key("c"), subject.key("a")) == []
    assert (await names(subject.key("b"), "\0"))[:2] == ["b", "c"]


async def test_limit_cuts_and_says_so(subject: Subject) -> None:
    for name in "abc":
        await subject.put(name)
    for limit, more in ((1, True), (2, True), (3, False), (4, False), (0, False)):
        result = await subject.listing(limit=limit)
        assert len(result.kvs) == (limit if 0 < limit < 3 else 3)
        assert (result.count, result.more) == (3, more)


async def test_pages_of_one_revision(subject: Subject) -> None:
    names = [f"{i:02}" for i in range(25)]
    await subject.do(*(Put(subject.key(name), b"") for name in names))
    page = await subject.listing(limit=10)
    revision = page.revision
    found = list(page.kvs)
    await subject.do(Delete(subject.key("12")), Put(subject.key("245"), b""))
    while page.more:
        request = Range(found[-1].key + "\0", subject.end, limit=10, revision=revision)
        page = await subject.etcd.range(request)
        found += page.kvs
    assert [kv.key.removeprefix(subject.prefix) for kv in found] == names


async def test_the_newest_first(subject: Subject) -> None:
    for name in "bdac":
        await subject.put(name)
    await subject.put("d")
    for limit, names in ((0, "dcab"), (2, "dc"), (9, "dcab")):
        result = await subject.listing(limit=limit, newest_first=True, keys_only=True)
        assert [kv.key.removeprefix(subject.prefix) for kv in result.kvs] == list(names)
        assert (result.count, result.more) == (4, limit == 2)


async def test_keys_only_leaves_out_values_and_nothing_else(subject: Subject) -> None:
    lease = (await subject.etcd.lease_grant(60)).lease
    revision = await subject.put("k", b"value", lease)
    result = await subject.listing(keys_only=True)
    assert result.kvs == (KeyValue(subject.key("k"), b"", revision, revision, 1, lease),)


async def test_count_only(subject: Subject) -> None:
    for name in "abc":
        await subject.put(name)
    result = await subject.listing(count_only=True, limit=1)
    assert (result.kvs, result.count, result.more) == ((), 3, False)


async def test_nothing_there(subject: Subject) -> None:
    result = await subject.listing()
    assert (result.kvs, result.count, result.more) == ((), 0, False)


async def test_old_revisions(subject: Subject) -> None:
    first = await subject.put("k", b"1")
    second = await subject.put("k", b"2")
    deletion = (await subject.do(Delete(subject.key("k")))).revision
    last = await subject.put("k", b"4")

    async def value_at(revision: int) -> bytes | None:
        result = await subject.listing(revision=revision)
        assert result.revision == last
        return result.kvs[0].value if result.kvs else None

    assert await value_at(first - 1) is None
    assert await value_at(first) == b"1"
    assert await value_at(second) == b"2"
    assert await value_at(deletion) is None
    assert await value_at(last) == b"4"


async def test_an_old_revision_read_inside_a_transaction(subject: Subject) -> None:
    old = await subject.put("k", b"old")
    result = await subject.do(
        Put(subject.key("k"), b"new"), Txn((), (Range(subject.key("k"), revision=old),))
    )
    nested = result.responses[1]
    assert not isinstance(nested, RangeResult)
    assert "old" in str(nested)


async def test_a_revision_to_come_is_refused(subject: Subject) -> None:
    revision = await subject.put("k")
    with pytest.raises(Refused):
        await subject.listing(revision=revision + 1)
    with pytest.raises(Refused):
        await subject.do(Put(subject.key("k"), b""), Range(subject.key("k"), revision=revision + 1))
    assert (await subject.listing()).revision == revision


async def test_an_empty_key_is_refused(subject: Subject) -> None:
    with pytest.raises(InvalidTransaction):
        await subject.etcd.range(Range(""))


async def test_compaction(subject: Subject) -> None:
    first = await subject.put("k", b"1")
    await subject.put("gone")
    second = await subject.put("k", b"2")
    deletion = (await subject.do(Delete(subject.key("gone")))).revision
    third = await subject.put("k", b"3")

    await subject.etcd.compact(second)
    with pytest.raises(Compacted):
        await subject.listing(revision=first)
    with pytest.raises(Compacted):
        await subject.do(
            Put(subject.key("k"), b"lost"), Txn((), (Range(subject.key("k"), revision=first),))
        )
    at_second = await subject.listing(revision=second)
    assert [(kv.value, kv.create_revision) for kv in at_second.kvs if kv.value] == [(b"2", first)]
    assert at_second.count == 2

    await subject.etcd.compact(deletion)
    assert (await subject.listing(revision=deletion)).count == 1
    kv = await subject.get("k")
    assert kv == KeyValue(subject.key("k"), b"3", first, third, 3, 0)


async def test_compacting_twice_or_the_future(subject: Subject) -> None:
    revision = await subject.put("k")
    await subject.etcd.compact(revision)
    with pytest.raises(Compacted):
        await subject.etcd.compact(revision)
    with pytest.raises(Refused):
        await subject.etcd.compact(revision + 1)
    assert (await subject.listing()).revision == revision
