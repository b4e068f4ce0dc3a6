"""What every demonstration needs, wherever its cluster runs: jobs that tell the truth, faults that
are told, waiting for what the cluster shows, and the auditor's verdict at the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
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
from etcsched.core.records import Kind, Report, Watermark
from etcsched.core.times import ms_of, utc_of
from etcsched.demo.jobs import JOBS, SCHEDULED, SCRIPT, job_file
from etcsched.demo.verdict import Verdict, conclude
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.jobfile.load import load
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range, RangeResult, Txn
from etcsched.operator.apply import ChangeKind, apply
from etcsched.operator.cluster import ClusterView, read_cluster
from etcsched.operator.conflicts import apply_groups
from etcsched.operator.runs import NewestRuns
from etcsched.operator.store import found

__all__ = ["Audience", "Milestone", "Shared", "Stage", "patiently", "set_stage"]

T = TypeVar("T")

POLL_S = 0.05
SHOW_EVERY_S = 0.5
PATIENCE_S = 60.0
CALL_TIMEOUT_S = 10.0
SCRIPT_NAME, LEDGER_NAME = "witness.sh", "ledger.txt"
HOLDS = (Truth.WORDS, Truth.OPERATIONS, Truth.FAULTS)


class Milestone(msgspec.Struct, frozen=True):
    """Something that the demonstration did, for the reader."""

    at_s: float
    text: str


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """``show`` gets each view of the cluster, ``tell`` each milestone, ``log`` each line (of
    whom, what) that isn't either; ``record`` the history that is judged."""

    show: Callable[[ClusterView], None]
    tell: Callable[[Milestone], None]
    log: Callable[[str, str], None]
    record: RecordingWriter | None = None


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """A directory that this process and the agents see: ``here`` and ``there`` are its names."""

    here: Path
    there: Path

    def prepare(self) -> None:
        (self.here / SCRIPT_NAME).write_text(SCRIPT)
        (self.here / LEDGER_NAME).touch()


@contextlib.asynccontextmanager
async def set_stage(
    config: EtcdConfig, shared: Shared, bounds: Bounds, audience: Audience
) -> AsyncIterator[Stage]:
    """A recorder follows the cluster, and each view of it is shown, for as long as this lasts."""
    try:
        async with EtcdClient(config) as etcd, asyncio.TaskGroup() as tasks:
            stage = Stage(etcd, shared, bounds, audience)
            following = tasks.create_task(stage.recorder.follow())
            showing = tasks.create_task(stage.keep_showing())
            await stage.recorder.began.wait()
            yield stage
            following.cancel()
            showing.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


