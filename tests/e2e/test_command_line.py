"""Bad input and bad luck, as a user's shell sees it: one clear line, the right exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from etcsched.etcd.binaries import EtcdBinary
from etcsched.local.cluster import COMMAND
from tests.e2e.scene import Scene
from tests.support.certificates import CertificateAuthority
from tests.support.etcd_cluster import EtcdCluster, Security, SharedEtcd
from tests.support.local_world import CLI_TIMEOUT_S, Finished, run_cli

pytestmark = pytest.mark.asyncio(loop_scope="session")
NOWHERE = "--endpoints=127.0.0.1:1"


def check_one_line(finished: Finished, code: int, *words: str) -> None:
    assert finished.code == code, finished
    assert finished.out == ""
    lines = finished.err.splitlines()
    assert len(lines) == 1, finished.err
    assert lines[0].startswith("etcsched: ")
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("jobs", "list"),
        ("jobs", "trigger", "x"),
        ("doctor",),
        ("runs", "wait", "a/b"),
        ("runs", "logs", "-f", "a/b"),
        ("top",),
        ("audit", "--live"),
    ],
)
async def test_an_etcd_that_isnt_there(command: tuple[str, ...]) -> None:
    check_one_line(await run_cli(NOWHERE, "--timeout=1s", *command), 3, "127.0.0.1:1")


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (("jobs", "trigger", "no_such_job"), 4, ("no_such_job",)),
        (("jobs", "show", "no_such_job"), 4, ("no_such_job",)),
        (("jobs", "pause", "no_such_job"), 4, ("no_such_job",)),
        (("runs", "show", "job/no_such_run"), 4, ("job/no_such_run",)),
        (("runs", "cancel", "job/no_such_run"), 4, ("job/no_such_run",)),
        (("runs", "wait", "job/no_such_run"), 4, ("job/no_such_run",)),
        (("runs", "show", "no_slash"), 2, ("no_slash",)),
        (("agents", "drain", "no_such_agent"), 4, ("no_such_agent",)),
        (("apply", "/no/such/file.yaml"), 2, ("/no/such/file.yaml",)),
        (("--prefix=wrong", "status"), 2, ("wrong",)),
        (("--timeout=soon", "status"), 2, ("--timeout",)),
        (("--user=someone", "status"), 2, ("ETCSCHED_PASSWORD",)),
        (("--config=/no/such/config", "status"), 2, ("/no/such/config",)),
        (("--cacert=/no/such.pem", "--endpoints=https://h:1", "status"), 2, ("/no/such.pem",)),
    ],
)
async def test_what_isnt_there(
    cluster: Scene, command: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    finished = await cluster.cli(*command)
    check_one_line(finished, code, *words)
    cluster.is_settled = True


async def test_a_job_file_with_mistakes(cluster: Scene, tmp_path: Path) -> None:
    """Every mistake has its line; nothing is applied."""
    file = tmp_path / "jobs.yaml"
    file.write_text(
        "jobs:\n"
        "  flawed:\n"
        "    run: {exec: ['true']}\n"
        "    state: ad_hoc_active\n"
        "    pirority: 3\n"
        "  two: {state: ad_hoc_active}\n"
    )
    finished = await cluster.cli("apply", str(file))
    assert finished.code == 2
    first, second = finished.err.splitlines()
    assert first.startswith(f"{file}:5: jobs.flawed")
    assert "priority" in first
    assert second.startswith(f"{file}:6: jobs.two")
    assert "run" in second
    refused = await cluster.cli("jobs", "show", "flawed")
    assert refused.code == 4
    cluster.is_settled = True


async def test_a_command_that_doesnt_exist() -> None:
    finished = await run_cli("job", "list")
    assert finished.code == 2
    assert "did you mean jobs?" in finished.err
    assert "Traceback" not in finished.err


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def locked(
    etcd_binary: EtcdBinary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EtcdCluster]:
    """TLS and passwords."""
    etcd = EtcdCluster(
        etcd_binary, tmp_path_factory.mktemp("locked"), security=Security.TLS, authentication=True
    )
    await etcd.start()
    yield etcd
    await etcd.stop()


def options(etcd: EtcdCluster, **changes: str) -> list[str]:
    assert etcd.authority is not None
    chosen = {"endpoints": etcd.endpoints[0], "cacert": str(etcd.authority.cert), **changes}
    return [f"--{name}={value}" for name, value in chosen.items()]


async def test_wrong_passwords(locked: EtcdCluster) -> None:
    root = options(locked, user="root")
    right = await run_cli(*root, "jobs", "list", env={"ETCSCHED_PASSWORD": "root-password"})
    assert right.code == 0, right
    wrong = await run_cli(*root, "status", env={"ETCSCHED_PASSWORD": "not-it"})
    check_one_line(wrong, 5, "password")
    assert "not-it" not in wrong.err
    nobody = await run_cli(*options(locked), "status")
    check_one_line(nobody, 5, "user")


async def test_wrong_certificates(locked: EtcdCluster, tmp_path: Path) -> None:
    stranger = CertificateAuthority(tmp_path, "a stranger")
    untrusted = await run_cli(*options(locked, cacert=str(stranger.cert)), "status")
    check_one_line(untrusted, 5, "trusted")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    check_one_line(await run_cli(*options(locked, cacert=str(garbage)), "status"), 2, "garbage.pem")
    plain = options(locked, endpoints=locked.endpoints[0].removeprefix("https://"))[:1]
    check_one_line(await run_cli(*plain, "--timeout=2s", "status"), 3, "https://")


@pytest.mark.parametrize("role", ["scheduler", "agent"])
async def test_nodes_that_are_refused_end(locked: EtcdCluster, tmp_path: Path, role: str) -> None:
    """A wrong password isn't waited out."""
    state = [f"--state-dir={tmp_path / 'state'}"]
    finished = await run_cli(
        *options(locked, user="root"), role, "--id=n1", *state,
        env={"ETCSCHED_PASSWORD": "not-it"},
    )  # fmt: skip
    assert finished.code == 5, finished
    last = finished.err.splitlines()[-1]
    assert last.startswith("etcsched: ")
    assert "password" in last
    assert "Traceback" not in finished.err


