"""What is odd about jobs' schedules, commands and chains, though nothing is wrong with them.

*Dead*: never due any more, or not for more than a year. *Clock changes*: a fixed hour that a change
of the zone's clocks skips or shows twice. *Shells*: a parameter's ``{name}``, which only ``exec``
replaces. *Splays*: as long as it is from one tick to the next. *Chains*: a target whose state never
lets it run for one, a join that waits for nobody, or in vain.
*Stampedes*: many jobs due at one instant.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice, pairwise
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec.structs import replace

from etcsched.core.durations import format_duration
from etcsched.core.limits import Limits
from etcsched.core.records import Calendar, Job, Shell
from etcsched.core.schedule import At, Cron, Pattern, schedule_of
from etcsched.core.schedule.cron import parse_cron
from etcsched.core.schedule.zone import period_at
from etcsched.core.states import JobState, Overlap
from etcsched.core.timeline import next_tick
from etcsched.core.times import ms_of, utc_of
from etcsched.jobfile.chains import idle_targets, lone_joins, parted_joins
from etcsched.jobfile.writing import pattern_text

__all__ = ["STAMPEDE_JOBS", "lint"]

STAMPEDE_JOBS: Final = 20
"""At one instant; as many as a handful of agents have slots."""
_YEAR_S: Final = 366 * 86_400
_CLOCKS_S: Final = 2 * _YEAR_S
"""So far ahead changes of clocks are looked for."""
_DAY_MS: Final = 86_400_000
_MOST_TICKS: Final = 1500
"""Of one schedule: those of a day by the minute."""
_MOST_LOOKS: Final = 60_000
"""At ticks of a day, of all schedules together, which takes a second or two; those that most jobs
share are looked at first."""
_NAMED: Final = 3
_TICKS_APART: Final = 50
"""So many are looked at for the least time between two."""


def lint(
    jobs: Sequence[Job],
    calendars: Mapping[str, Calendar],
    now_ms: int,
    changed: Collection[str] | None = None,
    others: Mapping[str, Job] = MappingProxyType({}),
) -> list[str]:
    """A line for each. ``jobs`` are as files have them, of one version; ``others`` are what the
    cluster has, which they may chain to. Only what concerns jobs in ``changed`` is said (None:
    all). A calendar that isn't given says nothing."""
    found: list[str] = []
    for job in jobs:
        if changed is None or job.name in changed:
            found += [f"{job.name}: {text}" for text in _dead(job, calendars, now_ms)]
            found += [f"{job.name}: {text}" for text in _clocks(job, now_ms)]
            found += [f"{job.name}: {text}" for text in _literal_params(job)]
            found += [f"{job.name}: {text}" for text in _splay(job, now_ms)]
    found += _chains({**others, **{job.name: job for job in jobs}}, changed)
    return found + _stampedes(jobs, now_ms, changed)


# --- dead


def _dead(job: Job, calendars: Mapping[str, Calendar], now_ms: int) -> Iterator[str]:
    limits = Limits(calendars={name: calendars[name] for name in _known(job, calendars)})
    current = job.current
    for number, window in enumerate(current.windows):
        if ms_of(window.until) <= now_ms:
            yield f"windows[{number}] was over at {window.until[:19]}Z; take it out"
    if current.state is JobState.ENABLED:
        for pattern in current.patterns:
            alone = replace(job, versions=(replace(current, patterns=(pattern,), windows=()),))
            yield from _dead_pattern(alone, pattern, limits, now_ms)
    elif not any(window.state is JobState.ENABLED for window in current.windows):
        return
    if current.windows and next_tick(job, limits, now_ms) is None:
        yield "schedule: never due, as its windows and calendars have it"


def _dead_pattern(job: Job, pattern: Pattern, limits: Limits, now_ms: int) -> Iterator[str]:
    what = f"schedule: {_named(pattern)}"
    tick_ms = anyway_ms = schedule_of((pattern,), job.current.timezone).next_after(now_ms)
    if job.current.calendars:
        tick_ms = next_tick(job, limits, now_ms)
    if tick_ms is None and isinstance(pattern, At) and ms_of(pattern.time) <= now_ms:
        yield f"{what} has passed"
    elif anyway_ms is None:
        yield f"{what} is never due: ticks end with the year 9000"
    elif tick_ms is None:
        yield f"{what} is never due: its calendars ({', '.join(job.current.calendars)}) forbid it"
    elif tick_ms - now_ms > _YEAR_S * 1000 and isinstance(pattern, Cron):
        yield f"{what} isn't due before {utc_of(tick_ms)[:10]}"


def _known(job: Job, calendars: Mapping[str, Calendar]) -> list[str]:
    return [name for name in job.current.calendars if name in calendars]


def _named(pattern: Pattern) -> str:
    return f"cron {pattern.expression!r}" if isinstance(pattern, Cron) else pattern_text(pattern)


# --- changes of the clocks


class _Change(msgspec.Struct, frozen=True):
    """Wall times in [``from_s``, ``to_s``) are skipped, or else shown twice."""

    at_s: int
    from_s: int
    to_s: int
    is_gap: bool


