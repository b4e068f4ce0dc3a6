"""A scheduler's node and its watch over etcd, where something about them isn't as it should be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etcsched.core.records import Candidate
from etcsched.core.view import View
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.high_water import HighWater
from etcsched.keyspace.codec import decode
from etcsched.keyspace.ops import Put, Range, Txn
from etcsched.scheduler import etcd_check
from etcsched.scheduler.config import SchedulerConfig
from etcsched.scheduler.metrics import SchedulerMetrics
from etcsched.scheduler.node import SchedulerNode, instant_now
from etcsched.testing.model_etcd import ModelEtcd
from etcsched.testing.model_store import ModelStore

PATIENCE_S = 20.0


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - whatever changes it tells nobody
            await asyncio.sleep(0.01)


async def test_its_election_key_was_overwritten_by_hand(tmp_path: Path) -> None:
    """It puts its word there again, with its lease."""
    store = ModelStore()
    node: Any = SchedulerNode(SchedulerConfig(node="s1", state_dir=tmp_path), EtcdConfig())
    node._etcd, keys = ModelEtcd(store), node._keys
    lease = store.lease_grant(10).lease
    election = Range(keys.election(lease))

    def look() -> None:
        node._on_update(store.snapshot(keys.watched, keys.watched_end))
        node._do(node._candidate.time_passed(instant_now()))

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        node._tasks = tasks
        look()
        node._do(node._candidate.session_opened(lease, instant_now()))
        await until(lambda: bool(store.range(election).kvs))
        store.txn(Txn((), (Put(keys.election(lease), b"nonsense"),)))
        while store.range(election).kvs[0].value == b"nonsense":
            look()
            await asyncio.sleep(0.01)
        if node._leading is not None:
            node._leading.cancel()
    (kv,) = store.range(election).kvs
    assert decode(Candidate, kv.value).node == "s1"
    assert kv.lease == lease


class Healthy(ModelEtcd):
    async def status(self, *, timeout_s: float = 2.0) -> Any:
        return ()


async def test_a_host_without_a_thread_left_ends_no_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def not_restored() -> None:
        return

    high_water = HighWater(tmp_path / "revision")
    high_water.saw(7)
    metrics = SchedulerMetrics("s1", View(), lambda: None, instant_now)
    monkeypatch.setattr(asyncio, "to_thread", no_thread)
    monkeypatch.setattr(etcd_check, "CHECK_EVERY_S", 0.01)
    checking = asyncio.create_task(
        etcd_check.check_etcd(Healthy(ModelStore()), high_water, metrics, not_restored)
    )
    said = "can't write the revision seen"
    await until(lambda: caplog.text.count(said) >= 2 or checking.done())
    assert not checking.done()
    checking.cancel()
