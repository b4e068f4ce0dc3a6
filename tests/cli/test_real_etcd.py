"""The installed command against a real etcd: getting in, being kept out, and a first apply."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from etcsched.core.records import Answer, Kind, Record, Run
from etcsched.core.states import Origin, RunState
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Delete, Put, Snapshot, Txn
from tests.cli.console import NOW, job
from tests.conftest import StartEtcd
from tests.support.certificates import CertificateAuthority
from tests.support.etcd_cluster import ROOT_PASSWORD, Security, SharedEtcd, certainly

DEADLINE_S = 60.0


async def etcsched(home: Path, *args: str, **env: str) -> tuple[int, str, str]:
    """(exit code, output, errors)"""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ETCSCHED_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "etcsched_cli",
        *args,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
        env={**inherited, "HOME": str(home), **env},
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert b"Traceback" not in errors
    return process.returncode or 0, output.decode(), errors.decode()


async def test_apply_and_look(etcd: SharedEtcd, tmp_path: Path) -> None:
    where = ["--endpoints", ",".join(etcd.endpoints), "--prefix", etcd.prefix]
    (tmp_path / "jobs.yaml").write_text(
        "jobs: {a: {run: {exec: [/bin/true]}, schedule: {every: 1h}}}\n"
    )
    code, output, errors = await etcsched(tmp_path, *where, "apply", str(tmp_path))
    assert (code, errors) == (0, "")
    assert output.endswith("\n1 created\n")

    code, output, _ = await etcsched(tmp_path, *where, "jobs", "list")
    assert output.splitlines()[1].startswith("a    enabled  every 1h  in ")

    code, _, errors = await etcsched(tmp_path, *where, "--timeout", "3s", "jobs", "trigger", "a")
    assert code == 3
    assert "no leader answered request" in errors


async def test_the_doctor_says_how_much_history_etcd_keeps(
    start_etcd: StartEtcd, tmp_path: Path
) -> None:
    cluster = await start_etcd()
    where = ["--endpoints", ",".join(cluster.endpoints)]
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        for number in range(20):
            last = await client.txn(Txn((), (Put("a", b"%d" % number),)))
        for compacted, text in (
            (0, "20 revisions of history are kept; nothing was ever compacted"),
            (last.revision - 3, "3 revisions of history are kept"),
        ):
            if compacted:
                await client.compact(compacted)
            _, output, _ = await etcsched(tmp_path, *where, "doctor", "--json")
            findings = {f["topic"]: f["text"] for f in json.loads(output)}
            assert findings["etcd compaction"] == text


async def test_nothing_listens(tmp_path: Path) -> None:
    code, output, errors = await etcsched(tmp_path, "--endpoints", "127.0.0.1:1", "status")
    assert (code, output) == (3, "")
    assert errors.startswith("etcsched: etcd can't be reached: 127.0.0.1:1: connection refused")
    assert errors.count("\n") == 1


async def test_a_wrong_password(start_etcd: StartEtcd, tmp_path: Path) -> None:
    cluster = await start_etcd(authentication=True)
    where = ["--endpoints", ",".join(cluster.endpoints), "--user"]
    code, output, errors = await etcsched(tmp_path, *where, "root:wrong", "jobs", "list")
    assert (code, output, errors.count("\n")) == (5, "", 1)
    assert "password" in errors

    code, _, _ = await etcsched(
        tmp_path, *where, "root", "jobs", "list", ETCSCHED_PASSWORD=ROOT_PASSWORD
    )
    assert code == 0


async def test_certificates(start_etcd: StartEtcd, tmp_path: Path) -> None:
    cluster = await start_etcd(security=Security.MUTUAL_TLS)
    given = cluster.config_kwargs
    endpoints = ["--endpoints", ",".join(cluster.endpoints)]
    mine = ["--cert", str(given["cert"]), "--key", str(given["key"])]
    (tmp_path / "other").mkdir()
    other = CertificateAuthority(tmp_path / "other")

    for trusted, code in ((given["ca_cert"], 0), (other.cert, 5)):
        args = [*endpoints, *mine, "--cacert", str(trusted), "jobs", "list"]
        found, _, errors = await etcsched(tmp_path, *args)
        assert (found, errors.count("\n")) == (code, 1 if code else 0), errors

    code, _, errors = await etcsched(
        tmp_path, *endpoints, "--cacert", str(given["ca_cert"]), "jobs", "list"
    )
    assert code in {3, 5}
    assert "client certificate" in errors

    bad = tmp_path / "bad.pem"
    bad.write_text("not a certificate")
    args = [*endpoints, "--cacert", str(bad), "jobs", "list"]
    code, _, errors = await etcsched(tmp_path, *args)
    assert (code, errors) == (
        2,
        f"etcsched: the CA file for etcd, {bad}, isn't in PEM format\n",
    )


async def test_an_agent_kept_out_says_so(start_etcd: StartEtcd, tmp_path: Path) -> None:
    cluster = await start_etcd(authentication=True)
    where = ["--endpoints", ",".join(cluster.endpoints), "--user", "root:wrong"]
    state = ["--state-dir", str(tmp_path / "state")]
    code, _, errors = await etcsched(tmp_path, *where, "agent", *state)
    assert code == 5, errors
    assert "password" in errors


class Asked:
    """A cluster of one job whose leader is the test."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self._keys = Keys()
        self._run = Run(
            job="a", id="r1", state=RunState.READY, origin=Origin.REQUEST, created_at=NOW
        )

    async def has_job(self) -> None:
        await self._put((self._keys.of(Kind.JOB, "a"), job("a")))

    async def answer(self) -> None:
        """The next request: it becomes a run."""
        keys = self._keys
        async with (
            asyncio.timeout(DEADLINE_S),
            self._client.watch(*keys.all_of(Kind.REQUEST)) as updates,
        ):
            async for update in updates:
                kvs = (
                    update.kvs
                    if isinstance(update, Snapshot)
                    else [event.kv for event in update.events]
                )
                for kv in kvs:
                    request = kv.key.removeprefix(keys.of(Kind.REQUEST))
                    answer = Answer(
                        request=request, accepted=True, message="waits", at=NOW, job="a", run="r1"
                    )
                    await self._put(
                        (keys.of(Kind.ANSWER, request), answer),
                        (keys.of(Kind.RUN, "a", "r1"), self._run),
                    )
                    return

    async def end(self) -> None:
        over = replace(self._run, state=RunState.COMPLETED)
        ended = Put(self._keys.archive("a", "r1"), encode(over))
        gone = Delete(self._keys.of(Kind.RUN, "a", "r1"))
        await certainly(self._client, Txn((), (ended, gone)))

    async def _put(self, *records: tuple[str, Record]) -> None:
        puts = tuple(Put(key, encode(record)) for key, record in records)
        await certainly(self._client, Txn((), puts))


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_wait_outlasts_an_etcd_that_goes_away(
    start_etcd: StartEtcd, tmp_path: Path, how: str
) -> None:
    """It says so once, says once that it is back, and tells the run's end."""
    cluster = await start_etcd()
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        leader = Asked(client)
        await leader.has_job()
        waiting = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "etcsched_cli", f"--endpoints={cluster.endpoints[0]}",
            "--timeout=2s", "jobs", "trigger", "a", "--wait",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert waiting.stdout is not None
        assert waiting.stderr is not None
        try:
            async with asyncio.timeout(DEADLINE_S):
                await leader.answer()
                assert await waiting.stdout.readline() == b"a/r1: waits\n"
                if how == "killed":
                    cluster.kill(0)
                else:
                    cluster.freeze(0)
                away = (await waiting.stderr.readline()).decode()
                assert away.startswith("etcsched: etcd can't be reached: 127.0.0.1:")
                assert away.endswith("; still waiting\n")
                if how == "killed":
                    await cluster.restart(0)
                else:
                    cluster.thaw(0)
                back = await waiting.stderr.readline()
                assert back == b"etcsched: etcd can be reached again; still waiting\n"
                await leader.end()
                assert await waiting.communicate() == (b"a/r1: completed\n", b"")
                assert waiting.returncode == 0
        finally:
            if waiting.returncode is None:
                waiting.kill()
                await waiting.wait()
