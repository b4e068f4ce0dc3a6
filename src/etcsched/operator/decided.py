"""Ticks that the leader has decided ahead of the watermark, as whoever edits a job must know them.

The watermark moves once in a while, runs are created at once. An edit that took its time before a
tick, and is committed after the tick's run, would say of that run that it was never due. So an edit
begins after the latest tick that has a run.
"""

from __future__ import annotations

from collections.abc import Sequence

from etcsched.core.records import Run
from etcsched.core.states import Origin
from etcsched.core.times import Utc, ms_of, tick_id, utc_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range
from etcsched.keyspace.transactions import TicksSeen
from etcsched.operator.store import found, read_ranges
from etcsched.ports import Etcd

__all__ = ["begin_of_edits"]


async def begin_of_edits(
    etcd: Etcd, keys: Keys, jobs: Sequence[str], now: Utc, revision: int
) -> tuple[list[Utc], TicksSeen]:
    """For each job ``now``, or right after its latest tick that has a run at ``revision``."""
    tick = tick_id(ms_of(now) // 1000 * 1000)
    spans = [span for job in jobs for span in keys.runs_from(job, tick)]
    results, _ = await read_ranges(etcd, [Range(*span) for span in spans], revision)
    begins = []
    for place in range(0, len(results), 2):
        runs = [found(Run, kv) for result in results[place : place + 2] for kv in result.kvs]
        begins.append(max([now, *(_after(run) for run in runs if run is not None)]))
    return begins, TicksSeen(tick, revision)


def _after(run: Run) -> Utc:
    """The first instant later than all ticks that the run stands for; of others none."""
    if run.origin in (Origin.REQUEST, Origin.RESUBMISSION) or run.scheduled_at is None:
        return Utc("")
    return utc_of(ms_of(run.missed_through or run.scheduled_at) + 1)
