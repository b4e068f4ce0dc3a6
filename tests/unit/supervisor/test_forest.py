"""A pid that the kernel gives out again. Whose processes are whose else: with real ones, in
``integration/supervisor``."""

from __future__ import annotations

import os
import resource
import signal

import pytest

from etcsched.agent.supervisor import processes
from etcsched.agent.supervisor.attempt import Attempt
from etcsched.agent.supervisor.forest import Forest
from etcsched.agent.supervisor.messages import Start

PID = 4711


def attempt(attempt_id: str) -> Attempt:
    start = Start(
        attempt_id=attempt_id,
        argv=("true",),
        env={},
        cwd="/",
        output_path="/dev/null",
        output_cap_bytes=0,
        kill_grace_s=10.0,
        deadline_mono_s=1000.0,
    )
    return Attempt(start, pid=PID, started_ms=0, now_s=0.0)


class Kernel:
    """Children without processes: ``ended`` are waited for next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ended: list[int] = []
        self.groups_killed: list[int] = []
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        monkeypatch.setattr(os, "wait4", self._wait4)
        monkeypatch.setattr(os, "killpg", lambda group, _number: self.groups_killed.append(group))
        monkeypatch.setattr(processes, "own_children", list)
        monkeypatch.setattr(processes, "kill_trees", lambda _roots: None)

    def _wait4(self, _pid: int, _options: int) -> tuple[int, int, resource.struct_rusage]:
        return (self.ended.pop() if self.ended else 0, 0, self._usage)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def ended_in(forest: Forest) -> list[str]:
    return [attempt.attempt_id for attempt, _ in forest.reap()]


@pytest.mark.parametrize("first_is_over_first", [True, False])
def test_a_pid_that_is_given_out_again_is_the_newer_attempts(
    kernel: Kernel, first_is_over_first: bool
) -> None:
    """The first attempt's main process has ended; what keeps it from being over, a daemon in a
    session of its own, doesn't keep the number."""
    forest, first, second = Forest(), attempt("first"), attempt("second")
    forest.plant(first)
    kernel.ended.append(PID)
    assert ended_in(forest) == ["first"]
    forest.plant(second)
    forest.signal(first, signal.SIGKILL)
    assert kernel.groups_killed == []
    if first_is_over_first:
        forest.fell(first)
    forest.signal(second, signal.SIGKILL)
    assert kernel.groups_killed == [PID]
    kernel.ended.append(PID)
    assert ended_in(forest) == ["second"]
    forest.fell(second)
    if not first_is_over_first:
        forest.fell(first)
