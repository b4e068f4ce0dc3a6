"""``on_agent_loss: hold``: an operator or the agent's return decides, told in virtual time."""

from __future__ import annotations

import pytest

from etcsched.core.records import Kind, Release, Run
from etcsched.core.schedule import At
from etcsched.core.states import JobState, OnAgentLoss, OnDisconnect
from etcsched.core.times import Utc
from etcsched.testing.world import World
from tests.support.jobs import cancel, job, release

ONCE = At(Utc("2026-11-22T12:00:05.000Z"))
LATER = At(Utc("2026-11-22T12:00:40.000Z"))
NOTHING: frozenset[str] = frozenset()
"""What an agent knows of its sessions once its disk is lost."""
RUN = "20261122T120005Z"


@pytest.fixture
def world() -> World:
    """A held run: its agent a1 was killed while it ran."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=100.0)
    world.advance(0.5)
    world.apply(job("backup", ONCE, on_agent_loss=OnAgentLoss.HOLD))
    world.advance(6)
    world.agents["a1"].kill()
    world.agent("a2", takes_s=1.0)
    world.advance(20)
    assert only_run(world).state.value == "held"
    return world


def only_run(world: World) -> Run:
    (run,) = world.runs("backup").values()
    return run


def outcomes(run: Run) -> list[str]:
    return [f"{attempt.agent} {attempt.outcome.value}" for attempt in run.attempts]


def accepted(world: World, request: str) -> bool:
    answer = world.answer(request)
    assert answer is not None
    return answer.accepted


@pytest.mark.parametrize("successor", [False, True])
def test_nothing_moves_by_itself(world: World, successor: bool) -> None:
    if successor:
        world.leader().kill()
        world.scheduler("s2")
    world.advance(3600)
    run = only_run(world)
    assert (run.state.value, run.agent, run.history[-1].cause) == ("held", "a1", "a1 was lost")
    assert world.agents["a2"].spans == []
    assert world.agents["a1"].holds_claim("backup", RUN)


def test_released_to_run_again(world: World) -> None:
    world.request(release("r1", RUN, Release.REASSIGN))
    world.advance(3)
    run = only_run(world)
    assert accepted(world, "r1")
    assert (run.state.value, outcomes(run)) == ("completed", ["a1 died", "a2 completed"])
    assert run.attempts[0].token < run.attempts[1].token
    assert not world.agents["a1"].holds_claim("backup", RUN)


def test_released_as_died(world: World) -> None:
    world.request(release("r1", RUN, Release.DIED))
    world.advance(3)
    run = only_run(world)
    assert (run.state.value, outcomes(run)) == ("died", ["a1 died"])
    assert run.history[-1].cause == "released by ada"
    assert world.agents["a2"].spans == []


def test_cancelled(world: World) -> None:
    world.request(cancel("r1", RUN))
    world.advance(3)
    assert only_run(world).state.value == "cancelled"


@pytest.mark.parametrize("how", list(Release))
def test_a_release_counts_once(world: World, how: Release) -> None:
    world.request(release("r1", RUN, how))
    world.request(release("r2", RUN, Release.REASSIGN))
    world.advance(3)
    assert (accepted(world, "r1"), accepted(world, "r2")) == (True, False)


def test_a_stopped_job_is_not_released_to_run(world: World) -> None:
    world.set_state("backup", JobState.DISABLED)
    world.request(release("r1", RUN, Release.REASSIGN))
    world.advance(3)
    answer = world.answer("r1")
    assert answer is not None
    assert (answer.accepted, answer.message) == (
        False,
        "job backup is disabled, so this run mustn't start; apply its file with state: enabled "
        "first, or release the run --died",
    )
    assert only_run(world).state.value == "held"


def test_delete_ends_it(world: World) -> None:
    world.delete("backup")
    world.advance(3)
    assert only_run(world).state.value == "cancelled"
    world.advance(30)
    assert ("backup",) not in world.records(Kind.JOB)


def test_the_agents_return_without_the_process_leaves_it_held(world: World) -> None:
    """Its claim is reported died: now the attempt is over, and the operator still decides."""
    world.agent("a1", takes_s=1.0)
    world.advance(5)
    run = only_run(world)
    assert (run.state.value, run.agent, outcomes(run)) == ("held", "", ["a1 died"])
    assert not world.agents["a1"].holds_claim("backup", RUN)
    world.request(release("r1", RUN, Release.REASSIGN))
    world.advance(3)
    assert only_run(world).state.value == "completed"


def test_an_agent_that_has_lost_its_disk_says_nothing_of_a_held_run(world: World) -> None:
    """Its process may be another's, on another host: only an operator decides."""
    world.agent("a1", past=NOTHING, takes_s=1.0)
    world.advance(60)
    run = only_run(world)
    assert (run.state.value, run.agent, outcomes(run)) == ("held", "a1", [])
    world.request(release("r1", RUN, Release.REASSIGN))
    world.advance(3)
    run = only_run(world)
    assert (run.state.value, outcomes(run)[0]) == ("completed", "a1 died")


