"""Pairs of features that meet seldom where each is drawn by itself, and have met in real faults.

They are drawn apart from everything else: what a seed had before it has still.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec.structs import replace

from etcsched.core.records import (
    CLUSTER,
    Action,
    ConflictGroup,
    Exec,
    Job,
    Link,
    Noop,
    ScheduleVersion,
    Window,
)
from etcsched.core.retry import RETRIED
from etcsched.core.schedule import Every
from etcsched.core.states import JobState, Lifecycle, Overlap, Recovery, RunState
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.testing.sim.jobs import (
    CALENDARS,
    GROUPS,
    random_calendar,
    random_link,
    random_pattern,
    random_retry,
    random_window,
)
from etcsched.testing.sim.scenario import Act, FaultPlan, Scenario

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
    if chance.random() >= 0.3:
        return scenario
    scenario = _in_one_group(chance, scenario)
    return _contending(chance, scenario) if chance.random() < 0.5 else scenario


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


def _contending(chance: random.Random, scenario: Scenario) -> Scenario:
    """All are due so often, and wait so long, that many of the group are blocked at once; and
    agents have slots for them, so that nothing but the group keeps them."""
    anchor = utc_of(ms_of(Utc(scenario.start)) // 1000 * 1000)
    jobs: list[Job] = []
    for job in scenario.jobs:
        *before, last = job.versions
        pattern = Every(chance.choice([2, 3, 5, 8, 13]), anchor)
        takes_s = chance.choice(["1.0", "2.0", "3.0", "6.0"])
        job = replace(
            job,
            run=Exec(("sim", takes_s, "0", "obeys")),
            versions=(*before, replace(last, patterns=(pattern,))),
            overlap=chance.choice([Overlap.ALLOW, Overlap.ALLOW, Overlap.SKIP, Overlap.QUEUE]),
            recovery=chance.choice([Recovery.CONFLICTED, Recovery.CONFLICTED, Recovery.LAST]),
            pickup_buffer_s=chance.choice([30.0, 60.0]),
            per_host=job.per_host and chance.random() < 0.5,
        )
        jobs.append(job)
    agents = [replace(agent, slots=max(agent.slots, 4)) for agent in scenario.agents]
    return replace(scenario, jobs=tuple(jobs), agents=tuple(agents))


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


# --- agents that decline, jobs that come to run on each agent

_DECLINING_SHARE = 0.1
_MOVED_SHARE = 0.1


def with_declines(chance: random.Random, scenario: Scenario) -> Scenario:
    """Some hosts lack the users that jobs run as, for a while."""
    if chance.random() >= _DECLINING_SHARE:
        return scenario
    faults = [*scenario.faults]
    hosts = [agent.host for agent in scenario.agents]
    for host in chance.sample(hosts, chance.randint(1, len(hosts))):
        at_s = chance.uniform(3.0, max(4.0, scenario.faulty_s - 20.0))
        faults.append(_fault(at_s, "users gone", host, chance.choice([5.0, 20.0, 90.0]), 0.0))
    return replace(scenario, faults=tuple(sorted(faults, key=lambda plan: plan.at_s)))


def with_moves_to_each_host(chance: random.Random, scenario: Scenario) -> Scenario:
    """Jobs that are edited to run on each agent, or no more so, while runs of them go on; and are
    asked for beside that."""
    if chance.random() >= _MOVED_SHARE:
        return scenario
    acts = [*scenario.acts]
    for job in chance.sample(scenario.jobs, min(len(scenario.jobs), chance.choice([1, 1, 2]))):
        per_host, at_s = job.per_host, chance.uniform(6.0, max(7.0, scenario.faulty_s - 20.0))
        for _ in range(chance.choice([1, 2, 3])):
            per_host = not per_host
            edited = replace(job, per_host=per_host, lifecycle=Lifecycle.NONE)
            acts.append(Act(at_s=round(at_s, 4), kind="apply", target=job.name, job=edited))
            if chance.random() < 0.5:
                moment_s = round(at_s + chance.choice([-2.0, 0.5, 3.0]), 4)
                acts.append(Act(at_s=moment_s, kind="trigger", target=job.name))
            at_s = min(scenario.faulty_s, at_s + chance.uniform(0.5, 40.0))
    return replace(scenario, acts=tuple(sorted(acts, key=lambda act: act.at_s)))


# --- moments: what happens within milliseconds, or between two of a leader's writes

_MOMENTS_SHARE = 0.12
_OFF_SHARE = 0.08
"""... and of all scenarios, in which operators' clock is off."""

_EDITS = ("pause", "resume", "pause cluster", "resume cluster", "disable", "enable",
          "apply calendar", "delete calendar", "drain", "undrain")  # fmt: skip
