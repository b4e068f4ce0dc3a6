"""A scheduler node as ``scheduler.node`` drives it: what decides is the product's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcsched.core.candidate import CandidateEffect, Demote, Join, Lead, Leave, TakeTerm
from etcsched.core.clock import CLOCK_EVERY_S
from etcsched.core.errors import EtcschedError
from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.core.leader.machine import LeaderMachine
from etcsched.core.leader.standby import Standby
from etcsched.core.records import Candidate
from etcsched.core.times import utc_of
from etcsched.etcd.high_water import HighWater
from etcsched.keyspace import archive_listing
from etcsched.keyspace.answers import leader_event
from etcsched.keyspace.ops import Range, RangeResult, Snapshot, Txn, WatchUpdate
from etcsched.keyspace.outbox import WriteResult
from etcsched.keyspace.transactions import leave_election, update_candidate
from etcsched.testing.sim.loop import Clock
from etcsched.testing.sim.network import Link
from etcsched.testing.sim.process import BEAT_S, Process, idle_beat_s
from etcsched.testing.sim.sender import Sender
from etcsched.testing.sim.session import SimSession
from etcsched.testing.sim.watch import Watch

if TYPE_CHECKING:
    from etcsched.testing.sim.cluster import Cluster

RETRY_S = 0.2


class SimScheduler:
    """One process of a node; a restart is another one."""

    def __init__(self, cluster: Cluster, name: str, clock: Clock, *, ttl_s: int) -> None:
        self.name = name
        self.cluster = cluster
        self.process = Process(cluster.loop, clock)
        self.chance = cluster.chance_of(name)
        self.link = Link(self.process, cluster.etcd, self.chance)
        self.link.on_raft_term = self._on_raft_term
        self.machine: LeaderMachine | None = None
        self._parts = parts = cluster.parts
        self._keys = keys = cluster.keys
        self._ttl_s = ttl_s
        self.view = parts.view()
        self._standby = Standby(self.view)
        etcd = cluster.etcd
        self._feed = parts.feed(keys, self.view, lambda _k, _e: None, etcd.read_kv, etcd.read_event)
        self._candidate = parts.candidate(name, self.view)
        self._transactions = parts.leader_transactions(keys)
        self._high_water = HighWater(None)
        self._session: SimSession | None = None
        self._sender: Sender | None = None
        self._leadership = 0
        self._wake_at_s = 0.0
        self._raft_term = 0
        self._raft_term_since_s = 0.0
        self._next_clock_s = 0.0
        self._since = utc_of(clock.now().wall_ms)
        self._has_snapshot = False
        Watch(self.link, keys.watched, keys.watched_end, self._on_update)
        self._beat()

    # --- faults

    def kill(self) -> None:
        self.process.die()
        for watch in self.link.watches:
            watch.close()
        self.machine = self._sender = None

    def stop(self) -> None:
        """Resign and give the session back."""
        self._do(self._candidate.resign("it is stopped"))
        session, store = self._session, self.cluster.store
        if session is not None:
            session.give_up()
            lease = session.lease
            self.link.call(
                lambda: store.lease_revoke(lease), lambda _: self.kill(), 2.0, is_write=True
            )
        else:
            self.kill()

    @property
    def lease(self) -> int:
        return self._session.lease if self._session is not None else 0

    # --- the view

    def _on_update(self, update: WatchUpdate) -> None:
        if isinstance(update, Snapshot):
            self._high_water.check(update.revision, who=self.name, accept_restored=False)
        self._high_water.saw(update.revision)
        changes = self._feed.take(update)
        if self.machine is None:
            self._standby.follow(changes)
        is_live = not isinstance(update, Snapshot)
        late_through = 0 if isinstance(update, Snapshot) else update.late_through
        now = self.process.clock.now()
        self._do(self._candidate.view_changed(changes, is_live, now, late_through))
        self._refuse_to_lead_on_ruins()
        self._tell(ev.ViewChanged(changes))
        if not self._has_snapshot:
            self._has_snapshot = True
            self._open_session(0.1)

    def _refuse_to_lead_on_ruins(self) -> None:
        if self._feed.unreadable:
            now = self.process.clock.now()
            self._do(self._candidate.step_down("unreadable", now, bar_s=4 * BEAT_S))

    def _on_raft_term(self, raft_term: int) -> None:
        if raft_term > self._raft_term:
            self._raft_term = raft_term
            self._raft_term_since_s = self.process.clock.mono_s()
        self._tell(ev.RaftTermSeen(raft_term))

    # --- session and election

    def _open_session(self, backoff_s: float) -> None:
        def begun(answer: SimSession | EtcschedError) -> None:
            if isinstance(answer, EtcschedError):
                pause_s = self.chance.uniform(0.5, 1.0) * backoff_s
                self.process.after(pause_s, self._open_session, min(2 * backoff_s, 5.0))
                return
            self._session = answer
            self._do(self._candidate.session_opened(answer.lease, self.process.clock.now()))

        SimSession(
            self.link,
            self._parts,
            ttl_s=self._ttl_s,
            lease=0,
            on_begun=begun,
            on_renewed=lambda _deadline: None,
            on_lost=self._session_lost,
        )

    def _session_lost(self, why: str) -> None:
        self.cluster.trace(self.name, f"session lost: {why}")
        self._session = None
        self._do(self._candidate.session_lost(why))
        self._open_session(0.1)

    def _beat(self) -> None:
        now = self.process.clock.now()
        if self._session is not None and now.mono_s >= self._next_clock_s:
            self._next_clock_s = now.mono_s + CLOCK_EVERY_S
            self._renew_candidate()
        self._do(self._candidate.time_passed(now))
        self._refuse_to_lead_on_ruins()
        # In a settled cluster, the candidate has nothing to do with time but to look at clocks.
        is_settled = self.machine is not None or len(self.view.candidates) > 1
        self.process.after(idle_beat_s(self._ttl_s) if is_settled else BEAT_S, self._beat)

    def _record(self) -> Candidate:
        clock = utc_of(self.process.clock.now().wall_ms)
        return Candidate(
            node=self.name, host=self.name, pid=1, since=self._since, clock=clock, version="0"
        )

    def _renew_candidate(self) -> None:
        own = self.view.candidates.get(f"{self.lease:x}")
        if own is not None:
            self._step(update_candidate(self._keys, self.lease, own.mod_revision, self._record()))

    def _step(self, txn: Txn) -> None:
        """A step of the election: its success shows on the watch, its failure is tried again."""
        store = self.cluster.store
        self.link.call(lambda: store.txn(txn), _nothing, self._ttl_s / 2, is_write=True)

    def _do(self, effects: list[CandidateEffect]) -> None:
        for effect in effects:
            match effect:
                case Join():
                    self._step(self._parts.join_election(self._keys, effect.lease, self._record()))
                case Leave():
                    self._step(leave_election(self._keys, effect.lease, effect.token))
                case TakeTerm():
                    self._step(self._parts.win_term(self._keys, effect.write))
                case Lead():
                    self._lead(effect)
                case Demote():
                    self._stop_leading(effect.reason)

    # --- leadership

    def _lead(self, effect: Lead) -> None:
        self.cluster.trace(self.name, f"leads: term {effect.term.number}")
        self.cluster.etcd.count("takeover")
        self.machine = machine = self._parts.leader(
            self.view,
            self._standby.index,
            effect.term,
            self.process.clock.now(),
            raft_term=self._raft_term,
            raft_term_since_s=self._raft_term_since_s,
            options=self.cluster.options,
        )
        self._leadership += 1
        leadership = self._leadership
        guard = self._parts.leader_guard(self._keys, effect.term, effect.term_revision)
        self._sender = Sender(
            self.link,
            self._parts,
            guard,
            lambda results: self._on_results(leadership, results),
            lambda: self._step_down(leadership, "guard refused"),
        )
        self._wake_at_s = 0.0
        self._perform(machine.take_over())
        self._arm()

    def _step_down(self, leadership: int, reason: str) -> None:
        if leadership == self._leadership and self.machine is not None:
            self._do(self._candidate.step_down(reason, self.process.clock.now()))

    def _stop_leading(self, reason: str) -> None:
        self.cluster.trace(self.name, f"leads no longer: {reason}")
        if self._sender is not None:
            self._sender.stop()
        self.machine = self._sender = None
        self._leadership += 1
        self._standby.rebuild()

    def _tell(self, *events: ev.LeaderEvent) -> None:
        if self.machine is not None:
            self._perform(self.machine.handle_all(events, self.process.clock.now()))
            self._arm()

    def _tell_in(self, leadership: int, event: ev.LeaderEvent) -> None:
        if leadership == self._leadership:
            self._tell(event)

    def _on_results(self, leadership: int, results: list[WriteResult]) -> None:
        if leadership == self._leadership:
            self._tell(*map(leader_event, results))

    def _arm(self) -> None:
        """A timer that is due too early asks again; only an earlier one is worth another."""
        if self.machine is None:
            return
        clock, loop = self.process.clock, self.cluster.loop
        delay_s = max(0.001, clock.true_s(self.machine.next_wake_s() - clock.mono_s()))
        when_s = loop.now_s + delay_s
        if self._wake_at_s <= loop.now_s or when_s < self._wake_at_s:
            self._wake_at_s = when_s
            loop.at(when_s, self.process.hear, self._woken, self._leadership, when_s)

    def _woken(self, leadership: int, when_s: float) -> None:
        if leadership != self._leadership or when_s != self._wake_at_s or self.machine is None:
            return
        self._wake_at_s = 0.0
        if self.machine.next_wake_s() <= self.process.clock.mono_s():
            self._tell(ev.TimerFired())
        else:
            self._arm()

    def _perform(self, effects: list[fx.Effect]) -> None:
        leadership = self._leadership
        for effect in effects:
            if leadership != self._leadership or self._sender is None:
                return
            match effect:
                case fx.Write():
                    self._sender.submit(effect.seq, self._transactions.build(effect))
                case fx.StepDown():
                    self._step_down(leadership, effect.reason)
                case fx.Note():
                    self.cluster.noted(self.name, effect)
                case fx.Defect():
                    raise AssertionError(f"{effect.about}: {effect.trace}")
                case fx.ConfirmLoss():
                    self._confirm_loss(leadership, effect)
                case fx.ListArchive():
                    self._list_archive(leadership, effect)
                case fx.ReadArchived():
                    self._read_archived(leadership, effect)

    def _confirm_loss(self, leadership: int, effect: fx.ConfirmLoss) -> None:
        store = self.cluster.store
        self.link.until_definite(
            lambda: lambda: store.lease_time_to_live(effect.lease),
            lambda info: self._tell_in(
                leadership,
                ev.LeaseAnswered(effect.agent, effect.lease, info.has_ended, info.raft_term),  # type: ignore[union-attr]
            ),
            timeout_s=5.0,
            is_write=False,
            first_s=RETRY_S,
            give_up=lambda: leadership != self._leadership,
        )

    def _list_archive(self, leadership: int, effect: fx.ListArchive) -> None:
        keys, store = self._keys, self.cluster.store
        request = archive_listing.listing(keys, effect)

        def answered(found: RangeResult | EtcschedError) -> None:
            result = None if isinstance(found, EtcschedError) else found
            self._tell_in(leadership, archive_listing.listed(keys, effect, result))

        self.link.call(lambda: store.range(request), answered, 5.0, is_write=False)

    def _read_archived(self, leadership: int, effect: fx.ReadArchived) -> None:
        key, store = self._keys.archive(effect.job, effect.run_id), self.cluster.store

        def answered(found: RangeResult | EtcschedError) -> None:
            assert isinstance(found, RangeResult)
            run, revision = None, 0
            if found.kvs:
                run = archive_listing.record_at(effect, found.kvs[0])
                revision = found.kvs[0].mod_revision
            self._tell_in(leadership, ev.ArchivedRead(effect.job, effect.run_id, run, revision))

        self.link.until_definite(
            lambda: lambda: store.range(Range(key)),
            answered,
            timeout_s=5.0,
            is_write=False,
            first_s=RETRY_S,
            give_up=lambda: leadership != self._leadership,
        )


def _nothing(answer: object) -> None:
    """Success shows on the watch; a lease that is gone shows at the next keepalive."""
