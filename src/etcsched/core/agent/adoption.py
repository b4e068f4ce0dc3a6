"""Attempts that are taken up again under a new session (DESIGN 4, T6)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from etcsched.core.agent import effects as fx
from etcsched.core.agent.attempt import WITH_PROCESS, report_id
from etcsched.core.agent.attempts import Attempts
from etcsched.core.agent.deadlines import Deadlines
from etcsched.core.agent.events import AdoptionRefused
from etcsched.core.agent.processes import Processes
from etcsched.core.agent.standing import Standing
from etcsched.core.records import Report


class Adoption:
    def __init__(
        self,
        standing: Standing,
        attempts: Attempts,
        processes: Processes,
        deadlines: Deadlines,
        emit: Callable[[fx.Effect], None],
    ) -> None:
        self._standing = standing
        self._attempts = attempts
        self._processes = processes
        self._deadlines = deadlines
        self._emit = emit

    def reconcile(self, claim: Report, revision: int) -> None:
        """``claim`` is in etcd at ``revision``; where its process runs, it is this session's, or is
        to become so."""
        attempt = self._attempts.by_id.get(report_id(claim))
        session = self._standing.session
        if claim.outcome is not None or attempt is None or session is None:
            return
        if attempt.phase not in WITH_PROCESS:
            return
        attempt.session = claim.incarnation
        if claim.incarnation == session.incarnation:
            self._deadlines.adopted(attempt)
        elif attempt.outlives_session:
            adopted = msgspec.structs.replace(
                claim, incarnation=session.incarnation, session_ttl_s=session.ttl_s
            )
            self._emit(
                fx.Adopt(
                    agent=self._standing.settings.agent,
                    token=attempt.token,
                    report=adopted,
                    report_revision=revision,
                )
            )

    def committed(self, attempt_id: str, incarnation: str) -> None:
        session = self._standing.session
        attempt = self._attempts.by_id.get(attempt_id)
        if attempt is None or session is None or session.incarnation != incarnation:
            return  # What etcd has now is read anew by the session that comes.
        if attempt.claim is not None:
            attempt.claim = msgspec.structs.replace(
                attempt.claim, incarnation=incarnation, session_ttl_s=session.ttl_s
            )
        if attempt.phase in WITH_PROCESS:
            self._deadlines.adopted(attempt)

    def refused(self, answer: AdoptionRefused) -> None:
        """A report of our own in its place is the answer to an earlier sending that got lost."""
        attempt, found = self._attempts.by_id.get(answer.attempt_id), answer.found
        if attempt is None:
            return
        ours = (attempt.token, answer.incarnation)
        if found is not None and (found.token, found.incarnation) == ours:
            self.committed(answer.attempt_id, answer.incarnation)
        elif attempt.phase in WITH_PROCESS and not attempt.runs_on:
            attempt.stopped_because = (
                "stopped, since etcd doesn't take that it goes on in a new session"
                if answer.is_rejected
                else "stopped, since its run was moved while it was cut off"
            )
            self._processes.kill(attempt, fx.KillCause.FENCED)
