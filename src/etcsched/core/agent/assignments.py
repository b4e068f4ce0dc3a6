"""What the leader assigned and ordered, and the claims that it leads to (DESIGN 4, T2)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import msgspec

from etcsched.core.agent import effects as fx
from etcsched.core.agent.attempt import (
    WITH_PROCESS,
    Attempt,
    Phase,
    attempt_id_of,
    without_process,
)
from etcsched.core.agent.attempts import Attempts
from etcsched.core.agent.command import UnknownParameter, argv_of
from etcsched.core.agent.outcomes import NO_PROCESS, Outcomes
from etcsched.core.agent.processes import Processes
from etcsched.core.agent.standing import Standing
from etcsched.core.agent.users import allows
from etcsched.core.clock import Instant
from etcsched.core.records import Assignment, Noop, Order, Report
from etcsched.core.states import Outcome
from etcsched.core.text import shortened
from etcsched.core.times import utc_of

CLAIM_AGAIN_S = 1.0
"""After a refusal: what it was for is seen by then, in most cases."""


REJECTED_AGAIN_S = 60.0
"""After a claim that etcd takes in no form: that changes with etcd's options, if at all. The run
waits, and no other."""

_REASON_MOST = 500
"""It quotes the command, which may be long, and stands in the claim."""


class Assignments:
    def __init__(
        self,
        standing: Standing,
        attempts: Attempts,
        outcomes: Outcomes,
        processes: Processes,
        emit: Callable[[fx.Effect], None],
    ) -> None:
        self._standing = standing
        self._settings = standing.settings
        self._attempts = attempts
        self._outcomes = outcomes
        self._processes = processes
        self._emit = emit
        self._orders: dict[tuple[str, str], Order] = {}

    def list_assignments(
        self,
        listed: Iterable[tuple[Assignment, int]],
        unreadable: Collection[tuple[str, str]],
        now: Instant,
    ) -> None:
        """``listed`` (with their tokens) is all there is, but for runs whose assignment can't be
        read: as long as it is there, their processes go on."""
        seen = {self.assign(assignment, token, now) for assignment, token in listed}
        for attempt in list(self._attempts.by_id.values()):
            if attempt.id in seen or (attempt.job, attempt.run) in unreadable:
                continue
            if attempt.listed or attempt.phase in WITH_PROCESS:
                self._unlist(attempt)

    def assign(self, assignment: Assignment, token: int, now: Instant) -> str:
        place = (assignment.job, assignment.run)
        attempt_id = attempt_id_of(assignment.job, assignment.run, assignment.attempt, token)
        before = self._attempts.by_run.get(place)
        if before is not None and before.id != attempt_id:
            self._unlist(before)
        attempt = self._attempts.by_id.get(attempt_id)
        if attempt is None:
            attempt = Attempt(attempt_id, Phase.WAITING, assignment)
            self._attempts.by_id[attempt_id] = self._attempts.waiting[attempt_id] = attempt
        elif attempt.assignment is None:
            attempt.assignment = assignment
        attempt.listed = True
        self._attempts.by_run[place] = attempt
        order = self._orders.get(place)
        if order is not None:
            self._obey(attempt, order)
        return attempt_id

    def unassign(self, job: str, run: str) -> None:
        attempt = self._attempts.by_run.get((job, run))
        if attempt is not None:
            self._unlist(attempt)

    def list_orders(self, orders: Iterable[Order]) -> None:
        self._orders.clear()
        for order in orders:
            self.order(order)

    def order(self, order: Order) -> None:
        """Orders and assignments come in no order; one that comes first waits for the other."""
        self._orders[(order.job, order.run)] = order
        self._heed(order)

    def heed_orders(self) -> None:
        """Processes were found that orders may be about."""
        for order in self._orders.values():
            self._heed(order)

    def _heed(self, order: Order) -> None:
        """It may be about a process that runs on though its run is over."""
        attempt = self._attempts.by_run.get((order.job, order.run))
        if attempt is None:
            ours, meant = self._attempts.occupying.values(), (order.job, order.run, order.token)
            attempt = next((a for a in ours if (a.job, a.run, a.token) == meant), None)
        if attempt is not None:
            self._obey(attempt, order)

    def forget_order(self, job: str, run: str) -> None:
        self._orders.pop((job, run), None)

    def _obey(self, attempt: Attempt, order: Order) -> None:
        if order.token != attempt.token or attempt.cancelled:
            return
        attempt.cancelled = True
        if attempt.phase in WITH_PROCESS:
            self._processes.kill(attempt, fx.KillCause.CANCELLED)

    def _unlist(self, attempt: Attempt) -> None:
        """The run was moved, or ended without us; a process of ours mustn't go on beside the next
        attempt's. Claims and outcomes under way get their answer still."""
        attempt.listed = False
        if self._attempts.by_run.get((attempt.job, attempt.run)) is attempt:
            del self._attempts.by_run[attempt.job, attempt.run]
        session = self._standing.session
        if attempt.runs_on and (session is None or attempt.session != session.incarnation):
            return  # Moved while nobody could reach it: its late outcome will be recorded.
        if attempt.phase in WITH_PROCESS:
            attempt.stopped_because = "stopped, since its run was moved or ended without it"
            self._processes.kill(attempt, fx.KillCause.FENCED)
        elif attempt.phase in (Phase.WAITING, Phase.DONE):
            self._attempts.waiting.pop(attempt.id, None)
            del self._attempts.by_id[attempt.id]

    def fill(self, now: Instant) -> None:
        """Claim what waits, as long as there are slots. What may not be claimed is passed over,
        and what gets no process needs none."""
        session = self._standing.session
        if session is None or self._standing.supervisor is None or not self._attempts.waiting:
            return
        free = self._free_slots(now)
        for attempt in list(self._attempts.waiting.values()):
            assignment = attempt.assignment
            assert assignment is not None
            if assignment.incarnation != session.incarnation:
                # Meant for a session that is over: the leader sees that and moves it.
                del self._attempts.waiting[attempt.id]
                attempt.phase = Phase.DONE
                continue
            is_early = now.mono_s < attempt.claim_after_s
            if is_early or not self._standing.may_claim(now, assignment):
                continue
            verdict = self._verdict(attempt, assignment)
            if verdict is None and free <= 0:
                continue
            free -= 1
            del self._attempts.waiting[attempt.id]
            claimed_at = utc_of(now.wall_ms)
            claim = attempt.claim_or(
                session.incarnation, self._standing.supervisor or "", claimed_at
            )
            if session.ttl_s != assignment.session_ttl_s:
                claim = msgspec.structs.replace(claim, session_ttl_s=session.ttl_s)
            if verdict is not None:
                claim = without_process(claim, *verdict, claimed_at)
            attempt.claim = claim
            attempt.phase = Phase.CLAIMING
            self._attempts.occupying[attempt.id] = attempt
            self._emit(fx.Claim(token=attempt.token, assignment=assignment, report=claim))

    def _free_slots(self, now: Instant) -> int:
        """By the leader's count, which is that of the assignments: one that is gone takes no slot,
        nor one whose run may be held since its session was lost, whatever is left of a process."""
        return self._settings.slots - sum(
            attempt.listed
            and (attempt.phase is Phase.CLAIMING or now.mono_s < attempt.deadline_mono_s)
            for attempt in self._attempts.occupying.values()
        )

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
            return Outcome.FAILED, shortened(str(error), _REASON_MOST)
        return None

    def claim_committed(self, attempt_id: str, now: Instant) -> None:
        self._outcomes.answered(now)
        attempt = self._attempts.by_id.get(attempt_id)
        if attempt is None or attempt.phase is not Phase.CLAIMING:
            return
        claim, assignment = attempt.claim, attempt.assignment
        assert claim is not None
        assert assignment is not None
        if claim.outcome is not None:
            self._outcomes.done(attempt)
        elif not attempt.listed:
            self._outcomes.end(attempt, Outcome.DIED, "its run was moved before it started", now)
        elif attempt.cancelled:
            self._outcomes.end(attempt, Outcome.CANCELLED, "cancelled before it started", now)
        elif attempt.stopped_because:
            self._outcomes.end(attempt, Outcome.DIED, attempt.stopped_because, now)
        elif isinstance(assignment.action, Noop):
            self._outcomes.end(attempt, Outcome.COMPLETED, "", now, started_at=utc_of(now.wall_ms))
        elif self._standing.supervisor != claim.supervisor:
            self._outcomes.end(attempt, Outcome.DIED, "the supervisor died before it started", now)
        else:
            attempt.phase = Phase.STARTING
            self._processes.start(attempt, assignment)

    def claim_refused(self, attempt_id: str, found: Report | None, now: Instant) -> None:
        """A report of our own in its place is the answer to an earlier sending that got lost.
        Without any, the leader's grounds have changed: it decides anew, unless it sees them only
        once they are as before, after a drain that came and went, say."""
        self._outcomes.answered(now)
        attempt = self._attempts.by_id.get(attempt_id)
        if attempt is None or attempt.phase is not Phase.CLAIMING:
            return
        claim = attempt.claim
        assert claim is not None
        ours = (claim.token, claim.incarnation)
        if found is None and attempt.listed:
            self._wait_again(attempt, now, CLAIM_AGAIN_S)
        elif found is None or (found.token, found.incarnation) != ours:
            self._outcomes.done(attempt)
        elif found.supervisor == claim.supervisor and found.outcome is claim.outcome:
            self.claim_committed(attempt_id, now)
        elif found.outcome is None:
            attempt.claim = found  # Nobody else ends it while this session lives.
            self._outcomes.end(attempt, Outcome.DIED, NO_PROCESS, now)
        else:
            self._outcomes.done(attempt)

    def claim_rejected(self, attempt_id: str, now: Instant) -> None:
        self._outcomes.answered(now)
        attempt = self._attempts.by_id.get(attempt_id)
        if attempt is None or attempt.phase is not Phase.CLAIMING:
            return
        if attempt.listed:
            self._wait_again(attempt, now, REJECTED_AGAIN_S)
        else:
            self._outcomes.done(attempt)

    def _wait_again(self, attempt: Attempt, now: Instant, after_s: float) -> None:
        attempt.phase = Phase.WAITING
        attempt.claim = None
        attempt.claim_after_s = now.mono_s + after_s
        del self._attempts.occupying[attempt.id]
        self._attempts.waiting[attempt.id] = attempt

    def send_claims_again(self) -> None:
        for attempt in self._claiming():
            assert attempt.assignment is not None
            assert attempt.claim is not None
            self._emit(
                fx.Claim(token=attempt.token, assignment=attempt.assignment, report=attempt.claim)
            )

    def give_up_claims(self) -> None:
        """Whether one was committed, the reports will say that the next session reads."""
        for attempt in self._claiming():
            self._outcomes.done(attempt)

    def _claiming(self) -> list[Attempt]:
        return [a for a in self._attempts.occupying.values() if a.phase is Phase.CLAIMING]
