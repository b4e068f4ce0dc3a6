"""A cluster in virtual time: the real scheduler cores, simple agents, a model of etcd.

Deterministic: nothing happens but by ``advance`` and by what a test does. Answers and watch events
arrive at once; faults are what a test does to nodes, agents and time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator

from etcsched.core.agent.effects import Claim, ReportOutcome
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
from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.core.leader.context import Options
from etcsched.core.leader.machine import LeaderMachine
from etcsched.core.leader.ticks import TickIndex
from etcsched.core.records import (
    Answer,
    Assignment,
    Candidate,
    Change,
    Job,
    Kind,
    Order,
    Presence,
    Report,
    Request,
    Run,
    Term,
)
from etcsched.core.states import Outcome
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.core.view import View
from etcsched.keyspace.codec import change_of, change_of_event, decode, encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Put, Range, RangeResult, Txn, TxnResult
from etcsched.keyspace.transactions import (
    AgentGuard,
    AgentTransactions,
    LeaderGuard,
    LeaderTransactions,
    guarded,
    join_election,
    join_presence,
    leave_election,
    submit_request,
    win_term,
)
from etcsched.testing.model_store import ModelStore

KEEPALIVE_S = 1.0


class World:
    """``start`` is the wall clock at virtual second 0."""

    def __init__(self, start: Utc, options: Options | None = None) -> None:
        self.store = ModelStore()
        self.keys = Keys()
        self.options = options or Options()
        self.start_ms = ms_of(start)
        self.nodes: dict[str, SimulatedScheduler] = {}
        self.agents: dict[str, SimulatedAgent] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    # --- time

    @property
    def now_s(self) -> float:
        return self.store.now_s

    @property
    def now(self) -> Utc:
        return utc_of(self.start_ms + round(self.now_s * 1000))

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (when_s, self._order, action))

    def advance(self, seconds: float) -> None:
        """Let this much time pass, with everything that is due on the way, in order."""
        end_s = self.now_s + seconds
        while True:
            self.settle()
            wakes = [self._due[0][0]] if self._due else []
            wakes += [node.wake_s() for node in self.nodes.values() if node.is_alive]
            expiry_s = self.store.next_expiry_s()
            if expiry_s is not None:
                wakes.append(expiry_s)
            next_s = min(wakes, default=end_s)
            if next_s > end_s:
                break
            self.store.advance(max(next_s, self.now_s))
            while self._due and self._due[0][0] <= self.now_s:
                heapq.heappop(self._due)[2]()
            for node in self.nodes.values():
                node.time_passed()
        self.store.advance(end_s)
        self.settle()

    def settle(self) -> None:
        """Until nobody has anything to say about what everybody sees."""
        parties = [*self.nodes.values(), *self.agents.values()]
        while any([party.see() for party in parties]):
            pass

    # --- what operators do

    def scheduler(self, name: str, ttl_s: int = 10) -> SimulatedScheduler:
        node = self.nodes[name] = SimulatedScheduler(self, name, ttl_s)
        return node

    def agent(self, name: str, **more: object) -> SimulatedAgent:
        agent = self.agents[name] = SimulatedAgent(self, name, **more)  # type: ignore[arg-type]
        return agent

    def put(self, kind: Kind, record: object, *ids: str) -> int:
        assert isinstance(record, Job) or record is not None
        txn = Txn((), (Put(self.keys.of(kind, *ids), encode(record)),))  # type: ignore[arg-type]
        return self.store.txn(txn).revision

    def request(self, request: Request) -> None:
        self.store.txn(submit_request(self.keys, request))

    # --- what there is

    def records(self, kind: Kind) -> dict[tuple[str, ...], Change]:
        begin, end = self.keys.all_of(kind)
        found = self.store.range(Range(begin, end)).kvs
        changes = (change_of(self.keys, kv) for kv in found)
        return {c.ids: c for c in changes if c is not None and c.kind is kind}

    def runs(self, job: str) -> dict[str, Run]:
        """All runs of a job, active and over, by id."""
        active = {ids[1]: c.record for ids, c in self.records(Kind.RUN).items() if ids[0] == job}
        begin, end = self.keys.archive_of(job)
        over = {
            self.keys.parse_archive(kv.key)[1]: decode(Run, kv.value)
            for kv in self.store.range(Range(begin, end)).kvs
        }
        assert not active.keys() & over.keys(), "a run is active and over"
        return dict(sorted({**active, **over}.items()))  # type: ignore[arg-type]

    def states(self, job: str) -> dict[str, str]:
        return {run: record.state.value for run, record in self.runs(job).items()}

    def answer(self, request: str) -> Answer | None:
        change = self.records(Kind.ANSWER).get((request,))
        assert change is None or isinstance(change.record, Answer)
        return change.record if change is not None else None

    def term(self) -> Term:
        (change,) = self.records(Kind.TERM).values()
        assert isinstance(change.record, Term)
        return change.record

    def leader(self) -> SimulatedScheduler:
        (node,) = [n for n in self.nodes.values() if n.is_alive and n.leader is not None]
        return node


class _Watcher:
    """What one party has seen of the watched range."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen = 0
        self._listed = False

    def changes(self) -> tuple[tuple[Change, ...], int] | None:
        store, keys = self._world.store, self._world.keys
        if self._listed and store.revision == self._seen:
            return None
        if not self._listed:
            self._listed = True
            snapshot = store.snapshot(keys.watched, keys.watched_end)
            found: Iterator[Change | None] = (change_of(keys, kv) for kv in snapshot.kvs)
        else:
            events = store.events_since(self._seen + 1, keys.watched, keys.watched_end)
            found = (change_of_event(keys, event) for event in events)
        self._seen = store.revision
        return tuple(change for change in found if change is not None), self._seen


