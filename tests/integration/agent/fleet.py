"""Agents as real processes, and a leader that only writes what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from etcsched.agent.config import AgentConfig, own_user
from etcsched.core.records import (
    Action,
    Assignment,
    Drain,
    Kind,
    Live,
    Order,
    Presence,
    Record,
    Report,
    Shell,
    StartSeen,
)
from etcsched.core.states import Stage
from etcsched.core.times import utc_of
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.codec import decode, encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Delete, KeyValue, Put, Range, RangeResult, Txn

DEADLINE_S = 20.0
POLL_S = 0.02
T = TypeVar("T")
R = TypeVar("R", bound=Record)


async def until(
    look: Callable[[], Awaitable[T | None]], what: str, within_s: float = DEADLINE_S
) -> T:
    """The first answer that isn't None."""
    give_up_s = time.monotonic() + within_s
    while True:
        found = await look()
        if found is not None:
            return found
        assert time.monotonic() < give_up_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(POLL_S)


class AgentProcess:
    def __init__(self, config: AgentConfig, etcd_config: EtcdConfig) -> None:
        self.config = config
        self._etcd_config = etcd_config
        self.umask = -1
        """-1: that of the tests."""
        self.log_path = config.directory.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def supervisor_pid(self) -> int:
        """Whoever listens on its socket (SO_PEERCRED)."""
        import socket
        import struct

        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(self.config.directory / "supervisor" / "socket"))
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("3i", credentials)[0])

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.integration.agent.agent_main",
                    msgspec.json.encode(self.config, enc_hook=str).decode(),
                    msgspec.json.encode(self._etcd_config, enc_hook=str).decode(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=self.umask,
            )

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def exit_code(self, within_s: float = DEADLINE_S) -> int:
        process = self.process
        assert process is not None

        async def look() -> int | None:
            return process.poll()

        return await until(look, "the agent's end", within_s)

    def log(self) -> str:
        return self.log_path.read_text()

    async def says(self, words: str) -> None:
        """At its /healthz; its config must have it listen."""

        async def look() -> bool | None:
            found = re.search(r"http://\S+", self.log())
            if found is None:
                return None
            text = await asyncio.to_thread(_read_url, f"{found[0].rstrip('/')}/healthz")
            return words in text or None

        await until(look, f"{words!r} at /healthz")


