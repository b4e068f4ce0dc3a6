"""The cluster on one screen: who leads, who is here, what runs, how late, what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from etcsched.core.records import Kind, Pause, Run
from etcsched.core.times import Utc, utc_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range
from etcsched.operator.agents import AgentView, read_agents
from etcsched.operator.explain import RunReason, Waits, read_view, told_waits, waits_of
from etcsched.operator.next_ticks import NextTick, next_ticks
from etcsched.operator.runs import view_of
from etcsched.operator.schedulers import LeaderView, read_leader
from etcsched.operator.store import found, read, read_ranges
from etcsched.ports import Etcd, MemberStatus

__all__ = ["JOBS_LOOKED_AT", "UNTOLD", "ClusterView", "Lateness", "lateness_of", "read_cluster"]

UNTOLD: Final = "not told to this user"
"""What of a member's status etcd keeps for root, where roles hold."""

JOBS_LOOKED_AT: Final = 20_000
"""What takes reading them all is looked for among so many jobs; beyond, that would take seconds."""

_STARTS: Final = 100
"""A leader that is well has decided a tick by then."""


class Lateness(msgspec.Struct, frozen=True):
    """Of the newest starts by schedule: due time to process start."""

    starts: int
    median_ms: int
    worst_ms: int
    worst_run: str


class ClusterView(msgspec.Struct, frozen=True, kw_only=True):
    """``next_tick`` None: nothing is due ever. One that isn't later than ``at`` is overdue: nobody
    has decided it. ``waits``: of each job with waiting runs why the first of them waits;
    ``outages``: by job.

    ``not_looked_for`` names which of these would take reading more jobs than are looked at. Then
    ``waits`` has held runs only, and there is no ``next_tick``."""

    at: Utc
    leader: LeaderView
    agents: tuple[AgentView, ...]
    jobs: int
    paused: bool
    running: int
    assigned: int
    waiting: int
    requests: int
    lateness: Lateness | None
    next_tick: NextTick | None
    members: tuple[MemberStatus, ...]
    waits: tuple[RunReason, ...] = ()
    outages: dict[str, str] = {}
    not_looked_for: tuple[str, ...] = ()


async def read_cluster(
    etcd: Etcd,
    keys: Keys,
    now_ms: int,
    newest: Sequence[Run],
    *,
    with_next_tick: bool = True,
) -> ClusterView:
    """``newest``: runs that were over last, whose lateness counts (``NewestRuns``)."""
    counts, _ = await read_ranges(
        etcd,
        [
            Range(*keys.all_of(kind), count_only=True)
            for kind in (Kind.JOB, Kind.RUN, Kind.ASSIGNMENT, Kind.REQUEST, Kind.GAP)
        ],
    )
    jobs, active, assigned, requests, gaps = (counted.count for counted in counts)
    agents = await read_agents(etcd, keys, now_ms)
    running = sum(agent.running for agent in agents)
    # A run that is held since its agent was lost keeps its assignment, and waits all the same.
    assigned -= sum(agent.held for agent in agents)
    (pause,), _ = await read(etcd, [keys.pause_of_cluster()])
    cluster_pause = found(Pause, pause)
    has_too_many = jobs > JOBS_LOOKED_AT
    waits = Waits({}, {})
    if gaps or active > assigned:
        if has_too_many:
            waits = await told_waits(etcd, keys)
        else:
            waits = waits_of(await read_view(etcd, keys), now_ms)
    leader = await read_leader(etcd, keys, now_ms)
    ticks: list[NextTick] = []
    if with_next_tick and not has_too_many:
        ticks = await next_ticks(etcd, keys, cluster_pause, leader.watermark, now_ms, 1)
    return ClusterView(
        at=utc_of(now_ms),
        leader=leader,
        agents=agents,
        jobs=jobs,
        paused=cluster_pause is not None and cluster_pause.active,
        running=running,
        assigned=max(assigned - running, 0),
        waiting=max(active - assigned, 0),
        requests=requests,
        lateness=lateness_of(newest),
        next_tick=next(iter(ticks), None),
        members=await etcd.status(),
        waits=tuple(waits.runs.values()),
        outages=waits.outages,
        not_looked_for=(
            *(["waits"] if waits.unexplained else []),
            *(["next_tick"] if with_next_tick and has_too_many else []),
        ),
    )


def lateness_of(runs: Sequence[Run]) -> Lateness | None:
    views = [view for run in runs if (view := view_of(run)).lateness_ms is not None]
    views.sort(key=lambda view: view.at, reverse=True)
    ranked = sorted((view.lateness_ms or 0, view.name) for view in views[:_STARTS])
    if not ranked:
        return None
    worst_ms, worst = ranked[-1]
    return Lateness(len(ranked), ranked[len(ranked) // 2][0], worst_ms, worst)
