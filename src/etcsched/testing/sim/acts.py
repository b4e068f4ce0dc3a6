"""What operators do in a scenario, by the names that it has there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from etcsched.core.states import JobState
from etcsched.testing.sim.operators import Operators
from etcsched.testing.sim.scenario import Act

if TYPE_CHECKING:
    from etcsched.testing.sim.cluster import Cluster

MOST_RESUBMITTED = 20


def do(cluster: Cluster, act: Act) -> None:
    KINDS[act.kind](cluster.operators, act)


def _apply(operators: Operators, act: Act) -> None:
    assert act.job is not None
    operators.apply(act.job)


def _apply_calendar(operators: Operators, act: Act) -> None:
    assert act.calendar is not None
    operators.apply_calendar(act.calendar)


def _apply_group(operators: Operators, act: Act) -> None:
    assert act.group is not None
    operators.apply_group(act.group)


KINDS: dict[str, Callable[[Operators, Act], None]] = {
    "apply": _apply,
    "disable": lambda operators, act: operators.set_state(act.target, JobState.DISABLED),
    "enable": lambda operators, act: operators.set_state(act.target, JobState.ENABLED),
    "delete": lambda operators, act: operators.delete(act.target),
    "pause": lambda operators, act: operators.pause(act.target),
    "pause cluster": lambda operators, act: operators.pause(act.target),
    "resume": lambda operators, act: operators.resume(act.target),
    "resume cluster": lambda operators, act: operators.resume(act.target),
    "drain": lambda operators, act: operators.drain(act.target),
    "undrain": lambda operators, act: operators.undrain(act.target),
    "trigger": lambda operators, act: operators.trigger(act.target),
    "cancel": lambda operators, act: operators.cancel(act.target),
    "release": lambda operators, act: operators.release(act.target),
    "resubmit": lambda operators, act: operators.resubmit(act.target, 1),
    "resubmit all": lambda operators, act: operators.resubmit(act.target, MOST_RESUBMITTED),
    "settings": lambda operators, act: operators.set_settings(act.settings),
    "apply calendar": _apply_calendar,
    "delete calendar": lambda operators, act: operators.delete_calendar(act.target),
    "apply group": _apply_group,
    "delete group": lambda operators, act: operators.delete_group(act.target),
}

__all__ = ["KINDS", "do"]
