"""Waiting for a run's end while etcd comes and goes."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from etcsched.core.errors import ClusterUnreachable
from etcsched.core.records import Kind, Run
from etcsched.core.states import Outcome, RunState
from etcsched.core.times import Utc
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Delete, Put, Range, RangeResult, Txn, TxnResult
from etcsched.operator import patience as operator_patience
from etcsched.operator.patience import Patience
from etcsched.operator.waiting import wait_for_end
from etcsched.testing.model_etcd import ModelEtcd
from etcsched.testing.model_store import ModelStore
from tests.cli.console import finished

KEYS = Keys()
OVER = finished("job", "r1", Utc("2026-11-22T19:00:00.000Z"), Outcome.COMPLETED)
PLACE = KEYS.of(Kind.RUN, "job", "r1")
AWAY = "the model of etcd is cut off; still waiting"
BACK = "etcd can be reached again; still waiting"
DEADLINE_S = 30.0


class Said:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self._is_new = asyncio.Event()

    def say(self, line: str) -> None:
        self.lines.append(line)
        self._is_new.set()

    async def until(self, *lines: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while self.lines != list(lines):
                self._is_new.clear()
                await self._is_new.wait()


class Looked(ModelEtcd):
    """Tells of each look that failed; ``fails`` so many of the reads of a run's record."""

    def __init__(self, store: ModelStore) -> None:
        super().__init__(store)
        self.fails = 0
        self.failed = asyncio.Semaphore(0)

    async def range(self, request: Range, *, timeout_s: float = 5.0) -> RangeResult:
        try:
            return await super().range(request)
        except ClusterUnreachable:
            self.failed.release()
            raise

    async def txn(self, txn: Txn, *, timeout_s: float = 5.0) -> TxnResult:
        if self.fails:
            self.fails -= 1
            raise ClusterUnreachable("the model of etcd is cut off")
        return await super().txn(txn)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Looked:
    monkeypatch.setattr(operator_patience, "_LOOK_EVERY_S", 0.001)
    model = Looked(ModelStore())
    working: Run = Run(
        job="job",
        id="r1",
        state=RunState.READY,
        origin=OVER.origin,
        created_at=OVER.created_at,
    )
    model.store.txn(Txn((), (Put(PLACE, encode(working)),)))
    return model


def end(model: Looked) -> None:
    archived = Put(KEYS.archive("job", "r1"), encode(OVER))
    model.store.txn(Txn((), (Delete(PLACE), archived)))


async def test_an_absence_is_told_once_and_outlasted(model: Looked) -> None:
    said = Said()
    waiting = asyncio.create_task(wait_for_end(model, KEYS, "job", "r1", Patience(said.say)))
    model.cut()
    await said.until(AWAY)
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(3):
            await model.failed.acquire()
    model.mend()
    await said.until(AWAY, BACK)
    model.cut()
    await said.until(AWAY, BACK, AWAY)
    model.mend()
    await said.until(AWAY, BACK, AWAY, BACK)
    end(model)
    async with asyncio.timeout(DEADLINE_S):
        assert (await waiting).state is RunState.COMPLETED
    assert len(said.lines) == 4


async def test_what_may_last_is_told_once(model: Looked) -> None:
    said = Said()
    waiting = asyncio.create_task(wait_for_end(model, KEYS, "job", "r1", Patience(said.say)))
    failed = replace(OVER.attempts[0], outcome=Outcome.FAILED)
    retrying = replace(
        OVER, state=RunState.RETRYING, attempts=(failed,), retries=1, retry_at=OVER.created_at
    )
    held = replace(retrying, state=RunState.HELD, retry_at=None)
    see = "etcsched explain job/r1 says why"
    lines = [
        f"job/r1 is retrying (number 1, due at {OVER.created_at}); {see}",
        f"job/r1 is held; {see}",
    ]
    model.store.txn(Txn((), (Put(PLACE, encode(retrying)),)))
    await said.until(lines[0])
    assigned = replace(held, state=RunState.ASSIGNED)
    for run in (retrying, held):
        model.store.txn(Txn((), (Put(PLACE, encode(run)),)))
    await said.until(*lines)
    for run in (assigned, held):
        model.store.txn(Txn((), (Put(PLACE, encode(run)),)))
    await said.until(*lines, lines[-1])
    end(model)
    async with asyncio.timeout(DEADLINE_S):
        assert (await waiting).state is RunState.COMPLETED


async def test_an_absence_just_as_it_ends(model: Looked) -> None:
    """The watch has told the end, and the record can't be read at first."""
    said = Said()
    model.fails = 2
    end(model)
    async with asyncio.timeout(DEADLINE_S):
        view = await wait_for_end(model, KEYS, "job", "r1", Patience(said.say))
    assert view.state is RunState.COMPLETED
    assert said.lines == [AWAY, BACK]
