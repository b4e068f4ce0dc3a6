"""The cluster on one screen: who leads, who is here, what runs, how late, what comes next."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from etcsched.core.records import (
    Assignment,
    Barred,
    Candidate,
    ClusterSettings,
    Drain,
    Kind,
    Pause,
    Presence,
    Run,
    Term,
    Watermark,
)
from etcsched.core.states import OnDisconnect
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, Range, range_end_of
from etcsched.operator.claims import Claimed, read_claims
from etcsched.operator.explain import RunReason, Waits, read_view, told_waits, waits_of
from etcsched.operator.next_ticks import NextTick, next_ticks
from etcsched.operator.runs import view_of
from etcsched.operator.store import found, listed, read, read_ranges
from etcsched.ports import Etcd, MemberStatus

__all__ = [
    "JOBS_LOOKED_AT",
    "UNTOLD",
    "AgentState",
    "AgentView",
    "ClusterView",
    "Lateness",
    "LeaderView",
    "SchedulerView",
    "lateness_of",
    "read_agents",
    "read_cluster",
    "read_leader",
]

UNTOLD: Final = "not told to this user"
"""What of a member's status etcd keeps for root, where roles hold."""

JOBS_LOOKED_AT: Final = 20_000
"""What takes reading them all is looked for among so many jobs; beyond, that would take seconds."""

_STARTS: Final = 100
"""A leader that is well has decided a tick by then."""


class SchedulerView(msgspec.Struct, frozen=True, kw_only=True):
    """``clock_ahead_ms``: how far its clock was ahead of ours at least, where that is provable.
    ``barred``: why it doesn't stand for election, though it is here; empty: it does.
    ``shares_name``: another process of this name is here, too. It is a second scheduler, or one of
    both was killed, and stands until its lease ends."""

    node: str
    leads: bool
    host: str
    pid: int
    since: Utc
    version: str
    clock_ahead_ms: int = 0
    barred: str = ""
    shares_name: bool = False


class AgentState(enum.Enum):
    READY = "ready"
    FULL = "full"
    DRAINING = "draining"
    STOPPING = "stopping"
    """It was told to stop: it ends its work, and then its shutdown jobs."""
    STANDBY = "standby"
    """Here, but without a seat: settings bound how many agents receive runs."""
    ABSENT = "absent"
    """Not here, but drained, or with a seat, or not yet relieved of its runs."""


class AgentView(msgspec.Struct, frozen=True, kw_only=True):
    """``used`` slots are taken: ``running`` of what is assigned runs now, and ``held`` wait for an
    operator, most of these without a slot. ``seated`` None: there are no seats, since settings
    don't bound how many agents receive runs."""

    agent: str
    state: AgentState
    slots: int = 0
    used: int = 0
    running: int = 0
    held: int = 0
    labels: dict[str, str] = {}
    host: str = ""
    pid: int = 0
    since: Utc | None = None
    version: str = ""
    users: tuple[str, ...] = ()
    default_user: str = ""
    drained_by: str = ""
    seated: bool | None = None
    clock_ahead_ms: int = 0
    output_address: str = ""


class LeaderView(msgspec.Struct, frozen=True, kw_only=True):
    """``node`` "": nobody leads. The term's record is the last leader's until the next has won.
    ``silent_s``: for how long it hasn't renewed its lease, if that is longer than one that is well
    takes; then ``lease_left_s`` says when another may lead."""

    node: str
    term: Term | None
    watermark: Utc | None
    schedulers: tuple[SchedulerView, ...]
    silent_s: int = 0
    lease_left_s: int = 0

    @property
    def silence(self) -> str:
        """In words; empty: it answers."""
        if not self.silent_s:
            return ""
        left = f"in {self.lease_left_s} s" if self.lease_left_s else "now"
        return (
            f"hasn't answered for {self.silent_s} s; its lease runs out {left}, then another leads"
        )


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


async def read_leader(etcd: Etcd, keys: Keys, now_ms: int) -> LeaderView:
    (at_term, at_watermark), _ = await read(etcd, [keys.term, keys.watermark])
    term, watermark = found(Term, at_term), found(Watermark, at_watermark)
    standing = sorted(
        await listed(etcd, keys.all_of(Kind.ELECTION)), key=lambda kv: kv.create_revision
    )
    # The first candidate leads once it has won the term; until then nobody does.
    leads = bool(standing) and term is not None and term.token == standing[0].create_revision
    schedulers = []
    for position, kv in enumerate(standing):
        candidate = found(Candidate, kv)
        if candidate is not None:
            schedulers.append(_view_of(candidate, now_ms, leads=leads and position == 0))
    for kv in await listed(etcd, (keys.barred_prefix, range_end_of(keys.barred_prefix))):
        barred = found(Barred, kv)
        if barred is not None:
            schedulers.append(_view_of(barred, now_ms, barred=barred.reason))
    silent_s, left_s = await _silence(etcd, standing[0].lease) if leads else (0, 0)
    return LeaderView(
        silent_s=silent_s,
        lease_left_s=left_s,
        node=term.leader if leads and term is not None else "",
        term=term,
        watermark=watermark.through if watermark is not None else None,
        schedulers=_by_process(schedulers),
    )


