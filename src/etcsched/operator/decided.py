"""Ticks that the leader has decided ahead of the watermark, as whoever edits a job must know them.

The watermark moves once in a while, runs and fan-outs are created at once, and so is an outage's
account of its ticks. An edit that took its time before a tick, and is committed after the tick's
decision, would say of it that it was never due; or make a tick due of a time that is accounted for.
So an edit begins after the latest tick that has a run or a fan-out, and after what the job's gap
says is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from etcsched.core.errors import Refused
from etcsched.core.records import Candidate, FanOut, Gap, Kind, Presence, Run
from etcsched.core.states import Origin
from etcsched.core.times import Utc, instant_after, ms_of, tick_id
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range
from etcsched.keyspace.transactions import TicksSeen
from etcsched.operator.store import found, pages, read_ranges
from etcsched.ports import Etcd

__all__ = ["Decided", "check_clock", "decided_of", "decided_of_all"]

_CLOCK_AHEAD_MS: Final = 120_000
"""Agents show theirs once a minute (ADR 33), and it may come late."""
_CLOCKS: Final = 5
"""So many are looked at, those that were shown last."""


class Decided(msgspec.Struct, frozen=True):
    """``begin``: when an edit made now begins. ``open_from``: how far the gap (of several the one
    that is farthest behind) says that ticks are decided, if there is one."""

    begin: Utc
    open_from: Utc | None


async def decided_of(
    etcd: Etcd, keys: Keys, jobs: Sequence[str], now: Utc, revision: int
) -> tuple[list[Decided], TicksSeen]:
    """For each job, as it stands at ``revision``. ``Refused`` where this clock is ahead."""
    await check_clock(etcd, keys, now)
    tick = tick_id(ms_of(now) // 1000 * 1000)
    ranges: list[Range] = []
    for job in jobs:
        ranges += [Range(*span) for span in keys.runs_from(job, tick)]
        ranges.append(Range(*keys.fan_outs_from(job, tick)))
        ranges.append(Range(keys.of(Kind.GAP, job)))
    results, _ = await read_ranges(etcd, ranges, revision)
    decided = []
    for place in range(0, len(results), 4):
        active, archived, fanned_out, gaps = results[place : place + 4]
        runs = [found(Run, kv) for kv in (*active.kvs, *archived.kvs)]
        fan_outs = [found(FanOut, kv) for kv in fanned_out.kvs]
        after = [_after(run) for run in runs if run is not None]
        after += [instant_after(each.scheduled_at) for each in fan_outs if each is not None]
        begin = max([now, *after])
        gap = found(Gap, gaps.kvs[0]) if gaps.kvs else None
        if gap is not None:
            begin = max(begin, instant_after(gap.decided_through))
        decided.append(Decided(begin, gap.decided_through if gap is not None else None))
    return decided, TicksSeen(tick, revision)


async def decided_of_all(etcd: Etcd, keys: Keys, now: Utc, revision: int) -> Decided:
    """For an edit that all jobs go by. It isn't held up by their runs: it makes none of the ticks
    that have one due. But of what a gap accounts for, nobody knows any more what was due.
    ``Refused`` where this clock is ahead."""
    await check_clock(etcd, keys, now)
    begin, open_from = now, None
    async for page in pages(etcd, *keys.all_of(Kind.GAP), revision=revision):
        for kv in page.kvs:
            gap = found(Gap, kv)
            if gap is not None:
                begin = max(begin, instant_after(gap.decided_through))
                open_from = min(open_from or gap.decided_through, gap.decided_through)
    return Decided(begin, open_from)


async def check_clock(etcd: Etcd, keys: Keys, now: Utc) -> None:
    """An edit by a clock that is ahead would begin so much later: until then what it forbids would
    start, and what it asks for wouldn't. Where no agent is there, nobody can tell."""
    clocks = await _clocks(etcd, keys, Kind.PRESENCE, Presence)
    if not clocks or ms_of(now) - ms_of(max(clocks)) <= _CLOCK_AHEAD_MS:
        return
    # Agents that run on while others are upgraded may be of a version that shows it only as it
    # joins. Schedulers of all versions show theirs once a minute.
    clocks += await _clocks(etcd, keys, Kind.ELECTION, Candidate)
    ahead_ms = ms_of(now) - ms_of(max(clocks))
    if ahead_ms > _CLOCK_AHEAD_MS:
        raise Refused(
            f"this host's clock is {ahead_ms // 1000} s ahead of what any agent has shown, and an "
            "edit begins by it; set right whichever is wrong, or wait a minute until agents show "
            "theirs again"
        )


async def _clocks(
    etcd: Etcd, keys: Keys, kind: Kind, type_: type[Presence] | type[Candidate]
) -> list[Utc]:
    newest = await etcd.range(Range(*keys.all_of(kind), limit=_CLOCKS, newest_first=True))
    return [one.clock for kv in newest.kvs if (one := found(type_, kv)) is not None]


def _after(run: Run) -> Utc:
    """The first instant later than all ticks that the run stands for; of others none."""
    if run.origin in (Origin.REQUEST, Origin.RESUBMISSION) or run.scheduled_at is None:
        return Utc("")
    return instant_after(run.missed_through or run.scheduled_at)
