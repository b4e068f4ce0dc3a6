"""Start the pair of guardian and supervisor for one state directory; see the package's page.

Returns 0 once the supervisor listens, 3 if another one holds the directory, 1 with one line on
standard error if it can't be started. All imports are made before: whatever happens to the
installed package later, this process runs on.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

from etcsched.agent.supervisor import cgroup, guardian, kernel
from etcsched.agent.supervisor.deadman import Deadman
from etcsched.agent.supervisor.journal import read_past
from etcsched.agent.supervisor.launch import (
    DIED_CLEANUP_MAX_S,
    EXIT_TAKEN,
    LOCK_FILE,
    LOG_FILE,
    START_WITHIN_S,
)
from etcsched.agent.supervisor.server import Settings, Supervisor
from etcsched.agent.supervisor.sweep import sweep

LOG_MAX_BYTES = 1024 * 1024
"""A longer log is cut at the next start."""


def log(line: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    # A full disk must not end the supervisor.
    with contextlib.suppress(OSError):
        os.write(2, f"{stamp} supervisor[{os.getpid()}]: {line}\n".encode())


def main() -> int:
    parser = argparse.ArgumentParser(prog="etcsched.agent.supervisor", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="state directory, made if absent")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--idle-exit-s", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--start-within-s", type=float, default=START_WITHIN_S, metavar="SECONDS")
    parser.add_argument("--isolate", action="store_true", help="own PID namespace (root)")
    parser.add_argument("--no-cgroup", action="store_true")
    options = parser.parse_args()
    directory: Path = options.dir.absolute()
    try:
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return EXIT_TAKEN
        listener = _listen(options.socket.absolute())
    except OSError as error:
        sys.stderr.write(f"supervisor: {error.filename or options.socket}: {error.strerror}\n")
        return 1
    ready, tell = os.pipe2(os.O_CLOEXEC)
    if os.fork() != 0:
        os.close(tell)
        answer = os.read(ready, 4096).decode()
        if answer == "ready":
            return 0
        sys.stderr.write(f"supervisor: {answer or 'died while starting'}; see {directory}\n")
        return 1
    os.close(ready)
    _detach(directory)
    _guard(options, directory, listener, tell)
    return 0


def _listen(path: Path) -> socket.socket:
    """Whoever holds the directory's lock may replace the socket."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        reason = "longer than a Unix socket's path may be" if not error.errno else error.strerror
        raise OSError(error.errno or 0, reason, str(path)) from None
    finally:
        os.umask(before)
    return listener


def _detach(directory: Path) -> None:
    os.chdir("/")
    log_fd = os.open(directory / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log_fd).st_size > LOG_MAX_BYTES:
        os.ftruncate(log_fd, 0)
    null_fd = os.open(os.devnull, os.O_RDWR)
    os.dup2(null_fd, 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(null_fd)
    os.close(log_fd)
    # Jobs inherit what is ignored or blocked: give them a clean slate, whoever started the agent.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _guard(
    options: argparse.Namespace, directory: Path, listener: socket.socket, tell: int
) -> None:
    """Runs as the guardian, from here to its end."""
    incarnation = os.urandom(8).hex()
    deadman = Deadman()
    kernel.become_subreaper()
    if options.isolate:
        try:
            kernel.unshare_pid_namespace()
        except OSError as error:
            os.write(tell, f"--isolate: {error.strerror}".encode())
            return
    alive, guardian_end = os.pipe2(os.O_CLOEXEC)
    supervisor = os.fork()
    if supervisor == 0:
        os.close(guardian_end)
        os._exit(_supervise(options, directory, listener, incarnation, deadman, tell, alive))
    os.close(tell)
    os.close(alive)
    listener.close()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # The supervisor gets these too, or ends with us: either way its end is ours.
        signal.signal(number, signal.SIG_IGN)
    guardian.watch_over(supervisor, deadman, log)
    guardian.clean_up(cgroup.find(incarnation))
    options.socket.unlink(missing_ok=True)


def _supervise(
    options: argparse.Namespace,
    directory: Path,
    listener: socket.socket,
    incarnation: str,
    deadman: Deadman,
    tell: int,
    alive: int,
) -> int:
    try:
        _supervise_or_raise(options, directory, listener, incarnation, deadman, tell, alive)
    except Exception:
        log(traceback.format_exc())
        return 1
    return 0


def _supervise_or_raise(
    options: argparse.Namespace,
    directory: Path,
    listener: socket.socket,
    incarnation: str,
    deadman: Deadman,
    tell: int,
    alive: int,
) -> None:
    kernel.become_subreaper()
    if options.isolate:
        kernel.die_with_parent()
        kernel.remount_proc()
    group = None if options.no_cgroup else cgroup.enter_new_group(cgroup.name_for(incarnation))
    past = read_past(directory)
    for opened in past.opened:
        if not sweep(opened.supervisor_incarnation, opened.cgroup, DIED_CLEANUP_MAX_S):
            log(f"processes of supervisor {opened.supervisor_incarnation} can't be killed")
    settings = Settings(
        directory=directory,
        incarnation=incarnation,
        cgroup=group,
        idle_exit_s=options.idle_exit_s,
        start_within_s=options.start_within_s,
    )
    # Here, and not where it was bound, so that the peer's credentials (SO_PEERCRED) are ours.
    listener.listen(16)
    server = Supervisor(settings, listener, past, deadman, log)
    log(f"supervisor {incarnation} listens, control group {group}")
    os.write(tell, b"ready")
    os.close(tell)
    server.run(alive)


if __name__ == "__main__":
    sys.exit(main())
