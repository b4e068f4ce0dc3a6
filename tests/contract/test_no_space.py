"""A full database: whatever might put is refused, the rest goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from etcsched.core.errors import NoSpace
from etcsched.keyspace.ops import Compare, Delete, Put, Target, Txn
from tests.contract.subject import Subject


@pytest_asyncio.fixture
async def full(subject: Subject) -> AsyncIterator[Subject]:
    """It holds the keys a and b, on a lease."""
    lease = (await subject.etcd.lease_grant(60)).lease
    for name in "ab":
        await subject.put(name, lease=lease)
    await subject.set_no_space(True)
    yield subject
    await subject.set_no_space(False)


async def test_puts_and_leases_are_refused(full: Subject) -> None:
    with pytest.raises(NoSpace):
        await full.put("c")
    with pytest.raises(NoSpace):
        await full.etcd.lease_grant(60)
    assert await full.names() == ["a", "b"]


async def test_a_put_in_a_branch_not_taken_is_refused_too(full: Subject) -> None:
    with pytest.raises(NoSpace):
        await full.etcd.txn(Txn((), (Delete(full.key("a")),), (Put(full.key("c"), b""),)))
    assert await full.names() == ["a", "b"]


async def test_nested_puts_pass_by_the_alarm(full: Subject) -> None:
    """A gap in etcd: who only writes nested transactions must look at the alarm themselves."""
    await full.do(Txn((), (Put(full.key("c"), b""),)))
    assert await full.names() == ["a", "b", "c"]
    with pytest.raises(NoSpace):
        await full.do(Put(full.key("d"), b""), Txn((), (Put(full.key("e"), b""),)))
    assert await full.names() == ["a", "b", "c"]


async def test_deleting_renewing_and_revoking_go_on(full: Subject) -> None:
    kv = await full.get("b")
    assert kv is not None
    assert (await full.etcd.lease_keepalive_once(kv.lease)).ttl_s == 60
    deletion = await full.etcd.txn(
        Txn((Compare(full.key("a"), Target.VERSION, 1),), (Delete(full.key("a")),))
    )
    assert deletion.succeeded
    await full.etcd.lease_revoke(kv.lease)
    assert await full.names() == []


async def test_all_is_well_once_the_alarm_is_cleared(full: Subject) -> None:
    await full.set_no_space(False)
    await full.put("c")
    assert await full.names() == ["a", "b", "c"]
