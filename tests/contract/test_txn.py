"""Transactions: compares, branches, nesting, and what etcd refuses."""

from __future__ import annotations

import pytest

from etcsched.core.errors import InvalidTransaction, LeaseGone
from etcsched.keyspace.ops import (
    Compare,
    Delete,
    DeleteResult,
    Operation,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
)
from tests.contract.subject import Subject

MAX_TXN_OPS = 128
MAX_REQUEST_BYTES = 1536 * 1024
NO_LEASE = 0x7EAD

EQ, NE, GT, LT = Relation.EQUAL, Relation.NOT_EQUAL, Relation.GREATER, Relation.LESS


@pytest.mark.parametrize("target", [Target.CREATE, Target.MOD, Target.VERSION, Target.LEASE])
async def test_compare_numbers(subject: Subject, target: Target) -> None:
    lease = (await subject.etcd.lease_grant(60)).lease
    created = await subject.put("k")
    modified = await subject.put("k", lease=lease)
    number = {
        Target.CREATE: created,
        Target.MOD: modified,
        Target.VERSION: 2,
        Target.LEASE: lease,
    }[target]

    async def related(operand: int) -> set[Relation]:
        key = subject.key("k")
        return {r for r in Relation if await subject.holds(Compare(key, target, operand, r))}

    assert await related(number - 1) == {NE, GT}
    assert await related(number) == {EQ}
    assert await related(number + 1) == {NE, LT}


@pytest.mark.parametrize(
    ("operand", "holding"),
    [(b"ba", {EQ}), (b"b", {NE, GT}), (b"bb", {NE, LT}), (b"", {NE, GT}), (b"\xff", {NE, LT})],
)
async def test_compare_values(subject: Subject, operand: bytes, holding: set[Relation]) -> None:
    await subject.put("k", b"ba")
    key = subject.key("k")
    held = {r for r in Relation if await subject.holds(Compare(key, Target.VALUE, operand, r))}
    assert held == holding


async def test_compare_of_an_absent_key(subject: Subject) -> None:
    absent = subject.key("absent")
    for target in (Target.CREATE, Target.MOD, Target.VERSION, Target.LEASE):
        assert await subject.holds(Compare(absent, target, 0))
        assert await subject.holds(Compare(absent, target, 1, LT))
        assert not await subject.holds(Compare(absent, target, 0, NE))
    for relation in Relation:
        for operand in (b"", b"x"):
            assert not await subject.holds(Compare(absent, Target.VALUE, operand, relation))


async def test_compare_of_a_range(subject: Subject) -> None:
    """All keys of the range must hold; an empty one is like an absent key."""
    start, end = subject.key("r/b"), subject.key("r/y")

    def created_before(revision: int) -> Compare:
        return Compare(start, Target.CREATE, revision, LT, end)

    assert await subject.holds(created_before(1))
    await subject.put("r/a")
    first = await subject.put("r/b")
    await subject.put("r/y")
    assert await subject.holds(created_before(first + 1))
    second = await subject.put("r/x")
    assert not await subject.holds(created_before(second))
    assert await subject.holds(created_before(second + 1))
    await subject.put("r/b")
    assert await subject.holds(created_before(second + 1))
    assert not await subject.holds(Compare(start, Target.VERSION, 0, EQ, end))


async def test_all_compares_must_hold(subject: Subject) -> None:
    await subject.put("k")
    there = Compare(subject.key("k"), Target.VERSION, 1)
    absent = Compare(subject.key("absent"), Target.CREATE, 0)
    assert await subject.holds()
    assert await subject.holds(there, absent)
    assert not await subject.holds(there, Compare(subject.key("k"), Target.VERSION, 2))


