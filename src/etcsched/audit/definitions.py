"""Which ticks are due, from what operators committed: each job's timeline, and the pauses."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator

import msgspec

from etcsched.audit.due import due_within, is_due
from etcsched.core.records import CLUSTER, Job, Pause, ScheduleVersion
from etcsched.core.states import JobState
from etcsched.core.times import ms_of

__all__ = ["Definitions"]

_LOOK_AHEAD_MS = 6 * 3_600_000
_VERSION_FIELDS = frozenset({"since", "state", "patterns", "timezone"})
_JOB_FIELDS = ("windows", "calendars", "splay_s", "per_host")
"""What changes which ticks are due, and isn't understood here yet."""


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
        for tick_ms in self._by_schedule(job, after_ms, through_ms):
            if not self._is_paused(job, tick_ms):
                yield tick_ms

    def _by_schedule(self, job: str, after_ms: int, through_ms: int) -> Iterator[int]:
        """Whether it is paused or not: a pause may end before they are due."""
        timeline = self._timelines.get(job)
        for span in timeline.spans if timeline is not None else ():
            if not _runs(span):
                continue
            first_ms = max(after_ms, span.since_ms - 1)
            last_ms = through_ms if span.until_ms is None else min(through_ms, span.until_ms - 1)
            version = span.version
            yield from due_within(version.patterns, version.timezone, first_ms, last_ms)

    def is_due(self, job: str, tick_ms: int) -> bool:
        timeline = self._timelines.get(job)
        return (
            timeline is not None
            and not self._is_paused(job, tick_ms)
            and any(
                _runs(span)
                and span.since_ms <= tick_ms
                and (span.until_ms is None or tick_ms < span.until_ms)
                and is_due(span.version.patterns, span.version.timezone, tick_ms)
                for span in timeline.spans
            )
        )

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
            if _runs(span) and (span.until_ms is None or span.until_ms > after_ms)
        ]
        if timeline.unknown or not begins_ms:
            return
        after_ms = max(after_ms, min(begins_ms) - 1)  # The first watermark comes after the jobs.
        far_ms = after_ms + _LOOK_AHEAD_MS
        try:
            next_ms = next(self._by_schedule(job, after_ms, far_ms), far_ms)
        except (ValueError, KeyError) as error:
            timeline.unknown = f"a schedule that can't be read: {error}"
            return
        heapq.heappush(self._next, (next_ms, timeline.stamp, job))


def _runs(span: _Span) -> bool:
    return span.version.state is JobState.ENABLED and bool(span.version.patterns)


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
    for name in _JOB_FIELDS:
        if getattr(job, name, None):
            return name
    for version in job.versions:
        for name in version.__struct_fields__:
            if name not in _VERSION_FIELDS and getattr(version, name):
                return name
    return ""
