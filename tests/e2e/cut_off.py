"""Run by ``test_cut_off`` in a network namespace. Agent a1 has a group id of its own, by which the
firewall knows its packets."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from etcsched.audit.history import FaultKind
from etcsched.core.records import Run
from etcsched.core.states import Outcome, RunState
from etcsched.etcd.binaries import EtcdBinary
from tests.e2e.scene import Scene
from tests.support.etcd_cluster import EtcdCluster

pytestmark = pytest.mark.asyncio(loop_scope="session")
GROUP = "61234"
TTL_S = 8
AS_GROUP = (shutil.which("setpriv") or "", f"--regid={GROUP}", "--clear-groups")


@contextlib.asynccontextmanager
async def cluster(binary: EtcdBinary, directory: Path) -> AsyncIterator[Scene]:
    etcd = EtcdCluster(binary, directory / "etcd", members=3)
    await etcd.start()
    scene = Scene(directory, etcd, ttl_s=TTL_S)
    scene.world.add_scheduler("s1")
    scene.world.add_agent("a1", wrap=AS_GROUP)
    await scene.open()
    try:
        yield scene
    finally:
        await scene.close()


async def runs_on_a1(scene: Scene) -> Path:
    go = scene.world.directory / "go"
    await scene.apply(job={"run": scene.beats(f"until={go}", "child"), "kill_grace": "500ms"})
    triggered = await scene.cli("jobs", "trigger", "job")
    assert triggered.code == 0, triggered
    await scene.beating("job")
    scene.world.add_agent("a2")
    await scene.world.start("a2")
    await scene.all_here()
    return go


def firewall(action: str, *target: str) -> None:
    rule = ["OUTPUT", "-p", "tcp", "-m", "owner", "--gid-owner", GROUP, "-j", *target]
    subprocess.run(["iptables", action, *rule], check=True)


def cut_off(scene: Scene, *target: str) -> None:
    began_ms = time.time_ns() // 1_000_000
    firewall("-I", *target)
    firewall("-C", *target)
    scene.world.begin_fault(FaultKind.CUT_OFF, "a1", began_ms, "the firewall has the rule")


def heal(scene: Scene, *target: str) -> None:
    firewall("-D", *target)
    scene.world.end_fault("a1")


async def is_fenced_and_moves(scene: Scene, go: Path) -> None:
    """I3, that no two attempts overlap, is judged by ``settle``."""
    await scene.beating("job", 2)
    go.touch()  # noqa: ASYNC240
    run = await scene.run_ended("job")
    assert run.state is RunState.COMPLETED
    assert [(a.agent, a.outcome) for a in run.attempts] == [
        ("a1", Outcome.DIED),
        ("a2", Outcome.COMPLETED),
    ]
    first, second = scene.executions("job")
    assert first.last_ms < second.start_ms


async def cut_off_by(binary: EtcdBinary, directory: Path, *target: str) -> None:
    async with cluster(binary, directory) as scene:
        go = await runs_on_a1(scene)
        cut_off(scene, *target)
        await is_fenced_and_moves(scene, go)
        heal(scene, *target)

        await is_told_late(scene)
        await scene.settle()


async def is_told_late(scene: Scene) -> None:
    """The agent is back, and what it says of the attempt that it lost is in the run's record."""

    def late() -> Run | None:
        (run,) = scene.ended("job")
        return run if run.late_reports else None

    await scene.history.until(late, "the late report")


async def test_dropped(etcd_binary: EtcdBinary, tmp_path: Path) -> None:
    await cut_off_by(etcd_binary, tmp_path, "DROP")


async def test_reset(etcd_binary: EtcdBinary, tmp_path: Path) -> None:
    """Established connections are reset, new ones are refused: just as if etcd had died."""
    await cut_off_by(etcd_binary, tmp_path, "REJECT", "--reject-with", "tcp-reset")


async def test_refused(etcd_binary: EtcdBinary, tmp_path: Path) -> None:
    await cut_off_by(etcd_binary, tmp_path, "REJECT", "--reject-with", "icmp-port-unreachable")


async def test_one_down(etcd_binary: EtcdBinary, tmp_path: Path) -> None:
    """One of three is surely down, the other two seem to be."""
    target = ("REJECT", "--reject-with", "tcp-reset")
    async with cluster(etcd_binary, tmp_path) as scene:
        go = await runs_on_a1(scene)
        scene.world.etcd.kill(2)
        cut_off(scene, *target)
        await is_fenced_and_moves(scene, go)
        heal(scene, *target)
        await scene.world.etcd.restart(2)
        await is_told_late(scene)
        await scene.settle()
