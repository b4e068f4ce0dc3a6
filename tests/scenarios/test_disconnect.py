"""Agents that are cut off and come back, or not: grace, adoption, ``on_disconnect``."""

from __future__ import annotations

from typing import Any

import pytest

from etcsched.core.leader.explaining import Explainer
from etcsched.core.records import Kind, Run
from etcsched.core.schedule import At
from etcsched.core.states import OnAgentLoss, OnDisconnect
from etcsched.core.times import Utc, ms_of
from etcsched.testing.world import World
from tests.support.jobs import cancel, job
from tests.support.views import view_of

ONCE = At(Utc("2026-11-22T12:00:05.000Z"))
RUN = "20261122T120005Z"
TTL_S, GRACE_S, TAKES_S = 10.0, 30.0, 100.0


def cut_off(**fields: Any) -> World:
    """a1 runs it, and was cut off at second 6; a2 is there to take over."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=TAKES_S)
    world.advance(0.5)
    world.apply(job("backup", ONCE, **fields))
    world.advance(5.5)
    assert world.agents["a1"].spans
    world.agents["a1"].is_cut_off = True
    world.agent("a2", takes_s=1.0)
    return world


def only_run(world: World) -> Run:
    (run,) = world.runs("backup").values()
    return run


def outcomes(world: World) -> list[str]:
    return [f"{a.agent} {a.outcome.value}" for a in only_run(world).attempts]


@pytest.mark.parametrize("grace_s", [0.0, GRACE_S])
def test_back_within_the_lease(grace_s: float) -> None:
    world = cut_off(disconnect_grace_s=grace_s)
    world.advance(5)
    world.agents["a1"].is_cut_off = False
    world.advance(TAKES_S)
    assert outcomes(world) == ["a1 completed"]
    assert world.agents["a2"].spans == []


@pytest.mark.parametrize("away_s", [15.0, 25.0, 33.0])
def test_back_within_the_grace_it_is_taken_up_again(away_s: float) -> None:
    world = cut_off(disconnect_grace_s=GRACE_S)
    world.advance(away_s)
    world.agents["a1"].is_cut_off = False
    world.advance(TAKES_S)
    assert outcomes(world) == ["a1 completed"]
    assert len(world.agents["a1"].spans) == 1
    assert world.agents["a2"].spans == []


def test_back_twice_within_the_grace() -> None:
    world = cut_off(disconnect_grace_s=GRACE_S)
    for _ in range(2):
        world.advance(25)
        world.agents["a1"].is_cut_off = False
        world.advance(3)
        world.agents["a1"].is_cut_off = True
    world.agents["a1"].is_cut_off = False
    world.advance(TAKES_S)
    assert outcomes(world) == ["a1 completed"]


@pytest.mark.parametrize("grace_s", [0.0, 3.0, GRACE_S])
@pytest.mark.parametrize("takeover", [False, True])
def test_beyond_the_grace_it_is_ended_before_it_moves(grace_s: float, takeover: bool) -> None:
    world = cut_off(disconnect_grace_s=grace_s)
    if takeover:
        world.advance(TTL_S + 1)
        world.leader().kill()
        world.scheduler("s2")
    world.advance(TTL_S + grace_s + 40)
    (lost,), (moved,) = world.agents["a1"].spans, world.agents["a2"].spans
    assert lost.end_s is not None
    assert lost.end_s < moved.start_s
    assert moved.start_s >= 6 - 1 + TTL_S + grace_s
    assert outcomes(world) == ["a1 died", "a2 completed"]
    world.agents["a1"].is_cut_off = False
    world.advance(5)
    (late,) = only_run(world).late_reports
    assert (late.agent, late.outcome.value) == ("a1", "died")


def test_a_takeover_only_lengthens_the_grace() -> None:
    world = cut_off(disconnect_grace_s=GRACE_S)
    world.advance(TTL_S + GRACE_S - 5)
    world.leader().kill()
    world.scheduler("s2")
    world.advance(GRACE_S - 1)
    assert world.agents["a2"].spans == []
    world.advance(TTL_S + 10)
    assert world.agents["a2"].spans


def test_continue_runs_on_and_its_late_outcome_is_kept() -> None:
    """It waives that no two attempts overlap."""
    world = cut_off(on_disconnect=OnDisconnect.CONTINUE)
    world.advance(30)
    assert outcomes(world) == ["a1 died", "a2 completed"]
    assert world.agents["a1"].spans[0].end_s is None
    world.agents["a1"].is_cut_off = False
    world.advance(TAKES_S)
    run = only_run(world)
    assert run.state.value == "completed"
    (late,) = run.late_reports
    assert (late.agent, late.outcome.value, late.number) == ("a1", "completed", 1)


def test_continue_within_the_grace_is_taken_up_again() -> None:
    world = cut_off(on_disconnect=OnDisconnect.CONTINUE, disconnect_grace_s=GRACE_S)
    world.advance(30)
    world.agents["a1"].is_cut_off = False
    world.advance(TAKES_S)
    assert outcomes(world) == ["a1 completed"]


def test_a_held_run_goes_on_when_its_agent_comes_back_with_it() -> None:
    world = cut_off(on_disconnect=OnDisconnect.CONTINUE, on_agent_loss=OnAgentLoss.HOLD)
    world.advance(30)
    assert only_run(world).state.value == "held"
    world.agents["a1"].is_cut_off = False
    world.advance(3)
    assert only_run(world).state.value == "assigned"
    world.advance(TAKES_S)
    assert outcomes(world) == ["a1 completed"]


def test_a_run_cancelled_in_the_grace_ends_with_it_and_moves_nowhere() -> None:
    world = cut_off(disconnect_grace_s=GRACE_S)
    world.advance(15)
    world.request(cancel("r1", RUN))
    world.advance(GRACE_S + 30)
    assert only_run(world).state.value == "cancelled"
    assert world.agents["a2"].spans == []


def reason_of(world: World) -> str:
    return Explainer(view_of(world), ms_of(world.now)).reason(("backup", RUN)).text


def runs_on_a1(world: World) -> bool:
    return any(span.end_s is None for span in world.agents["a1"].spans)


CONTINUES: dict[str, Any] = {"on_disconnect": OnDisconnect.CONTINUE}


@pytest.mark.parametrize(
    ("on_loss", "asked_at_s"), [*((each, 2.0) for each in OnAgentLoss), (OnAgentLoss.HOLD, 30.0)]
)
def test_a_cancelled_run_that_may_run_on_is_over_and_ends_once_its_agent_is_back(
    on_loss: OnAgentLoss, asked_at_s: float
) -> None:
    """Whether it is cancelled before its agent's loss is final, or while it is held for that."""
    world = cut_off(on_agent_loss=on_loss, **CONTINUES)
    world.advance(asked_at_s)
    world.request(cancel("r1", RUN))
    world.advance(15)
    run = only_run(world)
    assert run.state.value == "cancelled"
    assert run.history[-1].cause.endswith("should a1 come back with its process, it ends that")
    assert runs_on_a1(world)
    assert world.agents["a2"].spans == []
    world.agents["a1"].is_cut_off = False
    world.advance(3)
    assert not runs_on_a1(world)
    (late,) = only_run(world).late_reports
    assert late.outcome.value == "cancelled"
    assert not world.records(Kind.ORDER)