async def test_an_agent_id_that_is_none() -> None:
    check_one_line(await run_cli(NOWHERE, "agent", "--id=no/such"), 2, "no/such")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may name other users")
async def test_an_agent_with_users_at_odds() -> None:
    finished = await run_cli(NOWHERE, "agent", "--id=n1", "--allow-user=a", "--default-user=b")
    check_one_line(finished, 2, "default user b")


@pytest.mark.parametrize(
    ("streams", "says"),
    [("<&-", "no jobs"), (">&- </dev/null", "no jobs"), ("2>&- </dev/null", "")],
    ids=["input", "output", "errors"],
)
async def test_closed_streams(streams: str, says: str) -> None:
    shell = await asyncio.create_subprocess_shell(
        f"{shlex.join((*COMMAND, 'validate', '-'))} {streams}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await shell.communicate()
    assert shell.returncode == 2
    assert says in err.decode()
    assert "bug:" not in err.decode()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        (disk / "agent").mkdir()
        with contextlib.suppress(OSError), (disk / "filler").open("wb", 0) as filler:
            while True:
                filler.write(bytes(4096))
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.root
async def test_an_agent_whose_disk_is_full_starts_and_says_so(
    etcd: SharedEtcd, full_disk: Path
) -> None:
    where = (f"--endpoints={','.join(etcd.endpoints)}", f"--prefix={etcd.prefix}")
    agent = await asyncio.create_subprocess_exec(
        *COMMAND, *where, "agent", "--id=a", "--listen=off", f"--state-dir={full_disk / 'agent'}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(CLI_TIMEOUT_S):
            log = ""
            while "TTL" not in log:  # Its session is there.
                assert agent.stderr is not None
                line = (await agent.stderr.readline()).decode()
                assert line, log
                log += line
        assert "can't be written" in log
        assert "No space left on device" in log
    finally:
        await end(agent)


async def end(agent: asyncio.subprocess.Process) -> None:
    """With its supervisor, which has its directory open; nobody is there to dismiss it."""
    async with asyncio.timeout(CLI_TIMEOUT_S):
        while agent.returncode is None:
            agent.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(agent.wait(), 0.2)