class Fleet:
    """One cluster's agents, and the pen of its leader."""

    def __init__(self, directory: Path, endpoints: tuple[str, ...], prefix: str) -> None:
        self.directory = directory
        self.keys = Keys(prefix)
        self.etcd_config = EtcdConfig(endpoints=endpoints)
        self.etcd = EtcdClient(self.etcd_config)
        self._agents: list[AgentProcess] = []

    def agent(self, name: str = "a1", *, directory: str = "", **changes: Any) -> AgentProcess:
        settings: dict[str, Any] = {
            "id": name,
            "slots": 8,
            "users": (own_user(),),
            "default_user": own_user(),
            "prefix": self.keys.prefix,
            "state_dir": self.directory / (directory or name),
            "session_ttl_s": 10,
            "use_cgroup": False,
            **changes,
        }
        agent = AgentProcess(AgentConfig(**settings), self.etcd_config)
        self._agents.append(agent)
        return agent

    async def close(self) -> None:
        for agent in self._agents:
            if agent.process is not None and agent.process.poll() is None:
                agent.signal(signal.SIGCONT)
                agent.kill()
            with contextlib.suppress(OSError):
                os.kill(agent.supervisor_pid, signal.SIGTERM)
        await self.etcd.close()

    # --- reading

    async def get(self, key: str) -> KeyValue | None:
        with contextlib.suppress(Exception):
            result = await self.etcd.range(Range(key), timeout_s=1.0)
            return result.kvs[0] if result.kvs else None
        return None

    async def presence(self, agent: str = "a1") -> tuple[Presence, KeyValue] | None:
        kv = await self.get(self.keys.of(Kind.PRESENCE, agent))
        return None if kv is None else (decode(Presence, kv.value), kv)

    async def joined(
        self, agent: str = "a1", *, unlike: str = "", supervisor_unlike: str = ""
    ) -> Presence:
        """Wait for its presence; ``unlike``: of another incarnation."""

        async def look() -> Presence | None:
            found = await self.presence(agent)
            if found is None or found[0].incarnation == unlike:
                return None
            return None if found[0].supervisor == supervisor_unlike else found[0]

        return await until(look, f"presence of {agent}")

    async def report(self, run: str, *, agent: str = "a1") -> Report:
        """Wait for the claim."""
        return await self._report(self.keys.of(Kind.REPORT, agent, "job", run), final=False)

    async def outcome(self, run: str, *, agent: str = "a1") -> Report:
        return await self._report(self.keys.of(Kind.REPORT, agent, "job", run), final=True)

    async def late(self, run: str, token: int, *, agent: str = "a1") -> Report:
        key = self.keys.of(Kind.LATE_REPORT, agent, "job", run, str(token))
        return await self._report(key, final=True)

    async def _report(self, key: str, *, final: bool) -> Report:
        async def look() -> Report | None:
            kv = await self.get(key)
            if kv is None:
                return None
            report = decode(Report, kv.value)
            return report if report.outcome is not None or not final else None

        return await until(look, f"{'outcome' if final else 'report'} {key}")

    # --- writing

    async def assign(
        self,
        run: str,
        action: Action | str,
        *,
        agent: str = "a1",
        incarnation: str = "",
        **changes: Any,
    ) -> int:
        """Returns the token. A text is a shell command."""
        if not incarnation:
            incarnation = (await self.joined(agent)).incarnation
        assignment = Assignment(
            job="job",
            run=run,
            agent=agent,
            incarnation=incarnation,
            attempt=1,
            action=Shell(action) if isinstance(action, str) else action,
            seen=StartSeen(job=0),
            assigned_at=utc_of(time.time_ns() // 1_000_000),
            term=1,
            **changes,
        )
        return await self.put(self.keys.of(Kind.ASSIGNMENT, agent, "job", run), assignment)

    async def claim(self, run: str, token: int, presence: Presence) -> Report:
        """In the agent's name."""
        report = Report(
            job="job",
            run=run,
            attempt=1,
            token=token,
            incarnation=presence.incarnation,
            supervisor=presence.supervisor,
            claimed_at=utc_of(1_700_000_000_000),
        )
        await self.put(self.keys.of(Kind.REPORT, presence.agent, "job", run), report)
        return report

    async def put(self, key: str, record: Record) -> int:
        result = await self.etcd.txn(Txn((), (Put(key, encode(record)),)))
        return result.revision

    async def delete(self, key: str) -> None:
        await self.etcd.txn(Txn((), (Delete(key),)))

    async def take_away(self, run: str, *, agent: str = "a1") -> None:
        """As the leader does when a run is moved: assignment and report go together."""
        kinds = (Kind.ASSIGNMENT, Kind.REPORT)
        await self.etcd.txn(
            Txn((), tuple(Delete(self.keys.of(kind, agent, "job", run)) for kind in kinds))
        )

    async def cancel(self, run: str, token: int, *, agent: str = "a1") -> None:
        order = Order(job="job", run=run, token=token, at=utc_of(0))
        await self.put(self.keys.of(Kind.ORDER, agent, "job", run), order)

    async def let_go(self, agent: str = "a1") -> None:
        """As the leader does once an agent wants to stop, and has no shutdown job to run."""

        async def look() -> Presence | None:
            found = await self.presence(agent)
            return found[0] if found is not None and found[0].draining else None

        presence = await until(look, "its presence to say that it leaves")
        live = Live(
            agent=agent,
            incarnation=presence.incarnation,
            stage=Stage.DISMISSED,
            since=utc_of(0),
            term=1,
        )
        await self.put(self.keys.of(Kind.LIVE, agent), live)

    async def drain(self, agent: str = "a1") -> None:
        await self.put(self.keys.of(Kind.DRAIN, agent), Drain(agent=agent, since=utc_of(0)))

    async def count(self, kind: Kind, agent: str = "a1") -> int:
        start, end = self.keys.all_of(kind, agent)
        result = await self.etcd.range(Range(start, end, count_only=True))
        assert isinstance(result, RangeResult)
        return result.count


def _read_url(url: str) -> str:
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as response:
        return str(response.read().decode())


def beating(path: Path) -> str:
    """A command that says every 20 ms that it lives, until it is killed."""
    return f"while :; do date +%s%N >> {path}; sleep 0.02; done"


async def first_beat(path: Path) -> None:
    async def look() -> bool | None:
        return True if has_text(path) else None

    await until(look, "the job's first beat")


def has_text(path: Path) -> bool:
    """The shell makes the file before its first line is there."""
    return path.exists() and path.stat().st_size > 0


def last_beat_s(path: Path) -> float:
    """Unix time."""
    return int(path.read_text().split()[-1]) / 1e9
