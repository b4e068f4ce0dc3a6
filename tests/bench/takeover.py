"""How long nobody decides, or nobody runs what should run, after a node has gone."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from etcsched.core.records import Assignment, Kind, Noop, RequestKind, Shell
from etcsched.keyspace.codec import decode
from etcsched.keyspace.ops import EventType, WatchBatch
from tests.bench.bed import PATIENCE_S, Bed, job_of, kill
from tests.bench.effort import Effort
from tests.bench.results import Limit, Row, at_most
from tests.bench.scale import idle_jobs

PROBE = "probe"
REQUEST_EVERY_S = 0.005
ETCD_SLACK_S = 0.6
"""etcd looks for expired leases every 0.5 s; the rest is the work of taking over."""

CLEAN_STOP_S = 0.1
RAFT_TERM_TRUSTED_S = 1.5
"""Beyond a TTL: only then does a leader believe that a lease is lost (a young etcd leader may have
a revoke of the old one's in its log)."""


async def takeover(bed: Bed, effort: Effort) -> list[Row]:
    jobs = await bed.load(idle_jobs(effort.jobs))
    await bed.load([job_of(PROBE, Noop())])
    await bed.add_schedulers(2, ttl_s=effort.ttl_s)
    await bed.add_agents(1, slots=100, ttl_s=effort.ttl_s)
    await bed.wait_ready()
    stopped: list[float] = []
    killed: list[float] = []
    for number in range(effort.stops + effort.kills):
        if number:
            await _bring_back(bed)
        if number < effort.stops:
            stopped.append(await _to_next_dispatch_s(bed, signal.SIGTERM))
        else:
            killed.append(await _to_next_dispatch_s(bed, signal.SIGKILL))
    return [
        Row(
            group="takeover",
            measure="scheduler killed (-9), to first dispatch of the next",
            value=max(killed),
            unit="s",
            samples=tuple(killed),
            limit=Limit(text="the session's TTL", value=effort.ttl_s),
            target=at_most(effort.ttl_s + ETCD_SLACK_S),
            note=f"{jobs:,} jobs; the worst of {len(killed)}",
        ),
        Row(
            group="takeover",
            measure="scheduler stopped (SIGTERM), to first dispatch of the next",
            value=max(stopped),
            unit="s",
            samples=tuple(stopped),
            target=at_most(CLEAN_STOP_S),
            note=f"{jobs:,} jobs; the worst of {len(stopped)}",
        ),
    ]


async def _to_next_dispatch_s(bed: Bed, how: signal.Signals) -> float:
    """From the signal to the leader until an assignment of another term arrives at a watch.

    All the while there is a request to answer: one where the leader can answer none any more, one
    every 5 ms where it may still.
    """
    term, leader = await bed.term(), await bed.leader()
    assert term is not None
    assert leader is not None
    async with _first_dispatch_after(bed, term.number) as dispatched:
        bed.nodes[leader].signal(how)
        began_s = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            await bed.request(RequestKind.TRIGGER, PROBE)
            while how is not signal.SIGKILL and not dispatched.done():
                await asyncio.sleep(REQUEST_EVERY_S)
                await bed.request(RequestKind.TRIGGER, PROBE)
            took_s = await dispatched - began_s
    await bed.nodes[leader].wait()
    return took_s


async def _bring_back(bed: Bed) -> None:
    """Start whatever has ended, and wait until it has joined."""
    for node in bed.nodes.values():
        if not node.pid:
            await node.start()
    await bed.wait_ready()


@asynccontextmanager
async def _first_dispatch_after(bed: Bed, term: int) -> AsyncIterator[asyncio.Future[float]]:
    """The monotonic time at which an assignment of a later term was seen."""
    seen: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def follow() -> None:
        async with bed.etcd.watch(*bed.keys.all_of(Kind.ASSIGNMENT)) as updates:
            async for update in updates:
                is_watching.set()
                if isinstance(update, WatchBatch) and any(
                    event.type is EventType.PUT and decode(Assignment, event.kv.value).term > term
                    for event in update.events
                ):
                    seen.set_result(time.monotonic())
                    return

    is_watching = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow())
        await is_watching.wait()
        yield seen
        following.cancel()


async def agent_loss(bed: Bed, effort: Effort) -> list[Row]:
    """By what the job itself writes as it starts."""
    await bed.add_schedulers(1, ttl_s=effort.ttl_s)
    await bed.add_agents(2, slots=1, ttl_s=effort.ttl_s)
    ledger = bed.directory / "ledger"
    ledger.touch()
    await bed.wait_ready()
    await asyncio.sleep(effort.ttl_s + RAFT_TERM_TRUSTED_S)
    script = Shell(f"echo $ETCSCHED_AGENT $(date +%s.%N) >> {ledger}; exec sleep 3600")
    await bed.load([job_of("long", script)])
    await bed.request(RequestKind.TRIGGER, "long")
    samples: list[float] = []
    for number in range(effort.kills):
        if number:
            await _bring_back(bed)
        agent, _ = await _line(bed, ledger, number)
        killed_s = kill(bed.nodes[agent])
        _, started_s = await _line(bed, ledger, number + 1)
        samples.append(started_s - killed_s)
        await bed.nodes[agent].wait()
    return [
        Row(
            group="agent-loss",
            measure="agent killed (-9), to the run started elsewhere",
            value=max(samples),
            unit="s",
            samples=tuple(samples),
            limit=Limit(text="the session's TTL", value=effort.ttl_s),
            target=at_most(effort.ttl_s + ETCD_SLACK_S),
            note=f"by the job's own word; the worst of {len(samples)}",
        )
    ]


async def _line(bed: Bed, ledger: Path, number: int) -> tuple[str, float]:
    """(agent, Unix seconds) of the ledger's line of this number, from 0."""

    async def is_there() -> bool:
        return len(_lines(ledger)) > number

    await bed.until(is_there)
    agent, at_s = _lines(ledger)[number].split()
    return agent, float(at_s)


def _lines(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines()
