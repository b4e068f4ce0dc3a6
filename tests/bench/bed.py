"""The bed of a measurement: a real etcd, the daemons as processes, and a client beside them."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from etcsched.core.records import (
    Action,
    Edited,
    Job,
    Keep,
    Kind,
    Record,
    Request,
    RequestKind,
    Run,
    ScheduleVersion,
    Term,
)
from etcsched.core.schedule import Pattern
from etcsched.core.states import OnAgentLoss, Overlap
from etcsched.core.times import utc_of
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.embedded import EmbeddedEtcd, EtcdBinary
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Put, Range, Txn, range_end_of
from etcsched.keyspace.transactions import submit_request
from etcsched.local.cluster import COMMAND
from etcsched.local.node import NodeProcess, Role
from etcsched.operator.ids import ENTROPY_BYTES, request_id
from etcsched.operator.store import found, read_all

PATIENCE_S = 90.0
POLL_S = 0.01
STOP_GRACE_S = 8.0
PUTS_PER_TXN = 100
TXNS_IN_FLIGHT = 8

# A node's log goes to a file: nobody who measures reads along. The shell becomes the node itself.
_LOGGED = ("/bin/sh", "-c", 'log=$1; shift; exec "$@" >>"$log" 2>&1', "sh")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Bed:
    """Nodes are added one by one; all end with the bed (``open_bed``)."""

    def __init__(self, directory: Path, etcd: EmbeddedEtcd, client: EtcdClient) -> None:
        self.keys = Keys()
        self.etcd = client
        self.nodes: dict[str, NodeProcess] = {}
        self.directory = directory
        self._server = etcd

    @property
    def endpoint(self) -> str:
        return self._server.endpoints[0]

    # --- nodes

    async def add_schedulers(self, count: int, *, ttl_s: int = 10) -> None:
        for number in range(1, count + 1):
            name = f"scheduler-{number}"
            state = f"--state-dir={self.directory / name}"
            self._add("scheduler", name, f"--ttl={ttl_s}", state)
            await self.nodes[name].start()

    async def add_agents(self, count: int, *, slots: int, ttl_s: int = 10, first: int = 1) -> None:
        user = getpass.getuser()
        for number in range(first, first + count):
            name = f"agent-{number}"
            self._add(
                "agent",
                name,
                f"--ttl={ttl_s}",
                f"--slots={slots}",
                f"--allow-user={user}",
                f"--default-user={user}",
                f"--state-dir={self.directory / name}",
            )
            await self.nodes[name].start()

    def _add(self, role: Role, name: str, *arguments: str) -> None:
        logged = (*_LOGGED, str(self.directory / f"{name}.log"))
        command = (*COMMAND, f"--endpoints={self.endpoint}", role, f"--id={name}", *arguments)
        self.nodes[name] = NodeProcess(role, name, (*logged, *command), lambda node, line: None)

    async def stop_nodes(self) -> None:
        """Agents first, so that nobody sees them as lost."""
        for role in ("agent", "scheduler"):
            nodes = [node for node in self.nodes.values() if node.role == role]
            await asyncio.gather(*(node.stop(STOP_GRACE_S) for node in nodes))

    def last_words(self) -> str:
        """The end of each node's log, for whoever looks into a failure."""
        texts = []
        for name in self.nodes:
            path = self.directory / f"{name}.log"
            if path.exists():
                texts += [f"{name}: {line}" for line in path.read_text().splitlines()[-5:]]
        return "\n".join(texts)

    # --- what etcd says

    async def wait_ready(self) -> None:
        """Until a scheduler leads, the others stand by and every agent is here."""
        await self.until(self.leader)
        await self.until(lambda: self._are_all_here("scheduler", Kind.ELECTION))
        await self.until(lambda: self._are_all_here("agent", Kind.PRESENCE))

    async def _are_all_here(self, role: Role, kind: Kind) -> bool:
        wanted = sum(1 for node in self.nodes.values() if node.role == role)
        return await self.count(*self.keys.all_of(kind)) >= wanted

    async def term(self) -> Term | None:
        kvs = (await self.etcd.range(Range(self.keys.term))).kvs
        return found(Term, kvs[0]) if kvs else None

    async def leader(self) -> str | None:
        """None: nobody leads now, whatever the last term's record says."""
        term = await self.term()
        if term is None:
            return None
        own = await self.etcd.range(Range(self.keys.of(Kind.ELECTION, term.election_key)))
        return term.leader if own.kvs else None

    async def count(self, key: str, range_end: str) -> int:
        return (await self.etcd.range(Range(key, range_end, count_only=True))).count

    async def until(self, is_so: Callable[[], Awaitable[object]]) -> None:
        """Look every 10 ms: a quick look, which disturbs little."""
        async with asyncio.timeout(PATIENCE_S):
            while not await is_so():
                self._check_alive()
                await asyncio.sleep(POLL_S)

    def _check_alive(self) -> None:
        for node in self.nodes.values():
            if node.exit_code is not None and node.exit_code >= 0:
                raise RuntimeError(f"{node.name} has ended:\n{self.last_words()}")

    # --- jobs and runs

    async def load(self, jobs: Iterable[Job]) -> int:
        """Put definitions straight into etcd, as one edit at the end; how many there were."""
        records = [(self.keys.of(Kind.JOB, job.name), job) for job in jobs]
        await self.put_all(records)
        await self.put_all([(self.keys.of(Kind.EDITED), Edited())])
        return len(records)

    async def put_all(self, records: Sequence[tuple[str, Record]]) -> None:
        starts = iter(range(0, len(records), PUTS_PER_TXN))

        async def put_some() -> None:
            for start in starts:
                batch = records[start : start + PUTS_PER_TXN]
                await self.etcd.txn(
                    Txn((), tuple(Put(key, encode(record)) for key, record in batch))
                )

        async with asyncio.TaskGroup() as tasks:
            for _ in range(TXNS_IN_FLIGHT):
                tasks.create_task(put_some())

    async def request(
        self, kind: RequestKind, job: str, *, run: str = "", at_ms: int | None = None
    ) -> str:
        """Its id, once etcd has it; a triggered run has the same."""
        at_ms = now_ms() if at_ms is None else at_ms
        request = Request(
            id=request_id(at_ms, os.urandom(ENTROPY_BYTES)),
            kind=kind,
            job=job,
            at=utc_of(at_ms),
            by="bench",
            run=run,
        )
        await self.etcd.txn(submit_request(self.keys, request))
        return request.id

    async def archived(self, job_prefix: str) -> list[Run]:
        """Of all jobs whose names begin so; with a ``/`` at the end, of one job."""
        return await read_all(self.etcd, self._archive_of(job_prefix), Run)

    async def archived_count(self, job_prefix: str) -> int:
        return await self.count(*self._archive_of(job_prefix))

    def _archive_of(self, job_prefix: str) -> tuple[str, str]:
        start = self.keys.archive_prefix + job_prefix
        return start, range_end_of(start)