def _clocks(job: Job, now_ms: int) -> Iterator[str]:
    current = job.current
    if current.state is not JobState.ENABLED:
        return
    for pattern in current.patterns:
        if not isinstance(pattern, Cron):
            continue
        said = _trap(pattern.expression, current.timezone, now_ms // 1000 // 86_400)
        if said:
            yield f"schedule: {_named(pattern)} in {current.timezone}: {said}"


@lru_cache(maxsize=4096)
def _trap(expression: str, timezone: str, day: int) -> str:
    """What the next gap and the next repeated hour that it falls into do to it."""
    cron = parse_cron(expression)
    if cron.elapsed:
        return ""  # It means elapsed time.
    gap = fold = ""
    for change in _changes(timezone, day * 86_400):
        wall_s = cron.first(change.from_s)
        if wall_s is None or wall_s >= change.to_s:
            continue
        shown = f"{_wall(wall_s):%Y-%m-%d} {_wall(wall_s):%H:%M}"
        if change.is_gap and not gap:
            gap = f"{shown} is skipped by the clocks, it is due at {_wall(change.to_s):%H:%M} then"
        elif not change.is_gap and not fold:
            fold = f"{shown} comes twice, it is due the first time only"
    return "; ".join(filter(None, [gap, fold]))


@lru_cache(maxsize=256)
def _changes(timezone: str, from_s: int) -> tuple[_Change, ...]:
    found = []
    period = period_at(timezone, from_s)
    while period.end_s < from_s + _CLOCKS_S:
        after = period_at(timezone, period.end_s)
        before_wall_s, after_wall_s = (
            period.end_s + period.offset_s,
            period.end_s + after.offset_s,
        )
        if before_wall_s != after_wall_s:
            low, high = sorted((before_wall_s, after_wall_s))
            found.append(_Change(period.end_s, low, high, after_wall_s > before_wall_s))
        period = after
    return tuple(found)


def _wall(wall_s: int) -> datetime:
    return datetime.fromtimestamp(wall_s, UTC)


# --- shells


def _literal_params(job: Job) -> Iterator[str]:
    """``${name}`` is the shell's own."""
    if not isinstance(job.run, Shell):
        return
    for name in job.params:
        if re.search(rf"(?<!\$)\{{{name}\}}", job.run.command):
            yield (
                f"run: a shell gets {{{name}}} as it stands; write $ETCSCHED_PARAM_{name.upper()}"
            )


# --- splays


def _splay(job: Job, now_ms: int) -> Iterator[str]:
    """A run that waits for its splay is active, so the next tick meets it."""
    current = job.current
    if not job.splay_s or job.overlap not in (Overlap.SKIP, Overlap.REPLACE):
        return
    if current.state is not JobState.ENABLED or not current.patterns:
        return
    schedule = schedule_of(current.patterns, current.timezone)
    ticks = list(islice(schedule.ticks(now_ms, now_ms + _DAY_MS), _TICKS_APART))
    apart_s = min((b - a for a, b in pairwise(ticks)), default=_DAY_MS) / 1000
    if job.splay_s >= apart_s:
        yield (
            f"splay: {format_duration(job.splay_s)} is as long as its ticks are apart "
            f"({format_duration(apart_s)}) or longer, and with overlap: {job.overlap.value} a tick "
            "is lost where the one before still waits for its splay; shorten it, or take overlap: "
            "queue"
        )


# --- chains


def _chains(jobs: Mapping[str, Job], changed: Collection[str] | None) -> Iterator[str]:
    for source, target in idle_targets(jobs):
        if changed is None or {source.name, target.name} & set(changed):
            yield (
                f"{source.name}: chain: {target.name} is {target.current.state.value}, so nothing "
                "follows there until its state is enabled or chain_active"
            )
    for source, to in lone_joins(jobs):
        if changed is None or source.name in changed:
            yield (
                f"{source.name}: chain: require: all waits for nobody, since no other job joins "
                f"at {to}"
            )
    for source, to, other in parted_joins(jobs):
        if changed is None or {source.name, other.name} & set(changed):
            yield (
                f"{source.name}: chain: require: all waits at {to} for {other.name} in vain: "
                f"per_host begins a chain on each agent, and {other.name} is in none of them"
            )


# --- stampedes


def _stampedes(jobs: Sequence[Job], now_ms: int, changed: Collection[str] | None) -> list[str]:
    """The worst instant of the coming day, if it is one."""
    sharing: defaultdict[tuple[tuple[Pattern, ...], str], list[str]] = defaultdict(list)
    for job in jobs:
        current = job.current
        if current.state is JobState.ENABLED and current.patterns and not job.splay_s:
            sharing[(current.patterns, current.timezone)].append(job.name)
    if sum(len(names) for names in sharing.values()) < STAMPEDE_JOBS:
        return []
    due: defaultdict[int, int] = defaultdict(int)
    looks = 0
    ranked = sorted(sharing.items(), key=lambda item: -len(item[1]))
    for (patterns, timezone), names in ranked:
        if looks >= _MOST_LOOKS:
            break
        ticks = schedule_of(patterns, timezone).ticks(now_ms, now_ms + _DAY_MS)
        for tick_ms in islice(ticks, _MOST_TICKS):
            due[tick_ms] += len(names)
            looks += 1
    worst_ms = min(due, key=lambda tick_ms: (-due[tick_ms], tick_ms), default=0)
    if not due or due[worst_ms] < STAMPEDE_JOBS:
        return []
    there = sorted(
        name
        for (patterns, timezone), names in ranked
        if schedule_of(patterns, timezone).next_after(worst_ms - 1) == worst_ms
        for name in names
    )
    if changed is not None and not set(there) & set(changed):
        return []
    more = len(there) - _NAMED
    others = sum(1 for count in due.values() if count >= STAMPEDE_JOBS) - 1
    again = f", and likewise at {others} more instants within a day" if others else ""
    return [
        f"{len(there)} jobs are due at {utc_of(worst_ms)[:19]}Z ({', '.join(there[:_NAMED])} and "
        f"{more} more){again}; a splay spreads them"
    ]
