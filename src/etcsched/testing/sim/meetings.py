"""Pairs of features that meet seldom where each is drawn by itself, and have met in real faults.

They are drawn apart from everything else: what a seed had before it has still.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec.structs import replace

from etcsched.core.records import ConflictGroup, Job, Link
from etcsched.core.states import JobState, Lifecycle, Overlap, Recovery, RunState
from etcsched.core.times import Utc
from etcsched.testing.sim.jobs import (
    GROUPS,
    random_link,
    random_pattern,
    random_retry,
    random_window,
)
from etcsched.testing.sim.scenario import Act, Scenario

_SHARE = 0.3
"""Of all scenarios, that have one of these."""


def with_meetings(chance: random.Random, scenario: Scenario) -> Scenario:
    if chance.random() >= _SHARE:
        return scenario
    meet, start = chance.choice(_MEETINGS), Utc(scenario.start)
    jobs = tuple(meet(chance, start, job) for job in scenario.jobs)
    if chance.random() < 0.4:
        jobs = _at_one_instant(chance, start, jobs)
    scenario = replace(scenario, jobs=jobs)
    return _in_one_group(chance, scenario) if chance.random() < 0.3 else scenario


def _at_one_instant(chance: random.Random, start: Utc, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
    """All are due at the same times: who goes first is the question."""
    pattern = random_pattern(chance, start)
    return tuple(
        replace(job, versions=(*before, replace(last, patterns=(pattern,))))
        for job in jobs
        for *before, last in [job.versions]
    )


def _in_one_group(chance: random.Random, scenario: Scenario) -> Scenario:
    names = [job.name for job in scenario.jobs]
    group = ConflictGroup(group=GROUPS[0], jobs=tuple(chance.sample(names, len(names))))
    act = Act(at_s=1.5, kind="apply group", target=group.group, group=group)
    others = tuple(each for each in scenario.acts if each.kind != "apply group")
    return replace(scenario, acts=tuple(sorted((*others, act), key=lambda each: each.at_s)))


def _chained_twice(chance: random.Random, start: Utc, job: Job) -> Job:
    """Several links to one job."""
    again: list[Link] = []
    for link in job.chain:
        again += (random_link(chance, link.to) for _ in range(chance.choice([1, 1, 2])))
    return replace(job, chain=(*job.chain, *again))


def _chained_for_each_host(chance: random.Random, start: Utc, job: Job) -> Job:
    """Runs of a job that are bound to an agent, and others beside them."""
    overlap = chance.choice(list(Overlap))
    return replace(job, per_host=chance.random() < 0.6, overlap=overlap)


def _at_startups_too(chance: random.Random, start: Utc, job: Job) -> Job:
    """Ticks, and runs for the coming and going of agents."""
    (*before, last) = job.versions
    if job.lifecycle is Lifecycle.NONE:
        return job
    version = replace(last, patterns=(random_pattern(chance, start),))
    return replace(job, versions=(*before, version), overlap=chance.choice(list(Overlap)))


def _overlapping(chance: random.Random, start: Utc, job: Job) -> Job:
    """Runs that needn't wait for each other, unless they catch up."""
    retry = random_retry(chance)
    return replace(job, overlap=Overlap.ALLOW, recovery=Recovery.ALL, retry=retry)


def _stopped_by_windows(chance: random.Random, start: Utc, job: Job) -> Job:
    """While faults last."""
    *before, last = job.versions
    window = replace(random_window(chance, start), state=JobState.DISABLED, patterns=None)
    version = replace(last, windows=(window,))
    return replace(job, versions=(*before, version), recovery=chance.choice(list(Recovery)))


def _chaining_what_was_dropped(chance: random.Random, start: Utc, job: Job) -> Job:
    chain = tuple(
        replace(link, on=(*link.on, RunState.OVERLAPPED))
        for link in job.chain
        if RunState.OVERLAPPED not in link.on
    )
    return replace(job, chain=chain or job.chain, overlap=Overlap.SKIP)


_MEETINGS: tuple[Callable[[random.Random, Utc, Job], Job], ...] = (
    _chained_twice, _chained_for_each_host, _at_startups_too, _overlapping, _stopped_by_windows,
    _chaining_what_was_dropped,
)  # fmt: skip
