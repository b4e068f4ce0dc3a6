"""An etcd of one's own: child processes on loopback, for ``up``, demonstrations and tests.

The children live in sessions of their own, so that Ctrl-C in a terminal reaches whoever owns them
first, and are killed by the kernel when the thread that started them ends, however it ends: start
them from the thread that lives as long as the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import fcntl
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from etcsched.core.errors import EtcschedError, UsageError
from etcsched.etcd.binaries import EtcdBinary, find_etcd, provide_etcd

__all__ = [
    "CompactionMode",
    "EmbeddedEtcd",
    "EtcdBinary",
    "EtcdMember",
    "EtcdOptions",
    "MemberPorts",
    "ServerTls",
    "find_etcd",
    "provide_etcd",
]

HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
# A cluster stopped whole can't hand over its leadership, and some versions try for 7 s.
STOP_GRACE_S = 3.0
HEALTH_TIMEOUT_S = 2.0
HEALTH_POLL_S = 0.02
LOG_TAIL_BYTES = 16_384
PORTS_FILE = "members.json"
# Below Linux's default range for outgoing connections: none of those takes a member's port
# while the member is down.
FREE_PORTS = range(20_000, 32_768)

EXEC_BOUND_TO_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class CompactionMode(enum.Enum):
    PERIODIC = "periodic"
    REVISION = "revision"


class EtcdOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``compaction_retention`` is a duration ("1m") or a number of revisions, "0" keeps history
    for ever. ``fsync`` off loses data when the machine fails; it does nothing below etcd 3.5."""

    quota_bytes: int = 2 * 1024**3
    compaction_mode: CompactionMode = CompactionMode.PERIODIC
    compaction_retention: str = "1m"
    heartbeat_ms: int = 100
    election_timeout_ms: int = 1000
    fsync: bool = True
    extra_arguments: tuple[str, ...] = ()


class ServerTls(msgspec.Struct, frozen=True, kw_only=True):
    """For clients' connections; with ``client_ca`` they must show a certificate signed by it.
    Members talk to each other in plain text, on loopback."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class MemberPorts(msgspec.Struct, frozen=True, kw_only=True):
    client: int
    peer: int


class _LogEntry(msgspec.Struct, frozen=True):
    level: str
    msg: str
    error: str = ""


class EtcdMember:
    """One etcd process, its directory ``<directory>/<name>`` and its log beside it."""

    def __init__(
        self, binary: EtcdBinary, name: str, directory: Path, arguments: Iterable[str]
    ) -> None:
        self.name = name
        self.data_dir = directory / name
        self.log_path = directory / f"{name}.log"
        self._binary = binary
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._health_port = 0

    @property
    def pid(self) -> int:
        """Of the running process; 0 without one."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def exit_code(self) -> int | None:
        """None before the first start and while it runs."""
        return self._process.poll() if self._process else None

    def spawn(self) -> None:
        """Start the process and don't wait for it. Keeps the log of the start before as
        ``.log.1``."""
        if self.pid:
            raise RuntimeError(f"etcd member {self.name} runs already")
        self._health_port = free_ports(1)[0]
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                (
                    *(sys.executable, "-I", "-S", "-c", EXEC_BOUND_TO_PARENT, str(os.getpid())),
                    *(str(self._binary.path), f"--name={self.name}", f"--data-dir={self.data_dir}"),
                    *("--logger=zap", "--log-outputs=stderr"),
                    f"--listen-metrics-urls=http://{HOST}:{self._health_port}",
                    *self._arguments,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )

    async def is_healthy(self) -> bool:
        """Whether it serves linearizable reads now: it has a leader and a quorum."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(HOST, self._health_port)
                try:
                    request = f"GET /health HTTP/1.0\r\nHost: {HOST}\r\n\r\n"
                    writer.write(request.encode())
                    status_line = await reader.readline()
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
        return status_line.split()[1:2] == [b"200"]

    def signal(self, number: signal.Signals) -> None:
        """Nothing happens where it doesn't run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and reaped on return."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ask it to end, and kill it where it hasn't within ``grace_s``."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(grace_s):
                await self.wait_exited()
        except TimeoutError:
            pass
        finally:
            self.kill()

    async def wait_exited(self) -> None:
        pid = self.pid
        if not pid:
            return
        exited = asyncio.Event()
        loop = asyncio.get_running_loop()
        descriptor = os.pidfd_open(pid)
        loop.add_reader(descriptor, exited.set)
        try:
            await exited.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    def explain(self) -> str:
        """One line: how it stands, and what it said last."""
        code = self.exit_code
        state = "isn't ready" if code is None else f"ended with {_describe_exit(code)}"
        return f"etcd {self.name} {state}: {_last_complaint(self.log_path)} (log: {self.log_path})"


