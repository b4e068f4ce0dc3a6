"""What an agent's metrics say of its processes."""

from __future__ import annotations

import pytest

from etcsched.agent.metrics import AgentMetrics
from etcsched.core.agent import events as ev
from tests.unit.agent.script import START_MS, Script, attempt_id, ended


@pytest.fixture
def script() -> Script:
    return Script().ready()


@pytest.fixture
def metrics(script: Script) -> AgentMetrics:
    return AgentMetrics("a1", 2, script.machine, script.now)


def value(metrics: AgentMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"etcsched_{name}", labels)


def test_slots_and_being_well(script: Script, metrics: AgentMetrics) -> None:
    assert (value(metrics, "agent_slots"), value(metrics, "agent_slots_in_use")) == (2, 0)
    assert value(metrics, "agent_is_well") == 1
    script.run()
    assert value(metrics, "agent_slots_in_use") == 1
    script.tell(ev.SupervisorGone())
    assert value(metrics, "agent_is_well") == 0


def test_how_long_a_process_takes_to_start(script: Script, metrics: AgentMetrics) -> None:
    metrics.starting(attempt_id())
    script.passes(0.03)
    started = ev.ProcessStarted(attempt_id=attempt_id(), started_ms=START_MS)
    metrics.happened(started)
    metrics.happened(started)
    assert value(metrics, "process_start_seconds_count") == 1
    assert value(metrics, "process_start_seconds_sum") == pytest.approx(0.03)


def test_what_ends_processes(metrics: AgentMetrics) -> None:
    metrics.happened(ended())
    metrics.happened(ended(cause=ev.EndCause.TIMED_OUT))
    metrics.happened(ev.StartFailed(attempt_id=attempt_id(), reason="", failed_ms=START_MS))
    metrics.happened(ev.SupervisorGone())
    for cause in ("exited", "timed_out", "not_started"):
        assert value(metrics, "processes_ended_total", cause=cause) == 1
    assert value(metrics, "processes_ended_total", cause="fenced") == 0
    assert value(metrics, "supervisors_lost_total") == 1


def test_the_slack_of_a_fence(script: Script, metrics: AgentMetrics) -> None:
    """The deadline lies the margin of 1.5 s before the end of a lease of 10 s."""
    script.run()
    deadline_s = script.machine.deadline_of(attempt_id())
    assert deadline_s is not None
    script.mono_s = deadline_s + 0.25
    metrics.happened(ended(cause=ev.EndCause.FENCED))
    assert value(metrics, "fence_slack_seconds_sum") == pytest.approx(1.25)
    assert value(metrics, "fence_slack_seconds_bucket", le="1.0") == 0


def test_sessions(script: Script, metrics: AgentMetrics) -> None:
    deadline_s = script.mono_s + 8
    metrics.happened(
        ev.SessionOpened(incarnation="i", lease=1, ttl_s=10, deadline_mono_s=deadline_s)
    )
    script.passes(2)
    metrics.happened(ev.SessionRenewed(deadline_s + 2))
    assert value(metrics, "session_slack_seconds_sum") == 6
    metrics.session_lost()
    assert value(metrics, "sessions_lost_total") == 1
