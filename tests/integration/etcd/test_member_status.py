"""What members say of themselves to a user who isn't root, on every etcd there is."""

from __future__ import annotations

import asyncio

import pytest

from etcsched.etcd.admin import EtcdAdmin
from etcsched.etcd.binaries import EtcdBinary
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.versions import check_server
from etcsched.keyspace.ops import Put, Txn
from tests.conftest import StartEtcd
from tests.support.etcd_cluster import EtcdCluster, Security, etcd_versions
from tests.support.fetch_etcd import holds_roles

VERSIONS = etcd_versions()


async def client_of_nobody_much(cluster: EtcdCluster, **other: object) -> EtcdClient:
    """A user without any role."""
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as root:
        await EtcdAdmin(root).user_add("somebody", "password")
        await root.txn(Txn((), (Put("a", b"1"),)))
    own = {**cluster.config_kwargs, "user": "somebody", "password": "password", **other}
    return EtcdClient(EtcdConfig(**own))


@pytest.mark.parametrize("binary", VERSIONS, ids=lambda binary: binary.version)
async def test_a_user_without_any_role(start_etcd: StartEtcd, binary: EtcdBinary) -> None:
    cluster = await start_etcd(binary=binary, security=Security.TLS, authentication=True)
    async with await client_of_nobody_much(cluster) as client:
        (status,) = await client.status()
        assert (status.version, status.error) == (binary.version, "")
        assert (status.alarms, status.revision) == ((), 2)
        assert (status.db_size_bytes is None) == holds_roles(binary)
        assert (status.leader_id is None) == holds_roles(binary)
        assert await check_server(client, embedded=False, allow_unfenced_auth=True) == (status,)


async def test_a_member_without_a_leader_is_up(
    start_etcd: StartEtcd, etcd_with_roles: EtcdBinary
) -> None:
    cluster = await start_etcd(binary=etcd_with_roles, members=3, authentication=True)
    one = cluster.endpoints[:1]
    async with await client_of_nobody_much(cluster, endpoints=one) as client:
        (status,) = await client.status()
        assert (status.leader_id, status.alarms) == (None, ())
        cluster.kill(1)
        cluster.kill(2)
        async with asyncio.timeout(30):
            while status.leader_id is None:
                (status,) = await client.status()
                assert status.error == ""
        assert status.leader_id == 0
        assert status.alarms is None
        assert status.version == etcd_with_roles.version