class EmbeddedEtcd:
    """A cluster of one or several members under one directory, which is kept between starts.

    ``client_ports`` are exactly these, one a member; without them, those of the last start where
    they are still free, else free ones.
    """

    def __init__(
        self,
        binary: EtcdBinary,
        directory: Path,
        *,
        members: int = 1,
        client_ports: tuple[int, ...] = (),
        options: EtcdOptions | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        if client_ports and len(client_ports) != members:
            raise UsageError(f"{members} etcd members need as many ports, not {len(client_ports)}")
        self.binary = binary
        self.directory = directory
        self._size = members
        self._client_ports = client_ports
        self._options = options or EtcdOptions()
        self._tls = tls
        self._members: tuple[EtcdMember, ...] = ()
        self._ports: tuple[MemberPorts, ...] = ()

    @property
    def members(self) -> tuple[EtcdMember, ...]:
        return self._members

    @property
    def endpoints(self) -> tuple[str, ...]:
        """One ``host:port`` a member, for clients; known from the first start on."""
        return tuple(f"{HOST}:{ports.client}" for ports in self._ports)

    async def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start every member and wait until all serve. On failure none is left running."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_locked_data(self.directory)
        self._ports = self._plan_ports()
        self._members = tuple(
            EtcdMember(self.binary, self._name(i), self.directory, self._arguments(i))
            for i in range(self._size)
        )
        try:
            for member in self._members:
                member.spawn()
            await wait_healthy(self._members, timeout_s)
        except BaseException:
            self.kill()
            raise

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End every member, the slow ones by force."""
        async with asyncio.TaskGroup() as group:
            for member in self._members:
                group.create_task(member.stop(grace_s))

    def kill(self) -> None:
        """End every member by force, at once."""
        for member in self._members:
            member.kill()

    async def wait_failed(self) -> str:
        """Return when a member has ended, with one line that says which and why."""
        async with asyncio.TaskGroup() as group:
            exits = [group.create_task(member.wait_exited()) for member in self._members]
            await asyncio.wait(exits, return_when=asyncio.FIRST_COMPLETED)
            for task in exits:
                task.cancel()
        return next(member.explain() for member in self._members if member.exit_code is not None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _name(self, index: int) -> str:
        return f"etcd{index}"

    def _plan_ports(self) -> tuple[MemberPorts, ...]:
        """Members of a cluster know each other by peer port, so those stay what they were."""
        remembered = self._remembered_ports()
        fresh = iter(free_ports(2 * self._size))
        planned = []
        for index in range(self._size):
            last = remembered[index] if remembered else MemberPorts(client=0, peer=0)
            if self._client_ports:
                client = self._client_ports[index]
                if not is_free(client):
                    raise EtcschedError(
                        f"port {client} on {HOST} is in use: stop what listens there, "
                        "or choose another"
                    )
            else:
                client = last.client if is_free(last.client) else next(fresh)
            keep_peer = is_free(last.peer) or (last.peer and self._size > 1)
            planned.append(MemberPorts(client=client, peer=last.peer if keep_peer else next(fresh)))
        (self.directory / PORTS_FILE).write_bytes(msgspec.json.encode(planned))
        return tuple(planned)

    def _remembered_ports(self) -> tuple[MemberPorts, ...]:
        path = self.directory / PORTS_FILE
        if not path.exists():
            return ()
        try:
            ports = msgspec.json.decode(path.read_bytes(), type=tuple[MemberPorts, ...])
        except msgspec.DecodeError as error:
            raise EtcschedError(f"{path} can't be read: {error}") from None
        if len(ports) != self._size:
            raise UsageError(
                f"{self.directory} holds an etcd cluster of {len(ports)} members, not of "
                f"{self._size}: use another directory"
            )
        return ports

    def _arguments(self, index: int) -> list[str]:
        ports = self._ports[index]
        options = self._options
        client_url = f"{'https' if self._tls else 'http'}://{HOST}:{ports.client}"
        peer_urls = [f"http://{HOST}:{each.peer}" for each in self._ports]
        cluster = (f"{self._name(i)}={url}" for i, url in enumerate(peer_urls))
        arguments = [
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_urls[index]}",
            f"--initial-advertise-peer-urls={peer_urls[index]}",
            f"--initial-cluster={','.join(cluster)}",
            f"--quota-backend-bytes={options.quota_bytes}",
            f"--auto-compaction-mode={options.compaction_mode.value}",
            f"--auto-compaction-retention={options.compaction_retention}",
            f"--heartbeat-interval={options.heartbeat_ms}",
            f"--election-timeout={options.election_timeout_ms}",
        ]
        if self._tls:
            arguments += [f"--cert-file={self._tls.cert}", f"--key-file={self._tls.key}"]
            if self._tls.client_ca:
                arguments += ["--client-cert-auth", f"--trusted-ca-file={self._tls.client_ca}"]
        if not options.fsync and self.binary.version_tuple >= (3, 5):
            arguments.append("--unsafe-no-fsync")
        return [*arguments, *options.extra_arguments]


async def wait_healthy(members: Iterable[EtcdMember], timeout_s: float) -> None:
    """Return when all are healthy; raise as soon as one has ended, or after ``timeout_s``."""
    waiting = list(members)
    deadline_s = time.monotonic() + timeout_s
    while True:
        for member in waiting:
            if member.exit_code is not None:
                raise EtcschedError(member.explain())
        waiting = [member for member in waiting if not await member.is_healthy()]
        if not waiting:
            return
        if time.monotonic() > deadline_s:
            raise EtcschedError(f"{waiting[0].explain()}; waited {timeout_s:.0f} s")
        await asyncio.sleep(HEALTH_POLL_S)


def refuse_locked_data(directory: Path) -> None:
    """Raise where another etcd uses this data: a second one would wait for it, silently."""
    for database in directory.glob("*/member/snap/db"):
        with database.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EtcschedError(
                    f"{directory} is in use by another running etcd: "
                    "stop that one first, or use another directory"
                ) from None


def is_free(port: int) -> bool:
    """Whether a server could listen there now; port 0 is none."""
    if port == 0:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now; another program may still be quicker."""
    chosen: list[int] = []
    for port in random.sample(FREE_PORTS, k=len(FREE_PORTS)):
        if len(chosen) == count:
            return chosen
        if is_free(port):
            chosen.append(port)
    raise EtcschedError(f"no free port on {HOST} from {FREE_PORTS.start} to {FREE_PORTS.stop - 1}")


def _environment() -> dict[str, str]:
    """Without ETCD_ variables: etcd reads each as a flag. etcd below 3.5 starts on 64-bit ARM
    only where it is told so."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD_")}
    if platform.machine() == "aarch64":
        environment["ETCD_UNSUPPORTED_ARCH"] = "arm64"
    return environment


def _describe_exit(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _last_complaint(log_path: Path) -> str:
    """What the last serious entry of etcd's log says, else its last line."""
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, log_path.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError as error:
        return str(error)
    last = "its log is empty"
    for line in lines:
        try:
            entry = msgspec.json.decode(line, type=_LogEntry)
        except (msgspec.DecodeError, msgspec.ValidationError):
            last = line.strip() or last
            continue
        last = entry.error or entry.msg
        if entry.level in {"fatal", "panic"}:
            break
    if "downgrade" in last:
        return f"{last}; its data was written by a newer etcd: use that version"
    return last
