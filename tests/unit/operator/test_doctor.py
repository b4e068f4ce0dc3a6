"""What ``doctor`` finds where the model of etcd has nothing to show it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range, RangeResult
from etcsched.operator.doctor.etcd import check_latency
from etcsched.operator.doctor.finding import Level
from etcsched.testing.model_etcd import ModelEtcd
from etcsched.testing.model_store import ModelStore


class SlowEtcd(ModelEtcd):
    """Its reads take so long, one after the other, by the clock ``now_s``."""

    def __init__(self, takes_ms: Iterator[float]) -> None:
        super().__init__(ModelStore())
        self.now_s = 0.0
        self._takes_ms = takes_ms

    async def range(self, request: Range, *, timeout_s: float = 5.0) -> RangeResult:
        self.now_s += next(self._takes_ms) / 1000
        return await super().range(request, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("takes_ms", "level", "text"),
    [
        ((1.0, 2.0, 3.0, 2.0, 1.0), Level.OK, "2.0 ms"),
        ((900.0, 1.0, 1.0, 1.0, 900.0), Level.OK, "1.0 ms"),
        ((1.0, 120.0, 110.0, 1.0, 130.0), Level.WARNING, "110.0 ms"),
    ],
)
async def test_a_slow_etcd_is_said(
    monkeypatch: pytest.MonkeyPatch, takes_ms: tuple[float, ...], level: Level, text: str
) -> None:
    """Not for a single read that took its time."""
    etcd = SlowEtcd(iter(takes_ms))
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: etcd.now_s)
    (finding,) = await check_latency(etcd, Keys())
    monkeypatch.undo()
    assert (finding.topic, finding.level) == ("etcd latency", level)
    assert finding.text.startswith(f"{text} for a linearizable read")
    assert ("disk" in finding.advice) is (level is Level.WARNING)
