"""Ticks that the leader has decided ahead of the watermark, as whoever edits a job must know them.

The watermark moves once in a while, runs and fan-outs are created at once, and so is an outage's
account of its ticks. An edit that took its time before a tick, and is committed after the tick's
decision, would say of it that it was never due; or make a tick due of a time that is accounted for.
So an edit begins after the latest tick that has a run or a fan-out, and after what the job's gap
says is decided.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from etcsched.core.records import FanOut, Gap, Kind, Run
from etcsched.core.states import Origin
from etcsched.core.times import Utc, ms_of, tick_id, utc_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range
from etcsched.keyspace.transactions import TicksSeen
from etcsched.operator.store import found, pages, read_ranges
from etcsched.ports import Etcd

__all__ = ["Decided", "decided_of", "decided_of_all"]


class Decided(msgspec.Struct, frozen=True):
    """``begin``: when an edit made now begins. ``open_from``: how far the gap (of several the one
    that is farthest behind) says that ticks are decided, if there is one."""

    begin: Utc
    open_from: Utc | None


async def decided_of(
    etcd: Etcd, keys: Keys, jobs: Sequence[str], now: Utc, revision: int
) -> tuple[list[Decided], TicksSeen]:
    """For each job, as it stands at ``revision``."""
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
        after += [_instant_after(each.scheduled_at) for each in fan_outs if each is not None]
        begin = max([now, *after])
        gap = found(Gap, gaps.kvs[0]) if gaps.kvs else None
        if gap is not None:
            begin = max(begin, utc_of(ms_of(gap.decided_through) + 1))
        decided.append(Decided(begin, gap.decided_through if gap is not None else None))
    return decided, TicksSeen(tick, revision)


async def decided_of_all(etcd: Etcd, keys: Keys, now: Utc, revision: int) -> Decided:
    """For an edit that all jobs go by. It isn't held up by their runs: it makes none of the ticks
    that have one due. But of what a gap accounts for, nobody knows any more what was due."""
    begin, open_from = now, None
    async for page in pages(etcd, *keys.all_of(Kind.GAP), revision=revision):
        for kv in page.kvs:
            gap = found(Gap, kv)
            if gap is not None:
                begin = max(begin, utc_of(ms_of(gap.decided_through) + 1))
                open_from = min(open_from or gap.decided_through, gap.decided_through)
    return Decided(begin, open_from)


def _after(run: Run) -> Utc:
    """The first instant later than all ticks that the run stands for; of others none."""
    if run.origin in (Origin.REQUEST, Origin.RESUBMISSION) or run.scheduled_at is None:
        return Utc("")
    return _instant_after(run.missed_through or run.scheduled_at)


def _instant_after(at: Utc) -> Utc:
    return utc_of(ms_of(at) + 1)
