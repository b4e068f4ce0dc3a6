"""Listing runs out of a long history: what is found, and how much is read for it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.records import Attempt, Kind, Report, Run, Transition
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import Utc, ms_of, tick_id, utc_of
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Delete, Put, Range, Txn, TxnResult
from etcsched.operator.choosing import Wanted
from etcsched.operator.runs import list_runs, view_of
from etcsched.testing.model_etcd import ModelEtcd
from etcsched.testing.model_store import ModelStore

KEYS = Keys()
BEGIN_MS = ms_of(Utc("2026-11-22T00:00:00.000Z"))


class Counting(ModelEtcd):
    """How many archived records it gave away, values and all."""

    def __init__(self) -> None:
        super().__init__(ModelStore())
        self.records = 0

    async def txn(self, txn: Txn, *, timeout_s: float = 5.0) -> TxnResult:
        self.records += sum(
            isinstance(each, Range)
            and each.key.startswith(KEYS.archive_prefix)
            and not each.keys_only
            for each in txn.then
        )
        return await super().txn(txn, timeout_s=timeout_s)


@pytest.fixture
def etcd() -> Counting:
    return Counting()


def at(minute: int) -> Utc:
    return utc_of(BEGIN_MS + minute * 60_000)


def over(job: str, minute: int, run_id: str = "", took: int = 1, **fields: Any) -> Run:
    """Due in that minute of the day, over ``took`` later."""
    ended = at(minute + took)
    attempt = Attempt(
        number=1,
        agent="host-a",
        token=1,
        assigned_at=at(minute),
        outcome=Outcome.COMPLETED,
        started_at=at(minute),
        ended_at=ended,
    )
    values = {
        "state": RunState.COMPLETED,
        "origin": Origin.SCHEDULE,
        "scheduled_at": at(minute),
        "attempts": (attempt,),
        "history": (Transition(state=RunState.COMPLETED, at=ended, cause="", term=1),),
        **fields,
    }
    run_id = run_id or tick_id(ms_of(at(minute)))
    return Run(job=job, id=run_id, created_at=at(minute), attempt=1, **values)


def archive(etcd: ModelEtcd, *runs: Run) -> None:
    for run in runs:
        etcd.store.txn(Txn((), (Put(KEYS.archive(run.job, run.id), encode(run)),)))


async def listed(etcd: ModelEtcd, limit: int = 20, **wanted: Any) -> list[str]:
    views = await list_runs(etcd, KEYS, Wanted(**wanted), limit=limit)
    return [view.name for view in views]


def name(job: str, minute: int) -> str:
    return f"{job}/{tick_id(ms_of(at(minute)))}"


async def test_it_looks_no_further_than_it_must(etcd: Counting) -> None:
    for minute in range(1000):
        archive(etcd, over("a" if minute % 2 else "b", minute))
    found = await listed(etcd, states=(RunState.COMPLETED,), limit=3)
    assert found == [name("a", 999), name("b", 998), name("a", 997)]
    assert etcd.records == 200
    etcd.records = 0
    # A tick's id says when it was due, so nothing else is read ...
    done = (RunState.COMPLETED,)
    found = await listed(etcd, since=at(10), until=at(12), states=done)
    assert found == [name("a", 11), name("b", 10)]
    assert etcd.records == 2
    etcd.records = 0
    # ... but of each job the last one before: it may be the record of several missed ticks.
    assert await listed(etcd, since=at(10), until=at(12)) == [name("a", 11), name("b", 10)]
    assert etcd.records == 4


async def test_what_is_asked_for_may_lie_deep(etcd: Counting, monkeypatch: Any) -> None:
    monkeypatch.setattr("etcsched.operator.store.PAGE", 300)
    archive(etcd, over("a", 0, state=RunState.DIED), over("b", 1, state=RunState.DIED))
    archive(etcd, *(over("a", minute) for minute in range(2, 1300)))
    assert await listed(etcd, states=(RunState.DIED,)) == [name("b", 1), name("a", 0)]
    assert await listed(etcd, states=(RunState.DIED,), job="a") == [name("a", 0)]
    assert await listed(etcd, states=(RunState.DIED,), limit=1) == [name("b", 1)]


async def test_requested_runs_before_since_end_the_search(etcd: Counting) -> None:
    """Their ids don't say for sure when they count for, but further back all was over before."""
    for minute in range(1000):
        archive(etcd, over("a", minute, f"{minute:04}", scheduled_at=None))
    assert await listed(etcd, since=at(998)) == ["a/0999", "a/0998"]
    assert etcd.records == 200


async def test_long_runs_that_were_due_before_since_end_no_search(etcd: Counting) -> None:
    """They were over after it, and so may be what is further back."""
    archive(etcd, over("b", 400))
    archive(etcd, *(over("a", 0, f"long{n}", took=500, scheduled_at=None) for n in range(300)))
    assert await listed(etcd, since=at(300)) == [name("b", 400)]


async def test_a_resubmission_counts_for_the_time_of_its_original(etcd: Counting) -> None:
    again = over("a", 500, "20261122T082000.000Z-abcd", scheduled_at=at(10))
    archive(etcd, over("b", 20), again)
    assert await listed(etcd, since=at(5), until=at(15)) == [f"a/{again.id}"]
    assert await listed(etcd, since=at(15)) == [name("b", 20)]


