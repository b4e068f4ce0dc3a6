"""Which tick comes next, at a cost that lies in what is due, never in how many jobs exist.

Jobs of one schedule share one place in the queue. A job whose timeline has more than one version,
or windows, has a place of its own, found through its timeline.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from etcsched.core.limits import NO_LIMITS
from etcsched.core.records import Job, ScheduleVersion
from etcsched.core.schedule.patterns import Pattern
from etcsched.core.schedule.schedule import schedule_of
from etcsched.core.states import JobState
from etcsched.core.timeline import next_tick
from etcsched.core.times import ms_of

_GroupKey = tuple[tuple[Pattern, ...], str] | str


class _Group:
    """Jobs that are due at the same instants; ``stamp`` tells its valid queue entry from old
    ones."""

    __slots__ = ("jobs", "next_ms", "stamp")

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.next_ms: int | None = None
        self.stamp = 0


class TickIndex:
    """All enabled jobs' next ticks later than ``through_ms``.

    Pauses and calendars aren't looked at: whoever takes a tick does that.
    """

    def __init__(self, through_ms: int) -> None:
        self.through_ms = through_ms
        self._groups: dict[_GroupKey, _Group] = {}
        self._key_of: dict[str, _GroupKey] = {}
        self._queue: list[tuple[int, int, _GroupKey]] = []
        self._stamps = 0

    def __len__(self) -> int:
        return len(self._key_of)

    def put(self, job: Job) -> None:
        """A new or changed job; its ticks up to ``through_ms`` are not this index's matter."""
        self.discard(job.name)
        if not any(_is_ever_due(version) for version in job.versions):
            return
        is_plain = len(job.versions) == 1 and not job.current.windows
        key: _GroupKey = (job.current.patterns, job.current.timezone) if is_plain else job.name
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
            group.jobs[job.name] = job
            self._enqueue(key, group, self.through_ms)
        else:
            group.jobs[job.name] = job
        self._key_of[job.name] = key

    def discard(self, name: str) -> None:
        key = self._key_of.pop(name, None)
        if key is None:
            return
        group = self._groups[key]
        del group.jobs[name]
        if not group.jobs:
            del self._groups[key]

    def next_due_ms(self) -> int | None:
        """The earliest tick of any job; None: no job will ever be due."""
        while self._queue:
            next_ms, stamp, key = self._queue[0]
            group = self._groups.get(key)
            if group is not None and group.stamp == stamp:
                return next_ms
            heapq.heappop(self._queue)
        return None

    def pop_due(self, through_ms: int) -> Iterator[tuple[int, list[str]]]:
        """Each due instant up to ``through_ms``, in order, with its jobs; each once, ever."""
        while (due_ms := self.next_due_ms()) is not None and due_ms <= through_ms:
            _, _, key = heapq.heappop(self._queue)
            group = self._groups[key]
            names = [name for name, job in group.jobs.items() if _is_in_force(job, due_ms)]
            self._enqueue(key, group, due_ms)
            if names:
                yield due_ms, names
        self.through_ms = max(self.through_ms, through_ms)

    def due_within(self, after_ms: int, through_ms: int) -> list[str]:
        """The jobs that have ticks in (after, through]; its cost grows with how many different
        schedules there are."""
        names: list[str] = []
        for key, group in self._groups.items():
            next_ms = _next_of(key, group, after_ms)
            if next_ms is not None and next_ms <= through_ms:
                names.extend(group.jobs)
        return names

    def skip_to(self, through_ms: int) -> list[str]:
        """Go on from ``through_ms``; the names of the jobs that had ticks until then."""
        skipped: list[str] = []
        while (due_ms := self.next_due_ms()) is not None and due_ms <= through_ms:
            _, _, key = heapq.heappop(self._queue)
            group = self._groups[key]
            skipped.extend(group.jobs)
            self._enqueue(key, group, through_ms)
        self.through_ms = max(self.through_ms, through_ms)
        return skipped

    def _enqueue(self, key: _GroupKey, group: _Group, after_ms: int) -> None:
        group.next_ms = _next_of(key, group, after_ms)
        self._stamps += 1
        group.stamp = self._stamps
        if group.next_ms is not None:
            heapq.heappush(self._queue, (group.next_ms, group.stamp, key))


def _next_of(key: _GroupKey, group: _Group, after_ms: int) -> int | None:
    if isinstance(key, str):
        return next_tick(group.jobs[key], NO_LIMITS, after_ms)
    return schedule_of(*key).next_after(after_ms)


def _is_ever_due(version: ScheduleVersion) -> bool:
    within = (version, *(version.within(window) for window in version.windows))
    return any(each.state is JobState.ENABLED and each.patterns for each in within)


def _is_in_force(job: Job, due_ms: int) -> bool:
    return len(job.versions) > 1 or ms_of(job.current.since) <= due_ms
