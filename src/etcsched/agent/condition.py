"""What others ask an agent about itself, as its machine stands."""

from __future__ import annotations

from collections.abc import Callable

from etcsched.core.agent.machine import AgentMachine
from etcsched.core.clock import Instant
from etcsched.serving.health import Condition

__all__ = ["condition_of", "is_writing"]


def condition_of(machine: AgentMachine, slots: int, clock: Callable[[], Instant]) -> Condition:
    lacking = machine.lacking(clock())
    if lacking:
        return Condition(False, lacking)
    text = f"{machine.occupied_slots} of {slots} slots in use"
    if machine.is_leaving:
        return Condition(True, f"is stopping, {text}")
    return Condition(True, f"is drained, {text}" if machine.is_drained else text)


def is_writing(machine: AgentMachine, job: str, run: str, number: int) -> bool:
    """Whether an attempt's output may still grow."""
    place = f"{job}/{run}/{number}/"
    return not machine.knows_processes or any(
        attempt_id.startswith(place) for attempt_id in machine.occupying
    )
