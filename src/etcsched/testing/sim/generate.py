"""From a seed to a scenario. Faults come at random times, near each other; what operators do comes
at random times, around ticks, and around faults."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from etcsched.core.clock import MAX_SKEW_S
from etcsched.core.records import CLUSTER
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.testing.sim.jobs import (
    CALENDARS,
    GROUPS,
    diamond,
    random_calendar,
    random_group,
    random_job,
    random_settings,
)
from etcsched.testing.sim.lifecycle import with_lifecycle
from etcsched.testing.sim.meetings import (
    with_declines,
    with_meetings,
    with_moments,
    with_moves_to_each_host,
)
from etcsched.testing.sim.scenario import (
    OPERATORS,
    Act,
    AgentPlan,
    FaultPlan,
    Scenario,
    SchedulerPlan,
)

STARTS = (
    "2026-11-22T12:00:00.000Z",
    "2026-11-22T23:58:20.000Z",
    "2026-10-25T00:58:30.000Z",  # Berlin's clocks go back
    "2026-03-29T00:58:30.000Z",  # ... and forth
    "2026-11-01T05:58:30.000Z",  # New York's back
    "2026-04-04T14:58:30.000Z",  # Lord Howe's, by half an hour
    "2026-12-31T23:58:30.000Z",
)

_SCHEDULER = "scheduler"
_AGENT = "host"
_ANY = "any"
_ETCD = "etcd"

# kind: (weight, whom it hits, shortest and longest duration, amounts)
_FAULTS: dict[str, tuple[float, str, tuple[float, float], tuple[float, ...]]] = {
    "scheduler killed": (3, _SCHEDULER, (0.2, 30), (0,)),
    "leader killed at write": (2, _SCHEDULER, (1, 20), (1, 2, 3, 5, 8, 12)),
    "scheduler stopped": (1, _SCHEDULER, (0.2, 20), (0,)),
    "scheduler frozen": (3, _SCHEDULER, (0.5, 30), (0,)),
    "agent killed": (2, _AGENT, (0.3, 30), (0,)),
    "host killed": (2, _AGENT, (0.3, 40), (0,)),
    "most agents killed": (0.5, _AGENT, (1, 40), (0,)),
    "supervisor killed": (1, _AGENT, (0.1, 0.1), (0,)),
    "agent frozen": (2, _AGENT, (0.5, 30), (0,)),
    "host frozen": (1, _AGENT, (0.5, 30), (0,)),
    "agent stopped": (1, _AGENT, (1, 40), (0, 1)),
    "agent restarted": (1, _AGENT, (3, 10), (0,)),
    "disk full": (0.5, _AGENT, (5, 30), (0,)),
    "twin": (0.5, _AGENT, (5, 30), (0,)),
    "presence deleted": (2, _AGENT, (0.1, 0.1), (0,)),
    "cut": (5, _ANY, (0.5, 30), (0, 1, 2, 3, 4, 5)),
    "lossy": (2, _ANY, (2, 30), (0.1, 0.3, 0.7)),
    "slow": (1, _ANY, (2, 30), (0.05, 0.5, 1.5)),
    "watch lags": (2, _ANY, (2, 30), (0.3, 2, 6)),
    "watch broken": (2, _ANY, (0.1, 0.1), (0, 1)),
    "clock stepped": (1, _ANY, (2, 40), (3600, -3600, 86400, -86400, 4, -4, 1.5, -1.5)),
    "clock rate": (1, _ANY, (10, 60), (0.05, -0.05, 0.02, -0.02)),
    "etcd elects": (4, _ETCD, (0.1, 0.1), (0, 1, 1)),
    "etcd down": (1.5, _ETCD, (1, 30), (0, 1, 2, 3)),
    "member frozen": (1.5, _ETCD, (1, 20), (0, 1, 2)),
    "compacted": (1.5, _ETCD, (0.1, 0.1), (0,)),
    "no space": (0.3, _ETCD, (1, 10), (0,)),
}

_ACTS: dict[str, float] = {
    "apply": 5, "disable": 1.5, "enable": 1, "delete": 1, "pause": 2, "resume": 0.5,
    "pause cluster": 1, "resume cluster": 0.5, "drain": 2, "undrain": 0.5, "trigger": 3,
    "cancel": 2, "resubmit": 1.5, "resubmit all": 0.7, "release": 1, "settings": 1,
    "apply calendar": 1, "delete calendar": 0.4, "apply group": 1, "delete group": 0.4,
}  # fmt: skip


_CLOCKS_FOR_A_JUDGEMENT = 4
"""With fewer, nobody may be left who could tell that the leader's clock is wrong by a day, and it
takes the watermark with it: a limit that is known."""

_MORE = 12

_REJECTED_SHARE = 0.1
_OPERATORS_CUT_OFF_SHARE = 0.15

_UNDONE_BY = {
    "disable": "enable", "pause": "resume", "pause cluster": "resume cluster", "drain": "undrain"
}  # fmt: skip
"""Most stops are short, or little would run."""


def scenario_of(seed: int, faulty_s: float | None = None, more: Sequence[str] = ()) -> Scenario:
    """``more``: of these kinds of faults there are many more than of others."""
    chance = random.Random(f"scenario {seed}")
    start = Utc(chance.choice(STARTS))
    lasts_s = faulty_s or chance.choice([60.0, 120.0, 180.0, 240.0])
    ttl_s = chance.choice([5, 10, 10, 10])
    schedulers = tuple(
        SchedulerPlan(name=f"s{n}", at_s=round(chance.uniform(0, 2), 3), ttl_s=ttl_s)
        for n in range(1, chance.choice([1, 2, 2, 3]) + 1)
    )
    agents = tuple(
        AgentPlan(
            host=f"a{n}",
            agent=f"a{n}",
            at_s=round(chance.choice([0.0, 0.0, 0.0, 20.0]) + chance.uniform(0, 2), 3),
            ttl_s=chance.choice([5, 10, 10]),
            slots=chance.choice([1, 2, 4]),
            labels={"zone": chance.choice(["a", "b"])},
            stop_timeout_s=chance.choice([1.0, 5.0, 20.0]),
        )
        for n in range(1, chance.choice([1, 2, 3, 3, 4]) + 1)
    )
    names = [f"j{n}" for n in range(1, chance.choice([2, 3, 4, 5, 6]) + 1)]
    jobs = tuple(
        random_job(chance, name, start, names[place:]) for place, name in enumerate(names, start=1)
    )
    if len(jobs) > 3 and chance.random() < 0.25:
        jobs = diamond(chance, jobs)
    faults = _faults(chance, lasts_s, [s.name for s in schedulers], [a.host for a in agents], more)
    acts = (
        *_first_acts(chance, start, names),
        *_acts(chance, lasts_s, start, names, [a.agent for a in agents], faults),
    )
    made = Scenario(
        seed=seed,
        start=start,
        faulty_s=lasts_s,
        schedulers=schedulers,
        agents=agents,
        jobs=jobs,
        acts=acts,
        faults=faults,
    )
    ticks_at_once = random.Random(f"ticks at once {seed}").choice([0, 1, 2, 3])
    made = msgspec.structs.replace(made, ticks_at_once=ticks_at_once)
    made = with_lifecycle(random.Random(f"lifecycle {seed}"), made)
    made = with_meetings(random.Random(f"meetings {seed}"), made)
    made = _with_a_start_before_ticks(random.Random(f"milliseconds {seed}"), made)
    made = with_moments(random.Random(f"moments {seed}"), made)
    made = _with_rejections(random.Random(f"rejections {seed}"), made)
    made = _with_operators_cut_off(random.Random(f"operators {seed}"), made)
    made = with_declines(random.Random(f"declines {seed}"), made)
    return with_moves_to_each_host(random.Random(f"moves {seed}"), made)


def _with_a_start_before_ticks(chance: random.Random, scenario: Scenario) -> Scenario:
    """Ticks are at whole seconds, and etcd ends leases at half and whole seconds of its own: so
    that leaders change a millisecond before a tick as well as after one."""
    early_ms = chance.choice([0, 0, *range(1, 9)])
    start = utc_of(ms_of(Utc(scenario.start)) - early_ms)
    return msgspec.structs.replace(scenario, start=start)


def _with_operators_cut_off(chance: random.Random, scenario: Scenario) -> Scenario:
    """Now and then their calls, or the answers, are lost, around some of what they do."""
    if chance.random() >= _OPERATORS_CUT_OFF_SHARE or not scenario.acts:
        return scenario
    plans = []
    for act in chance.choices(scenario.acts, k=chance.choice([1, 2, 3])):
        kind = chance.choice(["cut", "lossy", "slow"])
        _, _, (least_s, most_s), amounts = _FAULTS[kind]
        plan = FaultPlan(
            at_s=round(max(2.0, act.at_s - chance.choice([0.0, 0.001, 1.0])), 4),
            kind=kind,
            target=OPERATORS,
            for_s=round(chance.uniform(least_s, most_s), 3),
            amount=chance.choice(amounts),
        )
        plans.append(plan)
    faults = sorted((*scenario.faults, *plans), key=lambda plan: plan.at_s)
    return msgspec.structs.replace(scenario, faults=tuple(faults))


def _with_rejections(chance: random.Random, scenario: Scenario) -> Scenario:
    """Now and then etcd doesn't take what the leader writes of one job's runs."""
    if chance.random() >= _REJECTED_SHARE:
        return scenario
    target = chance.choice(scenario.jobs).name
    rejected = tuple(
        FaultPlan(
            at_s=round(chance.uniform(3.0, scenario.faulty_s - 1.0), 3),
            kind="etcd rejects",
            target=target,
            for_s=round(chance.choice([4.0, 12.0, 25.0, 80.0]) + chance.uniform(0.0, 5.0), 3),
        )
        for _ in range(chance.choice([1, 1, 2]))
    )
    faults = sorted((*scenario.faults, *rejected), key=lambda plan: plan.at_s)
    return msgspec.structs.replace(scenario, faults=tuple(faults))


def _faults(
    chance: random.Random,
    lasts_s: float,
    schedulers: list[str],
    hosts: list[str],
    more: Sequence[str],
) -> tuple[FaultPlan, ...]:
    kinds = list(_FAULTS)
    weights = [_FAULTS[kind][0] * (_MORE if kind in more else 1) for kind in kinds]
    plans: list[FaultPlan] = []
    when_s = 8.0
    for _ in range(chance.randint(0, round(lasts_s / 10))):
        # Now and then several come close together, and to the same node.
        is_near = bool(plans) and chance.random() < 0.4
        when_s = when_s if is_near else chance.uniform(8.0, lasts_s)
        at_s = min(lasts_s - 1.0, when_s + chance.choice([0.0, 0.1, 1.0, 5.0]))
        (kind,) = chance.choices(kinds, weights)
        _, whom, (least_s, most_s), amounts = _FAULTS[kind]
        targets = {
            _SCHEDULER: ["leader", "leader", *schedulers],
            _AGENT: hosts,
            _ANY: ["leader", *schedulers, *hosts, *hosts],
            _ETCD: [""],
        }[whom]
        target = chance.choice(targets)
        if is_near and plans[-1].target in targets and chance.random() < 0.5:
            target = plans[-1].target
        if kind == "clock stepped" and len(schedulers) + len(hosts) < _CLOCKS_FOR_A_JUDGEMENT:
            amounts = tuple(amount for amount in amounts if abs(amount) <= MAX_SKEW_S)
        plan = FaultPlan(
            at_s=round(at_s, 3),
            kind=kind,
            target=target,
            for_s=round(chance.uniform(least_s, most_s), 3),
            amount=chance.choice(amounts),
        )
        plans.append(plan)
        if chance.random() < 0.15:
            plans.append(_aftershock(chance, plan, lasts_s))
    return tuple(sorted(plans, key=lambda plan: plan.at_s))


def _aftershock(chance: random.Random, plan: FaultPlan, lasts_s: float) -> FaultPlan:
    """The leader fails while it mends what a fault left."""
    mends_s = plan.at_s + chance.choice([plan.for_s, plan.for_s, 9.5]) + chance.choice([0.0, 0.3])
    return FaultPlan(
        at_s=round(min(lasts_s - 1.0, mends_s), 3),
        kind=chance.choice(["leader killed at write", "scheduler frozen"]),
        target="leader",
        for_s=round(chance.uniform(0.2, 20), 3),
        amount=chance.choice([1, 1, 2, 3, 5]),
    )


def _acts(
    chance: random.Random,
    lasts_s: float,
    start: Utc,
    jobs: list[str],
    agents: list[str],
    faults: tuple[FaultPlan, ...],
) -> tuple[Act, ...]:
    kinds = list(_ACTS)
    weights = list(_ACTS.values())
    acts = []
    for _ in range(chance.randint(0, round(lasts_s / 12))):
        at_s = _awkward_s(chance, lasts_s, faults)
        (kind,) = chance.choices(kinds, weights)
        act = _act(chance, kind, round(at_s, 4), start, jobs, agents)
        target = act.target
        acts.append(act)
        if kind in _UNDONE_BY and chance.random() < 0.8:
            later_s = min(lasts_s, at_s + chance.choice([0.005, 1.0, 5.0, 15.0, 30.0]))
            acts.append(Act(at_s=round(later_s, 4), kind=_UNDONE_BY[kind], target=target))
    return tuple(sorted(acts, key=lambda act: act.at_s))


def _first_acts(chance: random.Random, start: Utc, jobs: list[str]) -> tuple[Act, ...]:
    """What jobs are defined with."""
    calendars = [random_calendar(chance, name, start) for name in CALENDARS]
    acts = [
        Act(at_s=0.5, kind="apply calendar", target=c.name, calendar=c)
        for c in calendars
        if chance.random() < 0.7
    ]
    if chance.random() < 0.12:
        acts.append(Act(at_s=1.5, kind="settings", settings=random_settings(chance)))
    if len(jobs) > 2 and chance.random() < 0.3:
        group = random_group(chance, GROUPS[0], jobs)
        acts.append(Act(at_s=1.5, kind="apply group", target=group.group, group=group))
    return tuple(acts)


def _act(
    chance: random.Random, kind: str, at_s: float, start: Utc, jobs: list[str], agents: list[str]
) -> Act:
    now = utc_of(ms_of(start) + round(at_s * 1000))
    target = chance.choice(jobs)
    match kind:
        case "apply":
            job = random_job(chance, target, now, jobs[jobs.index(target) + 1 :])
            return Act(at_s=at_s, kind=kind, target=target, job=job)
        case "apply calendar":
            calendar = random_calendar(chance, chance.choice(CALENDARS), now)
            return Act(at_s=at_s, kind=kind, target=calendar.name, calendar=calendar)
        case "apply group":
            group = random_group(chance, chance.choice(GROUPS), jobs)
            return Act(at_s=at_s, kind=kind, target=group.group, group=group)
        case "settings":
            return Act(at_s=at_s, kind=kind, settings=random_settings(chance))
        case "delete calendar":
            target = chance.choice(CALENDARS)
        case "delete group":
            target = chance.choice(GROUPS)
        case "pause cluster" | "resume cluster":
            target = CLUSTER
        case "drain" | "undrain":
            target = chance.choice(agents)
    return Act(at_s=at_s, kind=kind, target=target)


def _awkward_s(chance: random.Random, lasts_s: float, faults: tuple[FaultPlan, ...]) -> float:
    how = chance.random()
    if how < 0.4 or (how >= 0.7 and not faults):
        return chance.uniform(3.0, lasts_s)
    if how < 0.7:
        around_a_tick_s = chance.choice([-0.2, -0.01, -0.004, -0.001, 0.0, 0.002, 0.02, 0.3])
        return max(3.0, float(round(chance.uniform(3.0, lasts_s))) + around_a_tick_s)
    fault = chance.choice(faults)
    return min(lasts_s, fault.at_s + chance.choice([0.0, 0.05, 1.0, fault.for_s, 9.0, 12.0]))
