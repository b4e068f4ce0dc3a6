"""Users and roles that are changed under running clients of a real member."""

from __future__ import annotations

import asyncio
import base64

import pytest

from etcsched.core.errors import PermissionDenied
from etcsched.etcd.admin import Access, EtcdAdmin
from etcsched.etcd.binaries import EtcdBinary
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.ops import Put, Range, Txn
from etcsched.ports import Snapshot
from tests.conftest import StartEtcd
from tests.integration.etcd.test_security import with_agent_role
from tests.support.etcd_cluster import EtcdCluster, Security

CHANGES = 150
PASSWORD = "agent-password"
DENIED = "permission denied; grant this user"


async def clusters_agent(
    start_etcd: StartEtcd, binary: EtcdBinary
) -> tuple[EtcdCluster, EtcdConfig, EtcdConfig]:
    """``mine/`` is the user's, who gets in by a password, or by a certificate."""
    cluster = await start_etcd(binary=binary, security=Security.MUTUAL_TLS, authentication=True)
    await with_agent_role(cluster, PASSWORD)
    assert cluster.authority is not None
    cert, key = cluster.authority.issue_client("agent")
    shown = cluster.config_kwargs | {"user": None, "password": None, "cert": cert, "key": key}
    told = cluster.config_kwargs | {"user": "agent", "password": PASSWORD}
    return cluster, EtcdConfig(**told), EtcdConfig(**shown)


async def revoke(cluster: EtcdCluster, key: str, range_end: str) -> None:
    ends = {"key": key, "range_end": range_end}
    ends = {name: base64.b64encode(text.encode()).decode() for name, text in ends.items()}
    await cluster.call("/v3/auth/role/revoke", {"role": "agent", **ends})


async def test_calls_go_through_while_roles_are_changed(
    start_etcd: StartEtcd, etcd_with_roles: EtcdBinary
) -> None:
    cluster, by_password, by_certificate = await clusters_agent(start_etcd, etcd_with_roles)
    is_over = asyncio.Event()

    async def work(client: EtcdClient, key: str) -> int:
        done = 0
        while not is_over.is_set():
            assert (await client.txn(Txn((), (Put(key, b""),)))).succeeded
            assert (await client.range(Range("mine/", "mine0"))).kvs
            lease = await client.lease_grant(60)
            await client.lease_keepalive_once(lease.lease)
            await client.lease_revoke(lease.lease)
            done += 1
        return done

    async with (
        EtcdClient(EtcdConfig(**cluster.config_kwargs)) as root,
        EtcdClient(by_password) as told,
        EtcdClient(by_certificate) as shown,
        asyncio.TaskGroup() as tasks,
    ):
        workers = [
            tasks.create_task(work(client, f"mine/{number}"))
            for number, client in enumerate((told, shown) * 3)
        ]
        for _ in range(CHANGES):
            await EtcdAdmin(root).role_grant_permission("agent", Access.READ, "more/", "more0")
            await revoke(cluster, "more/", "more0")
        is_over.set()
    assert min(worker.result() for worker in workers) > 10


async def test_a_permission_that_is_taken_away_fails_at_once(
    start_etcd: StartEtcd, etcd_with_roles: EtcdBinary
) -> None:
    """By the error that says so, from each call and from a watch that has to begin again."""
    cluster, by_password, by_certificate = await clusters_agent(start_etcd, etcd_with_roles)
    calls: list[str] = []
    for config in (by_password, by_certificate):
        calls.clear()
        client = EtcdClient(config, on_call=lambda name, _s, _failed: calls.append(name))
        async with client, client.watch("mine/", "mine0") as updates:
            assert isinstance(await anext(updates), Snapshot)
            await client.txn(Txn((), (Put("mine/a", b""),)))
            await anext(updates)
            await revoke(cluster, "mine/", "mine0")
            calls.clear()
            with pytest.raises(PermissionDenied, match=DENIED):
                await client.txn(Txn((), (Put("mine/a", b""),)))
            with pytest.raises(PermissionDenied, match=DENIED):
                await client.range(Range("mine/", "mine0"))
            await cluster.restart(0)
            with pytest.raises(PermissionDenied, match=DENIED):
                await anext(updates)
        assert calls == ["Txn", "Range"]
        async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as root:
            admin = EtcdAdmin(root)
            await admin.role_grant_permission("agent", Access.READ_WRITE, "mine/", "mine0")
