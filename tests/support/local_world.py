"""Schedulers and agents as real processes on a real etcd, for tests that kill and freeze them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from etcsched.agent.config import own_user
from etcsched.audit.history import Fault, FaultKind
from etcsched.local.node import NodeProcess, Role
from tests.support.etcd_cluster import EtcdCluster
from tests.support.users import Users, login, user_of

COMMAND = (sys.executable, "-m", "etcsched_cli")
TTL_S = 3
STOP_TIMEOUT_S = 5.0
CLI_TIMEOUT_S = 90.0


class Finished(msgspec.Struct, frozen=True):
    """How a command ended."""

    code: int
    out: str
    err: str


class LocalWorld:
    """Whatever is started here has ended when ``stop`` returns. Logs are files in ``directory``,
    and stay there."""

    def __init__(
        self,
        directory: Path,
        etcd: EtcdCluster,
        *,
        ttl_s: int = TTL_S,
        on_fault: Callable[[Fault], None] | None = None,
    ) -> None:
        """``on_fault`` is told of each fault as it begins, and again as it ends. Where etcd wants
        users, each node gets one of its own."""
        self.directory = directory
        self.etcd = etcd
        self.ttl_s = ttl_s
        self.faults: dict[str, Fault] = {}
        """Those that last, by what they happened to."""
        self._on_fault = on_fault
        self._fault_count = 0
        etcd.on_fault = self._etcd_fault
        self._users = Users(etcd) if etcd.authentication else None
        self._ids: dict[str, str] = {}
        self.nodes: dict[str, NodeProcess] = {}
        self.log: list[tuple[str, str]] = []
        """(node, line), in the order in which they came."""
        self._frozen: set[str] = set()
        directory.mkdir(parents=True, exist_ok=True)

    # --- what there is

    def add_scheduler(self, name: str, *arguments: str) -> None:
        own = (f"--ttl={self.ttl_s}", f"--state-dir={self.directory / name}")
        self._add("scheduler", name, (*own, *arguments), ())

    def add_agent(
        self,
        name: str,
        *arguments: str,
        options: tuple[str, ...] = (),
        slots: int = 16,
        ttl_s: int | None = None,
        directory: str = "",
        id_: str = "",
        wrap: tuple[str, ...] = (),
    ) -> None:
        """``id_`` and ``directory`` are the name unless said otherwise. ``options`` are those of
        the program itself. ``wrap``: a command that executes the agent in its own place."""
        own = (
            f"--ttl={ttl_s or self.ttl_s}",
            f"--slots={slots}",
            f"--allow-user={own_user()}",
            f"--default-user={own_user()}",
            f"--stop-timeout={STOP_TIMEOUT_S:g}s",
            "--output-listen=127.0.0.1:0",
            f"--state-dir={self.directory / (directory or name)}",
        )
        self._add("agent", name, (*own, *arguments), options, id_, wrap)

    def _add(
        self,
        role: Role,
        name: str,
        arguments: tuple[str, ...],
        options: tuple[str, ...],
        id_: str = "",
        wrap: tuple[str, ...] = (),
    ) -> None:
        self._ids[name] = id_ or name
        argv = (
            *wrap,
            *COMMAND,
            *self.cluster_options,
            *self.login(user_of(role, id_ or name)),
            *options,
            role,
            f"--id={id_ or name}",
            "--listen=off",
            *arguments,
        )
        self.nodes[name] = NodeProcess(role, name, argv, self._on_line)

    @property
    def cluster_options(self) -> tuple[str, ...]:
        return (f"--endpoints={','.join(self.etcd.endpoints)}",)

    def login(self, user: str) -> tuple[str, ...]:
        """Options that let a user in, where etcd wants one."""
        return login(user) if self._users is not None else ()

    def names(self, role: Role) -> list[str]:
        return [name for name, node in self.nodes.items() if node.role == role]

    def running(self, role: Role) -> list[str]:
        return [name for name in self.names(role) if self.nodes[name].pid]

    def _on_line(self, node: str, line: str) -> None:
        self.log.append((node, line))
        with (self.directory / f"{node}.log").open("a") as file:
            file.write(line + "\n")

    # --- what happens to them

    async def start(self, *names: str) -> None:
        """Start these, or all that don't run."""
        for name in names or tuple(self.nodes):
            if not self.nodes[name].pid:
                if self._users is not None:
                    await self._users.make(self.nodes[name].role, self._ids[name])
                await self.nodes[name].start()
                self.end_fault(name)

    async def kill(self, name: str) -> None:
        """SIGKILL; it is gone on return."""
        began_ms = _now_ms()
        pid = self.nodes[name].pid
        self.nodes[name].signal(signal.SIGKILL)
        self._frozen.discard(name)
        await self.nodes[name].wait()
        self.begin_fault(FaultKind.KILLED, name, began_ms, f"process {pid} is gone")

    def freeze(self, name: str) -> None:
        """SIGSTOP; it stands still on return."""
        began_ms, pid = _now_ms(), self.nodes[name].pid
        self.nodes[name].signal(signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        self._frozen.add(name)
        self.begin_fault(FaultKind.FROZEN, name, began_ms, f"process {pid} is stopped")

    def thaw(self, name: str) -> None:
        self.nodes[name].signal(signal.SIGCONT)
        self._frozen.discard(name)
        self.end_fault(name)

    def begin_fault(self, kind: FaultKind, target: str, began_ms: int, proof: str) -> None:
        self.end_fault(target)
        self._fault_count += 1
        id_ = f"{self._fault_count}"
        fault = Fault(id=id_, kind=kind, target=target, from_ms=began_ms, proof=proof)
        self.faults[target] = fault
        if self._on_fault is not None:
            self._on_fault(fault)

    def end_fault(self, target: str) -> None:
        fault = self.faults.pop(target, None)
        if fault is not None and self._on_fault is not None:
            self._on_fault(replace(fault, until_ms=_now_ms()))

    def _etcd_fault(self, member: str, proof: str) -> None:
        """An empty proof: it is over."""
        if proof:
            self.begin_fault(FaultKind.ETCD, member, _now_ms(), proof)
        else:
            self.end_fault(member)

    async def end(self, name: str) -> int:
        """SIGTERM; its exit code."""
        self.nodes[name].signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_TIMEOUT_S + 5.0):
            return await self.nodes[name].wait()

    def supervisor_pid(self, agent: str) -> int:
        """Whoever listens on its socket; 0: nobody does."""
        with socket.socket(socket.AF_UNIX) as peer:
            try:
                peer.connect(str(self.directory / agent / "supervisor" / "socket"))
            except OSError:
                return 0
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("3i", credentials)[0])

    async def stop(self) -> None:
        """End everything by force: what a test leaves behind is of no use."""
        for name in tuple(self._frozen):
            self.thaw(name)
        supervisors = [pid for name in self.names("agent") if (pid := self.supervisor_pid(name))]
        for name, node in self.nodes.items():
            if node.pid:
                await self.kill(name)
        for pid in supervisors:
            with contextlib.suppress(ProcessLookupError):  # It was at its end already.
                os.kill(pid, signal.SIGTERM)
        await self.etcd.stop()

    # --- the command line

    async def cli(
        self, *arguments: str, env: dict[str, str] | None = None, user: str = "operator"
    ) -> Finished:
        """``etcsched`` with these arguments, on this cluster; ``user`` where etcd wants one."""
        return await run_cli(*self.cluster_options, *self.login(user), *arguments, env=env)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def run_cli(*arguments: str, env: dict[str, str] | None = None) -> Finished:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        async with asyncio.timeout(CLI_TIMEOUT_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"etcsched {' '.join(arguments)}: still runs") from None
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())
