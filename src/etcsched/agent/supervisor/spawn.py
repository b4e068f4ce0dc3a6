"""Starting one process: in a session of its own, as another user where asked, and with one clear
line where it can't be started.

posix_spawn (vfork underneath) where the user stays the same: its cost doesn't grow with the
supervisor's memory. Another user needs calls between fork and exec that posix_spawn hasn't;
subprocess does them in C, for about twice the time.
"""

from __future__ import annotations

import errno
import os
import pwd
import signal
import stat
import subprocess

from etcsched.agent.supervisor.messages import Start

ATTEMPT_MARKER = "ETCSCHED_ATTEMPT_ID"
SUPERVISOR_MARKER = "ETCSCHED_SUPERVISOR"
"""Added to every attempt's environment, inherited by its descendants, and readable in
/proc/PID/environ: how processes that lost every other tie are found again."""

_PATH_WHERE_NONE_IS_GIVEN = "/usr/local/bin:/usr/bin:/bin"


class CannotStart(Exception):
    """No process was started; the text is for people."""


class _Account:
    def __init__(self, name: str) -> None:
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):
            raise CannotStart(f"no such user on this host: {name!r}") from None
        self.name = name
        self.uid = entry.pw_uid
        self.gid = entry.pw_gid
        self.home = entry.pw_dir or "/"
        self.shell = entry.pw_shell or "/bin/sh"
        self.groups = os.getgrouplist(name, entry.pw_gid)


class Spawner:
    def __init__(self, supervisor_incarnation: str) -> None:
        self._incarnation = supervisor_incarnation
        self._null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def spawn(self, start: Start, output_fd: int) -> int:
        """Returns the pid of a process that has replaced itself by the command: one that can't
        even be executed is ``CannotStart`` here, never an exit code."""
        if not start.argv or not start.argv[0]:
            raise CannotStart("the command is empty")
        environment = dict(start.env)
        environment[ATTEMPT_MARKER] = start.attempt_id
        environment[SUPERVISOR_MARKER] = self._incarnation
        account = None
        if start.user is not None:
            account = self._account(start.user, environment)
        try:
            os.chdir(start.cwd)
        except (OSError, ValueError) as error:
            raise CannotStart(_cwd_failure(start.cwd, error)) from None
        try:
            path = _executable(start.argv[0], environment)
            if account is None:
                return self._spawn_as_self(path, start.argv, environment, output_fd)
            if start.results_path is not None:
                _make_results_file(start.results_path, account)
            return self._spawn_as(account, path, start.argv, environment, output_fd)
        finally:
            os.chdir("/")

    def _account(self, name: str, environment: dict[str, str]) -> _Account | None:
        account = _Account(name)
        if os.geteuid() != 0:
            if account.uid != os.geteuid():
                raise CannotStart(
                    f"only an agent that runs as root can start commands as user {name}"
                )
            account_needed = None
        else:
            account_needed = account
        environment.setdefault("HOME", account.home)
        environment.setdefault("USER", account.name)
        environment.setdefault("LOGNAME", account.name)
        environment.setdefault("SHELL", account.shell)
        return account_needed

    def _spawn_as_self(
        self, path: str, argv: tuple[str, ...], environment: dict[str, str], output_fd: int
    ) -> int:
        try:
            return os.posix_spawn(
                path,
                argv,
                environment,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, self._null_fd, 0),
                    (os.POSIX_SPAWN_DUP2, output_fd, 1),
                    (os.POSIX_SPAWN_DUP2, output_fd, 2),
                ),
                setsid=True,
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except (OSError, ValueError) as error:
            raise CannotStart(_exec_failure(path, error)) from None

    def _spawn_as(
        self,
        account: _Account,
        path: str,
        argv: tuple[str, ...],
        environment: dict[str, str],
        output_fd: int,
    ) -> int:
        try:
            process = subprocess.Popen(
                argv,
                executable=path,
                env=environment,
                stdin=self._null_fd,
                stdout=output_fd,
                stderr=output_fd,
                start_new_session=True,
                user=account.uid,
                group=account.gid,
                extra_groups=account.groups,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise CannotStart(_exec_failure(path, error)) from None
        process.returncode = 0  # Waited for by the supervisor's own loop, not by this object.
        return process.pid


def _executable(command: str, environment: dict[str, str]) -> str:
    """First match along the PATH of the job, not of the supervisor."""
    if "/" in command:
        return command
    unusable = None
    for directory in environment.get("PATH", _PATH_WHERE_NONE_IS_GIVEN).split(":"):
        path = os.path.join(directory or ".", command)
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(mode):
            if mode & 0o111:
                return path
            unusable = path
    if unusable is not None:
        raise CannotStart(f"permission denied: {unusable} is not executable")
    searched = environment.get("PATH", _PATH_WHERE_NONE_IS_GIVEN)
    raise CannotStart(f"command not found: {command} (PATH is {searched})")


def _cwd_failure(cwd: str, error: OSError | ValueError) -> str:
    match getattr(error, "errno", None):
        case errno.ENOENT:
            return f"working directory doesn't exist: {cwd}"
        case errno.ENOTDIR:
            return f"working directory is not a directory: {cwd}"
        case errno.EACCES:
            return f"permission denied: working directory {cwd}"
        case _:
            return f"working directory {cwd!r} can't be used: {_words(error)}"


def _exec_failure(path: str, error: Exception) -> str:
    match getattr(error, "errno", None):
        case errno.ENOENT if os.path.exists(path):
            return f"the interpreter that {path} asks for in its first line doesn't exist"
        case errno.ENOENT | errno.ENOTDIR:
            return f"command not found: {path}"
        case errno.EACCES | errno.EPERM:
            return f"permission denied: {path}"
        case errno.ENOEXEC:
            return f"not a program: {path} (a script needs a first line like #!/bin/sh)"
        case errno.E2BIG:
            return f"arguments and environment are too long for the system: {path}"
        case errno.EAGAIN:
            return f"the host's limit of processes is reached: {path}"
        case errno.ENOMEM:
            return f"out of memory: {path}"
        case _:
            return f"{path} can't be started: {_words(error)}"


def _words(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.replace("\n", " ")


def _make_results_file(path: str, account: _Account) -> None:
    """An empty file that only the job's user may write, whoever owns the directory."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(path, flags, 0o600)
    except (OSError, ValueError) as error:
        raise CannotStart(f"results file {path} can't be made: {_words(error)}") from None
    try:
        os.fchown(handle, account.uid, account.gid)
    finally:
        os.close(handle)
