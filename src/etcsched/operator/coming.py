"""A job's coming ticks in its own zone, with what a change of its clocks does to them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from etcsched.core.limits import Limits
from etcsched.core.records import Job
from etcsched.core.splay import delay_ms
from etcsched.core.timeline import next_tick
from etcsched.core.times import Utc, utc_of

__all__ = ["ComingTick", "coming_ticks"]


class ComingTick(msgspec.Struct, frozen=True):
    """``local`` is ISO 8601 with the zone's offset then; ``starts_at`` is later by the splay."""

    at: Utc
    local: str
    starts_at: Utc
    remark: str = ""


def coming_ticks(job: Job, limits: Limits, after_ms: int) -> Iterator[ComingTick]:
    """As all is defined now, without end where the schedule has none."""
    zone = ZoneInfo(job.current.timezone)
    offset: timedelta | None = None
    tick_ms = next_tick(job, limits, after_ms)
    while tick_ms is not None:
        local = datetime.fromtimestamp(tick_ms / 1000, UTC).astimezone(zone)
        starts_at = utc_of(tick_ms + delay_ms(job))
        yield ComingTick(utc_of(tick_ms), local.isoformat(), starts_at, _remark(local, offset))
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
