"""One agent in full: what it says of itself, what occupies its slots, and where it stands."""

from __future__ import annotations

from etcsched.core.errors import NotFound
from etcsched.core.records import Drain, Kind, Live, Presence
from etcsched.core.states import Stage
from etcsched.core.times import Utc
from etcsched.keyspace.keys import Keys
from etcsched.operator.cluster import AgentState, AgentView, read_agents
from etcsched.operator.runs import RunView, read_some
from etcsched.operator.store import found, listed, read
from etcsched.ports import Etcd

__all__ = ["AgentInFull", "read_agent"]


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
