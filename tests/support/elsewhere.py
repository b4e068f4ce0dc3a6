"""``python -m tests.support.elsewhere ARGS``: ``etcsched ARGS`` with what Python has on Windows.

What is POSIX's alone is taken away before any module of ours is imported: what they do with it can
only fail then, here as there. It doesn't show what else Windows does in its own way.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import signal
import sys
import sysconfig

# Of the libraries, which know by themselves where they are.
import click  # noqa: F401
import grpc.aio  # noqa: F401
import msgspec  # noqa: F401
import rich.console
import rich.live
import rich.table  # noqa: F401
import ruamel.yaml  # noqa: F401

MODULES = ("curses", "fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty", "uvloop")
SIGNALS = frozenset({"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"})
"""What Windows has."""
OF_OS = (
    "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "fchmod", "fchown", "fork",
    "getegid", "geteuid", "getgid", "getloadavg", "getpgid", "getpgrp", "getuid", "initgroups",
    "killpg", "mkfifo", "pidfd_open", "posix_spawn", "sched_getaffinity", "set_blocking",
    "setgroups", "setsid", "statvfs", "sysconf", "tcgetpgrp", "uname",
)  # fmt: skip


def _refuse(*_: object) -> None:
    raise NotImplementedError


def leave_posix() -> None:
    sysconfig.get_config_vars()  # The standard library's own ways are taken before.
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in list(vars(signal)):
        if isinstance(getattr(signal, name), signal.Signals) and name not in SIGNALS:
            delattr(signal, name)
    for name in OF_OS:
        delattr(os, name)
    asyncio.SelectorEventLoop.add_signal_handler = _refuse  # type: ignore[assignment,method-assign]
    sys.platform = "win32"


if __name__ == "__main__":
    ours = [name for name in sys.modules if name.partition(".")[0].startswith("etcsched")]
    assert not ours, ours
    leave_posix()
    sys.argv[0] = "etcsched"
    runpy.run_module("etcsched_cli", run_name="__main__")
