"""Jobs that run at startups and shutdowns, and agents that are all told to stop at once.

They are drawn apart from everything else: what a seed had before it has still.
"""

from __future__ import annotations

import random

from msgspec.structs import replace

from etcsched.core.records import Job, Keep, ScheduleVersion
from etcsched.core.states import JobState, Lifecycle
from etcsched.core.times import Utc
from etcsched.testing.sim.jobs import FIELDS, random_action
from etcsched.testing.sim.scenario import Act, FaultPlan, Scenario

_SHARED = (
    "timeout_s", "kill_grace_s", "on_agent_loss", "disconnect_grace_s", "max_reassigns", "require",
    "hosts", "retry", "priority",
)  # fmt: skip
"""What means something to a run without a tick."""

_LIFECYCLES = [lifecycle for lifecycle in Lifecycle if lifecycle is not Lifecycle.NONE]
_ACTS = ("disable", "enable", "pause", "resume", "delete", "apply")


def lifecycle_job(chance: random.Random, name: str, since: Utc) -> Job:
    fields = {
        name: FIELDS[name][1](chance) for name in _SHARED if chance.random() < FIELDS[name][0]
    }
    state = chance.choice([JobState.ENABLED, JobState.ENABLED, JobState.AD_HOC_ACTIVE])
    return Job(
        name=name,
        run=random_action(chance),
        versions=(ScheduleVersion(since=since, state=state),),
        lifecycle=chance.choice(_LIFECYCLES),
        keep=Keep(runs=1_000_000),
        **fields,
    )


def with_lifecycle(chance: random.Random, scenario: Scenario) -> Scenario:
    """Half of all scenarios have such jobs, and stops of everybody; some of these lose their
    leader on the way."""
    if chance.random() < 0.5:
        return scenario
    names = [f"l{number}" for number in range(1, chance.choice([1, 2, 3]) + 1)]
    jobs = tuple(lifecycle_job(chance, name, Utc(scenario.start)) for name in names)
    faults = [*scenario.faults]
    for _ in range(chance.choice([0, 1, 1, 2])):
        faults += _all_stopped(chance, scenario)
    acts = [*scenario.acts]
    for _ in range(chance.choice([0, 0, 1, 2])):
        kind, target = chance.choice(_ACTS), chance.choice(names)
        at_s = round(chance.uniform(3.0, scenario.faulty_s), 4)
        job = lifecycle_job(chance, target, Utc(scenario.start)) if kind == "apply" else None
        acts.append(Act(at_s=at_s, kind=kind, target=target, job=job))
    return replace(
        scenario,
        jobs=(*scenario.jobs, *jobs),
        faults=tuple(sorted(faults, key=lambda plan: plan.at_s)),
        acts=tuple(sorted(acts, key=lambda act: act.at_s)),
    )


def _all_stopped(chance: random.Random, scenario: Scenario) -> list[FaultPlan]:
    at_s = chance.uniform(8.0, max(9.0, scenario.faulty_s - 5.0))
    faults = [
        FaultPlan(
            at_s=round(at_s + chance.choice([0.0, 0.0, 0.001, 0.1, 2.0]), 3),
            kind="agent stopped",
            target=agent.host,
            for_s=round(chance.uniform(3.0, 40.0), 3),
        )
        for agent in scenario.agents
    ]
    if chance.random() < 0.6:
        faults.append(
            FaultPlan(
                at_s=round(at_s + chance.choice([0.0, 0.01, 0.5, 3.0]), 3),
                kind=chance.choice(["leader killed at write", "scheduler killed"]),
                target="leader",
                for_s=round(chance.uniform(0.5, 20.0), 3),
                amount=chance.choice([1, 2, 3, 4, 6]),
            )
        )
    return faults
