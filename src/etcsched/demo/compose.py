"""The demonstration in containers: nodes and members of etcd are killed, frozen and cut off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import docker
import docker.errors
import msgspec
import requests.exceptions
from msgspec.structs import replace

from etcsched.audit.history import FaultKind
from etcsched.audit.recorder import now_ms
from etcsched.audit.verdict import Bounds
from etcsched.core.errors import EtcschedError
from etcsched.demo.jobs import LONG_JOB
from etcsched.demo.stage import Audience, Shared, Stage, patiently, set_stage
from etcsched.demo.verdict import Verdict
from etcsched.etcd.config import EtcdConfig

__all__ = ["ComposeDemo"]

T = TypeVar("T")

PROJECT = "etcsched-demo"
ENDPOINTS = ("127.0.0.1:23791", "127.0.0.1:23792", "127.0.0.1:23793")
"""As compose.yaml publishes them."""
SCHEDULERS, AGENTS, MEMBERS = 3, 5, 3
SHARED_THERE = Path("/shared")
TTL_S = 5
BOUNDS = Bounds(lateness_ms=2500, recovery_ms=(TTL_S + 15) * 1000)
CALM_S = 4.0
BUILD_TIMEOUT_S, UP_TIMEOUT_S, DOWN_TIMEOUT_S = 1200, 300, 180
COMMAND_TAIL_LINES = 5


class ComposeDemo:
    """One demonstration in the Compose cluster of ``directory``, which is built, started and taken
    down again with all that it kept."""

    def __init__(self, directory: Path, audience: Audience) -> None:
        self._cluster = _Cluster(directory, audience.log)
        self._audience = audience

    async def run(self) -> Verdict:
        with tempfile.TemporaryDirectory(prefix="etcsched-compose-") as directory:
            here = Path(directory)
            shared = Shared(here=here, there=SHARED_THERE)
            shared.prepare()
            _open_to_all(here)
            with self._cluster.running(here):
                config = EtcdConfig(endpoints=ENDPOINTS)
                async with set_stage(config, shared, BOUNDS, self._audience) as stage:
                    return await self._course(stage)

    async def _course(self, stage: Stage) -> Verdict:
        await stage.all_here(SCHEDULERS, AGENTS)
        await stage.begin_schedules()
        cluster = self._cluster
        killed = _Hurt(FaultKind.KILLED, "killed", cluster.kill, cluster.start, "started again")
        frozen = _Hurt(FaultKind.FROZEN, "froze", cluster.pause, cluster.unpause, "thawed")
        cut_off = _Hurt(
            FaultKind.CUT_OFF, "cut off", cluster.disconnect, cluster.reconnect, "connected again"
        )
        # Agent, supervisor and jobs at once: to them it is their host that stands still.
        host_frozen = replace(frozen, kind=FaultKind.HOST_FROZEN)
        for hurt in (
            self._leader_is(killed),
            self._busy_agent_is(killed),
            self._leader_is(frozen),
            self._busy_agent_is(host_frozen),
            self._busy_agent_is(cut_off),
            self._kill_etcd_member,
        ):
            await asyncio.sleep(CALM_S)  # Let the cluster work in peace, for the reader to see.
            await hurt(stage)
            await stage.all_here(SCHEDULERS, AGENTS)
        await asyncio.sleep(CALM_S)
        await stage.stop_schedules()
        return await stage.conclude()

    def _leader_is(self, hurt: _Hurt) -> Callable[[Stage], Awaitable[None]]:
        async def course(stage: Stage) -> None:
            leader = (await stage.look()).leader.node
            began_s = time.monotonic()
            async with _suffering(stage, leader, hurt, f"the leader, {leader}"):
                after = await stage.until(
                    "a new leader", lambda v: v.leader.node not in ("", leader)
                )
                took_s = time.monotonic() - began_s
                stage.say(f"{after.leader.node} leads, {took_s:.1f} s later (TTL {TTL_S} s)")

        return course

    def _busy_agent_is(self, hurt: _Hurt) -> Callable[[Stage], Awaitable[None]]:
        async def course(stage: Stage) -> None:
            agent = await stage.agent_with_only(LONG_JOB)
            began_s = time.monotonic()
            async with _suffering(stage, agent, hurt, f"{agent} in the middle of a {LONG_JOB}"):
                await stage.until(
                    "its runs to move", lambda v: all(a.agent != agent for a in v.agents)
                )
                took_s = time.monotonic() - began_s
                stage.say(f"its runs have moved, {took_s:.1f} s later (TTL {TTL_S} s)")

        return course

    async def _kill_etcd_member(self, stage: Stage) -> None:
        began_ms, member = now_ms(), "etcd-1"
        proof = await self._cluster.kill(member)
        fault = stage.hurt(f"kill {member}", FaultKind.ETCD, member, began_ms, proof)
        stage.say(f"killed {member}; two members of {MEMBERS} remain")
        await asyncio.sleep(CALM_S)
        await self._cluster.start(member)
        await self._cluster.healthy(member)
        stage.healed(fault)
        stage.say(f"{member} is back")


class _Hurt(msgspec.Struct, frozen=True):
    """What is done to a container, which returns the proof, and how it is undone."""

    kind: FaultKind
    done: str
    hurt: Callable[[str], Awaitable[str]]
    heal: Callable[[str], Awaitable[None]]
    undone: str


@contextlib.asynccontextmanager
async def _suffering(stage: Stage, node: str, hurt: _Hurt, what: str) -> AsyncIterator[None]:
    began_ms = now_ms()
    proof = await hurt.hurt(node)
    fault = stage.hurt(f"{hurt.done} {node}", hurt.kind, node, began_ms, proof)
    stage.say(f"{hurt.done} {what}")
    yield
    await hurt.heal(node)
    stage.healed(fault)
    stage.say(f"{hurt.undone}: {node}")


class _Cluster:
    """The containers, by their services' names. What is done to one is asked of the engine again,
    and that is the proof."""

    def __init__(self, directory: Path, log: Callable[[str, str], None]) -> None:
        self._directory = directory
        self._log = log
        self._client: docker.DockerClient | None = None
        self._containers: dict[str, Any] = {}

    @contextlib.contextmanager
    def running(self, shared: Path) -> Iterator[None]:
        if not (self._directory / "compose.yaml").is_file():
            raise EtcschedError(f"{self._directory} has no compose.yaml: name compose/")
        try:
            self._client = docker.from_env()
            self._client.ping()
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise EtcschedError(
                f"no Docker Engine answers: start it, or set DOCKER_HOST ({error})"
            ) from None
        environment = {**os.environ, "SHARED": str(shared), "TTL": str(TTL_S)}
        compose = [*_compose_command(), "--project-name", PROJECT]

        def do(*arguments: str, timeout_s: int) -> None:
            self._log("compose", " ".join(arguments))
            done = subprocess.run(
                [*compose, *arguments], cwd=self._directory, env=environment, timeout=timeout_s,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines()[-COMMAND_TAIL_LINES:]
                raise EtcschedError(f"compose {arguments[0]} failed: {' | '.join(said)}")

        down = ("down", "--volumes", "--remove-orphans", "--timeout", "2")
        do(*down, timeout_s=DOWN_TIMEOUT_S)
        try:
            do("build", timeout_s=BUILD_TIMEOUT_S)
            do("up", "--detach", timeout_s=UP_TIMEOUT_S)
            self._containers = {
                container.labels["com.docker.compose.service"]: container
                for container in self._client.containers.list(
                    filters={"label": f"com.docker.compose.project={PROJECT}"}
                )
            }
            yield
        finally:
            for container in self._containers.values():
                with contextlib.suppress(docker.errors.APIError):
                    container.unpause()  # What is frozen can't be stopped.
            do(*down, timeout_s=DOWN_TIMEOUT_S)
            self._client.close()

    async def kill(self, name: str) -> str:
        """With all of its processes. The engine doesn't restart what it was told to kill."""
        container = self._containers[name]
        await _aside(container.kill)
        return await self._is(name, "exited")

    async def start(self, name: str) -> None:
        await _aside(self._containers[name].start)
        await self._is(name, "running")

    async def pause(self, name: str) -> str:
        await _aside(self._containers[name].pause)
        return await self._is(name, "paused")

    async def unpause(self, name: str) -> None:
        await _aside(self._containers[name].unpause)
        await self._is(name, "running")

    async def disconnect(self, name: str) -> str:
        for network in await self._networks(name):
            await _aside(partial(network.disconnect, self._containers[name]))
        if left := await self._networks(name):
            raise EtcschedError(f"{name} is still on {left[0].name}")
        return f"{name} is on no network"

    async def reconnect(self, name: str) -> None:
        assert self._client is not None
        client = self._client
        network = await _aside(partial(client.networks.get, f"{PROJECT}_agents"))
        await _aside(partial(network.connect, self._containers[name], aliases=[name]))

    async def healthy(self, name: str) -> None:
        async def look() -> bool | None:
            container = self._containers[name]
            await _aside(container.reload)
            return container.attrs["State"].get("Health", {}).get("Status") == "healthy" or None

        await patiently(f"{name} to be healthy", look)

    async def _networks(self, name: str) -> list[Any]:
        assert self._client is not None
        client, container = self._client, self._containers[name]
        await _aside(container.reload)
        names = container.attrs["NetworkSettings"]["Networks"]
        return [await _aside(partial(client.networks.get, each)) for each in names]

    async def _is(self, name: str, status: str) -> str:
        container = self._containers[name]

        async def look() -> bool | None:
            await _aside(container.reload)
            return container.status == status or None

        await patiently(f"{name} to be {status}", look)
        return f"the engine says that {name} is {status}"


async def _aside(call: Callable[[], T]) -> T:
    """The engine's client blocks; etcd is watched meanwhile."""
    try:
        return await asyncio.to_thread(call)
    except (docker.errors.APIError, requests.exceptions.RequestException) as error:
        raise EtcschedError(f"the Docker Engine refuses: {error}") from None


def _compose_command() -> list[str]:
    """The engine's plugin where it is, else the older program of that name."""
    if shutil.which("docker"):
        plugin = ["docker", "compose"]
        with contextlib.suppress(OSError):
            probe = subprocess.run(
                [*plugin, "version"], capture_output=True, timeout=30, check=False
            )  # fmt: skip
            if probe.returncode == 0:
                return plugin
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise EtcschedError("install docker compose (Debian: docker-compose)")


def _open_to_all(directory: Path) -> None:
    """The agents' user in the containers isn't the one here."""
    directory.chmod(0o755)
    for file in directory.iterdir():
        file.chmod(0o666)
