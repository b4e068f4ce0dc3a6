"""A scenario is data: who is there, what is to run, what goes wrong and when. A seed makes one; a
shrinker takes pieces out of it; it can be kept as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from etcsched.core.records import Calendar, ConflictGroup, Job

__all__ = ["OPERATORS", "Act", "AgentPlan", "FaultPlan", "Scenario", "SchedulerPlan"]


OPERATORS = "operators"
"""They have a host of their own, and so a link."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a scenario. ``at_s`` counts from its beginning."""


class SchedulerPlan(Plan, frozen=True, kw_only=True):
    name: str
    at_s: float = 0.0
    ttl_s: int = 10


class AgentPlan(Plan, frozen=True, kw_only=True):
    """``host`` has a disk and a supervisor; two hosts may have agents of one id."""

    host: str
    agent: str
    at_s: float = 0.0
    ttl_s: int = 10
    slots: int = 2
    labels: dict[str, str] = {}
    stop_timeout_s: float = 20.0


class FaultPlan(Plan, frozen=True, kw_only=True):
    """``target``: a node or a job, ``leader``, ``OPERATORS``, or empty for etcd. ``amount``: see
    ``faults``."""

    at_s: float
    kind: str
    target: str = ""
    for_s: float = 0.0
    amount: float = 0.0


class Act(Plan, frozen=True, kw_only=True):
    """What an operator does. ``job``, ``calendar``, ``group``, ``settings``: what is applied.
    ``at_write``: with the leader's so-manieth write from ``at_s`` on."""

    at_s: float
    at_write: int = 0
    kind: str
    target: str = ""
    job: Job | None = None
    calendar: Calendar | None = None
    group: ConflictGroup | None = None
    settings: dict[str, Any] = {}


class Scenario(Plan, frozen=True, kw_only=True):
    """After ``faulty_s`` everything is healed. ``operators_off_s``: how far their clock is ahead of
    the others; ``ticks_at_once``: of the leaders' options, small where one is to be interrupted as
    a large cluster's is; 0: as it is by default; ``stretch``: how much slower than elsewhere jobs,
    faults and operators come."""

    seed: int
    start: str
    faulty_s: float
    schedulers: tuple[SchedulerPlan, ...]
    agents: tuple[AgentPlan, ...]
    jobs: tuple[Job, ...]
    acts: tuple[Act, ...] = ()
    faults: tuple[FaultPlan, ...] = ()
    busy_etcd_s: float = 0.0
    operators_off_s: float = 0.0
    ticks_at_once: int = 0
    stretch: int = 1

    def size(self) -> int:
        parts = (self.schedulers, self.agents, self.jobs, self.acts, self.faults)
        return sum(len(part) for part in parts) + int(self.faulty_s / 10)
