"""etcd's data is put back to what it was, as from a backup, while schedulers and agents run."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from etcsched.core.records import Kind
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Put, Txn
from tests.conftest import StartEtcd
from tests.support.local_world import LocalWorld

PATIENCE_S = 60.0
NODES = ("s1", "s2", "a1")
ACCEPT = "--accept-restored-cluster"
OUTLASTS_A_RESTORE_S = 30
ENDS_BEFORE_S = 3


@pytest_asyncio.fixture(params=[ENDS_BEFORE_S, OUTLASTS_A_RESTORE_S])
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, start_etcd: StartEtcd
) -> AsyncIterator[LocalWorld]:
    """Sessions that are over when the backup is there, and such as are still there in it."""
    world = LocalWorld(tmp_path / "world", await start_etcd(), ttl_s=request.param)
    world.add_scheduler("s1", f"--state-dir={tmp_path / 's1'}")
    world.add_scheduler("s2", f"--state-dir={tmp_path / 's2'}", ACCEPT)
    world.add_agent("a1", ACCEPT)
    await world.start()
    await until(world, "a1", "session", "opened")
    await until(world, "s1", "session", "opened")
    await until(world, "s2", "session", "opened")
    await until(world, "s1 s2", "agent a1 has come")
    yield world
    await world.stop()


async def until(world: LocalWorld, nodes: str, *words: str) -> None:
    """All in one line of the log of one of these."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if any(n in nodes.split() and all(w in line for w in words) for n, line in world.log):
                return
            await asyncio.sleep(0.05)


async def fall_back(world: LocalWorld) -> None:
    """What etcd holds now is its backup. All see many revisions more, and then it is put back."""
    etcd = world.etcd
    data = etcd.members[0].data_dir
    backup = data.with_suffix(".backup")
    etcd.kill(0)
    shutil.copytree(data, backup)
    await etcd.restart(0)
    async with EtcdClient(EtcdConfig(**etcd.config_kwargs)) as client:
        for _ in range(100):
            await client.txn(Txn((), (Put("/elsewhere", b""),)))
        seen_by_all = Keys().of(Kind.ORDER, "a1", "nonsense", "1")
        await client.txn(Txn((), (Put(seen_by_all, b""),)))
    # Whoever still looks for etcd has seen nothing that gets lost, and goes on by right.
    for node in NODES:
        await until(world, node, "ignored", seen_by_all)
    etcd.kill(0)
    shutil.rmtree(data)
    backup.rename(data)
    await etcd.restart(0)


async def test_who_has_seen_more_ends_and_says_what_to_do(world: LocalWorld) -> None:
    """Also those that were told to accept it: what they have in memory is of the lost history."""
    await fall_back(world)
    async with asyncio.timeout(PATIENCE_S):
        codes = [await world.nodes[node].wait() for node in NODES]
    assert codes == [5, 5, 5]
    for node in NODES:
        await until(world, node, "etcd is at revision", "restored from a backup", ACCEPT)
    # Started anew, only those that were told go on.
    world.log.clear()
    for node in NODES:
        await world.nodes[node].start()
    assert await world.nodes["s1"].wait() == 5
    await until(world, "s2", "leads: term")
