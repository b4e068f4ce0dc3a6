"""Jobs of one conflict group on real etcd: by their own beats they are never there at once."""

from __future__ import annotations

import pytest

from etcsched.audit.truth import Execution
from etcsched.core.records import Kind, Run
from etcsched.core.states import RunState
from tests.e2e.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")


def in_turn(executions: list[Execution]) -> list[str]:
    """Their jobs, in the order in which they began; each was silent before the next began."""
    for number, before in enumerate(executions):
        for after in executions[number + 1 :]:
            assert before.job == after.job or before.last_ms <= after.start_ms, (before, after)
    return [execution.job for execution in executions]


async def test_a_group_across_killed_leaders_and_agents(cluster: Scene) -> None:
    steady = {"run": cluster.beats("beats=10"), "cron": "*/2 * * * * *", "overlap": "queue"}
    await cluster.group("one", "left_hand", "middle")
    await cluster.group("two", "right_hand", "middle")
    await cluster.apply(left_hand=steady, middle=steady, right_hand=steady)
    for _ in range(2):
        await cluster.beating("middle", len(cluster.executions("middle")) + 1)
        leader = cluster.leader()
        assert leader is not None
        await cluster.world.kill(leader)
        await cluster.leads(unlike=leader)
        await cluster.world.start(leader)
    agent, _ = await cluster.claimed("middle")
    await cluster.world.kill(agent)
    await cluster.beating("middle", len(cluster.executions("middle")) + 2)
    await cluster.world.start(agent)
    await cluster.settle()
    for job in ("left_hand", "middle", "right_hand"):
        cluster.check_all_completed(job)
    in_turn([found for found in cluster.executions() if found.job in ("left_hand", "middle")])
    in_turn([found for found in cluster.executions() if found.job in ("right_hand", "middle")])
    await cluster.ungroup("one")
    await cluster.ungroup("two")


async def test_a_group_that_comes_while_its_jobs_run(cluster: Scene) -> None:
    file = cluster.world.directory / "both-may-end"
    on_request = {"run": cluster.beats(f"until={file}")}
    await cluster.apply(first=on_request, second=on_request)
    for job in ("first", "second"):
        assert (await cluster.cli("jobs", "trigger", job)).code == 0
        await cluster.beating(job)
    await cluster.group("late", "first", "second")
    assert (await cluster.cli("jobs", "trigger", "first")).code == 0

    def is_blocked() -> bool:
        runs = cluster.history.records(Kind.RUN, Run).values()
        return any(run.state is RunState.CONFLICTED for run in runs)

    await cluster.history.until(is_blocked, "a blocked run")
    file.touch()
    await cluster.runs_ended("first", 2)
    *_, last = cluster.executions("first")
    assert all(found.last_ms <= last.start_ms for found in cluster.executions("second"))
    await cluster.settle()
    await cluster.ungroup("late")
