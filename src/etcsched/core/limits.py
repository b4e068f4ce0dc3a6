"""What keeps ticks of a job's schedule from being due: pauses and calendars.

Both have timelines of their own, and what held at a tick's time decides about it. A calendar's
version is in force in [since, since of the next); before its first one the calendar says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from etcsched.core.calendars import days_of, local_day, start_of_day_ms
from etcsched.core.records import Calendar, CalendarVersion, Job, Pause, ScheduleVersion
from etcsched.core.times import ms_of

__all__ = ["NO_LIMITS", "Limits", "calendars_of"]

_BEGIN_MS: Final = -1
_NONE: Final[Mapping[str, Calendar]] = MappingProxyType({})


class _InForce(msgspec.Struct, frozen=True):
    """The calendars' versions at an instant, which are the same in [since, until)."""

    versions: tuple[CalendarVersion, ...]
    since_ms: int
    until_ms: int | None


class Limits(msgspec.Struct, frozen=True):
    """``pauses``: the job's and the cluster's. ``calendars``: by name, those that the job names;
    one that isn't there says nothing."""

    pauses: tuple[Pause | None, ...] = ()
    calendars: Mapping[str, Calendar] = _NONE

    def open_from(self, version: ScheduleVersion, at_ms: int) -> int | None:
        """The first instant from ``at_ms`` on in which a tick may be due, as far as one look tells:
        ``at_ms`` itself, or where to look again. None: never."""
        for pause in self.pauses:
            for interval in pause.intervals if pause is not None else ():
                until_ms = None if interval.until is None else ms_of(interval.until)
                if ms_of(interval.since) <= at_ms and (until_ms is None or at_ms < until_ms):
                    return until_ms
        if not version.calendars:
            return at_ms
        found = self._in_force(version, at_ms)
        day = local_day(version.timezone, at_ms)
        first = days_of(found.versions).first_from(day)
        if first == day:
            return at_ms
        until_ms = found.until_ms
        if first is None:
            return until_ms
        # Clocks that are set back at midnight show a day's first minute before its eve's last.
        first_ms = max(start_of_day_ms(version.timezone, first), at_ms + 1)
        return first_ms if until_ms is None else min(first_ms, until_ms)

    def open_until(self, version: ScheduleVersion, at_ms: int) -> int | None:
        """The same, backwards: the last instant up to ``at_ms``."""
        for pause in self.pauses:
            for interval in pause.intervals if pause is not None else ():
                since_ms = ms_of(interval.since)
                if since_ms <= at_ms and (interval.until is None or at_ms < ms_of(interval.until)):
                    return since_ms - 1
        if not version.calendars:
            return at_ms
        found = self._in_force(version, at_ms)
        day = local_day(version.timezone, at_ms)
        last = days_of(found.versions).last_until(day)
        if last == day:
            return at_ms
        before_ms = None if found.since_ms == _BEGIN_MS else found.since_ms - 1
        if last is None:
            return before_ms
        last_ms = min(start_of_day_ms(version.timezone, last + 1), at_ms) - 1
        return last_ms if before_ms is None else max(last_ms, before_ms)

    def _in_force(self, version: ScheduleVersion, at_ms: int) -> _InForce:
        versions: list[CalendarVersion] = []
        since_ms: int = _BEGIN_MS
        until_ms: int | None = None
        for name in version.calendars:
            calendar, current = self.calendars.get(name), None
            for each in calendar.versions if calendar is not None else ():
                each_ms = ms_of(each.since)
                if each_ms > at_ms:
                    until_ms = each_ms if until_ms is None else min(until_ms, each_ms)
                    break
                current, since_ms = each, max(since_ms, each_ms)
            if current is not None:
                versions.append(current)
        return _InForce(tuple(versions), since_ms, until_ms)


NO_LIMITS: Final = Limits()


def calendars_of(job: Job) -> list[str]:
    """The calendars that any version of the job names."""
    if len(job.versions) == 1:
        return list(job.current.calendars)
    return list(dict.fromkeys(name for version in job.versions for name in version.calendars))
