"""The demonstration's course: start, apply, kill the leader, kill a busy agent, settle, judge."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from etcsched.audit.auditor import Auditor
from etcsched.audit.history import (
    Ended,
    Entry,
    Fault,
    FaultKind,
    Operation,
    OperationKind,
    OperationOutcome,
    Quiet,
    Truth,
)
from etcsched.audit.recorder import Recorder, now_ms
from etcsched.audit.recording import RecordingWriter
from etcsched.audit.verdict import Bounds
from etcsched.audit.words import Ledger
from etcsched.core.errors import EtcschedError
from etcsched.core.records import Kind, Report, Run, Watermark
from etcsched.core.states import WAITING, JobState
from etcsched.core.times import ms_of, utc_of
from etcsched.demo.verdict import Verdict, conclude
from etcsched.demo.witness import SCRIPT
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.jobfile.load import load
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range, RangeResult, Txn
from etcsched.local.cluster import LocalCluster, LocalOptions
from etcsched.operator.apply import apply
from etcsched.operator.cluster import ClusterView, read_cluster
from etcsched.operator.store import found

T = TypeVar("T")

TTL_S = 5
POLL_S = 0.05
PATIENCE_S = 60.0
BOUNDS = Bounds(lateness_ms=2500, recovery_ms=(TTL_S + 10) * 1000)
"""A small machine runs all of it, and draws a table besides."""
HOLDS = (Truth.WORDS, Truth.OPERATIONS, Truth.FAULTS)

SCHEDULES = {
    "heartbeat": ("*/2 * * * * *", 1),
    "invoices": ("*/5 * * * * *", 15),
    "reports": ("1-59/7 * * * * *", 25),
    "backup": ("*/10 * * * * *", 70),
}
"""Cron expression, and how many beats of 0.1 s each run takes."""


class Milestone(msgspec.Struct, frozen=True):
    """Something that the demonstration did, for the reader."""

    at_s: float
    text: str


class Demo:
    """One demonstration below ``directory``. ``show`` gets each view of the cluster, ``tell`` each
    milestone, ``log`` each node's lines. ``record`` gets the history that is judged."""

    def __init__(
        self,
        directory: Path,
        show: Callable[[ClusterView], None],
        tell: Callable[[Milestone], None],
        log: Callable[[str, str], None],
        record: RecordingWriter | None = None,
    ) -> None:
        self._directory = directory
        self._ledger = directory / "ledger.txt"
        self._words = Ledger(self._ledger)
        self._auditor = Auditor(BOUNDS)
        self._record = record
        self._show = show
        self._tell = tell
        self._keys = Keys()
        self._cluster = LocalCluster(
            LocalOptions(directory=directory, ttl_s=TTL_S, etcd_port=0, restarts=False), log
        )
        self._began_s = time.monotonic()

    async def run(self, seconds: float = 45.0) -> Verdict:
        """About this long. Everything is stopped when it returns or raises."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._ledger.touch()
        try:
            await self._cluster.start()
            config = EtcdConfig(endpoints=self._cluster.endpoints)
            async with EtcdClient(config) as etcd, asyncio.TaskGroup() as tasks:
                recorder = Recorder(etcd, self._keys, self._take, HOLDS)
                following = tasks.create_task(recorder.follow())
                showing = tasks.create_task(self._keep_showing(etcd))
                verdict = await self._course(etcd, recorder, seconds)
                following.cancel()
                showing.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        else:
            return verdict
        finally:
            await self._cluster.stop()

    def _take(self, entry: Entry) -> None:
        self._auditor.take(entry)
        if self._record is not None:
            self._record.take(entry)

    def _say(self, text: str) -> None:
        self._tell(Milestone(time.monotonic() - self._began_s, text))

    async def _keep_showing(self, etcd: EtcdClient) -> None:
        while True:
            self._show(await self._look(etcd))
            await asyncio.sleep(0.5)

    async def _look(self, etcd: EtcdClient) -> ClusterView:
        return await read_cluster(etcd, self._keys, now_ms())

    async def _course(self, etcd: EtcdClient, recorder: Recorder, seconds: float) -> Verdict:
        wanted = len(self._cluster.nodes)
        await self._until(
            etcd, "all nodes to join",
            lambda v: len(v.agents) + len(v.leader.schedulers) == wanted and bool(v.leader.node),
        )  # fmt: skip
        await recorder.began.wait()
        begin_s = time.time()
        await self._apply(etcd)
        self._say(f"applied {len(SCHEDULES)} jobs")
        await self._pass_until(begin_s + 0.25 * seconds)
        await self._kill_leader(etcd)
        await self._pass_until(begin_s + 0.55 * seconds)
        await self._kill_busy_agent(etcd)
        await self._pass_until(begin_s + 0.85 * seconds)
        await self._stop_schedules(etcd)
        self._say("no new runs from here on; waiting for what runs")
        await self._until(
            etcd, "every run to end", lambda v: v.running + v.assigned + v.waiting == 0
        )
        return await self._conclude(recorder)

    async def _conclude(self, recorder: Recorder) -> Verdict:
        await recorder.catch_up()
        for word in self._words.news():
            self._take(word)
        ended_ms, revision = now_ms(), recorder.revision
        self._take(Quiet(at_ms=ended_ms, revision=revision))
        self._take(Ended(at_ms=ended_ms, revision=revision, reason="the demonstration is over"))
        return conclude(self._auditor, SCHEDULES, ended_ms)

    async def _apply(self, etcd: EtcdClient, state: JobState = JobState.ENABLED) -> None:
        """Apply the jobs in this state."""
        script = self._directory / "witness.sh"
        script.write_text(SCRIPT)
        jobs = "".join(
            f"  {name}:\n"
            f"    run: {{exec: [/bin/sh, {script}, {self._ledger}, '{beats}']}}\n"
            f"    schedule: {{cron: '{cron}'}}\n"
            for name, (cron, beats) in SCHEDULES.items()
        )
        text = (
            f"defaults: {{overlap: queue, max_reassigns: 5, keep: {{runs: 500}}, "
            f"state: {state.value}}}\njobs:\n{jobs}"
        )
        sent_ms = now_ms()
        wanted = load([("demo.yaml", text)], sent_ms).jobs
        await apply(etcd, self._keys, wanted, utc_of(sent_ms), "demo", timeout_s=10.0)
        for job in SCHEDULES:
            self._take(
                Operation(
                    kind=OperationKind.APPLY, target=job, sent_ms=sent_ms, done_ms=now_ms(),
                    outcome=OperationOutcome.ACKNOWLEDGED,
                )
            )  # fmt: skip

    async def _stop_schedules(self, etcd: EtcdClient) -> None:
        """... at a moment when no run waits: a stop would cancel it."""
        asked_ms = now_ms()
        await _patiently(
            "a moment when no run waits", lambda: self._none_waits_through(etcd, asked_ms)
        )
        await self._apply(etcd, JobState.AD_HOC_ACTIVE)

    async def _kill(self, node: str) -> Fault:
        """It is gone on return; the fault lasts until it is told again."""
        began_ms, process = now_ms(), self._cluster.nodes[node]
        proof = f"process {process.pid} is gone"
        process.signal(signal.SIGKILL)
        await process.wait()
        fault = Fault(
            id=f"kill {node}", kind=FaultKind.KILLED, target=node, from_ms=began_ms, proof=proof
        )
        self._take(fault)
        return fault

    async def _none_waits_through(self, etcd: EtcdClient, least_ms: int) -> int | None:
        """The watermark, if it has come so far and no run waits at that same revision."""
        both = Txn((), (Range(self._keys.watermark), Range(*self._keys.all_of(Kind.RUN))))
        marks, runs = (await etcd.txn(both)).responses
        assert isinstance(marks, RangeResult)
        assert isinstance(runs, RangeResult)
        active = [found(Run, kv) for kv in runs.kvs]
        if any(run is not None and run.state in WAITING for run in active):
            return None
        watermark = found(Watermark, marks.kvs[0]) if marks.kvs else None
        through_ms = ms_of(watermark.through) if watermark is not None else 0
        return through_ms if through_ms >= least_ms else None

    async def _kill_leader(self, etcd: EtcdClient) -> None:
        view = await self._look(etcd)
        leader = view.leader.node
        killed_s = time.monotonic()
        fault = await self._kill(leader)
        self._say(f"killed the leader, {leader}, with SIGKILL")
        after = await self._until(etcd, "a new leader", lambda v: v.leader.node not in ("", leader))
        self._take(replace(fault, until_ms=now_ms()))
        took_s = time.monotonic() - killed_s
        self._say(f"{after.leader.node} leads, {took_s:.1f} s after the kill (TTL {TTL_S} s)")

    async def _kill_busy_agent(self, etcd: EtcdClient) -> None:
        """One that has just begun its only run, a long one. The supervisor that survives its agent
        lets runs go on until shortly before the lease ends; a short run could complete in that
        time with nobody left to say so, and would rightly be run again."""
        agent = await _patiently(
            "an agent with only a backup", lambda: self._agent_with_only("backup", etcd)
        )
        killed_s = time.monotonic()
        fault = await self._kill(agent)
        self._say(f"killed {agent} with SIGKILL in the middle of a backup")
        await self._until(
            etcd, "its runs to move", lambda v: all(a.agent != agent for a in v.agents)
        )
        self._take(replace(fault, until_ms=now_ms()))
        took_s = time.monotonic() - killed_s
        self._say(f"its runs have moved, {took_s:.1f} s after the kill (TTL {TTL_S} s)")

    async def _agent_with_only(self, job: str, etcd: EtcdClient) -> str | None:
        """An agent whose only claimed run is one of this job that began within the last second."""
        claims: dict[str, list[Report]] = {}
        for kv in (await etcd.range(Range(*self._keys.all_of(Kind.REPORT)))).kvs:
            place, report = self._keys.parse(kv.key), found(Report, kv)
            if place is not None and report is not None and report.outcome is None:
                claims.setdefault(place[1][0], []).append(report)
        recent = utc_of(now_ms() - 1000)
        for agent, its in claims.items():
            if len(its) == 1 and its[0].job == job and its[0].claimed_at > recent:
                return agent
        return None

    async def _until(
        self, etcd: EtcdClient, what: str, is_so: Callable[[ClusterView], bool]
    ) -> ClusterView:
        async def look() -> ClusterView | None:
            view = await self._look(etcd)
            return view if is_so(view) else None

        return await _patiently(what, look)

    async def _pass_until(self, wall_s: float) -> None:
        """Let the cluster work; nothing is waited for but the time."""
        await asyncio.sleep(max(0.0, wall_s - time.time()))


async def _patiently(what: str, look: Callable[[], Awaitable[T | None]]) -> T:
    """Look until there is something to see."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                seen = await look()
                if seen is not None:
                    return seen
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise EtcschedError(f"waited {PATIENCE_S:g} s for {what}, in vain") from None
