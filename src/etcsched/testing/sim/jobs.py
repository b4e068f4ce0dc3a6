"""Random jobs of every kind there is. Whoever adds a feature adds it to ``FIELDS`` here, and every
simulated cluster has it from then on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from etcsched.core.records import (
    Action,
    Calendar,
    CalendarVersion,
    Condition,
    ConflictGroup,
    Exec,
    Job,
    Keep,
    Link,
    Noop,
    Retry,
    ScheduleVersion,
    Window,
)
from etcsched.core.retry import RETRIED
from etcsched.core.schedule import At, Cron, Every, Pattern
from etcsched.core.states import (
    ConditionOp,
    HostsFor,
    JobState,
    OnAgentLoss,
    OnDisconnect,
    Overlap,
    Placement,
    Recovery,
    RunState,
)
from etcsched.core.times import Utc, ms_of, utc_of

CRONS = (
    "*/10 * * * * *", "*/20 * * * * *", "*/30 * * * * *", "15 * * * * *", "* * * * *",
    "*/2 * * * *", "24-50/2 * * * * *", "0-30/15 * * * * *", "*/5 * * * *", "30 2 * * *",
    "*/15 * * * * *",
)  # fmt: skip
ZONES = ("UTC", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")
EVERY_S = (10, 15, 20, 30, 30, 45, 60, 90)
TAKES_S = (0.01, 1.0, 5.0, 12.0, 20.0, 30.0, 60.0)
"""Most take long: it is what runs that faults hit."""
CALENDARS = ("c1", "c2")
GROUPS = ("g1", "g2")
ENDS = (RunState.COMPLETED, RunState.FAILED, RunState.TIMED_OUT, RunState.DIED, RunState.CANCELLED,
        RunState.MISSED, RunState.OVERLAPPED)  # fmt: skip
RESULT = "n"
"""Each process leaves a digit below this name, which chains ask for."""


def random_retry(chance: random.Random) -> Retry:
    return Retry(
        max=chance.randint(1, 3),
        interval_s=chance.choice([1.0, 5.0, 15.0]),
        exponential=chance.random() < 0.5,
        cap_s=chance.choice([None, 20.0]),
        jitter_s=chance.choice([0.0, 2.0]),
        on=tuple(chance.sample(RETRIED, chance.choice([1, 2, 2]))),
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
    "placement": (0.4, lambda c: c.choice(list(Placement))),
    "hosts_for": (0.2, lambda c: c.choice(list(HostsFor))),
    "prefer": (0.2, lambda c: (c.choice(["a1", "a2", "zone=a", "zone=b"]),)),
    "on_disconnect": (0.15, lambda c: c.choice(list(OnDisconnect))),
    "splay_s": (0.12, lambda c: c.choice([2.0, 8.0, 20.0])),
    "per_host": (0.1, lambda c: True),
    "user": (0.03, lambda c: "nobody-there"),
    "params": (0.1, lambda c: {"day": "{scheduled_date}"}),
    "keep": (0.3, lambda c: Keep(runs=c.choice([1, 3]), age_s=c.choice([20.0, 86400.0]))),
}


def random_job(chance: random.Random, name: str, start: Utc, later: Sequence[str] = ()) -> Job:
    """``later``: the jobs that its chain may go to; none of them leads back to it."""
    fields = {
        field: make(chance) for field, (share, make) in FIELDS.items() if chance.random() < share
    }
    states = [JobState.ENABLED] * 12 + list(JobState)[1:4]
    version = ScheduleVersion(
        since=start,
        state=chance.choice(states),
        patterns=tuple(random_pattern(chance, start) for _ in range(chance.choice([1, 1, 1, 2]))),
        timezone=chance.choice(ZONES),
        calendars=tuple(chance.sample(CALENDARS, chance.choice([0] * 7 + [1, 2]))),
        windows=(random_window(chance, start),) if chance.random() < 0.12 else (),
    )
    if later and chance.random() < 0.35:
        targets = chance.sample(list(later), min(len(later), chance.choice([1, 1, 2])))
        fields["chain"] = tuple(random_link(chance, to) for to in targets)
        fields["results"] = (RESULT,)
    return Job(name=name, run=random_action(chance), versions=(version,), **fields)


def random_window(chance: random.Random, start: Utc) -> Window:
    since_ms = ms_of(start) + 1000 * chance.randint(5, 120)
    return Window(
        since=utc_of(since_ms),
        until=utc_of(since_ms + 1000 * chance.randint(5, 90)),
        state=chance.choice([None, JobState.DISABLED, JobState.ENABLED]),
        patterns=chance.choice([None, (random_pattern(chance, start),)]),
    )


def random_link(chance: random.Random, to: str) -> Link:
    numbers = [ConditionOp.LESS_THAN, ConditionOp.EQUALS, ConditionOp.AT_LEAST]
    when = Condition(name=RESULT, op=chance.choice(numbers), values=(str(chance.randint(0, 9)),))
    return Link(
        to=to,
        on=tuple(chance.sample(ENDS, chance.choice([1, 1, 2, 4]))),
        when=(when,) if chance.random() < 0.25 else (),
        within="* 0-11,13-23 * * *" if chance.random() < 0.1 else "",
        joins=chance.random() < 0.35,
    )


def diamond(chance: random.Random, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
    """The first job begins the second and the third, which join at the fourth."""
    first, second, third, fourth, *others = jobs
    ends = tuple(state for state in ENDS if state is not RunState.OVERLAPPED)
    splits = tuple(Link(to=job.name, on=ends) for job in (second, third))
    joins = (Link(to=fourth.name, on=ends, joins=True),)
    takes_s = str(chance.choice([0.01, 1.0, 5.0]))
    quick = Exec(("sim", takes_s, chance.choice(["0", "0", "1"]), "obeys"))
    return (
        replace(first, chain=splits, run=quick, overlap=Overlap.ALLOW),
        *(replace(job, chain=joins, run=quick, overlap=Overlap.ALLOW) for job in (second, third)),
        fourth,
        *others,
    )


def random_calendar(chance: random.Random, name: str, start: Utc) -> Calendar:
    """Mostly about the day that it is, or the one before or after."""
    days = [utc_of(ms_of(start) + days * 86_400_000)[:10] for days in (-1, 0, 0, 0, 1)]
    version = CalendarVersion(
        since=start,
        exclude=tuple({chance.choice(days)} if chance.random() < 0.5 else ()),
        include=tuple({chance.choice(days)} if chance.random() < 0.4 else ()),
    )
    return Calendar(name=name, versions=(version,))


def random_group(chance: random.Random, name: str, jobs: Sequence[str]) -> ConflictGroup:
    members = chance.sample(list(jobs), min(len(jobs), chance.choice([2, 2, 3])))
    return ConflictGroup(group=name, jobs=tuple(members))


def random_settings(chance: random.Random) -> dict[str, Any]:
    """By their names in a job file, as ``apply_settings`` takes them."""
    return chance.choice(
        [
            {"max_active_agents": chance.choice([None, 1, 1, 2])},
            {
                "recovery_rate": (rate := chance.choice([0.2, 1.0, 10.0, 100.0])),
                "max_history_bytes": int(20_000 * rate),
            },
            {"resubmit_states": tuple(chance.sample(ENDS, 3))},
        ]
    )


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
