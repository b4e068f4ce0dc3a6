"""The processes of attempts, in the supervisor's care: started, found, stopped, over."""

from __future__ import annotations

from collections.abc import Callable

from etcsched.core.agent import effects as fx
from etcsched.core.agent.attempt import (
    WITH_PROCESS,
    Attempt,
    Phase,
    Spool,
    of_process,
    without_process,
)
from etcsched.core.agent.attempts import Attempts
from etcsched.core.agent.command import argv_of, environment_of
from etcsched.core.agent.deadlines import Deadlines
from etcsched.core.agent.events import ProcessEnded, ProcessStarted, StartFailed
from etcsched.core.agent.outcomes import Outcomes
from etcsched.core.agent.standing import Standing
from etcsched.core.clock import Instant
from etcsched.core.records import Assignment
from etcsched.core.states import Outcome
from etcsched.core.times import utc_of

_GRACE_OF_UNKNOWN_S = 15.0


class Processes:
    def __init__(
        self,
        standing: Standing,
        attempts: Attempts,
        outcomes: Outcomes,
        deadlines: Deadlines,
        emit: Callable[[fx.Effect], None],
    ) -> None:
        self._standing = standing
        self._settings = standing.settings
        self._attempts = attempts
        self._outcomes = outcomes
        self._deadlines = deadlines
        self._emit = emit

    def start(self, attempt: Attempt, assignment: Assignment) -> None:
        settings = self._settings
        user = assignment.user or settings.default_user
        own_user = user == settings.own_user
        base = f"{settings.output_dir}/{attempt.job}/{attempt.run}/{attempt.number}"
        results_path = f"{base}.results"
        self._deadlines.begin(attempt, assignment)
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
                deadline_mono_s=attempt.deadline_mono_s,
                disconnect_grace_s=attempt.grace_s,
                output_path=f"{base}.log",
                results_path=results_path,
            )
        )

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
        for attempt in list(self._attempts.occupying.values()):
            if attempt.phase in WITH_PROCESS and attempt.id not in alive:
                self._outcomes.end(
                    attempt, Outcome.DIED, "its supervisor was gone, so it was ended", now
                )
        for process in running:
            self.process_started(process)

    def process_started(self, process: ProcessStarted) -> None:
        attempt = self._attempts.by_id.get(process.attempt_id)
        if attempt is None:
            # One of the agent's process before this one.
            attempt = Attempt(process.attempt_id, Phase.RUNNING)
            self._attempts.by_id[attempt.id] = self._attempts.occupying[attempt.id] = attempt
            _found(attempt, process)
        elif attempt.phase is Phase.STARTING:
            attempt.phase = Phase.RUNNING
        elif attempt.phase is Phase.WAITING:
            del self._attempts.waiting[attempt.id]
            attempt.phase = Phase.RUNNING
            self._attempts.occupying[attempt.id] = attempt
            _found(attempt, process)
            if attempt.cancelled:  # Told so before there was anything to kill.
                self.kill(attempt, fx.KillCause.CANCELLED)
        elif attempt.phase is not Phase.RUNNING:
            self.kill(attempt, fx.KillCause.FENCED)

    def process_over(self, over: ProcessEnded | StartFailed, now: Instant) -> None:
        attempt = self._attempts.by_id.get(over.attempt_id)
        if attempt is None:
            attempt = Attempt(over.attempt_id, Phase.RUNNING)
            self._attempts.by_id[attempt.id] = attempt
        elif attempt.phase is Phase.REPORTING:
            attempt.held = True
            if attempt.spool is Spool.STORED:
                self._outcomes.acknowledge(attempt)
            return
        elif attempt.phase is Phase.DONE:
            self._emit(fx.Acknowledge(attempt.id))
            return
        attempt.held = True
        if isinstance(over, ProcessEnded):
            claim = self._outcomes.claim_of(attempt, utc_of(over.started_ms))
            self._outcomes.conclude(attempt, of_process(claim, over, attempt.stopped_because), now)
        else:
            at = utc_of(over.failed_ms)
            claim = self._outcomes.claim_of(attempt, at)
            outcome = Outcome.DIED if over.died else Outcome.FAILED
            if over.declined:
                outcome = Outcome.DECLINED
            self._outcomes.conclude(attempt, without_process(claim, outcome, over.reason, at), now)

    def session_over(self) -> None:
        """Theirs may be the leader's next attempts elsewhere, but for those with a grace: the
        supervisor holds these to their deadlines."""
        for attempt in self._attempts.occupying.values():
            if attempt.phase in WITH_PROCESS and not attempt.outlives_session:
                attempt.stopped_because = ""
                self.kill(attempt, fx.KillCause.FENCED, 0.0)

    def stop_all(self, because: str, now: Instant, *, grace_s: float | None = None) -> None:
        """``grace_s`` None: each its own. What is only claimed, or about to be, doesn't start."""
        for attempt in self._attempts.occupying.values():
            attempt.stopped_because = because
            if attempt.phase in WITH_PROCESS:
                self.kill(attempt, fx.KillCause.FENCED, grace_s)

    def longest_grace_s(self) -> float:
        return max(
            (_grace_s(attempt) for attempt in self._attempts.occupying.values()), default=0.0
        )

    def kill(self, attempt: Attempt, cause: fx.KillCause, grace_s: float | None = None) -> None:
        grace_s = _grace_s(attempt) if grace_s is None else grace_s
        self._emit(fx.KillProcess(attempt_id=attempt.id, cause=cause, grace_s=grace_s))


def _found(attempt: Attempt, process: ProcessStarted) -> None:
    attempt.deadline_mono_s = process.deadline_mono_s
    attempt.grace_s = process.disconnect_grace_s


def _grace_s(attempt: Attempt) -> float:
    """An attempt that was found in the supervisor may have an assignment that we never saw."""
    return attempt.assignment.kill_grace_s if attempt.assignment else _GRACE_OF_UNKNOWN_S
