"""etcd that dies and comes back, and times in which nobody leads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from etcsched.core.states import Outcome, RunState
from etcsched.etcd.binaries import EtcdBinary
from tests.e2e.scene import EVERY_SECOND, Scene
from tests.support.etcd_cluster import EtcdCluster
from tests.support.fetch_etcd import holds_roles

pytestmark = pytest.mark.asyncio(loop_scope="session")
PATIENT_TTL_S = 10
BUFFER_S = 2
MODES = ("all", "last", "none")


@pytest_asyncio.fixture(loop_scope="session")
async def patient(etcd_binary: EtcdBinary, tmp_path: Path) -> AsyncIterator[Scene]:
    """A small cluster whose sessions outlast a restart of etcd."""
    etcd = EtcdCluster(etcd_binary, tmp_path / "etcd")
    await etcd.start()
    scene = Scene(tmp_path, etcd, ttl_s=PATIENT_TTL_S)
    scene.world.add_scheduler("s1")
    scene.world.add_scheduler("s2")
    scene.world.add_agent("a1")
    await scene.open()
    yield scene
    await scene.close()


async def test_etcd_killed_and_restarted_under_load(patient: Scene) -> None:
    """Everything is late at most: no leader falls, and no run moves."""
    await patient.apply(
        busy={"run": patient.beats("beats=10"), "cron": EVERY_SECOND, "overlap": "allow"},
        longer={
            "run": patient.beats("beats=80"),
            "cron": "*/2 * * * * *",
            "overlap": "allow",
            "kill_grace": "100ms",
        },
    )
    term = patient.term
    for count in (2, 4):
        await patient.runs_ended("busy", count)
        await patient.world.etcd.restart(0)
    await patient.runs_ended("busy", 6)
    await patient.settle()
    assert patient.term == term
    for job in ("busy", "longer"):
        patient.check_all_completed(job)
        assert {len(run.attempts) for run in patient.ended(job)} == {1}
        assert len(patient.executions(job)) == len(patient.ended(job))


async def test_nobody_led_for_longer_than_a_buffer(cluster: Scene) -> None:
    """On the schedulers' return each job recovers what its mode says, and a late tick runs."""
    common = {"cron": EVERY_SECOND, "pickup_buffer": f"{BUFFER_S}s", "overlap": "queue"}
    await cluster.apply(
        **{
            f"away_{mode}": {"run": cluster.beats("beats=2"), "recovery": mode, **common}
            for mode in MODES
        }
    )
    await cluster.runs_ended("away_all", 1)
    killed_s = time.time()
    for name in cluster.world.names("scheduler"):
        await cluster.world.kill(name)
    await cluster.told(
        lambda: time.time() > killed_s + BUFFER_S + 3, "an outage longer than the buffer"
    )
    await cluster.world.start()
    await cluster.leads()
    away_s = time.time() - killed_s
    await cluster.settle()
    states = {mode: [run.state for run in cluster.ended(f"away_{mode}")] for mode in MODES}
    assert set(states["all"]) == {RunState.COMPLETED}
    missed = {mode: count_missed(cluster, f"away_{mode}") for mode in MODES}
    assert 1 <= missed["none"] <= away_s - BUFFER_S + 2
    # A late tick is the latest one of the outage: "last" then adds none.
    assert abs(missed["last"] - missed["none"]) <= 1
    assert RunState.COMPLETED in states["last"][-2:]


def count_missed(scene: Scene, job: str) -> int:
    """Ticks, not records: one may stand for several."""
    missed = [run for run in scene.ended(job) if run.state is RunState.MISSED]
    return sum(run.missed_count or 1 for run in missed)


# --- the outage proof

LEASES_ANEW_S = 45.0
"""A new leader of etcd gives all leases their whole time again; nobody leads or moves a run until
that is over."""
SHORT_TTL_S = 12
"""Of it, the margin takes 1.5 s, the last keepalive may be 3 s old, an old leader takes up to 2 s
to find that it has no followers, and the proof 2.7 s, or twice that if one poll is starved."""
AWAY_S = 2.5 * SHORT_TTL_S


@contextlib.asynccontextmanager
async def short_sessions(binary: EtcdBinary, directory: Path, members: int) -> AsyncIterator[Scene]:
    etcd = EtcdCluster(
        binary, directory / "etcd", members=members, authentication=holds_roles(binary)
    )
    await etcd.start()
    scene = Scene(directory, etcd, ttl_s=SHORT_TTL_S)
    for name in ("s1", "s2"):
        scene.world.add_scheduler(name)
    for name in ("a1", "a2"):
        scene.world.add_agent(name)
    await scene.open()
    try:
        for name in ("a1", "a2"):
            # Until then, an outage would be as good as any other loss of etcd.
            await says(scene, name, f"connected to {members} members of etcd")
        yield scene
    finally:
        await scene.close()


