"""An etcd that answers, but late: disks that take their time, and members that are defragmented."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from etcsched.core.states import RunState
from etcsched.etcd.admin import EtcdAdmin
from etcsched.etcd.binaries import EtcdBinary
from etcsched.keyspace.ops import Delete, Put, Txn
from tests.e2e.history import PATIENCE_S
from tests.e2e.scene import EVERY_SECOND, Scene, on_three_members
from tests.support.etcd_cluster import TEST_OPTIONS, certainly
from tests.support.slow_calls import slow_disk

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def trio(
    etcd_binary: EtcdBinary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    directory = tmp_path_factory.mktemp("trio")
    options = msgspec.structs.replace(TEST_OPTIONS, fsync=True)
    async with on_three_members(etcd_binary, directory, options) as scene:
        yield scene


@contextlib.asynccontextmanager
async def slow_disks(scene: Scene, *members: int, sync_s: float) -> AsyncIterator[None]:
    etcd = scene.world.etcd
    async with contextlib.AsyncExitStack() as stack:
        for index in members:
            log = scene.world.directory / f"disk-{index}-{sync_s}"
            await stack.enter_async_context(slow_disk(etcd.members[index].pid, log, sync_s=sync_s))
            stack.callback(etcd.on_fault, f"etcd {index}", "")
            etcd.on_fault(f"etcd {index}", f"an fsync of member {index} took {sync_s:g} s longer")
        yield


async def sizes(scene: Scene) -> list[int]:
    """Of each member's database, in bytes."""
    return [status.db_size_bytes or 0 for status in await scene.etcd.status()]


async def nobody_leads(scene: Scene) -> None:
    async with asyncio.timeout(60):
        while any(status.leader_id for status in await scene.etcd.status()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # etcd tells nobody by itself.


async def more_ended(scene: Scene, job: str, count: int, within_s: float = PATIENCE_S) -> None:
    await scene.runs_ended(job, len(scene.ended(job)) + count, within_s)


@contextlib.asynccontextmanager
async def under_load(scene: Scene, job: str) -> AsyncIterator[None]:
    """A run begins each second; afterwards that goes on, and nothing has gone wrong."""
    await scene.apply(
        **{job: {"run": scene.beats("beats=10"), "cron": EVERY_SECOND, "overlap": "allow"}}
    )
    await scene.runs_ended(job, 2)
    yield
    await more_ended(scene, job, 2)
    await scene.settle(within_s=60)
    assert {run.state for run in scene.ended(job)} == {RunState.COMPLETED}


async def test_every_disk_is_slow(trio: Scene) -> None:
    async with under_load(trio, "slow"), slow_disks(trio, 0, 1, 2, sync_s=0.1):
        await more_ended(trio, "slow", 3)


async def test_disks_are_slower_than_an_election(trio: Scene) -> None:
    """Each fsync takes two election timeouts, a vote is fsynced as well: nobody leads etcd."""
    etcd = trio.world.etcd
    leader = await etcd.leader()
    async with under_load(trio, "slower"), slow_disks(trio, 0, 1, 2, sync_s=1.0):
        # Its heartbeats need no disk: as long as it is heard it may go on to lead.
        etcd.freeze(leader)
        try:
            await nobody_leads(trio)
        finally:
            etcd.thaw(leader)


async def test_the_leaders_disk_stands_still(trio: Scene) -> None:
    """It sends its heartbeats all the same, and so goes on to lead, with a commit in 2 s."""
    leader = trio.world.etcd.leader
    async with under_load(trio, "stands"), slow_disks(trio, await leader(), sync_s=1.0):
        await more_ended(trio, "stands", 1, within_s=60)


async def test_members_are_defragmented_under_load(trio: Scene) -> None:
    """Each answers nothing meanwhile."""
    async with under_load(trio, "compacted"):
        for number in range(100):
            await certainly(trio.etcd, Txn((), (Put(f"/other/{number}", bytes(1_000_000)),)))
        deleted = await certainly(trio.etcd, Txn((), (Delete("/other/", "/other0"),)))
        compaction = {"revision": deleted.revision, "physical": True}
        await trio.world.etcd.call("/v3/kv/compaction", compaction)
        before = await sizes(trio)
        for connection in trio.etcd.connections:
            await EtcdAdmin(trio.etcd).defragment(connection)
            await more_ended(trio, "compacted", 1)
        for smaller, larger in zip(await sizes(trio), before, strict=True):
            assert smaller < larger / 2
