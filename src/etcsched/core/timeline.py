"""The timeline of a job's definitions: which one decides a tick (DESIGN 3).

A version is in force in [since, since of the next); a pause in [since, until). Whatever changes
begins at now, or at the watermark where that is later: ticks up to it are decided already.

What ended before the watermark is forgotten with the next change. ``open_from`` holds that back:
where a job has a gap, ticks later than the gap's ``decided_through`` are still open, although the
watermark has passed them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from msgspec.structs import replace

from etcsched.core.records import Job, Pause, PauseInterval, ScheduleVersion
from etcsched.core.schedule import Every, Pattern, Schedule, schedule_of
from etcsched.core.states import JobState
from etcsched.core.times import Utc, ms_of

__all__ = ["begin_pause", "delete", "end_pause", "last_tick", "next_tick", "revise", "ticks"]


def revise(
    old: Job | None,
    new: Job,
    now: Utc,
    watermark: Utc | None,
    open_from: Utc | None = None,
) -> Job:
    """What to write so that ``new`` (of one version) holds from now on; ``old`` itself where
    nothing differs.

    An ``every`` of unchanged interval keeps its anchor, unless the job was deleted in between.
    """
    if old is None:
        since = _since(now, watermark)
        return replace(new, versions=(replace(new.current, since=since),))
    wanted = replace(new.current, patterns=_keep_anchors(old.current, new.current.patterns))
    if replace(wanted, since=old.current.since) == old.current:
        revised = replace(new, versions=old.versions, unknown=old.unknown)
        if replace(revised, changed_by=old.changed_by) == old:
            return old
    else:
        since = _since(now, watermark, old.current.since)
        versions = (*old.versions, replace(wanted, since=since))
        revised = replace(new, versions=versions, unknown=old.unknown)
    decided = _earlier(watermark, open_from)
    return replace(revised, versions=_without_ended(revised.versions, decided))


def delete(
    old: Job, now: Utc, watermark: Utc | None, open_from: Utc | None = None, by: str = ""
) -> Job:
    """The job with a last version that says deleted; the leader forgets it when all is over."""
    if old.current.state is JobState.DELETED:
        return old
    gone = ScheduleVersion(since=now, state=JobState.DELETED, timezone=old.current.timezone)
    return revise(old, replace(old, versions=(gone,), changed_by=by), now, watermark, open_from)


def begin_pause(
    old: Pause | None,
    now: Utc,
    watermark: Utc | None,
    open_from: Utc | None = None,
    by: str = "",
) -> Pause:
    """``old`` itself where it is paused already."""
    if old is None:
        return Pause(intervals=(PauseInterval(since=_since(now, watermark), by=by),))
    if old.active:
        return old
    kept = _without_over(old.intervals, _earlier(watermark, open_from))
    latest = kept[-1].until if kept else None
    opened = PauseInterval(since=_since(now, watermark, latest), by=by)
    return replace(old, intervals=(*kept, opened))


def end_pause(old: Pause, now: Utc, watermark: Utc | None, open_from: Utc | None = None) -> Pause:
    """``old`` itself where it isn't paused."""
    if not old.active:
        return old
    *before, last = old.intervals
    closed = replace(last, until=_since(now, watermark, last.since))
    kept = _without_over((*before, closed), _earlier(watermark, open_from))
    return replace(old, intervals=kept)


def ticks(
    job: Job,
    job_pause: Pause | None,
    cluster_pause: Pause | None,
    after_ms: int,
    through_ms: int,
) -> Iterator[int]:
    """The due ticks in (after, through], ascending, found as they are asked for.

    Like the two below it raises ``ValueError`` for a pattern or a zone that is none.
    """
    pauses = (job_pause, cluster_pause)
    for schedule, first_ms, end_ms in _in_force(job, after_ms):
        if first_ms >= through_ms:
            return
        last_ms = through_ms if end_ms is None else min(through_ms, end_ms - 1)
        yield from _due(schedule, pauses, first_ms, last_ms)


