"""System calls that Python's library doesn't offer. Linux only, as everything in this package."""

from __future__ import annotations

import ctypes
import os
import signal
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNS = 0x00020000
_CLONE_NEWPID = 0x20000000
_MS_PRIVATE = 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def boottime_s() -> float:
    """Seconds since boot, time spent suspended included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def become_subreaper() -> None:
    """From now on descendants whose parent dies become children of this process, unless a
    subreaper nearer to them lives."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent() -> None:
    """Have the kernel SIGKILL this process when its parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def unshare_pid_namespace() -> None:
    """The next child of this process is process 1 of a PID namespace of its own: when it ends,
    however it ends, the kernel kills every process in there. Needs CAP_SYS_ADMIN."""
    _check(_libc.unshare(_CLONE_NEWPID), "unshare(CLONE_NEWPID)")


def remount_proc() -> None:
    """Give process 1 of a new PID namespace, and its descendants, a /proc that shows that
    namespace. Mounts elsewhere stay shared with the host, both ways."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    _check(_libc.mount(None, b"/proc", None, _MS_PRIVATE, None), "make /proc private")
    _check(_libc.mount(b"proc", b"/proc", b"proc", 0, None), "mount /proc")
