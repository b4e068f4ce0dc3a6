"""One simulated cluster: a scenario carried out, with everything recorded that an auditor needs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import msgspec

from etcsched.audit.history import (
    Begun,
    Ended,
    Entry,
    Fault,
    FaultKind,
    NodeView,
    Quiet,
    Truth,
)
from etcsched.core.agent.effects import StartProcess
from etcsched.core.clock import MAX_JUMP_S, MAX_SKEW_S, MAX_SLEW
from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Options
from etcsched.core.missed import is_summary, ticks_of
from etcsched.core.records import Job, Kind, Pause, Record, Run
from etcsched.core.states import JobState, RunState
from etcsched.core.times import Utc, ms_of, tick_id
from etcsched.core.view import View
from etcsched.keyspace.codec import MalformedRecord, change_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import DeleteResult, Range, Txn, WatchEvent
from etcsched.operator.store import found
from etcsched.testing.model_store import ModelStore
from etcsched.testing.sim import acts, faults
from etcsched.testing.sim.asleep import Watchman
from etcsched.testing.sim.chronicle import Chronicle
from etcsched.testing.sim.etcd import SimEtcd
from etcsched.testing.sim.host import SimHost
from etcsched.testing.sim.loop import Clock, Loop
from etcsched.testing.sim.network import Link
from etcsched.testing.sim.operators import Operators
from etcsched.testing.sim.parts import PRODUCT, Parts
from etcsched.testing.sim.scenario import (
    OPERATORS,
    Act,
    AgentPlan,
    FaultPlan,
    Scenario,
    SchedulerPlan,
)
from etcsched.testing.sim.scheduler import SimScheduler
from etcsched.testing.sim.supervisor import Behaviour, by_argv
from etcsched.testing.sim.virtual_asyncio import VirtualLoop

CALM_S = 45.0
"""After the last heal, jobs go on for so long."""
SLEW_S = MAX_JUMP_S / MAX_SLEW
QUIET_WITHIN_S = 180.0
"""... and after they are deleted, nothing is left within so long."""

_TRANSIENT = (
    Kind.RUN, Kind.ASSIGNMENT, Kind.REPORT, Kind.LATE_REPORT, Kind.ORDER, Kind.REQUEST, Kind.JOB,
    Kind.GAP,
)  # fmt: skip


class Cluster:
    """``tell`` and ``keeps_lines``: see ``Chronicle``. ``chance_of``: whom to ask, by name, other
    than by the scenario's seed. ``behaves``: what each process does."""

    def __init__(
        self,
        scenario: Scenario,
        tell: Callable[[Entry], None],
        parts: Parts = PRODUCT,
        *,
        keeps_lines: bool = False,
        chance_of: Callable[[str], random.Random] | None = None,
        behaves: Callable[[StartProcess], Behaviour] = by_argv,
    ) -> None:
        self._chance_of = chance_of
        self.behaves = behaves
        random.seed(scenario.seed)  # What operators' commands draw their pauses from.
        self.scenario = scenario
        self.parts = parts
        self.keys = Keys()
        self.options = Options(ticks_at_once=scenario.ticks_at_once or Options().ticks_at_once)
        self.store = ModelStore()
        self.loop = Loop(self.store, ms_of(Utc(scenario.start)))
        self.virtual_asyncio = VirtualLoop(self.loop)
        self.etcd = SimEtcd(self.store, self.loop, self.keys, self.chance_of("etcd"))
        self.schedulers: dict[str, SimScheduler] = {}
        self.hosts: dict[str, SimHost] = {}
        self.leader_dies_after = 0
        self._at_writes: list[tuple[int, Callable[[], None]]] = []
        self.injected: Counter[str] = Counter()
        self.chronicle = Chronicle(
            self.loop,
            self.keys.prefix,
            tell,
            lambda host: self.hosts[host].plan.agent,
            keeps_lines=keeps_lines,
        )
        self._clocks: dict[str, Clock] = {}
        self._heals: dict[int, Callable[[], None]] = {}
        self._fault_count = 0
        self.store.subscribe(self._committed)
        self.operators = Operators(self, self.chance_of("operators"))
        truths = (Truth.WORDS, Truth.OPERATIONS, Truth.FAULTS, Truth.FENCES)
        self.chronicle.record(Begun(at_ms=self.loop.now_ms, prefix=self.keys.prefix, holds=truths))

    # --- the whole of it

    def run(self) -> None:
        scenario, loop = self.scenario, self.loop
        for node in scenario.schedulers:
            loop.at(node.at_s, self.start_scheduler, node.name)
        for plan in scenario.agents:
            loop.at(plan.at_s, self._add_host(plan).start)
        for job in scenario.jobs:
            loop.at(1.0, self.operators.apply, job)
        for act in scenario.acts:
            loop.at(act.at_s, self._act, act)
        for fault in scenario.faults:
            loop.at(fault.at_s, self._strike, fault)
        Watchman(self)
        loop.run_until(scenario.faulty_s)
        self.finish()

    def finish(self) -> None:
        """Heal all, let it go on for a while, and end it."""
        loop = self.loop
        self._heal_all()
        loop.run_until(loop.now_s + CALM_S * self.scenario.stretch)
        self._calm_down()
        self._end()

    def chance_of(self, name: str) -> random.Random:
        """Each has its own, so that what is taken out of a scenario changes little else."""
        if self._chance_of is not None:
            return self._chance_of(name)
        return random.Random(f"{self.scenario.seed} {name}")

    # --- heal, calm, quiet

    def _heal_all(self) -> None:
        self.leader_dies_after = 0
        self._at_writes = []
        for heal in list(self._heals.values()):
            heal()
        assert not self._heals
        self.trace("--", "all is healed")
        self._mend_nodes()
        for name in self._drained():
            self.operators.undrain(name)
        for name in self._paused():
            self.operators.resume(name)

    def _mend_nodes(self) -> None:
        self.revive_schedulers()
        for host in self.hosts.values():
            if not host.is_twin:
                host.start()

    def _calm_down(self) -> None:
        """Jobs are deleted; then all goes away, or the auditor says what didn't."""
        stretch = self.scenario.stretch
        give_up_s = self.loop.now_s + QUIET_WITHIN_S * stretch
        while self.loop.now_s < give_up_s:
            for name in self._job_names():
                self.operators.delete(name)
            for name in self._drained():
                self.operators.undrain(name)
            self.loop.run_until(self.loop.now_s + 5.0 * stretch)
            if not any(self.records(kind) for kind in _TRANSIENT):
                break
        # What still comes after the last one: the watermark, a lease of before.
        self.loop.run_until(self.loop.now_s + 15.0)

    def _end(self) -> None:
        store, now_ms = self.store, self.loop.now_ms
        nodes = [n for n in self.schedulers.values() if n.process.is_alive]
        hosts = [h for h in self.hosts.values() if h.has_agent]
        self.chronicle.record(
            Quiet(
                at_ms=now_ms,
                revision=store.revision,
                processes=tuple(
                    f"{host.name}: {attempt_id}"
                    for host in self.hosts.values()
                    for attempt_id in host.supervisor.jobs
                ),
                leases=store.lease_count,
                nodes=len(nodes) + len(hosts),
                views=tuple(self._view_of(node) for node in nodes),
            )
        )
        self.chronicle.record(Ended(at_ms=now_ms, revision=store.revision, reason="the end"))

    def _view_of(self, node: SimScheduler) -> NodeView:
        revisions = {self.keys.of(kind, *ids): rev for kind, ids, rev in entries_of(node.view)}
        return NodeView(node=node.name, revision=node.view.revision, mod_revisions=revisions)

    # --- nodes

    def _clock(self, name: str) -> Clock:
        if name not in self._clocks:
            self._clocks[name] = Clock(self.loop, 1000.0 + 100.0 * len(self._clocks))
        return self._clocks[name]

    def _add_host(self, plan: AgentPlan) -> SimHost:
        host = self.hosts[plan.host] = SimHost(self, plan, self._clock(plan.host))
        return host

    def add_agent(self, plan: AgentPlan) -> None:
        """One that the scenario doesn't know, now."""
        self._add_host(plan).start()

    def add_scheduler(self, plan: SchedulerPlan) -> None:
        schedulers = (*self.scenario.schedulers, plan)
        self.scenario = msgspec.structs.replace(self.scenario, schedulers=schedulers)
        self.start_scheduler(plan.name)

    def start_scheduler(self, name: str) -> None:
        before = self.schedulers.get(name)
        if before is not None and before.process.is_alive:
            return
        (plan,) = [p for p in self.scenario.schedulers if p.name == name]
        clock = self._clock(name)
        self.trace(name, "starts")
        if abs(clock.wrong_s()) > MAX_SKEW_S:
            # A limit that is known: it has heard of no other clock yet. Units wait for time-sync.
            clock.set_right()
        self.schedulers[name] = SimScheduler(self, name, clock, ttl_s=plan.ttl_s)

    def revive_schedulers(self) -> None:
        self.leader_dies_after = 0
        for plan in self.scenario.schedulers:
            self.start_scheduler(plan.name)

    def add_twin(self, host: SimHost) -> SimHost:
        name = f"{host.name}-twin"
        twin = self.hosts.get(name)
        if twin is None:
            plan: AgentPlan = msgspec.structs.replace(host.plan, host=name)
            twin = self.hosts[name] = SimHost(self, plan, self._clock(name), is_twin=True)
        twin.start()
        return twin

    def leader(self) -> SimScheduler | None:
        for node in self.schedulers.values():
            if node.machine is not None and node.process.is_alive:
                return node
        return None

    def scheduler_of(self, target: str) -> SimScheduler | None:
        node = self.leader() if target == "leader" else self.schedulers.get(target)
        return node if node is not None and node.process.is_alive else None

    def node_name(self, target: str) -> str:
        node = self.scheduler_of(target)
        if node is not None:
            return node.name
        return self.hosts[target].plan.agent if target in self.hosts else target

    def link_of(self, target: str) -> Link | None:
        if target == OPERATORS:
            return self.operators.link
        node = self.scheduler_of(target)
        if node is not None:
            return node.link
        host = self.hosts.get(target)
        if host is None or host.agent is None or not host.has_agent:
            return None
        return host.agent.link

    def clock_of(self, target: str) -> Clock | None:
        node = self.scheduler_of(target)
        if node is not None:
            return node.process.clock
        host = self.hosts.get(target)
        return host.clock if host is not None else None

    def session_leases(self) -> list[int]:
        nodes = [node.lease for node in self.schedulers.values() if node.process.is_alive]
        agents = [host.agent.lease for host in self.hosts.values() if host.agent is not None]
        return [lease for lease in (*nodes, *agents) if lease]

    # --- faults and acts

    @property
    def has_faults(self) -> bool:
        """Whether any is in force now."""
        return bool(self._heals)

    def _strike(self, plan: FaultPlan) -> None:
        self.begin_fault(plan)

    def begin_fault(self, plan: FaultPlan) -> int | None:
        """The fault's number; None: there is nobody to hit."""
        begun = faults.begin(self, plan)
        if begun is None:
            return None
        self._fault_count += 1
        number = self._fault_count
        self.injected[plan.kind] += 1
        self.trace("FAULT", f"{plan.kind} {begun.target} for {plan.for_s:g} s ({begun.proof})")
        fault = Fault(
            id=f"f{number}",
            kind=begun.kind,
            target=begun.target,
            from_ms=self.loop.now_ms,
            proof=begun.proof,
            detail=plan.kind,
        )
        self.chronicle.record(fault)
        heal = begun.heal

        def healed() -> None:
            if self._heals.pop(number, None) is None:
                return
            self.trace("HEAL", f"{plan.kind} {begun.target}")
            heal()
            if begun.kind is FaultKind.CLOCK:
                # A leader follows small steps slowly: its ticks go by the wrong time for longer.
                self.loop.after(SLEW_S, self._tell_healed, fault)
            else:
                self._tell_healed(fault)

        self._heals[number] = healed
        self.loop.after(plan.for_s, healed)
        return number

    def heal(self, number: int) -> None:
        """Before its time."""
        self._heals[number]()

    def _tell_healed(self, fault: Fault) -> None:
        self.chronicle.record(msgspec.structs.replace(fault, until_ms=self.loop.now_ms))

    def _act(self, act: Act) -> None:
        if act.at_write:
            self.at_write(act.at_write, lambda: self._act(msgspec.structs.replace(act, at_write=0)))
            return
        self.trace("ACT", f"{act.kind} {act.target}")
        acts.do(self, act)

    def at_write(self, count: int, do: Callable[[], None]) -> None:
        """As the leader's ``count``-th write from now is committed, before it learns of it."""
        self._at_writes.append((count, do))

    def compact(self) -> None:
        if self.store.revision > self.store.compact_revision:
            self.store.compact(self.store.revision)

    def by_hand(self, txn: Txn) -> int:
        """How many keys it deleted."""
        responses = self.store.txn(txn).responses
        return sum(r.deleted for r in responses if isinstance(r, DeleteResult))

    # --- what there is

    def records(self, kind: Kind) -> dict[tuple[str, ...], Record]:
        found = {}
        for kv in self.store.range(Range(*self.keys.all_of(kind))).kvs:
            try:
                change = change_of(self.keys, kv)
            except MalformedRecord:
                continue
            if change is not None and change.kind is kind and change.record is not None:
                found[change.ids] = change.record
        return found

    def record(self, kind: Kind, *ids: str) -> Record | None:
        return self.records(kind).get(ids)

    def active_runs(self, job: str, *states: RunState) -> list[str]:
        """Their ids; ``states``: any, or these."""
        return [
            ids[1]
            for ids, run in self.records(Kind.RUN).items()
            if ids[0] == job and isinstance(run, Run) and (not states or run.state in states)
        ]

    def archived_runs(self, job: str) -> list[str]:
        """Their ids, the oldest first."""
        kvs = self.store.range(Range(*self.keys.archive_of(job), keys_only=True)).kvs
        places = (self.keys.parse_archive(kv.key) for kv in kvs)
        return [place[1] for place in places if place is not None]

    def ticks_that_share(self, job: str) -> tuple[str, list[str]]:
        """The job's last record of several missed ticks, and these; empty: there is none."""
        for kv in reversed(self.store.range(Range(*self.keys.archive_of(job))).kvs):
            record = found(Run, kv)
            if record is not None and is_summary(record):
                return record.id, [tick_id(tick_ms) for tick_ms in ticks_of(record)]
        return "", []

    def _job_names(self) -> list[str]:
        return [
            ids[0]
            for ids, job in self.records(Kind.JOB).items()
            if isinstance(job, Job) and job.current.state is not JobState.DELETED
        ]

    def _drained(self) -> list[str]:
        return [ids[0] for ids in self.records(Kind.DRAIN)]

    def _paused(self) -> list[str]:
        pauses = self.records(Kind.PAUSE).items()
        return [ids[0] for ids, pause in pauses if isinstance(pause, Pause) and pause.active]

    # --- what is told of it

    def _committed(self) -> None:
        events = self.store.last_events
        self.chronicle.committed(self.store.revision, events)
        if self.leader_dies_after or self._at_writes:
            self._count_write(events)

    def _count_write(self, events: list[WatchEvent]) -> None:
        state, archive = self.keys.prefix + "state/", self.keys.archive_prefix
        if not any(event.kv.key.startswith((state, archive)) for event in events):
            return
        if self.leader_dies_after:
            self.leader_dies_after -= 1
            leader = self.leader()
            if self.leader_dies_after == 0 and leader is not None:
                self.trace("FAULT", f"{leader.name} dies at its write")
                leader.kill()
        for count, do in self._at_writes:
            if count == 1:
                self.loop.after(0.0, do)  # Its answer takes longer.
        self._at_writes = [(count - 1, do) for count, do in self._at_writes if count > 1]

    def process_started(self, host: str, attempt_id: str) -> None:
        self.etcd.count("process")
        self.chronicle.process_started(host, attempt_id)

    def fenced(self, host: str, lease: int, attempt_id: str) -> None:
        self.etcd.count("fenced")
        expires_ms = self.etcd.expires_ms(lease)
        self.chronicle.fenced(host, lease, attempt_id, lease_expires_ms=expires_ms)

    def noted(self, node: str, note: fx.Note) -> None:
        where = f"{note.job}/{note.run}: " if note.run else ""
        self.trace(node, f"{where}{note.text}")

    def trace(self, who: str, text: str) -> None:
        self.chronicle.trace(who, text)


def entries_of(view: View) -> list[tuple[Kind, tuple[str, ...], int]]:
    return [
        (kind, ids if isinstance(ids, tuple) else (ids,), entry.mod_revision)
        for kind, entries in view.by_kind().items()
        for ids, entry in entries.items()
    ]


__all__ = ["Cluster"]
