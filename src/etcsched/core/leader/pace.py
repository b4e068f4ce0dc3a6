"""How fast runs start that an outage or a loss has held up: ``recovery_rate`` a second.

A thousand ticks that come due again at once, or the runs of eighty agents that vanished together,
would be a storm for those that are left, and for what the jobs work with. What is due now isn't
held up by it.

Which runs are paced follows from their records. When the next may start, the leader remembers by
itself: whoever takes over begins with a full second's worth, and no later than that.
"""

from __future__ import annotations

import heapq

from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import Matter
from etcsched.core.records import Run
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import ms_of
from etcsched.core.view import RunKey

LATE_MS = 2000
"""A tick that became a run so much later wasn't decided in its time: that was an outage."""

MATTER: Matter = ("pace",)

_Place = tuple[int, str, RunKey]


def is_paced(run: Run) -> bool:
    """Of a run that waits: whether an outage or a loss has held it up."""
    if run.state is RunState.RETRYING:
        return False
    last = run.attempts[-1] if run.attempts else None
    if last is not None and last.number == run.attempt and last.outcome is Outcome.DECLINED:
        return False  # It has had its turn, and the agent that got it declined.
    if run.attempt > 0:
        return True  # It was moved away from an agent.
    if run.origin is Origin.RECOVERY:
        return True
    return run.is_tick and ms_of(run.created_at) - ms_of(run.starts_at) > LATE_MS


class Pace:
    """A second's worth of starts may come at once, at least one."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._spent = 0.0
        """Starts whose time isn't over yet..."""
        self._spent_at_s = 0.0
        """... as of then."""
        self._held: list[_Place] = []
        self._members: set[RunKey] = set()
        self._is_told = False
        self._kept: set[RunKey] = set()
        self._wakes_s: float | None = None
        """When ``due`` is asked next: one timer is enough for all that wait."""
        self._at_once = 1
        """How many get a turn though none of those before may have used theirs: what its job's
        pause or a conflict group keeps, say, takes no time from the others."""

    @property
    def rate(self) -> float:
        return self._context.view.settings.recovery_rate

    @property
    def reason(self) -> str:
        return f"starts after an outage or a loss are paced ({self.rate:g}/s)"

    @property
    def is_free(self) -> bool:
        return self._context.mono_s >= self._free_at_s()

    def allow(self, key: RunKey | None = None) -> bool:
        """Whether one may start now; then it is counted."""
        now_s = self._context.mono_s
        ahead_s = max(1.0, 1 / self.rate) if key in self._kept else 0.0
        if now_s < self._free_at_s() - ahead_s:
            return False  # (Nor do kept turns take more than a second's worth, or one, beyond it.)
        if key is not None:
            self._kept.discard(key)
        self._spent = max(0.0, self._spent - (now_s - self._spent_at_s) * self.rate) + 1
        self._spent_at_s = now_s
        self._at_once = 1
        return True

    def _free_at_s(self) -> float:
        """When the time of all of them but a second's worth, less one, is over."""
        return self._spent_at_s + (self._spent - max(self.rate, 1.0) + 1) / self.rate

    def hold(self, run: Run) -> None:
        """It waits for its turn, by priority and due time."""
        context, key = self._context, (run.job, run.id)
        if key not in self._members:
            self._members.add(key)
            heapq.heappush(self._held, (-run.priority, run.starts_at, key))
        self._wake_at(max(self._free_at_s(), context.mono_s))
        if not self._is_told:
            self._is_told = True
            context.say(self.reason, warn=True)

    def keep_turn(self, key: RunKey) -> None:
        """Its turn has come, and its conflict groups keep it: once they are free it goes, before
        others of the groups that aren't paced, whoever uses up the pace then."""
        if self.is_free:
            self._kept.add(key)

    def forget(self, key: RunKey) -> None:
        self._kept.discard(key)

    def due(self) -> list[RunKey]:
        """Those whose turn it is; whoever can't start then comes back by ``hold``."""
        context = self._context
        if self._wakes_s is None or context.mono_s < self._wakes_s:
            return []  # A timer of before.
        self._wakes_s = None
        if not self._held:
            self._is_told = False
            return []
        if not self.is_free:
            self._wake_at(self._free_at_s())
            return []
        due: list[RunKey] = []
        count = 1 + int((context.mono_s - self._free_at_s()) * self.rate + 1e-6)
        count = max(count, self._at_once)
        self._at_once = 2 * count
        while self._held and len(due) < count:
            key = heapq.heappop(self._held)[2]
            self._members.discard(key)
            if key in context.view.runs:
                due.append(key)
        self._wake_at(context.mono_s)  # Whether they have used it.
        return due

    def _wake_at(self, mono_s: float) -> None:
        if self._wakes_s is None or mono_s < self._wakes_s:
            self._wakes_s = mono_s
            self._context.wake_at(mono_s, MATTER)
