"""How attempts end: their outcomes on the way into etcd, on disk meanwhile (DESIGN 4, T3)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from etcsched.core.agent import effects as fx
from etcsched.core.agent.attempt import (
    CLAIMED,
    Attempt,
    Phase,
    Spool,
    report_id,
    without_process,
)
from etcsched.core.agent.attempts import Attempts
from etcsched.core.agent.standing import Standing
from etcsched.core.clock import Instant
from etcsched.core.records import Report
from etcsched.core.states import Outcome
from etcsched.core.times import Utc, utc_of

REJECTED_AGAIN_S = 60.0
"""After an outcome that etcd takes in no form, however little it says."""

NO_PROCESS = "claimed, but no process of it is known"


class Outcomes:
    def __init__(
        self, standing: Standing, attempts: Attempts, emit: Callable[[fx.Effect], None]
    ) -> None:
        self._standing = standing
        self._settings = standing.settings
        self._attempts = attempts
        self._emit = emit
        self._answered_s = 0.0

    def answered(self, now: Instant) -> None:
        """Etcd has answered something."""
        self._answered_s = now.mono_s

    def claim_of(self, attempt: Attempt, since: Utc) -> Report:
        """Without a session yet, it is an attempt of the process before this one: its session's,
        as far as the disk knows it (0 is nobody's lease)."""
        session = self._standing.session
        past = self._settings.past_incarnations
        incarnation = session.incarnation if session is not None else (*past, "0")[0]
        return attempt.claim_or(incarnation, self._standing.supervisor or "", since)

    def end(
        self,
        attempt: Attempt,
        outcome: Outcome,
        reason: str,
        now: Instant,
        *,
        started_at: Utc | None = None,
    ) -> None:
        at = utc_of(now.wall_ms)
        report = without_process(self.claim_of(attempt, at), outcome, reason, at)
        if started_at is not None:
            report = msgspec.structs.replace(report, started_at=started_at)
        self.conclude(attempt, report, now)

    def conclude(self, attempt: Attempt, report: Report, now: Instant) -> None:
        attempt.phase = Phase.REPORTING
        attempt.report = report
        attempt.spool_after_s = now.mono_s + self._settings.spool_after_s
        self._attempts.waiting.pop(attempt.id, None)
        self._attempts.occupying.pop(attempt.id, None)
        self._attempts.reporting[attempt.id] = self._attempts.unspooled[attempt.id] = attempt
        if self._standing.may_write:
            self._send(attempt)

    def _send(self, attempt: Attempt) -> None:
        assert attempt.report is not None
        attempt.sent = True
        self._attempts.rejected.pop(attempt.id, None)
        self._emit(
            fx.ReportOutcome(agent=self._settings.agent, token=attempt.token, report=attempt.report)
        )

    def outcome_stored(self, attempt_id: str, now: Instant) -> None:
        self.answered(now)
        attempt = self._attempts.by_id.get(attempt_id)
        if attempt is not None and attempt.phase is Phase.REPORTING:
            self.done(attempt)

    def outcome_rejected(self, attempt_id: str, why: str, now: Instant) -> None:
        """How it ended is told without what may be large; it costs no other run. If etcd takes
        that neither, it waits on disk."""
        self.answered(now)
        attempt = self._attempts.reporting.get(attempt_id)
        if attempt is None or attempt.report is None:
            return
        report = attempt.report
        if report.tail or report.results:
            attempt.report = msgspec.structs.replace(
                report,
                tail="",
                results={},
                results_problem=f"left out, as the tail of the output is: {why}",
            )
            if self._standing.may_write:
                self._send(attempt)
            return
        attempt.report_after_s = now.mono_s + REJECTED_AGAIN_S
        self._attempts.rejected[attempt_id] = attempt
        if attempt_id in self._attempts.unspooled:
            self._spool(attempt)

    def done(self, attempt: Attempt) -> None:
        """Its outcome is in etcd, or nothing is to be said of it."""
        attempt.phase = Phase.DONE
        self._attempts.settle(attempt)
        if attempt.held:
            self.acknowledge(attempt)
        if attempt.spool is not Spool.NONE:
            attempt.spool = Spool.NONE
            self._emit(fx.ForgetSpooled(attempt.id))
        if not attempt.listed:
            del self._attempts.by_id[attempt.id]

    def acknowledge(self, attempt: Attempt) -> None:
        attempt.held = False
        self._emit(fx.Acknowledge(attempt.id))

    def writer_lost(self) -> None:
        """Nothing sent so far will be answered any more."""
        for attempt in self._attempts.reporting.values():
            attempt.sent = False

    def reconcile(self, report: Report, now: Instant) -> None:
        """Hold a report in etcd against what we know, before anything is written.

        A claim of ours that nothing here belongs to is one without a process, and is reported
        died. One of a session that isn't ours may have its process on another host, whose agent had
        this id before: the leader knows when that is over.
        """
        attempt_id = report_id(report)
        attempt = self._attempts.by_id.get(attempt_id)
        if report.outcome is not None:
            if attempt is not None and attempt.phase in (Phase.WAITING, Phase.REPORTING):
                self.done(attempt)
            return
        is_known = attempt is not None and attempt.phase in CLAIMED
        if not is_known and report.incarnation not in self._standing.incarnations:
            return
        if attempt is None:
            attempt = Attempt(attempt_id, Phase.DONE)
            self._attempts.by_id[attempt_id] = attempt
        if attempt.phase not in CLAIMED:
            attempt.claim = report
            self.end(attempt, Outcome.DIED, NO_PROCESS, now)
        elif attempt.claim is None:
            attempt.claim = report
            if attempt.report is not None:
                attempt.report = msgspec.structs.replace(
                    attempt.report,
                    incarnation=report.incarnation,
                    supervisor=report.supervisor,
                    claimed_at=report.claimed_at,
                )

    def send_unanswered(self) -> None:
        """In the order in which their attempts ended."""
        for attempt in self._attempts.reporting.values():
            if not attempt.sent:
                self._send(attempt)

    def spool_read(self, reports: tuple[Report, ...]) -> None:
        for report in reports:
            attempt = Attempt(report_id(report), Phase.REPORTING)
            attempt.report = attempt.claim = report
            attempt.spool = Spool.STORED
            self._attempts.by_id[attempt.id] = self._attempts.reporting[attempt.id] = attempt

    def time_passed(self, now: Instant) -> None:
        """Spool what waits, unless etcd is answering: then it is busy, and the disk no quicker."""
        self._send_rejected_again(now)
        if now.mono_s < self._answered_s + self._settings.spool_after_s:
            return
        for attempt in list(self._attempts.unspooled.values()):
            if attempt.spool_after_s > now.mono_s:
                break  # Those behind it were concluded later.
            self._spool(attempt)

    def _send_rejected_again(self, now: Instant) -> None:
        for attempt in list(self._attempts.rejected.values()):
            if now.mono_s >= attempt.report_after_s and self._standing.may_write:
                self._send(attempt)

    def _spool(self, attempt: Attempt) -> None:
        assert attempt.report is not None
        attempt.spool = Spool.WRITING
        del self._attempts.unspooled[attempt.id]
        self._emit(fx.SpoolOutcome(attempt_id=attempt.id, report=attempt.report))

    def spool_all(self) -> None:
        for attempt in list(self._attempts.unspooled.values()):
            self._spool(attempt)

    def outcome_spooled(self, attempt_id: str) -> None:
        attempt = self._attempts.reporting.get(attempt_id)
        if attempt is not None and attempt.spool is Spool.WRITING:
            attempt.spool = Spool.STORED
            if attempt.held:
                self.acknowledge(attempt)

    def spool_failed(self, attempt_id: str, now: Instant) -> None:
        """It stays in memory, and with the supervisor, and is tried again."""
        attempt = self._attempts.reporting.get(attempt_id)
        if attempt is not None and attempt.spool is Spool.WRITING:
            attempt.spool = Spool.NONE
            attempt.spool_after_s = now.mono_s + self._settings.spool_retry_s
            self._attempts.unspooled[attempt.id] = attempt
