"""The timeline of a job's definitions: which one decides a tick (DESIGN 3).

A version is in force in [since, since of the next), cut by its windows; a pause in [since, until).
Whatever changes begins at now, or right after the watermark where that is later: ticks up to it are
decided already.

What ended before the watermark is forgotten with the next change. ``open_from`` holds that back:
where a job has a gap, ticks later than the gap's ``decided_through`` are still open, although the
watermark has passed them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from etcsched.core.limits import Limits
from etcsched.core.records import (
    Calendar,
    CalendarVersion,
    Job,
    Pause,
    PauseInterval,
    ScheduleVersion,
)
from etcsched.core.schedule import Every, Pattern, Schedule, schedule_of
from etcsched.core.states import JobState
from etcsched.core.times import Utc, instant_after, ms_of

__all__ = [
    "begin_pause",
    "calendars_in_use",
    "delete",
    "end_pause",
    "last_tick",
    "next_tick",
    "revise",
    "revise_calendar",
    "ticks",
]

V = TypeVar("V", bound=ScheduleVersion | CalendarVersion)


def revise(
    old: Job | None,
    new: Job,
    now: Utc,
    watermark: Utc | None,
    open_from: Utc | None = None,
    seen: int = 0,
) -> Job:
    """What to write so that ``new`` (of one version) holds from now on; ``old``, of the revision
    ``seen``, itself where nothing differs.

    An ``every`` of unchanged interval keeps its anchor, unless the job was deleted in between.
    """
    if old is None:
        since = _since(now, watermark)
        return replace(new, versions=(replace(new.current, since=since),))
    is_anew = old.current.state is JobState.DELETED and new.current.state is not JobState.DELETED
    new = replace(new, made_anew_after=seen if is_anew else old.made_anew_after)
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


def revise_calendar(
    old: Calendar | None,
    new: Calendar,
    now: Utc,
    watermark: Utc | None,
    open_from: Utc | None = None,
) -> Calendar:
    """As ``revise``, of a calendar. ``open_from`` is the earliest of all gaps."""
    if old is None:
        since = _since(now, watermark)
        return replace(new, versions=(replace(new.current, since=since),))
    if replace(new.current, since=old.current.since) == old.current:
        revised = replace(new, versions=old.versions, unknown=old.unknown)
        if replace(revised, changed_by=old.changed_by) == old:
            return old
    else:
        since = _since(now, watermark, old.current.since)
        versions = (*old.versions, replace(new.current, since=since))
        revised = replace(new, versions=versions, unknown=old.unknown)
    decided = _earlier(watermark, open_from)
    return replace(revised, versions=_without_ended(revised.versions, decided))


def calendars_in_use(job: Job, watermark: Utc | None, open_from: Utc | None = None) -> set[str]:
    """The calendars that still have a say in one of its ticks."""
    versions = _without_ended(job.versions, _earlier(watermark, open_from))
    return {name for version in versions for name in version.calendars}


def ticks(job: Job, limits: Limits, after_ms: int, through_ms: int) -> Iterator[int]:
    """The due ticks in (after, through], ascending, found as they are asked for.

    Like the two below it raises ``ValueError`` for a pattern or a zone that is none.
    """
    for stretch in _in_force(job, after_ms):
        if stretch.after_ms >= through_ms:
            return
        last_ms = through_ms if stretch.end_ms is None else min(through_ms, stretch.end_ms - 1)
        yield from _due(stretch, limits, last_ms)


def next_tick(job: Job, limits: Limits, after_ms: int) -> int | None:
    """The first due tick later than ``after_ms``, as all is defined now; None: there is none."""
    for stretch in _in_force(job, after_ms):
        for tick_ms in _due(stretch, limits, stretch.last_ms):
            return tick_ms
    return None


def last_tick(job: Job, limits: Limits, after_ms: int, through_ms: int) -> int | None:
    """The latest due tick in (after, through]; its cost doesn't grow with how many there are."""
    for stretch in reversed(list(_in_force(job, after_ms))):
        last_ms = through_ms if stretch.end_ms is None else min(through_ms, stretch.end_ms - 1)
        while (tick_ms := stretch.schedule.last_before(stretch.after_ms, last_ms)) is not None:
            open_ms = limits.open_until(stretch.version, tick_ms)
            if open_ms == tick_ms:
                return tick_ms
            if open_ms is None:
                break
            last_ms = open_ms
    return None