class SimulatedScheduler:
    """The candidate and the leader as ``scheduler.node`` drives them, without the network."""

    def __init__(self, world: World, name: str, ttl_s: int) -> None:
        self.name = name
        self.is_alive = True
        self.is_cut_off = False
        self.leader: LeaderMachine | None = None
        self.notes: list[fx.Note] = []
        self.wall_offset_ms = 0
        self._world = world
        self._watcher = _Watcher(world)
        self._view = View()
        self._index = TickIndex(0)
        self._candidate = CandidateMachine(name, self._view)
        self._guard: LeaderGuard | None = None
        self._transactions = LeaderTransactions(world.keys)
        self._writes: deque[fx.Write] = deque()
        self._lease = world.store.lease_grant(ttl_s).lease
        self._is_live = False
        self._do(self._candidate.session_opened(self._lease, self._now()))
        self._keep_alive()

    def _now(self) -> Instant:
        world = self._world
        wall_ms = world.start_ms + round(world.now_s * 1000) + self.wall_offset_ms
        return Instant(wall_ms, world.now_s)

    def _keep_alive(self) -> None:
        if self.is_alive and not self.is_cut_off:
            self._world.store.lease_keepalive(self._lease)
        if self.is_alive:
            self._world.at(self._world.now_s + KEEPALIVE_S, self._keep_alive)

    # --- faults

    def kill(self) -> None:
        """As by SIGKILL: whatever isn't committed is gone."""
        self.is_alive = False
        self.leader = None

    def stop(self) -> None:
        self._do(self._candidate.resign("it is stopped"))
        self._world.store.lease_revoke(self._lease)
        self.kill()

    # --- driven by the world

    def wake_s(self) -> float:
        if self.leader is None:
            return self._world.now_s + KEEPALIVE_S
        tick_ms, timer_s = self.leader.next_wake()
        if tick_ms is None:
            return timer_s
        now = self._now()
        return min(timer_s, now.mono_s + (tick_ms - now.wall_ms) / 1000)

    def time_passed(self) -> None:
        if self.is_alive:
            self._do(self._candidate.time_passed(self._now()))
            self._tell(ev.TimerFired())

    def see(self) -> bool:
        if not self.is_alive or self.is_cut_off:
            return False
        seen = self._watcher.changes()
        if seen is not None:
            changes, revision = seen
            self._view.apply(changes, revision)
            if self.leader is None:
                self._follow_index(changes)
            self._do(self._candidate.view_changed(changes, self._is_live, self._now()))
            self._is_live = True
            self._tell(ev.ViewChanged(changes))
        return self._send() or seen is not None

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

    def _send(self) -> bool:
        """Commit what waits, one outer transaction a write."""
        sent = bool(self._writes)
        while self._writes and self._guard is not None:
            write = self._writes.popleft()
            outer = guarded(self._guard, [self._transactions.build(write)])
            result = self._world.store.txn(outer)
            if not result.succeeded:
                self._do(self._candidate.step_down("refused guard", self._now()))
                break
            (nested,) = result.responses
            assert isinstance(nested, TxnResult)
            if nested.succeeded:
                self._tell(ev.WriteCommitted(write.seq, result.revision))
            else:
                exists = any(isinstance(r, RangeResult) and r.count for r in nested.responses)
                self._tell(ev.WriteRefused(write.seq, result.revision, exists))
        return sent

    def _do(self, effects: list[CandidateEffect]) -> None:
        store, keys = self._world.store, self._world.keys
        for effect in effects:
            match effect:
                case Join():
                    now = utc_of(self._now().wall_ms)
                    record = Candidate(
                        node=self.name, host="h", pid=1, since=now, clock=now, version="0"
                    )
                    store.txn(join_election(keys, effect.lease, record))
                case Leave():
                    store.txn(leave_election(keys, effect.lease, effect.token))
                case TakeTerm():
                    store.txn(win_term(keys, effect.write))
                case Lead():
                    self._lead(effect)
                case Demote():
                    self.leader = self._guard = None
                    self._writes.clear()
                    self._index = TickIndex(0)
                    for entry in self._view.jobs.values():
                        self._index.put(entry.record)
                    self._follow_index(())

    def _lead(self, effect: Lead) -> None:
        now = self._now()
        if self._view.watermark is None:
            self._index.skip_to(now.wall_ms)
        self.leader = LeaderMachine(
            self._view,
            self._index,
            effect.term,
            now,
            raft_term=self._world.store.raft_term,
            raft_term_since_s=-1000.0,
            options=self._world.options,
        )
        self._guard = LeaderGuard(self._world.keys, effect.term, effect.term_revision)
        self._perform(self.leader.take_over())

    def _perform(self, effects: list[fx.Effect]) -> None:
        world = self._world
        for effect in effects:
            match effect:
                case fx.Write():
                    self._writes.append(effect)
                case fx.ConfirmLoss():
                    info = world.store.lease_time_to_live(effect.lease)
                    answer = ev.LeaseAnswered(
                        effect.agent, effect.lease, info.ttl_s <= 0, info.raft_term
                    )
                    world.at(world.now_s, lambda answer=answer: self._tell(answer))  # type: ignore[misc]
                case fx.ListArchive():
                    begin, end = world.keys.archive_of(effect.job)
                    found = world.store.range(Range(begin, end, keys_only=True)).kvs
                    places = tuple(
                        (*world.keys.parse_archive(kv.key), kv.mod_revision) for kv in found
                    )
                    listed = ev.ArchiveListed(effect.job, places, is_last=True)
                    world.at(world.now_s, lambda listed=listed: self._tell(listed))  # type: ignore[misc]
                case fx.ReadArchived():
                    key = world.keys.archive(effect.job, effect.run_id)
                    kvs = world.store.range(Range(key)).kvs
                    run = decode(Run, kvs[0].value) if kvs else None
                    revision = kvs[0].mod_revision if kvs else 0
                    read = ev.ArchivedRead(effect.job, effect.run_id, run, revision)
                    world.at(world.now_s, lambda read=read: self._tell(read))  # type: ignore[misc]
                case fx.StepDown():
                    self._do(self._candidate.step_down(effect.reason, self._now()))
                case fx.Note():
                    self.notes.append(effect)


