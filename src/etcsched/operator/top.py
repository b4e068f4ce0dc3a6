"""What ``etcsched top`` shows: the cluster, what runs in it, what is next, and what failed last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from etcsched.core.records import CLUSTER, Kind, Pause, Run
from etcsched.core.states import RunState
from etcsched.core.times import Utc
from etcsched.keyspace.keys import Keys
from etcsched.operator.claims import read_claims
from etcsched.operator.cluster import (
    ClusterView,
    read_cluster,
)
from etcsched.operator.next_ticks import NextTick, next_ticks
from etcsched.operator.runs import NewestRuns
from etcsched.operator.store import found, read
from etcsched.ports import Etcd

__all__ = ["Failure", "RunningView", "TopView", "read_top"]

JOBS_LOOKED_AT: Final = 2_000
"""Every look computes their next ticks."""
_FAILED: Final = (
    RunState.FAILED,
    RunState.TIMED_OUT,
    RunState.DIED,
    RunState.ABANDONED,
    RunState.MISSED,
)


class RunningView(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    agent: str
    attempt: int
    since: Utc


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """``at``: when it was over."""

    run: str
    state: RunState
    at: Utc
    agent: str
    reason: str


class TopView(msgspec.Struct, frozen=True, kw_only=True):
    """``running``: those that run longest first. ``next_ticks`` before ``cluster.at`` are overdue.
    ``not_looked_for`` names them where there are more jobs than are looked at."""

    cluster: ClusterView
    running: tuple[RunningView, ...]
    next_ticks: tuple[NextTick, ...]
    failures: tuple[Failure, ...]
    not_looked_for: tuple[str, ...] = ()


async def read_top(
    etcd: Etcd, keys: Keys, now_ms: int, most: int, newest_runs: NewestRuns
) -> TopView:
    """At most so many of each."""
    newest = await newest_runs.read(etcd, keys)
    cluster = await read_cluster(etcd, keys, now_ms, newest, with_next_tick=False)
    ticks: Sequence[NextTick] = ()
    has_too_many = cluster.jobs > JOBS_LOOKED_AT
    if not has_too_many:
        (pause,), _ = await read(etcd, [keys.of(Kind.PAUSE, CLUSTER)])
        watermark = cluster.leader.watermark
        ticks = await next_ticks(etcd, keys, found(Pause, pause), watermark, now_ms, most)
    return TopView(
        cluster=cluster,
        running=tuple((await _running(etcd, keys))[:most]),
        next_ticks=tuple(ticks),
        failures=tuple(_failures(newest)[:most]),
        not_looked_for=("next_ticks",) if has_too_many else (),
    )


async def _running(etcd: Etcd, keys: Keys) -> list[RunningView]:
    running = [
        RunningView(
            run=f"{one.run.job}/{one.run.id}",
            agent=one.agent,
            attempt=one.run.attempt,
            since=one.claim.started_at or one.claim.claimed_at,
        )
        for one in await read_claims(etcd, keys)
        if one.is_running
    ]
    return sorted(running, key=lambda one: (one.since, one.run))


def _failures(newest: Sequence[Run]) -> list[Failure]:
    """The newest first."""
    failures = []
    for run in newest:
        if run.state not in _FAILED or not run.history:
            continue
        last = run.last_attempt
        failures.append(
            Failure(
                run=f"{run.job}/{run.id}",
                state=run.state,
                at=run.history[-1].at,
                agent=last.agent if last is not None else "",
                reason=run.history[-1].cause,
            )
        )
    return sorted(failures, key=lambda failure: (failure.at, failure.run), reverse=True)
