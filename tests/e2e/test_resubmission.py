"""Resubmission on a real cluster: one run, and thousands while the leader is killed."""

from __future__ import annotations

import asyncio
import json

import pytest

from etcsched.core.records import Job, Kind, Run
from etcsched.core.states import RunState
from tests.e2e.past import put_past_runs
from tests.e2e.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")
MANY = 1500


async def test_a_failed_run_is_resubmitted(cluster: Scene) -> None:
    await cluster.apply(once={"run": cluster.beats("beats=1", "exit=3"), "params": {"a": "1"}})
    assert (await cluster.cli("jobs", "trigger", "once", "--wait")).code == 1
    failed = await cluster.run_ended("once")
    name = f"once/{failed.id}"
    await cluster.apply(once={"run": cluster.beats("beats=1")})
    asked = await cluster.cli("runs", "resubmit", name, "--param", "b=2", "--json")
    assert asked.code == 0, asked
    (said,) = json.loads(asked.out)
    assert (await cluster.cli("runs", "wait", said["new_run"])).code == 0
    again = cluster.history.archive["once", said["new_run"].split("/")[1]]
    assert (again.state, again.resubmits) == (RunState.COMPLETED, failed.id)
    assert again.params == {"a": "1", "b": "2"}
    refused = await cluster.cli("runs", "resubmit", said["new_run"])
    assert refused.code == 5
    assert "is completed; the settings allow failed, " in refused.err
    await cluster.settle()


async def test_a_bulk_goes_on_under_the_next_leader(cluster: Scene) -> None:
    await cluster.apply(many={"run": cluster.beats("beats=1"), "keep": {"runs": 100_000}})
    originals = await put_past_runs(cluster, "many", MANY)
    await cluster.pause("many")
    leader = await cluster.leads()
    args = ("--timeout", "20s", "runs", "resubmit", "--job", "many", "--yes", "--json")
    async with asyncio.TaskGroup() as group:
        bulk = group.create_task(cluster.cli(*args))
        await cluster.history.until(
            lambda: len(cluster.history.ids(Kind.ANSWER)) > MANY // 5, "a part of the answers"
        )
        await cluster.world.kill(leader)
        answered = len(cluster.history.ids(Kind.ANSWER))
        assert answered < MANY
        await cluster.leads(unlike=leader)
    done = bulk.result()
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert [each["run"] for each in said] == [f"many/{run.id}" for run in originals]
    waiting = {
        ids[1]: run
        for ids, run in cluster.history.records(Kind.RUN, Run).items()
        if run.job == "many"
    }
    assert {run.resubmits for run in waiting.values()} == {run.id for run in originals}
    assert len(waiting) == MANY
    for run in originals:
        (link,) = cluster.history.archive["many", run.id].resubmitted_as
        assert waiting[link].resubmits == run.id
        assert waiting[link].scheduled_at == run.scheduled_at
    assert len({run.history[0].term for run in waiting.values()}) >= 2
    assert (await cluster.cli("jobs", "delete", "many", "--yes")).code == 0
    await cluster.history.until(
        lambda: cluster.history.record(Kind.JOB, Job, "many") is None, "the job's end", 60.0
    )
    await cluster.world.start(leader)
    await cluster.settle()