def test_what_is_said_of_one_that_is_cancelled_while_its_agent_is_cut_off() -> None:
    world = cut_off(disconnect_grace_s=GRACE_S, **CONTINUES)
    world.advance(3)
    world.request(cancel("r1", RUN))
    world.advance(1)
    assert "a1 is told to end it: cancelled by ada" in reason_of(world)
    world.advance(10)
    assert "a1 is gone" in reason_of(world)
    assert "it ends cancelled then (cancelled by ada)" in reason_of(world)


@pytest.mark.parametrize("comes_back", [True, False])
def test_an_order_that_nobody_can_obey_is_forgotten(comes_back: bool) -> None:
    """Its agent's host began anew; or is never seen again."""
    world = cut_off(**CONTINUES)
    world.request(cancel("r1", RUN))
    world.agents["a1"].kill()
    world.advance(30)
    assert only_run(world).state.value == "cancelled"
    assert world.records(Kind.ORDER)
    if comes_back:
        world.agent("a1", past=frozenset())
        world.advance(60)
    else:
        world.advance(3600.0)
        assert world.records(Kind.ORDER)
        (node,) = world.nodes.values()
        world.start_ms += 40 * 86_400_000
        node.kill()
        world.scheduler("s2")
        world.advance(60)
    assert not world.records(Kind.ORDER)


@pytest.mark.parametrize("on_disconnect", list(OnDisconnect))
def test_a_held_run_lets_its_group_go_unless_it_may_run_on(on_disconnect: OnDisconnect) -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=TAKES_S)
    world.advance(0.5)
    world.apply(job("report", At(Utc("2026-11-22T12:00:30.000Z")), hosts=("a2",)))
    world.apply(
        job(
            "backup", ONCE, hosts=("a1",),
            on_agent_loss=OnAgentLoss.HOLD, on_disconnect=on_disconnect,
        )
    )  # fmt: skip
    world.group("ledger", "backup", "report")
    world.advance(5.5)
    world.agents["a1"].is_cut_off = True
    world.agent("a2", takes_s=1.0)
    world.advance(40)
    assert only_run(world).state.value == "held"
    assert bool(world.agents["a2"].spans) is (on_disconnect is OnDisconnect.STOP)
