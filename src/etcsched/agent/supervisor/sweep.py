"""Killing what a supervisor left behind that died together with its guardian.

Used by those who outlive both: the agent at once, the next supervisor at its start.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from etcsched.agent.supervisor import cgroup, processes
from etcsched.agent.supervisor.spawn import SUPERVISOR_MARKER

PAUSE_S = 0.005
PAUSE_MAX_S = 0.2


def sweep(supervisor_incarnation: str, group: str | None, within_s: float) -> bool:
    """Kill every process of that supervisor until none is left; blocks.

    With a control group that means all of them. Without one: those this user may look at, that
    carry the marker, and what descends from them. False: some still lived after ``within_s``, or
    it isn't known.
    """
    give_up_at_s = time.monotonic() + within_s
    pause_s = PAUSE_S
    while True:
        if group is not None:
            cgroup.kill_all(Path(group))
        # What can't be read at present (no descriptor is left, say) is looked at anew.
        with contextlib.suppress(OSError):
            left = processes.marked_processes(
                SUPERVISOR_MARKER.encode(), supervisor_incarnation.encode()
            )
            left = [pid for pid in left if pid != os.getpid()]
            if not left and (group is None or cgroup.is_empty(Path(group))):
                break
            processes.kill_trees(left)
        if time.monotonic() >= give_up_at_s:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, PAUSE_MAX_S)
    if group is not None:
        cgroup.remove(Path(group))
    return True
