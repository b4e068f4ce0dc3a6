"""Chains on a real cluster, whose leaders are killed in between."""

from __future__ import annotations

import json

import pytest

from etcsched.core.records import Join, Kind, Run
from etcsched.core.states import Origin, RunState
from tests.e2e.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")
SLACK_S = 5.0
"""For etcd, which ends leases twice a second, and for a busy host; the benchmark measures it."""


async def trigger(scene: Scene, job: str) -> None:
    triggered = await scene.cli("jobs", "trigger", job)
    assert triggered.code == 0, triggered


async def replace_leader(scene: Scene) -> str:
    leader = await scene.leads()
    await scene.world.kill(leader)
    return leader


async def test_a_result_goes_along_and_the_tree_shows_it(cluster: Scene) -> None:
    await cluster.apply(
        load={
            "run": cluster.beats("beats=1", "results=rows:5"),
            "results": ["rows"],
            "chain": [
                {"to": "tell", "when": {"rows": {"more_than": 4}}},
                {"to": "tell", "when": {"rows": {"more_than": 5}}},
            ],
            "notify": {
                "on": "completed",
                "run": cluster.beats("beats=1", "prints={source_job} is done"),
            },
        },
        tell={
            "run": cluster.beats("beats=1", "prints={rows} of {source_job}, {source_state}"),
            "params": {"rows": "none"},
            "state": "chain_active",
        },
    )
    await trigger(cluster, "load")
    told = await cluster.run_ended("tell")
    assert (told.state, told.origin) == (RunState.COMPLETED, Origin.CHAIN)
    assert told.attempts[-1].tail == "5 of load, completed\n"
    notified = await cluster.run_ended("load.notify")
    assert notified.attempts[-1].tail == "load is done\n"
    (load,) = cluster.ended("load")
    assert load.results == {"rows": ("5",)}
    shown = await cluster.cli("runs", "tree", f"tell/{told.id}", "--json")
    (root,) = json.loads(shown.out)["roots"]
    assert root["name"] == f"load/{load.id}"
    children = root["children"]
    assert [child["run"]["state"] if child["run"] else child["note"] for child in children] == [
        "completed",
        "its condition doesn't hold: rows is 5 (wanted: more_than 5)",
        "completed",
    ]
    await cluster.settle()


async def test_a_join_of_two_under_leaders_that_die(cluster: Scene) -> None:
    until = cluster.world.directory / "right-may-end"
    side = {"state": "chain_active", "chain": {"to": "end", "require": "all"}}
    await cluster.apply(
        begin={"run": cluster.beats("beats=1"), "chain": [{"to": "left"}, {"to": "right"}]},
        left={**side, "run": cluster.beats("beats=1", "results=l:1")},
        right={
            **side,
            "run": cluster.beats(f"until={until}", "results=r:2"),
            "disconnect_grace": "20s",
        },
        end={"run": cluster.beats("beats=1"), "state": "chain_active"},
    )
    await trigger(cluster, "begin")
    await cluster.history.until(
        lambda: cluster.history.records(Kind.JOIN, Join), "left to come to the join"
    )
    first = await replace_leader(cluster)
    await cluster.leads(unlike=first, within_s=cluster.world.ttl_s + SLACK_S)
    await cluster.world.start(first)
    # The next one dies as the last source ends: whatever it had done by then counts once.
    second = await cluster.leads()
    until.touch()
    await cluster.world.kill(second)
    await cluster.leads(unlike=second, within_s=cluster.world.ttl_s + SLACK_S)
    await cluster.world.start(second)
    end = await cluster.run_ended("end")
    assert (end.state, end.params) == (RunState.COMPLETED, {"l": "1", "r": "2"})
    assert {source.job for source in end.chained_from} == {"left", "right"}
    await cluster.settle()
    for job in ("begin", "left", "right", "end"):
        assert len(cluster.ended(job)) == len(cluster.executions(job)) == 1, job
    assert not cluster.history.records(Kind.JOIN, Join)


async def test_no_order_of_many_is_lost_or_doubled_by_a_killed_leader(cluster: Scene) -> None:
    """A row of ticks, each of which goes on to three runs, while leaders die."""
    names = ("one", "two", "three")
    targets = {
        name: {
            "run": cluster.beats("beats=1"),
            "state": "chain_active",
            "overlap": "allow",
            "pickup_buffer": "10m",
        }
        for name in names
    }
    await cluster.apply(
        **targets,
        ticks={
            "run": cluster.beats("beats=1"),
            "cron": "* * * * * *",
            "overlap": "allow",
            "recovery": "all",
            "chain": [{"to": name} for name in names],
        },
    )
    for _ in range(2):
        await cluster.runs_ended("ticks", len(cluster.ended("ticks")) + 3)
        leader = await replace_leader(cluster)
        await cluster.leads(unlike=leader, within_s=cluster.world.ttl_s + SLACK_S)
        await cluster.world.start(leader)
    await cluster.stop_schedules()
    await cluster.settle()
    ticks: list[Run] = cluster.ended("ticks")
    for name in names:
        runs = cluster.ended(name)
        assert {run.state for run in runs} == {RunState.COMPLETED}
        completed = sorted(run.id for run in ticks if run.state is RunState.COMPLETED)
        assert sorted(run.chained_from[0].run for run in runs) == completed
        assert len(cluster.executions(name)) == len(runs)