async def test_results_stand_in_order_and_carry_the_outer_revision(subject: Subject) -> None:
    before = await subject.put("old", b"v")
    result = await subject.do(
        Put(subject.key("new"), b"w"),
        Range(subject.key("new")),
        Txn((), (Delete(subject.key("old")), Range(subject.key("old")))),
        Delete(subject.key("absent")),
    )
    assert result.succeeded
    assert result.revision == before + 1
    put, read, nested, deleted = result.responses
    assert put == PutResult(result.revision)
    assert isinstance(read, RangeResult)
    assert [kv.value for kv in read.kvs] == [b"w"]
    assert read.revision == result.revision
    assert isinstance(nested, TxnResult)
    assert nested.responses[0] == DeleteResult(1, result.revision)
    assert isinstance(nested.responses[1], RangeResult)
    assert nested.responses[1].kvs == ()
    assert (nested.revision, nested.raft_term) == (result.revision, result.raft_term)
    assert deleted == DeleteResult(0, result.revision)


async def test_the_other_branch(subject: Subject) -> None:
    result = await subject.etcd.txn(
        Txn(
            (Compare(subject.key("k"), Target.VERSION, 1),),
            (Put(subject.key("k"), b"then"),),
            (Put(subject.key("k"), b"otherwise"),),
        )
    )
    assert not result.succeeded
    kv = await subject.get("k")
    assert kv is not None
    assert kv.value == b"otherwise"


async def test_revisions_and_versions_of_a_key(subject: Subject) -> None:
    first = await subject.put("k", b"1")
    second = await subject.put("k", b"2")
    kv = await subject.get("k")
    assert kv is not None
    assert (kv.create_revision, kv.mod_revision, kv.version) == (first, second, 2)
    deletion = await subject.do(Delete(subject.key("k")))
    assert deletion.revision == second + 1
    again = await subject.put("k", b"3")
    kv = await subject.get("k")
    assert kv is not None
    assert (kv.create_revision, kv.mod_revision, kv.version) == (again, again, 1)


async def test_what_changes_nothing_takes_no_revision(subject: Subject) -> None:
    before = await subject.put("k")
    result = await subject.do(
        Delete(subject.key("absent")), Range(subject.prefix, subject.end), Txn((), ())
    )
    assert result.revision == before
    assert result.responses[0] == DeleteResult(0, before)


async def test_all_of_a_transaction_is_one_revision(subject: Subject) -> None:
    names = [f"k{i}" for i in range(5)]
    result = await subject.do(*(Put(subject.key(name), b"") for name in names))
    listing = await subject.listing()
    assert {kv.mod_revision for kv in listing.kvs} == {result.revision}
    assert await subject.names() == names


async def test_delete_a_range(subject: Subject) -> None:
    for name in ("a", "b", "c"):
        await subject.put(name)
    result = await subject.do(Delete(subject.key("a"), subject.key("c")))
    assert result.responses == (DeleteResult(2, result.revision),)
    assert await subject.names() == ["c"]


# Nesting


async def test_nested_compares_see_the_state_before_the_outer_one(subject: Subject) -> None:
    absent = Compare(subject.key("k"), Target.CREATE, 0)
    result = await subject.do(
        Put(subject.key("k"), b""),
        Txn((absent,), (Put(subject.key("was absent"), b""),), (Put(subject.key("was not"), b""),)),
    )
    nested = result.responses[1]
    assert isinstance(nested, TxnResult)
    assert nested.succeeded
    assert await subject.names() == ["k", "was absent"]


async def test_nested_reads_see_what_stands_before_them(subject: Subject) -> None:
    await subject.put("k", b"old")
    result = await subject.do(
        Range(subject.key("k")),
        Txn((), (Put(subject.key("k"), b"new"),)),
        Txn((), (Range(subject.key("k")),)),
    )
    first, _, last = result.responses
    assert isinstance(first, RangeResult)
    assert isinstance(last, TxnResult)
    assert isinstance(last.responses[0], RangeResult)
    assert [kv.value for kv in first.kvs] == [b"old"]
    assert [kv.value for kv in last.responses[0].kvs] == [b"new"]