@pytest.mark.parametrize(
    "wanted", [{}, {"job": "a"}, {"job": "a", "states": (RunState.COMPLETED,)}]
)
async def test_a_short_list_is_the_beginning_of_a_long_one(
    etcd: Counting, wanted: dict[str, Any]
) -> None:
    """Resubmissions have later ids, and are over later, than runs that were due after them."""
    again = [
        over("a", 500, f"20261122T0820{n:02}.000Z-abcd", scheduled_at=at(minute))
        for n, minute in enumerate((10, 90, 50, 98))
    ]
    archive(etcd, *(over("a", minute) for minute in range(100)), *again)
    whole = await listed(etcd, limit=200, **wanted)
    assert whole[:4] == [name("a", 99), f"a/{again[3].id}", name("a", 98), name("a", 97)]
    assert len(whole) == 104
    for limit in (1, 2, 3, 10, 12, 60):
        assert await listed(etcd, limit=limit, **wanted) == whole[:limit]


async def test_many_resubmissions_hide_nothing_newer(etcd: Counting) -> None:
    """They are over last, and their originals are added to last."""
    olds = [over("a", n, f"old{n:03}", scheduled_at=at(n)) for n in range(150)]
    archive(etcd, *olds, *(over("b", minute) for minute in range(400, 420)))
    archive(etcd, *(replace(old, resubmitted_as=(f"new{old.id}",)) for old in olds))
    archive(etcd, *(over("a", 500, f"new{old.id}", scheduled_at=old.scheduled_at) for old in olds))
    found = await listed(etcd, limit=30)
    assert found[:20] == [name("b", minute) for minute in reversed(range(400, 420))]
    assert found[20:22] == ["a/old149", "a/newold149"]
    assert found == (await listed(etcd, limit=1000))[:30]


async def test_the_newest_runs_of_all_take_few_records(etcd: Counting) -> None:
    archive(etcd, *(over("a" if minute % 2 else "b", minute) for minute in range(1000)))
    assert await listed(etcd, limit=2) == [name("a", 999), name("b", 998)]
    assert etcd.records == 20


@pytest.mark.parametrize("wanted", [{}, {"states": (RunState.COMPLETED,)}])
async def test_many_jobs_of_one_minute_take_few_records(
    etcd: Counting, wanted: dict[str, Any]
) -> None:
    """Ids say when these were due, so that none of the others is read."""
    for minute in range(5):
        archive(etcd, *(over(f"{n:03}", minute, took=2) for n in range(700)))
    found = await listed(etcd, limit=3, **wanted)
    assert found == [name(f"{n}", 4) for n in (699, 698, 697)]
    assert etcd.records < 300


async def test_a_jobs_newest_runs_take_few_records(etcd: Counting) -> None:
    archive(etcd, *(over("a", minute) for minute in range(1000)))
    assert await listed(etcd, job="a", limit=2) == [name("a", 999), name("a", 998)]
    assert etcd.records == 20


async def test_a_chained_run_counts_from_its_own_making(etcd: Counting) -> None:
    """Its id has its source's time, which may be long past."""
    chained = over("a", 500, "20261122T000000Z-0123456789ab", scheduled_at=None)
    archive(etcd, chained)
    assert await listed(etcd, since=at(400)) == [f"a/{chained.id}"]


async def test_a_run_of_a_host(etcd: Counting) -> None:
    archive(etcd, over("a", 5, f"{tick_id(ms_of(at(5)))}@host-a"), over("a", 6))
    assert await listed(etcd, since=at(6)) == [name("a", 6)]
    assert etcd.records == 1
    assert await listed(etcd, until=at(6)) == [f"{name('a', 5)}@host-a"]


async def test_what_was_added_later_makes_no_run_newer(etcd: Counting) -> None:
    """A link to a resubmission, a late report: the record's key is older than that."""
    archive(etcd, over("a", 0, "old", scheduled_at=None), over("a", 1), over("a", 2))
    archive(etcd, over("a", 0, "old", scheduled_at=None, resubmitted_as=("x",)))
    completed = (RunState.COMPLETED,)
    assert await listed(etcd, states=completed, limit=2) == [name("a", 2), name("a", 1)]


async def test_what_ends_meanwhile_is_there_once(etcd: Counting) -> None:
    run = over("a", 5)
    active = KEYS.of(Kind.RUN, "a", run.id)
    waiting = encode(over("a", 5, state=RunState.READY, attempts=(), history=()))
    etcd.store.txn(Txn((), (Put(active, waiting),)))
    ask = etcd.range

    async def range_(request: Range, **options: Any) -> Any:
        found = await ask(request, **options)
        if request.key.startswith(KEYS.of(Kind.RUN)):
            etcd.store.txn(Txn((), (Delete(active), Put(KEYS.archive("a", run.id), encode(run)))))
        return found

    etcd.range = range_  # type: ignore[method-assign]
    (view,) = await list_runs(etcd, KEYS, Wanted(since=at(0)))
    assert (view.name, view.state) == (name("a", 5), RunState.COMPLETED)


def claimed(run: Run, **fields: Any) -> Report:
    return Report(
        job=run.job, run=run.id, attempt=run.attempt, token=1, incarnation="i", supervisor="s",
        claimed_at=at(3), **fields,
    )  # fmt: skip


def test_what_runs_has_a_beginning() -> None:
    """The process's own is known with its end, and how late it was, too."""
    run = Run(
        job="a", id=tick_id(ms_of(at(0))), state=RunState.ASSIGNED, origin=Origin.SCHEDULE,
        created_at=at(0), scheduled_at=at(0), agent="host-a", attempt=1,
    )  # fmt: skip
    running = view_of(run, claimed(run))
    assert (running.state, running.started_at) == (RunState.RUNNING, at(3))
    assert (running.ended_at, running.lateness_ms) == (None, None)
    ended = view_of(run, claimed(run, outcome=Outcome.COMPLETED, started_at=at(4), ended_at=at(5)))
    assert (ended.started_at, ended.ended_at) == (at(4), at(5))
    never = view_of(run, claimed(run, outcome=Outcome.FAILED, ended_at=at(5)))
    assert never.started_at is None
