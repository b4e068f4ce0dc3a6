"""A cluster of real processes, what is recorded of it, and the judgement of both."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from croniter import croniter

from etcsched.core.records import Candidate, Gap, Job, Kind, Pause, Presence, Report, Run, Term, Watermark
from etcsched.core.states import Origin, RunState
from etcsched.core.times import ms_of, utc_of
from etcsched.demo.witness import Execution, executions, overlaps
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.jobfile.load import load
from etcsched.keyspace.keys import Keys
from etcsched.operator import apply as operator
from etcsched.operator.pauses import pause, resume
from tests.e2e.auditor import Auditor
from tests.e2e.history import PATIENCE_S, History
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


class Definition(msgspec.Struct, frozen=True):
    """What was acknowledged: from ``since_ms`` on a job's ticks are this cron's (None: none)."""

    since_ms: int
    cron: str | None


class Scene:
    """Opened with ``open``, judged with ``settle``, ended with ``close``."""

    def __init__(self, directory: Path, etcd: EtcdCluster, **world: Any) -> None:
        self.world = LocalWorld(directory, etcd, **world)
        self.keys = Keys()
        self.auditor = Auditor(self.keys)
        self.is_settled = False
        self._ledger = directory / "ledger"
        self._definitions: dict[str, list[Definition]] = defaultdict(list)
        self._unpaused: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._fields: dict[str, dict[str, Any]] = {}

    async def open(self) -> None:
        """Returns when a leader leads and every node that was added is there."""
        self.etcd = EtcdClient(EtcdConfig(**self.world.etcd.config_kwargs))
        self.history = History(self.etcd, self.keys, self.auditor)
        self._following = asyncio.create_task(self.history.follow())
        await self.world.start()
        await self.all_here()

    async def close(self) -> None:
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
        wanted = load([("jobs.yaml", json.dumps({"jobs": written}))], now_ms)
        await operator.apply(
            self.etcd, self.keys, wanted, utc_of(now_ms), "test", timeout_s=CALL_TIMEOUT_S
        )
        await self.history.check_complete()
        for name, cron in crons.items():
            job = self.history.record(Kind.JOB, Job, name)
            assert job is not None
            self._definitions[name].append(Definition(ms_of(job.current.since), cron))

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
        await pause(
            self.etcd, self.keys, job, utc_of(_now_ms()), "test", timeout_s=CALL_TIMEOUT_S
        )
        await self.history.check_complete()
        return self.history.now[self.keys.of(Kind.PAUSE, job)].mod_revision

    async def resume(self, job: str) -> None:
        await resume(self.etcd, self.keys, job, utc_of(_now_ms()), timeout_s=CALL_TIMEOUT_S)
        await self.history.check_complete()
        record = self.history.record(Kind.PAUSE, Pause, job)
        assert record is not None
        last = record.intervals[-1]
        assert last.until is not None
        self._unpaused[job].append((ms_of(last.since), ms_of(last.until)))

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
        if not self._ledger.exists():
            return []
        with self._ledger.open() as ledger:
            return [found for found in executions(ledger) if not job or found.job == job]

    async def told(self, look: Callable[[], T | None], what: str) -> T:
        """Until the ledger, or anything outside etcd, shows it."""
        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            found = look()
            if found is not None and found is not False:
                return found
            assert time.monotonic() < give_up_s, f"not within {PATIENCE_S:g} s: {what}"
            await asyncio.sleep(TOLD_EVERY_S)

    async def beating(self, job: str, count: int = 1) -> Execution:
        """The newest execution of a job of which so many have begun."""

        def look() -> Execution | None:
            found = self.executions(job)
            return found[-1] if len(found) >= count and found[-1].last_s > found[-1].start_s else None

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
        due = {(job, tick) for job in self._definitions for tick in self.due(job)}

        def is_quiet() -> bool:
            return not self._unfinished() and due <= self._decided()

        await self.history.until(is_quiet, "quiescence", within_s)
        await self.all_here()
        await self.told(lambda: not self.processes(), "the jobs' processes to be gone")
        await self.history.check_complete()
        complaints = [*self.auditor.complaints, *self._judge_ticks(), *self._judge_executions()]
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

    def _decided(self) -> set[tuple[str, str]]:
        """Ticks that have their run or record; of a record of several ticks only the first."""
        return set(self.history.archive)

    def due(self, job: str) -> set[str]:
        """Ids of the ticks due by the acknowledged definitions, by croniter's word."""
        found: set[str] = set()
        definitions = self._definitions[job]
        for number, definition in enumerate(definitions):
            is_last = number + 1 == len(definitions)
            end_ms = _now_ms() if is_last else definitions[number + 1].since_ms
            if definition.cron is not None:
                found |= _ticks(definition.cron, definition.since_ms, end_ms)
        for since_ms, until_ms in self._unpaused[job]:
            found = {tick for tick in found if not since_ms <= _tick_ms(tick) < until_ms}
        return found

    def _judge_ticks(self) -> list[str]:
        """I1: every due tick is exactly one run or lies in one record of missed ones; nothing else
        ran by schedule."""
        complaints = []
        runs: dict[str, list[Run]] = defaultdict(list)
        for run in self.history.archive.values():
            if run.origin is not Origin.REQUEST:
                runs[run.job].append(run)
        for job in self._definitions:
            decided: Counter[str] = Counter()
            due = self.due(job)
            for run in runs[job]:
                assert run.scheduled_at is not None
                if run.missed_count > 1:
                    assert run.missed_through is not None
                    span = range(ms_of(run.scheduled_at), ms_of(run.missed_through) + 1)
                    covered = {tick for tick in due if _tick_ms(tick) in span}
                    if len(covered) != run.missed_count:
                        complaints.append(f"I1: {job}/{run.id}: {run.missed_count} missed?")
                    decided.update(covered)
                else:
                    decided[run.id] += 1
            complaints += [f"I1: {job}/{tick}: due, and lost" for tick in sorted(due - decided.keys())]
            complaints += [f"I1: {job}/{tick}: wasn't due" for tick in sorted(decided.keys() - due)]
            complaints += [f"I1: {job}/{t}: decided {n} times" for t, n in decided.items() if n > 1]
        return complaints

    def _judge_executions(self) -> list[str]:
        """I3, I5, I7: what the processes say fits what etcd says."""
        complaints = []
        by_run: dict[tuple[str, str], list[Execution]] = defaultdict(list)
        for execution in self.executions():
            by_run[execution.job, execution.run].append(execution)
        for first, second in overlaps(self.executions()):
            name = f"{first.job}/{first.run}"
            ms = (first.last_s - second.start_s) * 1000
            complaints.append(
                f"I3: {name}: tokens {first.token} and {second.token} overlapped by {ms:.0f} ms"
            )
        for (job, run_id), its in by_run.items():
            tokens = [execution.token for execution in its]
            name = f"{job}/{run_id}"
            if tokens != sorted(tokens):
                complaints.append(f"I5: {name}: tokens {tokens}")
            run = self.history.archive.get((job, run_id))
            if run is None:
                complaints.append(f"I7: {name}: ran, and isn't in etcd")
            elif not set(tokens) <= {attempt.token for attempt in run.attempts}:
                complaints.append(f"I7: {name}: ran with {tokens}, etcd knows {run.attempts}")
        for run in self.history.archive.values():
            its = by_run[run.job, run.id]
            if run.state is not RunState.COMPLETED or self._fields[run.job].get("is_silent"):
                continue
            completed = [e for e in its if e.token == run.attempts[-1].token and e.end_s is not None]
            if not completed:
                complaints.append(f"I7: {run.job}/{run.id}: completed, says etcd alone")
        return complaints

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


def _ticks(cron: str, since_ms: int, end_ms: int) -> set[str]:
    """Ids of the ticks in [since, end), in UTC."""
    fields = cron.split()
    moved = " ".join((*fields[1:], fields[0])) if len(fields) == 6 else cron
    before = datetime.fromtimestamp((since_ms - 1) // 1000, UTC)
    found: set[str] = set()
    for moment in croniter(moved, before, ret_type=datetime):
        if moment.timestamp() * 1000 >= end_ms:
            return found
        found.add(moment.strftime("%Y%m%dT%H%M%SZ"))
    return found


def _tick_ms(tick: str) -> int:
    moment = datetime.strptime(tick, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return int((moment - datetime.fromtimestamp(0, UTC)) / timedelta(milliseconds=1))
