"""A word in shared memory by which the guardian knows that the supervisor itself is stuck.

It holds the earliest deadline of all attempts. A supervisor that works either has it moved on or
has killed by then. One that was stopped, or hangs in a write to a dead disk, has not: then the
guardian kills it, and all it started with it. It may lag behind (too early, never too late), but
not when it matters: within ``FRESH_S`` before it is due a working supervisor brings it up to date
at every turn.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterable

from etcsched.agent.supervisor.attempt import Attempt, Stage
from etcsched.agent.supervisor.kernel import boottime_s

FRESH_S = 2.0
OVERDUE_S = 0.5
"""How long the guardian sees the same deadline overdue before it kills the supervisor. Less than
the least margin (1.5 s) that lies between an attempt's deadline and its lease's end."""

_FORMAT = struct.Struct("d")


class Deadman:
    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._published_s = 0.0
        self._publish(math.inf)

    def earliest_deadline_s(self) -> float:
        """For the guardian."""
        value: float = _FORMAT.unpack_from(self._memory)[0]
        return value

    def admit(self, deadline_s: float) -> None:
        """Before the process is started: this one might freeze right after."""
        if deadline_s < self._published_s:
            self._publish(deadline_s)

    def beat(self, attempts: Iterable[Attempt]) -> None:
        if self._published_s - boottime_s() < FRESH_S:
            self.recompute(attempts)

    def recompute(self, attempts: Iterable[Attempt]) -> None:
        """Attempts that are being killed already don't count: what can't die isn't our fault."""
        self._publish(
            min((a.deadline_s for a in attempts if a.stage is not Stage.KILLING), default=math.inf)
        )

    def _publish(self, deadline_s: float) -> None:
        if deadline_s != self._published_s:
            self._published_s = deadline_s
            _FORMAT.pack_into(self._memory, 0, deadline_s)
