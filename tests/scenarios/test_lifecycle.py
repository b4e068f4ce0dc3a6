"""Jobs that run at startups and shutdowns, told as stories in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from etcsched.core.agent.command import environment_of
from etcsched.core.leader.explaining import Explainer
from etcsched.core.records import (
    Assignment,
    ClusterSettings,
    Job,
    Keep,
    Kind,
    Live,
    Release,
    Retry,
    Run,
)
from etcsched.core.schedule import At
from etcsched.core.states import (
    HostsFor,
    JobState,
    Lifecycle,
    OnAgentLoss,
    Origin,
    Outcome,
    Overlap,
    RunState,
    Stage,
)
from etcsched.core.times import Utc, ms_of
from etcsched.core.view import View
from etcsched.keyspace.feed import Feed
from etcsched.testing.world import World
from tests.support.jobs import job, release, resubmit, trigger

LIFECYCLES = [lifecycle for lifecycle in Lifecycle if lifecycle is not Lifecycle.NONE]


@pytest.fixture
def world() -> World:
    """A cluster with a job for each lifecycle, and no agent yet."""
    world = World()
    world.scheduler("s1")
    world.advance(0.5)
    for lifecycle in LIFECYCLES:
        world.apply(job(lifecycle.value, lifecycle=lifecycle, keep=Keep(runs=1000)))
    return world


def agent(world: World, name: str, **more: object) -> None:
    world.agent(name, **{"slots": 8, "takes_s": 1.0, **more})


def ran(world: World, name: str) -> list[str]:
    """Where the job's runs were completed, as ``up a1``, in the order of their beginning."""
    found = []
    for run in world.runs(name).values():
        assert run.state is RunState.COMPLETED, run
        assert run.occasion is not None
        word = "down" if run.occasion.is_shutdown else "up"
        found.append((run.attempts[-1].assigned_at, f"{word} {run.attempts[-1].agent}"))
    return [words for _, words in sorted(found)]


def all_ran(world: World) -> dict[str, list[str]]:
    return {lifecycle.value: ran(world, lifecycle.value) for lifecycle in LIFECYCLES}


def stages(world: World) -> dict[str, Stage]:
    records = world.records(Kind.LIVE).values()
    return {r.record.agent: r.record.stage for r in records if isinstance(r.record, Live)}


def here(world: World) -> set[str]:
    return {agent for (agent,) in world.records(Kind.PRESENCE)}


def only(runs: dict[str, Run]) -> Run:
    (run,) = runs.values()
    return run


def test_each_lifecycle_at_one_agents_coming_and_going(world: World) -> None:
    agent(world, "a1")
    world.advance(5)
    up = {"host_startup", "host_both", "cluster_startup", "cluster_both"}
    assert {name for name, runs in all_ran(world).items() if runs == ["up a1"]} == up
    world.agents["a1"].stop()
    world.advance(5)
    assert not here(world)
    assert all_ran(world) == {
        "host_startup": ["up a1"],
        "host_shutdown": ["down a1"],
        "host_both": ["up a1", "down a1"],
        "cluster_startup": ["up a1"],
        "cluster_shutdown": ["down a1"],
        "cluster_both": ["up a1", "down a1"],
    }
    assert stages(world) == {"a1": Stage.DISMISSED}


def test_the_second_is_not_the_first_and_the_first_to_go_is_not_the_last(world: World) -> None:
    agent(world, "a1")
    agent(world, "a2")
    world.advance(5)
    world.agents["a1"].stop()
    world.advance(5)
    assert here(world) == {"a2"}
    found = all_ran(world)
    assert sorted(found["host_both"]) == ["down a1", "up a1", "up a2"]
    assert len(found["cluster_startup"]) == 1
    assert not found["cluster_shutdown"]
    world.agents["a2"].stop()
    world.advance(5)
    assert all_ran(world)["cluster_shutdown"] == ["down a2"]


@pytest.mark.parametrize("count", [2, 3, 30])
def test_all_may_be_stopped_at_once(world: World, count: int) -> None:
    names = [f"a{number}" for number in range(count)]
    for name in names:
        agent(world, name)
    world.advance(5)
    for name in names:
        world.agents[name].stop()
    world.advance(10)
    assert not here(world)
    found = all_ran(world)
    assert sorted(found["host_shutdown"]) == sorted(f"down {name}" for name in names)
    assert len(found["cluster_shutdown"]) == len(found["cluster_startup"]) == 1
    # It comes when all else is over, on the one that waits for it.
    last = only(world.runs("cluster_shutdown"))
    others = [r for n in ("host_shutdown", "host_both") for r in world.runs(n).values()]
    assert all(str(r.attempts[-1].ended_at) <= last.created_at for r in others)


