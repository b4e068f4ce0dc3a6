"""A job's coming ticks in its own zone, with what a change of its clocks does to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import msgspec

from etcsched.core.leader.context import Context, Options
from etcsched.core.leader.placement import requirement_of
from etcsched.core.limits import Limits
from etcsched.core.records import Job
from etcsched.core.splay import delay_ms
from etcsched.core.timeline import next_tick
from etcsched.core.times import Utc, utc_of
from etcsched.keyspace.keys import Keys
from etcsched.operator.explain import read_view
from etcsched.operator.jobs import JobView
from etcsched.ports import Etcd

__all__ = ["ComingTick", "read_coming"]


class ComingTick(msgspec.Struct, frozen=True):
    """``local`` is ISO 8601 with the zone's offset then; ``starts_at`` is later by the splay. It is
    None where each agent has a delay of its own: ``starts_on`` then has those that it would start
    on now."""

    at: Utc
    local: str
    starts_at: Utc | None
    starts_on: dict[str, Utc]
    remark: str = ""


async def read_coming(
    etcd: Etcd, keys: Keys, at_job: JobView, now_ms: int, count: int
) -> list[ComingTick]:
    job = at_job.job
    agents = await _agents_for(etcd, keys, job, now_ms) if _has_many_starts(job) else ()
    return list(islice(_coming_ticks(job, at_job.limits, agents, now_ms), count))


def _has_many_starts(job: Job) -> bool:
    return job.per_host and job.splay_s > 0


async def _agents_for(etcd: Etcd, keys: Keys, job: Job, now_ms: int) -> Sequence[str]:
    """Those that the leader would choose, if a tick were due now."""
    context = Context(await read_view(etcd, keys), 0, "", Options())
    context.it_is(now_ms, 0.0)
    return context.agents.eligible(requirement_of(job))


def _coming_ticks(
    job: Job, limits: Limits, agents: Sequence[str], after_ms: int
) -> Iterator[ComingTick]:
    """As all is defined now, without end where the schedule has none."""
    zone = ZoneInfo(job.current.timezone)
    offset: timedelta | None = None
    tick_ms = next_tick(job, limits, after_ms)
    while tick_ms is not None:
        local = datetime.fromtimestamp(tick_ms / 1000, UTC).astimezone(zone)
        yield ComingTick(
            utc_of(tick_ms),
            local.isoformat(),
            None if _has_many_starts(job) else utc_of(tick_ms + delay_ms(job)),
            {agent: utc_of(tick_ms + delay_ms(job, agent)) for agent in agents},
            _remark(local, offset),
        )
        offset = local.utcoffset()
        tick_ms = next_tick(job, limits, tick_ms)


def _remark(local: datetime, offset_before: timedelta | None) -> str:
    """``offset_before`` is that of the tick before."""
    offset = local.utcoffset()
    second_before = (local.astimezone(UTC) - timedelta(seconds=1)).astimezone(local.tzinfo)
    jump = (offset or timedelta()) - (second_before.utcoffset() or timedelta())
    if jump > timedelta():
        skipped_from = second_before.replace(tzinfo=None) + timedelta(seconds=1)
        return f"clocks go forward: {skipped_from:%H:%M} to {local:%H:%M} is skipped"
    other = local.replace(fold=1 - local.fold)
    # In a gap the two folds differ as well, but no instant has such a local time.
    if other.utcoffset() != offset:
        which = "first" if local.fold == 0 else "second"
        return f"clocks go back: the {which} of two {local:%H:%M}"
    if offset_before is not None and offset_before != offset:
        direction = "forward" if (offset or timedelta()) > offset_before else "back"
        return f"clocks went {direction} since the tick before"
    return ""
