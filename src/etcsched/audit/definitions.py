"""Which ticks are due, from what operators committed: each job's timeline, and the pauses."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

from etcsched.audit.due import due_within
from etcsched.core.records import (
    CLUSTER,
    Calendar,
    CalendarVersion,
    Job,
    Pause,
    ScheduleVersion,
)
from etcsched.core.schedule.patterns import Pattern
from etcsched.core.states import JobState
from etcsched.core.times import ms_of, utc_of

__all__ = ["Definitions"]

_LOOK_AHEAD_MS = 6 * 3_600_000
_VERSION_FIELDS = frozenset({"since", "state", "patterns", "timezone", "calendars", "windows"})
_NO_DAYS = CalendarVersion(since=utc_of(0))


class _Span(msgspec.Struct):
    """A version, in force in [since, until)."""

    since_ms: int
    until_ms: int | None
    version: ScheduleVersion


class _Timeline(msgspec.Struct):
    spans: list[_Span]
    unknown: str = ""
    """What of the definition isn't understood; empty: all is."""
    stamp: int = 0


class _Interval(msgspec.Struct):
    since_ms: int
    until_ms: int | None


class Definitions:
    """``through_ms``: everything up to it was asked for with ``pass_to``."""

    def __init__(self, through_ms: int) -> None:
        self.through_ms = through_ms
        self._timelines: dict[str, _Timeline] = {}
        self._pauses: dict[str, list[_Interval]] = defaultdict(list)
        self._calendars: dict[str, dict[int, CalendarVersion]] = defaultdict(dict)
        """Of each calendar, what holds from when on."""
        self._next: list[tuple[int, int, str]] = []
        self._stamps = 0

    # --- what operators committed

    def job_put(self, job: Job) -> str | None:
        """What is wrong with it; None: nothing."""
        timeline = self._timelines.setdefault(job.name, _Timeline(spans=[]))
        problem = _extend(timeline.spans, job.versions, self.through_ms)
        timeline.unknown = _not_understood(job)
        self._look_again(job.name, timeline)
        return problem

    def job_gone(self, job: str) -> None:
        """The leader forgets a deleted job, or somebody's hand took it: what was due through the
        watermark has been asked for, and nothing is due after it."""
        self._timelines.pop(job, None)

    def pause_put(self, name: str, pause: Pause) -> str | None:
        known = {interval.since_ms: interval for interval in self._pauses[name]}
        told_ms = {ms_of(told.since) for told in pause.intervals}
        for since_ms, interval in known.items():
            if interval.until_ms is None and since_ms not in told_ms:
                # It ended at the watermark, and says nothing any more.
                interval.until_ms = self.through_ms + 1
        problem = None
        for told in pause.intervals:
            since_ms = ms_of(told.since)
            until_ms = ms_of(told.until) if told.until is not None else None
            mine = known.get(since_ms)
            if mine is None:
                self._pauses[name].append(_Interval(since_ms, until_ms))
                if since_ms < self.through_ms:
                    problem = f"a pause of {name} begins at {told.since}, before the watermark"
            else:
                mine.until_ms = until_ms
        return problem

    def calendar_put(self, calendar: Calendar) -> str | None:
        known, problem = self._calendars[calendar.name], None
        for version in calendar.versions:
            since_ms = ms_of(version.since)
            if known and since_ms not in known and since_ms < self.through_ms:
                problem = f"a version begins at {version.since}, before the watermark"
            known[since_ms] = version
        return problem

    def calendar_gone(self, name: str) -> None:
        self._calendars.pop(name, None)

    def pause_gone(self, name: str) -> None:
        for interval in self._pauses[name]:
            if interval.until_ms is None:
                interval.until_ms = self.through_ms + 1

    # --- what is due

    def unknown(self, job: str) -> str:
        """What of the job's definition the auditor doesn't understand yet."""
        timeline = self._timelines.get(job)
        return timeline.unknown if timeline is not None else ""

    def pass_to(self, through_ms: int) -> Iterator[tuple[str, int]]:
        """(job, tick) of all ticks due since the last call, through this time."""
        while self._next and self._next[0][0] <= through_ms:
            look_ms, stamp, job = heapq.heappop(self._next)
            timeline = self._timelines.get(job)
            if timeline is None or stamp != timeline.stamp:
                continue
            until_ms = min(look_ms + _LOOK_AHEAD_MS, through_ms)
            for tick_ms in self.due(job, look_ms - 1, until_ms):
                yield job, tick_ms
            self._push(job, timeline, until_ms)
        self.through_ms = max(self.through_ms, through_ms)

    def due(self, job: str, after_ms: int, through_ms: int) -> Iterator[int]:
        """The job's ticks in (after, through] by what is in force, ascending."""
        for tick_ms, version in self._by_schedule(job, after_ms, through_ms):
            if self._may_be(job, version, tick_ms):
                yield tick_ms

    def _by_schedule(
        self, job: str, after_ms: int, through_ms: int
    ) -> Iterator[tuple[int, ScheduleVersion]]:
        """Whatever pauses and calendars say: they may change before it is due."""
        timeline = self._timelines.get(job)
        for span in timeline.spans if timeline is not None else ():
            first_ms = max(after_ms, span.since_ms - 1)
            last_ms = through_ms if span.until_ms is None else min(through_ms, span.until_ms - 1)
            version = span.version
            for patterns, begin_ms, end_ms in _pieces(version, first_ms, last_ms):
                for tick_ms in due_within(patterns, version.timezone, begin_ms, end_ms):
                    yield tick_ms, version

    def is_due(self, job: str, tick_ms: int) -> bool:
        return next(self.due(job, tick_ms - 1, tick_ms), None) is not None

    def _may_be(self, job: str, version: ScheduleVersion, tick_ms: int) -> bool:
        return not (self._is_paused(job, tick_ms) or self._is_off(version, tick_ms))

    def _is_off(self, version: ScheduleVersion, tick_ms: int) -> bool:
        """A day that one of its calendars excludes; or, where some include days, none of those."""
        if not version.calendars:
            return False
        zone = ZoneInfo(version.timezone)
        day = datetime.fromtimestamp(tick_ms / 1000, zone).date().isoformat()
        in_force = [self._in_force(name, tick_ms) for name in version.calendars]
        included = [text for calendar in in_force for text in calendar.include]
        excluded = [text for calendar in in_force for text in calendar.exclude]
        return _is_among(day, excluded) or (bool(included) and not _is_among(day, included))

    def _in_force(self, name: str, tick_ms: int) -> CalendarVersion:
        """One that isn't there says nothing."""
        known = self._calendars.get(name, {})
        since_ms = max((since for since in known if since <= tick_ms), default=None)
        return known[since_ms] if since_ms is not None else _NO_DAYS

    def _is_paused(self, job: str, tick_ms: int) -> bool:
        return any(
            interval.since_ms <= tick_ms
            and (interval.until_ms is None or tick_ms < interval.until_ms)
            for name in (job, CLUSTER)
            for interval in self._pauses.get(name, ())
        )

    # --- the next look at each job

    def _look_again(self, job: str, timeline: _Timeline) -> None:
        self._push(job, timeline, self.through_ms)

    def _push(self, job: str, timeline: _Timeline, after_ms: int) -> None:
        """The time of its next tick, or, if that is far off, when to look for it."""
        self._stamps += 1
        timeline.stamp = self._stamps
        begins_ms = [
            span.since_ms
            for span in timeline.spans
            if span.until_ms is None or span.until_ms > after_ms
        ]
        if timeline.unknown or not begins_ms:
            return
        after_ms = max(after_ms, min(begins_ms) - 1)  # The first watermark comes after the jobs.
        far_ms = after_ms + _LOOK_AHEAD_MS
        try:
            next_ms = next((tick for tick, _ in self._by_schedule(job, after_ms, far_ms)), far_ms)
        except (ValueError, KeyError) as error:
            timeline.unknown = f"a schedule that can't be read: {error}"
            return
        heapq.heappush(self._next, (next_ms, timeline.stamp, job))