@pytest.mark.parametrize("dies_after", range(1, 14))
def test_leaders_that_die_on_the_way_double_and_lose_nothing(world: World, dies_after: int) -> None:
    world.scheduler("s2")
    world.scheduler("s3")
    world.leader_dies_after = world.leader_writes + dies_after
    for name in ("a1", "a2", "a3"):
        agent(world, name)
    world.advance(30)
    assert len(all_ran(world)["cluster_startup"]) == 1
    assert sorted(all_ran(world)["host_startup"]) == ["up a1", "up a2", "up a3"]
    world.leader_dies_after = world.leader_writes + dies_after
    for name in ("a1", "a2", "a3"):
        world.agents[name].stop()
    world.advance(40)
    assert not here(world)
    found = all_ran(world)
    assert sorted(found["host_shutdown"]) == ["down a1", "down a2", "down a3"]
    assert len(found["cluster_startup"]) == len(found["cluster_shutdown"]) == 1


def test_a_change_of_leader_fires_nothing(world: World) -> None:
    agent(world, "a1")
    agent(world, "a2")
    world.advance(5)
    before = all_ran(world)
    world.scheduler("s2")
    world.advance(1)
    world.nodes["s1"].kill()
    world.advance(30)
    assert world.leader().name == "s2"
    assert all_ran(world) == before


def test_what_came_while_nobody_led_is_started_for(world: World) -> None:
    world.nodes["s1"].kill()
    agent(world, "a1")
    agent(world, "a2")
    world.advance(30)
    assert not any(all_ran(world).values())
    world.scheduler("s2")
    world.advance(5)
    assert sorted(all_ran(world)["host_startup"]) == ["up a1", "up a2"]
    assert len(all_ran(world)["cluster_startup"]) == 1


@pytest.mark.parametrize("count", [2, 3, 30])
def test_all_that_came_while_nobody_led_may_be_told_to_stop(world: World, count: int) -> None:
    """Its first leader sees them come and go at once; the last is the last of all."""
    names = [f"a{number}" for number in range(count)]
    world.nodes["s1"].kill()
    for name in names:
        agent(world, name)
    world.advance(1)
    for name in names:
        world.agents[name].stop()
    world.scheduler("s2")
    world.advance(30)
    assert not here(world)
    assert sorted(ran(world, "host_shutdown")) == sorted(f"down {name}" for name in names)
    assert len(ran(world, "cluster_shutdown")) == 1
    last = only(world.runs("cluster_shutdown"))
    others = [r for n in ("host_shutdown", "host_both") for r in world.runs(n).values()]
    assert all(str(r.attempts[-1].ended_at) <= last.created_at for r in others)


def test_a_crash_fires_no_shutdown_and_its_return_is_a_new_beginning(world: World) -> None:
    agent(world, "a1")
    world.advance(5)
    world.agents["a1"].kill()
    world.advance(15)
    assert stages(world) == {"a1": Stage.GONE}
    assert not all_ran(world)["host_shutdown"]
    assert not all_ran(world)["cluster_shutdown"]
    agent(world, "a1")
    world.advance(5)
    assert all_ran(world)["host_startup"] == ["up a1", "up a1"]
    assert all_ran(world)["cluster_startup"] == ["up a1", "up a1"]


def test_one_that_crashes_among_others_starts_no_cluster(world: World) -> None:
    agent(world, "a1")
    agent(world, "a2")
    world.advance(5)
    world.agents["a1"].kill()
    world.advance(15)
    agent(world, "a1")
    world.advance(5)
    assert len(all_ran(world)["cluster_startup"]) == 1
    assert len(all_ran(world)["host_startup"]) == 3


def test_a_presence_deleted_by_hand_is_no_new_incarnation(world: World) -> None:
    agent(world, "a1")
    world.advance(5)
    before = all_ran(world)
    world.remove(Kind.PRESENCE, "a1")
    world.advance(1)
    assert stages(world) == {"a1": Stage.GONE}
    world.agents["a1"].put_presence_again()
    world.advance(5)
    assert stages(world) == {"a1": Stage.HERE}
    assert all_ran(world) == before


def test_one_whose_presence_was_deleted_before_it_heard_that_it_may_go_isnt_new() -> None:
    """It puts its presence again, and goes: the cluster isn't started once more."""
    world = World()
    world.scheduler("s1")
    world.advance(0.5)
    world.apply(job("up", lifecycle=Lifecycle.CLUSTER_STARTUP))
    agent(world, "a1")
    world.advance(5)
    world.agents["a1"].stop()
    world.agents["a1"].is_cut_off = True
    world.advance(1)
    assert stages(world) == {"a1": Stage.DISMISSED}
    world.remove(Kind.PRESENCE, "a1")
    world.advance(1)
    world.agents["a1"].put_presence_again()
    world.advance(1)
    world.agents["a1"].is_cut_off = False
    world.advance(5)
    assert ran(world, "up") == ["up a1"]
    assert not here(world)


