"""The writer against a store in memory that can lose answers, refuse guards and forms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from etcsched.core.errors import (
    ClusterRefused,
    ClusterUnreachable,
    InvalidTransaction,
    NoSpace,
    OutcomeUnknown,
)
from etcsched.etcd.writer import Committed, Refused, Rejected, Writer, WriteResult
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import (
    Compare,
    Operation,
    OperationResult,
    Put,
    PutResult,
    RangeResult,
    Target,
    Txn,
    TxnResult,
)
from etcsched.keyspace.transactions import MAX_BYTES, MAX_OPERATIONS, AgentGuard
from etcsched.ports import Etcd

GUARD_KEY = "/etcsched/v1/presence/a1"
GUARD = AgentGuard(Keys(), "a1", 7)
DEADLINE_S = 10.0


class Store:
    """Mod revisions only. ``before`` and ``after`` see every outer transaction and may raise."""

    def __init__(self) -> None:
        self.revision = 7
        self.mods: dict[str, int] = {GUARD_KEY: 7}
        self.batches: list[int] = []
        self.in_flight: set[str] = set()
        self.most_in_flight = 0
        self.open = 0
        self.before: Callable[[Txn], None] = lambda txn: None
        self.after: Callable[[Txn], None] = lambda txn: None
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    async def txn(self, txn: Txn, *, timeout_s: float = 5.0) -> TxnResult:
        nested = [cast(Txn, operation) for operation in txn.then]
        keys = [put.key for one in nested for put in one.then if isinstance(put, Put)]
        assert len(keys) == len(set(keys)), "one key twice in a batch"
        assert not self.in_flight & set(keys), "one key in two batches"
        self.in_flight |= set(keys)
        self.open += 1
        self.entered.set()
        self.most_in_flight = max(self.most_in_flight, self.open)
        try:
            await self.gate.wait()
            self.before(txn)
            self.batches.append(len(nested))
            self.revision += 1
            result = self._apply(txn)
            self.after(txn)
            return result
        finally:
            self.open -= 1
            self.in_flight -= set(keys)

    def _apply(self, txn: Txn) -> TxnResult:
        old = dict(self.mods)
        held = all(old.get(compare.key, 0) == compare.operand for compare in txn.compares)
        results = [self._one(operation, old) for operation in (txn.then if held else txn.otherwise)]
        return TxnResult(held, tuple(results), self.revision, 1)

    def _one(self, operation: Operation, old: dict[str, int]) -> OperationResult:
        match operation:
            case Txn():
                held = all(old.get(c.key, 0) == c.operand for c in operation.compares)
                branch = operation.then if held else operation.otherwise
                return TxnResult(held, tuple(self._one(op, old) for op in branch), 0, 1)
            case Put():
                self.mods[operation.key] = self.revision
                return PutResult(self.revision)
            case _:
                return RangeResult((), 0, False, self.revision, 1)


def create(key: str, value: bytes = b"x") -> Txn:
    return Txn((Compare(key, Target.MOD, 0),), (Put(key, value),))


def put(key: str, value: bytes = b"x") -> Txn:
    return Txn((), (Put(key, value),))


class Recorder:
    def __init__(self) -> None:
        self.results: list[WriteResult] = []
        self.guard_refused = 0

    def refused(self) -> None:
        self.guard_refused += 1

    def kinds(self) -> dict[object, type]:
        return {result.id: type(result) for result in self.results}


@asynccontextmanager
async def running(store: Store, recorder: Recorder) -> AsyncIterator[Writer]:
    writer = Writer(
        cast(Etcd, store), GUARD, recorder.results.extend, recorder.refused, linger_s=0.0
    )
    task = asyncio.create_task(writer.run())
    try:
        yield writer
        async with asyncio.timeout(DEADLINE_S):
            await writer.settled()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_everything_gets_one_result_in_few_transactions() -> None:
    store, recorder = Store(), Recorder()
    async with running(store, recorder) as writer:
        for number in range(1000):
            writer.submit(number, create(f"k{number}"))
        assert writer.unsettled == 1000
    assert sorted(cast(int, result.id) for result in recorder.results) == list(range(1000))
    assert set(recorder.kinds().values()) == {Committed}
    assert all(n + 1 <= MAX_OPERATIONS for n in store.batches)
    assert len(store.batches) <= 12
    assert store.most_in_flight <= 4
    assert writer.unsettled == 0


async def test_a_committed_result_carries_the_revision_of_its_put() -> None:
    store, recorder = Store(), Recorder()
    async with running(store, recorder) as writer:
        writer.submit("one", create("k"))
    (result,) = recorder.results
    assert isinstance(result, Committed)
    assert result.revision == store.mods["k"]


async def test_a_stale_write_fails_alone() -> None:
    store, recorder = Store(), Recorder()
    store.mods["k1"] = 3
    async with running(store, recorder) as writer:
        for number in range(3):
            writer.submit(number, create(f"k{number}"))
    assert recorder.kinds() == {0: Committed, 1: Refused, 2: Committed}
    assert store.batches == [3]


async def test_writes_to_one_key_go_one_after_another_in_order() -> None:
    store, recorder = Store(), Recorder()
    async with running(store, recorder) as writer:
        for number in range(5):
            writer.submit(number, put("same"))
        writer.submit("other", put("other"))
    ordered = [result.id for result in recorder.results if result.id != "other"]
    assert ordered == [0, 1, 2, 3, 4]
    assert store.batches == [2, 1, 1, 1, 1]


async def test_a_write_waits_for_the_earlier_ones_of_each_of_its_keys() -> None:
    store, recorder = Store(), Recorder()
    async with running(store, recorder) as writer:
        writer.submit("a", put("a"))
        writer.submit("b", put("b"))
        writer.submit("both", Txn((), (Put("a", b""), Put("b", b""))))
        writer.submit("a again", put("a"))
    assert [result.id for result in recorder.results] == ["a", "b", "both", "a again"]


async def test_a_lost_answer_is_sent_again_identically() -> None:
    store, recorder = Store(), Recorder()
    seen: list[Txn] = []

    def lose_once(txn: Txn) -> None:
        seen.append(txn)
        if len(seen) == 1:
            raise OutcomeUnknown("lost")

    store.after = lose_once
    async with running(store, recorder) as writer:
        writer.submit(0, create("k"))
    assert seen[0] == seen[1]
    assert recorder.kinds() == {0: Refused}, "its first sending had committed"


@pytest.mark.parametrize("error", [ClusterUnreachable("away"), NoSpace("full")])
async def test_no_server_and_no_space_are_waited_out(error: Exception) -> None:
    store, recorder = Store(), Recorder()
    tries = 0

    def fail_twice(txn: Txn) -> None:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise error

    store.before = fail_twice
    async with running(store, recorder) as writer:
        writer.submit(0, create("k"))
    assert recorder.kinds() == {0: Committed}
    assert tries == 3


async def test_a_batch_of_bad_form_is_bisected() -> None:
    store, recorder = Store(), Recorder()

    def refuse_form(txn: Txn) -> None:
        if any(put.key == "bad" for one in txn.then for put in one.then):  # type: ignore[union-attr]
            raise InvalidTransaction("duplicate key given in txn request")

    store.before = refuse_form
    async with running(store, recorder) as writer:
        for name in ("a", "b", "bad", "c", "d"):
            writer.submit(name, create(name))
        writer.submit("after bad", put("bad"))
    kinds = recorder.kinds()
    assert kinds.pop("bad") is Rejected
    assert kinds.pop("after bad") is Rejected
    assert kinds == dict.fromkeys("abcd", Committed)


async def test_batches_stay_within_the_request_limit() -> None:
    store, recorder = Store(), Recorder()
    async with running(store, recorder) as writer:
        for number in range(5):
            writer.submit(number, put(f"k{number}", b"x" * (MAX_BYTES // 2 - 1000)))
    assert max(store.batches) == 2
    assert len(recorder.results) == 5


async def test_batches_stay_within_the_operation_limit() -> None:
    store, recorder = Store(), Recorder()
    wide = tuple(Compare(f"c{number}", Target.MOD, 0) for number in range(100))
    async with running(store, recorder) as writer:
        for number in range(60):
            writer.submit(number, Txn(wide, (Put(f"k{number}", b""),)))
    assert max(store.batches) + 100 <= MAX_OPERATIONS
    assert len(recorder.results) == 60


async def test_a_refused_guard_is_reported_once_and_ends_everything() -> None:
    store, recorder = Store(), Recorder()
    store.mods[GUARD_KEY] = 99
    async with running(store, recorder) as writer:
        for number in range(1000):
            writer.submit(number, create(f"k{number}"))
        async with asyncio.timeout(DEADLINE_S):
            await writer.settled()
        writer.submit("later", create("later"))
    assert recorder.guard_refused == 1
    assert recorder.results == []
    assert list(store.mods) == [GUARD_KEY]


async def test_what_was_committed_before_the_guard_went_is_still_told() -> None:
    store, recorder = Store(), Recorder()
    outer = 0

    def guard_goes_after_the_first(txn: Txn) -> None:
        nonlocal outer
        outer += 1
        if outer == 2:
            store.mods[GUARD_KEY] = 99

    store.before = guard_goes_after_the_first
    async with running(store, recorder) as writer:
        for number in range(300):
            writer.submit(number, create(f"k{number}"))
    assert recorder.guard_refused == 1
    assert len(recorder.results) == store.batches[0]


async def test_what_no_waiting_can_mend_is_raised() -> None:
    store, recorder = Store(), Recorder()

    def denied(txn: Txn) -> None:
        raise ClusterRefused("permission denied")

    store.before = denied
    writer = Writer(cast(Etcd, store), GUARD, recorder.results.extend, recorder.refused)
    writer.submit(0, create("k"))
    with pytest.raises(ClusterRefused):
        async with asyncio.timeout(DEADLINE_S):
            await writer.run()


async def test_a_cancelled_writer_stops_while_etcd_is_silent() -> None:
    store, recorder = Store(), Recorder()
    store.gate.clear()
    writer = Writer(cast(Etcd, store), GUARD, recorder.results.extend, recorder.refused)
    task = asyncio.create_task(writer.run())
    writer.submit(0, create("k"))
    async with asyncio.timeout(DEADLINE_S):
        await store.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert writer.unsettled == 1
    assert recorder.results == []
