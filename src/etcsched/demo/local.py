"""The demonstration on one machine: a leader and a busy agent are killed while jobs run."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from etcsched.audit.history import Fault, FaultKind
from etcsched.audit.recorder import now_ms
from etcsched.audit.verdict import Bounds
from etcsched.demo.jobs import LONG_JOB
from etcsched.demo.stage import Audience, Shared, Stage, set_stage
from etcsched.demo.verdict import Verdict
from etcsched.etcd.config import EtcdConfig
from etcsched.local.cluster import LocalCluster, LocalOptions

__all__ = ["LocalDemo", "local_stage"]

TTL_S = 5
BOUNDS = Bounds(lateness_ms=2500, recovery_ms=(TTL_S + 10) * 1000)
"""A small machine runs all of it, and draws a table besides."""


@contextlib.asynccontextmanager
async def local_stage(
    cluster: LocalCluster, shared: Shared, bounds: Bounds, audience: Audience
) -> AsyncIterator[Stage]:
    """The cluster runs, and is recorded, within the block."""
    try:
        await cluster.start()
        shared.prepare()
        config = EtcdConfig(endpoints=cluster.endpoints)
        async with set_stage(config, shared, bounds, audience) as stage:
            yield stage
    finally:
        await cluster.stop()


class LocalDemo:
    """One demonstration below ``directory``, about ``seconds`` long. Everything is stopped when
    ``run`` returns or raises."""

    def __init__(self, directory: Path, audience: Audience, seconds: float = 45.0) -> None:
        self._shared = Shared(here=directory, there=directory)
        self._audience = audience
        self._seconds = seconds
        self._options = LocalOptions(directory=directory, ttl_s=TTL_S, etcd_port=0)
        self._cluster = LocalCluster(self._options, audience.log)

    async def run(self) -> Verdict:
        async with local_stage(self._cluster, self._shared, BOUNDS, self._audience) as stage:
            return await self._course(stage)

    async def _course(self, stage: Stage) -> Verdict:
        await stage.all_here(self._options.schedulers, self._options.agents)
        begin_s = time.time()
        await stage.begin_schedules()
        await _pass_until(begin_s + 0.25 * self._seconds)
        await self._kill_leader(stage)
        await _pass_until(begin_s + 0.55 * self._seconds)
        await self._kill_busy_agent(stage)
        await _pass_until(begin_s + 0.85 * self._seconds)
        await stage.stop_schedules()
        return await stage.conclude()

    async def _kill_leader(self, stage: Stage) -> None:
        leader = (await stage.look()).leader.node
        killed_s = time.monotonic()
        fault = await self._kill(stage, leader)
        stage.say(f"killed the leader, {leader}, with SIGKILL")
        after = await stage.until("a new leader", lambda v: v.leader.node not in ("", leader))
        stage.healed(fault)
        took_s = time.monotonic() - killed_s
        stage.say(f"{after.leader.node} leads, {took_s:.1f} s after the kill (TTL {TTL_S} s)")

    async def _kill_busy_agent(self, stage: Stage) -> None:
        """One that has just begun its only run, a long one. The supervisor that survives its agent
        lets runs go on until shortly before the lease ends; a short run could complete in that
        time with nobody left to say so, and would rightly be run again."""
        agent = await stage.agent_with_only(LONG_JOB)
        killed_s = time.monotonic()
        fault = await self._kill(stage, agent)
        stage.say(f"killed {agent} with SIGKILL in the middle of a {LONG_JOB}")
        await stage.until("its runs to move", lambda v: all(a.agent != agent for a in v.agents))
        stage.healed(fault)
        took_s = time.monotonic() - killed_s
        stage.say(f"its runs have moved, {took_s:.1f} s after the kill (TTL {TTL_S} s)")

    async def _kill(self, stage: Stage, node: str) -> Fault:
        """It is gone on return; the fault lasts until it is told as over."""
        began_ms, process = now_ms(), self._cluster.nodes[node]
        proof = f"process {process.pid} is gone"
        process.signal(signal.SIGKILL)
        await process.wait()
        return stage.hurt(f"kill {node}", FaultKind.KILLED, node, began_ms, proof)


async def _pass_until(wall_s: float) -> None:
    """Let the cluster work; nothing is waited for but the time."""
    await asyncio.sleep(max(0.0, wall_s - time.time()))
