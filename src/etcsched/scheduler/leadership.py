"""One leadership: the leader's machine between its view and its writer.

Everything here ends with the leadership: whatever is in flight then may or may not be committed,
and the guard of every transaction decides that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from etcsched.core.clock import Instant
from etcsched.core.errors import ClusterUnreachable
from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.core.leader.machine import LeaderMachine
from etcsched.etcd.writer import Writer, WriteResult
from etcsched.keyspace import archive_listing
from etcsched.keyspace.answers import leader_event
from etcsched.keyspace.codec import MalformedRecord
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range
from etcsched.keyspace.transactions import LeaderGuard, LeaderTransactions
from etcsched.ports import Etcd
from etcsched.scheduler.metrics import SchedulerMetrics

log = logging.getLogger(__name__)

RETRY_S = 0.2


class Leadership:
    """Owns a machine and a writer from ``Lead`` to ``Demote``.

    ``step_down`` is called, at most once, when the leadership ends from within: a refused guard,
    or the machine's own word.
    """

    def __init__(
        self,
        etcd: Etcd,
        keys: Keys,
        machine: LeaderMachine,
        guard: LeaderGuard,
        clock: Callable[[], Instant],
        step_down: Callable[[str], None],
        metrics: SchedulerMetrics,
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._machine = machine
        self._clock = clock
        self._step_down = step_down
        self._metrics = metrics
        self._transactions = LeaderTransactions(keys)
        self._writer = Writer(
            etcd,
            guard,
            self._on_results,
            self._on_guard_refused,
            on_sending=metrics.batch_sent,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._early: list[ev.LeaderEvent] = []
        """Told between ``Lead`` and the first turn of ``run``."""
        self._is_over = False

    @property
    def machine(self) -> LeaderMachine:
        return self._machine

    async def run(self) -> None:
        """Lead until cancelled, or until the guard is refused. Raises what no waiting can mend,
        wherever it came up: who leads and does nothing keeps everybody else from leading."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._perform(self._machine.take_over())
                self._arm()
                if self._early:
                    self.tell(*self._early)
                await self._writer.run()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._is_over = True
            self._tasks = None
            if self._timer is not None:
                self._timer.cancel()

    def tell(self, *events: ev.LeaderEvent) -> None:
        """Events in, their effects out, the timer armed anew."""
        if self._is_over:
            return
        if self._tasks is None:
            self._early += events
            return
        self._perform(self._machine.handle_all(events, self._clock()))
        self._arm()

    # --- results and timers

    def _on_results(self, results: list[WriteResult]) -> None:
        self._metrics.answered(results)
        self.tell(*map(leader_event, results))

    def _on_guard_refused(self) -> None:
        self._end("etcd refused its guard: another node leads, or its election key is gone")

    def _end(self, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._step_down(reason)

    def _arm(self) -> None:
        if self._is_over:
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        if self._machine.is_halfway:
            self._timer = loop.call_later(0.0, self._fire)
            return
        # The loop's timers have a resolution of 1 ms: an earlier one would only fire again.
        delay_s = max(0.001, self._machine.next_wake_s() - self._clock().mono_s)
        self._timer = loop.call_later(delay_s, self._fire)

    def _fire(self) -> None:
        if self._tasks is not None:
            self._spawn(self._time_passes())

    async def _time_passes(self) -> None:
        """A task, since the loop only logs what a callback raises."""
        self.tell(ev.TimerFired())

    # --- effects

    def _perform(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            match effect:
                case fx.Write():
                    self._metrics.sending(effect)
                    self._writer.submit(effect.seq, self._transactions.build(effect))
                case fx.ConfirmLoss():
                    self._spawn(self._confirm_loss(effect))
                case fx.ListArchive():
                    self._spawn(self._list_archive(effect))
                case fx.ReadArchived():
                    self._spawn(self._read_archived(effect))
                case fx.StepDown():
                    self._end(effect.reason)
                case fx.Note():
                    _log(effect)
                case fx.Defect():
                    self._metrics.defects.inc()
                    text = "%s can't be decided, it is left for a minute: %s"
                    log.error(text, effect.about, effect.trace)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None
        self._tasks.create_task(work)

    async def _confirm_loss(self, effect: fx.ConfirmLoss) -> None:
        while True:
            try:
                info = await self._etcd.lease_time_to_live(effect.lease)
            except ClusterUnreachable as error:
                log.warning("can't ask about the lease of agent %s: %s", effect.agent, error)
                await asyncio.sleep(RETRY_S)
                continue
            self.tell(ev.LeaseAnswered(effect.agent, effect.lease, info.has_ended, info.raft_term))
            return

    async def _list_archive(self, effect: fx.ListArchive) -> None:
        found = None
        try:
            found = await self._etcd.range(archive_listing.listing(self._keys, effect))
        except ClusterUnreachable as error:
            log.warning("history can't be listed, it is pruned later: %s", error)
        self.tell(archive_listing.listed(self._keys, effect, found))

    async def _read_archived(self, effect: fx.ReadArchived) -> None:
        key = self._keys.archive(effect.job, effect.run_id)
        while True:
            try:
                found = await self._etcd.range(Range(key))
                break
            except ClusterUnreachable:
                await asyncio.sleep(RETRY_S)
        run, revision = None, 0
        if found.kvs:
            try:
                run = archive_listing.record_at(effect, found.kvs[0])
                revision = found.kvs[0].mod_revision
            except MalformedRecord as error:
                log.warning("%s: %s", key, error)
        self.tell(ev.ArchivedRead(effect.job, effect.run_id, run, revision))


def _log(note: fx.Note) -> None:
    subject = f"{note.job}/{note.run}: " if note.run else ""
    if not subject and note.agent:
        subject = f"agent {note.agent} "
    about = {"job": note.job, "run": note.run, "agent": note.agent}
    level = logging.WARNING if note.is_warning else logging.INFO
    log.log(level, "%s%s", subject, note.text, extra=about)
