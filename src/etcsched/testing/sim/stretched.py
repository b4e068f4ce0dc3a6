"""A scenario at the pace of everyday: what is a matter of seconds in the ones that are drawn takes
minutes or hours, while leases, elections and clocks go as fast as ever.

Where ticks come every ten seconds and each fault lasts as long, a whole recovery fits between two
of them, and nothing is ever a day old. What an hour's or a day's distance does, to histories that
are pruned, buffers that end in the middle of an outage, windows, retries and calendars, shows here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from etcsched.core.records import Action, Calendar, Exec, Job, Retry, ScheduleVersion, Window
from etcsched.core.schedule import At, Cron, Every, Pattern
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.testing.sim.scenario import Act, FaultPlan, Scenario

__all__ = ["stretched"]

T = TypeVar("T")

_CRONS = {
    # as drawn: in minutes, in hours
    "*/10 * * * * *": ("*/10 * * * *", "0 */4 * * *"),
    "*/15 * * * * *": ("*/15 * * * *", "0 */6 * * *"),
    "*/20 * * * * *": ("*/20 * * * *", "0 */8 * * *"),
    "*/30 * * * * *": ("*/30 * * * *", "0 */12 * * *"),
    "15 * * * * *": ("15 * * * *", "0 6 * * *"),
    "24-50/2 * * * * *": ("24-50/2 * * * *", "0 10-20 * * *"),
    "0-30/15 * * * * *": ("0-30/15 * * * *", "30 0-12/6 * * *"),
    "* * * * *": ("0 * * * *", "0 0 * * *"),
    "*/2 * * * *": ("0 */2 * * *", "0 0 * * 1-5"),
    "*/5 * * * *": ("0 */5 * * *", "0 0 L * *"),
}
_BEGUN_S = 3.0
"""By then the nodes are there, and the first jobs and calendars applied: as fast as ever."""
_IN_HOURS = 600
"""From here on, crons count in hours, and sessions are long, as they are where nobody hurries."""
_LONG_SESSION_S = 60
_BRIEF_SHARE = 0.4
"""Of faults, that last as long as in a fast scenario."""
_MOST_DRIFT_S = 4.0
"""... of a clock in one fault. Hosts set their clocks right by and by; these don't."""


def stretched(scenario: Scenario, by: int) -> Scenario:
    """``by``: 60 turns seconds into minutes, 3,600 into hours; 1 leaves it as it is."""
    return scenario if by == 1 else _Stretch(scenario, by).whole()


class _Stretch:
    def __init__(self, scenario: Scenario, by: int) -> None:
        self._scenario = scenario
        self._by = by
        self._start_ms = ms_of(Utc(scenario.start))
        self._chance = random.Random(f"stretched {scenario.seed}")

    def whole(self) -> Scenario:
        before = self._scenario
        ttl_s = {} if self._by < _IN_HOURS else {"ttl_s": _LONG_SESSION_S}
        return replace(
            before,
            faulty_s=before.faulty_s * self._by,
            stretch=self._by,
            schedulers=tuple(replace(plan, **ttl_s) for plan in before.schedulers),
            agents=tuple(replace(plan, **ttl_s) for plan in before.agents),
            jobs=tuple(map(self._job, before.jobs)),
            acts=tuple(map(self._act, before.acts)),
            faults=tuple(map(self._fault, before.faults)),
        )

    def _at_s(self, at_s: float) -> float:
        """What begins the cluster does so as ever; of anything else, how far it is from a whole
        second stays."""
        if at_s <= _BEGUN_S:
            return at_s
        whole_s = round(at_s)
        return whole_s * self._by + (at_s - whole_s)

    def _time(self, at: Utc) -> Utc:
        later_ms = ms_of(at) - self._start_ms
        return utc_of(self._start_ms + later_ms * self._by) if later_ms > 0 else at

    def _act(self, act: Act) -> Act:
        return replace(
            act,
            at_s=self._at_s(act.at_s),
            job=_each(act.job, self._job),
            calendar=_each(act.calendar, self._calendar),
        )

    def _fault(self, plan: FaultPlan) -> FaultPlan:
        by = 1 if self._chance.random() < _BRIEF_SHARE else self._by
        amount = plan.amount
        if plan.kind == "clock rate":
            most = _MOST_DRIFT_S / (plan.for_s * by)
            amount = max(-most, min(most, amount))
        return replace(plan, at_s=self._at_s(plan.at_s), for_s=plan.for_s * by, amount=amount)

    def _job(self, job: Job) -> Job:
        by = self._by
        return replace(
            job,
            run=self._action(job.run),
            versions=tuple(map(self._version, job.versions)),
            retry=self._retry(job.retry),
            keep=replace(job.keep, age_s=min(job.keep.age_s * by, 86_400.0 * 365)),
            pickup_buffer_s=job.pickup_buffer_s * by,
            recover_within_s=job.recover_within_s * by,
            timeout_s=_each(job.timeout_s, self._duration),
            disconnect_grace_s=job.disconnect_grace_s * self._chance.choice([1, by]),
            splay_s=job.splay_s * by,
        )

    def _duration(self, lasts_s: float) -> float:
        return lasts_s * self._by

    def _action(self, action: Action) -> Action:
        if not isinstance(action, Exec):
            return action
        name, takes_s, *others = action.argv
        return Exec((name, str(float(takes_s) * self._chance.choice([1, self._by])), *others))

    def _retry(self, retry: Retry) -> Retry:
        return replace(
            retry,
            interval_s=self._duration(retry.interval_s),
            cap_s=_each(retry.cap_s, self._duration),
            jitter_s=self._duration(retry.jitter_s),
        )

    def _version(self, version: ScheduleVersion) -> ScheduleVersion:
        return replace(
            version,
            since=self._time(Utc(version.since)),
            patterns=tuple(map(self._pattern, version.patterns)),
            windows=tuple(map(self._window, version.windows)),
        )

    def _window(self, window: Window) -> Window:
        return replace(
            window,
            since=self._time(window.since),
            until=self._time(window.until),
            patterns=_each(window.patterns, lambda ps: tuple(map(self._pattern, ps))),
        )

    def _pattern(self, pattern: Pattern) -> Pattern:
        match pattern:
            case Every():
                return Every(pattern.interval_s * self._by, pattern.anchor)
            case At():
                return At(_whole(self._time(pattern.time)))
            case Cron():
                minutes, hours = _CRONS.get(
                    pattern.expression, (pattern.expression, pattern.expression)
                )
                return Cron(minutes if self._by < _IN_HOURS else hours)

    def _calendar(self, calendar: Calendar) -> Calendar:
        versions = (replace(v, since=self._time(v.since)) for v in calendar.versions)
        return replace(calendar, versions=tuple(versions))


def _whole(at: Utc) -> Utc:
    return utc_of(ms_of(at) // 1000 * 1000)


def _each(value: T | None, change: Callable[[T], T]) -> T | None:
    """... that there is."""
    return None if value is None else change(value)
