"""What an agent keeps on its host's disk.

lock                         held by the running agent; its process id
session                      lease and incarnation, so that a restart goes on with them
revision                     the highest of the cluster's revisions that was seen
spool/<attempt>.json         outcomes that etcd doesn't have yet, one report each
output/<job>/<run>/<n>.log   what attempt n wrote; .results: what it handed on
supervisor/                  the supervisor's socket, journal and log
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from pathlib import Path
from typing import Annotated

import msgspec

from etcsched.core.errors import AgentIdInUse, EtcschedError, UsageError
from etcsched.files import replace_file

log = logging.getLogger(__name__)

_SOCKET_PATH_MOST_BYTES = 107  # sun_path of Linux, without its final zero


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


_Lease = Annotated[int, msgspec.Meta(gt=0, le=(1 << 63) - 1)]
"""As etcd has them; 0 would ask for a new one."""


class SavedSession(msgspec.Struct, frozen=True, kw_only=True):
    """``place`` is where it was saved (``StateDir.place``), ``agent`` whose it is, with the prefix;
    empty: by a version that didn't say. ``before`` are the incarnations of earlier sessions, the
    latest first, as many as are kept."""

    lease: _Lease
    incarnation: str
    ttl_s: int
    place: str = ""
    agent: str = ""
    before: tuple[str, ...] = ()


class StateDir:
    """Made if it isn't there; one that is there keeps its mode. Everything below is closed to
    others but the way to a job's own files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.output = path / "output"
        self.spool = path / "spool"
        self.revision = path / "revision"
        self.supervisor = path / "supervisor"
        self.socket = self.supervisor / "socket"
        self._lock_fd = -1
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_MOST_BYTES:
            raise UsageError(f"state directory {path}: its path is too long for a Unix socket")
        try:
            for directory, mode in (
                (path, 0o711),
                (self.output, 0o711),
                (self.spool, 0o700),
                (self.supervisor, 0o700),
            ):
                is_new = not directory.exists()
                directory.mkdir(parents=True, exist_ok=True)
                if is_new or directory is not path:
                    directory.chmod(mode)
            if path.stat().st_mode & 0o022:
                log.warning(
                    "state directory %s: others than its owner may write to it, and so put "
                    "another session or output there; its mode is left as it is", path,
                )  # fmt: skip
        except OSError as error:
            raise EtcschedError(
                f"state directory {path} can't be made: {error.strerror}"
            ) from error

    @property
    def place(self) -> str:
        """This very directory since the host's last boot. Whoever finds a file from another place
        can't know whether who wrote it lives: before a reboot it was this agent, but on a clone of
        its machine, or in a copy of its directory, it is another. Of one place there is one agent,
        since it holds the lock."""
        directory = self.path.stat()
        return f"{_BOOT_ID.read_text().strip()}/{directory.st_dev:x}/{directory.st_ino:x}"

    def lock(self) -> None:
        """Held until the process ends (it isn't inherited); ``AgentIdInUse`` where another agent
        of this host has it."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise AgentIdInUse(
                f"an agent with the state directory {self.path} is already running on this host"
                + (f" as process {pid}" if pid else "")
                + "; stop it, or give this one another --id or --state-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):  # A full disk: the number is only for people.
            os.write(descriptor, b"%d\n" % os.getpid())
        self._lock_fd = descriptor

    def unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def read_session(self) -> SavedSession | None:
        """None where there is none, or none that can be read: then a new one is opened."""
        path = self.path / "session"
        try:
            return msgspec.json.decode(path.read_bytes(), type=SavedSession)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s can't be read, a new session is opened: %s", path, error)
            return None

    def write_session(self, session: SavedSession) -> None:
        replace_file(self.path / "session", msgspec.json.encode(session))

    def forget_session(self) -> None:
        with contextlib.suppress(OSError):
            (self.path / "session").unlink()