async def test_a_nested_one_fails_alone(subject: Subject) -> None:
    stale = Compare(subject.key("x"), Target.VERSION, 7)
    result = await subject.do(
        Txn((stale,), (Put(subject.key("stale"), b""),)), Txn((), (Put(subject.key("good"), b""),))
    )
    assert [r.succeeded for r in result.responses if isinstance(r, TxnResult)] == [False, True]
    assert await subject.names() == ["good"]


async def test_three_levels(subject: Subject) -> None:
    absent = Compare(subject.key("k"), Target.CREATE, 0)
    inner = Txn((absent,), (Put(subject.key("k"), b"deep"),))
    await subject.do(Txn((absent,), (Txn((absent,), (inner,)),)))
    assert await subject.names() == ["k"]


# Which keys may meet in one transaction


def _put(subject: Subject, name: str = "k") -> Put:
    return Put(subject.key(name), b"")


def _delete(subject: Subject, name: str = "k") -> Delete:
    return Delete(subject.key(name))


def _when_absent(subject: Subject, then: tuple[Operation, ...], *otherwise: Operation) -> Txn:
    return Txn((Compare(subject.key("x"), Target.CREATE, 0),), then, otherwise)


async def _refused(subject: Subject, *operations: Operation) -> None:
    revision = await subject.put("before")
    with pytest.raises(InvalidTransaction):
        await subject.do(*operations)
    assert (await subject.listing()).revision == revision


async def test_refused_a_key_put_twice(subject: Subject) -> None:
    await _refused(subject, _put(subject), _put(subject))


async def test_refused_a_key_put_here_and_nested(subject: Subject) -> None:
    await _refused(subject, _put(subject), Txn((), (_put(subject),)))


async def test_refused_a_key_put_in_two_siblings(subject: Subject) -> None:
    await _refused(subject, Txn((), (_put(subject),)), Txn((), (_put(subject),)))


async def test_refused_a_key_put_in_siblings_that_exclude_each_other(subject: Subject) -> None:
    await _refused(
        subject,
        _when_absent(subject, (_put(subject),)),
        _when_absent(subject, (), _put(subject)),
    )


async def test_allowed_a_key_put_in_both_branches_of_a_nested_one(subject: Subject) -> None:
    await subject.do(_when_absent(subject, (_put(subject),), _put(subject)))
    assert await subject.names() == ["k"]


async def test_allowed_a_key_put_in_one_branch_and_deleted_in_the_other(subject: Subject) -> None:
    await subject.do(_when_absent(subject, (_delete(subject),), _put(subject)))
    await subject.do(_when_absent(subject, (_put(subject),), _delete(subject)))
    assert await subject.names() == ["k"]


@pytest.mark.parametrize("delete_first", [True, False])
async def test_refused_a_key_put_and_deleted_side_by_side(
    subject: Subject, delete_first: bool
) -> None:
    operations: list[Operation] = [_put(subject), _delete(subject)]
    await _refused(subject, *(reversed(operations) if delete_first else operations))


async def test_refused_a_key_put_in_a_range_deleted(subject: Subject) -> None:
    await _refused(subject, Delete(subject.key("j"), subject.key("l")), _put(subject))


async def test_allowed_a_key_put_at_the_end_of_a_range_deleted(subject: Subject) -> None:
    await subject.do(Delete(subject.key("j"), subject.key("k")), _put(subject))
    assert await subject.names() == ["k"]


async def test_refused_a_key_deleted_and_then_put_by_siblings(subject: Subject) -> None:
    await _refused(subject, Txn((), (_delete(subject),)), Txn((), (_put(subject),)))


async def test_allowed_a_key_put_and_then_deleted_by_siblings(subject: Subject) -> None:
    result = await subject.do(Txn((), (_put(subject),)), Txn((), (_delete(subject),)))
    deleted = result.responses[1]
    assert isinstance(deleted, TxnResult)
    assert deleted.responses == (DeleteResult(1, result.revision),)
    assert await subject.names() == []


@pytest.mark.parametrize("nested_first", [True, False])
async def test_refused_a_key_put_here_and_deleted_nested(
    subject: Subject, nested_first: bool
) -> None:
    operations: list[Operation] = [_put(subject), Txn((), (_delete(subject),))]
    await _refused(subject, *(reversed(operations) if nested_first else operations))