_UNDONE = {"pause": "resume", "pause cluster": "resume cluster", "disable": "enable",
           "drain": "undrain"}  # fmt: skip


def with_moments(chance: random.Random, scenario: Scenario) -> Scenario:
    """Drawn apart from everything else, likewise."""
    if chance.random() < _OFF_SHARE:
        off_s = chance.choice([-2.0, -1.5, -0.7, 0.7, 1.5, 2.0])
        scenario = replace(scenario, operators_off_s=off_s)
    if chance.random() < _MOMENTS_SHARE:
        scenario = chance.choice(_MOMENTS)(chance, scenario)
    faults = tuple(sorted(scenario.faults, key=lambda plan: plan.at_s))
    acts = tuple(sorted(scenario.acts, key=lambda act: act.at_s))
    return replace(scenario, faults=faults, acts=acts)


def _by_the_second(chance: random.Random, scenario: Scenario) -> Scenario:
    """Ticks so close that some meet each takeover, and each step of a recovery; and windows whose
    edges do. Between two steps, agents go, the leader dies, or something is edited."""
    start, (first, *others) = Utc(scenario.start), scenario.jobs
    first = replace(
        first,
        run=Exec(("sim", chance.choice(["0.01", "0.01", "1.0", "30.0"]), "0", "obeys")),
        versions=(_version_by_the_second(chance, start),),
        recovery=chance.choice(list(Recovery)),
        pickup_buffer_s=chance.choice([0.0, 1.0, 5.0]),
        catch_up_limit=chance.choice([1, 5, 40]),
        overlap=chance.choice(list(Overlap)),
        per_host=chance.random() < 0.4,
        lifecycle=Lifecycle.NONE,
        hosts=(), require={}, user="", splay_s=0.0,
    )  # fmt: skip
    faults, acts = [*scenario.faults], [*scenario.acts]
    if chance.random() < 0.3 and len(scenario.schedulers) > 1:
        name, ahead_s = scenario.schedulers[0].name, chance.choice([-1.9, 1.5, 1.9])
        for_s = scenario.faulty_s - 3.0
        faults.append(_fault(2.5, "clock stepped", name, for_s, ahead_s))
    for _ in range(chance.choice([1, 2, 3])):
        at_s = chance.uniform(10.0, max(11.0, scenario.faulty_s - 20.0))
        if chance.random() < 0.7:  # While a tick is being decided, and the watermark stands at it.
            into_s = chance.choice([0.0, 0.002, 0.004, 0.006, 0.008, 0.012])
            at_s = round(at_s) - ms_of(start) % 1000 / 1000 + into_s
        away_s = chance.uniform(0.2, 15.0)
        kind = chance.choice(
            ["scheduler killed", "scheduler stopped", "etcd down", "agents go at write"]
        )
        target = {"agents go at write": "agents", "etcd down": ""}.get(kind, "leader")
        if kind == "scheduler stopped":  # The next one takes over right before a tick, or after it.
            at_s = round(at_s) - (ms_of(start) % 1000 + chance.randint(4, 12)) / 1000
        faults.append(_fault(at_s, kind, target, away_s, 1.0 if target == "agents" else 0.0))
        again_s = at_s + (away_s if target != "leader" else 0.05)
        for _ in range(chance.choice([1, 1, 2])):
            count = chance.choice([1, 1, 2, 2, 3, 4, 6, 9])
            if chance.random() < 0.5:
                acts += _edit(chance, scenario, first.name, again_s, count)
                continue
            kind = chance.choice(
                ["agents go at write", "presences go at write", "leader killed at write"]
            )
            target = "leader" if kind.startswith("leader") else "agents"
            faults.append(_fault(again_s, kind, target, chance.uniform(1.0, 15.0), count))
    return replace(scenario, jobs=(first, *others), faults=tuple(faults), acts=tuple(acts))


