"""What operators ask for on the command line, and what it is worth once acknowledged."""

from __future__ import annotations

import json
import time

import pytest

from etcsched.core.records import Kind, Run
from etcsched.core.states import Origin, RunState
from etcsched.keyspace.ops import EventType
from tests.e2e.scene import EVERY_SECOND, Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")
QUICK = {"kill_grace": "300ms"}


async def test_nothing_starts_after_a_pause(cluster: Scene) -> None:
    """No claim has a later revision than the pause's; what runs goes on (I14)."""
    await cluster.apply(
        paused={"run": cluster.beats("beats=5"), "cron": EVERY_SECOND, "overlap": "allow"}
    )
    await cluster.runs_ended("paused", 1)
    paused_at = await cluster.pause("paused")
    await cluster.told(lambda: time.time() % 1 > 0.9, "the end of a second")
    await cluster.told(lambda: time.time() % 1 < 0.5, "a tick that isn't due")
    claims = claim_revisions(cluster, "paused")
    assert claims
    assert max(claims) < paused_at
    assert len(cluster.executions("paused")) <= len(claims)
    await cluster.resume("paused")
    await cluster.history.until(
        lambda: max(claim_revisions(cluster, "paused")) > paused_at, "a claim after the pause"
    )
    await cluster.settle()
    cluster.check_all_completed("paused")


def claim_revisions(scene: Scene, job: str) -> list[int]:
    prefix = scene.keys.of(Kind.REPORT)
    return [
        event.kv.mod_revision
        for event in scene.history.events
        if event.type is EventType.PUT
        and event.kv.key.startswith(prefix)
        and f"/{job}/" in event.kv.key
        and event.kv.version == 1
    ]


async def test_the_whole_cluster_pauses(cluster: Scene) -> None:
    await cluster.apply(whole={"run": cluster.beats("beats=1")})
    assert (await cluster.cli("pause")).code == 0
    refused = await cluster.cli("jobs", "trigger", "whole")
    assert refused.code == 5
    assert "paused" in refused.err
    assert (await cluster.cli("resume")).code == 0
    assert (await cluster.cli("jobs", "trigger", "whole", "--wait")).code == 0
    assert len(cluster.executions("whole")) == 1
    await cluster.settle()


async def test_a_drained_agent_gets_nothing(cluster: Scene) -> None:
    await cluster.apply(drained={"run": cluster.beats("beats=1"), "hosts": ["a2"]})
    assert (await cluster.cli("agents", "drain", "a2")).code == 0
    assert (await cluster.cli("jobs", "trigger", "drained")).code == 0
    assert cluster.executions("drained") == []
    assert cluster.history.ids(Kind.ASSIGNMENT) == set()
    assert (await cluster.cli("agents", "undrain", "a2")).code == 0
    run = await cluster.run_ended("drained")
    assert [attempt.agent for attempt in run.attempts] == ["a2"]
    await cluster.settle()


async def test_cancelling_ends_the_whole_tree(cluster: Scene) -> None:
    await cluster.apply(tree={"run": cluster.beats("child", "stubborn"), **QUICK})
    assert (await cluster.cli("jobs", "trigger", "tree")).code == 0
    await cluster.beating("tree")
    await cluster.told(lambda: len(cluster.processes()) == 2, "both processes")
    _, report = await cluster.claimed("tree")
    cancelled = await cluster.cli("runs", "cancel", f"tree/{report.run}")
    assert cancelled.code == 0, cancelled
    run = await cluster.run_ended("tree")
    assert run.state is RunState.CANCELLED
    assert cluster.processes() == []
    waited = await cluster.cli("runs", "wait", f"tree/{report.run}")
    assert waited.code == 1
    await cluster.settle()


async def test_a_timeout_ends_a_run(cluster: Scene) -> None:
    await cluster.apply(slow={"run": cluster.beats("child"), "timeout": "4s", **QUICK})
    waited = await cluster.cli("jobs", "trigger", "slow", "--wait")
    assert waited.code == 1
    assert "timed_out" in waited.out + waited.err
    (run,) = cluster.ended("slow")
    assert run.state is RunState.TIMED_OUT
    (execution,) = cluster.executions("slow")
    assert execution.last_ms - execution.start_ms < 8000
    await cluster.settle()


async def test_triggering_and_waiting(cluster: Scene) -> None:
    await cluster.apply(
        good={"run": cluster.beats("beats=3"), "params": {"month": "10"}},
        bad={"run": cluster.beats("beats=1", "exit=3")},
    )
    good = await cluster.cli("jobs", "trigger", "good", "--wait")
    assert good.code == 0, good
    assert "completed" in good.out
    (run,) = cluster.ended("good")
    assert (run.origin, run.state) == (Origin.REQUEST, RunState.COMPLETED)
    bad = await cluster.cli("jobs", "trigger", "bad", "--wait", "--json")
    assert bad.code == 1
    (run,) = cluster.ended("bad")
    assert run.attempts[0].exit_code == 3
    shown = await cluster.cli("runs", "list", "bad", "--json")
    assert [found["run"]["id"] for found in json.loads(shown.out)] == [run.id]
    await cluster.settle()


async def test_disabling_a_job_stops_its_ticks(cluster: Scene) -> None:
    await cluster.apply(shut={"run": cluster.beats("beats=1"), "cron": EVERY_SECOND})
    await cluster.runs_ended("shut", 1)
    await cluster.apply(shut={"run": cluster.beats("beats=1"), "cron": None, "state": "disabled"})
    stopped_at = cluster.history.now[cluster.keys.of(Kind.JOB, "shut")].mod_revision
    refused = await cluster.cli("jobs", "trigger", "shut")
    assert refused.code == 5
    await cluster.settle()
    assert max(claim_revisions(cluster, "shut")) < stopped_at


async def test_a_deleted_job_leaves_its_history(cluster: Scene) -> None:
    await cluster.apply(gone={"run": cluster.beats("beats=1")})
    assert (await cluster.cli("jobs", "trigger", "gone", "--wait")).code == 0
    assert (await cluster.cli("jobs", "delete", "gone", "--yes")).code == 0
    refused = await cluster.cli("jobs", "trigger", "gone")
    assert refused.code == 4
    key = cluster.keys.of(Kind.JOB, "gone")
    await cluster.history.until(lambda: key not in cluster.history.now, "the job's record to go")
    (run,) = cluster.ended("gone")
    shown = await cluster.cli("runs", "show", f"gone/{run.id}")
    assert shown.code == 0
    await cluster.settle()


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("no_program", {"run": {"exec": ["/no/such/program"]}}, "/no/such/program"),
        ("no_user", {"run": {"exec": ["true"]}, "user": "nobody-has-this-name"}, "nobody-has"),
        ("no_directory", {"run": {"exec": ["true"]}, "workdir": "/no/such/dir"}, "/no/such/dir"),
    ],
)
async def test_what_cant_be_started_says_why(
    cluster: Scene, name: str, fields: dict[str, object], reason: str
) -> None:
    await cluster.apply(**{name: {"pickup_buffer": "1s", **fields}})
    waited = await cluster.cli("jobs", "trigger", name, "--wait")
    assert waited.code == 1, waited
    run = _newest(cluster, name)
    assert run.state in (RunState.FAILED, RunState.MISSED, RunState.ABANDONED)
    shown = await cluster.cli("runs", "show", f"{name}/{run.id}")
    if name != "no_user":
        assert reason in shown.out, shown.out
    assert "Traceback" not in shown.out + waited.out + waited.err
    await cluster.settle()


def _newest(scene: Scene, job: str) -> Run:
    return scene.ended(job)[-1]
