"""A scheduler node in a world: its cores are the real ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from etcsched.core.candidate import (
    CandidateEffect,
    CandidateMachine,
    Demote,
    Join,
    Lead,
    Leave,
    TakeTerm,
)
from etcsched.core.clock import Instant
from etcsched.core.errors import InvalidTransaction, LeaseGone
from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.core.leader.machine import LeaderMachine
from etcsched.core.leader.ticks import TickIndex
from etcsched.core.records import Candidate, Change, Job, Kind
from etcsched.core.times import ms_of, utc_of
from etcsched.core.view import View
from etcsched.keyspace import archive_listing
from etcsched.keyspace.answers import refusal_of
from etcsched.keyspace.codec import MalformedRecord
from etcsched.keyspace.ops import Range, TxnResult
from etcsched.keyspace.transactions import (
    LeaderGuard,
    LeaderTransactions,
    guarded,
    join_election,
    leave_election,
    win_term,
)
from etcsched.testing.watcher import Watcher

if TYPE_CHECKING:
    from etcsched.testing.world import World

KEEPALIVE_S = 1.0


class SimulatedScheduler:
    """The candidate and the leader as ``scheduler.node`` drives them, without the network."""

    def __init__(self, world: World, name: str, ttl_s: int) -> None:
        self.name = name
        self.is_alive = True
        self._is_cut_off = False
        self._late_through = 0
        self.leader: LeaderMachine | None = None
        self.notes: list[fx.Note] = []
        self.defects: list[fx.Defect] = []
        self.demotions: list[str] = []
        self.wall_offset_ms = 0
        self._world = world
        self._ttl_s = ttl_s
        self._watcher = Watcher(world.store, world.keys)
        self._view = View()
        self._index = TickIndex(0)
        self._candidate = CandidateMachine(name, self._view)
        self._guard: LeaderGuard | None = None
        self._transactions = LeaderTransactions(world.keys)
        self._writes: deque[fx.Write] = deque()
        self._answers: deque[ev.LeaderEvent] = deque()
        self._is_live = False
        self._open_session()
        self._keep_alive()

    def _now(self) -> Instant:
        world = self._world
        wall_ms = world.start_ms + round(world.now_s * 1000) + self.wall_offset_ms
        return Instant(wall_ms, world.now_s)

    def _open_session(self) -> None:
        self._lease = self._world.store.lease_grant(self._ttl_s).lease
        self._do(self._candidate.session_opened(self._lease, self._now()))

    def _keep_alive(self) -> None:
        if not self.is_alive:
            return
        if not self.is_cut_off and self._world.store.lease_keepalive(self._lease).ttl_s <= 0:
            self._do(self._candidate.session_lost("its lease is gone"))
            self._open_session()
        self._world.at(self._world.now_s + KEEPALIVE_S, self._keep_alive)

    # --- faults

    @property
    def is_cut_off(self) -> bool:
        return self._is_cut_off

    @is_cut_off.setter
    def is_cut_off(self, is_cut_off: bool) -> None:
        """What was written meanwhile is seen late."""
        self._is_cut_off = is_cut_off
        self._late_through = self._world.store.revision

    def kill(self) -> None:
        """As by SIGKILL: whatever isn't committed is gone."""
        self.is_alive = False
        self.leader = self._guard = None
        self._writes.clear()
        self._answers.clear()

    def stop(self) -> None:
        self._do(self._candidate.resign("it is stopped"))
        self._world.store.lease_revoke(self._lease)
        self.kill()

    def send_all(self) -> None:
        """What it has decided reaches etcd, though news don't reach it."""
        while self._writes:
            self._send()

    def send_one(self, but: type[fx.Write] | None = None) -> fx.Write | None:
        """So does the first of it that isn't of this kind. None: there is none."""
        for write in self._writes:
            if but is None or not isinstance(write, but):
                self._writes.remove(write)
                self._commit(write)
                return write
        return None

    # --- driven by the world

    def wake_s(self) -> float:
        if self.leader is None or self.is_cut_off:
            return self._world.now_s + KEEPALIVE_S
        return self.leader.next_wake_s()

    def time_passed(self) -> None:
        if self.is_alive:
            self._do(self._candidate.time_passed(self._now()))
            self._tell(ev.TimerFired())

    def see(self) -> bool:
        """Take in one thing that is there: news, an answer, or a write to send."""
        if not self.is_alive or self.is_cut_off:
            return False
        steps: list[Callable[[], None]] = []
        if self._watcher.has_news:
            steps.append(self.look)
        if self._answers:
            steps.append(self.take_answer)
        if self._writes:
            steps.append(self._send)
        if not steps:
            return False
        chance = self._world.chance
        step = steps[0] if chance is None else chance.choice(steps)
        step()
        return True

    def look(self) -> None:
        """Take in what the watch has, if anything."""
        if not self._watcher.has_news:
            return
        changes, revision = self._watcher.changes(self._world.chance)
        self._view.apply(changes, revision)
        if self.leader is None:
            self._follow_index(changes)
        now, late_through = self._now(), self._late_through
        self._do(self._candidate.view_changed(changes, self._is_live, now, late_through))
        self._is_live = True
        self._tell(ev.ViewChanged(changes))

    def _follow_index(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            if isinstance(change.record, Job):
                self._index.put(change.record)
            elif change.kind is Kind.JOB:
                self._index.discard(change.ids[0])
        if self._view.watermark is not None:
            self._index.skip_to(ms_of(self._view.watermark.record.through))

    def _tell(self, event: ev.LeaderEvent) -> None:
        if self.leader is not None:
            self._perform(self.leader.handle(event, self._now()))

    def take_answer(self, *, last: bool = False) -> None:
        """To its next write, or the last one that was sent."""
        self._tell(self._answers.pop() if last else self._answers.popleft())

    def _send(self) -> None:
        """Commit a write, in an outer transaction of its own: the next, or with chance any, since
        several transactions are in flight at once."""
        world = self._world
        if world.chance is not None:
            self._writes.rotate(world.chance.randrange(len(self._writes)))
        self._commit(self._writes.popleft())

    def _commit(self, write: fx.Write) -> None:
        world = self._world
        assert self._guard is not None
        outer = guarded(self._guard, [self._transactions.build(write)])
        result = None
        if not world.rejects(write):
            with suppress(InvalidTransaction):
                result = world.store.txn(outer)
        if result is None:
            world.rejected.append(write)
            self._answers.append(ev.WriteRefused(write.seq, None))
            return
        if not result.succeeded:
            self._do(self._candidate.step_down("refused guard", self._now()))
            return
        (nested,) = result.responses
        assert isinstance(nested, TxnResult)
        if nested.succeeded:
            self._answers.append(ev.WriteCommitted(write.seq, result.revision))
            world.leader_wrote(self)
        else:
            self._answers.append(refusal_of(write.seq, nested.responses, result.revision))

    def _do(self, effects: list[CandidateEffect]) -> None:
        store, keys = self._world.store, self._world.keys
        for effect in effects:
            match effect:
                case Join():
                    now = utc_of(self._now().wall_ms)
                    record = Candidate(
                        node=self.name, host="h", pid=1, since=now, clock=now, version="0"
                    )
                    with suppress(LeaseGone):  # Its next keepalive finds out.
                        store.txn(join_election(keys, effect.lease, record))
                case Leave():
                    store.txn(leave_election(keys, effect.lease, effect.token))
                case TakeTerm():
                    store.txn(win_term(keys, effect.write))
                case Lead():
                    self._lead(effect)
                case Demote():
                    self._stop_leading(effect.reason)

    def _lead(self, effect: Lead) -> None:
        self.leader = LeaderMachine(
            self._view,
            self._index,
            effect.term,
            self._now(),
            raft_term=self._world.store.raft_term,
            raft_term_since_s=self._world.raft_term_since_s,
            options=self._world.options,
        )
        self._guard = LeaderGuard(self._world.keys, effect.term, effect.term_revision)
        self._perform(self.leader.take_over())

    def _stop_leading(self, reason: str) -> None:
        self.demotions.append(reason)
        self.leader = self._guard = None
        self._writes.clear()
        self._answers.clear()
        self._index = TickIndex(0)
        for entry in self._view.jobs.values():
            self._index.put(entry.record)
        self._follow_index(())

    def _perform(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            match effect:
                case fx.Write():
                    self._writes.append(effect)
                case fx.StepDown():
                    self._do(self._candidate.step_down(effect.reason, self._now()))
                case fx.Note():
                    self.notes.append(effect)
                case fx.Defect():
                    assert self._world.has_defects, effect.trace
                    self.defects.append(effect)
                case _:
                    self._answers.append(self._asked(effect))

    def _asked(self, effect: fx.ConfirmLoss | fx.ListArchive | fx.ReadArchived) -> ev.LeaderEvent:
        store, keys = self._world.store, self._world.keys
        match effect:
            case fx.ConfirmLoss():
                info = store.lease_time_to_live(effect.lease)
                return ev.LeaseAnswered(effect.agent, effect.lease, info.has_ended, info.raft_term)
            case fx.ListArchive():
                found = store.range(archive_listing.listing(keys, effect))
                return archive_listing.listed(keys, effect, found)
            case fx.ReadArchived():
                kvs = store.range(Range(keys.archive(effect.job, effect.run_id))).kvs
                run, revision = None, 0
                if kvs:
                    with suppress(MalformedRecord):
                        run = archive_listing.record_at(effect, kvs[0])
                        revision = kvs[0].mod_revision
                return ev.ArchivedRead(effect.job, effect.run_id, run, revision)
