"""The agents: who is here, and what occupies their slots; one of them in full."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable

import msgspec

from etcsched.core.errors import NotFound
from etcsched.core.records import Assignment, ClusterSettings, Drain, Kind, Live, Presence
from etcsched.core.states import OnDisconnect, Stage
from etcsched.core.times import Utc, ms_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue
from etcsched.operator.claims import Claimed, read_claims
from etcsched.operator.runs import RunView, read_some
from etcsched.operator.store import found, listed, read
from etcsched.ports import Etcd

__all__ = ["AgentInFull", "AgentState", "AgentView", "read_agent", "read_agents"]


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


class AgentInFull(AgentView, frozen=True, kw_only=True):
    """``runs`` have its slots. ``stage`` is where the leader sees its incarnation, or the last one
    of an agent that is gone. ``seen_s_ago``: so long ago at most it renewed its lease; None, like
    all that it says of itself is empty, of one that isn't here.
    """

    incarnation: str = ""
    drained_since: Utc | None = None
    stage: Stage | None = None
    stage_since: Utc | None = None
    seen_s_ago: int | None = None
    lease_left_s: int | None = None
    runs: tuple[RunView, ...] = ()


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


async def read_agent(etcd: Etcd, keys: Keys, name: str, now_ms: int) -> AgentInFull:
    """``NotFound`` for one that isn't here, and that nothing is left of."""
    (at_presence, at_drain, at_live), _ = await read(
        etcd, [keys.of(kind, name) for kind in (Kind.PRESENCE, Kind.DRAIN, Kind.LIVE)]
    )
    presence, drain, live = (
        found(Presence, at_presence),
        found(Drain, at_drain),
        found(Live, at_live),
    )
    known = {view.agent: view for view in await read_agents(etcd, keys, now_ms)}
    if name not in known and live is None:
        raise NotFound(f"agent {name}: there is none; see etcsched agents list")
    view = known.get(name) or AgentView(agent=name, state=AgentState.ABSENT)
    seen_s_ago, left_s = await _last_sign(etcd, at_presence.lease if at_presence else 0)
    return AgentInFull(
        **{field: getattr(view, field) for field in AgentView.__struct_fields__},
        incarnation=presence.incarnation if presence is not None else "",
        drained_since=drain.since if drain is not None else None,
        stage=live.stage if live is not None else None,
        stage_since=live.since if live is not None else None,
        seen_s_ago=seen_s_ago,
        lease_left_s=left_s,
        runs=await _runs_on(etcd, keys, name),
    )


async def _last_sign(etcd: Etcd, lease: int) -> tuple[int | None, int | None]:
    """How long ago it renewed its lease, and what is left of that. etcd tells whole seconds, so
    the first is too long rather than too short, and the second too short."""
    if not lease:
        return None, None  # It isn't here, or its presence was put by hand.
    info = await etcd.lease_time_to_live(lease)
    if info.has_ended:
        return None, None
    left_s = max(info.ttl_s, 0)
    return info.granted_s - left_s, left_s


async def _runs_on(etcd: Etcd, keys: Keys, name: str) -> tuple[RunView, ...]:
    places = [
        (place[1][1], place[1][2])
        for kv in await listed(etcd, keys.all_of(Kind.ASSIGNMENT, name), keys_only=True)
        if (place := keys.parse(kv.key)) is not None
    ]
    runs = await read_some(etcd, keys, places)
    return tuple(runs[place] for place in places if place in runs)
