"""The attempts of one agent: from assignment to an outcome that etcd has (DESIGN 4).

Nothing here decides who the agent is or when it leaves; that is the machine's. All methods run to
their end at once and emit effects in the order in which they are to be carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from etcsched.core.agent import effects as fx
from etcsched.core.agent.attempt import (
    CLAIMED,
    OCCUPYING,
    WITH_PROCESS,
    Attempt,
    Phase,
    Spool,
    attempt_id_of,
    of_process,
    report_id,
    without_process,
)
from etcsched.core.agent.command import UnknownParameter, argv_of, environment_of
from etcsched.core.agent.events import ProcessEnded, ProcessStarted, StartFailed
from etcsched.core.agent.standing import Standing
from etcsched.core.agent.users import allows
from etcsched.core.clock import Instant
from etcsched.core.records import Assignment, Noop, Order, Report
from etcsched.core.states import Outcome
from etcsched.core.times import Utc, utc_of

_GRACE_OF_UNKNOWN_S = 15.0


class Work:
    def __init__(self, standing: Standing, emit: Callable[[fx.Effect], None]) -> None:
        self._standing = standing
        self._settings = standing.settings
        self._emit = emit
        self._attempts: dict[str, Attempt] = {}
        self._by_run: dict[tuple[str, str], Attempt] = {}
        self._orders: dict[tuple[str, str], Order] = {}
        # Each is kept in the order of arrival, and holds a part of the attempts.
        self._waiting: dict[str, Attempt] = {}
        self._occupying: dict[str, Attempt] = {}
        self._reporting: dict[str, Attempt] = {}
        self._unspooled: dict[str, Attempt] = {}
        self._answered_s = 0.0

    @property
    def occupied(self) -> int:
        return len(self._occupying)

    @property
    def occupying(self) -> tuple[str, ...]:
        return tuple(self._occupying)

    @property
    def is_unsettled(self) -> bool:
        """Whether a claim or a start is under way, or an outcome neither in etcd nor on disk."""
        return any(a.phase is not Phase.RUNNING for a in self._occupying.values()) or any(
            a.spool is not Spool.STORED for a in self._reporting.values()
        )

    def phase_of(self, attempt_id: str) -> Phase | None:
        attempt = self._attempts.get(attempt_id)
        return None if attempt is None else attempt.phase

    # --- what the leader wants ---

    def list_assignments(self, listed: Iterable[tuple[Assignment, int]], now: Instant) -> None:
        """``listed`` (with their tokens) is all there is."""
        seen = {self.assign(assignment, token, now) for assignment, token in listed}
        for attempt in list(self._attempts.values()):
            if attempt.id not in seen and (attempt.listed or attempt.phase in WITH_PROCESS):
                self._unlist(attempt)

    def assign(self, assignment: Assignment, token: int, now: Instant) -> str:
        place = (assignment.job, assignment.run)
        attempt_id = attempt_id_of(assignment.job, assignment.run, assignment.attempt, token)
        before = self._by_run.get(place)
        if before is not None and before.id != attempt_id:
            self._unlist(before)
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            attempt = Attempt(attempt_id, Phase.WAITING, assignment)
            self._attempts[attempt_id] = self._waiting[attempt_id] = attempt
        elif attempt.assignment is None:
            attempt.assignment = assignment
        attempt.listed = True
        self._by_run[place] = attempt
        order = self._orders.get(place)
        if order is not None:
            self._obey(attempt, order)
        return attempt_id

    def unassign(self, job: str, run: str) -> None:
        attempt = self._by_run.get((job, run))
        if attempt is not None:
            self._unlist(attempt)

    def list_orders(self, orders: Iterable[Order]) -> None:
        self._orders.clear()
        for order in orders:
            self.order(order)

    def order(self, order: Order) -> None:
        """Orders and assignments come in no order; one that comes first waits for the other."""
        place = (order.job, order.run)
        self._orders[place] = order
        attempt = self._by_run.get(place)
        if attempt is not None:
            self._obey(attempt, order)

    def forget_order(self, job: str, run: str) -> None:
        self._orders.pop((job, run), None)

    def _obey(self, attempt: Attempt, order: Order) -> None:
        if order.token != attempt.token or attempt.cancelled:
            return
        attempt.cancelled = True
        if attempt.phase in WITH_PROCESS:
            self._kill(attempt, fx.KillCause.CANCELLED)

    def _unlist(self, attempt: Attempt) -> None:
        """The run was moved, or ended without us; a process of ours mustn't go on beside the next
        attempt's. Claims and outcomes under way get their answer still."""
        attempt.listed = False
        if self._by_run.get((attempt.job, attempt.run)) is attempt:
            del self._by_run[attempt.job, attempt.run]
        if attempt.phase in WITH_PROCESS:
            attempt.stopped_because = "stopped, since its run was moved or ended without it"
            self._kill(attempt, fx.KillCause.FENCED)
        elif attempt.phase in (Phase.WAITING, Phase.DONE):
            self._waiting.pop(attempt.id, None)
            del self._attempts[attempt.id]

    # --- claims ---

    def fill(self, now: Instant) -> None:
        """Claim what waits, as long as there are slots."""
        while self._waiting and self._standing.may_claim(now):
            attempt = next(iter(self._waiting.values()))
            assignment, session = attempt.assignment, self._standing.session
            assert assignment is not None
            assert session is not None
            if assignment.incarnation != session.incarnation:
                # Meant for a session that is over: the leader sees that and moves it.
                del self._waiting[attempt.id]
                attempt.phase = Phase.DONE
                continue
            verdict = self._verdict(attempt, assignment)
            if verdict is None and len(self._occupying) >= self._settings.slots:
                return
            del self._waiting[attempt.id]
            claimed_at = utc_of(now.wall_ms)
            claim = attempt.claim_or(
                session.incarnation, self._standing.supervisor or "", claimed_at
            )
            if verdict is not None:
                claim = without_process(claim, *verdict, claimed_at)
            attempt.claim = claim
            attempt.phase = Phase.CLAIMING
            self._occupying[attempt.id] = attempt
            self._emit(fx.Claim(token=attempt.token, assignment=assignment, report=claim))

    def _verdict(self, attempt: Attempt, assignment: Assignment) -> tuple[Outcome, str] | None:
        """How the attempt ends without a process; None: it gets one."""
        if attempt.cancelled:
            return Outcome.CANCELLED, "cancelled before it started"
        if isinstance(assignment.action, Noop):
            return None
        user = assignment.user or self._settings.default_user
        if not allows(self._settings.users, user):
            whom = f"as {user}" if user else "without a user"
            return Outcome.DECLINED, f"agent {self._settings.agent} runs no jobs {whom}"
        try:
            argv_of(assignment)
        except UnknownParameter as error:
            return Outcome.FAILED, str(error)
        return None

    def claim_committed(self, attempt_id: str, now: Instant) -> None:
        self._answered_s = now.mono_s
        attempt = self._attempts.get(attempt_id)
        if attempt is None or attempt.phase is not Phase.CLAIMING:
            return
        claim, assignment = attempt.claim, attempt.assignment
        assert claim is not None
        assert assignment is not None
        if claim.outcome is not None:
            self._done(attempt)
        elif not attempt.listed:
            self._end(attempt, Outcome.DIED, "its run was moved before it started", now)
        elif attempt.cancelled:
            self._end(attempt, Outcome.CANCELLED, "cancelled before it started", now)
        elif not self._standing.has_session(now):
            self._end(attempt, Outcome.DIED, "the agent's session ended before it started", now)
        elif isinstance(assignment.action, Noop):
            self._end(attempt, Outcome.COMPLETED, "", now, started_at=utc_of(now.wall_ms))
        elif self._standing.supervisor != claim.supervisor:
            self._end(attempt, Outcome.DIED, "the supervisor died before it started", now)
        else:
            attempt.phase = Phase.STARTING
            self._start(attempt, assignment)

    def claim_refused(self, attempt_id: str, found: Report | None, now: Instant) -> None:
        """A report of our own in its place is the answer to an earlier sending that got lost."""
        self._answered_s = now.mono_s
        attempt = self._attempts.get(attempt_id)
        if attempt is None or attempt.phase is not Phase.CLAIMING:
            return
        claim = attempt.claim
        assert claim is not None
        if (
            found is not None
            and (found.token, found.incarnation) == (claim.token, claim.incarnation)
            and found.outcome is claim.outcome
        ):
            self.claim_committed(attempt_id, now)
        else:
            self._done(attempt)

    def _start(self, attempt: Attempt, assignment: Assignment) -> None:
        settings = self._settings
        user = assignment.user or settings.default_user
        own_user = user == settings.own_user
        base = f"{settings.output_dir}/{attempt.job}/{attempt.run}/{attempt.number}"
        results_path = f"{base}.results"
        self._emit(
            fx.StartProcess(
                attempt_id=attempt.id,
                job=attempt.job,
                run=attempt.run,
                attempt=attempt.number,
                argv=argv_of(assignment),
                env=environment_of(
                    assignment,
                    base=settings.base_env,
                    token=attempt.token,
                    results_path=results_path,
                    own_user=own_user,
                ),
                workdir=assignment.workdir or "/",
                user=None if own_user else user,
                timeout_s=assignment.timeout_s,
                kill_grace_s=assignment.kill_grace_s,
                deadline_mono_s=self._standing.deadline_mono_s,
                output_path=f"{base}.log",
                results_path=results_path,
            )
        )

    # --- processes ---

    def supervisor_ready(
        self,
        running: tuple[ProcessStarted, ...],
        ended: tuple[ProcessEnded | StartFailed, ...],
        now: Instant,
    ) -> None:
        """What isn't in the inventory has no process: its supervisor died."""
        for over in ended:
            self.process_over(over, now)
        alive = {process.attempt_id for process in running}
        for attempt in list(self._occupying.values()):
            if attempt.phase in WITH_PROCESS and attempt.id not in alive:
                self._end(attempt, Outcome.DIED, "its supervisor died, and it with it", now)
        for process in running:
            self.process_started(process)

    def process_started(self, process: ProcessStarted) -> None:
        attempt = self._attempts.get(process.attempt_id)
        if attempt is None:
            # One of the agent's process before this one.
            attempt = Attempt(process.attempt_id, Phase.RUNNING)
            self._attempts[attempt.id] = self._occupying[attempt.id] = attempt
        elif attempt.phase is Phase.STARTING:
            attempt.phase = Phase.RUNNING
        elif attempt.phase is Phase.WAITING:
            del self._waiting[attempt.id]
            attempt.phase = Phase.RUNNING
            self._occupying[attempt.id] = attempt
        elif attempt.phase is not Phase.RUNNING:
            self._kill(attempt, fx.KillCause.FENCED)

    def process_over(self, over: ProcessEnded | StartFailed, now: Instant) -> None:
        attempt = self._attempts.get(over.attempt_id)
        if attempt is None:
            attempt = Attempt(over.attempt_id, Phase.RUNNING)
            self._attempts[attempt.id] = attempt
        elif attempt.phase is Phase.REPORTING:
            attempt.held = True
            if attempt.spool is Spool.STORED:
                self._acknowledge(attempt)
            return
        elif attempt.phase is Phase.DONE:
            self._emit(fx.Acknowledge(attempt.id))
            return
        attempt.held = True
        if isinstance(over, ProcessEnded):
            claim = self._claim_of(attempt, utc_of(over.started_ms))
            self._conclude(attempt, of_process(claim, over, attempt.stopped_because), now)
        else:
            at = utc_of(over.failed_ms)
            claim = self._claim_of(attempt, at)
            self._conclude(attempt, without_process(claim, Outcome.FAILED, over.reason, at), now)

    def stop_all(self, because: str, now: Instant, *, grace_s: float | None = None) -> None:
        """``grace_s`` None: each its own."""
        for attempt in self._occupying.values():
            if attempt.phase in WITH_PROCESS:
                attempt.stopped_because = because
                self._kill(attempt, fx.KillCause.FENCED, grace_s)

    def longest_grace_s(self) -> float:
        return max((_grace_s(attempt) for attempt in self._occupying.values()), default=0.0)

    def _kill(self, attempt: Attempt, cause: fx.KillCause, grace_s: float | None = None) -> None:
        grace_s = _grace_s(attempt) if grace_s is None else grace_s
        self._emit(fx.KillProcess(attempt_id=attempt.id, cause=cause, grace_s=grace_s))

    # --- outcomes ---

    def _claim_of(self, attempt: Attempt, since: Utc) -> Report:
        """Without a session yet, it is an attempt of the process before this one: its session's,
        as far as the disk knows it (0 is nobody's lease)."""
        session = self._standing.session
        past = self._settings.past_incarnations
        incarnation = session.incarnation if session is not None else (*past, "0")[0]
        return attempt.claim_or(incarnation, self._standing.supervisor or "", since)

    def _end(
        self,
        attempt: Attempt,
        outcome: Outcome,
        reason: str,
        now: Instant,
        *,
        started_at: Utc | None = None,
    ) -> None:
        at = utc_of(now.wall_ms)
        report = without_process(self._claim_of(attempt, at), outcome, reason, at)
        if started_at is not None:
            report = msgspec.structs.replace(report, started_at=started_at)
        self._conclude(attempt, report, now)

    def _conclude(self, attempt: Attempt, report: Report, now: Instant) -> None:
        attempt.phase = Phase.REPORTING
        attempt.report = report
        attempt.spool_after_s = now.mono_s + self._settings.spool_after_s
        self._waiting.pop(attempt.id, None)
        self._occupying.pop(attempt.id, None)
        self._reporting[attempt.id] = self._unspooled[attempt.id] = attempt
        if self._standing.may_write:
            self._send(attempt)

    def _send(self, attempt: Attempt) -> None:
        assert attempt.report is not None
        attempt.sent = True
        self._emit(
            fx.ReportOutcome(agent=self._settings.agent, token=attempt.token, report=attempt.report)
        )

    def outcome_stored(self, attempt_id: str, now: Instant) -> None:
        self._answered_s = now.mono_s
        attempt = self._attempts.get(attempt_id)
        if attempt is not None and attempt.phase is Phase.REPORTING:
            self._done(attempt)

    def _done(self, attempt: Attempt) -> None:
        """Its outcome is in etcd, or nothing is to be said of it."""
        attempt.phase = Phase.DONE
        for part in (self._waiting, self._occupying, self._reporting, self._unspooled):
            part.pop(attempt.id, None)
        if attempt.held:
            self._acknowledge(attempt)
        if attempt.spool is not Spool.NONE:
            attempt.spool = Spool.NONE
            self._emit(fx.ForgetSpooled(attempt.id))
        if not attempt.listed:
            del self._attempts[attempt.id]

    def _acknowledge(self, attempt: Attempt) -> None:
        attempt.held = False
        self._emit(fx.Acknowledge(attempt.id))

    # --- the session ends and begins ---

    def session_lost(self, now: Instant) -> None:
        """Processes end at once: theirs may be the leader's next attempts elsewhere. Whether a
        claim under way was committed, the reports will say that the next session reads."""
        self.stop_all("", now, grace_s=0.0)
        for attempt in list(self._occupying.values()):
            if attempt.phase is Phase.CLAIMING:
                self._done(attempt)
        self.writer_lost()
        for attempt in list(self._unspooled.values()):
            self._spool(attempt)

    def writer_lost(self) -> None:
        """Nothing sent so far will be answered any more."""
        for attempt in self._reporting.values():
            attempt.sent = False

    def reconcile(self, reports: tuple[Report, ...], now: Instant) -> None:
        """Hold what etcd has against what we know, before anything is written.

        A claim that nothing here belongs to is one without a process, and is reported died.
        """
        for report in reports:
            self._reconcile(report, now)

    def send_unanswered(self) -> None:
        """Outcomes in the order in which their attempts ended; claims as they were sent before."""
        for attempt in self._reporting.values():
            if not attempt.sent:
                self._send(attempt)
        for attempt in self._occupying.values():
            if attempt.phase is Phase.CLAIMING:
                assert attempt.assignment is not None
                assert attempt.claim is not None
                self._emit(
                    fx.Claim(
                        token=attempt.token, assignment=attempt.assignment, report=attempt.claim
                    )
                )

    def _reconcile(self, report: Report, now: Instant) -> None:
        attempt_id = report_id(report)
        attempt = self._attempts.get(attempt_id)
        if report.outcome is not None:
            if attempt is not None and attempt.phase in (Phase.WAITING, Phase.REPORTING):
                self._done(attempt)
            return
        if attempt is None:
            attempt = Attempt(attempt_id, Phase.DONE)
            self._attempts[attempt_id] = attempt
        if attempt.phase not in CLAIMED:
            attempt.claim = report
            self._end(attempt, Outcome.DIED, "claimed, but no process of it is known", now)
        elif attempt.claim is None:
            attempt.claim = report
            if attempt.report is not None:
                attempt.report = msgspec.structs.replace(
                    attempt.report,
                    incarnation=report.incarnation,
                    supervisor=report.supervisor,
                    claimed_at=report.claimed_at,
                )

    # --- the spool ---

    def spool_read(self, reports: tuple[Report, ...]) -> None:
        for report in reports:
            attempt = Attempt(report_id(report), Phase.REPORTING)
            attempt.report = attempt.claim = report
            attempt.spool = Spool.STORED
            self._attempts[attempt.id] = self._reporting[attempt.id] = attempt

    def time_passed(self, now: Instant) -> None:
        """Spool what waits, unless etcd is answering: then it is busy, and the disk no quicker."""
        if now.mono_s < self._answered_s + self._settings.spool_after_s:
            return
        for attempt in list(self._unspooled.values()):
            if attempt.spool_after_s > now.mono_s:
                break  # Those behind it were concluded later.
            self._spool(attempt)

    def _spool(self, attempt: Attempt) -> None:
        assert attempt.report is not None
        attempt.spool = Spool.WRITING
        del self._unspooled[attempt.id]
        self._emit(fx.SpoolOutcome(attempt_id=attempt.id, report=attempt.report))

    def outcome_spooled(self, attempt_id: str) -> None:
        attempt = self._reporting.get(attempt_id)
        if attempt is not None and attempt.spool is Spool.WRITING:
            attempt.spool = Spool.STORED
            if attempt.held:
                self._acknowledge(attempt)

    def spool_failed(self, attempt_id: str, now: Instant) -> None:
        """It stays in memory, and with the supervisor, and is tried again."""
        attempt = self._reporting.get(attempt_id)
        if attempt is not None and attempt.spool is Spool.WRITING:
            attempt.spool = Spool.NONE
            attempt.spool_after_s = now.mono_s + self._settings.spool_retry_s
            self._unspooled[attempt.id] = attempt


def _grace_s(attempt: Attempt) -> float:
    """An attempt that was found in the supervisor may have an assignment that we never saw."""
    return attempt.assignment.kill_grace_s if attempt.assignment else _GRACE_OF_UNKNOWN_S


assert frozenset({Phase.CLAIMING}) | WITH_PROCESS == OCCUPYING