@pytest.mark.parametrize("stage", [Stage.GONE, Stage.DISMISSED])
def test_gone_agents_are_forgotten_in_time(world: World, stage: Stage) -> None:
    agent(world, "a1")
    world.advance(1)
    if stage is Stage.GONE:
        world.agents["a1"].kill()
    else:
        world.agents["a1"].stop()
    world.advance(1800)
    assert stages(world) == {"a1": stage}
    world.advance(2000)
    assert not stages(world)


def test_a_job_that_comes_later_waits_for_the_next_startup(world: World) -> None:
    agent(world, "a1")
    world.advance(5)
    world.apply(job("late", lifecycle=Lifecycle.HOST_BOTH))
    world.advance(60)
    assert not ran(world, "late")
    agent(world, "a2")
    world.advance(5)
    assert ran(world, "late") == ["up a2"]
    world.agents["a1"].stop()
    world.advance(5)
    assert ran(world, "late") == ["up a2", "down a1"]


@pytest.mark.parametrize(
    ("state", "runs"),
    [
        (JobState.ENABLED, True),
        (JobState.AD_HOC_ACTIVE, True),
        (JobState.DISABLED, False),
        (JobState.CHAIN_ACTIVE, False),
    ],
)
def test_the_state_of_the_job(world: World, state: JobState, runs: bool) -> None:
    for lifecycle in LIFECYCLES:
        world.set_state(lifecycle.value, state)
    agent(world, "a1")
    world.advance(5)
    world.agents["a1"].stop()
    world.advance(5)
    assert not here(world)
    assert all(bool(found) is runs for found in all_ran(world).values())


def test_hosts_and_labels_are_respected(world: World) -> None:
    world.apply(job("on_a1", lifecycle=Lifecycle.HOST_BOTH, hosts=("a1",)))
    world.apply(job("on_erp", lifecycle=Lifecycle.HOST_BOTH, require={"role": "erp"}))
    world.apply(job("first_on_erp", lifecycle=Lifecycle.CLUSTER_STARTUP, require={"role": "erp"}))
    agent(world, "a1")
    agent(world, "a2")
    world.advance(30)
    assert only(world.runs("first_on_erp")).state is RunState.READY
    agent(world, "a3", labels={"role": "erp"})
    world.advance(5)
    assert ran(world, "first_on_erp") == ["up a3"]
    for name in ("a1", "a2", "a3"):
        world.agents[name].stop()
    world.advance(10)
    assert ran(world, "on_a1") == ["up a1", "down a1"]
    assert ran(world, "on_erp") == ["up a3", "down a3"]


def test_the_last_is_one_that_may_run_the_clusters_shutdown(world: World) -> None:
    world.apply(job("on_erp", lifecycle=Lifecycle.CLUSTER_SHUTDOWN, require={"role": "erp"}))
    agent(world, "a1", labels={"role": "erp"}, takes_s=0.2)
    agent(world, "a2", takes_s=3.0)
    world.advance(5)
    for name in ("a1", "a2"):
        world.agents[name].stop()
    world.advance(15)
    assert not here(world)
    assert ran(world, "on_erp") == ran(world, "cluster_shutdown") == ["down a1"]


@pytest.fixture
def bare() -> World:
    """A cluster with a job for its shutdown only: whoever stops has nothing to wait for."""
    world = World()
    world.scheduler("s1")
    world.advance(0.5)
    world.apply(job("bye", lifecycle=Lifecycle.CLUSTER_SHUTDOWN))
    return world


@pytest.mark.parametrize("seated", ["a1", "a2"])
def test_the_last_is_one_that_has_a_seat(bare: World, seated: str) -> None:
    bare.put(Kind.SETTINGS, ClusterSettings(max_active_agents=1))
    agent(bare, seated)
    bare.advance(5)
    (other,) = {"a1", "a2"} - {seated}
    agent(bare, other)
    bare.advance(5)
    for name in ("a1", "a2"):
        bare.agents[name].stop()
    bare.advance(15)
    assert not here(bare)
    assert ran(bare, "bye") == [f"down {seated}"]


@pytest.mark.parametrize("drained", ["a1", "a2"])
def test_the_last_is_one_that_isnt_drained(bare: World, drained: str) -> None:
    agent(bare, "a1")
    agent(bare, "a2")
    bare.advance(5)
    bare.drain(drained)
    for name in ("a1", "a2"):
        bare.agents[name].stop()
    bare.advance(15)
    assert not here(bare)
    (other,) = {"a1", "a2"} - {drained}
    assert ran(bare, "bye") == [f"down {other}"]


