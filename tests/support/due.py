"""Which ticks are due, found by looking at every second: it shares nothing with the scheduler but
the acknowledged definitions and pauses."""

from __future__ import annotations

from math import inf

from etcsched.core.records import CLUSTER, Job, ScheduleVersion
from etcsched.core.schedule import At, Cron, Every, Pattern
from etcsched.core.states import JobState, Overlap
from etcsched.core.times import ms_of
from etcsched.testing.world import World


class DueTicks:
    """Knows ``every``, ``at``, and crons of the forms ``*/n * * * * *`` and ``*/n * * * *``."""

    def __init__(self) -> None:
        self._versions: dict[str, list[ScheduleVersion]] = {}
        self._overlaps: dict[str, set[Overlap]] = {}
        self._pauses: dict[str, list[tuple[int, float]]] = {}

    def applied(self, job: Job) -> None:
        self._versions.setdefault(job.name, []).append(job.current)
        self._overlaps.setdefault(job.name, set()).add(job.overlap)

    def deleted(self, name: str, world: World) -> None:
        gone = ScheduleVersion(since=world.now, state=JobState.DELETED)
        self._versions[name].append(gone)

    def paused(self, name: str, world: World) -> None:
        intervals = self._pauses.setdefault(name, [])
        if not intervals or intervals[-1][1] != inf:
            intervals.append((ms_of(world.now), inf))

    def resumed(self, name: str, world: World) -> None:
        since_ms, _ = self._pauses[name].pop()
        self._pauses[name].append((since_ms, ms_of(world.now)))

    def _pauses_ms(self, name: str) -> list[tuple[int, float]]:
        return self._pauses.get(name, []) + self._pauses.get(CLUSTER, [])

    def allows_overlap(self, name: str) -> bool:
        """Whether any definition of the job ever did."""
        return Overlap.ALLOW in self._overlaps[name]

    def ticks_ms(self, world: World, name: str) -> list[int]:
        pauses = self._pauses_ms(name)
        found = []
        end_ms = world.start_ms + int(world.now_s * 1000)
        for tick_ms in range(world.start_ms, end_ms + 1, 1000):
            version = self._in_force(name, tick_ms)
            if version is None or version.state is not JobState.ENABLED:
                continue
            if any(begin <= tick_ms < end for begin, end in pauses):
                continue
            if any(_matches(pattern, tick_ms) for pattern in version.patterns):
                found.append(tick_ms)
        return found

    def is_stopped(self, world: World, name: str, at_s: float) -> bool:
        """Whether nothing of the job may start at this instant (at an edit's very instant, the
        start may have come first)."""
        at_ms = world.start_ms + round(at_s * 1000)
        pauses = self._pauses_ms(name)
        version = self._in_force(name, at_ms - 1)
        is_off = version is not None and version.state is not JobState.ENABLED
        now = self._in_force(name, at_ms)
        is_off = is_off and now is not None and now.state is not JobState.ENABLED
        return is_off or any(begin < at_ms < end for begin, end in pauses)

    def _in_force(self, name: str, at_ms: int) -> ScheduleVersion | None:
        found = None
        for version in self._versions[name]:
            if ms_of(version.since) <= at_ms:
                found = version
        return found


def _matches(pattern: Pattern, tick_ms: int) -> bool:
    second = tick_ms // 1000
    match pattern:
        case Every(interval_s=interval_s, anchor=anchor):
            since_s = second - ms_of(anchor) // 1000
            return since_s > 0 and since_s % interval_s == 0
        case At(time=time):
            return tick_ms == ms_of(time)
        case Cron(expression=expression):
            fields = expression.split()
            step = int(fields[0].removeprefix("*/"))
            if len(fields) == 6:
                return second % 60 % step == 0
            return second % 60 == 0 and second // 60 % 60 % step == 0
