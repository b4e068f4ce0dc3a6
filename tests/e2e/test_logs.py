"""What runs wrote, read from elsewhere: live, over retries, from a lost agent, and by whom."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from etcsched.core.records import Attempt, OutputAccess, Run
from etcsched.core.states import RunState
from etcsched.etcd.binaries import EtcdBinary
from etcsched.keyspace.codec import decode
from etcsched.keyspace.ops import Range
from etcsched.serving.address import Address
from etcsched.serving.client import NotThatDaemon, ask
from etcsched.serving.outputs import target_of
from tests.e2e.history import PATIENCE_S
from tests.e2e.scene import Scene
from tests.support.etcd_cluster import EtcdCluster
from tests.support.local_world import COMMAND
from tests.support.tcp_proxy import tcp_proxy

IP = shutil.which("ip") or ""
LONG_TTL_S = 30
"""Also for an agent that starts on a busy machine."""

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(
    etcd_binary: EtcdBinary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """Agents on two addresses, as if of two machines."""
    directory = tmp_path_factory.mktemp("logs")
    etcd = EtcdCluster(etcd_binary, directory)
    await etcd.start()
    scene = Scene(directory, etcd)
    scene.world.add_scheduler("s1")
    scene.world.add_agent("a1", "--output-listen=127.0.0.2:0")
    scene.world.add_agent("a2", "--output-listen=0.0.0.0:0", "--output-address=127.0.0.3")
    await scene.open()
    yield scene
    await scene.close()


class Following:
    """``runs logs -f`` as a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.text = ""

    async def until(self, words: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while words not in self.text:
                piece = await self.process.stdout.read(1 << 16)
                assert piece, f"it ended without {words!r}: {self.text!r}"
                self.text += piece.decode()

    async def ended(self) -> tuple[str, str]:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await self.process.communicate()
        assert self.process.returncode == 0, err
        return self.text + out.decode(), err.decode()


@contextlib.asynccontextmanager
async def follow(scene: Scene, run: str) -> AsyncIterator[Following]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *scene.world.cluster_options,
        *("runs", "logs", "-f", run),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Following(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def script(text: str) -> dict[str, list[str]]:
    return {"exec": [sys.executable, "-u", "-I", "-S", "-c", text]}


PATIENT = {"disconnect_grace": "20s"}
"""However busy the host is, it isn't run twice."""


async def begin(scene: Scene, job: str, **fields: Any) -> str:
    """The name of a run of it that is claimed."""
    await scene.apply(**{job: fields})
    triggered = await scene.cli("jobs", "trigger", job)
    assert triggered.code == 0, triggered
    _, report = await scene.claimed(job)
    return f"{job}/{report.run}"


def waits_for(path: Path, *, then: str = "") -> str:
    return (
        "import os, time\nprint('begun on', os.environ['ETCSCHED_AGENT'])\n"
        f"while not os.path.exists({str(path)!r}): time.sleep(0.02)\n"
        f"print('going on')\n{then}\n"
    )


async def test_live_until_it_is_over_and_afterwards(scene: Scene, tmp_path: Path) -> None:
    go = tmp_path / "go"
    for host, job in (("a1", "one"), ("a2", "two")):
        run = await begin(scene, job, run=script(waits_for(go)), hosts=[host], **PATIENT)
        async with follow(scene, run) as following:
            await following.until(f"begun on {host}\n")
            go.touch()
            text, notes = await following.ended()
        assert text == f"begun on {host}\ngoing on\n"
        assert notes == f"-- attempt 1, on {host}\n-- {run} is over: completed\n"
        whole = await scene.cli("runs", "logs", run)
        assert (whole.code, whole.out, whole.err) == (0, text, "")
        go.unlink()
    await scene.settle()


async def test_over_a_retry(scene: Scene, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    fails_first = (
        f"import os, sys\nis_first = not os.path.exists({str(marks)!r})\n"
        f"open({str(marks)!r}, 'a').close()\n"
        "print('attempt', os.environ['ETCSCHED_ATTEMPT'])\nsys.exit(3 if is_first else 0)\n"
    )
    retry = {"max": 1, "interval": "1s"}
    run = await begin(scene, "again", run=script(fails_first), retry=retry, hosts=["a1"])
    async with follow(scene, run) as following:
        text, notes = await following.ended()
    # Followed too late for the first, it begins with the second.
    assert text in ("attempt 1\nattempt 2\n", "attempt 2\n")
    assert f"-- {run} is over: completed\n" in notes
    first = await scene.cli("runs", "logs", run, "--attempt=1")
    assert first.out == "attempt 1\n"
    await scene.settle()


async def test_an_agent_that_begins_anew_meanwhile(scene: Scene, tmp_path: Path) -> None:
    """Its process goes on, at another port, with another token and certificate."""
    go = tmp_path / "go"
    scene.world.add_agent("keeper", "--output-listen=127.0.0.2:0", ttl_s=LONG_TTL_S)
    await scene.world.start("keeper")
    await scene.all_here()
    run = await begin(scene, "long", run=script(waits_for(go)), hosts=["keeper"])
    before = await access_of(scene, "keeper")
    before_revision = put_at(scene, "keeper")
    async with follow(scene, run) as following:
        await following.until("begun on keeper\n")
        scene.world.nodes["keeper"].signal(signal.SIGHUP)

        await put_again(scene, "keeper", before_revision)
        after = await access_of(scene, "keeper")
        assert after.token != before.token
        assert after.certificate_sha256 != before.certificate_sha256
        go.touch()
        text, notes = await following.ended()
    assert text == "begun on keeper\ngoing on\n"
    assert notes.endswith(f"-- {run} is over: completed\n")
    assert await scene.world.end("keeper") == 0
    await scene.settle()


async def test_a_lost_agent_s_output_is_its_tail(scene: Scene) -> None:
    noise = script("print('x' * 9000)\nprint('the end')\n")
    await begin_and_end(scene, "noisy", noise)
    (run,) = scene.ended("noisy")
    name = f"noisy/{run.id}"
    whole = await scene.cli("runs", "logs", name)
    assert whole.out == "x" * 9000 + "\nthe end\n"
    before_revision = put_at(scene, "a2")
    await scene.world.kill("a2")
    gone = await scene.cli("--timeout=2s", "runs", "logs", name)
    assert gone.code == 0, gone
    assert "this is the tail that it reported, the last 4096 of 9009 bytes:" in gone.err
    assert len(gone.out) == 4096
    assert gone.out.endswith("x\nthe end\n")
    await scene.world.start("a2")
    await put_again(scene, "a2", before_revision)
    again = await scene.cli("runs", "logs", name)
    assert (again.out, again.err) == (whole.out, "")
    await scene.settle()


async def test_a_run_that_moves_is_followed_to_its_new_agent(scene: Scene, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run = await begin(scene, "moving", run=script(waits_for(go)), prefer=["a2"])
    first, _ = await scene.claimed("moving")
    other = {"a1": "a2", "a2": "a1"}[first]
    async with follow(scene, run) as following:
        await following.until(f"begun on {first}\n")
        await scene.world.kill(first)
        await following.until(f"begun on {other}\n")
        go.touch()
        text, notes = await following.ended()
    assert text == f"begun on {first}\nbegun on {other}\ngoing on\n"
    assert f"-- attempt 2, on {other}\n" in notes
    await scene.world.start(first)
    await scene.all_here()
    await scene.settle()


async def test_without_the_token_there_is_nothing(scene: Scene) -> None:
    await begin_and_end(scene, "secret", script("print('not for all')"))
    (run,) = scene.ended("secret")
    presence = scene.presence("a2")
    assert presence is not None
    address = Address.parse(presence.output_address, "address")
    assert address.host == "127.0.0.3"
    access = await access_of(scene, "a2")
    target = target_of("secret", run.id, 1, 0, 0)
    for token in ("wrong", (await access_of(scene, "a1")).token):
        answer = await ask(
            address,
            target,
            token=token,
            certificate_sha256=access.certificate_sha256,
            timeout_s=10,
        )
        assert answer.status == 401
        assert b"not for all" not in answer.body
    with pytest.raises(NotThatDaemon):
        await ask(address, target, token=access.token, certificate_sha256="0" * 64, timeout_s=10)
    right = await ask(
        address,
        target,
        token=access.token,
        certificate_sha256=access.certificate_sha256,
        timeout_s=10,
    )
    assert right.body == b"not for all\n"
    await scene.settle()


def _can_have_a_second_machine() -> bool:
    return os.geteuid() == 0 and bool(IP)


@contextlib.contextmanager
def second_machine() -> Iterator[tuple[str, str, str]]:
    """A network of its own, joined to this one by a cable: its name, and the address of either
    end, ours first."""
    number = os.getpid() % 200
    name, ours, theirs = f"logs{number}", f"198.18.{number}.1", f"198.18.{number}.2"

    def ip(*arguments: str) -> None:
        subprocess.run([IP, *arguments], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        ip("address", "add", f"{ours}/30", "dev", f"{name}a")
        ip("link", "set", f"{name}a", "up")
        ip("-n", name, "address", "add", f"{theirs}/30", "dev", f"{name}b")
        ip("-n", name, "link", "set", f"{name}b", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name, ours, theirs
    finally:
        ip("netns", "delete", name)


@pytest.mark.skipif(not _can_have_a_second_machine(), reason="needs root, and ip")
async def test_an_agent_on_another_machine_finds_its_own_address(
    scene: Scene, tmp_path: Path
) -> None:
    """... and is read from here; and what runs here is read from there."""
    (etcd_port,) = (urlsplit(url).port for url in scene.world.etcd.endpoints)
    assert etcd_port is not None
    with second_machine() as (network, ours, theirs):
        async with tcp_proxy(etcd_port, ours) as proxy:
            endpoint = f"--endpoints={ours}:{proxy.port}"
            there = (IP, "netns", "exec", network)
            options = ("--output-listen=0.0.0.0:0",)
            scene.world.add_agent("far", *options, options=(endpoint,), wrap=there)
            near = (*options, f"--output-address={ours}")
            scene.world.add_agent("near", *near)
            await scene.world.start("far", "near")
            await scene.all_here()
            agents = await scene.cli("agents", "list", "--json")
            addresses = {one["agent"]: one["output_address"] for one in json.loads(agents.out)}
            assert addresses["far"].startswith(f"{theirs}:")
            go = tmp_path / "go"
            run = await begin(scene, "far_job", run=script(waits_for(go)), hosts=["far"], **PATIENT)
            async with follow(scene, run) as following:
                await following.until("begun on far\n")
                go.touch()
                text, _ = await following.ended()
            assert text == "begun on far\ngoing on\n"
            go.unlink()
            run = await begin(scene, "near_job", run=script(waits_for(go)), hosts=["near"])
            go.touch()
            await scene.run_ended("near_job")
            read = await asyncio.create_subprocess_exec(
                *(*there, *COMMAND, endpoint, "runs", "logs", run),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(PATIENCE_S):
                out, err = await read.communicate()
            assert (out, err) == (b"begun on near\ngoing on\n", b"")
            for agent in ("far", "near"):
                assert await scene.world.end(agent) == 0
            await scene.settle()


async def test_no_recording_has_a_token(scene: Scene) -> None:
    access = await access_of(scene, "a1")
    recorded = [event.kv for event in scene.history.events]
    assert scene.keys.access("a1") in [kv.key for kv in recorded]
    assert not any(access.token.encode() in kv.value for kv in recorded)


async def begin_and_end(scene: Scene, job: str, run: dict[str, list[str]]) -> Attempt:
    """On a2."""
    await scene.apply(**{job: {"run": run, "hosts": ["a2"]}})
    triggered = await scene.cli("jobs", "trigger", job, "--wait")
    assert triggered.code == 0, triggered
    over: Run = await scene.run_ended(job)
    assert over.state is RunState.COMPLETED
    return over.attempts[-1]


async def access_of(scene: Scene, agent: str) -> OutputAccess:
    found = await scene.etcd.range(Range(scene.keys.access(agent)))
    return decode(OutputAccess, found.kvs[0].value)


def put_at(scene: Scene, agent: str) -> int:
    """When the access to its output was put last; 0: it isn't there."""
    found = scene.history.now.get(scene.keys.access(agent))
    return found.mod_revision if found is not None else 0


async def put_again(scene: Scene, agent: str, after: int) -> None:
    await scene.history.until(
        lambda: put_at(scene, agent) > after, f"another access to the output of {agent}"
    )