def test_where_all_are_drained_none_waits_and_what_wasnt_run_is_said(world: World) -> None:
    world.apply(job("on_erp", lifecycle=Lifecycle.CLUSTER_SHUTDOWN, require={"role": "erp"}))
    agent(world, "a1", labels={"role": "erp"})
    agent(world, "a2")
    world.advance(5)
    for name in ("a1", "a2"):
        world.drain(name)
        world.agents[name].stop()
    world.advance(15)
    assert not here(world)
    run = only(world.runs("on_erp"))
    assert (run.state, run.history[-1].cause) == (RunState.MISSED, "a1 is drained")


def test_one_that_stays_lets_the_other_go(world: World) -> None:
    """Though only the other may run the cluster's shutdown: it doesn't shut down."""
    world.apply(job("on_erp", lifecycle=Lifecycle.CLUSTER_SHUTDOWN, require={"role": "erp"}))
    agent(world, "a1", labels={"role": "erp"})
    agent(world, "a2")
    world.advance(5)
    world.agents["a1"].stop()
    world.advance(5)
    assert here(world) == {"a2"}
    assert not ran(world, "on_erp")


def test_shutdown_jobs_wait_until_its_work_is_over(world: World) -> None:
    world.apply(job("backup", every_s=60, hosts=("a1",)))
    agent(world, "a1", takes_s=20.0)
    world.advance(61)
    world.agents["a1"].stop()
    world.advance(10)
    assert not world.runs("host_shutdown")
    world.advance(60)
    assert not here(world)
    backup = world.agents["a1"].spans[-1 - len(LIFECYCLES)]
    (down,) = world.runs("host_shutdown").values()
    work = [r for r in world.runs("backup").values() if r.state is RunState.COMPLETED]
    assert [r.attempts[-1].agent for r in work] == ["a1"]
    assert str(work[0].attempts[-1].ended_at) <= down.created_at
    assert backup.end_s is not None


def test_startup_jobs_come_before_other_work(world: World) -> None:
    world.apply(job("backup", every_s=5, pickup_buffer_s=600))
    agent(world, "a0", slots=0)
    world.advance(60)
    assert "ready" in world.states("backup").values()
    agent(world, "a1", slots=1)
    world.advance(30)
    first = [span.job for span in world.agents["a1"].spans[:2]]
    assert sorted(first) == ["host_both", "host_startup"]


def test_startup_jobs_come_before_what_is_asked_for_as_they_are_made() -> None:
    world = World()
    world.scheduler("s1")
    world.apply(job("mount", lifecycle=Lifecycle.HOST_STARTUP))
    world.apply(job("backup"))
    world.advance(1)
    a1 = world.agent("a1", takes_s=50.0, slots=1)
    world.nodes["s1"].look()
    world.nodes["s1"].send_all()
    world.request(trigger("20261122T120001-t", "backup"))
    world.advance(120)
    assert [span.job for span in a1.spans] == ["mount", "backup"]
    answer = world.answer("20261122T120001-t")
    assert answer is not None
    assert answer.message == "waits: the startup jobs of a1 go first"


def test_startup_jobs_come_before_what_is_moved_as_they_are_made() -> None:
    """It ran on the agent before that died, and waited for its return."""
    world = World()
    world.scheduler("s1")
    a1 = world.agent("a1", takes_s=100.0, slots=2)
    world.advance(0.5)
    for name in ("mount", "warm"):
        world.apply(job(name, lifecycle=Lifecycle.HOST_STARTUP))
    tick = At(Utc("2026-11-22T12:00:05.000Z"))
    world.apply(job("backup", tick, disconnect_grace_s=60.0))
    world.advance(6)
    a1.kill()
    world.advance(20)
    a1 = world.agent("a1", takes_s=50.0, slots=2)
    world.nodes["s1"].look()
    world.nodes["s1"].send_all()
    a1.see()
    world.advance(120)
    assert [span.job for span in a1.spans] == ["mount", "warm", "backup"]


def test_one_that_stops_before_its_startup_jobs_could_run(world: World) -> None:
    world.drain("a1")
    agent(world, "a1")
    world.advance(5)
    assert only(world.runs("host_startup")).state is RunState.READY
    world.agents["a1"].stop()
    world.advance(5)
    assert not here(world)
    run = only(world.runs("host_startup"))
    assert run.state is RunState.MISSED
    assert "stops before" in run.history[-1].cause


def test_a_drained_agent_is_started_for_once_it_may_run_something(world: World) -> None:
    world.drain("a1")
    agent(world, "a1")
    world.advance(600)
    assert only(world.runs("host_startup")).state is RunState.READY
    world.undrain("a1")
    world.advance(5)
    assert ran(world, "host_startup") == ["up a1"]


def test_a_drained_agent_goes_without_its_shutdown_jobs(world: World) -> None:
    agent(world, "a1")
    world.advance(5)
    world.drain("a1")
    world.agents["a1"].stop()
    world.advance(5)
    assert not here(world)
    run = only(world.runs("host_shutdown"))
    assert (run.state, run.history[-1].cause) == (RunState.MISSED, "a1 is drained")


