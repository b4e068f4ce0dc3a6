"""What becomes of the ticks of an outage (SEMANTICS, recovery of missed ticks).

Pure: a job, its limits and an interval in; what runs and what is recorded as missed out. Nothing
here costs more than what it returns: a long outage is summarised in steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from etcsched.core.limits import Limits
from etcsched.core.missed import MAX_STEPS, Steps, extended
from etcsched.core.records import Job
from etcsched.core.splay import longest_delay_ms
from etcsched.core.states import Recovery
from etcsched.core.timeline import ticks

MAX_TICKS_PER_STEP = 5_000
MAX_RUNS_PER_STEP = 16
MAX_NAMES_BYTES = 512 << 10
"""Of the agents that one step's fan-outs name: it is one transaction."""


class Plan(msgspec.Struct, frozen=True):
    """``chosen``: the missed ticks that run. Ticks from ``late_from_ms`` through ``now_ms`` are
    late only: they run in the ordinary way. All others up to ``through_ms`` are recorded as missed;
    so are those later than now, which only a watermark that a wrong clock took ahead has passed."""

    chosen: frozenset[int]
    late_from_ms: int
    now_ms: int
    through_ms: int


class Stretch(msgspec.Struct, frozen=True):
    """Successive missed ticks, both ends included, and how far apart they are."""

    first_ms: int
    last_ms: int
    count: int
    steps: Steps = ()


class Step(msgspec.Struct, frozen=True):
    """Decides all ticks up to ``through_ms``; ``first_ms`` is the first of them."""

    through_ms: int
    chosen: tuple[int, ...]
    late: tuple[int, ...]
    missed: tuple[Stretch, ...]
    first_ms: int | None


def plan(job: Job, limits: Limits, after_ms: int, now_ms: int, can_start: bool) -> Plan:
    """For the outage's ticks in (after, now]. A job that mustn't start now recovers nothing."""
    if not can_start:
        return Plan(frozenset(), now_ms + 1, now_ms, now_ms)
    late_from_ms = now_ms - int(job.pickup_buffer_s * 1000) - longest_delay_ms(job)
    oldest_ms = max(after_ms, now_ms - int(job.recover_within_s * 1000) - 1)
    match job.recovery:
        case Recovery.NONE | Recovery.CONFLICTED:
            wanted = 0
        case Recovery.LAST:
            late = next(ticks(job, limits, max(after_ms, late_from_ms - 1), now_ms), None)
            wanted = 0 if late is not None else 1
        case Recovery.ALL:
            wanted = job.catch_up_limit
    chosen = newest(job, limits, oldest_ms, late_from_ms - 1, wanted)
    return Plan(frozenset(chosen), late_from_ms, now_ms, now_ms)


def newest(job: Job, limits: Limits, after_ms: int, through_ms: int, count: int) -> list[int]:
    """The newest ``count`` ticks in (after, through], ascending, without listing all of them."""
    if count <= 0 or after_ms >= through_ms:
        return []
    span_ms = 60_000
    while True:
        begin_ms = max(after_ms, through_ms - span_ms)
        found = list(ticks(job, limits, begin_ms, through_ms))
        if len(found) >= count or begin_ms == after_ms:
            return found[-count:]
        span_ms *= 4


def most_runs(agents: Iterable[str]) -> int:
    """That one step begins, where each of them is one for each of these agents."""
    each_bytes = sum(len(agent) + 3 for agent in agents)
    return max(1, min(MAX_RUNS_PER_STEP, MAX_NAMES_BYTES // max(1, each_bytes)))


def next_step(
    job: Job,
    limits: Limits,
    whole: Plan,
    after_ms: int,
    most_ticks: int = MAX_TICKS_PER_STEP,
    most_runs: int = MAX_RUNS_PER_STEP,
) -> Step:
    """The first part of what is left of a plan after ``after_ms``."""
    first_ms: int | None = None
    chosen: list[int] = []
    late: list[int] = []
    missed: list[Stretch] = []
    extends = False
    for seen, tick_ms in enumerate(ticks(job, limits, after_ms, whole.through_ms)):
        is_full = bool(missed) and len(missed[-1].steps) == MAX_STEPS
        if seen == most_ticks or len(chosen) + len(late) == most_runs or is_full:
            return Step(tick_ms - 1, tuple(chosen), tuple(late), tuple(missed), first_ms)
        if seen == 0:
            first_ms = tick_ms
        if tick_ms in whole.chosen:
            chosen.append(tick_ms)
            extends = False
        elif whole.late_from_ms <= tick_ms <= whole.now_ms:
            late.append(tick_ms)
            extends = False
        elif extends:
            last = missed.pop()
            steps = extended(last.steps, tick_ms - last.last_ms)
            missed.append(Stretch(last.first_ms, tick_ms, last.count + 1, steps))
        else:
            missed.append(Stretch(tick_ms, tick_ms, 1))
            extends = True
    return Step(whole.through_ms, tuple(chosen), tuple(late), tuple(missed), first_ms)


def is_chosen(job: Job, newer: int, *, is_latest: bool, is_recent: bool) -> bool:
    """Whether a run that waited when the outage began, and whose buffer ended in it, runs now.

    ``newer`` missed ticks run; ``is_latest``: no later tick of the job runs or waits, missed or
    not; ``is_recent``: within ``recover_within``.
    """
    match job.recovery:
        case Recovery.NONE | Recovery.CONFLICTED:
            return False
        case Recovery.LAST:
            return is_latest and is_recent
        case Recovery.ALL:
            return is_recent and newer < job.catch_up_limit
