"""The supervisor's parent, which outlives it to clean up.

    guardian (subreaper) -- supervisor (subreaper) -- attempts

When the supervisor dies, for whatever reason, the kernel makes everything below it children of
the nearest subreaper above: of the guardian, which kills them until it has no child left. That
needs no privilege; only processes of other users (set-uid programs) are out of an unprivileged
guardian's reach. Where there is a control group, it is killed first, at one blow.

The other way round the supervisor stops all attempts when the guardian dies. Only both killed at
once leave processes behind, and then the agent kills them, or the next supervisor does. With a PID
namespace (``isolate``) even that can't happen: the kernel kills the namespace with its process 1.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

from etcsched.agent.supervisor import cgroup, processes
from etcsched.agent.supervisor.deadman import OVERDUE_S, Deadman
from etcsched.agent.supervisor.kernel import boottime_s

LOOK_EVERY_MS = 250
KILL_REPEAT_S = 0.005
KILL_REPEAT_MAX_S = 1.0


def watch_over(supervisor: int, deadman: Deadman, log: Callable[[str], None]) -> None:
    """Returns once the supervisor has ended; sees to that if its deadman's word is overdue."""
    handle = os.pidfd_open(supervisor)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    overdue_s, since_s = 0.0, 0.0
    while not poll.poll(LOOK_EVERY_MS):
        deadline_s, now_s = deadman.earliest_deadline_s(), time.monotonic()
        if deadline_s > boottime_s():
            overdue_s = 0.0
        elif deadline_s != overdue_s:
            overdue_s, since_s = deadline_s, now_s
        elif now_s - since_s >= OVERDUE_S:
            log("the supervisor is stuck and an attempt's deadline has passed: killing it")
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    os.close(handle)


def clean_up(group: Path | None) -> None:
    """Returns when no descendant is left: waits, if it must, for those that can't die yet."""
    pause_s = KILL_REPEAT_S
    while True:
        if group is not None:
            cgroup.kill_all(group)
        # What can't be read at present (no descriptor is left on this host, say) is looked at anew.
        with contextlib.suppress(OSError):
            processes.kill_trees(processes.own_children())
        while _reap_one():
            pause_s = KILL_REPEAT_S
        with contextlib.suppress(OSError):
            if not processes.own_children():
                break
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, KILL_REPEAT_MAX_S)
    if group is not None:
        cgroup.remove(group)


def _reap_one() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False