@pytest.mark.parametrize(
    ("on_disconnect", "states"),
    [(OnDisconnect.STOP, ["completed"]), (OnDisconnect.CONTINUE, ["ready"])],
)
def test_a_held_run_takes_a_slot_only_while_its_process_may_run_on(
    on_disconnect: OnDisconnect, states: list[str]
) -> None:
    """Its agent has lost its disk: nothing but an operator's word ends what is held."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=100.0, slots=1)
    world.advance(0.5)
    world.apply(job("backup", ONCE, on_agent_loss=OnAgentLoss.HOLD, on_disconnect=on_disconnect))
    world.apply(job("other", LATER, hosts=("a1",)))
    world.advance(6)
    world.agents["a1"].kill()
    world.advance(20)
    assert only_run(world).state.value == "held"
    world.agent("a1", past=NOTHING, takes_s=1.0, slots=1)
    world.advance(60)
    assert list(world.states("other").values()) == states
    assert only_run(world).state.value == "held"


def test_a_held_run_keeps_no_slot_of_an_agent_that_waits_to_go(world: World) -> None:
    world.agent("a1", past=NOTHING)
    world.advance(5)
    world.agents["a1"].stop()
    world.advance(5)
    assert not world.agents["a1"].is_alive


def test_the_agents_return_with_the_outcome_decides(world: World) -> None:
    """It completed while its agent was cut off, and the outcome waited in the spool."""
    token = world.records(Kind.ASSIGNMENT)[("a1", "backup", RUN)].mod_revision
    agent = world.agent("a1")
    agent.claims_nothing = True
    agent.late_report("backup", RUN, token)
    world.advance(5)
    run = only_run(world)
    assert (run.state.value, outcomes(run)) == ("completed", ["a1 completed"])


# --- its agent's word came while nobody led


@pytest.fixture
def reported(world: World) -> World:
    """The agent has come back and said how the attempt ended; no leader has heard of it."""
    world.advance(20)
    assert world.states("backup") == {"120005": "held"}
    token = world.records(Kind.ASSIGNMENT)[("a1", "backup", RUN)].mod_revision
    world.nodes["s1"].kill()
    agent = world.agent("a1")
    agent.claims_nothing = True
    agent.late_report("backup", RUN, token)
    world.agent("a2", takes_s=1.0)
    world.advance(3)
    return world


@pytest.mark.parametrize("word", [*Release, None])
def test_an_operators_word_comes_too_late_for_what_has_ended(
    reported: World, word: Release | None
) -> None:
    asked = cancel("r1", RUN) if word is None else release("r1", RUN, word)
    reported.request(asked)
    reported.advance(1)
    reported.scheduler("s2")
    reported.advance(30)
    (run,) = reported.runs("backup").values()
    assert run.state.value == "completed"
    assert [attempt.agent for attempt in run.attempts] == ["a1"]
    answer = reported.answer("r1")
    assert answer is not None
    assert not answer.accepted


def test_a_job_that_is_deleted_after_its_held_run_had_ended(reported: World) -> None:
    reported.delete("backup")
    reported.advance(1)
    reported.scheduler("s2")
    reported.advance(8)
    assert list(reported.states("backup").values()) == ["completed"]


@pytest.fixture
def runs_again() -> World:
    """The agent has come back with the process, and has taken it up; no leader has heard of it."""
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", takes_s=200.0)
    world.advance(0.5)
    on_disconnect = OnDisconnect.CONTINUE
    world.apply(job("backup", ONCE, on_agent_loss=OnAgentLoss.HOLD, on_disconnect=on_disconnect))
    world.advance(6)
    agent.is_cut_off = True
    world.agent("a2", takes_s=50.0)
    world.advance(30)
    assert world.states("backup") == {"120005": "held"}
    world.nodes["s1"].kill()
    agent.is_cut_off = False
    world.advance(6)
    return world


def test_a_release_comes_too_late_for_what_runs_again(runs_again: World) -> None:
    runs_again.request(release("r1", RUN, Release.REASSIGN))
    runs_again.advance(1)
    runs_again.scheduler("s2")
    runs_again.advance(20)
    (run,) = runs_again.runs("backup").values()
    assert (run.state.value, run.agent) == ("assigned", "a1")
    assert not runs_again.agents["a2"].spans


def test_what_runs_again_ends_by_itself_though_its_job_is_deleted(runs_again: World) -> None:
    runs_again.delete("backup")
    runs_again.advance(1)
    runs_again.scheduler("s2")
    runs_again.advance(200)
    assert list(runs_again.states("backup").values()) == ["completed"]


@pytest.mark.parametrize("is_made_anew", [False, True])
def test_an_attempt_that_dies_once_its_job_is_deleted_isnt_held(is_made_anew: bool) -> None:
    """Nobody could release it."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=100.0)
    world.advance(0.5)
    definition = job("backup", ONCE, on_agent_loss=OnAgentLoss.HOLD)
    world.apply(definition)
    world.advance(6)
    world.delete("backup")
    world.advance(1)
    if is_made_anew:
        world.apply(definition)
    world.agents["a1"].kill()
    world.advance(60)
    assert [step.state.value for step in only_run(world).history] == ["assigned", "died"]
