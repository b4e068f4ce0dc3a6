"""The scheduler daemon: a session, a watch, a candidate, and at times a leadership."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import random
import signal
import socket
import time
from collections.abc import Coroutine
from typing import Any

import uvloop
from msgspec.structs import replace

from etcsched import __version__
from etcsched.core.candidate import (
    CandidateEffect,
    CandidateMachine,
    Demote,
    Join,
    Lead,
    Leave,
    Standing,
    TakeTerm,
)
from etcsched.core.clock import CLOCK_EVERY_S, MAX_SKEW_S, Instant
from etcsched.core.errors import ClusterUnreachable, EtcschedError, LeaseGone, NoSpace
from etcsched.core.leader import events as ev
from etcsched.core.leader.machine import LeaderMachine
from etcsched.core.leader.standby import Standby
from etcsched.core.records import Barred, Candidate, Kind
from etcsched.core.times import ms_of, utc_of
from etcsched.core.view import View
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.high_water import HighWater
from etcsched.etcd.outage_watch import measure_election_timeout
from etcsched.etcd.session import Session, SessionLoss, boottime_s
from etcsched.etcd.versions import check_server
from etcsched.keyspace.codec import MalformedRecord
from etcsched.keyspace.feed import HOW_TO_MEND, Feed
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range, Txn
from etcsched.keyspace.transactions import (
    LeaderGuard,
    join_election,
    leave_election,
    say_barred,
    unsay_barred,
    update_candidate,
    win_term,
)
from etcsched.ports import Snapshot, WatchUpdate
from etcsched.scheduler.complaints import ElectionComplaints
from etcsched.scheduler.config import SchedulerConfig
from etcsched.scheduler.etcd_check import check_etcd
from etcsched.scheduler.leadership import Leadership
from etcsched.scheduler.metrics import SchedulerMetrics
from etcsched.serving.health import Condition, serve_health

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 0.25
SAY_AGAIN_S = 1.0
RETRY_FIRST_S = 0.1
RETRY_MOST_S = 5.0


def instant_now() -> Instant:
    return Instant(time.time_ns() // 1_000_000, boottime_s())


def run_scheduler(config: SchedulerConfig, etcd_config: EtcdConfig) -> None:
    """Run a scheduler node in the foreground until SIGTERM or SIGINT.

    Raises what no waiting can mend (``EtcschedError``); etcd being away isn't that.
    """
    node = SchedulerNode(config, etcd_config)
    # Records are many, live long and form no cycles: with the usual thresholds, reading 100,000
    # jobs spends two thirds of its time in the cyclic garbage collector.
    gc.set_threshold(50_000, 20, 1000)
    uvloop.run(node.run())


class SchedulerNode:
    """Everything of one process, in one event loop; only lease renewal has a thread of its own."""

    def __init__(self, config: SchedulerConfig, etcd_config: EtcdConfig) -> None:
        self._config = config
        self._etcd_config = etcd_config
        self._keys = Keys(config.prefix)
        self._view = View()
        self._standby = Standby(self._view)
        self._feed = Feed(self._keys, self._view, _ignored)
        self._candidate = CandidateMachine(config.node, self._view)
        self._complaints = ElectionComplaints(self._candidate, self._keys, config.session_ttl_s)
        self._session: Session | None = None
        self._session_over = asyncio.Event()
        self._leadership: Leadership | None = None
        self._leading: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._has_snapshot = asyncio.Event()
        self._since = utc_of(instant_now().wall_ms)
        self._raft_term = 0
        self._raft_term_since_s = 0.0
        self._next_clock_s = 0.0
        self._said_barred: str | None = ""
        """None: etcd may hold this or that."""
        self._said_at_s = -math.inf
        self._options = config.options
        self._steps: set[asyncio.Task[None]] = set()
        self._metrics = SchedulerMetrics(
            config.node, self._view, lambda: self._candidate.leading, instant_now
        )
        self._high_water = HighWater(config.directory / "revision")
        self._high_water.prepare()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        who = f"scheduler {self._config.node}"
        async with serve_health(self._config.listen, who, self._condition, self._metrics.text):
            self._etcd = EtcdClient(
                self._etcd_config, on_raft_term=self._on_raft_term, on_call=self._metrics.called
            )
            try:
                await self._wait_for_etcd()
                if not self._stopping.is_set():
                    await self._serve()
            finally:
                await self._etcd.close()

    def _condition(self) -> Condition:
        """A standby is as well as a leader: it could lead."""
        if not self._has_snapshot.is_set():
            return Condition(False, "it hasn't read from etcd yet")
        if self._candidate.lacking:
            return Condition(False, self._candidate.lacking)
        if self._complaints.lacking:
            return Condition(False, self._complaints.lacking)
        remark = self._complaints.remark
        if self._candidate.leading is not None:
            return Condition(True, f"leads, term {self._candidate.leading.number}{remark}")
        return Condition(True, f"stands by{remark}")

    async def _serve(self) -> None:
        log.info("scheduler %s started (pid %d)", self._config.node, os.getpid())
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                watch = tasks.create_task(self._follow())
                sessions = tasks.create_task(self._hold_sessions())
                beat = tasks.create_task(self._beat())
                check = tasks.create_task(
                    check_etcd(
                        self._etcd, self._high_water, self._metrics, self._check_not_restored
                    )
                )
                await self._stopping.wait()
                await self._leave()
                for task in (watch, sessions, beat, check, *self._steps):
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            # Also where it ends because etcd was restored: the next start has to see that, too.
            with contextlib.suppress(OSError):
                self._high_water.write()
        log.info("scheduler %s stopped", self._config.node)

    async def _wait_for_etcd(self) -> None:
        """Until an etcd answers that is to be trusted; raises where it isn't."""
        backoff_s = RETRY_FIRST_S
        while not self._stopping.is_set():
            try:
                # The status of a member may be open to anyone; a read of ours isn't.
                await self._etcd.range(Range(self._keys.term))
                await check_server(
                    self._etcd,
                    embedded=self._config.is_demo,
                    allow_unfenced_auth=self._config.allow_unfenced_auth,
                )
            except ClusterUnreachable as error:
                log.warning("waiting for etcd: %s", error)
            else:
                return
            await self._pause(backoff_s)
            backoff_s = min(2 * backoff_s, RETRY_MOST_S)

    async def _pause(self, most_s: float) -> None:
        """A jittered wait that a stop ends."""
        try:
            async with asyncio.timeout(random.uniform(0.5, 1.0) * most_s):
                await self._stopping.wait()
        except TimeoutError:
            pass

    # --- the view

    async def _follow(self) -> None:
        keys = self._keys
        async with self._etcd.watch(keys.watched, keys.watched_end) as updates:
            async for update in updates:
                self._on_update(update)

    def _on_update(self, update: WatchUpdate) -> None:
        is_live = not isinstance(update, Snapshot)
        if isinstance(update, Snapshot):
            self._high_water.check(
                update.revision,
                who=f"scheduler {self._config.node}",
                accept_restored=self._config.accept_restored_cluster
                and not self._has_snapshot.is_set(),
            )
        changes = self._feed.take(update)
        if isinstance(update, Snapshot):
            log.info("view read at revision %d: %d records", update.revision, len(update.kvs))
        if not is_live:
            # What was read stays for long: the collector needn't look at it again and again.
            gc.freeze()
        self._high_water.saw(update.revision)
        self._has_snapshot.set()
        if self._leadership is None:
            self._standby.follow(changes)
        late_through = 0 if isinstance(update, Snapshot) else update.late_through
        self._do(self._candidate.view_changed(changes, is_live, instant_now(), late_through))
        self._refuse_to_lead_on_ruins()
        if self._leadership is not None:
            if is_live:
                self._metrics.seen(changes)
            self._leadership.tell(ev.ViewChanged(changes))

    def _refuse_to_lead_on_ruins(self) -> None:
        """Without knowing the term or the watermark, nobody can lead; a person has to mend them."""
        if self._feed.unreadable:
            names = " and ".join(self._feed.unreadable)
            reason = f"state/{names} can't be read: put it right; {HOW_TO_MEND}"
            self._do(self._candidate.step_down(reason, instant_now(), bar_s=4 * PROGRESS_EVERY_S))

    # --- session and election

    async def _hold_sessions(self) -> None:
        """One session after another, for as long as the node runs."""
        backoff_s = RETRY_FIRST_S
        await self._has_snapshot.wait()
        while not self._stopping.is_set():
            self._session_over.clear()
            session = Session(
                self._etcd_config,
                ttl_s=self._config.session_ttl_s,
                on_renewed=self._metrics.session_renewed,
                on_lost=self._on_session_lost,
            )
            try:
                await self._check_not_restored()
                measured_s = await measure_election_timeout(self._etcd)
                await session.start()
            except (ClusterUnreachable, LeaseGone, NoSpace) as error:
                log.warning("no session yet: %s", error)
                await self._pause(backoff_s)
                backoff_s = min(2 * backoff_s, RETRY_MOST_S)
                continue
            backoff_s = RETRY_FIRST_S
            self._options = replace(
                self._config.options,
                election_timeout_s=max(measured_s, self._config.options.election_timeout_s),
            )
            self._session = session
            self._metrics.session_opened(session.deadline_mono_s)
            log.info("session %x opened", session.lease)
            self._do(self._candidate.session_opened(session.lease, instant_now()))
            await self._session_over.wait()

    async def _check_not_restored(self) -> None:
        """The watch doesn't tell: of a cluster that fell back it waits for the revision that it
        would have shown next. What was seen in this process can't be accepted: the view is of it.
        Until there is one, it is the snapshot that is checked.
        """
        if not self._has_snapshot.is_set():
            return
        seen = self._high_water.revision
        result = await self._etcd.range(Range(self._keys.term, count_only=True))
        who = f"scheduler {self._config.node}"
        self._high_water.check(result.revision, who=who, accept_restored=False, seen=seen)

    def _on_session_lost(self, loss: SessionLoss) -> None:
        log.warning("%s", loss.text)
        self._metrics.session_lost()
        self._session = None
        self._session_over.set()
        self._do(self._candidate.session_lost(loss.text))

    async def _beat(self) -> None:
        """The loop's sign of life, and the candidate's clock."""
        while True:
            now = instant_now()
            if self._session is not None:
                self._session.progress()
                if now.mono_s >= self._next_clock_s:
                    self._next_clock_s = now.mono_s + CLOCK_EVERY_S
                    self._step(self._renew_candidate())
            self._do(self._candidate.time_passed(now))
            self._refuse_to_lead_on_ruins()
            self._say_whether_barred(now)
            self._complaints.time_passed(now.mono_s)
            await asyncio.sleep(PROGRESS_EVERY_S)

    def _say_whether_barred(self, now: Instant) -> None:
        """Where it doesn't stand for election, others see it nowhere else."""
        is_barred = self._candidate.standing is Standing.BARRED
        reason = self._candidate.barred_because if is_barred else ""
        # The reason tells by how much a clock is wrong, which is never quite the same.
        pace_s = CLOCK_EVERY_S if reason and self._said_barred else SAY_AGAIN_S
        session = self._session
        if session is None:
            self._said_barred = ""  # What was said goes with its lease.
        elif reason != self._said_barred and now.mono_s - self._said_at_s >= pace_s:
            self._said_barred, self._said_at_s = reason, now.mono_s
            self._step(self._say_barred(session.lease, reason))

    async def _say_barred(self, lease: int, reason: str) -> None:
        is_said = False
        try:
            is_said = await self._send(
                say_barred(self._keys, lease, Barred(**self._own_word(), reason=reason))
                if reason
                else unsay_barred(self._keys, self._config.node)
            )
        finally:
            if not is_said:
                self._said_barred = None

    def _own_word(self) -> dict[str, Any]:
        """The fields of a ``Scheduler``."""
        return {
            "node": self._config.node,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": self._since,
            "clock": utc_of(instant_now().wall_ms),
            "version": __version__,
        }

    async def _renew_candidate(self) -> None:
        session = self._session
        if session is None:
            return
        own = self._view.candidates.get(f"{session.lease:x}")
        if own is not None:
            record = replace(own.record, clock=utc_of(instant_now().wall_ms))
            await self._etcd.txn(
                update_candidate(self._keys, session.lease, own.mod_revision, record)
            )

    def _do(self, effects: list[CandidateEffect]) -> None:
        for effect in effects:
            match effect:
                case Join():
                    seen = self._view.seen(Kind.ELECTION, f"{effect.lease:x}")
                    own = Candidate(**self._own_word())
                    txn = (
                        # A hand wrote over it: its place in the queue stays, and its lease.
                        update_candidate(self._keys, effect.lease, seen, own)
                        if seen
                        else join_election(self._keys, effect.lease, own)
                    )
                    self._step(self._send(txn))
                case Leave():
                    reason = self._candidate.barred_because or "it is stopped"
                    log.info("leaves the election: %s", reason)
                    self._step(self._send(leave_election(self._keys, effect.lease, effect.token)))
                case TakeTerm():
                    self._step(self._send(win_term(self._keys, effect.write)))
                case Lead():
                    self._lead(effect)
                case Demote():
                    self._stop_leading(effect.reason)

    def _step(self, work: Coroutine[Any, Any, Any]) -> None:
        """A step of the election: its success shows on the watch, its failure is tried again."""

        async def attempt() -> None:
            try:
                await work
            except (ClusterUnreachable, LeaseGone, NoSpace) as error:
                log.warning("election: %s", error)

        task = self._tasks.create_task(attempt())
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)

    async def _send(self, txn: Txn) -> bool:
        return (await self._etcd.txn(txn, timeout_s=self._config.session_ttl_s / 2)).succeeded

    # --- leadership

    def _lead(self, effect: Lead) -> None:
        machine = LeaderMachine(
            self._view,
            self._standby.index,
            effect.term,
            instant_now(),
            raft_term=self._raft_term,
            raft_term_since_s=self._raft_term_since_s,
            options=self._options,
        )
        guard = LeaderGuard(self._keys, effect.term, effect.term_revision)
        leadership = Leadership(
            self._etcd, self._keys, machine, guard, instant_now, self._on_step_down, self._metrics
        )
        log.warning(
            "leads: term %d, fencing token %d, %d jobs, %d active runs",
            effect.term.number, effect.term.token, len(self._view.jobs), len(self._view.runs),
        )  # fmt: skip
        self._warn_of_a_watermark_ahead()
        self._metrics.leads()
        self._leadership = leadership
        self._leading = self._tasks.create_task(leadership.run())

    def _warn_of_a_watermark_ahead(self) -> None:
        watermark = self._view.watermark
        if watermark is None:
            return
        ahead_s = (ms_of(watermark.record.through) - instant_now().wall_ms) / 1000
        if ahead_s > MAX_SKEW_S:
            log.error(
                "the watermark is %.0f s ahead of this clock: nothing is due until then "
                "(docs/operations.md, A wrong clock)",
                ahead_s,
            )

    def _on_step_down(self, reason: str) -> None:
        self._do(self._candidate.step_down(reason, instant_now()))

    def _stop_leading(self, reason: str) -> None:
        log.warning("leads no longer: %s", reason)
        if self._leading is not None:
            self._leading.cancel()
        self._leadership = self._leading = None
        self._metrics.demoted()
        if not self._stopping.is_set():
            self._standby.rebuild()

    def _on_raft_term(self, raft_term: int) -> None:
        if raft_term > self._raft_term:
            self._raft_term = raft_term
            self._raft_term_since_s = boottime_s()
        if self._leadership is not None:
            self._leadership.tell(ev.RaftTermSeen(raft_term))

    async def _leave(self) -> None:
        """Resign, so that the next scheduler leads at once; then give the session back."""
        self._do(self._candidate.resign("it is stopped"))
        if self._steps:
            await asyncio.wait(self._steps, timeout=2.0)
        if self._session is not None:
            try:
                await self._session.revoke(timeout_s=2.0)
            except EtcschedError as error:
                log.warning("the session lasts for its TTL: %s", error)


def _ignored(key: str, error: MalformedRecord) -> None:
    log.error("ignored %s: %s", key, error)
