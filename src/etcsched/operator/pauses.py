"""Pausing and resuming a job, or everything. Apart from job files, so that no apply undoes it."""

from __future__ import annotations

from typing import Final

from etcsched.core import timeline
from etcsched.core.errors import NotFound, Refused
from etcsched.core.records import CLUSTER, Job, Kind, Pause, Watermark
from etcsched.core.states import JobState
from etcsched.core.times import Utc
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.transactions import write_pause
from etcsched.operator.decided import decided_of, decided_of_all
from etcsched.operator.store import committed, found, mod_of, read
from etcsched.ports import Etcd

__all__ = ["pause", "resume"]

_TRIES: Final = 100
"""Many where outages are just being accounted for: each account is looked at anew."""


async def pause(
    etcd: Etcd, keys: Keys, job: str | None, now: Utc, by: str, *, timeout_s: float
) -> bool:
    """From its return on, nothing of the job (None: of any) starts. False: it was paused already.

    What runs goes on. ``NotFound`` for a job that isn't there.
    """
    return await _change(etcd, keys, job, now, by, timeout_s)


async def resume(etcd: Etcd, keys: Keys, job: str | None, now: Utc, *, timeout_s: float) -> bool:
    """Ticks of the time in between were never due. False: it wasn't paused."""
    return await _change(etcd, keys, job, now, None, timeout_s)


async def _change(
    etcd: Etcd, keys: Keys, job: str | None, now: Utc, by: str | None, timeout_s: float
) -> bool:
    """``by`` None: resume."""
    name = CLUSTER if job is None else job
    wanted = [keys.of(Kind.PAUSE, name), keys.watermark]
    if job is not None:
        wanted.append(keys.of(Kind.JOB, job))
    changes = False
    for _ in range(_TRIES):
        (at_pause, at_watermark, *of_job), revision = await read(etcd, wanted)
        if job is not None:
            record = found(Job, of_job[0])
            if record is None or record.current.state is JobState.DELETED:
                raise NotFound(f"job {job}: there is none; see etcsched jobs list")
            (decided,), ticks = await decided_of(etcd, keys, [job], now, revision)
        else:
            decided, ticks = await decided_of_all(etcd, keys, now, revision), None
        begin, open_from = decided.begin, decided.open_from
        old = found(Pause, at_pause)
        watermark = found(Watermark, at_watermark)
        through = watermark.through if watermark is not None else None
        if by is not None:
            new: Pause | None = timeline.begin_pause(old, begin, through, open_from, by)
        else:
            new = timeline.end_pause(old, begin, through, open_from) if old is not None else None
        if new is None or new is old:
            return changes
        # A lost answer makes the next look find our own work.
        changes = True
        txn = write_pause(
            keys,
            name,
            new,
            mod_of(at_pause),
            mod_of(at_watermark),
            ticks,
            gaps_revision=revision,
        )
        if await committed(etcd, txn, timeout_s=timeout_s):
            return True
    raise Refused(
        f"the pause of {job or 'the cluster'} was changed by others {_TRIES} times in a row; "
        "try again"
    )
