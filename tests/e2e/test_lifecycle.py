"""Jobs at startups and shutdowns, of real agents under real signals."""

from __future__ import annotations

import asyncio
import signal

import pytest

from etcsched.core.records import Kind, Live, Run
from etcsched.core.states import Occasion, RunState, Stage
from tests.e2e.conftest import AGENTS, SCHEDULERS
from tests.e2e.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")
STOPS_WITHIN_S = 90.0
SAYS_WHEN = {"shell": 'echo "$ETCSCHED_LIFECYCLE"'}


async def tell_to_stop(scene: Scene, *agents: str) -> None:
    for agent in agents:
        scene.world.nodes[agent].signal(signal.SIGTERM)


async def have_stopped(scene: Scene, *agents: str) -> None:
    async with asyncio.timeout(STOPS_WITHIN_S):
        codes = [await scene.world.nodes[agent].wait() for agent in agents]
    assert codes == [0] * len(agents)


async def at(scene: Scene, job: str, occasion: Occasion, count: int) -> list[Run]:
    """The job's completed runs of this occasion, once there are so many."""

    def look() -> list[Run] | None:
        found = [run for run in scene.ended(job) if run.occasion is occasion]
        return found if len(found) >= count else None

    runs = await scene.history.until(look, f"{count} {occasion.value} of {job}")
    assert [run.state for run in runs] == [RunState.COMPLETED] * count
    return runs


def stage_of(scene: Scene, agent: str) -> Stage | None:
    live = scene.history.record(Kind.LIVE, Live, agent)
    return live.stage if live is not None else None


async def test_all_agents_stop_at_once_and_come_back(cluster: Scene) -> None:
    await cluster.apply(
        host_life={"run": SAYS_WHEN, "lifecycle": "host_both"},
        whole_life={"run": SAYS_WHEN, "lifecycle": "cluster_both"},
    )
    await tell_to_stop(cluster, *AGENTS)
    await have_stopped(cluster, *AGENTS)
    downs = await at(cluster, "host_life", Occasion.HOST_SHUTDOWN, 3)
    assert sorted(run.attempts[-1].agent for run in downs) == list(AGENTS)
    (last,) = await at(cluster, "whole_life", Occasion.CLUSTER_SHUTDOWN, 1)
    assert last.attempts[-1].tail == "cluster_shutdown\n"
    assert all(str(run.attempts[-1].ended_at) <= last.created_at for run in downs)

    await cluster.world.start()
    await cluster.all_here()
    ups = await at(cluster, "host_life", Occasion.HOST_STARTUP, 3)
    assert sorted(run.attempts[-1].agent for run in ups) == list(AGENTS)
    assert {run.attempts[-1].tail for run in ups} == {"host_startup\n"}
    (first,) = await at(cluster, "whole_life", Occasion.CLUSTER_STARTUP, 1)
    shown = await cluster.cli("runs", "show", f"host_life/{ups[0].id}")
    assert f"host_startup: {ups[0].host} has come" in shown.out, shown

    await cluster.world.kill("a2")
    await cluster.history.until(
        lambda: stage_of(cluster, "a2") is Stage.GONE, "the leader to see a2 gone"
    )
    await cluster.world.start("a2")
    await at(cluster, "host_life", Occasion.HOST_STARTUP, 4)
    await cluster.settle()
    assert len(cluster.ended("host_life")) == 7
    assert {run.id for run in cluster.ended("whole_life")} == {first.id, last.id}


async def test_leaders_die_while_all_agents_stop(cluster: Scene) -> None:
    world = cluster.world
    hosts, whole = world.directory / "go-hosts", world.directory / "go-whole"
    await cluster.apply(
        farewell={"run": cluster.beats(f"until={hosts}"), "lifecycle": "host_shutdown"},
        lights_out={"run": cluster.beats(f"until={whole}"), "lifecycle": "cluster_shutdown"},
    )
    await tell_to_stop(cluster, *AGENTS)
    await cluster.beating("farewell", 3)
    listed = await world.cli("agents", "list", "--json")
    assert listed.out.count('"stopping"') == 3, listed
    first = await cluster.leads()
    await world.kill(first)
    hosts.touch()
    await cluster.beating("lights_out")
    second = await cluster.leads(unlike=first)
    await world.kill(second)
    await cluster.leads(unlike=second)
    whole.touch()
    await have_stopped(cluster, *AGENTS)
    await at(cluster, "farewell", Occasion.HOST_SHUTDOWN, 3)
    await at(cluster, "lights_out", Occasion.CLUSTER_SHUTDOWN, 1)
    assert len(cluster.executions("farewell")) == 3
    assert len(cluster.executions("lights_out")) == 1
    await world.start()
    await cluster.all_here()
    await cluster.settle()
    assert len(cluster.ended("farewell")) == 3
    assert len(cluster.ended("lights_out")) == 1


async def test_without_any_leader_an_agent_goes_all_the_same(cluster: Scene) -> None:
    await cluster.apply(parting={"run": SAYS_WHEN, "lifecycle": "host_shutdown"})
    for name in SCHEDULERS:
        await cluster.world.kill(name)
    await tell_to_stop(cluster, "a1")
    await have_stopped(cluster, "a1")
    await cluster.world.start()
    await cluster.all_here()
    await cluster.settle()
    assert not cluster.ended("parting")


async def test_what_takes_too_long_is_ended(cluster: Scene) -> None:
    """And the agent goes, since its time is over."""
    cluster.world.add_agent("hasty", "--shutdown-timeout=5s")
    await cluster.apply(
        endless_end={
            "run": cluster.beats(), "lifecycle": "host_shutdown", "hosts": ["hasty"],
            "kill_grace": "500ms",
        }
    )  # fmt: skip
    await cluster.world.start("hasty")
    await cluster.history.until(
        lambda: stage_of(cluster, "hasty") is Stage.HERE, "the leader to see hasty"
    )
    await tell_to_stop(cluster, "hasty")
    await have_stopped(cluster, "hasty")
    run = await cluster.run_ended("endless_end")
    assert (run.state, run.attempts[-1].reason) == (RunState.DIED, "the agent was stopped")
    del cluster.world.nodes["hasty"]
    await cluster.settle()
