"""An agent's host: a disk, a supervisor, and one agent process after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from etcsched.core.agent import events as ev
from etcsched.core.records import Report
from etcsched.testing.sim.agent import SimAgent
from etcsched.testing.sim.loop import Clock
from etcsched.testing.sim.supervisor import SimSupervisor

if TYPE_CHECKING:
    from etcsched.testing.sim.cluster import Cluster
    from etcsched.testing.sim.scenario import AgentPlan


class Disk(msgspec.Struct):
    """What outlives the processes of a host. ``session`` is its lease, and the incarnations of all
    that there were, the latest first. ``fails``: nothing can be written."""

    session: tuple[int, tuple[str, ...]] | None = None
    spool: dict[str, Report] = {}
    ended: dict[str, ev.ProcessEnded | ev.StartFailed] = {}
    fails: bool = False


class SimHost:
    """``agent_id`` is the plan's name, unless another host has it too."""

    def __init__(
        self, cluster: Cluster, plan: AgentPlan, clock: Clock, *, is_twin: bool = False
    ) -> None:
        self.cluster = cluster
        self.plan = plan
        self.name = plan.host
        self.clock = clock
        self.disk = Disk()
        self.supervisors = 0
        self.starts = 0
        self.agent: SimAgent | None = None
        self.supervisor = self.new_supervisor()
        self.id_in_use = False
        self.is_frozen = False
        self.is_twin = is_twin
        self.has_users = True
        """Whether those are there that jobs run as."""

    def new_supervisor(self) -> SimSupervisor:
        self.supervisors += 1
        incarnation = f"{self.name}.{self.supervisors}"
        return SimSupervisor(self.cluster, self.name, self.clock, incarnation, self.disk.ended)

    @property
    def has_agent(self) -> bool:
        return self.agent is not None and self.agent.process.is_alive

    def start(self) -> None:
        if not self.has_agent:
            if not self.supervisor.process.is_alive:
                self.supervisor = self.new_supervisor()
            self.starts += 1
            self.id_in_use = False
            self.agent = SimAgent(self)
            self.agent.begin()

    def kill_agent(self) -> None:
        if self.agent is not None:
            self.agent.die()

    def kill_all(self) -> None:
        self.kill_agent()
        self.supervisor.die()

    def freeze(self) -> None:
        """The whole host, its jobs too."""
        self.is_frozen = True
        self.supervisor.process.freeze()
        for attempt_id in self.supervisor.jobs:
            self.cluster.chronicle.process_lives(self.name, attempt_id)
        if self.agent is not None:
            self.agent.process.freeze()

    def thaw(self) -> None:
        self.is_frozen = False
        for attempt_id in self.supervisor.jobs:
            self.cluster.chronicle.process_lives(self.name, attempt_id)
        self.supervisor.process.thaw()
        if self.agent is not None:
            self.agent.process.thaw()
