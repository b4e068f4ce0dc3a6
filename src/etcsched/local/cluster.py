"""An etcd, some schedulers and some agents, started and stopped in the right order."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from etcsched.agent.config import own_user
from etcsched.core.errors import EtcschedError, UsageError
from etcsched.etcd.binaries import provide_etcd
from etcsched.etcd.embedded import EmbeddedEtcd, is_free
from etcsched.keyspace.keys import DEFAULT_PREFIX
from etcsched.local.node import NodeProcess, Role

DEFAULT_ETCD_PORT = 2379
COMMAND = (sys.executable, "-m", "etcsched_cli")
RESTART_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LASTED_S = 10.0
"""A node that ran so long is no longer one that ends at each start."""
SCHEDULER_STOPS_WITHIN_S = 15.0
ETCD_NAME = "etcd"


class LocalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``stop_timeout_s`` is what running jobs get when the cluster is stopped, and each kind of
    shutdown jobs ``shutdown_timeout_s`` after that."""

    directory: Path
    schedulers: int = 3
    agents: int = 3
    slots: int = 8
    ttl_s: int = 10
    stop_timeout_s: float = 10.0
    shutdown_timeout_s: float = 30.0
    etcd_port: int | None = None

    @property
    def longest_stop_s(self) -> float:
        """Of an agent that isn't stuck: its work, a change of leader, its shutdown jobs, and the
        cluster's."""
        return self.stop_timeout_s + self.ttl_s + 2 * self.shutdown_timeout_s + 10.0


class LocalCluster:
    """Everything below ``options.directory``, which is kept between starts."""

    def __init__(self, options: LocalOptions, on_line: Callable[[str, str], None]) -> None:
        self._options = options
        self._on_line = on_line
        self._etcd: EmbeddedEtcd | None = None
        self.nodes: dict[str, NodeProcess] = {}
        self._is_stopping = False

    @property
    def etcd(self) -> EmbeddedEtcd:
        assert self._etcd is not None, "the cluster hasn't started"
        return self._etcd

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self.etcd.endpoints

    async def start(self) -> None:
        """Returns when etcd serves and every node is started; raises one line why not."""
        options = self._options
        try:
            options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EtcschedError(
                f"{options.directory} can't hold the cluster's data: {error.strerror}"
            ) from None
        binary = await provide_etcd(lambda text: self._on_line(ETCD_NAME, text))
        self._etcd = EmbeddedEtcd(
            binary, options.directory / "etcd", client_ports=self._choose_ports()
        )
        await self._etcd.start()
        self._on_line(ETCD_NAME, f"etcd {binary.version} serves at {', '.join(self.endpoints)}")
        for number in range(1, options.schedulers + 1):
            name = f"scheduler-{number}"
            more = (f"--state-dir={options.directory / name}", *self._listening(number))
            self._add("scheduler", name, more)
        for number in range(1, options.agents + 1):
            name = f"agent-{number}"
            self._add("agent", name, (*self._agent_arguments(name), *self._listening(number)))
        for node in self.nodes.values():
            await node.start()

    def _choose_ports(self) -> tuple[int, ...]:
        """etcd's own port where it is free, so that every command finds the cluster; else those
        of the last start."""
        wanted = self._options.etcd_port
        if wanted is not None:
            if wanted and not is_free(wanted):
                raise EtcschedError(f"port {wanted} is in use; choose another with --etcd-port")
            return (wanted,) if wanted else ()
        return (DEFAULT_ETCD_PORT,) if is_free(DEFAULT_ETCD_PORT) else ()

    def _listening(self, number: int) -> tuple[str, ...]:
        """Where every command finds etcd, it finds the first node of each kind as well."""
        is_usual = number == 1 and self._options.etcd_port is None
        return () if is_usual else ("--listen=127.0.0.1:0",)

    def _agent_arguments(self, name: str) -> tuple[str, ...]:
        options, user = self._options, own_user()
        return (
            f"--slots={options.slots}",
            f"--allow-user={user}",
            f"--default-user={user}",
            f"--stop-timeout={options.stop_timeout_s:g}s",
            "--output-listen=127.0.0.1:0",
            f"--shutdown-timeout={options.shutdown_timeout_s:g}s",
            f"--state-dir={options.directory / name}",
        )

    def _add(self, role: Role, name: str, more: tuple[str, ...]) -> None:
        """What the user's configuration file and environment say is said of other clusters."""
        argv = (
            *COMMAND,
            f"--config={os.devnull}",
            f"--prefix={DEFAULT_PREFIX}",
            f"--endpoints={','.join(self.endpoints)}",
            role,
            f"--id={name}",
            f"--ttl={self._options.ttl_s}",
            "--demo-etcd",  # Whatever version there was to have: it said what it thinks of it.
            *more,
        )
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCSCHED_")}
        self.nodes[name] = NodeProcess(role, name, argv, self._on_line, environment)

    async def watch_over(self) -> None:
        """Start again, for ever, what ends by itself; raises when etcd can't be started again, or
        a node says that its start makes no sense."""
        async with asyncio.TaskGroup() as tasks:
            for node in self.nodes.values():
                tasks.create_task(self._keep_running(node))
            await self._keep_etcd_running()

    async def _keep_etcd_running(self) -> None:
        while True:
            why = await self.etcd.wait_failed()
            self._on_line(ETCD_NAME, f"{why}; starts again in {RESTART_PAUSE_S:g} s")
            await asyncio.sleep(RESTART_PAUSE_S)
            for index, member in enumerate(self.etcd.members):
                if member.exit_code is not None:
                    await self.etcd.start_again(index)
            self._on_line(ETCD_NAME, "serves again")

    async def _keep_running(self, node: NodeProcess) -> None:
        """Later each time, while it ends again and again."""
        pause_s, loop = RESTART_PAUSE_S, asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            code = await node.wait()
            if self._is_stopping:
                return
            if code == UsageError.exit_code:  # The same another time.
                why = node.last_line.removeprefix("etcsched: ")
                raise UsageError(f"{node.name} can't run: {why}")
            how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            if loop.time() - began_s >= LASTED_S:
                pause_s = RESTART_PAUSE_S
            self._on_line(node.name, f"{how}; starts again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            await node.start()

    async def stop(self) -> None:
        """Agents first, so that the schedulers can settle what they report, and begin what is to
        be done before they go; then etcd."""
        self._is_stopping = True
        roles: tuple[Role, ...] = ("agent", "scheduler")
        for role in roles:
            is_agent = role == "agent"
            grace_s = self._options.longest_stop_s if is_agent else SCHEDULER_STOPS_WITHIN_S
            async with asyncio.TaskGroup() as tasks:
                for node in self.nodes.values():
                    if node.role == role:
                        tasks.create_task(node.stop(grace_s))
        if self._etcd is not None:
            await self._etcd.stop()
