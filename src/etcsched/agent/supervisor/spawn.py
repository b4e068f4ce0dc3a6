"""Starting one process: in a session of its own, as another user where asked, and with one clear
line where it can't be started.

Whatever may never return (a working directory, a program or an entry of its PATH on a file system
whose server is gone, a lookup of a user) happens in the new process, after a plain fork (ADR 32).
Where nothing mounted here can hang, it is done for less, and waited for: by posix_spawn (vfork
underneath: its cost doesn't grow with the supervisor's memory), or, for another user, by
subprocess, which makes the calls between fork and exec that posix_spawn hasn't, in C.
"""

from __future__ import annotations

import enum
import errno
import os
import pwd
import signal
import stat
import subprocess
from typing import Final, NamedTuple, NoReturn

from etcsched.agent.supervisor import descriptors, kernel
from etcsched.agent.supervisor.kernel import boottime_s
from etcsched.agent.supervisor.messages import Start
from etcsched.agent.supervisor.mounts import Mounts
from etcsched.core.agent.users import ROOT

ATTEMPT_MARKER = "ETCSCHED_ATTEMPT_ID"
SUPERVISOR_MARKER = "ETCSCHED_SUPERVISOR"
"""Added to every attempt's environment, inherited by its descendants, and readable in
/proc/PID/environ: how processes that lost every other tie are found again."""

_REPORT_FD = 3
"""In the new process: 0 to 2 are the command's, above is nothing."""
_REPORT_MAX_BYTES = 4096
"""Far less than a pipe holds: writing it never waits."""
_EVERY_SIGNAL = signal.valid_signals()
_HANDLED_OR_IGNORED = (
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)
"""By the supervisor; the command gets the default."""
_PATH_WHERE_NONE_IS_GIVEN = "/usr/local/bin:/usr/bin:/bin"


class Fault(enum.Enum):
    """Whose it is that nothing started. The value stands before a failure that is told through the
    pipe."""

    COMMAND = ""
    HOST = "\x01"
    USER = "\x02"


class CannotStart(Exception):
    """No process was started; the text is for people."""

    fault = Fault.COMMAND


class NotHere(CannotStart):
    """Not the command's fault: elsewhere, or later, it would start."""

    fault = Fault.HOST


class NotAsThatUser(CannotStart):
    """Nothing runs here as the user that the job names: elsewhere it may."""

    fault = Fault.USER


_TOLD: Final = frozenset(fault.value for fault in Fault if fault.value)


class _Account:
    def __init__(self, name: str) -> None:
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):
            raise NotAsThatUser(
                f"no such user on this host: {name!r}; make that user here, or keep its jobs to "
                "hosts that have it, by hosts or require"
            ) from None
        if entry.pw_uid == 0 and name != ROOT:
            raise NotAsThatUser(
                f"{name!r} is another name of root on this host (uid 0); name root itself, which "
                "an agent runs nothing as unless --allow-user root is given"
            )
        self.name = name
        self.uid = entry.pw_uid
        self.gid = entry.pw_gid
        self.home = entry.pw_dir or "/"
        self.shell = entry.pw_shell or "/bin/sh"
        self.groups = os.getgrouplist(name, entry.pw_gid)


class Running(NamedTuple):
    """A process that has become the command."""

    pid: int


class Beginning:
    """A process that was forked and is to become the command."""

    def __init__(self, start: Start, pid: int, report_fd: int, within_s: float) -> None:
        self.pid = pid
        self.report_fd = report_fd
        """Readable once the process has become the command, has failed to, or is dead."""
        self.give_up_at_s = boottime_s() + within_s
        self.failure: str | None = None
        """Why it didn't become the command, in one line for people."""
        self.fault = Fault.COMMAND
        """... and whose fault that is."""
        self._start = start
        self._within_s = within_s

    def look(self) -> bool:
        """True: the process isn't on its way any more; without a failure it is the command, or was
        killed before that was seen."""
        try:
            said = os.read(self.report_fd, _REPORT_MAX_BYTES)
        except BlockingIOError:
            return False
        if said:
            failure = said.decode("utf-8", "replace")
            if failure[0] in _TOLD:
                self.fault, failure = Fault(failure[0]), failure[1:]
            self.failure = failure
        return True

    def what_hangs(self) -> str:
        """Asks /proc only, which answers whatever else doesn't."""
        start = self._start
        try:
            entered = os.readlink(f"/proc/{self.pid}/cwd") != "/" or start.cwd == "/"
        except OSError:
            entered = False
        waited = f"didn't answer within {self._within_s:g} s"
        if not entered:
            lookup = "" if start.user is None else f", or the lookup of user {start.user},"
            return f"working directory {start.cwd}{lookup} {waited}"
        command = start.argv[0]
        path = "" if "/" in command else " or a directory of its PATH"
        return f"the file system of the program {command}{path} {waited}"

    def close(self) -> None:
        os.close(self.report_fd)


