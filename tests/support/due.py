"""Which ticks are due, found by looking at every second: it shares nothing with the scheduler but
the acknowledged definitions and pauses."""

from __future__ import annotations

from etcsched.core.records import CLUSTER, Job, Kind, Pause, ScheduleVersion
from etcsched.core.schedule import At, Cron, Every, Pattern
from etcsched.core.states import JobState, Overlap
from etcsched.core.times import ms_of
from etcsched.keyspace.codec import decode
from etcsched.keyspace.ops import EventType
from etcsched.testing.world import World


class DueTicks:
    """Knows ``every``, ``at``, and crons of the forms ``*/n * * * * *`` and ``*/n * * * *``."""

    def __init__(self) -> None:
        self._versions: dict[str, list[ScheduleVersion]] = {}
        self._overlaps: dict[str, set[Overlap]] = {}

    def applied(self, job: Job) -> None:
        self._versions.setdefault(job.name, []).append(job.current)
        self._overlaps.setdefault(job.name, set()).add(job.overlap)

    def deleted(self, name: str, world: World) -> None:
        gone = ScheduleVersion(since=world.now, state=JobState.DELETED)
        self._versions[name].append(gone)

    def allows_overlap(self, name: str) -> bool:
        """Whether any definition of the job ever did."""
        return Overlap.ALLOW in self._overlaps[name]

    def ticks_ms(self, world: World, name: str) -> list[int]:
        pauses = _pauses_ms(world, name) + _pauses_ms(world, CLUSTER)
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
        pauses = _pauses_ms(world, name) + _pauses_ms(world, CLUSTER)
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


def _pauses_ms(world: World, name: str) -> list[tuple[int, float]]:
    """All pauses that ever were, from the key's history."""
    found: dict[int, float] = {}
    for event in world.store.events_since(1, world.keys.of(Kind.PAUSE, name), None):
        if event.type is EventType.PUT:
            for interval in decode(Pause, event.kv.value).intervals:
                end = float("inf") if interval.until is None else ms_of(interval.until)
                found[ms_of(interval.since)] = end
    return sorted(found.items())


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
