"""An etcd of one's own: child processes on loopback, for ``up``, demonstrations and tests.

The children live in sessions of their own, so that Ctrl-C in a terminal reaches whoever owns them
first, and are killed by the kernel when the thread that started them ends, however it ends: start
them from the thread that lives as long as the program.
"""

from __future__ import annotations

import asyncio
import enum
import fcntl
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from etcsched.core.errors import EtcschedError, UsageError
from etcsched.etcd.binaries import EtcdBinary, find_etcd, provide_etcd
from etcsched.etcd.member import (
    EXEC_BOUND_TO_PARENT,
    STOP_GRACE_S,
    EtcdMember,
    wait_healthy,
)
from etcsched.etcd.ports import HOST, ReservedPort, is_free

__all__ = [
    "EXEC_BOUND_TO_PARENT",
    "CompactionMode",
    "EmbeddedEtcd",
    "EtcdBinary",
    "EtcdMember",
    "EtcdOptions",
    "MemberPorts",
    "ServerTls",
    "find_etcd",
    "is_free",
    "provide_etcd",
    "wait_healthy",
]

START_TIMEOUT_S = 30.0
PORTS_FILE = "members.json"


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
        self._reserved: list[ReservedPort] = []

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
        try:
            self._ports = self._plan_ports()
            self._members = tuple(
                EtcdMember(
                    self.binary,
                    self._name(i),
                    self.directory,
                    self._arguments(i),
                    self._reserve_any(),
                )
                for i in range(self._size)
            )
            for member in self._members:
                member.spawn()
            await wait_healthy(self._members, timeout_s)
        except BaseException:
            self.kill()
            raise

    async def start_again(self, index: int, timeout_s: float = START_TIMEOUT_S) -> None:
        """A member that has ended, on its data and at its ports; returns when it serves."""
        self._members[index].spawn()
        await wait_healthy((self._members[index],), timeout_s)

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End every member, the slow ones by force."""
        async with asyncio.TaskGroup() as group:
            for member in self._members:
                group.create_task(member.stop(grace_s))
        self._release_ports()

    def kill(self) -> None:
        """End every member by force, at once."""
        for member in self._members:
            member.kill()
        self._release_ports()

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
        planned = []
        for index in range(self._size):
            last = remembered[index] if remembered else MemberPorts(client=0, peer=0)
            if self._client_ports:
                client = self._client_ports[index]
                if not self._reserve(client):
                    raise EtcschedError(
                        f"port {client} on {HOST} is in use: stop what listens there, "
                        "or choose another"
                    )
            else:
                client = last.client if self._reserve(last.client) else self._reserve_any()
            keep_peer = self._reserve(last.peer) or (last.peer and self._size > 1)
            peer = last.peer if keep_peer else self._reserve_any()
            planned.append(MemberPorts(client=client, peer=peer))
        (self.directory / PORTS_FILE).write_bytes(msgspec.json.encode(planned))
        return tuple(planned)

    def _reserve(self, port: int) -> bool:
        """False: a server listens there, or it is none."""
        reserved = ReservedPort.of(port) if port else None
        if reserved is not None:
            self._reserved.append(reserved)
        return reserved is not None

    def _reserve_any(self) -> int:
        """While a member is down, nobody else takes its ports."""
        self._reserved.append(ReservedPort.any_free())
        return self._reserved[-1].port

    def _release_ports(self) -> None:
        while self._reserved:
            self._reserved.pop().release()

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