@pytest.mark.parametrize("whose", ["_cluster", "host_both"])
def test_what_is_paused_starts_later_and_holds_no_shutdown_up(world: World, whose: str) -> None:
    world.pause(whose)
    agent(world, "a1")
    world.advance(600)
    assert only(world.runs("host_both")).state is RunState.READY
    world.resume(whose)
    world.advance(5)
    assert ran(world, "host_both") == ["up a1"]
    world.pause(whose)
    world.agents["a1"].stop()
    world.advance(5)
    assert not here(world)
    states = [run.state for run in world.runs("host_both").values()]
    assert sorted(state.value for state in states) == ["completed", "missed"]


def test_a_clusters_startup_waits_while_it_is_paused(world: World) -> None:
    world.pause()
    agent(world, "a1")
    world.advance(600)
    world.resume()
    world.advance(5)
    assert ran(world, "cluster_startup") == ["up a1"]


def test_a_standby_is_started_for_when_it_gets_its_seat(world: World) -> None:
    world.put(Kind.SETTINGS, ClusterSettings(max_active_agents=1))
    agent(world, "a1")
    world.advance(5)
    agent(world, "a2")
    world.advance(30)
    assert ran(world, "cluster_startup") == ["up a1"]
    states = sorted(run.state.value for run in world.runs("host_startup").values())
    assert states == ["completed", "ready"]
    world.agents["a1"].stop()
    world.advance(10)
    # a2 was there: a1 wasn't the last, and a2 isn't the first.
    assert not ran(world, "cluster_shutdown")
    assert ran(world, "cluster_startup") == ["up a1"]
    assert ran(world, "host_startup") == ["up a1", "up a2"]


def test_one_that_comes_while_the_last_one_goes_is_a_first(world: World) -> None:
    agent(world, "a1", takes_s=5.0)
    world.advance(10)
    world.agents["a1"].stop()
    world.advance(6)
    assert stages(world) == {"a1": Stage.LAST}
    agent(world, "a2")
    world.advance(10)
    assert here(world) == {"a2"}
    assert ran(world, "cluster_startup") == ["up a1", "up a2"]
    assert ran(world, "cluster_shutdown") == ["down a1"]


def test_a_shutdown_run_of_one_that_goes_all_the_same_is_over_with_it(world: World) -> None:
    agent(world, "a1")
    world.advance(5)
    world.agents["a1"].claims_nothing = True
    world.agents["a1"].stop()
    world.advance(5)
    assert only(world.runs("host_shutdown")).state is RunState.ASSIGNED
    world.agents["a1"].leave()
    world.advance(5)
    run = only(world.runs("host_shutdown"))
    assert (run.state, run.history[-1].cause) == (
        RunState.MISSED,
        "a1 was gone before it could run",
    )
    assert not world.runs("cluster_shutdown")


@pytest.mark.parametrize("claims", [True, False])
def test_one_that_stays_after_all(world: World, claims: bool) -> None:
    """What it has begun may end, what it hasn't doesn't begin; it goes properly another time."""
    agent(world, "a1")
    world.advance(5)
    world.agents["a1"].claims_nothing = not claims
    world.agents["a1"].stop()
    world.advance(0.5)
    assert only(world.runs("host_shutdown")).state is RunState.ASSIGNED
    world.agents["a1"].stay()
    world.advance(5)
    world.agents["a1"].claims_nothing = False
    assert stages(world) == {"a1": Stage.HERE}
    run = only(world.runs("host_shutdown"))
    assert run.state is (RunState.COMPLETED if claims else RunState.MISSED)
    assert claims or run.history[-1].cause == "a1 stays"
    assert not world.runs("cluster_shutdown")
    world.agents["a1"].stop()
    world.advance(5)
    assert not here(world)
    assert len(world.runs("host_shutdown")) == 2
    assert ran(world, "cluster_shutdown") == ["down a1"]


@pytest.mark.parametrize("on_loss", list(OnAgentLoss))
def test_a_startup_run_that_is_lost_is_not_run_again_elsewhere(
    world: World, on_loss: OnAgentLoss
) -> None:
    world.apply(job("mount", lifecycle=Lifecycle.HOST_STARTUP, on_agent_loss=on_loss))
    agent(world, "a1", takes_s=60.0)
    agent(world, "a2")
    world.advance(5)
    world.agents["a1"].kill()
    world.advance(30)
    agent(world, "a1")
    world.advance(30)
    states = sorted(run.state.value for run in world.runs("mount").values())
    lost = "held" if on_loss is OnAgentLoss.HOLD else "died"
    assert states == sorted(["completed", "completed", lost])
    assert all(len(run.attempts) <= 1 for run in world.runs("mount").values())


