"""What an agent tells Prometheus: of its slots, its processes, and how far from its lease's end
they are stopped."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter

from etcsched.core.agent import events as ev
from etcsched.core.agent.machine import AgentMachine
from etcsched.core.clock import Instant
from etcsched.core.session import margin_of
from etcsched.serving.metrics import Histogram, NodeMetrics

__all__ = ["AgentMetrics"]

_START_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_FENCE_SLACK_S = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_NOT_STARTED = "not_started"


class AgentMetrics(NodeMetrics):
    def __init__(
        self, agent: str, slots: int, machine: AgentMachine, clock: Callable[[], Instant]
    ) -> None:
        super().__init__("agent", agent, mono_s=lambda: clock().mono_s)
        self._machine = machine
        self._clock = clock
        self._starting_s: dict[str, float] = {}
        self._start_s = Histogram(
            "etcsched_process_start_seconds",
            "From a claim that is committed to its process.",
            _START_S,
            self.registry,
        )
        self._over = Counter(
            "etcsched_processes_ended",
            "Processes that are over, by what ended them.",
            ["cause"],
            registry=self.registry,
        )
        for cause in (*(cause.value for cause in ev.EndCause), _NOT_STARTED):
            self._over.labels(cause)  # Shown from the first, so that rates are right.
        self._fence_slack_s = Histogram(
            "etcsched_fence_slack_seconds",
            "Before its lease could end, how long ago a process that had to stop was over.",
            _FENCE_SLACK_S,
            self.registry,
        )
        self._supervisors = Counter(
            "etcsched_supervisors_lost",
            "Supervisors that ended, and their processes with them.",
            registry=self.registry,
        )
        self.add_gauges(
            {
                "etcsched_agent_slots": ("What this agent runs at once.", "", lambda: slots),
                "etcsched_agent_slots_in_use": (
                    "Attempts that take up a slot.",
                    "",
                    lambda: machine.occupied_slots,
                ),
                "etcsched_agent_is_well": (
                    "1: it can run what it is given.",
                    "",
                    lambda: float(not machine.lacking(clock())),
                ),
            }
        )

    def starting(self, attempt_id: str) -> None:
        self._starting_s[attempt_id] = self._clock().mono_s

    def happened(self, event: ev.Event) -> None:
        """Before the machine hears of it."""
        match event:
            case ev.ProcessStarted(attempt_id=attempt_id):
                began_s = self._starting_s.pop(attempt_id, None)
                if began_s is not None:
                    self._start_s.observe(self._clock().mono_s - began_s)
            case ev.ProcessEnded(attempt_id=attempt_id, cause=cause):
                self._starting_s.pop(attempt_id, None)
                self._over.labels(cause.value).inc()
                if cause is ev.EndCause.FENCED:
                    self._fenced(attempt_id)
            case ev.StartFailed(attempt_id=attempt_id):
                self._starting_s.pop(attempt_id, None)
                self._over.labels(_NOT_STARTED).inc()
            case ev.SupervisorGone():
                self._starting_s.clear()
                self._supervisors.inc()
            case ev.SessionOpened(deadline_mono_s=deadline_s):
                self.session_opened(deadline_s)
            case ev.SessionRenewed(deadline_s):
                self.session_renewed(deadline_s)
            case _:
                pass

    def _fenced(self, attempt_id: str) -> None:
        """At least: a grace has a wider margin."""
        deadline_s = self._machine.deadline_of(attempt_id)
        if deadline_s is not None:
            margin_s = margin_of(self._machine.session_ttl_s)
            self._fence_slack_s.observe(deadline_s + margin_s - self._clock().mono_s)