class _Stretch(msgspec.Struct, frozen=True):
    """What decides ticks from right after an instant to before another; ``version`` has no
    windows any more."""

    version: ScheduleVersion
    schedule: Schedule
    after_ms: int
    end_ms: int | None

    @property
    def last_ms(self) -> int | None:
        return None if self.end_ms is None else self.end_ms - 1


def _in_force(job: Job, after_ms: int) -> Iterator[_Stretch]:
    """What decides any tick later than ``after_ms``, in order (a version begins *with* its
    ``since``)."""
    ends_ms = [ms_of(version.since) for version in job.versions[1:]]
    for version, end_ms in zip(job.versions, (*ends_ms, None), strict=True):
        if end_ms is not None and end_ms <= after_ms:
            continue
        for part, from_ms, until_ms in _parts(version, end_ms):
            if part.state is not JobState.ENABLED or not part.patterns:
                continue
            if until_ms is None or until_ms > after_ms:
                schedule = schedule_of(part.patterns, part.timezone)
                yield _Stretch(part, schedule, max(after_ms, from_ms - 1), until_ms)


def _parts(
    version: ScheduleVersion, end_ms: int | None
) -> Iterator[tuple[ScheduleVersion, int, int | None]]:
    """A version cut at its windows: what holds in each [from, until)."""
    from_ms, plain = ms_of(version.since), replace(version, windows=())
    for window in version.windows:
        opens_ms, closes_ms = ms_of(window.since), ms_of(window.until)
        if closes_ms <= from_ms or (end_ms is not None and opens_ms >= end_ms):
            continue
        if opens_ms > from_ms:
            yield plain, from_ms, opens_ms
        from_ms = max(from_ms, opens_ms)
        if end_ms is not None and closes_ms >= end_ms:
            yield version.within(window), from_ms, end_ms
            return
        yield version.within(window), from_ms, closes_ms
        from_ms = closes_ms
    yield (version if not version.windows else plain), from_ms, end_ms


def _due(stretch: _Stretch, limits: Limits, last_ms: int | None) -> Iterator[int]:
    schedule = stretch.schedule
    tick_ms = schedule.next_after(stretch.after_ms)
    while tick_ms is not None and (last_ms is None or tick_ms <= last_ms):
        open_ms = limits.open_from(stretch.version, tick_ms)
        if open_ms == tick_ms:
            yield tick_ms
            tick_ms = schedule.next_after(tick_ms)
        elif open_ms is None:
            return
        else:
            tick_ms = schedule.next_after(open_ms - 1)


def _keep_anchors(old: ScheduleVersion, patterns: tuple[Pattern, ...]) -> tuple[Pattern, ...]:
    anchors = {p.interval_s: p.anchor for p in old.patterns if isinstance(p, Every)}
    return tuple(
        replace(p, anchor=anchors[p.interval_s])
        if isinstance(p, Every) and p.interval_s in anchors
        else p
        for p in patterns
    )


def _without_ended(versions: tuple[V, ...], decided: Utc | None) -> tuple[V, ...]:
    """Without versions that say nothing about any tick later than ``decided``, and without those
    that were in force for no time at all."""
    kept: list[V] = [
        version
        for version, following in pairwise(versions)
        if version.since < following.since and _lasts_beyond(following.since, decided)
    ]
    return (*kept, versions[-1])


def _without_over(
    intervals: tuple[PauseInterval, ...], decided: Utc | None
) -> tuple[PauseInterval, ...]:
    return tuple(
        interval
        for interval in intervals
        if interval.until is None
        or (interval.since < interval.until and _lasts_beyond(interval.until, decided))
    )


def _lasts_beyond(end: Utc, decided: Utc | None) -> bool:
    """Whether what ends with ``end``, exclusively, says anything of what isn't decided."""
    return decided is None or ms_of(end) > ms_of(decided) + 1


def _since(now: Utc, watermark: Utc | None, not_before: Utc | None = None) -> Utc:
    """Now, or the latest of the others: a timeline never runs backwards, whatever a clock says. A
    tick at the watermark is decided already, so nothing begins before the instant after it."""
    after = instant_after(watermark) if watermark is not None else now
    return max(now, after, not_before or now)


def _earlier(watermark: Utc | None, open_from: Utc | None) -> Utc | None:
    if watermark is None or open_from is None:
        return watermark
    return min(watermark, open_from)