def _pieces(
    version: ScheduleVersion, after_ms: int, through_ms: int
) -> Iterator[tuple[tuple[Pattern, ...], int, int]]:
    """What is in force in which part of (after, through], where anything is: the version's own
    schedule, but within its windows theirs."""
    begin_ms = after_ms
    for window in sorted(version.windows, key=lambda window: window.since):
        opens_ms, closes_ms = ms_of(window.since), ms_of(window.until)
        if version.state is JobState.ENABLED and begin_ms < min(opens_ms - 1, through_ms):
            yield version.patterns, begin_ms, min(opens_ms - 1, through_ms)
        state = version.state if window.state is None else window.state
        patterns = version.patterns if window.patterns is None else window.patterns
        first_ms, last_ms = max(begin_ms, opens_ms - 1), min(closes_ms - 1, through_ms)
        if state is JobState.ENABLED and first_ms < last_ms:
            yield patterns, first_ms, last_ms
        begin_ms = max(begin_ms, closes_ms - 1)
    if version.state is JobState.ENABLED and begin_ms < through_ms:
        yield version.patterns, begin_ms, through_ms


def _is_among(day: str, stretches: list[str]) -> bool:
    """Days as texts, which sort as days do; a stretch has both its ends."""
    for stretch in stretches:
        first, _, last = stretch.partition("/")
        if first <= day <= (last or first):
            return True
    return False


def _extend(
    spans: list[_Span], versions: tuple[ScheduleVersion, ...], through_ms: int
) -> str | None:
    problem = None
    for version in versions:
        since_ms = ms_of(version.since)
        last = spans[-1] if spans else None
        if last is not None and since_ms < last.since_ms:
            continue  # Known already: versions are only ever appended.
        if last is not None and since_ms == last.since_ms:
            last.version = version
            continue
        if last is not None and (last.until_ms is None or last.until_ms > since_ms):
            if since_ms < through_ms:
                problem = f"a definition begins at {version.since}, before the watermark"
            last.until_ms = since_ms
        spans.append(_Span(since_ms, None, version))
    return problem


def _not_understood(job: Job) -> str:
    for version in job.versions:
        for name in version.__struct_fields__:
            if name not in _VERSION_FIELDS and getattr(version, name):
                return name
    return ""
