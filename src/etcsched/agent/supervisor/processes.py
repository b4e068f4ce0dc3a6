"""The kernel's view of processes: who descends from whom, who carries which marker, and how to
signal exactly those.

Nothing here relies on a process's cooperation, but all of it looks at a moving picture: lists of
other processes' children can miss one that is just being reparented. What is certain is the list
of one's *own* children, which lose no member but by one's own wait. So "none is left" is always
decided on that list, and everything else is repeated until it holds.

What can't be read for another reason than that the process is gone, or isn't ours to look at, isn't
known: that is an ``OSError`` (no descriptor is left, say), never an absence.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from typing import NamedTuple

FREEZE_ROUNDS_MAX = 8
PF_KTHREAD = 0x00200000
"""The kernel's mark of its own threads (include/linux/sched.h)."""
EXEC_WAIT_S = 0.5
EMPTY_LOOKS = 8
_NOT_TO_BE_SEEN = (FileNotFoundError, ProcessLookupError, PermissionError)
"""Permission is lacking for good: of other users' processes, with /proc's hidepid even for stat."""


class Stat(NamedTuple):
    state: str
    parent: int
    session: int
    flags: int


def read_stat(pid: int) -> Stat | None:
    """None: there is no such process (any more)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(1024)
    except _NOT_TO_BE_SEEN:
        return None
    # The command's name stands in parentheses and may hold anything, parentheses included.
    fields = text[text.rfind(b")") + 2 :].split(None, 7)
    if len(fields) < 7:
        return None
    return Stat(fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[6]))


def own_children() -> list[int]:
    """Children of this single-threaded process, zombies included; complete."""
    return _children_of_thread(os.getpid(), threading.get_native_id())


def children_of(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except _NOT_TO_BE_SEEN:
        return []
    return [child for tid in threads for child in _children_of_thread(pid, int(tid))]


def _children_of_thread(pid: int, tid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{tid}/children", "rb", buffering=0) as file:
            text = b""
            while chunk := file.read(65536):
                text += chunk
    except _NOT_TO_BE_SEEN:
        if not _KERNEL_LISTS_CHILDREN and tid == pid:
            return _children_by_scan(pid)
        return []
    return [int(word) for word in text.split()]


def _children_by_scan(pid: int) -> list[int]:
    found = []
    for other in all_processes():
        stat = read_stat(other)
        if stat is not None and stat.parent == pid:
            found.append(other)
    return found


def all_processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


_KERNEL_LISTS_CHILDREN = os.path.exists(
    f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children"
)
"""CONFIG_PROC_CHILDREN: absent on a few trimmed kernels, which pay with a scan of /proc."""


def trees_of(roots: list[int]) -> dict[int, int]:
    """The roots and all their descendants, each with its parent as seen; parents come first."""
    seen: dict[int, int] = {}
    for root in roots:
        stat = read_stat(root)
        if stat is not None:
            seen[root] = stat.parent
    queue = list(seen)
    for pid in queue:
        for child in children_of(pid):
            if child not in seen:
                seen[child] = pid
                queue.append(child)
    return seen


def environment_value(pid: int, name: bytes) -> bytes | None:
    """Value of a variable in the environment that the process was started with."""
    prefix = name + b"="
    for entry in _environment(pid).split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :]
    return None


def _environment(pid: int) -> bytes:
    """In the middle of an exec, for microseconds, a process shows neither environment nor
    arguments. So only what is empty again and again counts as empty."""
    give_up_at_s = time.monotonic() + EXEC_WAIT_S
    empty_looks = 0
    while empty_looks < EMPTY_LOOKS and time.monotonic() < give_up_at_s:
        text = _read_all(f"/proc/{pid}/environ")
        if text != b"":
            return text or b""
        if _read_all(f"/proc/{pid}/cmdline") != b"":
            empty_looks += 1
        elif _never_shows_one(pid):
            break
        os.sched_yield()
    return b""


def _never_shows_one(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is None or stat.state == "Z" or bool(stat.flags & PF_KTHREAD)


def _read_all(path: str) -> bytes | None:
    """None: the process is gone, or not ours to look at."""
    try:
        with open(path, "rb", buffering=0) as file:
            text = b""
            while chunk := file.read(262144):
                text += chunk
    except _NOT_TO_BE_SEEN:
        return None
    return text


def signal_processes(targets: dict[int, int], signal_number: int) -> int:
    """Signal each process that still has the parent it was seen with, or was reparented to us.

    The handle is opened before that check, so that a pid given to someone else in between is
    never hit. Returns how many were signalled.
    """
    count = 0
    me = os.getpid()
    for pid, parent in targets.items():
        try:
            handle = os.pidfd_open(pid)
        except OSError as error:
            # EINVAL: waited for, and still the number of a session that others are in.
            if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EINVAL):
                raise
            continue
        try:
            stat = read_stat(pid)
            if stat is not None and stat.state != "Z" and stat.parent in (parent, me):
                signal.pidfd_send_signal(handle, signal_number)
                count += 1
        except (ProcessLookupError, PermissionError):
            # It ended in between, or belongs to another user (set-uid) and we aren't root.
            continue
        finally:
            os.close(handle)
    return count


def kill_trees(roots: list[int]) -> int:
    """SIGKILL the roots and their descendants. Each is stopped first, until a walk finds nothing
    new, so that none forks away while the others are killed; and children are killed before their
    parents: one whose parent was dead already would have another than it was seen with, and would
    stay stopped."""
    stopped: dict[int, int] = {}
    for _ in range(FREEZE_ROUNDS_MAX):
        new = {pid: parent for pid, parent in trees_of(roots).items() if pid not in stopped}
        if not new:
            break
        signal_processes(new, signal.SIGSTOP)
        stopped |= new
    return signal_processes(dict(reversed(stopped.items())), signal.SIGKILL)


def marked_processes(name: bytes, value: bytes) -> list[int]:
    """Processes anywhere on this host that were started with ``name=value``, zombies left out.

    Only those whose environment this user may read: all for root, its own for anyone else.
    """
    found = []
    for pid in all_processes():
        if environment_value(pid, name) == value:
            stat = read_stat(pid)
            if stat is not None and stat.state != "Z":
                found.append(pid)
    return found
