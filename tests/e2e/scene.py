"""A cluster of real processes, what is recorded of it, and the judgement of both."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from etcsched.core.records import (
    Candidate,
    ConflictGroup,
    Gap,
    Job,
    Kind,
    Pause,
    Presence,
    Report,
    Run,
    Term,
    Watermark,
)
from etcsched.core.states import RunState
from etcsched.core.times import ms_of, utc_of
from etcsched.demo.witness import Execution, executions
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.jobfile.load import load
from etcsched.keyspace.keys import Keys
from etcsched.operator import apply as operator
from etcsched.operator.conflicts import apply_groups, delete_group
from etcsched.operator.pauses import pause, resume
from tests.e2e.auditor import Auditor
from tests.e2e.history import PATIENCE_S, History
from tests.e2e.judgement import (
    Definition,
    due_ticks,
    judge_chains,
    judge_executions,
    judge_ticks,
    undecided,
)
from tests.support.etcd_cluster import EtcdCluster
from tests.support.local_world import LocalWorld

T = TypeVar("T")
BEATER = Path(__file__).with_name("beater.py")
TOLD_EVERY_S = 0.01
CALL_TIMEOUT_S = 10.0
EVERY_SECOND = "* * * * * *"
"""Cron of six fields, seconds first."""
NEVER = "0 0 0 29 2 *"
"""As good as never: a job that is still enabled, so that what waits may run."""


class Scene:
    """Opened with ``open``, judged with ``settle``, ended with ``close``."""

    def __init__(self, directory: Path, etcd: EtcdCluster, **world: Any) -> None:
        self.world = LocalWorld(directory, etcd, **world)
        self.keys = Keys()
        self.auditor = Auditor(self.keys)
        self.is_settled = False
        self._ledger = directory / "ledger"
        self._definitions: dict[str, list[Definition]] = defaultdict(list)
        self._paused_ms: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._fields: dict[str, dict[str, Any]] = {}

    async def open(self) -> None:
        """Returns when a leader leads and every node that was added is there; else nothing is
        left."""
        self.etcd = EtcdClient(EtcdConfig(**self.world.etcd.config_kwargs))
        self.history = History(self.etcd, self.keys, self.auditor)
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
        await self.world.stop()
        self._following.cancel()
        await asyncio.wait([self._following])
        await self.etcd.close()

    # --- jobs

    def beats(self, *options: str) -> dict[str, list[str]]:
        """``run`` of a job that beats; options are ``beater``'s."""
        program = (sys.executable, "-I", "-S", str(BEATER), str(self._ledger))
        return {"exec": [*program, *options]}

    async def apply(self, **jobs: dict[str, Any]) -> None:
        """Each a job as job files have it, but for ``cron``; without one it runs on request."""
        crons = {name: fields.get("cron") for name, fields in jobs.items()}
        written = {name: _written(fields) for name, fields in jobs.items()}
        self._fields |= jobs
        now_ms = _now_ms()
        others = {job.name: job for job in self.history.records(Kind.JOB, Job).values()}
        wanted = load([("jobs.yaml", json.dumps({"jobs": written}))], now_ms, others).jobs
        await operator.apply(
            self.etcd, self.keys, wanted, utc_of(now_ms), "test", timeout_s=CALL_TIMEOUT_S
        )
        await self.history.check_complete()
        for name, cron in crons.items():
            job = self.history.record(Kind.JOB, Job, name)
            assert job is not None
            self._definitions[name].append(Definition(ms_of(job.current.since), cron))

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
        await pause(self.etcd, self.keys, job, utc_of(_now_ms()), "test", timeout_s=CALL_TIMEOUT_S)
        await self.history.check_complete()
        return self.history.now[self.keys.of(Kind.PAUSE, job)].mod_revision

    async def resume(self, job: str) -> None:
        await resume(self.etcd, self.keys, job, utc_of(_now_ms()), timeout_s=CALL_TIMEOUT_S)
        await self.history.check_complete()
        record = self.history.record(Kind.PAUSE, Pause, job)
        assert record is not None
        last = record.intervals[-1]
        assert last.until is not None
        self._paused_ms[job].append((ms_of(last.since), ms_of(last.until)))

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
            leads = not world.running("scheduler") or self.leader() is not None
            return schedulers and leads and present == set(world.running("agent"))

        await self.history.until(look, "every node to be there, and no other")

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
        """The agent that claimed a run of the job, and its claim."""

        def look() -> tuple[str, Report] | None:
            for ids, report in self.history.records(Kind.REPORT, Report).items():
                if ids[1] == job and report.outcome is None:
                    return ids[0], report
            return None

        return await self.history.until(look, f"a claim of {job}")

    # --- ground truth

    def executions(self, job: str = "") -> list[Execution]:
        return [found for found in executions(self._told()) if not job or found.job == job]

    def _told(self) -> list[str]:
        """The ledger's lines; the last may be torn still."""
        return self._ledger.read_text().splitlines() if self._ledger.exists() else []

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

    async def beating(self, job: str, count: int = 1) -> Execution:
        """The newest execution of a job of which so many have begun."""

        def look() -> Execution | None:
            found = self.executions(job)
            return (
                found[-1] if len(found) >= count and found[-1].last_s > found[-1].start_s else None
            )

        return await self.told(look, f"execution {count} of {job} to beat")

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
        due, runs = self.all_due(), self.history.archive

        def left() -> list[str]:
            return self._unfinished() + undecided(due, runs)

        try:
            await self.history.until(lambda: not left(), "quiescence", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; left are {left()}") from None
        await self.all_here()
        await self.told(lambda: not self.processes(), "the jobs' processes to be gone")
        await self.history.check_complete()
        complaints = [*self.auditor.complaints, *judge_ticks(self.all_due(), runs)]
        complaints += judge_chains(runs)
        complaints += judge_executions(self._told(), runs)
        complaints += await self._judge_leases()
        assert not complaints, "\n".join(complaints)
        self.is_settled = True

    def _unfinished(self) -> list[str]:
        """I12: what must be gone at quiescence. A closed gap may last until the watermark moves."""
        kinds = (
            Kind.RUN, Kind.ASSIGNMENT, Kind.ORDER, Kind.REPORT, Kind.LATE_REPORT, Kind.REQUEST
        )  # fmt: skip
        left = [f"{kind.value} {'/'.join(ids)}" for kind in kinds for ids in self.history.ids(kind)]
        gaps = self.history.records(Kind.GAP, Gap).values()
        return left + [f"gap {gap.job}" for gap in gaps if not gap.closed]

    def due(self, job: str) -> set[str]:
        return due_ticks(self._definitions[job], self._paused_ms[job], _now_ms())

    def all_due(self) -> dict[str, set[str]]:
        return {job: self.due(job) for job in self._definitions}

    async def _judge_leases(self) -> list[str]:
        """I12: one lease a node. Those of the dead end by themselves, in their time."""
        wanted = len(self.world.running("scheduler")) + len(self.world.running("agent"))
        give_up_s = time.monotonic() + self.world.ttl_s + 2.0
        while True:
            answer = await self.world.etcd.call("/v3/lease/leases", {})
            there = len(answer.get("leases", []))
            if there == wanted:
                return []
            if time.monotonic() > give_up_s:
                return [f"I12: {there} leases for {wanted} nodes"]
            await asyncio.sleep(0.1)

    def check_all_completed(self, job: str) -> None:
        """... every tick that was due, and each by one attempt at least."""
        states = {run.id: run.state for run in self.ended(job)}
        wrong = {tick: states.get(tick) for tick in self.due(job)}
        assert {RunState.COMPLETED} == set(wrong.values()), wrong

    def lateness_ms(self, job: str) -> list[int]:
        """Of each run by schedule: from its tick to its first process's word."""
        first: dict[str, float] = {}
        for execution in self.executions(job):
            first.setdefault(execution.run, execution.start_s)
        return [
            int(first[run.id] * 1000) - ms_of(run.scheduled_at)
            for run in self.ended(job)
            if run.scheduled_at is not None and run.id in first
        ]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _written(fields: dict[str, Any]) -> dict[str, Any]:
    written = {"keep": {"runs": 1000}, **fields}
    cron = written.pop("cron", None)
    if cron is None:
        return {"state": "ad_hoc_active", **written}
    return {"schedule": {"cron": cron}, **written}
