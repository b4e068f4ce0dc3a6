"""A simple agent in a world: it claims, lets time pass, and reports."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from etcsched.core.agent.effects import Adopt, Claim, ReportOutcome
from etcsched.core.records import Assignment, Kind, Order, Presence, Report
from etcsched.core.session import margin_of, with_grace_s
from etcsched.core.states import OnDisconnect, Outcome, Stage
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.core.view import View
from etcsched.keyspace.ops import TxnResult
from etcsched.keyspace.transactions import (
    AgentGuard,
    AgentTransactions,
    guarded,
    join_presence,
    update_presence,
)
from etcsched.testing.watcher import Watcher

if TYPE_CHECKING:
    from etcsched.testing.world import World

KEEPALIVE_S = 1.0


class Span(msgspec.Struct):
    """One process as it would have been: ``token`` is its attempt's. ``end_s`` None: it runs."""

    job: str
    run: str
    token: int
    start_s: float
    end_s: float | None = None


class Running(msgspec.Struct):
    """``renewed_s``: when the session that its claim names was renewed last."""

    claim: Report
    span: Span
    assignment: Assignment
    renewed_s: float


class SimulatedAgent:
    """Claims what is assigned to it and reports an outcome when the run's time is over.

    ``takes_s`` is how long every run takes, ``ends_as`` its outcome;
    ``obeys_as`` is the outcome of one that is told to end (None: it goes on). ``hands_on`` are the
    results of each job's runs; ``given`` is what parameters its runs have had. Its wall clock is
    ``behind_s`` late. ``incarnations`` are its own sessions; ``past`` those that its disk knows.
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
        past: frozenset[str] = frozenset(),
    ) -> None:
        self.name = name
        self.takes_s = takes_s
        self.ends_as = ends_as
        self.obeys_as: Outcome | None = Outcome.CANCELLED
        self.hands_on: dict[str, dict[str, tuple[str, ...]]] = {}
        self.given: dict[tuple[str, str], dict[str, str]] = {}
        self.behind_s = 0.0
        self.is_alive = True
        self.is_cut_off = False
        self.claims_nothing = False
        self.is_stopping = False
        self.on_claim: Callable[[Assignment], None] | None = None
        self.spans: list[Span] = []
        self.incarnations = set(past)
        self._world = world
        self._watcher = Watcher(world.store, world.keys)
        self._view = View()
        self._ttl_s = ttl_s
        self._slots = slots
        self._labels = labels or {}
        self._transactions = AgentTransactions(world.keys)
        self._running: dict[tuple[str, str], Running] = {}
        self._unsent: list[Report] = []
        self._since = self._wall()
        self._join()
        self._keep_alive()

    def _wall(self) -> Utc:
        return utc_of(ms_of(self._world.now) - round(self.behind_s * 1000))

    def _join(self) -> None:
        world = self._world
        self.lease = world.store.lease_grant(self._ttl_s).lease
        self.incarnations.add(f"{self.lease:x}")
        self._renewed_s = world.now_s
        self._put_presence()

    def _put_presence(self) -> None:
        if not self.is_alive:
            return
        world = self._world
        presence = self._presence()
        result = world.store.txn(join_presence(world.keys, self.lease, presence))
        if not result.succeeded:
            # Its last lease has run out, but etcd hasn't looked yet.
            world.at(world.now_s + KEEPALIVE_S, self._put_presence)
        self._said = result.revision
        self._guard = AgentGuard(world.keys, self.name, result.revision)

    def _presence(self) -> Presence:
        return Presence(
            agent=self.name,
            incarnation=f"{self.lease:x}",
            supervisor="s1",
            slots=self._slots,
            host="h",
            pid=1,
            since=self._since,
            clock=self._wall(),
            version="0",
            labels=self._labels,
            session_ttl_s=self._ttl_s,
            users=("app",),
            default_user="app",
            draining=self.is_stopping,
        )

    def _keep_alive(self) -> None:
        if not self.is_alive:
            return
        world = self._world
        if not self.is_cut_off:
            if world.store.lease_keepalive(self.lease).ttl_s > 0:
                self._renewed_s = world.now_s
                for running in self._running.values():
                    if running.claim.incarnation == f"{self.lease:x}":
                        running.renewed_s = world.now_s
            else:
                self._join()
                self._adopt()
        for place, running in list(self._running.items()):
            if world.now_s >= self._deadline_s(running) - KEEPALIVE_S:
                self._stop_process(place)  # Fenced, before its attempt can move.
        world.at(world.now_s + KEEPALIVE_S, self._keep_alive)

    def _deadline_s(self, running: Running) -> float:
        if running.assignment.on_disconnect is OnDisconnect.CONTINUE:
            return math.inf
        deadline_s = running.renewed_s + self._ttl_s - margin_of(self._ttl_s)
        return with_grace_s(deadline_s, self._ttl_s, running.assignment.disconnect_grace_s)

    def _adopt(self) -> None:
        """T6, of what outlives a session; the rest is stopped."""
        world = self._world
        for place, running in list(self._running.items()):
            assignment = running.assignment
            runs_on = assignment.on_disconnect is OnDisconnect.CONTINUE
            if not runs_on and not assignment.disconnect_grace_s:
                self._stop_process(place)
                continue
            found = world.records(Kind.REPORT).get((self.name, *place))
            adopted = msgspec.structs.replace(
                running.claim, incarnation=f"{self.lease:x}", session_ttl_s=self._ttl_s
            )
            adopt = Adopt(
                agent=self.name,
                token=running.span.token,
                report=adopted,
                report_revision=found.mod_revision if found is not None else -1,
            )
            result = world.store.txn(guarded(self._guard, [self._transactions.build(adopt)]))
            if not result.succeeded:
                continue
            (nested,) = result.responses
            assert isinstance(nested, TxnResult)
            if nested.succeeded:
                running.claim, running.renewed_s = adopted, self._renewed_s
            elif not runs_on:
                self._stop_process(place)

    # --- faults

    def kill(self) -> None:
        """As by SIGKILL of agent and supervisor: its processes end at once."""
        self._stop_processes(reports=False)
        self.is_alive = False

    def stop(self) -> None:
        """As by SIGTERM: it ends its work, and goes when the leader lets it."""
        self._say(stops=True)

    def stay(self) -> None:
        """As by a crash while it stopped, and a start within its lease."""
        self._say(stops=False)

    def say_anew(self, *, slots: int | None = None, labels: dict[str, str] | None = None) -> None:
        """As by a start within its lease, with other settings."""
        self._since = self._wall()
        self._slots = self._slots if slots is None else slots
        self._labels = self._labels if labels is None else labels
        self._say(stops=False)

    def claim(self, job: str, run: str) -> None:
        """Ahead of what it would do by itself."""
        self._claim(self._view.assignments[(self.name, job, run)].record, job, run)

    def _say(self, *, stops: bool) -> None:
        world = self._world
        self.is_stopping = stops
        txn = update_presence(world.keys, self.lease, self._said, self._presence())
        result = world.store.txn(txn)
        assert result.succeeded
        self._said = result.revision

    def leave(self) -> None:
        """It goes at once, without asking, with nothing running."""
        self._world.store.lease_revoke(self.lease)
        self.kill()

    def put_presence_again(self) -> None:
        """Its presence was deleted by hand, and its lease lives."""
        self._put_presence()

    def late_report(self, job: str, run: str, token: int) -> None:
        """What a fenced agent says of an attempt that has moved on, under a new session."""
        report = Report(
            job=job, run=run, attempt=1, token=token, incarnation="ff", supervisor="s1",
            claimed_at=self._world.now, outcome=Outcome.COMPLETED, ended_at=self._world.now,
        )  # fmt: skip
        self._report(report)

    def _stop_processes(self, *, reports: bool = True) -> None:
        for place in list(self._running):
            self._stop_process(place, reports=reports)

    def _stop_process(self, place: tuple[str, str], *, reports: bool = True) -> None:
        running = self._running.pop(place)
        running.span.end_s = self._world.now_s
        if reports:
            self._unsent.append(self._over(running.claim, Outcome.DIED))

    # --- driven by the world

    def see(self) -> bool:
        if not self.is_alive or self.is_cut_off:
            return False
        unsent, self._unsent = self._unsent, []
        for report in unsent:
            self._report(report)
        if not self._watcher.has_news:
            return len(self._unsent) < len(unsent)
        self._view.apply(*self._watcher.changes(self._world.chance))
        for agent, job, run in sorted(self._view.assignments):
            if agent == self.name and (job, run) not in self._running and not self.claims_nothing:
                self._claim(self._view.assignments[(agent, job, run)].record, job, run)
        for (agent, job, run), order in sorted(self._view.orders.items()):
            if agent == self.name:
                self._obey(order.record, job, run)
        live = self._view.live.get(self.name)
        is_mine = live is not None and live.record.incarnation == f"{self.lease:x}"
        if live is not None and is_mine and live.record.stage is Stage.DISMISSED:
            assert not self._running, "dismissed with work in hand"
            self.leave()
        return True

    def _claim(self, assignment: Assignment, job: str, run: str) -> None:
        world = self._world
        token = self._view.assignments[(self.name, job, run)].mod_revision
        found = self._view.reports.get((self.name, job, run))
        if found is not None:
            # A claim of mine without a process: an earlier incarnation's. Of one whose session
            # its disk doesn't know it says nothing.
            is_mine = found.record.incarnation in self.incarnations
            if found.record.outcome is None and found.record.token == token and is_mine:
                self._report(self._over(found.record, Outcome.DIED))
            return
        if assignment.incarnation != f"{self.lease:x}":
            return  # Meant for a session that is over; the leader moves it.
        report = Report(
            job=job,
            run=run,
            attempt=assignment.attempt,
            token=token,
            incarnation=f"{self.lease:x}",
            supervisor="s1",
            claimed_at=self._wall(),
            started_at=self._wall(),
        )
        claim = Claim(token=token, assignment=assignment, report=report)
        result = world.store.txn(guarded(self._guard, [self._transactions.build(claim)]))
        if not result.succeeded:
            return
        (nested,) = result.responses
        assert isinstance(nested, TxnResult)
        if nested.succeeded:
            if self.on_claim is not None:
                self.on_claim(assignment)
            span = Span(job, run, token, world.now_s)
            self.given[(job, run)] = assignment.params
            self._running[(job, run)] = Running(report, span, assignment, self._renewed_s)
            self.spans.append(span)
            world.at(world.now_s + self.takes_s, lambda: self._end(span, self.ends_as))

    def _obey(self, order: Order, job: str, run: str) -> None:
        running = self._running.get((job, run))
        is_meant = running is not None and running.claim.token == order.token
        if running is not None and is_meant and self.obeys_as is not None:
            self._end(running.span, self.obeys_as)

    def _end(self, span: Span, outcome: Outcome) -> None:
        running = self._running.get((span.job, span.run))
        if running is None or running.span is not span or not self.is_alive:
            return
        del self._running[(span.job, span.run)]
        span.end_s = self._world.now_s
        final = self._over(running.claim, outcome)
        if self.is_cut_off:
            self._unsent.append(final)
        else:
            self._report(final)

    def _over(self, report: Report, outcome: Outcome) -> Report:
        return msgspec.structs.replace(
            report,
            outcome=outcome,
            ended_at=self._wall(),
            results=self.hands_on.get(report.job, {}),
        )

    def _report(self, final: Report) -> None:
        write = ReportOutcome(agent=self.name, token=final.token, report=final)
        result = self._world.store.txn(guarded(self._guard, [self._transactions.build(write)]))
        if not result.succeeded:
            self._unsent.append(final)

    def holds_claim(self, job: str, run: str) -> bool:
        return (self.name, job, run) in self._world.records(Kind.REPORT)