class Spawner:
    def __init__(
        self, supervisor_incarnation: str, start_within_s: float, limits: descriptors.Limits
    ) -> None:
        """``limits`` of descriptors are what commands get."""
        self._limits = limits
        self._incarnation = supervisor_incarnation
        self._start_within_s = start_within_s
        self._mounts = Mounts()
        self._null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def spawn(self, start: Start, output_fd: int) -> Running | Beginning:
        """Waits for no file system that may hang. A command that can't even be executed is a
        ``CannotStart``, or the failure of what has begun, never an exit code."""
        if not start.argv or not start.argv[0]:
            raise CannotStart("the command is empty")
        if self._mounts.may_hang():
            return self._begin(start, output_fd)
        return Running(self._spawn_and_wait(start, output_fd))

    def _spawn_and_wait(self, start: Start, output_fd: int) -> int:
        environment = _environment(start, self._incarnation)
        account = _account_needed(start.user, environment)
        _enter(start.cwd)
        try:
            path = _executable(start.argv[0], environment)
            if account is None:
                return self._spawn_as_self(path, start.argv, environment, output_fd)
            if start.results_path is not None:
                _make_results_file(start.results_path, account)
            return self._spawn_as(account, path, start.argv, environment, output_fd)
        finally:
            os.chdir("/")

    def _spawn_as_self(
        self, path: str, argv: tuple[str, ...], environment: dict[str, str], output_fd: int
    ) -> int:
        own = descriptors.limits()
        try:
            # Inherited, and posix_spawn can't set it. It opens nothing here.
            descriptors.set_limits(self._limits)
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
            raise _cannot_exec(path, error) from None
        finally:
            descriptors.set_limits(own)

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
                preexec_fn=self._set_limits,  # noqa: PLW1509 - there is one thread here
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise _cannot_exec(path, error) from None
        process.returncode = 0  # Waited for by the supervisor's own loop, not by this object.
        return process.pid

    def _set_limits(self) -> None:
        descriptors.set_limits(self._limits)

    def _begin(self, start: Start, output_fd: int) -> Beginning:
        supervisor = os.getpid()
        report_fd, told_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # One that came before the new process gave up our handlers would be told to us.
            signal.pthread_sigmask(signal.SIG_SETMASK, _EVERY_SIGNAL)
            try:
                pid = os.fork()
                if pid == 0:
                    self._become_command(start, supervisor, output_fd, told_fd)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
        except OSError as error:
            os.close(report_fd)
            raise _cannot_exec(start.argv[0], error) from None
        finally:
            os.close(told_fd)
        return Beginning(start, pid, report_fd, self._start_within_s)

    def _become_command(
        self, start: Start, supervisor: int, output_fd: int, told_fd: int
    ) -> NoReturn:
        """The new process, from its first step on."""
        try:
            self._leave_supervisor(output_fd, told_fd)
            told_fd = _REPORT_FD
            _execute(start, self._incarnation, supervisor)
        except CannotStart as error:
            failure = f"{error.fault.value}{error}"
        except OSError as error:
            failure = f"{Fault.HOST.value}{start.argv[0]} can't be started: {error!r}"
        except BaseException as error:  # Else two supervisors would go on from here.
            failure = f"{start.argv[0]} can't be started: {error!r}"
        try:
            os.write(told_fd, failure.encode("utf-8", "replace")[:_REPORT_MAX_BYTES])
        finally:
            os._exit(127)

    def _leave_supervisor(self, output_fd: int, told_fd: int) -> None:
        """Nothing of the supervisor's is held on to, however long this process may hang: no lock,
        no connection of the agent."""
        for number in _HANDLED_OR_IGNORED:
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        os.dup2(self._null_fd, 0)
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        if told_fd != _REPORT_FD:
            os.dup2(told_fd, _REPORT_FD, inheritable=False)
        os.closerange(_REPORT_FD + 1, descriptors.limits()[0])
        descriptors.set_limits(self._limits)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _execute(start: Start, incarnation: str, supervisor: int) -> NoReturn:
    # While it hangs here, it doesn't carry our marker yet by which a sweep would find it.
    _die_with(supervisor)
    environment = _environment(start, incarnation)
    account = _account_needed(start.user, environment)
    _enter(start.cwd)
    path = _executable(start.argv[0], environment)
    if account is not None:
        if start.results_path is not None:
            _make_results_file(start.results_path, account)
        _change_user(account)
        _die_with(supervisor)  # The kernel forgot it with the change.
    try:
        os.execve(path, start.argv, environment)
    except (OSError, ValueError) as error:
        raise _cannot_exec(path, error) from None


def _environment(start: Start, incarnation: str) -> dict[str, str]:
    markers = {ATTEMPT_MARKER: start.attempt_id, SUPERVISOR_MARKER: incarnation}
    return start.env | markers


def _enter(cwd: str) -> None:
    try:
        os.chdir(cwd)
    except (OSError, ValueError) as error:
        raise CannotStart(_cwd_failure(cwd, error)) from None


def _die_with(supervisor: int) -> None:
    kernel.die_with_parent()
    if os.getppid() != supervisor:
        raise NotHere("its supervisor died")


def _account_needed(name: str | None, environment: dict[str, str]) -> _Account | None:
    """None: nobody else than this process's user."""
    if name is None:
        return None
    account = _Account(name)
    environment.setdefault("HOME", account.home)
    environment.setdefault("USER", account.name)
    environment.setdefault("LOGNAME", account.name)
    environment.setdefault("SHELL", account.shell)
    if os.geteuid() == 0:
        return account
    if account.uid != os.geteuid():
        raise NotAsThatUser(f"only an agent that runs as root can start commands as user {name}")
    return None


def _change_user(account: _Account) -> None:
    try:
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        raise NotAsThatUser(f"can't become user {account.name}: {_words(error)}") from None


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


_OF_THE_HOST = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""What it lacks for now."""


def _cannot_exec(path: str, error: Exception) -> CannotStart:
    is_the_hosts = getattr(error, "errno", None) in _OF_THE_HOST
    return (NotHere if is_the_hosts else CannotStart)(_exec_failure(path, error))


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
    except FileExistsError as error:
        raise CannotStart(f"results file {path} can't be made: {_words(error)}") from None
    except (OSError, ValueError):
        return  # The disk is full, say: the command goes on, and hands nothing on.
    try:
        os.fchown(handle, account.uid, account.gid)
    finally:
        os.close(handle)
