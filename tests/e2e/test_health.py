"""Both daemons under a health check: well, cut off from etcd, frozen, and gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.conftest import StartEtcd
from tests.support.local_world import Finished, LocalWorld, run_cli

PATIENCE_S = 60.0
HEALTH_AT = "health and metrics at http://"


@pytest_asyncio.fixture
async def world(tmp_path: Path, start_etcd: StartEtcd) -> AsyncIterator[LocalWorld]:
    world = LocalWorld(tmp_path / "world", await start_etcd())
    world.add_scheduler("s1", "--listen=127.0.0.1:0")
    world.add_agent("a1", "--listen=127.0.0.1:0")
    await world.start()
    yield world
    await world.stop()


async def address_of(world: LocalWorld, node: str) -> str:
    """As its log says."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for name, line in world.log:
                if name == node and HEALTH_AT in line:
                    return line.partition(HEALTH_AT)[2]
            await asyncio.sleep(0.05)


async def health(world: LocalWorld, node: str) -> Finished:
    address = await address_of(world, node)
    return await run_cli("--timeout=2s", "health", "--address", address)


async def until(world: LocalWorld, node: str, code: int, words: str) -> None:
    said: Finished | None = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while said is None or said.code != code or words not in said.out + said.err:
                said = await health(world, node)
    except TimeoutError:
        pytest.fail(f"{node} is not {words!r} ({code}), but {said}")
    assert (said.out + said.err).count("\n") == 1
    assert bool(said.out) == (code == 0)


async def test_well_and_cut_off_and_well_again(world: LocalWorld) -> None:
    await until(world, "s1", 0, "scheduler s1: leads, term 1")
    await until(world, "a1", 0, "agent a1: 0 of 16 slots in use")
    world.etcd.kill(0)
    await until(world, "s1", 1, "scheduler s1: it has no session with etcd")
    await world.etcd.restart(0)
    await until(world, "s1", 0, "scheduler s1: leads")
    await until(world, "a1", 0, "slots in use")
    drained = await world.cli("agents", "drain", "a1")
    assert drained.code == 0, drained
    await until(world, "a1", 0, "agent a1: is drained")


async def test_frozen_and_gone(world: LocalWorld) -> None:
    for node in ("s1", "a1"):
        await until(world, node, 0, node)
        world.freeze(node)
        await until(world, node, 1, "no answer within 2 s")
        world.thaw(node)
        await until(world, node, 0, node)
        await world.kill(node)
        await until(world, node, 1, "no daemon at")


async def test_a_port_that_is_taken(world: LocalWorld) -> None:
    """The one that was asked for ends the daemon."""
    taken = await address_of(world, "s1")
    refused = await world.cli("scheduler", "--id=s2", f"--listen={taken}")
    assert refused.code == 1
    assert f"can't listen on {taken}" in refused.err.splitlines()[-1]
