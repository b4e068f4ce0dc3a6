"""How an agent goes: told to stop, or to begin anew; and when it may.

One that stops ends its work, tells the leader that it wants to go, runs what is to be done before
that, and takes its presence away once it is let go, or once its time is over.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from etcsched.core.agent import effects as fx
from etcsched.core.agent.assignments import Assignments
from etcsched.core.agent.attempts import Attempts
from etcsched.core.agent.processes import Processes
from etcsched.core.agent.standing import Standing
from etcsched.core.clock import Instant
from etcsched.core.records import Live
from etcsched.core.states import Stage

_AFTER_GRACE_S = 5.0


class _Way(enum.Enum):
    STOP = "stop"
    DISMISSAL = "dismissal"
    """Its work is over: what is to be done before it goes is done, until the leader lets it go."""
    RESTART = "restart"
    FAREWELL = "farewell"
    """All is settled; the presence is being deleted."""
    OVER = "over"


class Leaving:
    """``has_killed``: what runs was told to end for this; what is found later is, too."""

    def __init__(
        self,
        standing: Standing,
        attempts: Attempts,
        processes: Processes,
        assignments: Assignments,
        update_presence: Callable[[Instant], None],
        emit: Callable[[fx.Effect], None],
    ) -> None:
        self._standing = standing
        self._settings = standing.settings
        self._attempts = attempts
        self._processes = processes
        self._assignments = assignments
        self._update_presence = update_presence
        self._emit = emit
        self._way: _Way | None = None
        self._leave_by_s = 0.0
        self.has_killed = False
        self._is_hurried = False

    @property
    def has_begun(self) -> bool:
        return self._way is not None

    @property
    def is_farewell(self) -> bool:
        """Whether the presence is just being taken away."""
        return self._way is _Way.FAREWELL

    @property
    def is_over(self) -> bool:
        return self._way is _Way.OVER

    def stop(self, kill: bool, now: Instant) -> None:
        if self._way is _Way.FAREWELL:
            return
        if self._way not in (_Way.STOP, _Way.DISMISSAL):
            self._way = _Way.STOP
            self._standing.leaving = self._standing.stopping = True
            self._leave_by_s = now.mono_s + self._settings.stop_timeout_s
            self._update_presence(now)
        else:
            kill = True
        if kill:
            self._is_hurried = True
            self._kill_and_leave(now, grace_s=0.0)

    def _kill_and_leave(self, now: Instant, *, grace_s: float | None) -> None:
        self.has_killed = True
        self._standing.takes_shutdown_jobs = False  # Nor again what has just been killed.
        grace_at_most_s = self._processes.longest_grace_s() if grace_s is None else grace_s
        self._leave_by_s = now.mono_s + grace_at_most_s + _AFTER_GRACE_S
        self._processes.stop_all("the agent was stopped", now, grace_s=grace_s)

    def restart(self, now: Instant) -> None:
        if self._way is None:
            self._way = _Way.RESTART
            self._standing.leaving = True
            self._leave_by_s = now.mono_s + self._settings.restart_within_s

    def go_on(self, now: Instant) -> None:
        """Whatever has happened: whether it may leave now."""
        way = self._way
        if way is None:
            return
        late = now.mono_s >= self._leave_by_s
        is_idle = not (self._attempts.occupying or self._attempts.is_unsettled)
        if way is _Way.RESTART:
            if late or not self._attempts.is_unsettled:
                self._way = _Way.OVER
                self._emit(fx.Reexec())
        elif way is _Way.STOP and is_idle and not (self._is_hurried or self._is_dismissed):
            self._ask_for_dismissal(now)
        elif way in (_Way.STOP, _Way.DISMISSAL):
            # In a session of its own, one that waits would begin to go anew.
            is_alone = way is _Way.DISMISSAL and self._standing.session is None
            if late and self._attempts.occupying and not self.has_killed:
                self._kill_and_leave(now, grace_s=None)
            elif late or is_alone or (is_idle and (self.has_killed or self._is_dismissed)):
                self._say_farewell()

    @property
    def _is_dismissed(self) -> bool:
        return self._standing.stage is Stage.DISMISSED

    def _ask_for_dismissal(self, now: Instant) -> None:
        """Its presence says that it wants to go, and its reports that it has nothing to do any
        more, also where that had to be killed. Without a session nobody can answer; with one, the
        presence is on its way, and a leader may have seen it already."""
        if self._standing.joined is None:
            if self._standing.session is None or now.mono_s >= self._leave_by_s:
                self._say_farewell()
            return
        self._way = _Way.DISMISSAL
        self.has_killed = False
        self._standing.takes_shutdown_jobs = True
        self._leave_by_s = now.mono_s + self._settings.leader_wait_s
        self._heed(now)
        self._assignments.fill(now)

    def told(self, live: Live | None, now: Instant) -> None:
        before = self._standing.stage
        self._standing.is_told(live)
        if self._standing.stage is not before:
            self._heed(now)

    def _heed(self, now: Instant) -> None:
        """Each stage on the way out has its own time."""
        is_waiting = self._way is _Way.DISMISSAL and not self.has_killed
        if is_waiting and self._standing.stage in (Stage.LEAVING, Stage.LAST):
            self._leave_by_s = now.mono_s + self._settings.shutdown_timeout_s

    def _say_farewell(self) -> None:
        """What is unsettled even now is in the supervisor's journal, and in etcd as a claim: the
        next start of this agent reports it."""
        self._standing.takes_shutdown_jobs = False
        if self._standing.joined is None:
            self.quit()
        else:
            self._way = _Way.FAREWELL
            self._emit(fx.LeavePresence(self._settings.agent, self._standing.joined))

    def quit(self, id_in_use: str = "") -> None:
        self._way = _Way.OVER
        self._emit(fx.Quit(id_in_use))
