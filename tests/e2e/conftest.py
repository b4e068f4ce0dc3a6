"""Clusters for the scenarios: one for all that it survives whole, others for single tests."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from etcsched.etcd.binaries import EtcdBinary
from tests.conftest import scene_of
from tests.e2e.scene import Scene
from tests.support.etcd_cluster import EtcdCluster
from tests.support.fetch_etcd import holds_roles

SCHEDULERS = ("s1", "s2", "s3")
AGENTS = ("a1", "a2", "a3")


class Stage:
    """The scene that tests share. One that a test left unsettled isn't used again."""

    def __init__(self, binary: EtcdBinary, directory: Path) -> None:
        self._binary = binary
        self._directory = directory
        self._numbers = itertools.count(1)
        self._scene: Scene | None = None

    async def scene(self) -> Scene:
        if self._scene is None:
            directory = self._directory / f"scene{next(self._numbers)}"
            etcd = EtcdCluster(self._binary, directory, authentication=holds_roles(self._binary))
            await etcd.start()
            scene = Scene(directory, etcd)
            for name in SCHEDULERS:
                scene.world.add_scheduler(name)
            for name in AGENTS:
                scene.world.add_agent(name)
            await scene.open()
            self._scene = scene
        return self._scene

    async def clear(self) -> None:
        scene, self._scene = self._scene, None
        if scene is not None:
            await scene.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(
    etcd_for_users: EtcdBinary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    stage = Stage(etcd_for_users, tmp_path_factory.mktemp("stage"))
    yield stage
    await stage.clear()


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """Three schedulers, three agents, an etcd of one member; each node with a user of its own where
    there is an etcd that holds roles. A test ends with ``settle``; the last that plays on the scene
    leaves none behind."""
    scene = await stage.scene()
    scene.begin_test()
    await scene.world.start()
    await scene.all_here()
    yield scene
    if not scene.is_settled or request.node is _last_on_the_scene(request.node):
        await stage.clear()


def _last_on_the_scene(test: pytest.Item) -> pytest.Item:
    scene = scene_of(test.path)
    return [
        item
        for item in test.session.items
        if scene_of(item.path) == scene and "cluster" in getattr(item, "fixturenames", ())
    ][-1]
