"""etcd that dies and comes back, and times in which nobody leads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from etcsched.core.states import RunState
from etcsched.etcd.binaries import EtcdBinary
from tests.e2e.scene import EVERY_SECOND, Scene
from tests.support.etcd_cluster import EtcdCluster

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
    for name in cluster.world.names("scheduler"):
        await cluster.world.kill(name)
    killed_s = time.time()
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
    assert missed["last"] in (missed["none"], missed["none"] - 1)
    assert RunState.COMPLETED in states["last"][-2:]


def count_missed(scene: Scene, job: str) -> int:
    """Ticks, not records: one may stand for several."""
    missed = [run for run in scene.ended(job) if run.state is RunState.MISSED]
    return sum(run.missed_count or 1 for run in missed)
