"""Until when each process may live (DESIGN 8; why that is safe: docs/adr/0015).

A process's deadline lies before the earliest moment at which the leader can move its attempt.
That moment is counted from the session which the attempt's claim names: its lease's end, plus the
job's ``disconnect_grace``, which each leader counts from its own first sight of the loss. So only
renewals of that very session move the deadline on; an attempt of an earlier session keeps what it
has until its adoption (T6) is committed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from etcsched.core.agent import effects as fx
from etcsched.core.agent.attempt import WITH_PROCESS, Attempt
from etcsched.core.agent.attempts import Attempts
from etcsched.core.agent.standing import Standing
from etcsched.core.clock import Instant
from etcsched.core.records import Assignment
from etcsched.core.session import margin_of, with_grace_s
from etcsched.core.states import OnDisconnect


class Deadlines:
    def __init__(
        self, standing: Standing, attempts: Attempts, emit: Callable[[fx.Effect], None]
    ) -> None:
        self._standing = standing
        self._attempts = attempts
        self._emit = emit

    def begin(self, attempt: Attempt, assignment: Assignment) -> None:
        """Of a process that is about to be started in the session that there is."""
        session = self._standing.session
        assert session is not None
        attempt.session = session.incarnation
        attempt.grace_s = assignment.disconnect_grace_s
        if assignment.on_disconnect is OnDisconnect.CONTINUE:
            attempt.deadline_mono_s = math.inf
        else:
            attempt.deadline_mono_s = self._in_session(attempt)

    def adopted(self, attempt: Attempt) -> None:
        """The attempt's claim names the session that there is: it lives with it from now on."""
        session = self._standing.session
        assert session is not None
        attempt.session = session.incarnation
        before_s = attempt.deadline_mono_s
        # Both are safe: what held under the session before, and what holds under this one.
        attempt.deadline_mono_s = max(before_s, self._in_session(attempt))
        if attempt.deadline_mono_s != before_s:
            self._emit(fx.MoveDeadlines(None, {attempt.id: attempt.deadline_mono_s}))

    def renewed(self) -> None:
        """The session's deadline has moved on."""
        standing, single = self._standing, {}
        assert standing.session is not None
        for attempt in self._with_process():
            if attempt.session == standing.session.incarnation and not attempt.runs_on:
                attempt.deadline_mono_s = self._in_session(attempt)
            if attempt.deadline_mono_s != standing.deadline_mono_s:
                single[attempt.id] = attempt.deadline_mono_s
        self._emit(fx.MoveDeadlines(standing.deadline_mono_s, single))

    def lease_gone_early(self) -> None:
        """Etcd says that the lease is gone, though its time wasn't over: some leader may have seen
        that right after the last keepalive that was acknowledged."""
        ttl_s = self._standing.session_ttl_s
        alive_s = self._standing.deadline_mono_s - ttl_s + margin_of(ttl_s)
        self._shorten(self._with_process(), alive_s)

    def leases_revoked(self, now: Instant) -> None:
        """Earlier sessions' leases are about to be revoked: graces begin no earlier than now."""
        self._shorten(self._of_earlier_sessions(), now.mono_s)

    @property
    def some_need_earlier_leases(self) -> bool:
        """Whether a process of an earlier session has no grace: it was told to end, and hasn't."""
        return any(not attempt.outlives_session for attempt in self._of_earlier_sessions())

    def _shorten(self, attempts: Iterable[Attempt], seen_from_s: float) -> None:
        single = {}
        for attempt in attempts:
            latest_s = seen_from_s + attempt.grace_s - margin_of(attempt.grace_s)
            if latest_s < attempt.deadline_mono_s < math.inf:
                attempt.deadline_mono_s = single[attempt.id] = latest_s
        if single:
            self._emit(fx.MoveDeadlines(None, single))

    def _in_session(self, attempt: Attempt) -> float:
        standing = self._standing
        return with_grace_s(standing.deadline_mono_s, standing.session_ttl_s, attempt.grace_s)

    def _of_earlier_sessions(self) -> list[Attempt]:
        session = self._standing.session
        current = session.incarnation if session is not None else ""
        return [a for a in self._with_process() if a.session != current]

    def _with_process(self) -> list[Attempt]:
        return [a for a in self._attempts.occupying.values() if a.phase in WITH_PROCESS]