async def says(scene: Scene, name: str, text: str) -> None:
    log = scene.world.directory / f"{name}.log"
    await scene.told(lambda: text in log.read_text(), f"{name}: {text}")


async def starts(scene: Scene, job: str) -> Path:
    """It beats until the file is there."""
    go = scene.world.directory / f"go-{job}"
    run = scene.beats(f"until={go}", "child")
    await scene.apply(**{job: {"run": run, "kill_grace": "500ms"}})
    triggered = await scene.cli("jobs", "trigger", job)
    assert triggered.code == 0, triggered
    await scene.beating(job)
    return go


def last_beat_s(scene: Scene, job: str) -> float:
    (execution,) = scene.executions(job)
    return execution.last_ms / 1000


@pytest.mark.parametrize("members", [1, 3])
async def test_running_jobs_go_on_while_etcd_is_down(
    etcd_binary: EtcdBinary, etcd_for_users: EtcdBinary, tmp_path: Path, members: int
) -> None:
    """For longer than two sessions. One job ends meanwhile, the other after etcd is back. Of three
    members two are killed: the third says that it has no leader, to an agent's own user, too."""
    binary = etcd_binary if members == 1 else etcd_for_users
    async with short_sessions(binary, tmp_path, members) as scene:
        meanwhile, after = await starts(scene, "meanwhile"), await starts(scene, "after")
        etcd = scene.world.etcd
        killed = [0] if members == 1 else sorted({await etcd.leader(), 0, 1}, reverse=True)[:2]
        for index in killed:
            etcd.kill(index)
        down_s = time.time()
        await scene.told(
            lambda: last_beat_s(scene, "after") > down_s + AWAY_S / 2, "beats in the outage", AWAY_S
        )
        meanwhile.touch()
        await scene.told(
            lambda: last_beat_s(scene, "after") > down_s + AWAY_S, "beats in the outage", AWAY_S
        )
        for index in killed:
            await etcd.restart(index)
        after.touch()
        for job in ("meanwhile", "after"):
            run = await scene.run_ended(job, LEASES_ANEW_S)
            assert run.state is RunState.COMPLETED
            assert len(run.attempts) == 1
        (ended,) = scene.executions("meanwhile")
        assert ended.last_ms / 1000 < down_s + AWAY_S
        await scene.settle()


async def test_an_outcome_on_a_lost_disk_is_lost_and_its_run_begins_again(patient: Scene) -> None:
    """It had ended while etcd was down, and only its agent's disk knew that."""
    go, world = await starts(patient, "spooled"), patient.world
    before = patient.presence("a1")
    assert before is not None
    world.etcd.kill(0)
    go.touch()
    spool = world.directory / "a1" / "spool"
    await patient.told(lambda: bool(list(spool.glob("*.json"))), "its outcome on disk")
    supervisor = world.supervisor_pid("a1")
    await world.kill("a1")
    os.kill(supervisor, signal.SIGKILL)
    shutil.rmtree(world.directory / "a1")
    await world.etcd.restart(0)
    await patient.history.until(lambda: patient.presence("a1") is None, "its old lease to end")
    await world.start("a1")
    run = await patient.run_ended("spooled")
    assert [attempt.outcome for attempt in run.attempts] == [Outcome.DIED, Outcome.COMPLETED]
    assert len(patient.executions("spooled")) == 2
    await patient.settle()


async def test_an_old_leader_frozen_while_the_others_restart(
    etcd_binary: EtcdBinary, tmp_path: Path
) -> None:
    """Nothing is proven then: the jobs are fenced in time, and no two attempts overlap."""
    async with short_sessions(etcd_binary, tmp_path, 3) as scene:
        go = await starts(scene, "job")
        etcd = scene.world.etcd
        leader = await etcd.leader()
        others = [index for index in range(3) if index != leader]
        etcd.freeze(leader)
        for index in others:
            etcd.kill(index)
        frozen_s = time.time()
        await scene.told(
            lambda: time.time() > frozen_s + 2 * SHORT_TTL_S, "the sessions' end", AWAY_S
        )
        assert last_beat_s(scene, "job") < frozen_s + SHORT_TTL_S
        await asyncio.gather(*(etcd.restart(index) for index in others))
        etcd.thaw(leader)
        await scene.beating("job", 2, LEASES_ANEW_S)
        go.touch()
        run = await scene.run_ended("job")
        assert run.state is RunState.COMPLETED
        await scene.settle()
