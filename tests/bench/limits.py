"""The limits that the measures stand beside: what bare programs reach on the same machine and the
same etcd. Each runs as a process of its own, which does nothing else, and prints its samples:

    python -m tests.bench.limits spawns 500
    python -m tests.bench.limits transactions 5000 127.0.0.1:2379
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable

SPAWNS_IN_FLIGHT = 16


async def _spawn() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        "/bin/true",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def spawn_rate(count: int, _endpoint: str) -> list[float]:
    """Processes per second, from spawn to exit."""
    left = iter(range(count))

    async def spawn_until_done() -> None:
        for _ in left:
            assert await (await _spawn()).wait() == 0

    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(SPAWNS_IN_FLIGHT):
            tasks.create_task(spawn_until_done())
    return [count / (time.perf_counter() - began_s)]


async def spawn_burst(count: int, _endpoint: str) -> list[float]:
    """Milliseconds until the last of ``count`` processes has started."""
    began_s = time.perf_counter()
    started = await asyncio.gather(*(_spawn() for _ in range(count)))
    took_ms = 1000 * (time.perf_counter() - began_s)
    for process in started:
        await process.wait()
    return [took_ms]


async def starts(count: int, endpoint: str) -> list[float]:
    """Milliseconds for what no start can do without: two commits (run and claim), one after the
    other, and a spawn; ``count`` times."""
    from etcsched.etcd.client import EtcdClient
    from etcsched.etcd.config import EtcdConfig
    from etcsched.keyspace.ops import Put, Txn

    samples = []
    async with EtcdClient(EtcdConfig(endpoints=(endpoint,))) as etcd:
        txn = Txn((), (Put("/bare/start", b"x" * 500),))
        for turn in range(count + 10):
            began_s = time.perf_counter()
            await etcd.txn(txn)
            await etcd.txn(txn)
            process = await _spawn()
            if turn >= 10:  # The first ones warm up connections and caches.
                samples.append(1000 * (time.perf_counter() - began_s))
            await process.wait()
    return samples


async def transactions(count: int, endpoint: str) -> list[float]:
    """Runs per second whose four transactions are built and committed, batched like a node's."""
    from tests.bench.bare_runs import BareRuns

    bare = BareRuns(endpoint)
    try:
        await bare.set_up()
        await bare.commit(min(count, 500))
        began_s = time.perf_counter()
        await bare.commit(count)
        return [count / (time.perf_counter() - began_s)]
    finally:
        await bare.close()


async def listing(count: int, endpoint: str) -> list[float]:
    """Seconds to start a Python program that reads and decodes ``count`` job records."""
    from etcsched.core.records import Job, Kind
    from etcsched.etcd.client import EtcdClient
    from etcsched.etcd.config import EtcdConfig
    from etcsched.keyspace.keys import Keys
    from etcsched.operator.store import read_all

    async with EtcdClient(EtcdConfig(endpoints=(endpoint,))) as etcd:
        jobs = await read_all(etcd, Keys().all_of(Kind.JOB), Job)
    assert len(jobs) >= count, f"{len(jobs)} jobs are there, not {count}"
    return []


PROGRAMS: dict[str, Callable[[int, str], Awaitable[list[float]]]] = {
    "spawns": spawn_rate,
    "burst": spawn_burst,
    "starts": starts,
    "transactions": transactions,
    "listing": listing,
}


async def measure(program: str, count: int, endpoint: str = "") -> list[float]:
    """Run one of ``PROGRAMS`` as a process of its own; where it gives no samples, the sample is
    how long the whole process took, in seconds."""
    assert program in PROGRAMS
    began_s = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.limits", program, str(count), endpoint),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    took_s = time.perf_counter() - began_s
    if process.returncode:
        raise RuntimeError(f"the bare program {program} ended with {process.returncode}")
    return [float(sample) for sample in json.loads(said)] or [took_s]


def main() -> None:
    program, count, endpoint = sys.argv[1:]
    work = PROGRAMS[program](int(count), endpoint)
    if program in {"spawns", "burst"}:
        samples = asyncio.run(_drive(work))
    else:
        import uvloop

        samples = uvloop.run(_drive(work))
    print(json.dumps(samples))


async def _drive(work: Awaitable[list[float]]) -> list[float]:
    return await work


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    main()