def next_tick(job: Job, pauses: Iterable[Pause | None], after_ms: int) -> int | None:
    """The first due tick later than ``after_ms``, as all is defined now; None: there is none."""
    pauses = tuple(pauses)
    for schedule, first_ms, end_ms in _in_force(job, after_ms):
        for tick_ms in _due(schedule, pauses, first_ms, None if end_ms is None else end_ms - 1):
            return tick_ms
    return None


def last_tick(
    job: Job, pauses: Iterable[Pause | None], after_ms: int, through_ms: int
) -> int | None:
    """The latest due tick in (after, through]; its cost doesn't grow with how many there are."""
    pauses = tuple(pauses)
    for schedule, first_ms, end_ms in reversed(list(_in_force(job, after_ms))):
        last_ms = through_ms if end_ms is None else min(through_ms, end_ms - 1)
        while (tick_ms := schedule.last_before(first_ms, last_ms)) is not None:
            paused = _interval_at(pauses, tick_ms)
            if paused is None:
                return tick_ms
            last_ms = ms_of(paused.since) - 1
    return None


def _in_force(job: Job, after_ms: int) -> Iterator[tuple[Schedule, int, int | None]]:
    """The schedules that decide any tick later than ``after_ms``: each from right after an
    instant (a version begins *with* its ``since``) to before another."""
    ends_ms = [ms_of(version.since) for version in job.versions[1:]]
    for version, end_ms in zip(job.versions, (*ends_ms, None), strict=True):
        if version.state is not JobState.ENABLED or not version.patterns:
            continue
        if end_ms is None or end_ms > after_ms:
            schedule = schedule_of(version.patterns, version.timezone)
            yield schedule, max(after_ms, ms_of(version.since) - 1), end_ms


def _due(
    schedule: Schedule, pauses: tuple[Pause | None, ...], after_ms: int, last_ms: int | None
) -> Iterator[int]:
    tick_ms = schedule.next_after(after_ms)
    while tick_ms is not None and (last_ms is None or tick_ms <= last_ms):
        paused = _interval_at(pauses, tick_ms)
        if paused is None:
            yield tick_ms
            tick_ms = schedule.next_after(tick_ms)
        elif paused.until is None:
            return
        else:
            tick_ms = schedule.next_after(ms_of(paused.until) - 1)


def _interval_at(pauses: tuple[Pause | None, ...], tick_ms: int) -> PauseInterval | None:
    for pause in pauses:
        if pause is None:
            continue
        for interval in pause.intervals:
            if ms_of(interval.since) <= tick_ms and (
                interval.until is None or tick_ms < ms_of(interval.until)
            ):
                return interval
    return None


def _keep_anchors(old: ScheduleVersion, patterns: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
    anchors = {p.interval_s: p.anchor for p in old.patterns if isinstance(p, Every)}
    return tuple(
        replace(p, anchor=anchors[p.interval_s])
        if isinstance(p, Every) and p.interval_s in anchors
        else p
        for p in patterns
    )


def _without_ended(
    versions: tuple[ScheduleVersion, ...], decided: Utc | None
) -> tuple[ScheduleVersion, ...]:
    """Without versions that say nothing about any tick later than ``decided``, and without those
    that were in force for no time at all."""
    kept = [
        version
        for version, following in pairwise(versions)
        if version.since < following.since and (decided is None or following.since > decided)
    ]
    return (*kept, versions[-1])


def _without_over(
    intervals: tuple[PauseInterval, ...], decided: Utc | None
) -> tuple[PauseInterval, ...]:
    return tuple(
        interval
        for interval in intervals
        if interval.until is None
        or (interval.since < interval.until and (decided is None or interval.until > decided))
    )


def _since(now: Utc, *not_before: Utc | None) -> Utc:
    """Now, or the latest of the others: a timeline never runs backwards, whatever a clock says."""
    return max([now, *(utc for utc in not_before if utc is not None)])


def _earlier(watermark: Utc | None, open_from: Utc | None) -> Utc | None:
    if watermark is None or open_from is None:
        return watermark
    return min(watermark, open_from)