def _version_by_the_second(chance: random.Random, start: Utc) -> ScheduleVersion:
    """Windows change at etcd's half seconds, where leaders and agents come and go, or some
    milliseconds later."""
    anchor = utc_of(ms_of(start) // 1000 * 1000)
    states = [JobState.ENABLED, JobState.DISABLED]
    if chance.random() < 0.5:
        states.reverse()
    windows, at_ms = [], ms_of(start) + 500 * chance.randint(10, 40)
    for _ in range(chance.choice([0, 1, 4, 20])):
        until_ms = at_ms + 500 * chance.choice([1, 2, 3, 4, 20]) + chance.randint(0, 12)
        windows.append(Window(since=utc_of(at_ms), until=utc_of(until_ms), state=states[1]))
        at_ms = until_ms + 500 * chance.choice([1, 2, 3, 4, 20])
    return ScheduleVersion(
        since=start,
        state=states[0] if windows else JobState.ENABLED,
        patterns=(Every(chance.choice([1, 1, 2, 4]), anchor),),
        calendars=chance.choice([(), (), CALENDARS[:1]]),
        windows=tuple(windows),
    )


def _edit(
    chance: random.Random, scenario: Scenario, job: str, at_s: float, count: int
) -> list[Act]:
    kind, at_s = chance.choice(_EDITS), round(at_s, 4)
    target, calendar = job, None
    if kind.endswith("drain"):
        target = chance.choice(scenario.agents).agent
    elif kind.endswith("cluster"):
        target = CLUSTER
    elif kind.endswith("calendar"):
        target = CALENDARS[0]
        now = utc_of(ms_of(Utc(scenario.start)) + round(at_s * 1000))
        calendar = random_calendar(chance, target, now) if kind.startswith("apply") else None
    acts = [Act(at_s=at_s, at_write=count, kind=kind, target=target, calendar=calendar)]
    if kind in _UNDONE:
        later_s = round(at_s + chance.uniform(0.5, 15.0), 4)
        more = chance.choice([0, 1, 3])
        acts.append(Act(at_s=later_s, at_write=more, kind=_UNDONE[kind], target=target))
    return acts


def _fault(at_s: float, kind: str, target: str, for_s: float, amount: float) -> FaultPlan:
    return FaultPlan(
        at_s=round(at_s, 3), kind=kind, target=target, for_s=round(for_s, 3), amount=amount
    )


def _many_sources(chance: random.Random, scenario: Scenario) -> Scenario:
    """... of one join, that end at once."""
    count, start = chance.choice([5, 10, 20]), Utc(scenario.start)
    idle = ScheduleVersion(since=start)
    ends = (RunState.COMPLETED, RunState.FAILED, RunState.MISSED, RunState.DIED)
    run: Action = Noop() if chance.random() < 0.5 else Exec(("sim", "0.01", "0", "obeys"))
    sources = [f"m{number:02}" for number in range(count)]
    first = ScheduleVersion(since=start, patterns=(random_pattern(chance, start),))
    jobs = (
        Job(name="m-first", run=Noop(), versions=(first,),
            chain=tuple(Link(to=name, on=ends) for name in sources)),
        *(Job(name=name, run=run, versions=(idle,),
              chain=(Link(to="m-last", on=ends, joins=True),)) for name in sources),
        Job(name="m-last", run=run, versions=(idle,)),
    )  # fmt: skip
    agents = tuple(replace(agent, slots=16) for agent in scenario.agents)
    return replace(scenario, jobs=(*scenario.jobs, *jobs), agents=agents)


def _asked_at_once(chance: random.Random, scenario: Scenario) -> Scenario:
    """Several requests for a job that fails, whose retries are due together; and agents that go
    as they begin."""
    first, *others = scenario.jobs
    interval_s, takes_s = chance.choice([1.0, 5.0, 10.0]), chance.choice([0.01, 1.0, 5.0])
    retry = replace(random_retry(chance), interval_s=interval_s, jitter_s=0.0, on=RETRIED)
    run = Exec(("sim", str(takes_s), "1", "obeys"))
    first = replace(first, run=run, retry=retry, overlap=chance.choice(list(Overlap)[:3]))
    faults, acts = [*scenario.faults], [*scenario.acts]
    for _ in range(chance.choice([1, 2, 3])):
        at_s = chance.uniform(5.0, max(6.0, scenario.faulty_s - 30.0))
        for _ in range(chance.choice([2, 2, 3, 4])):
            moment_s = round(at_s + chance.choice([0.0, 0.0, 0.002, 1.0]), 4)
            acts.append(Act(at_s=moment_s, kind="trigger", target=first.name))
        due_s = at_s + takes_s + interval_s * chance.choice([1, 2])
        if chance.random() < 0.6:
            moment_s = due_s + chance.choice([-0.5, 0.0, 0.02, takes_s / 2])
            kind = chance.choice(["host killed", "agent killed", "most agents killed"])
            host = chance.choice(scenario.agents).host
            faults.append(_fault(moment_s, kind, host, chance.uniform(1.0, 30.0), 0.0))
        if chance.random() < 0.6:
            moment_s = round(due_s + chance.choice([0.0, 0.5, 3.0, 12.0]), 4)
            acts.append(Act(at_s=moment_s, kind="resubmit", target=first.name))
    return replace(scenario, jobs=(first, *others), faults=tuple(faults), acts=tuple(acts))


_MOMENTS: tuple[Callable[[random.Random, Scenario], Scenario], ...] = (
    _by_the_second, _by_the_second, _by_the_second, _many_sources, _asked_at_once, _asked_at_once,
)  # fmt: skip