def test_a_held_shutdown_run_holds_nobody_up(world: World) -> None:
    """An operator decides about it, in their own time."""
    world.apply(job("umount", lifecycle=Lifecycle.HOST_SHUTDOWN, on_agent_loss=OnAgentLoss.HOLD))
    agent(world, "a1")
    world.advance(5)
    world.agents["a1"].ends_as = Outcome.DIED
    world.agents["a1"].stop()
    world.advance(10)
    assert not here(world)
    assert only(world.runs("umount")).state is RunState.HELD


def test_a_held_run_of_an_agent_that_is_gone_isnt_released_to_run_again(world: World) -> None:
    """It would end at once: it is about a session that is over."""
    world.apply(job("umount", lifecycle=Lifecycle.HOST_SHUTDOWN, on_agent_loss=OnAgentLoss.HOLD))
    agent(world, "a1", ends_as=Outcome.DIED)
    world.advance(5)
    world.agents["a1"].stop()
    world.advance(10)
    agent(world, "a1")
    world.advance(5)
    held = only(world.runs("umount"))
    world.request(release("r1", held.id, Release.REASSIGN, "umount"))
    world.advance(5)
    answer = world.answer("r1")
    assert answer is not None
    why = "a1 was gone before it could run: it can't run again; release it --died"
    assert (answer.accepted, answer.message) == (False, why)
    assert only(world.runs("umount")).state is RunState.HELD
    world.request(release("r2", held.id, Release.DIED, "umount"))
    world.advance(5)
    assert only(world.runs("umount")).state is RunState.DIED


def test_a_failed_shutdown_job_is_over(world: World) -> None:
    agent(world, "a1", ends_as=Outcome.FAILED)
    world.advance(5)
    world.agents["a1"].stop()
    world.advance(5)
    assert not here(world)
    assert only(world.runs("cluster_shutdown")).state is RunState.FAILED


def test_many_jobs_and_many_agents_at_once() -> None:
    """More than one transaction holds."""
    world = World()
    world.scheduler("s1")
    for number in range(50):
        world.apply(job(f"j{number}", lifecycle=Lifecycle.HOST_BOTH, keep=Keep(runs=1000)))
    names = [f"a{number}" for number in range(3)]
    for name in names:
        agent(world, name, slots=100)
    world.advance(10)
    for name in names:
        world.agents[name].stop()
    world.advance(10)
    assert not here(world)
    for number in range(50):
        found = ran(world, f"j{number}")
        assert sorted(found) == sorted(f"{way} {name}" for way in ("up", "down") for name in names)


@pytest.mark.parametrize("lifecycle", LIFECYCLES)
def test_a_job_explains_when_it_runs(world: World, lifecycle: Lifecycle) -> None:
    texts = [reason.text for reason in explained(world).of_job(record_of(world, lifecycle.value))]
    assert any(t.startswith(f"lifecycle {lifecycle.value}: it runs once on") for t in texts) or any(
        t.startswith(f"lifecycle {lifecycle.value}: it runs once when") for t in texts
    )
    assert not any("schedule" in text for text in texts)
    world.set_state(lifecycle.value, JobState.AD_HOC_ACTIVE)
    texts = [reason.text for reason in explained(world).of_job(record_of(world, lifecycle.value))]
    assert "it is ad_hoc_active: it runs only on request, and by its lifecycle" in texts
    world.set_state(lifecycle.value, JobState.DISABLED)
    texts = [reason.text for reason in explained(world).of_job(record_of(world, lifecycle.value))]
    assert texts == ["it is disabled: nothing of it runs"]


def test_a_run_explains_what_it_waits_for(world: World) -> None:
    world.drain("a1")
    agent(world, "a1")
    world.advance(5)
    run = only(world.runs("host_startup"))
    assert "a1 is drained" in explained(world).reason(("host_startup", run.id)).text
    assert explained(world).buffer_ends(run) is None


def explained(world: World) -> Explainer:
    view = View()
    Feed(world.keys, view, lambda *_: None).take(
        world.store.snapshot(world.keys.watched, world.keys.watched_end)
    )
    return Explainer(view, ms_of(world.now))


def record_of(world: World, name: str) -> Job:
    record = world.records(Kind.JOB)[(name,)].record
    assert isinstance(record, Job)
    return record


@pytest.mark.parametrize("overlap", [Overlap.QUEUE, Overlap.REPLACE])
def test_a_tick_that_meets_a_startup_run_goes_after_it(overlap: Overlap) -> None:
    world = World()
    world.scheduler("s1")
    world.advance(0.5)
    tick = At(Utc("2026-11-22T12:00:20.000Z"))
    world.apply(job("sync", tick, lifecycle=Lifecycle.HOST_STARTUP, overlap=overlap))
    world.agent("a1", takes_s=60.0)
    world.advance(25)
    world.agent("a2", takes_s=1.0)
    world.advance(120)
    runs = {run.origin: run.state for run in world.runs("sync").values() if run.host != "a2"}
    first = RunState.COMPLETED if overlap is Overlap.QUEUE else RunState.CANCELLED
    assert runs == {Origin.LIFECYCLE: first, Origin.SCHEDULE: RunState.COMPLETED}


