"""An agent process as ``agent.node`` drives it. What decides is the product's own."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, assert_never, cast

from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.agent.standing import Settings
from etcsched.core.errors import EtcschedError, LeaseGone
from etcsched.core.records import Kind
from etcsched.core.session import SessionEnd
from etcsched.keyspace.answers import AgentWriteId, agent_event, write_id_of
from etcsched.keyspace.feed import read_all
from etcsched.keyspace.ops import Snapshot, WatchUpdate
from etcsched.keyspace.outbox import Rejected, WriteResult
from etcsched.testing.sim.network import Link
from etcsched.testing.sim.outage_watch import SimOutageWatch
from etcsched.testing.sim.presence import SimPresence
from etcsched.testing.sim.process import BEAT_S, Process, idle_beat_s
from etcsched.testing.sim.sender import Sender
from etcsched.testing.sim.session import SimSession
from etcsched.testing.sim.watch import Watch

if TYPE_CHECKING:
    from etcsched.testing.sim.host import SimHost

RESTART_S = 0.3
SUSPICIOUS_OF_TTL = 0.4
FOLLOWED = (Kind.ASSIGNMENT, Kind.ORDER, Kind.DRAIN, Kind.PRESENCE, Kind.LIVE)


class SimAgent:
    """One process of an agent; a restart is another one."""

    def __init__(self, host: SimHost) -> None:
        cluster = self.cluster = host.cluster
        plan = host.plan
        self.host = host
        self.name = plan.agent
        self.process = Process(cluster.loop, host.clock)
        self.chance = cluster.chance_of(f"{host.name}.{host.starts}")
        self.link = Link(self.process, cluster.etcd, self.chance)
        self._parts = parts = cluster.parts
        self._keys = cluster.keys
        self._ttl_s = plan.ttl_s
        self._transactions = parts.agent_transactions(cluster.keys)
        self._presence = SimPresence(self.link, parts, cluster.keys, self.name, self.post)
        self._sender: Sender | None = None
        self._session: SimSession | None = None
        self._sessions = 0
        self._is_resumed = False
        self._saved = host.disk.session
        self._inbox: deque[ev.Event] = deque()
        self._is_handling = False
        self.is_over = False
        self._outage_watch = SimOutageWatch(
            self.link,
            parts,
            silent_s=lambda: 0.0 if self._session is None else self._session.silent_s(),
            suspicious_s=self._suspicious_s,
            on_proved=self._outage_proved,
        )
        cluster.etcd.on_killed[self] = self._member_killed
        self._past = () if self._saved is None else self._saved[1]
        self.machine = parts.agent(
            Settings(
                agent=self.name,
                slots=plan.slots,
                host=host.name,
                pid=host.starts,
                version="0",
                own_user="app",
                output_dir="/out",
                labels=plan.labels,
                users=("app",),
                default_user="app",
                past_incarnations=self._past,
                stop_timeout_s=plan.stop_timeout_s,
                leader_wait_s=plan.ttl_s + 3.0,
                shutdown_timeout_s=plan.stop_timeout_s,
            )
        )

    def begin(self) -> None:
        if self.host.disk.spool:
            reports = sorted(self.host.disk.spool.values(), key=lambda r: r.ended_at or "")
            self.post(ev.SpoolRead(tuple(reports)))
        self._meet_supervisor()
        for kind in FOLLOWED:
            if kind in (Kind.ASSIGNMENT, Kind.ORDER):
                start, end = self._keys.all_of(kind, self.name)
            else:
                start = self._keys.of(kind, self.name)
                end = start + "\0"
            Watch(self.link, start, end, self._follower(kind))
        self._open_session(0.1, self._sessions)
        self._beat()

    @property
    def lease(self) -> int:
        return self._session.lease if self._session is not None else 0

    def die(self) -> None:
        self.process.die()
        self.cluster.etcd.on_killed.pop(self, None)
        for watch in self.link.watches:
            watch.close()
        if self.host.supervisor.listener is not None and self.host.agent is self:
            self.host.supervisor.listener = None

    # --- the inbox

    def post(self, event: ev.Event) -> None:
        if not self.process.is_alive or self.is_over:
            return
        self._inbox.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._inbox:
                event = self._inbox.popleft()
                for effect in self.machine.handle(event, self.process.clock.now()):
                    self._do(effect)
        finally:
            self._is_handling = False

    def _do(self, effect: fx.Effect) -> None:
        supervisor = self.host.supervisor
        match effect:
            case fx.Claim() | fx.Adopt() | fx.ReportOutcome():
                if self._sender is not None:
                    self._sender.submit(write_id_of(effect), self._transactions.build(effect))
            case fx.StartProcess():
                lease = self.lease
                supervisor.ask(lambda: supervisor.begin(effect, lease))
            case fx.KillProcess():
                supervisor.ask(lambda: supervisor.kill(effect))
            case fx.MoveDeadlines():
                supervisor.ask(lambda: supervisor.move_deadlines(effect))
            case fx.Acknowledge(attempt_id):
                supervisor.ask(lambda: supervisor.acknowledge(attempt_id))
            case fx.SpoolOutcome():
                self.process.after(0.002, self._spool, effect)
            case fx.ForgetSpooled(attempt_id):
                self.process.after(0.002, self._forget_spooled, attempt_id)
            case fx.StartSupervisor():
                self.process.after(self.chance.uniform(0.05, 1.0), self._restart_supervisor)
            case fx.OpenSession():
                self._stop_sender()
                self._sessions += 1
                self._session = None
                self._open_session(0.1, self._sessions)
            case fx.ReadReports(create_revision):
                self._begin_sender(create_revision)
                self._presence.submit(effect)
            case fx.JoinPresence() | fx.UpdatePresence() | fx.LeavePresence() | fx.RevokeLease():
                self._presence.submit(effect)
            case fx.Quit(id_in_use):
                self._quit(id_in_use)
            case fx.Reexec():
                self._reexec()
            case _:
                assert_never(effect)

    def _spool(self, effect: fx.SpoolOutcome) -> None:
        if self.host.disk.fails:
            self.post(ev.SpoolFailed(effect.attempt_id))
            return
        self.cluster.etcd.count("outcome spooled")
        self.host.disk.spool[effect.attempt_id] = effect.report
        self.post(ev.OutcomeSpooled(effect.attempt_id))

    def _forget_spooled(self, attempt_id: str) -> None:
        self.host.disk.spool.pop(attempt_id, None)

    def _quit(self, id_in_use: str) -> None:
        self.is_over = True
        self.host.id_in_use = bool(id_in_use)
        if id_in_use:
            self.cluster.etcd.count("second agent of an id refused")
        if self._session is not None:
            self.host.disk.session = None
        self.host.supervisor.shutdown()
        store, session = self.cluster.store, self._session
        if session is None or (id_in_use and self._is_resumed):
            self.die()
            return
        session.give_up()
        lease = session.lease
        self.link.call(lambda: store.lease_revoke(lease), lambda _: self.die(), 3.0, is_write=True)

    def _reexec(self) -> None:
        """The session's lease waits on disk for the process that comes."""
        self.is_over = True
        self.die()
        self.cluster.etcd.count("agent restarted in place")
        self.cluster.loop.after(RESTART_S, self.host.start)

    # --- the supervisor

    def _meet_supervisor(self) -> None:
        supervisor = self.host.supervisor

        def listen(event: ev.Event) -> None:
            self.process.hear(self.post, event)

        supervisor.listener = listen
        self.post(supervisor.inventory())

    def _restart_supervisor(self) -> None:
        if not self.host.supervisor.process.is_alive:
            self.host.supervisor = self.host.new_supervisor()
        self._meet_supervisor()

    # --- the session

    def _open_session(self, backoff_s: float, number: int) -> None:
        if number != self._sessions or self.is_over:
            return
        saved = self._saved

        def begun(answer: SimSession | EtcschedError) -> None:
            if number != self._sessions or self.is_over:
                return
            if isinstance(answer, LeaseGone):
                self._saved = None
                self._open_session(0.1, number)
            elif isinstance(answer, EtcschedError):
                pause_s = self.chance.uniform(0.5, 1.0) * backoff_s
                self.process.after(pause_s, self._open_session, min(2 * backoff_s, 5.0), number)
            else:
                self._opened(answer, saved)

        session = SimSession(
            self.link,
            self._parts,
            ttl_s=self._ttl_s,
            lease=0 if saved is None else saved[0],
            on_begun=begun,
            on_renewed=lambda deadline_s: self._renewed(session, deadline_s),
            on_lost=lambda why: self._lost(session, why),
            on_unanswered=self._outage_watch.unanswered,
        )

    def _opened(self, session: SimSession, saved: tuple[int, tuple[str, ...]] | None) -> None:
        incarnation = f"{session.lease:x}" if saved is None else saved[1][0]
        self._past = (incarnation, *(past for past in self._past if past != incarnation))
        self.host.disk.session = (session.lease, self._past)
        self._saved = None
        self._session = session
        self._is_resumed = saved is not None
        self._outage_watch.heard()
        self.post(
            ev.SessionOpened(
                incarnation=incarnation,
                lease=session.lease,
                ttl_s=round(session.ttl_s),
                deadline_mono_s=session.deadline_mono_s,
                resumed=saved is not None,
            )
        )

    def _renewed(self, session: SimSession, deadline_s: float) -> None:
        if session is self._session:
            if session.silent_s() < self._suspicious_s():
                self._outage_watch.heard()
            self.post(ev.SessionRenewed(deadline_s))

    def _member_killed(self) -> None:
        """Its kernel ends the connections that it had."""
        link = self.link
        if not (link.cut_in or link.cut_out):
            self.process.loop.after(link.latency_s(), self.process.hear, self._outage_watch.suspect)

    def _suspicious_s(self) -> float:
        return SUSPICIOUS_OF_TTL * (self._ttl_s if self._session is None else self._session.ttl_s)

    def _outage_proved(self, sent_s: float) -> None:
        if self._session is not None:
            self._session.outage_proved(sent_s)

    def _lost(self, session: SimSession, why: str) -> None:
        if session is self._session:
            self.cluster.trace(self.host.name, f"session lost: {why}")
            self.cluster.etcd.count("agent session lost")
            self.post(ev.SessionLost(lease_gone=why == SessionEnd.LEASE_GONE.value))

    # --- the writer

    def _begin_sender(self, create_revision: int) -> None:
        self._stop_sender()
        guard = self._parts.agent_guard(self._keys, self.name, create_revision)
        self._sender = Sender(
            self.link,
            self._parts,
            guard,
            self._on_results,
            lambda: self.post(ev.PresenceGone(create_revision)),
        )

    def _stop_sender(self) -> None:
        if self._sender is not None:
            self._sender.stop()
            self._sender = None

    def _on_results(self, results: list[WriteResult]) -> None:
        for result in results:
            if isinstance(result, Rejected):
                raise result.error  # No fault does this to an agent: it is a defect.
            event = agent_event(result, cast(AgentWriteId, result.id))
            if isinstance(event, ev.Adopted):
                self.cluster.etcd.count("adopted")
            if isinstance(event, ev.OutcomeStored) and event.late:
                self.cluster.etcd.count("late report")
            self.post(event)

    # --- what is watched, and time

    def _follower(self, kind: Kind):  # type: ignore[no-untyped-def]
        etcd, keys = self.cluster.etcd, self._keys

        def on_update(update: WatchUpdate) -> None:
            if isinstance(update, Snapshot):
                found = read_all(keys, etcd.read_kv, update.kvs, lambda *_: None)
                self.post(ev.Listed(kind, found, update.revision))
            else:
                for event in update.events:
                    change = etcd.read_event(keys, event)
                    if change is not None:
                        self.post(ev.Changed(change))

        return on_update

    def _beat(self) -> None:
        self.post(ev.TimePassed())
        busy = self.machine.is_unsettled or self.machine.is_leaving
        # Sessions and supervisors wake one that has nothing to report by themselves.
        self.process.after(BEAT_S if busy else idle_beat_s(self._ttl_s), self._beat)

    def stop(self, *, kill: bool = False) -> None:
        self.post(ev.StopRequested(kill))

    def restart(self) -> None:
        self.post(ev.RestartRequested())