class SimulatedAgent:
    """Claims what is assigned to it and reports an outcome when the run's time is over.

    ``takes_s`` is how long every run takes, ``ends_as`` its outcome. ``starts`` records (job, run,
    token, second) of every process that would have been started.
    """

    def __init__(
        self,
        world: World,
        name: str,
        *,
        slots: int = 4,
        takes_s: float = 1.0,
        ttl_s: int = 10,
        labels: dict[str, str] | None = None,
        ends_as: Outcome = Outcome.COMPLETED,
    ) -> None:
        self.name = name
        self.takes_s = takes_s
        self.ends_as = ends_as
        self.is_alive = True
        self.claims_nothing = False
        self.starts: list[tuple[str, str, int, float]] = []
        self._world = world
        self._watcher = _Watcher(world)
        self._view = View()
        self._ttl_s = ttl_s
        self._slots = slots
        self._labels = labels or {}
        self._transactions = AgentTransactions(world.keys)
        self._running: dict[tuple[str, str], Report] = {}
        self._join()
        self._keep_alive()

    def _join(self) -> None:
        world = self._world
        self.lease = world.store.lease_grant(self._ttl_s).lease
        presence = Presence(
            agent=self.name,
            incarnation=f"{self.lease:x}",
            supervisor="s1",
            slots=self._slots,
            host="h",
            pid=1,
            since=world.now,
            clock=world.now,
            version="0",
            labels=self._labels,
            session_ttl_s=self._ttl_s,
            users=("app",),
            default_user="app",
        )
        result = world.store.txn(join_presence(world.keys, self.lease, presence))
        assert result.succeeded, f"agent {self.name} is there already"
        self._guard = AgentGuard(world.keys, self.name, result.revision)

    def _keep_alive(self) -> None:
        if self.is_alive:
            self._world.store.lease_keepalive(self.lease)
            self._world.at(self._world.now_s + KEEPALIVE_S, self._keep_alive)

    # --- faults

    def kill(self) -> None:
        """As by SIGKILL of agent and supervisor: its processes end at once."""
        self.is_alive = False
        self._running.clear()

    def leave(self) -> None:
        """A clean stop of an agent that has nothing running."""
        self._world.store.lease_revoke(self.lease)
        self.kill()

    def late_report(self, job: str, run: str, token: int) -> None:
        """What a fenced agent says of an attempt that has moved on, under a new session."""
        report = Report(
            job=job, run=run, attempt=1, token=token, incarnation="old", supervisor="s1",
            claimed_at=self._world.now, outcome=Outcome.COMPLETED, ended_at=self._world.now,
        )  # fmt: skip
        write = ReportOutcome(agent=self.name, token=token, report=report)
        self._world.store.txn(guarded(self._guard, [self._transactions.build(write)]))

    # --- driven by the world

    def see(self) -> bool:
        if not self.is_alive:
            return False
        seen = self._watcher.changes()
        if seen is None:
            return False
        self._view.apply(*seen)
        for agent, job, run in sorted(self._view.assignments):
            if agent == self.name and (job, run) not in self._running and not self.claims_nothing:
                self._claim(self._view.assignments[(agent, job, run)].record, job, run)
        for (agent, job, run), order in sorted(self._view.orders.items()):
            if agent == self.name:
                self._obey(order.record, job, run)
        return True

    def _claim(self, assignment: Assignment, job: str, run: str) -> None:
        world = self._world
        token = self._view.assignments[(self.name, job, run)].mod_revision
        if (self.name, job, run) in self._view.reports:
            return
        report = Report(
            job=job,
            run=run,
            attempt=assignment.attempt,
            token=token,
            incarnation=f"{self.lease:x}",
            supervisor="s1",
            claimed_at=world.now,
            started_at=world.now,
        )
        claim = Claim(token=token, assignment=assignment, report=report)
        result = world.store.txn(guarded(self._guard, [self._transactions.build(claim)]))
        if not result.succeeded:
            return
        (nested,) = result.responses
        assert isinstance(nested, TxnResult)
        if nested.succeeded:
            self._running[(job, run)] = report
            self.starts.append((job, run, token, world.now_s))
            world.at(world.now_s + self.takes_s, lambda: self._end(job, run, token, self.ends_as))

    def _obey(self, order: Order, job: str, run: str) -> None:
        report = self._running.get((job, run))
        if report is not None and report.token == order.token:
            self._end(job, run, order.token, Outcome.CANCELLED)

    def _end(self, job: str, run: str, token: int, outcome: Outcome) -> None:
        report = self._running.get((job, run))
        if report is None or report.token != token or not self.is_alive:
            return
        del self._running[(job, run)]
        final = Report(
            job=job,
            run=run,
            attempt=report.attempt,
            token=token,
            incarnation=report.incarnation,
            supervisor="s1",
            claimed_at=report.claimed_at,
            started_at=report.started_at,
            outcome=outcome,
            ended_at=self._world.now,
        )
        write = ReportOutcome(agent=self.name, token=token, report=final)
        self._world.store.txn(guarded(self._guard, [self._transactions.build(write)]))