async def test_allowed_a_key_deleted_twice(subject: Subject) -> None:
    await subject.put("k")
    result = await subject.do(_delete(subject), _delete(subject), Txn((), (_delete(subject),)))
    assert result.responses[:2] == (
        DeleteResult(1, result.revision),
        DeleteResult(0, result.revision),
    )


async def test_allowed_the_same_keys_in_both_outer_branches(subject: Subject) -> None:
    txn = Txn((), (_put(subject),), (_put(subject), _delete(subject, "other")))
    await subject.etcd.txn(txn)
    assert await subject.names() == ["k"]


# Limits


def _nested(subject: Subject, index: int, compares: int, puts: int) -> Txn:
    return Txn(
        tuple(Compare(subject.key("x"), Target.CREATE, 0) for _ in range(compares)),
        tuple(Put(subject.key(f"{index}/{i}"), b"") for i in range(puts)),
    )


@pytest.mark.parametrize(("nested", "each"), [(100, 28), (1, 127), (127, 1), (64, 64)])
async def test_nested_ones_and_what_each_holds_make_128(
    subject: Subject, nested: int, each: int
) -> None:
    def by(compares: int, puts: int, count: int = nested) -> list[Txn]:
        return [_nested(subject, index, compares, puts) for index in range(count)]

    await subject.do(*by(1, each))
    await subject.do(*by(each, 1))
    await _refused(subject, *by(1, each + 1))
    await _refused(subject, *by(each + 1, 1))
    await _refused(subject, *by(1, each, nested + 1))


async def test_operations_without_nesting_may_be_128(subject: Subject) -> None:
    await subject.do(*(Put(subject.key(str(i)), b"") for i in range(MAX_TXN_OPS)))
    await _refused(subject, *(Put(subject.key(str(i)), b"") for i in range(MAX_TXN_OPS + 1)))


async def test_outer_compares_take_from_the_same_128(subject: Subject) -> None:
    compares = tuple(Compare(subject.key("x"), Target.CREATE, 0) for _ in range(100))
    await subject.etcd.txn(Txn(compares, (_nested(subject, 0, 1, 28),)))
    with pytest.raises(InvalidTransaction):
        await subject.etcd.txn(Txn(compares, (_nested(subject, 0, 1, 29),)))


@pytest.mark.parametrize(
    "operation", [Put("", b""), Delete(""), Range(""), Txn((Compare("", Target.MOD, 0),), ())]
)
async def test_refused_an_empty_key(subject: Subject, operation: Operation) -> None:
    await _refused(subject, operation)


async def test_refused_a_request_above_one_and_a_half_mebibytes(subject: Subject) -> None:
    slack = 256
    await subject.put("k", bytes(MAX_REQUEST_BYTES - slack))
    await _refused(subject, Put(subject.key("k"), bytes(MAX_REQUEST_BYTES)))
    await _refused(subject, Put(subject.key("k"), bytes(2 * MAX_REQUEST_BYTES)))
    half = bytes(MAX_REQUEST_BYTES // 2)
    await _refused(subject, *(Txn((), (Put(subject.key(name), half),)) for name in ("a", "b")))


# Dead leases


async def test_a_dead_lease_fails_the_whole_outer_one(subject: Subject) -> None:
    revision = await subject.put("before")
    with pytest.raises(LeaseGone):
        await subject.do(
            Txn((), (Put(subject.key("good"), b""),)),
            Txn((), (Put(subject.key("leased"), b"", NO_LEASE),)),
        )
    assert (await subject.listing()).revision == revision
    assert await subject.names() == ["before"]


async def test_a_dead_lease_in_a_branch_not_taken_does_no_harm(subject: Subject) -> None:
    await subject.do(
        _when_absent(subject, (_put(subject),), Put(subject.key("leased"), b"", NO_LEASE))
    )
    assert await subject.names() == ["k"]
