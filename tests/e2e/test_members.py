"""An etcd of three members, of which one after the other dies or freezes under load."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from etcsched.core.states import RunState
from etcsched.etcd.binaries import EtcdBinary
from tests.e2e.scene import EVERY_SECOND, Scene, on_three_members

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def trio(
    etcd_binary: EtcdBinary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    directory = tmp_path_factory.mktemp("trio")
    async with on_three_members(etcd_binary, directory) as scene:
        yield scene


async def test_members_die_and_freeze(trio: Scene) -> None:
    etcd = trio.world.etcd
    await trio.apply(
        busy={"run": trio.beats("beats=10"), "cron": EVERY_SECOND, "overlap": "allow"},
        longer={"run": trio.beats("beats=60"), "cron": "*/2 * * * * *", "overlap": "allow"},
    )
    await trio.runs_ended("busy", 2)

    follower = (await etcd.leader() + 1) % 3
    etcd.kill(follower)
    await trio.runs_ended("busy", len(trio.ended("busy")) + 2)
    await etcd.restart(follower)

    leader = await etcd.leader()
    etcd.kill(leader)
    await trio.runs_ended("busy", len(trio.ended("busy")) + 2)
    await etcd.restart(leader)

    leader = await etcd.leader()
    etcd.freeze(leader)
    await trio.runs_ended("busy", len(trio.ended("busy")) + 2)
    etcd.thaw(leader)
    await etcd.wait_healthy()
    await trio.runs_ended("busy", len(trio.ended("busy")) + 1)

    await trio.settle()
    for job in ("busy", "longer"):
        assert {run.state for run in trio.ended(job)} == {RunState.COMPLETED}