def _by_process(schedulers: Iterable[SchedulerView]) -> tuple[SchedulerView, ...]:
    """One for each process. Its last word counts, unless it leads by a session before, whose lease
    hasn't ended."""
    last: dict[tuple[str, str, int, Utc], SchedulerView] = {}
    for one in schedulers:
        process = (one.node, one.host, one.pid, one.since)
        before = last.get(process)
        if before is None or one.barred or not before.leads:
            last[process] = one
    of_name = Counter(one.node for one in last.values())
    return tuple(
        msgspec.structs.replace(one, shares_name=of_name[one.node] > 1) for one in last.values()
    )


def _view_of(
    node: Candidate | Barred, now_ms: int, *, leads: bool = False, barred: str = ""
) -> SchedulerView:
    return SchedulerView(
        node=node.node,
        leads=leads,
        host=node.host,
        pid=node.pid,
        since=node.since,
        version=node.version,
        clock_ahead_ms=max(ms_of(node.clock) - now_ms, 0),
        barred=barred,
    )


async def _silence(etcd: Etcd, lease: int) -> tuple[int, int]:
    """A keepalive comes every quarter of the lease's time, and etcd tells whole seconds. For how
    long there was none, and what is left."""
    if not lease:
        return 0, 0  # Put by hand.
    info = await etcd.lease_time_to_live(lease)
    if info.ttl_s * 2 >= info.granted_s:
        return 0, 0
    left_s = max(info.ttl_s, 0)
    return info.granted_s - left_s, left_s


async def read_agents(etcd: Etcd, keys: Keys, now_ms: int) -> tuple[AgentView, ...]:
    """By name: who is here, and who isn't but still matters."""
    present = {
        record.agent: record for record in _records(await listed(etcd, keys.all_of(Kind.PRESENCE)))
    }
    drains = {
        drain.agent: drain
        for kv in await listed(etcd, keys.all_of(Kind.DRAIN))
        if (drain := found(Drain, kv)) is not None
    }
    used: Counter[str] = Counter()
    for kv in await listed(etcd, keys.all_of(Kind.ASSIGNMENT), keys_only=True):
        place = keys.parse(kv.key)
        if place is not None:
            used[place[1][0]] += 1
    claims = await read_claims(etcd, keys)
    running = Counter(one.agent for one in claims if one.is_running)
    held = Counter(one.agent for one in claims if one.is_held)
    used.subtract(await _slotless(etcd, keys, [one for one in claims if one.is_held]))
    seated = await _seated(etcd, keys)
    return tuple(
        _agent_view(
            name,
            present.get(name),
            drains.get(name),
            name in seated if seated is not None else None,
            used[name],
            running[name],
            held[name],
            now_ms,
        )
        for name in sorted({*present, *drains, *used, *(seated or ())})
    )


async def _slotless(etcd: Etcd, keys: Keys, held: list[Claimed]) -> Counter[str]:
    """By agent, how many of these take no slot, as the leader counts (``View.slots_taken``)."""
    places = [keys.of(Kind.ASSIGNMENT, one.agent, one.run.job, one.run.id) for one in held]
    kvs, _ = await read(etcd, places)
    assignments = (found(Assignment, kv) for kv in kvs)
    return Counter(
        one.agent for one in assignments if one and one.on_disconnect is OnDisconnect.STOP
    )


async def _seated(etcd: Etcd, keys: Keys) -> set[str] | None:
    """Who has a seat, be it here or not; None: nobody needs one."""
    (at_settings,), _ = await read(etcd, [keys.of(Kind.SETTINGS)])
    settings = found(ClusterSettings, at_settings)
    if settings is None or settings.max_active_agents is None:
        return None
    seats = await listed(etcd, keys.all_of(Kind.SEAT), keys_only=True)
    return {place[1][0] for kv in seats if (place := keys.parse(kv.key)) is not None}


def _records(kvs: Iterable[KeyValue]) -> list[Presence]:
    return [record for kv in kvs if (record := found(Presence, kv)) is not None]


def _agent_view(
    name: str,
    presence: Presence | None,
    drain: Drain | None,
    seated: bool | None,
    used: int,
    running: int,
    held: int,
    now_ms: int,
) -> AgentView:
    drained_by = drain.by if drain is not None else ""
    if presence is None:
        return AgentView(
            agent=name,
            state=AgentState.ABSENT,
            used=used,
            running=running,
            held=held,
            drained_by=drained_by,
            seated=seated,
        )
    if presence.draining:
        state = AgentState.STOPPING
    elif drain is not None:
        state = AgentState.DRAINING
    elif seated is False:
        state = AgentState.STANDBY
    else:
        state = AgentState.FULL if used >= presence.slots else AgentState.READY
    return AgentView(
        agent=name,
        state=state,
        slots=presence.slots,
        used=used,
        running=running,
        held=held,
        labels=presence.labels,
        host=presence.host,
        pid=presence.pid,
        since=presence.since,
        version=presence.version,
        users=presence.users,
        default_user=presence.default_user,
        drained_by=drained_by,
        seated=seated,
        clock_ahead_ms=max(ms_of(presence.clock) - now_ms, 0),
        output_address=presence.output_address,
    )


def lateness_of(runs: Sequence[Run]) -> Lateness | None:
    views = [view for run in runs if (view := view_of(run)).lateness_ms is not None]
    views.sort(key=lambda view: view.at, reverse=True)
    ranked = sorted((view.lateness_ms or 0, view.name) for view in views[:_STARTS])
    if not ranked:
        return None
    worst_ms, worst = ranked[-1]
    return Lateness(len(ranked), ranked[len(ranked) // 2][0], worst_ms, worst)
