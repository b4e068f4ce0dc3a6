"""A long demonstration on one machine: random faults, one upon another, as long as is wanted."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from etcsched.audit.history import FaultKind
from etcsched.audit.recorder import now_ms
from etcsched.audit.verdict import Bounds, Invariant
from etcsched.core.errors import EtcschedError
from etcsched.demo.local import local_stage
from etcsched.demo.stage import Audience, Shared, Stage, patiently
from etcsched.demo.verdict import Verdict
from etcsched.local.cluster import LocalCluster, LocalOptions

__all__ = ["Soak"]

TTL_S = 5
BOUNDS = Bounds(lateness_ms=3000, recovery_ms=(TTL_S + 15) * 1000)
MEAN_PAUSE_S = 8.0
"""Between the beginnings of two faults; many last longer."""
MOST_AT_ONCE = 3
DRAIN_S = 120.0
ETCD = "etcd"
_LOST = frozenset({Invariant.I1, Invariant.I7, Invariant.I9, Invariant.I15})
_DOUBLED = frozenset({Invariant.I3, Invariant.I4, Invariant.I6})


class _Hurt(msgspec.Struct, frozen=True):
    """``at``: a node's role, ``leader`` or ``etcd``. ``for_s``: the shortest and the longest."""

    weight: float
    at: str
    kind: FaultKind
    for_s: tuple[float, float]


_HURTS = (
    _Hurt(3, "leader", FaultKind.KILLED, (0.1, 15)),
    _Hurt(1, "scheduler", FaultKind.KILLED, (0.1, 15)),
    _Hurt(2, "leader", FaultKind.FROZEN, (0.5, 3 * TTL_S)),
    _Hurt(4, "agent", FaultKind.KILLED, (0.1, 3 * TTL_S)),
    _Hurt(2, "agent", FaultKind.FROZEN, (0.5, 3 * TTL_S)),
    _Hurt(1, ETCD, FaultKind.KILLED, (0.1, 10)),
    _Hurt(1, ETCD, FaultKind.FROZEN, (0.2, 4)),
)


class Soak:
    """Random faults for ``minutes`` below ``directory``; ``seed`` decides which, though not what
    comes of them. Everything is stopped when ``run`` returns or raises."""

    def __init__(self, directory: Path, audience: Audience, minutes: float, seed: int) -> None:
        self._shared = Shared(here=directory, there=directory)
        self._audience = audience
        self._seconds = 60 * minutes
        self._chance = random.Random(seed)
        self._options = LocalOptions(directory=directory, ttl_s=TTL_S, etcd_port=0)
        self._cluster = LocalCluster(self._options, audience.log)
        self._hurt: set[str] = set()
        self._count = 0

    async def run(self) -> Verdict:
        async with local_stage(self._cluster, self._shared, BOUNDS, self._audience) as stage:
            try:
                return _by_the_audit(await self._course(stage))
            finally:
                self._thaw_all()  # What stands still can't be stopped.

    async def _course(self, stage: Stage) -> Verdict:
        await stage.all_here(self._options.schedulers, self._options.agents)
        await stage.begin_schedules()
        end_s = time.monotonic() + self._seconds
        async with asyncio.TaskGroup() as hurting:
            while time.monotonic() < end_s:
                await asyncio.sleep(self._chance.expovariate(1 / MEAN_PAUSE_S))
                (hurt,) = self._chance.choices(_HURTS, [hurt.weight for hurt in _HURTS])
                for_s = self._chance.uniform(*hurt.for_s)
                target = await self._target_of(hurt, stage)
                if target and target not in self._hurt and len(self._hurt) < MOST_AT_ONCE:
                    hurting.create_task(self._suffer(stage, hurt.kind, target, for_s))
        await stage.all_here(self._options.schedulers, self._options.agents)
        stage.say(f"{self._count} faults are over")
        # What the faults held up is queued.
        await stage.stop_schedules(within_s=DRAIN_S + self._seconds / 4)
        return await stage.conclude()

    async def _target_of(self, hurt: _Hurt, stage: Stage) -> str:
        """Empty: there is none now."""
        if hurt.at == "leader":
            try:
                return (await stage.look()).leader.node
            except EtcschedError:
                return ""  # etcd itself is down, or nobody leads.
        if hurt.at == ETCD:
            return ETCD
        return self._chance.choice(
            [n.name for n in self._cluster.nodes.values() if n.role == hurt.at]
        )

    async def _suffer(self, stage: Stage, kind: FaultKind, target: str, for_s: float) -> None:
        self._hurt.add(target)
        self._count += 1
        began_ms = now_ms()
        is_kill = kind is FaultKind.KILLED
        proof = await (self._kill(target) if is_kill else self._freeze(target))
        told = FaultKind.ETCD if target == ETCD else kind
        fault = stage.hurt(f"{self._count} {target}", told, target, began_ms, proof)
        stage.say(f"{kind.value} for {for_s:.1f} s: {target}")
        await asyncio.sleep(for_s)
        if is_kill:
            await self._start(target)
        else:
            os.kill(self._pid_of(target), signal.SIGCONT)
        stage.healed(fault)
        self._hurt.discard(target)

    # --- one node, or etcd

    def _pid_of(self, target: str) -> int:
        if target == ETCD:
            return self._cluster.etcd.members[0].pid
        return self._cluster.nodes[target].pid

    async def _kill(self, target: str) -> str:
        pid = self._pid_of(target)
        if target == ETCD:
            self._cluster.etcd.members[0].kill()
        else:
            self._cluster.nodes[target].signal(signal.SIGKILL)
            await self._cluster.nodes[target].wait()
        return f"process {pid} is gone"

    async def _freeze(self, target: str) -> str:
        pid = self._pid_of(target)
        os.kill(pid, signal.SIGSTOP)
        await patiently(f"process {pid} to stand still", _stands_still(pid))
        return f"process {pid} is stopped"

    async def _start(self, target: str) -> None:
        if target == ETCD:
            await self._cluster.etcd.start_again(0)
        else:
            await self._cluster.nodes[target].start()

    def _thaw_all(self) -> None:
        for target in self._hurt:
            if pid := self._pid_of(target):
                os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> Callable[[], Awaitable[bool | None]]:
    stat = Path(f"/proc/{pid}/stat")

    def state() -> str:
        return stat.read_text().rpartition(")")[2].split()[0]

    async def look() -> bool | None:
        return state() == "T" or None

    return look


def _by_the_audit(verdict: Verdict) -> Verdict:
    """A process that completed when its agent was gone, and nobody could say so, is rightly run
    again; and a run whose process a fault killed rightly ends otherwise. What no fault excuses, the
    auditor names. Of an hour's runs history has only the newest."""
    violations = verdict.audit.violations
    return replace(
        verdict,
        completed=verdict.ended,
        lost=tuple(v.text for v in violations if v.invariant in _LOST),
        doubled=tuple(v.text for v in violations if v.invariant in _DOUBLED),
    )
