"""Pairs of features that meet seldom where each is drawn by itself, and have met in real faults.

They are drawn apart from everything else: what a seed had before it has still.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec.structs import replace

from etcsched.core.records import Job, Link
from etcsched.core.states import Lifecycle, Overlap, Recovery
from etcsched.core.times import Utc
from etcsched.testing.sim.jobs import random_link, random_pattern, random_retry
from etcsched.testing.sim.scenario import Scenario

_SHARE = 0.2
"""Of all scenarios, that have one of these."""


def with_meetings(chance: random.Random, scenario: Scenario) -> Scenario:
    if chance.random() >= _SHARE:
        return scenario
    meet, start = chance.choice(_MEETINGS), Utc(scenario.start)
    return replace(scenario, jobs=tuple(meet(chance, start, job) for job in scenario.jobs))


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


_MEETINGS: tuple[Callable[[random.Random, Utc, Job], Job], ...] = (
    _chained_twice, _chained_for_each_host, _at_startups_too, _overlapping,
)  # fmt: skip
