"""A job's schedule: all of its patterns, in its zone, as one sequence of ticks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, Protocol, assert_never

import msgspec

from etcsched.core.schedule.cron import CronExpression, parse_cron
from etcsched.core.schedule.dst import first_tick_s, last_tick_s
from etcsched.core.schedule.patterns import At, Cron, Every, Pattern
from etcsched.core.schedule.zone import check_timezone
from etcsched.core.times import Utc, ms_of

__all__ = ["Schedule", "schedule_of"]

# Ticks lie in the years 1970 to 9000. The far end keeps all arithmetic on dates inside of what
# Python's calendar knows.
_EARLIEST_S: Final = 0
_LATEST_S: Final = ms_of(Utc("9000-12-31T23:59:59.000Z")) // 1000


class _Source(Protocol):
    """One pattern's ticks, in Unix seconds."""

    def first(self, from_s: int, through_s: int) -> int | None:
        """The earliest in [from, through]."""

    def last(self, after_s: int, through_s: int) -> int | None:
        """The latest in (after, through]."""


class Schedule:
    """Immutable. Ticks are whole seconds, in Unix milliseconds, ascending, each instant once."""

    __slots__ = ("_sources", "patterns", "timezone")

    def __init__(self, patterns: tuple[Pattern, ...], timezone: str) -> None:
        check_timezone(timezone)
        self.patterns: Final = patterns
        self.timezone: Final = timezone
        self._sources: Final = tuple(_source_of(pattern, timezone) for pattern in patterns)

    @staticmethod
    def parse(patterns: Sequence[Pattern], timezone: str) -> Schedule:
        """``ValueError``, one line, for an unknown zone or a pattern that makes no sense."""
        return Schedule(tuple(patterns), timezone)

    def __repr__(self) -> str:
        return f"Schedule({self.patterns!r}, {self.timezone!r})"

    def next_after(self, after_ms: int) -> int | None:
        """The first tick strictly later; None if there is none (in the hundred years after)."""
        from_s = max(after_ms // 1000 + 1, _EARLIEST_S)
        first_s: int | None = None
        for source in self._sources:
            found_s = source.first(from_s, _LATEST_S if first_s is None else first_s)
            if found_s is not None:
                first_s = found_s
        return None if first_s is None else first_s * 1000

    def ticks(self, after_ms: int, through_ms: int) -> Iterator[int]:
        """Every tick in (after, through], computed as it is asked for."""
        through_s = min(through_ms // 1000, _LATEST_S)
        from_s = max(after_ms // 1000 + 1, _EARLIEST_S)
        upcoming = [
            (tick_s, source)
            for source in self._sources
            if (tick_s := source.first(from_s, through_s)) is not None
        ]
        while upcoming:
            due_s = min(tick_s for tick_s, _ in upcoming)
            yield due_s * 1000
            upcoming = [
                (tick_s, source)
                for old_s, source in upcoming
                if (tick_s := old_s if old_s > due_s else source.first(due_s + 1, through_s))
                is not None
            ]

    def last_before(self, after_ms: int, through_ms: int) -> int | None:
        """The latest tick in (after, through]; its cost doesn't grow with how many there are."""
        after_s = max(after_ms // 1000, _EARLIEST_S - 1)
        through_s = min(through_ms // 1000, _LATEST_S)
        last_s: int | None = None
        for source in self._sources:
            found_s = source.last(after_s if last_s is None else last_s, through_s)
            if found_s is not None:
                last_s = found_s
        return None if last_s is None else last_s * 1000


@lru_cache(maxsize=16384)
def schedule_of(patterns: tuple[Pattern, ...], timezone: str) -> Schedule:
    """``Schedule.parse``, shared by all jobs of the same patterns and zone."""
    return Schedule(patterns, timezone)


class _CronTicks(msgspec.Struct, frozen=True):
    cron: CronExpression
    timezone: str

    def first(self, from_s: int, through_s: int) -> int | None:
        return first_tick_s(self.cron, self.timezone, from_s, through_s)

    def last(self, after_s: int, through_s: int) -> int | None:
        return last_tick_s(self.cron, self.timezone, after_s, through_s)


class _EveryTicks(msgspec.Struct, frozen=True):
    interval_s: int
    anchor_s: int

    def first(self, from_s: int, through_s: int) -> int | None:
        n = max(1, -((self.anchor_s - from_s) // self.interval_s))
        tick_s = self.anchor_s + n * self.interval_s
        return tick_s if tick_s <= through_s else None

    def last(self, after_s: int, through_s: int) -> int | None:
        n = (through_s - self.anchor_s) // self.interval_s
        tick_s = self.anchor_s + n * self.interval_s
        return tick_s if n >= 1 and tick_s > after_s else None


class _AtTick(msgspec.Struct, frozen=True):
    tick_s: int

    def first(self, from_s: int, through_s: int) -> int | None:
        return self.tick_s if from_s <= self.tick_s <= through_s else None

    def last(self, after_s: int, through_s: int) -> int | None:
        return self.tick_s if after_s < self.tick_s <= through_s else None


def _source_of(pattern: Pattern, timezone: str) -> _Source:
    match pattern:
        case Cron(expression):
            return _CronTicks(parse_cron(expression), timezone)
        case Every(interval_s, anchor):
            if interval_s < 1:
                raise ValueError(f"every {interval_s}s: the interval must be at least 1s")
            return _EveryTicks(interval_s, ms_of(anchor) // 1000)
        case At(time):
            tick_s, rest_ms = divmod(ms_of(time), 1000)
            if rest_ms:
                raise ValueError(f"at {time}: must be a whole second")
            return _AtTick(tick_s)
        case _:
            assert_never(pattern)
