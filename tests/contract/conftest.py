"""Runs each contract test on the model and on every etcd version there is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from etcsched.etcd.binaries import EtcdBinary
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.testing.model_etcd import ModelEtcd
from etcsched.testing.model_store import ModelStore
from tests.contract.subject import LEAST_TTL_S, Subject
from tests.support.etcd_cluster import EtcdCluster, etcd_versions
from tests.support.tcp_proxy import tcp_proxy

MODEL = "model"
VERSIONS = etcd_versions()
REAL = [pytest.param(binary, id=binary.version, marks=pytest.mark.etcd) for binary in VERSIONS]
_prefix_numbers = itertools.count(1)

ClusterOf = Callable[[EtcdBinary, str], Awaitable[EtcdCluster]]
"""(version, purpose)"""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster_of(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterOf]:
    """One cluster a version and purpose, for the whole session. The replay has its own: it counts
    revisions, and a lease that another test left behind makes one when it expires."""
    clusters: dict[tuple[str, str], EtcdCluster] = {}

    async def start(binary: EtcdBinary, purpose: str) -> EtcdCluster:
        place = (binary.version, purpose)
        if place not in clusters:
            cluster = clusters[place] = EtcdCluster(binary, tmp_path_factory.mktemp(purpose))
            await cluster.start()
        return clusters[place]

    yield start
    for cluster in clusters.values():
        await cluster.stop()


@pytest_asyncio.fixture(params=[MODEL, *REAL])
async def subject(request: pytest.FixtureRequest, cluster_of: ClusterOf) -> AsyncIterator[Subject]:
    prefix = f"/contract/{next(_prefix_numbers)}/"
    if request.param == MODEL:
        yield _model_subject(prefix)
        return
    cluster = await cluster_of(request.param, "contract")

    async def set_no_space(full: bool) -> None:
        action = "ACTIVATE" if full else "DEACTIVATE"
        await cluster.call("/v3/maintenance/alarm", {"action": action, "alarm": "NOSPACE"})

    port = int(cluster.endpoints[0].rpartition(":")[2])
    async with (
        EtcdClient(EtcdConfig(**cluster.config_kwargs)) as direct,
        tcp_proxy(port) as proxy,
        EtcdClient(EtcdConfig(endpoints=(f"127.0.0.1:{proxy.port}",))) as client,
    ):
        yield Subject(client, prefix, asyncio.sleep, proxy.cut, proxy.mend, direct, set_no_space)
        # One that expires during another test would take a revision that it doesn't expect.
        for lease in (await cluster.call("/v3/lease/leases", {})).get("leases", []):
            await direct.lease_revoke(int(lease["ID"]))


def _model_subject(prefix: str) -> Subject:
    store = ModelStore(least_ttl_s=LEAST_TTL_S)
    model = ModelEtcd(store)

    async def let_pass(seconds: float) -> None:
        store.advance(store.now_s + seconds)

    async def cut() -> None:
        model.cut()

    async def mend() -> None:
        model.mend()

    async def set_no_space(full: bool) -> None:
        store.no_space = full

    return Subject(model, prefix, let_pass, cut, mend, ModelEtcd(store), set_no_space)


@pytest_asyncio.fixture(params=REAL)
async def real_client(
    request: pytest.FixtureRequest, cluster_of: ClusterOf
) -> AsyncIterator[EtcdClient]:
    cluster = await cluster_of(request.param, "replay")
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        yield client


@pytest.fixture
def new_prefix() -> Callable[[], str]:
    return lambda: f"/contract/{next(_prefix_numbers)}/"