class Stage:
    """One demonstration's cluster, jobs and judge."""

    def __init__(
        self, etcd: EtcdClient, shared: Shared, bounds: Bounds, audience: Audience
    ) -> None:
        self._etcd = etcd
        self._keys = Keys()
        self._shared = shared
        self._newest_runs = NewestRuns()
        self._words = Ledger(shared.here / LEDGER_NAME)
        self._auditor = Auditor(bounds)
        self._audience = audience
        self._began_s = time.monotonic()
        self.recorder = Recorder(etcd, self._keys, self._take, HOLDS)

    def _take(self, entry: Entry) -> None:
        self._auditor.take(entry)
        if self._audience.record is not None:
            self._audience.record.take(entry)

    def say(self, text: str) -> None:
        self._audience.tell(Milestone(time.monotonic() - self._began_s, text))

    async def keep_showing(self) -> None:
        while True:
            # A view may fail while a member of etcd is being killed; the next one tells.
            with contextlib.suppress(EtcschedError):
                self._audience.show(await self.look())
            await asyncio.sleep(SHOW_EVERY_S)

    async def look(self) -> ClusterView:
        newest = await self._newest_runs.read(self._etcd, self._keys)
        return await read_cluster(self._etcd, self._keys, now_ms(), newest)

    async def until(self, what: str, is_so: Callable[[ClusterView], bool]) -> ClusterView:
        async def look() -> ClusterView | None:
            view = await self.look()
            return view if is_so(view) else None

        return await patiently(what, look)

    async def all_here(self, schedulers: int, agents: int) -> None:
        await self.until(
            "all nodes to join",
            lambda v: (
                (len({s.node for s in v.leader.schedulers}), len(v.agents)) == (schedulers, agents)
                and bool(v.leader.node)
            ),
        )

    # --- jobs

    async def begin_schedules(self) -> None:
        await self._apply(is_over=False)
        self.say(f"applied {len(JOBS)} jobs")

    async def stop_schedules(self, within_s: float = 2 * PATIENCE_S) -> None:
        """What waits by then has ``within_s`` to run."""
        await self._apply(is_over=True)
        over_ms = now_ms()
        self.say("no new runs from here on; waiting for what runs")
        await patiently("every run to end", lambda: self._none_is_left(over_ms), within_s)
        await patiently("every late report to be kept with its run", self._no_report_is_left)

    async def _no_report_is_left(self) -> bool | None:
        """An agent that came back says what became of an attempt that it lost."""
        reports = await self._etcd.range(Range(*self._keys.all_of(Kind.REPORT)))
        return not reports.kvs or None

    async def _apply(self, *, is_over: bool) -> None:
        there, sent_ms = self._shared.there, now_ms()
        text = job_file(str(there / SCRIPT_NAME), str(there / LEDGER_NAME), is_over=is_over)
        wanted = load([("demo.yaml", text)], sent_ms)
        changes = await apply(
            self._etcd, self._keys, wanted.jobs, utc_of(sent_ms), "demo", timeout_s=CALL_TIMEOUT_S
        )
        await apply_groups(
            self._etcd, self._keys, wanted.conflicts, "demo", timeout_s=CALL_TIMEOUT_S
        )
        for change in changes:
            self._take(
                Operation(
                    kind=OperationKind.APPLY,
                    target=change.job,
                    sent_ms=sent_ms,
                    done_ms=now_ms(),
                    outcome=OperationOutcome.ACKNOWLEDGED,
                    changes=change.kind is not ChangeKind.UNCHANGED,
                )
            )

    async def _none_is_left(self, least_ms: int) -> bool | None:
        """All ticks are decided that were due by then, and at that same revision no run is
        active."""
        both = Txn((), (Range(self._keys.watermark), Range(*self._keys.all_of(Kind.RUN))))
        marks, runs = (await self._etcd.txn(both)).responses
        assert isinstance(marks, RangeResult)
        assert isinstance(runs, RangeResult)
        watermark = found(Watermark, marks.kvs[0]) if marks.kvs else None
        through_ms = ms_of(watermark.through) if watermark is not None else 0
        return (through_ms >= least_ms and not runs.kvs) or None

    async def claims(self) -> dict[str, list[Report]]:
        """What each agent has claimed and not ended."""
        claims: dict[str, list[Report]] = {}
        for kv in (await self._etcd.range(Range(*self._keys.all_of(Kind.REPORT)))).kvs:
            place, report = self._keys.parse(kv.key), found(Report, kv)
            if place is not None and report is not None and report.outcome is None:
                claims.setdefault(place[1][0], []).append(report)
        return claims

    async def agent_with_only(self, job: str, among: Iterable[str] | None = None) -> str:
        """An agent whose only claimed run is one of this job that began within the last second."""
        allowed = None if among is None else set(among)

        async def look() -> str | None:
            recent = utc_of(now_ms() - 1000)
            for agent, its in (await self.claims()).items():
                alone = len(its) == 1 and its[0].job == job and its[0].claimed_at > recent
                if alone and (allowed is None or agent in allowed):
                    return agent
            return None

        return await patiently(f"an agent with only a {job}", look)

    # --- faults and their end

    def hurt(self, id_: str, kind: FaultKind, target: str, since_ms: int, proof: str) -> Fault:
        """Tell of a fault that has taken effect; it lasts until it is told as over."""
        fault = Fault(id=id_, kind=kind, target=target, from_ms=since_ms, proof=proof)
        self._take(fault)
        return fault

    def healed(self, fault: Fault) -> None:
        self._take(replace(fault, until_ms=now_ms()))

    async def conclude(self) -> Verdict:
        """Once every run has ended."""
        await self.recorder.catch_up()
        for word in self._words.news():
            self._take(word)
        ended_ms, revision = now_ms(), self.recorder.revision
        self._take(Quiet(at_ms=ended_ms, revision=revision))
        self._take(Ended(at_ms=ended_ms, revision=revision, reason="the demonstration is over"))
        return conclude(self._auditor, SCHEDULED, ended_ms)


async def patiently(
    what: str, look: Callable[[], Awaitable[T | None]], within_s: float = PATIENCE_S
) -> T:
    """Look until there is something to see."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                seen = await look()
                if seen is not None:
                    return seen
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise EtcschedError(f"waited {within_s:g} s for {what}, in vain") from None
