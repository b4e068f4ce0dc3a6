"""A cluster of real processes, what is recorded of it, and the judgement of both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from etcsched.audit.auditor import Auditor
from etcsched.audit.definitions import Definitions
from etcsched.audit.history import (
    Begun,
    Ended,
    Entry,
    Fault,
    Operation,
    OperationKind,
    OperationOutcome,
    Quiet,
    Revision,
    Truth,
)
from etcsched.audit.recording import RecordingWriter
from etcsched.audit.truth import Execution, Executions
from etcsched.audit.verdict import Bounds, Outcome
from etcsched.audit.words import Ledger
from etcsched.core.records import (
    Candidate,
    ConflictGroup,
    Gap,
    Job,
    Kind,
    Live,
    Pause,
    Presence,
    Report,
    Run,
    Term,
    Watermark,
)
from etcsched.core.states import RunState, Stage
from etcsched.core.times import ms_of, tick_id, utc_of
from etcsched.etcd.binaries import EtcdBinary
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.embedded import EtcdOptions
from etcsched.jobfile.load import Known, load
from etcsched.keyspace.codec import change_of_event, decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType
from etcsched.operator import apply as operator
from etcsched.operator.conflicts import apply_groups, delete_group
from etcsched.operator.pauses import pause, resume
from tests.e2e.history import PATIENCE_S, History
from tests.support.etcd_cluster import TEST_OPTIONS, EtcdCluster
from tests.support.local_world import Finished, LocalWorld

T = TypeVar("T")
BEATER = Path(__file__).with_name("beater.py")
TOLD_EVERY_S = 0.01
CALL_TIMEOUT_S = 10.0
EVERY_SECOND = "* * * * * *"
"""Cron of six fields, seconds first."""
NEVER = "0 0 0 29 2 *"
"""As good as never: a job that is still enabled, so that what waits may run."""
HOLDS = (Truth.WORDS, Truth.OPERATIONS, Truth.FAULTS)
ETCD_DENIES = re.compile("etcd at [^ ]+: permission denied")
BOUNDS = Bounds(lateness_ms=3000, recovery_ms=30_000)
"""The machine is small, and does other things at the same time."""


class Scene:
    """Opened with ``open``, judged with ``settle``, ended with ``close``."""

    def __init__(self, directory: Path, etcd: EtcdCluster, **world: Any) -> None:
        self.world = LocalWorld(directory, etcd, on_fault=self._told_of_fault, **world)
        self.keys = Keys()
        self.is_settled = False
        self._ledger = directory / "ledger"
        self._words = Ledger(self._ledger)
        self._executions = Executions()
        self._definitions = Definitions(0)
        self._entries: list[Entry] = []
        """The history since the scene was opened, or since it was settled last."""
        self._fields: dict[str, dict[str, Any]] = {}
        self._earlier: set[str] = set()

    async def open(self) -> None:
        """Returns when a leader leads and every node that was added is there; else nothing is
        left."""
        self.etcd = EtcdClient(EtcdConfig(**self.world.etcd.config_kwargs))
        self.history = History(self.etcd, self.keys, self._told)
        self._begin()
        self._following = asyncio.create_task(self.history.follow())
        try:
            await self.world.start()
            await self.all_here()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """The history stays beside the nodes' logs."""
        (self.world.directory / "events.txt").write_text(self.history.tell())
        with (self.world.directory / "recording.jsonl").open("wb") as file:
            writer = RecordingWriter(file)
            for entry in [*self._entries, self._ended()]:
                writer.take(entry)
        await self.world.stop()
        self._following.cancel()
        await asyncio.wait([self._following])
        await self.etcd.close()

    # --- jobs

    def begin_test(self) -> None:
        """What earlier tests left in the history isn't this one's."""
        self.is_settled = False
        self._earlier |= self._fields.keys()

    def beats(self, *options: str) -> dict[str, list[str]]:
        """``run`` of a job that beats; options are ``beater``'s."""
        program = (sys.executable, "-I", "-S", str(BEATER), str(self._ledger))
        return {"exec": [*program, *options]}

    async def apply(self, **jobs: dict[str, Any]) -> None:
        """Each a job as job files have it, but for ``cron``; without one it runs on request."""
        if again := jobs.keys() & self._earlier:
            raise AssertionError(f"{', '.join(again)}: an earlier test of this scene had that name")
        written = {name: _written(fields) for name, fields in jobs.items()}
        self._fields |= jobs
        now_ms = _now_ms()
        others = {job.name: job for job in self.history.records(Kind.JOB, Job).values()}
        wanted = load(
            [("jobs.yaml", json.dumps({"jobs": written}))], now_ms, Known(jobs=others)
        ).jobs
        changes = await operator.apply(
            self.etcd, self.keys, wanted, utc_of(now_ms), "test", timeout_s=CALL_TIMEOUT_S
        )
        for change in changes:
            differs = change.kind is not operator.ChangeKind.UNCHANGED
            self._acknowledged(OperationKind.APPLY, change.job, now_ms, changes=differs)
        await self.history.check_complete()

    async def group(self, name: str, *jobs: str) -> None:
        """A conflict group, highest priority first."""
        group = ConflictGroup(group=name, jobs=jobs)
        await apply_groups(self.etcd, self.keys, [group], "test", timeout_s=CALL_TIMEOUT_S)
        await self.history.check_complete()

    async def ungroup(self, name: str) -> None:
        await delete_group(self.etcd, self.keys, name, timeout_s=CALL_TIMEOUT_S)

    async def stop_schedules(self) -> None:
        """Nothing is due from now on; what waits still runs."""
        still = {
            name: {**fields, "cron": NEVER}
            for name, fields in self._fields.items()
            if fields.get("cron") not in (None, NEVER)
        }
        if still:
            await self.apply(**still)

    async def pause(self, job: str) -> int:
        """The revision of its acknowledgement."""
        now_ms = _now_ms()
        await pause(self.etcd, self.keys, job, utc_of(now_ms), "test", timeout_s=CALL_TIMEOUT_S)
        self._acknowledged(OperationKind.PAUSE, job, now_ms)
        await self.history.check_complete()
        return self.history.now[self.keys.of(Kind.PAUSE, job)].mod_revision

    async def resume(self, job: str) -> None:
        now_ms = _now_ms()
        await resume(self.etcd, self.keys, job, utc_of(now_ms), timeout_s=CALL_TIMEOUT_S)
        self._acknowledged(OperationKind.RESUME, job, now_ms)
        await self.history.check_complete()

    async def cli(self, *arguments: str, user: str = "operator") -> Finished:
        """``etcsched`` with these arguments; the history then holds all that it did or saw."""
        finished = await self.world.cli(*arguments, user=user)
        await self.history.check_complete()
        return finished

    # --- who is there

    def leader(self) -> str | None:
        """The node whose term it is and whose key stands."""
        term = self.term
        if term is None:
            return None
        key = self.history.now.get(self.keys.of(Kind.ELECTION, term.election_key))
        return term.leader if key is not None and key.create_revision == term.token else None

    @property
    def term(self) -> Term | None:
        return self.history.record(Kind.TERM, Term)

    @property
    def watermark_ms(self) -> int:
        found = self.history.record(Kind.WATERMARK, Watermark)
        return ms_of(found.through) if found is not None else 0

    async def leads(self, *, unlike: str = "", within_s: float = PATIENCE_S) -> str:
        def look() -> str | None:
            leader = self.leader()
            return leader if leader != unlike else None

        return await self.history.until(look, "a leader", within_s)

    def standing(self) -> list[str]:
        """Candidates, in their order."""
        found = self.history.records(Kind.ELECTION, Candidate)
        order = {ids: self.history.now[self.keys.of(Kind.ELECTION, *ids)] for ids in found}
        return [
            found[ids].node for ids in sorted(found, key=lambda ids: order[ids].create_revision)
        ]

    async def all_here(self) -> None:
        world = self.world

        def look() -> bool:
            schedulers = sorted(self.standing()) == sorted(world.running("scheduler"))
            present = {ids[0] for ids in self.history.ids(Kind.PRESENCE)}
            if not schedulers or present != set(world.running("agent")):
                return False
            return not self.standing() or (
                self.leader() is not None and all(map(self._is_seen, present))
            )

        await self.history.until(look, "every node to be there, and no other")

    def _is_seen(self, agent: str) -> bool:
        """By the leader, as the one that it is now."""
        presence = self.presence(agent)
        live = self.history.record(Kind.LIVE, Live, agent)
        return (
            presence is not None
            and live is not None
            and live.incarnation == presence.incarnation
            and live.stage is not Stage.GONE
        )

    def presence(self, agent: str) -> Presence | None:
        return self.history.record(Kind.PRESENCE, Presence, agent)

    # --- runs

    def ended(self, job: str) -> list[Run]:
        return sorted(
            (run for run in self.history.archive.values() if run.job == job), key=lambda run: run.id
        )

    async def run_ended(self, job: str, within_s: float = PATIENCE_S) -> Run:
        """The job's only run, once it is over."""
        return (await self.runs_ended(job, 1, within_s))[0]

    async def runs_ended(self, job: str, count: int, within_s: float = PATIENCE_S) -> list[Run]:
        """The job's runs, once at least so many are over."""

        def look() -> list[Run] | None:
            ended = self.ended(job)
            return ended if len(ended) >= count else None

        return await self.history.until(look, f"{count} ended runs of {job}", within_s)

    async def claimed(self, job: str) -> tuple[str, Report]:
        """The agent that claimed a run of the job first, and its claim; a short attempt may be over
        before anybody looks."""

        def look() -> tuple[str, Report] | None:
            for event in self.history.events:
                change = change_of_event(self.keys, event)
                if change is None or change.kind is not Kind.REPORT:
                    continue
                if change.ids[1] == job and isinstance(change.record, Report):
                    return change.ids[0], change.record
            return None

        return await self.history.until(look, f"a claim of {job}")

    # --- ground truth

    def executions(self, job: str = "") -> list[Execution]:
        """In the order in which they began."""
        for word in self._words.news():
            self._entries.append(word)
            self._executions.take(word)
        found = self._executions.by_attempt.values()
        return [execution for execution in found if not job or execution.job == job]

    async def told(
        self, look: Callable[[], T | None], what: str, within_s: float = PATIENCE_S
    ) -> T:
        """Until the ledger, or anything outside etcd, shows it."""
        give_up_s = time.monotonic() + within_s
        while True:
            found = look()
            if found is not None and found is not False:
                return found
            assert time.monotonic() < give_up_s, f"not within {within_s:g} s: {what}"
            await asyncio.sleep(TOLD_EVERY_S)

    async def beating(self, job: str, count: int = 1, within_s: float = PATIENCE_S) -> Execution:
        """The newest execution of a job of which so many have begun."""

        def look() -> Execution | None:
            found = self.executions(job)
            is_there = len(found) >= count and found[-1].last_ms > found[-1].start_ms
            return found[-1] if is_there else None

        return await self.told(look, f"execution {count} of {job} to beat", within_s)

    def processes(self) -> list[int]:
        """The jobs' processes that live."""
        mine = []
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    arguments = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if str(self._ledger).encode() in arguments:
                    mine.append(int(entry.name))
        return mine

    # --- the judgement

    async def settle(self, within_s: float = 30.0) -> None:
        """Stop the schedules, wait until nothing is left to do, and judge all there was."""
        await self.stop_schedules()
        stopped_ms = _now_ms()

        def left() -> list[str]:
            undecided = ["the watermark"] if self.watermark_ms < stopped_ms else []
            return self._unfinished() + undecided

        leases, nodes = await self._quiet(left, within_s)
        while left():
            # An agent that came back has said meanwhile what became of an attempt that it lost.
            leases, nodes = await self._quiet(left, within_s)
        quiet = Quiet(
            at_ms=_now_ms(), revision=self.history.revision, processes=(), leases=leases,
            nodes=nodes,
        )  # fmt: skip
        self._entries.append(quiet)
        self._judge()
        denied = [line for line in self.world.log if ETCD_DENIES.search(line[1])]
        assert not denied, f"docs/keyspace.md grants too little: {denied[:5]}"
        self._begin()
        self.is_settled = True

    async def _quiet(self, left: Callable[[], list[str]], within_s: float) -> tuple[int, int]:
        """(leases, nodes) once nothing is left, all nodes are there, and all of it is recorded."""
        try:
            await self.history.until(lambda: not left(), "quiescence", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; left are {left()}") from None
        await self.all_here()
        await self.told(lambda: not self.processes(), "the jobs' processes to be gone")
        counted = await self._leases()
        await self.history.check_complete()
        self.executions()
        return counted

    def _judge(self) -> None:
        auditor = Auditor(BOUNDS)
        for entry in [*self._entries, self._ended()]:
            auditor.take(entry)
        verdict = auditor.finish()
        assert verdict.outcome is Outcome.CLEAN, "\n".join(
            [*map(str, verdict.violations), *verdict.invalid_because]
        )

    # --- what the auditor is told

    def _begin(self) -> None:
        """A new history, from the keyspace as it stands. Faults that last go on in it."""
        lasting = self.world.faults.values()
        self._entries = [
            Begun(
                at_ms=_now_ms(), prefix=self.keys.prefix, revision=self.history.revision,
                kvs=tuple(self.history.now.values()), holds=HOLDS,
            ),
            *lasting,
        ]  # fmt: skip

    def _ended(self) -> Ended:
        return Ended(at_ms=_now_ms(), revision=self.history.revision, reason="settled")

    def _told(self, entry: Entry) -> None:
        if isinstance(entry, Begun):
            return  # It is told with the scene's own.
        if isinstance(entry, Revision):
            self._define(entry)
        self._entries.append(entry)

    def _define(self, entry: Revision) -> None:
        for event in entry.events:
            place = self.keys.parse(event.kv.key)
            if event.type is EventType.PUT and place is not None:
                if place[0] is Kind.WATERMARK:
                    through_ms = ms_of(decode(Watermark, event.kv.value).through)
                    list(self._definitions.pass_to(through_ms))
                elif place[0] is Kind.JOB:
                    self._definitions.job_put(decode(Job, event.kv.value))
                elif place[0] is Kind.PAUSE:
                    self._definitions.pause_put(place[1][0], decode(Pause, event.kv.value))

    def _told_of_fault(self, fault: Fault) -> None:
        self._entries.append(fault)

    def _acknowledged(
        self, kind: OperationKind, target: str, sent_ms: int, *, changes: bool = True
    ) -> None:
        self._entries.append(
            Operation(
                kind=kind, target=target, sent_ms=sent_ms, done_ms=_now_ms(),
                outcome=OperationOutcome.ACKNOWLEDGED, changes=changes,
            )
        )  # fmt: skip

    def _unfinished(self) -> list[str]:
        """I12: what must be gone at quiescence. A closed gap may last until the watermark moves."""
        kinds = (
            Kind.RUN, Kind.ASSIGNMENT, Kind.ORDER, Kind.REPORT, Kind.LATE_REPORT, Kind.REQUEST
        )  # fmt: skip
        left = [f"{kind.value} {'/'.join(ids)}" for kind in kinds for ids in self.history.ids(kind)]
        gaps = self.history.records(Kind.GAP, Gap).values()
        return left + [f"gap {gap.job}" for gap in gaps if not gap.closed]

    def due(self, job: str) -> set[str]:
        """Ids of the ticks that were due since the scene was opened."""
        return {tick_id(tick_ms) for tick_ms in self._definitions.due(job, 0, _now_ms())}

    async def _leases(self) -> tuple[int, int]:
        """(leases, nodes): one a node, once those of the dead have ended, in their time."""
        nodes = len(self.world.running("scheduler")) + len(self.world.running("agent"))
        give_up_s = time.monotonic() + self.world.ttl_s + 2.0
        while True:
            answer = await self.world.etcd.call("/v3/lease/leases", {})
            there = len(answer.get("leases", []))
            if there == nodes or time.monotonic() > give_up_s:
                return there, nodes
            await asyncio.sleep(0.1)

    def check_all_completed(self, job: str) -> None:
        """... every tick that was due, and each by one attempt at least."""
        states = {run.id: run.state for run in self.ended(job)}
        wrong = {tick: states.get(tick) for tick in self.due(job)}
        assert {RunState.COMPLETED} == set(wrong.values()), wrong


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _written(fields: dict[str, Any]) -> dict[str, Any]:
    written = {"keep": {"runs": 1000}, **fields}
    cron = written.pop("cron", None)
    if cron is None:
        return {"state": "ad_hoc_active", **written}
    return {"schedule": {"cron": cron}, **written}


@contextlib.asynccontextmanager
async def on_three_members(
    binary: EtcdBinary, directory: Path, options: EtcdOptions = TEST_OPTIONS
) -> AsyncIterator[Scene]:
    """Two schedulers and two agents, on an etcd of their own."""
    etcd = EtcdCluster(binary, directory, members=3, options=options)
    await etcd.start()
    scene = Scene(directory, etcd)
    for name in ("s1", "s2"):
        scene.world.add_scheduler(name)
    for name in ("a1", "a2"):
        scene.world.add_agent(name)
    await scene.open()
    yield scene
    await scene.close()
