"""Random jobs of every kind there is. Whoever adds a feature adds it to ``FIELDS`` here, and every
simulated cluster has it from then on."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from etcsched.core.records import Action, Exec, Job, Keep, Noop, Retry, ScheduleVersion
from etcsched.core.schedule import At, Cron, Every, Pattern
from etcsched.core.states import JobState, OnAgentLoss, Overlap, Recovery
from etcsched.core.times import Utc, ms_of, utc_of

CRONS = (
    "*/10 * * * * *", "*/20 * * * * *", "*/30 * * * * *", "15 * * * * *", "* * * * *",
    "*/2 * * * *", "0-30/15 * * * * *", "*/5 * * * *", "30 2 * * *", "*/15 * * * * *",
)  # fmt: skip
ZONES = ("UTC", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
EVERY_S = (10, 15, 20, 30, 30, 45, 60, 90)
TAKES_S = (0.01, 1.0, 5.0, 12.0, 20.0, 30.0, 60.0)
"""Most take long: it is what runs that faults hit."""


def random_retry(chance: random.Random) -> Retry:
    return Retry(
        max=chance.randint(1, 3),
        interval_s=chance.choice([1.0, 5.0, 15.0]),
        exponential=chance.random() < 0.5,
        cap_s=chance.choice([None, 20.0]),
        jitter_s=chance.choice([0.0, 2.0]),
    )


FIELDS: dict[str, tuple[float, Callable[[random.Random], Any]]] = {
    # name of the field: how often it isn't the default, and what it is then
    "recovery": (0.7, lambda c: c.choice(list(Recovery))),
    "overlap": (0.6, lambda c: c.choice(list(Overlap))),
    "pickup_buffer_s": (0.7, lambda c: c.choice([1.0, 5.0, 20.0, 60.0])),
    "recover_within_s": (0.2, lambda c: c.choice([30.0, 120.0])),
    "catch_up_limit": (0.3, lambda c: c.choice([1, 2, 5])),
    "timeout_s": (0.2, lambda c: c.choice([3.0, 15.0, 40.0])),
    "kill_grace_s": (0.7, lambda c: c.choice([0.0, 0.5, 2.0, 5.0])),
    "on_agent_loss": (0.5, lambda c: c.choice(list(OnAgentLoss))),
    "disconnect_grace_s": (0.4, lambda c: c.choice([0.5, 5.0, 20.0])),
    "max_reassigns": (0.3, lambda c: c.choice([0, 1, 5])),
    "priority": (0.3, lambda c: c.randint(-2, 2)),
    "require": (0.1, lambda c: {"zone": c.choice(["a", "b"])}),
    "hosts": (0.1, lambda c: tuple(c.sample(["a1", "a2", "a3"], c.randint(1, 2)))),
    "retry": (0.4, random_retry),
}


def random_job(chance: random.Random, name: str, start: Utc) -> Job:
    fields = {
        field: make(chance) for field, (share, make) in FIELDS.items() if chance.random() < share
    }
    states = [JobState.ENABLED] * 12 + [JobState.DISABLED, JobState.AD_HOC_ACTIVE]
    version = ScheduleVersion(
        since=start,
        state=chance.choice(states),
        patterns=tuple(random_pattern(chance, start) for _ in range(chance.choice([1, 1, 1, 2]))),
        timezone=chance.choice(ZONES),
    )
    # Nothing is pruned: the auditor looks for every tick.
    keep = Keep(runs=1_000_000)
    return Job(name=name, run=random_action(chance), versions=(version,), keep=keep, **fields)


def random_pattern(chance: random.Random, start: Utc) -> Pattern:
    kind = chance.random()
    if kind < 0.45:
        return Every(chance.choice(EVERY_S), start)
    if kind < 0.9:
        return Cron(chance.choice(CRONS))
    at_ms = ms_of(start) // 1000 * 1000 + 1000 * chance.randint(10, 240)
    return At(utc_of(at_ms))


def random_action(chance: random.Random) -> Action:
    if chance.random() < 0.08:
        return Noop()
    takes_s = chance.choice(TAKES_S)
    exit_code = chance.choice([0, 0, 0, 1])
    stubborn = "stubborn" if chance.random() < 0.25 else "obeys"
    return Exec(("sim", str(takes_s), str(exit_code), stubborn))