# --- presences that a hand deletes


def test_startup_jobs_that_are_left_run_though_the_presence_was_away() -> None:
    world = World()
    world.scheduler("s1")
    world.advance(0.5)
    names = [f"up{number:02}" for number in range(45)]
    for name in names:
        world.apply(job(name, lifecycle=Lifecycle.HOST_STARTUP))
    world.advance(1)
    world.leader_dies_after = world.leader_writes + 1
    a1 = world.agent("a1", takes_s=1.0, slots=100)
    world.advance(3)
    world.remove(Kind.PRESENCE, "a1")
    world.scheduler("s2")
    world.advance(13)
    a1.put_presence_again()
    world.advance(30)
    assert [len(world.runs(name)) for name in names] == [1] * 45


@pytest.mark.parametrize("lifecycle", [Lifecycle.CLUSTER_SHUTDOWN, Lifecycle.HOST_SHUTDOWN])
def test_a_shutdown_is_retried_though_an_outage_of_its_job_has_begun(lifecycle: Lifecycle) -> None:
    """The outage waits for an agent, and the only one waits for the retry."""
    world = World()
    world.scheduler("s1")
    world.advance(0.5)
    tick = At(Utc("2026-11-22T12:00:30.000Z"))
    world.apply(job("down", tick, lifecycle=lifecycle, retry=Retry(max=2, interval_s=30.0)))
    a1 = world.agent("a1", ends_as=Outcome.FAILED, takes_s=2.0)
    world.advance(10)
    a1.stop()
    world.advance(10)
    a1.ends_as = Outcome.COMPLETED
    world.advance(60)
    assert not a1.is_alive
    assert "completed" in world.states("down").values()


def with_one_elsewhere(name: str, lifecycle: Lifecycle, *, is_held: bool) -> World:
    """``a2`` has a run of the job that was asked for: it goes on, or is held."""
    world = World()
    world.scheduler("s1")
    world.agent("a2", takes_s=3.0 if is_held else 1000.0, slots=1, ends_as=Outcome.DIED)
    world.advance(0.5)
    fields: dict[str, Any] = {"on_agent_loss": OnAgentLoss.HOLD, "hosts": ("a1", "a2")}
    retry = Retry(max=3, interval_s=5.0)
    world.apply(job(name, lifecycle=lifecycle, retry=retry, **fields))
    world.request(trigger("20261122T120001-t", name))
    world.advance(5)
    return world


@pytest.mark.parametrize("is_held", [True, False])
def test_a_shutdown_is_retried_beside_what_runs_elsewhere(is_held: bool) -> None:
    """Else an agent couldn't go as long as somebody's run of that job goes on, or is held."""
    world = with_one_elsewhere("down", Lifecycle.HOST_SHUTDOWN, is_held=is_held)
    a1 = world.agent("a1", takes_s=2.0, slots=1)
    world.advance(2)
    a1.ends_as = Outcome.FAILED
    a1.stop()
    world.advance(4)
    a1.ends_as = Outcome.COMPLETED
    world.advance(60)
    states = [state for run, state in world.states("down").items() if "@a1" in run]
    assert states == ["completed"]


@pytest.mark.parametrize("comes_again", [False, True])
@pytest.mark.parametrize("written", [1, 2, 3])
def test_a_clusters_startup_goes_on_though_leader_and_first_agent_die(
    written: int, comes_again: bool
) -> None:
    """Its runs are made in several transactions."""
    world = World()
    for number in range(45):
        world.apply(job(f"up{number:02}", lifecycle=Lifecycle.CLUSTER_STARTUP))
    world.scheduler("s1")
    world.advance(1)
    world.leader_dies_after = world.leader_writes + written
    world.agent("a1", slots=0)
    world.agent("a2", slots=50, takes_s=1.0)
    world.advance(0.1)
    world.agents["a1"].kill()
    world.advance(30)
    if comes_again:
        world.agent("a1", slots=50, takes_s=1.0)
    world.advance(1)
    world.scheduler("s2")
    world.advance(30)
    for number in range(45):
        assert list(world.states(f"up{number:02}").values()) == ["completed"]


def begun_anew_by(*names: str) -> list[int]:
    """Leader and first agent died when 20 of 45 startup jobs had their runs; then these come, and a
    leader. How many runs each job has in the end."""
    world = World()
    for number in range(45):
        world.apply(job(f"up{number:02}", lifecycle=Lifecycle.CLUSTER_STARTUP))
    world.scheduler("s1")
    world.advance(1)
    world.leader_dies_after = world.leader_writes + 1
    world.agent("a1", slots=0)
    world.advance(0.1)
    world.agents["a1"].kill()
    world.advance(30)
    for name in names:
        world.agent(name, slots=50, takes_s=1.0)
        world.advance(0.1)
    world.scheduler("s2")
    world.advance(60)
    return [len(world.states(f"up{number:02}")) for number in range(45)]


