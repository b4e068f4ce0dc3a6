"""A run's four transactions (T1, T2, T3, T4b), without anybody who decides, watches or waits."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

from etcsched.core.agent.effects import Claim, ReportOutcome
from etcsched.core.leader import effects as fx
from etcsched.core.leader.runs import Author, assignment_of, attempt_of, step, tick_run
from etcsched.core.records import (
    Assignment,
    Candidate,
    Job,
    Kind,
    Noop,
    Presence,
    Record,
    Report,
    Run,
    ScheduleVersion,
    StartSeen,
    Term,
    Watermark,
)
from etcsched.core.states import Outcome, RunState
from etcsched.core.times import Utc, utc_of
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Put, Txn
from etcsched.keyspace.transactions import (
    MAX_OPERATIONS,
    AgentGuard,
    AgentTransactions,
    LeaderGuard,
    LeaderTransactions,
    cost,
    guarded,
)

AGENTS = 10
BATCHES_IN_FLIGHT = 4
TERM = 1

Attempt = tuple[Run, Assignment]


class BareRuns:
    """Below a prefix of its own: nobody watches it."""

    def __init__(self, endpoint: str) -> None:
        self._etcd = EtcdClient(EtcdConfig(endpoints=(endpoint,)))
        self._keys = Keys(f"/bare/{time.time_ns()}/")
        self._leader = LeaderTransactions(self._keys)
        self._agent = AgentTransactions(self._keys)
        self._now_ms = time.time_ns() // 1_000_000
        self._now = utc_of(self._now_ms)
        self._author = Author(TERM, self._now)
        self._ticks = itertools.count(self._now_ms - self._now_ms % 1000 + 1000, 1000)
        self._seqs = itertools.count(1)
        self._job = Job(name="bare", run=Noop(), versions=(ScheduleVersion(since=self._now),))

    async def close(self) -> None:
        await self._etcd.close()

    async def set_up(self) -> None:
        keys = self._keys
        watermark = Watermark(through=utc_of(self._now_ms - 60_000), term=TERM)
        candidate = Candidate(
            node="bare", host="", pid=0, since=self._now, clock=self._now, version=""
        )
        self._job_revision = await self._put(keys.of(Kind.JOB, "bare"), self._job)
        await self._put(keys.watermark, watermark)
        token = await self._put(keys.election(1), candidate)
        term = Term(number=TERM, leader="bare", election_key="1", token=token, since=self._now)
        self._guard = LeaderGuard(keys, term, await self._put(keys.term, term))
        self._presences = [_presence(f"agent-{number}", self._now) for number in range(AGENTS)]
        self._revisions = [
            await self._put(keys.of(Kind.PRESENCE, presence.agent), presence)
            for presence in self._presences
        ]

    async def _put(self, key: str, record: Record) -> int:
        return (await self._etcd.txn(Txn((), (Put(key, encode(record)),)))).revision

    async def commit(self, runs: int) -> None:
        left = iter(_batch_sizes(runs))

        async def commit_batches() -> None:
            for size, agent in left:
                await self._commit_batch(size, agent)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(BATCHES_IN_FLIGHT):
                tasks.create_task(commit_batches())

    async def _commit_batch(self, size: int, agent: int) -> None:
        """One batch of runs on one agent, through all four."""
        guard = AgentGuard(self._keys, self._presences[agent].agent, self._revisions[agent])
        attempts = [self._attempt(agent) for _ in range(size)]
        created = await self._send(self._guard, [self._create(a, agent) for a in attempts])
        claims = [_claim(assignment, created, self._now) for _, assignment in attempts]
        claimed = [
            Claim(token=created, assignment=assignment, report=claim)
            for (_, assignment), claim in zip(attempts, claims, strict=True)
        ]
        await self._send(guard, [self._agent.build(claim) for claim in claimed])
        outcomes = [_outcome(claim, self._now) for claim in claims]
        name = self._presences[agent].agent
        reported = await self._send(
            guard,
            [
                self._agent.build(ReportOutcome(agent=name, token=created, report=outcome))
                for outcome in outcomes
            ],
        )
        await self._send(
            self._guard,
            [
                self._end(attempt, outcome, created, reported)
                for attempt, outcome in zip(attempts, outcomes, strict=True)
            ],
        )

    async def _send(self, guard: LeaderGuard | AgentGuard, nested: list[Txn]) -> int:
        """As one transaction, which must hold; its revision."""
        assert len(nested) + max(cost(txn) for txn in nested) <= MAX_OPERATIONS
        result = await self._etcd.txn(guarded(guard, nested))
        assert result.succeeded
        assert all(getattr(answer, "succeeded", False) for answer in result.responses)
        return result.revision

    def _attempt(self, agent: int) -> Attempt:
        presence = self._presences[agent]
        run = tick_run(
            self._author,
            self._job,
            next(self._ticks),
            RunState.ASSIGNED,
            "due",
            agent=presence.agent,
            attempt=1,
        )
        return run, assignment_of(self._author, run, self._job, presence, self._seen())

    def _seen(self) -> StartSeen:
        return StartSeen(job=self._job_revision)

    def _create(self, attempt: Attempt, agent: int) -> Txn:
        run, assignment = attempt
        return self._leader.build(
            fx.CreateRun(
                seq=next(self._seqs),
                run=run,
                seen=assignment.seen,
                is_tick=True,
                assignment=assignment,
                presence_revision=self._revisions[agent],
            )
        )

    def _end(self, attempt: Attempt, report: Report, created: int, reported: int) -> Txn:
        run, assignment = attempt
        over = attempt_of(assignment, created, report, Outcome.COMPLETED, "", self._now)
        return self._leader.build(
            fx.EndRun(
                seq=next(self._seqs),
                run=step(
                    self._author, run, created, RunState.COMPLETED, "completed", attempts=(over,)
                ),
                run_revision=created,
                old=fx.OldAttempt(
                    agent=assignment.agent, assignment_revision=created, report_revision=reported
                ),
            )
        )


LARGEST_BATCH = MAX_OPERATIONS - 10
"""The dearest of the four has nine compares or operations."""


def _batch_sizes(runs: int) -> Sequence[tuple[int, int]]:
    """(runs, agent) of each batch."""
    sizes = [min(LARGEST_BATCH, runs - begun) for begun in range(0, runs, LARGEST_BATCH)]
    return [(size, number % AGENTS) for number, size in enumerate(sizes)]


def _presence(agent: str, now: Utc) -> Presence:
    return Presence(
        agent=agent,
        incarnation="1",
        supervisor="1",
        slots=1000,
        host="",
        pid=0,
        since=now,
        clock=now,
        version="",
    )


def _claim(assignment: Assignment, token: int, now: Utc) -> Report:
    return Report(
        job=assignment.job,
        run=assignment.run,
        attempt=assignment.attempt,
        token=token,
        incarnation=assignment.incarnation,
        supervisor="1",
        claimed_at=now,
    )


def _outcome(claim: Report, now: Utc) -> Report:
    return Report(
        job=claim.job,
        run=claim.run,
        attempt=claim.attempt,
        token=claim.token,
        incarnation=claim.incarnation,
        supervisor=claim.supervisor,
        claimed_at=claim.claimed_at,
        started_at=now,
        outcome=Outcome.COMPLETED,
        ended_at=now,
    )
