"""When an attempt is to be signalled: a pure state machine over (requests, time).

    RUNNING --timeout, kill, deadline near, main process ended--> TERMINATING (SIGTERM sent)
    TERMINATING --grace over or deadline reached--> KILLING (SIGKILL, repeated until none is left)

The attempt is over when its main process has ended *and* no process of its tree is left. A main
process that ends by itself and leaves others behind ends the attempt for them too: they get
SIGTERM and the kill grace, like a systemd service's.

**Fencing.** The agent moves the deadline on with every keepalive. At each move (and at the start)
the supervisor fixes SIGTERM at ``deadline - min(kill_grace, (deadline - now) / 4)``, with ``now``
the time of the move: an agent that falls silent leaves the processes three quarters of its lease to
go on, in which an outage of etcd can be proven, and at most the last one to stop (ADR 27). SIGKILL
comes at the deadline itself. Once SIGTERM was sent for the deadline's sake, moving the deadline
saves nothing any more. One that was told to stop for another reason has its whole kill grace, as
long as its deadline moves on.
"""

from __future__ import annotations

import enum
import math
import signal

from etcsched.agent.supervisor.messages import EndReason, Running, Start

KILL_REPEAT_S = 0.005
"""SIGKILL is repeated this often while processes are left: one may have forked as it was hit."""
KILL_REPEAT_MAX_S = 1.0
"""... and, backing off, this often where processes can't die (uninterruptible sleep) or aren't
ours to kill."""


FENCING_SHARE = 0.25
"""At most this much of what remains of a lease is for processes to stop in."""


class Stage(enum.Enum):
    RUNNING = "running"
    TERMINATING = "terminating"
    KILLING = "killing"


class Attempt:
    def __init__(self, start: Start, *, pid: int, started_ms: int, now_s: float) -> None:
        self.attempt_id = start.attempt_id
        self.pid = pid
        self.started_ms = started_ms
        self.disconnect_grace_s = start.disconnect_grace_s
        self.stage = Stage.RUNNING
        self.ending: EndReason | None = None
        self.kill_grace_s = max(0.0, start.kill_grace_s)
        self.timeout_at_s = math.inf if start.timeout_s is None else now_s + start.timeout_s
        self.kill_at_s = math.inf
        self.deadline_s = math.inf
        self.fence_at_s = math.inf
        self.main_status: int | None = None
        self.cpu_s = 0.0
        self.peak_memory_bytes = 0
        self.scheduled_s = math.inf
        """When the loop will look at this attempt next; its own note."""
        self.is_fenced = False
        """Its deadline came near, and it was told to stop: nothing saves it."""
        self._repeat_s = KILL_REPEAT_S
        self.move_deadline(start.deadline_mono_s, now_s)

    def move_deadline(self, deadline_s: float, now_s: float) -> None:
        """The newest word counts, also when it is an earlier one."""
        if self.is_fenced or self.stage is Stage.KILLING:
            return
        if deadline_s == self.deadline_s:
            return  # Said again, nothing is moved: SIGTERM doesn't come later either.
        self.deadline_s = deadline_s
        left_s = max(0.0, deadline_s - now_s)
        self.fence_at_s = deadline_s - min(self.kill_grace_s, left_s * FENCING_SHARE)

    def kill(self, reason: EndReason, grace_s: float, now_s: float) -> int | None:
        """Signal to send now, if any."""
        return self._terminate(reason, grace_s, now_s)

    def main_ended(self, status: int, now_s: float) -> bool:
        """``status`` as from wait(2). True: whoever is left of the tree wasn't asked to stop yet,
        and is to be."""
        self.main_status = status
        if self.ending is None:
            self.ending = EndReason.SIGNALED if _killed_by(status) else EndReason.EXITED
        if self.stage is not Stage.RUNNING:
            return False
        self.stage = Stage.TERMINATING
        self.kill_at_s = now_s + self.kill_grace_s
        return True

    def next_due_s(self) -> float:
        """When ``step`` has something to do next."""
        match self.stage:
            case Stage.RUNNING:
                return min(self.fence_at_s, self.timeout_at_s)
            case Stage.TERMINATING:
                return min(self.kill_at_s, self.deadline_s)
            case Stage.KILLING:
                return self.kill_at_s

    def step(self, now_s: float) -> int | None:
        """Signal for the whole tree that is due at ``now_s``, if any."""
        if now_s < self.next_due_s():
            return None
        match self.stage:
            case Stage.RUNNING:
                if self.timeout_at_s <= now_s and self.timeout_at_s <= self.fence_at_s:
                    return self._terminate(EndReason.TIMED_OUT, self.kill_grace_s, now_s)
                self.is_fenced = True
                return self._terminate(EndReason.FENCED, self.deadline_s - now_s, now_s)
            case Stage.TERMINATING | Stage.KILLING:
                return self._kill(now_s)

    def _terminate(self, reason: EndReason, grace_s: float, now_s: float) -> int | None:
        if self.ending is None:
            self.ending = reason
        self.kill_at_s = min(self.kill_at_s, now_s + max(0.0, grace_s))
        if min(self.kill_at_s, self.deadline_s) <= now_s:
            return self._kill(now_s)
        if self.stage is Stage.RUNNING:
            self.stage = Stage.TERMINATING
            return signal.SIGTERM
        return None

    def _kill(self, now_s: float) -> int:
        self.stage = Stage.KILLING
        self.kill_at_s = now_s + self._repeat_s
        self._repeat_s = min(self._repeat_s * 2, KILL_REPEAT_MAX_S)
        return signal.SIGKILL

    def running(self) -> Running:
        return Running(
            attempt_id=self.attempt_id,
            pid=self.pid,
            started_ms=self.started_ms,
            deadline_mono_s=self.deadline_s,
            ending=self.ending,
            disconnect_grace_s=self.disconnect_grace_s,
        )


def _killed_by(status: int) -> int:
    """Number of the signal that ended the process; 0: none, it exited."""
    return status & 0x7F


def exit_and_signal(status: int) -> tuple[int | None, int | None]:
    number = _killed_by(status)
    return (None, number) if number else (status >> 8 & 0xFF, None)
