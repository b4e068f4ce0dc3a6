"""Fixtures for whatever needs a real etcd. A test that asks for one is marked ``etcd``."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling
from xdist.scheduler.protocol import Scheduling

from etcsched.etcd.binaries import EtcdBinary, provide_etcd
from tests.support.etcd_cluster import EtcdCluster, SharedEtcd, etcd_versions
from tests.support.fetch_etcd import holds_roles, is_ci

ETCD_FIXTURES = {
    "etcd_binary", "etcd_with_roles", "etcd_for_users", "shared_cluster", "etcd", "start_etcd",
}  # fmt: skip
# How long an example takes says more about the machine's load than about the code.
TIMELESS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("usual", TIMELESS)
settings.register_profile("thorough", TIMELESS, max_examples=5_000)
settings.load_profile("usual")
LONG = {
    "test_outages", "test_agents", "test_cut_off", "test_lifecycle", "test_retries",
    "test_rounds", "test_schedule_properties", "test_cluster", "test_due",
}  # fmt: skip
"""Files of tests that take a minute or more: begun last, they would end alone."""
SHARED_SCENES = {
    "test_outages": "first", "test_agents": "second", "test_operators": "second",
    "test_retries": "second", "test_failover": "third", "test_lifecycle": "third",
    "test_chains": "third", "test_resubmission": "third", "test_conflicts": "third",
    "test_history": "third", "test_command_line": "third",
}  # fmt: skip
"""Which files of tests play on one scene, in one process: each scene more is a whole cluster that
is started, and that keeps its leases while others compute. About as long as each other."""
_prefix_numbers = itertools.count(1)

StartEtcd = Callable[..., Awaitable[EtcdCluster]]
"""Takes ``EtcdCluster``'s keyword arguments, and ``binary``."""


class ByScene(LoadFileScheduling):  # type: ignore[misc]
    """The tests of one file, or of those that share a scene, run in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return scene_of(Path(nodeid.split("::", 1)[0]))


def scene_of(file: Path) -> str:
    """Of the files that share one the name, of others their own."""
    return SHARED_SCENES.get(file.stem, str(file)) if file.parent.name == "e2e" else str(file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return ByScene(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ETCD_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.etcd)
    items[:] = _side_by_side(items)


def _side_by_side(items: list[pytest.Item]) -> list[pytest.Item]:
    """Files that wait for real clusters and files that compute take turns, those that take longest
    first: so both cores have something to do from beginning to end."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting = sorted((p for p in files if p.parent.name == "e2e"), key=_is_short)
    others = sorted((p for p in files if p.parent.name != "e2e"), key=_is_short)
    turns = itertools.zip_longest(waiting, others)
    return [item for turn in turns for path in turn if path is not None for item in files[path]]


def _is_short(path: Path) -> bool:
    return path.stem not in LONG


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def etcd_binary() -> EtcdBinary:
    """The oldest etcd there is, so that nothing newer is relied on unseen; installed if none."""
    versions = etcd_versions()
    return versions[0] if versions else await provide_etcd(print)


@pytest.fixture(scope="session")
def etcd_with_roles() -> EtcdBinary:
    """The oldest one that holds roles."""
    found = next(filter(holds_roles, etcd_versions()), None)
    if found is None:
        # Under CI a test that can't run is no success.
        give_up = pytest.fail if is_ci() else pytest.skip
        give_up("needs etcd 3.5.30 or later: make test-etcds fetches one")
    return found


@pytest.fixture(scope="session")
def etcd_for_users(etcd_binary: EtcdBinary) -> EtcdBinary:
    """The oldest one that holds roles, for clusters whose nodes have users of their own; where
    there is none, the oldest."""
    return next(filter(holds_roles, etcd_versions()), etcd_binary)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_cluster(
    etcd_binary: EtcdBinary, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EtcdCluster]:
    cluster = EtcdCluster(etcd_binary, tmp_path_factory.mktemp("etcd"))
    await cluster.start()
    yield cluster
    await cluster.stop()


@pytest.fixture
def etcd(shared_cluster: EtcdCluster) -> SharedEtcd:
    """A prefix of its own in the session's single-member etcd: the quick choice."""
    return SharedEtcd(shared_cluster, f"/test/{next(_prefix_numbers)}/")


@pytest_asyncio.fixture
async def start_etcd(etcd_binary: EtcdBinary, tmp_path: Path) -> AsyncIterator[StartEtcd]:
    """Start fresh clusters, which end with the test."""
    clusters: list[EtcdCluster] = []

    async def start(*, binary: EtcdBinary = etcd_binary, **kwargs: Any) -> EtcdCluster:
        cluster = EtcdCluster(binary, tmp_path / f"cluster{len(clusters)}", **kwargs)
        clusters.append(cluster)
        await cluster.start()
        return cluster

    yield start
    for cluster in clusters:
        await cluster.stop()