def job_of(name: str, action: Action, *patterns: Pattern) -> Job:
    """Whose runs never stand in each other's way, and are kept until they have been counted."""
    return Job(
        name=name,
        run=action,
        versions=(ScheduleVersion(since=utc_of(now_ms()), patterns=patterns),),
        overlap=Overlap.ALLOW,
        on_agent_loss=OnAgentLoss.REASSIGN,
        max_reassigns=100,
        keep=Keep(runs=100_000),
    )


def next_second_ms(after_s: float) -> int:
    """The first whole second that is at least ``after_s`` away."""
    return -(-(now_ms() + int(after_s * 1000)) // 1000) * 1000


async def pass_until(wall_ms: int) -> None:
    await asyncio.sleep(max(0.0, (wall_ms - now_ms()) / 1000))


@asynccontextmanager
async def open_bed(directory: Path, binary: EtcdBinary) -> AsyncIterator[Bed]:
    """Below ``directory``, which is left behind."""
    server = EmbeddedEtcd(binary, directory / "etcd")
    await server.start()
    try:
        async with EtcdClient(EtcdConfig(endpoints=server.endpoints)) as client:
            bed = Bed(directory, server, client)
            try:
                yield bed
            except TimeoutError:
                raise RuntimeError(
                    f"waited {PATIENCE_S:g} s in vain:\n{bed.last_words()}"
                ) from None
            finally:
                await bed.stop_nodes()
    finally:
        await server.stop()


def kill(node: NodeProcess) -> float:
    """SIGKILL; when, in Unix seconds."""
    node.signal(signal.SIGKILL)
    return time.time()
