"""The cluster fixture and the embedded etcd hold what other tests build on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import urllib.error
from pathlib import Path

import pytest

from etcsched.core.errors import EtcschedError, UsageError
from etcsched.etcd.binaries import EtcdBinary
from etcsched.etcd.embedded import EmbeddedEtcd, EtcdOptions
from tests.conftest import StartEtcd
from tests.support.etcd_cluster import TEST_OPTIONS, Security, SharedEtcd


async def test_shared_etcd_serves(etcd: SharedEtcd) -> None:
    assert len(etcd.endpoints) == 1
    await etcd.cluster.wait_healthy()


@pytest.mark.parametrize("security", Security)
@pytest.mark.parametrize("authentication", [False, True])
async def test_each_security(
    start_etcd: StartEtcd, security: Security, authentication: bool
) -> None:
    cluster = await start_etcd(security=security, authentication=authentication)
    answer = await cluster.call("/v3/kv/range", {"key": "YQ=="})
    assert int(answer["header"]["revision"]) >= 1
    if authentication:
        with pytest.raises(urllib.error.HTTPError):
            cluster._post("/v3/kv/range", {"key": "YQ=="}, {}, 0)


async def test_three_members_survive_a_freeze_and_a_kill(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(members=3)
    leader = await cluster.leader()
    follower = (leader + 1) % 3
    cluster.freeze(follower)
    await cluster.wait_healthy(leader)
    cluster.thaw(follower)
    await cluster.wait_healthy(follower)
    cluster.kill(leader)
    await cluster.wait_healthy(follower)
    assert await cluster.leader() != leader
    await cluster.restart(leader)
    await cluster.wait_healthy()


async def test_data_and_endpoints_outlive_a_restart(
    etcd_binary: EtcdBinary, tmp_path: Path
) -> None:
    etcd = EmbeddedEtcd(etcd_binary, tmp_path, options=TEST_OPTIONS)
    await etcd.start()
    database = etcd.members[0].data_dir / "member" / "snap" / "db"
    inode = database.stat().st_ino
    await etcd.stop()
    again = EmbeddedEtcd(etcd_binary, tmp_path, options=TEST_OPTIONS)
    async with again:
        assert again.endpoints == etcd.endpoints
        assert database.stat().st_ino == inode


async def test_start_refuses_data_and_ports_in_use(etcd_binary: EtcdBinary, tmp_path: Path) -> None:
    async with EmbeddedEtcd(etcd_binary, tmp_path / "a", options=TEST_OPTIONS) as running:
        with pytest.raises(EtcschedError, match="in use by another running etcd"):
            await EmbeddedEtcd(etcd_binary, tmp_path / "a").start()
        port = int(running.endpoints[0].rpartition(":")[2])
        with pytest.raises(EtcschedError, match=f"port {port} on 127.0.0.1 is in use"):
            await EmbeddedEtcd(etcd_binary, tmp_path / "b", client_ports=(port,)).start()


async def test_start_tells_why_etcd_ended(etcd_binary: EtcdBinary, tmp_path: Path) -> None:
    options = EtcdOptions(extra_arguments=("--election-timeout=1",))
    with pytest.raises(EtcschedError, match=r"ended with exit code 1: .*election.*log: "):
        await EmbeddedEtcd(etcd_binary, tmp_path, options=options).start()


async def test_another_number_of_members_is_refused(
    etcd_binary: EtcdBinary, tmp_path: Path
) -> None:
    async with EmbeddedEtcd(etcd_binary, tmp_path, options=TEST_OPTIONS):
        pass
    with pytest.raises(UsageError, match="cluster of 1 members, not of 3"):
        await EmbeddedEtcd(etcd_binary, tmp_path, members=3).start()


async def test_failure_names_the_member(etcd_binary: EtcdBinary, tmp_path: Path) -> None:
    async with EmbeddedEtcd(etcd_binary, tmp_path, options=TEST_OPTIONS) as etcd:
        etcd.members[0].signal(signal.SIGKILL)
        assert "etcd0 was ended by SIGKILL" in await etcd.wait_failed()


ORPHAN_MAKER = """
import asyncio, os, sys
from pathlib import Path
from etcsched.etcd.binaries import probe_etcd
from etcsched.etcd.embedded import EmbeddedEtcd

async def main():
    etcd = EmbeddedEtcd(probe_etcd(Path(sys.argv[1])), Path(sys.argv[2]))
    await etcd.start()
    print(etcd.members[0].pid, flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def test_dies_with_its_parent(etcd_binary: EtcdBinary, tmp_path: Path) -> None:
    parent = subprocess.run(
        [sys.executable, "-c", ORPHAN_MAKER, etcd_binary.path, tmp_path],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    wait_until_gone(int(parent.stdout))


def wait_until_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], 10)
        assert ready, f"etcd {pid} outlived its parent"
    finally:
        os.close(descriptor)
