"""A control group (version 2) around the supervisor and everything it starts.

Membership is inherited and can't be left without the right to write elsewhere in the hierarchy,
so ``cgroup.kill`` reaches every process at once, whatever it did to its session, parent and
environment. It is made where it may be: as root, or in a delegated subtree (systemd's
``Delegate=yes``). One group serves all attempts: moving each attempt into its own would cost
more than starting it does (a move waits for a grace period of the whole kernel).

It serves whoever outlives the supervisor: its guardian, the agent, the next supervisor.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path


def _own_group() -> Path | None:
    """Directory of this process's v2 group, also where v1 is mounted beside it."""
    mount = None
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            _, where, kind, _ = line.split(" ", 3)
            if kind == "cgroup2":
                mount = Path(where)
    if mount is None:
        return None
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as groups:
        for line in groups:
            if line.startswith("0::/"):
                return mount / line[4:].rstrip("\n")
    return None


def name_for(supervisor_incarnation: str) -> str:
    return f"etcsched-{supervisor_incarnation}"


def find(supervisor_incarnation: str) -> Path | None:
    """The group made below one's own for that supervisor, if there is one."""
    try:
        parent = _own_group()
    except OSError:
        return None
    if parent is None:
        return None
    group = parent / name_for(supervisor_incarnation)
    return group if group.is_dir() else None


def enter_new_group(name: str) -> Path | None:
    """Make a group below one's own and move into it. None: this process may not."""
    try:
        parent = _own_group()
        if parent is None:
            return None
        group = parent / name
        group.mkdir(exist_ok=True)
    except (OSError, ValueError):
        return None
    try:
        if not (group / "cgroup.kill").exists():  # Linux before 5.14
            raise FileNotFoundError
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        remove(group)
        return None
    return group


def kill_all(group: Path) -> bool:
    """SIGKILL every process in the group. False: there is no such group, or we may not."""
    try:
        (group / "cgroup.kill").write_text("1")
    except OSError:
        return False
    return True


def is_empty(group: Path) -> bool:
    """True also where the group is gone."""
    try:
        return not (group / "cgroup.procs").read_bytes()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return True


def remove(group: Path) -> None:
    """Fails silently while somebody is in it."""
    try:
        group.rmdir()
    except OSError:
        return