@pytest.mark.parametrize("names", [["a1"], ["a2"], ["a2", "a1"], ["a1", "a2"]])
def test_a_cluster_that_begins_anew_begins_each_of_its_jobs_once(names: list[str]) -> None:
    """What was left of the earlier beginning isn't begun besides."""
    assert begun_anew_by(*names) == [2] * 20 + [1] * 25


@pytest.mark.parametrize("others", [5, 25])
def test_a_large_cluster_that_begins_anew_begins_each_of_its_jobs_once(others: int) -> None:
    """More come than one transaction takes."""
    names = [f"b{number:02}" for number in range(others)]
    assert begun_anew_by(*names, "a1") == [2] * 20 + [1] * 25


@pytest.mark.parametrize("lifecycle", LIFECYCLES)
def test_a_resubmission_knows_what_its_original_was_for(world: World, lifecycle: Lifecycle) -> None:
    """A script that runs at both has to know which; it is bound to no incarnation, though, and an
    agent that stays runs it. So does one that is resubmitted once more."""
    seen: list[tuple[str, str | None]] = []

    def look(given: Assignment) -> None:
        env = environment_of(given, base={}, token=1, results_path="", own_user=True)
        if given.job == lifecycle.value:
            seen.append((given.run, env.get("ETCSCHED_LIFECYCLE")))

    agent(world, "a1", ends_as=Outcome.FAILED)
    world.advance(5)
    world.agents["a1"].stop()
    world.advance(10)
    agent(world, "a1", ends_as=Outcome.FAILED)
    world.advance(5)
    world.agents["a1"].on_claim = look
    for original, run in list(world.runs(lifecycle.value).items()):
        assert run.occasion is not None
        for again in ("again", "once_more"):
            request = f"{again}_{run.occasion.value}_{len(seen)}"
            world.request(resubmit(request, original, lifecycle.value))
            world.advance(5)
            ((original, told),) = seen[-1:]
            assert original.startswith(request)
            assert told == run.occasion.value
            assert world.states(lifecycle.value)[original] == "failed"


def test_a_resubmitted_startup_of_the_cluster_respects_hosts() -> None:
    """No request made its original: that was for the job's hosts, and so is this."""
    world = World()
    world.scheduler("s1")
    world.advance(0.5)
    startup = job(
        lifecycle=Lifecycle.CLUSTER_STARTUP, hosts=("a1",), hosts_for=HostsFor.SCHEDULED,
        state=JobState.AD_HOC_ACTIVE,
    )  # fmt: skip
    world.apply(startup)
    agent(world, "a1", ends_as=Outcome.FAILED)
    agent(world, "a2")
    world.advance(5)
    (original,) = world.runs("backup")
    world.agents["a1"].kill()
    world.advance(15)
    world.request(resubmit("r1", original))
    world.advance(5)
    assert world.states("backup")["r1"] == "queued"
    agent(world, "a1")
    world.advance(5)
    assert world.runs("backup")["r1"].attempts[-1].agent == "a1"


@pytest.mark.parametrize("is_held", [True, False])
def test_a_startup_is_retried_beside_what_runs_elsewhere(is_held: bool) -> None:
    """Else nothing is mounted here until an operator has decided about a run over there."""
    world = with_one_elsewhere("up", Lifecycle.HOST_STARTUP, is_held=is_held)
    a1 = world.agent("a1", takes_s=2.0, slots=1, ends_as=Outcome.FAILED)
    world.advance(4)
    a1.ends_as = Outcome.COMPLETED
    world.advance(30)
    states = [state for run, state in world.states("up").items() if "@a1" in run]
    assert states == ["completed"]


def test_the_retry_of_a_startup_waits_for_what_its_own_agent_has() -> None:
    world = World()
    world.scheduler("s1")
    world.advance(0.5)
    world.apply(job("up", lifecycle=Lifecycle.HOST_STARTUP, retry=Retry(max=3, interval_s=5.0)))
    a1 = world.agent("a1", takes_s=2.0, ends_as=Outcome.FAILED)
    world.advance(3)
    a1.ends_as, a1.takes_s = Outcome.COMPLETED, 20.0
    world.request(trigger("20261122T120003-t", "up"))
    world.advance(60)
    (asked,) = [span for span in a1.spans if span.run == "20261122T120003-t"]
    _, again = [span for span in a1.spans if span.run != "20261122T120003-t"]
    assert asked.end_s is not None
    assert asked.start_s < asked.end_s <= again.start_s
