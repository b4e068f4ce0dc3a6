"""Retries and replaced runs on a real cluster, whose leaders are killed in between."""

from __future__ import annotations

import pytest

from etcsched.core.records import Kind, Run
from etcsched.core.states import RunState
from etcsched.core.times import ms_of
from tests.e2e.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")
SLACK_S = 5.0
"""For etcd, which ends leases twice a second, and for a busy host; the benchmark measures it."""


async def run_in(scene: Scene, job: str, state: RunState, retries: int = 0) -> Run:
    """An active run of the job, once it is in this state."""

    def look() -> Run | None:
        for run in scene.history.records(Kind.RUN, Run).values():
            if (run.job, run.state, run.retries) == (job, state, retries):
                return run
        return None

    return await scene.history.until(look, f"a run of {job} that is {state.value}")


async def replace_leader(scene: Scene) -> None:
    leader = await scene.leads()
    await scene.world.kill(leader)
    await scene.leads(unlike=leader, within_s=scene.world.ttl_s + SLACK_S)
    await scene.world.start(leader)


async def test_it_fails_twice_and_completes_under_three_leaders(cluster: Scene) -> None:
    interval_s = 1.5
    await cluster.apply(
        flaky={
            "run": cluster.beats("beats=2", "fails=2"),
            "retry": {"max": 3, "interval": "1500ms"},
        }
    )
    triggered = await cluster.cli("jobs", "trigger", "flaky")
    assert triggered.code == 0, triggered
    for retries in (1, 2):
        waiting = await run_in(cluster, "flaky", RunState.RETRYING, retries)
        assert waiting.retry_at is not None
        await replace_leader(cluster)
    run = await cluster.run_ended("flaky")
    assert (run.state, run.retries) == (RunState.COMPLETED, 2)
    assert [attempt.outcome.value for attempt in run.attempts] == ["failed", "failed", "completed"]
    begun = cluster.executions("flaky")
    assert len(begun) == 3
    for attempt, execution in zip(run.attempts, begun[1:], strict=False):
        assert attempt.ended_at is not None
        assert execution.start_ms >= ms_of(attempt.ended_at) + interval_s * 1000
    assert len({step.term for step in run.history}) >= 3
    await cluster.settle()


async def test_a_tick_replaces_a_run_under_another_leader(cluster: Scene) -> None:
    await cluster.apply(
        endless={
            "run": cluster.beats("stubborn"),
            "cron": "*/15 * * * * *",
            "overlap": "replace",
            "kill_grace": "2s",
        }
    )
    await cluster.beating("endless")
    queued = await run_in(cluster, "endless", RunState.QUEUED)
    await replace_leader(cluster)
    first = await cluster.run_ended("endless")
    assert first.state is RunState.CANCELLED
    assert first.history[-1].cause == f"replaced by {queued.id}"
    second = await cluster.beating("endless", 2)
    assert second.run == queued.id
    await cluster.stop_schedules()
    cancelled = await cluster.cli("runs", "cancel", f"endless/{queued.id}")
    assert cancelled.code == 0, cancelled
    await cluster.settle()
