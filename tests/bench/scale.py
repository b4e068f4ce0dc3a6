"""What many jobs and many agents cost while nothing is due."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from etcsched.core.records import Job, Kind, Presence, RequestKind
from etcsched.core.schedule import Cron
from etcsched.core.times import utc_of
from etcsched.keyspace.transactions import join_presence
from etcsched.local.node import NodeProcess
from tests.bench import limits
from tests.bench.bed import PATIENCE_S, Bed, job_of, now_ms
from tests.bench.effort import AGENTS_CONNECTED, Effort
from tests.bench.processes import CPU_RESOLUTION_S, cpu_percent, resident_mb
from tests.bench.results import Limit, Row, at_most, limit_of
from tests.bench.throughput import TRUE

SETTLE_S = 1.0
QUIET = timedelta(hours=2)
"""No idle job is due within this time of now."""

CONNECT_TTL_S = 30
KEEPALIVE_EVERY_S = 10.0
GRANTS_IN_FLIGHT = 32


def idle_jobs(count: int) -> Iterator[Job]:
    """Daily ones, spread over all minutes of the day but those around now."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    free_minutes = 24 * 60 - 2 * int(QUIET.total_seconds()) // 60
    crons = []
    for number in range(free_minutes):
        at = now + QUIET + timedelta(minutes=number)
        crons.append(Cron(f"{at.minute} {at.hour} * * *"))
    for number in range(count):
        yield job_of(f"idle-{number:06}", TRUE, crons[number % free_minutes])


async def jobs(bed: Bed, effort: Effort) -> list[Row]:
    await bed.add_schedulers(1)
    scheduler = bed.nodes["scheduler-1"]
    await bed.wait_ready()
    empty_cpu, empty_mb = await _idle(scheduler, effort)
    await scheduler.stop(PATIENCE_S)
    count = await bed.load(idle_jobs(effort.jobs))
    bare: list[float] = []
    cold: list[float] = []
    for _ in range(effort.cold_starts):
        bare += await limits.measure("listing", count, bed.endpoint)
        await scheduler.stop(PATIENCE_S)
        cold.append(await _cold_start_s(bed, scheduler))
    cpu, mb = await _idle(scheduler, effort)
    size = f"{count:,} jobs"
    return [
        Row(
            group="jobs",
            measure=f"{size}: cold start to ready",
            value=statistics.median(cold),
            unit="s",
            samples=tuple(cold),
            limit=limit_of("a program that starts and reads them", bare),
            target=at_most(2.0),
            note="from the process's start to its first answer to a request",
        ),
        Row(
            group="jobs",
            measure=f"{size}: resident memory",
            value=mb,
            unit="MB",
            limit=Limit(text="the same without jobs", value=empty_mb),
            target=at_most(300.0),
        ),
        Row(
            group="jobs",
            measure=f"{size}: idle CPU",
            value=cpu,
            unit="%",
            limit=Limit(text="the same without jobs", value=empty_cpu),
            target=at_most(2.0),
            note=_period(effort),
        ),
    ]


async def agents(bed: Bed, effort: Effort) -> list[Row]:
    await bed.add_schedulers(1)
    scheduler = bed.nodes["scheduler-1"]
    await bed.wait_ready()
    alone, _ = await _idle(scheduler, effort)
    async with _connected(bed, AGENTS_CONNECTED):
        cpu, _ = await _idle(scheduler, effort)
    return [
        Row(
            group="agents",
            measure=f"{AGENTS_CONNECTED:,} agents connected: leader's CPU when nothing is due",
            value=cpu,
            unit="%",
            limit=Limit(text="the same without agents", value=alone),
            target=at_most(5.0),
            note=f"{_period(effort)}; one client process holds all their leases and presence keys",
        )
    ]


async def _idle(scheduler: NodeProcess, effort: Effort) -> tuple[float, float]:
    """CPU (percent of a processor) and memory (MB) while nothing happens."""
    await asyncio.sleep(SETTLE_S)
    cpu = await cpu_percent(scheduler.pid, effort.idle_s)
    return cpu, resident_mb(scheduler.pid)


def _period(effort: Effort) -> str:
    exact_to = 100 * CPU_RESOLUTION_S / effort.idle_s
    return f"of one processor, over {effort.idle_s:g} s, exact to {exact_to:.2f} %"


async def _cold_start_s(bed: Bed, scheduler: NodeProcess) -> float:
    """A request waits for the leader to be; that there is no such run is an answer too."""
    request = await bed.request(RequestKind.CANCEL, "idle-000000", run="none")
    key = bed.keys.of(Kind.ANSWER, request)
    async with bed.etcd.watch(key, key + "\0", start_revision=1) as updates:
        began_s = time.monotonic()
        await scheduler.start()
        async with asyncio.timeout(PATIENCE_S):
            async for update in updates:
                if getattr(update, "events", ()):
                    return time.monotonic() - began_s
    raise AssertionError("a watch goes on until it is left")


@asynccontextmanager
async def _connected(bed: Bed, count: int) -> AsyncIterator[None]:
    """So many presence keys, each with a lease of its own that is kept alive."""
    leases: list[int] = []
    left = iter(range(count))

    async def connect() -> None:
        for number in left:
            lease = (await bed.etcd.lease_grant(CONNECT_TTL_S)).lease
            presence = _presence(f"simulated-{number:04}", lease)
            await bed.etcd.txn(join_presence(bed.keys, lease, presence))
            leases.append(lease)

    async def keep_alive(lease: int, number: int) -> None:
        """Evenly spread over the period, as real agents' are by chance."""
        await asyncio.sleep(number * KEEPALIVE_EVERY_S / count)
        while True:
            await bed.etcd.lease_keepalive_once(lease)
            await asyncio.sleep(KEEPALIVE_EVERY_S)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(GRANTS_IN_FLIGHT):
            tasks.create_task(connect())
    async with asyncio.TaskGroup() as tasks:
        keeping = [
            tasks.create_task(keep_alive(lease, number)) for number, lease in enumerate(leases)
        ]
        yield
        for task in keeping:
            task.cancel()


def _presence(agent: str, lease: int) -> Presence:
    now = utc_of(now_ms())
    return Presence(
        agent=agent,
        incarnation=f"{lease:x}",
        supervisor="simulated",
        slots=4,
        host="simulated",
        pid=0,
        since=now,
        clock=now,
        version="",
        labels={"role": "simulated"},
        session_ttl_s=CONNECT_TTL_S,
    )
