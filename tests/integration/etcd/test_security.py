"""TLS, passwords, roles and certificates against real members."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from etcsched.core.errors import (
    ClusterRefused,
    ClusterUnreachable,
    Refused,
    UnsupportedEtcd,
    UsageError,
)
from etcsched.etcd.admin import Access, EtcdAdmin
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.versions import check_server
from etcsched.keyspace.ops import Put, Range, Txn, WatchBatch
from etcsched.ports import Snapshot
from tests.conftest import StartEtcd
from tests.support.certificates import CertificateAuthority
from tests.support.etcd_cluster import EtcdCluster, Security

A_PUT = Txn((), (Put("a", b"1"),))


async def refused_line(config: EtcdConfig, kind: type[Exception]) -> str:
    async with EtcdClient(config) as client:
        with pytest.raises(kind) as refusal:
            await client.range(Range("a"))
    line = str(refusal.value)
    assert "\n" not in line
    assert "127.0.0.1:" in line
    return line


async def test_tls(start_etcd: StartEtcd, tmp_path: Path) -> None:
    cluster = await start_etcd(security=Security.TLS)
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        assert (await client.txn(A_PUT)).succeeded
    (tmp_path / "other").mkdir()
    stranger = CertificateAuthority(tmp_path / "other", "a stranger")
    line = await refused_line(
        EtcdConfig(endpoints=cluster.endpoints, ca_cert=stranger.cert), ClusterRefused
    )
    assert "isn't trusted" in line
    plain = cluster.endpoints[0].replace("https", "http")
    line = await refused_line(EtcdConfig(endpoints=(plain,)), ClusterUnreachable)
    assert "write https://" in line


async def test_tls_towards_a_plain_server(start_etcd: StartEtcd, tmp_path: Path) -> None:
    cluster = await start_etcd()
    secured = cluster.endpoints[0].replace("http", "https")
    authority = CertificateAuthority(tmp_path)
    line = await refused_line(
        EtcdConfig(endpoints=(secured,), ca_cert=authority.cert), ClusterUnreachable
    )
    assert "plain http" in line


async def test_mutual_tls(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(security=Security.MUTUAL_TLS)
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        assert (await client.txn(A_PUT)).succeeded
    ca_cert = cluster.config_kwargs["ca_cert"]
    line = await refused_line(
        EtcdConfig(endpoints=cluster.endpoints, ca_cert=ca_cert), ClusterRefused
    )
    assert "client certificate" in line
    assert cluster.authority is not None
    cert, key = cluster.authority.issue_client("late", datetime.timedelta(hours=-1))
    line = await refused_line(
        EtcdConfig(endpoints=cluster.endpoints, ca_cert=ca_cert, cert=cert, key=key),
        ClusterRefused,
    )
    assert "turned down the client certificate" in line


async def test_passwords(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(authentication=True)
    kwargs = cluster.config_kwargs
    line = await refused_line(EtcdConfig(**kwargs | {"password": "wrong"}), ClusterRefused)
    assert "check the user and the password" in line
    assert "wrong" not in line
    line = await refused_line(EtcdConfig(endpoints=cluster.endpoints), ClusterRefused)
    assert "give a user and password" in line


async def test_a_password_where_authentication_is_off(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd()
    config = EtcdConfig(endpoints=cluster.endpoints, user="root", password="root-password")
    async with EtcdClient(config) as client:
        admin = EtcdAdmin(client)
        assert (await client.txn(A_PUT)).succeeded
        assert not await admin.auth_enabled()
        await admin.user_add("root", "root-password")
        await admin.role_add("root")
        with pytest.raises(Refused, match="already exists"):
            await admin.role_add("root")
        await admin.user_grant_role("root", "root")
        await admin.auth_enable()
        # Turned on under a running client: it authenticates by itself.
        assert (await client.txn(A_PUT)).succeeded
        assert await admin.auth_enabled()


async def test_expired_tokens_are_renewed(start_etcd: StartEtcd) -> None:
    """A member's restart forgets all its tokens, as their expiry does."""
    cluster = await start_etcd(authentication=True)
    async with (
        EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client,
        client.watch("a", "b") as updates,
    ):
        assert isinstance(await anext(updates), Snapshot)
        for _ in range(2):
            first = await client.txn(A_PUT)
            await cluster.restart(0)
            second = await client.txn(A_PUT)
            assert second.revision == first.revision + 1
            seen: list[int] = []
            while len(seen) < 2:
                batch = await anext(updates)
                assert isinstance(batch, WatchBatch)
                seen += [event.kv.mod_revision for event in batch.events]
            assert seen == [first.revision, second.revision]


async def with_agent_role(cluster: EtcdCluster, password: str | None) -> None:
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        admin = EtcdAdmin(client)
        await admin.role_add("agent")
        await admin.role_grant_permission("agent", Access.READ_WRITE, "mine/", "mine0")
        await admin.user_add("agent", password)
        await admin.user_grant_role("agent", "agent")


async def check_agents_reach(config: EtcdConfig) -> None:
    async with EtcdClient(config) as client:
        assert (await client.txn(Txn((), (Put("mine/a", b""),)))).succeeded
        with pytest.raises(ClusterRefused, match="permission denied"):
            await client.txn(Txn((), (Put("other", b""),)))
        with pytest.raises(ClusterRefused, match="permission denied"):
            await client.range(Range("mine", "other"))
        async with client.watch("mine/", "mine0") as updates:
            assert isinstance(await anext(updates), Snapshot)
        async with client.watch("", "\0", start_revision=1) as updates:
            with pytest.raises(ClusterRefused, match="permission denied"):
                await anext(updates)


async def test_roles_of_a_password_user(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(authentication=True)
    await with_agent_role(cluster, "agent-password")
    await check_agents_reach(
        EtcdConfig(endpoints=cluster.endpoints, user="agent", password="agent-password")
    )


async def test_roles_of_a_certificate_user(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(security=Security.MUTUAL_TLS, authentication=True)
    await with_agent_role(cluster, None)
    assert cluster.authority is not None
    cert, key = cluster.authority.issue_client("agent")
    ca_cert = cluster.config_kwargs["ca_cert"]
    await check_agents_reach(
        EtcdConfig(endpoints=cluster.endpoints, ca_cert=ca_cert, cert=cert, key=key)
    )


async def test_authentication_that_fences_nothing_stops_a_node(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(authentication=True)
    if cluster.binary.version_tuple >= (3, 5, 30):
        pytest.skip("this etcd enforces roles in transactions")
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        with pytest.raises(UnsupportedEtcd, match="doesn't enforce roles"):
            await check_server(client, embedded=False)
        await check_server(client, embedded=False, allow_unfenced_auth=True)


def test_certificates_and_plain_http_dont_go_together(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    with pytest.raises(UsageError, match="plain http"):
        EtcdConfig(endpoints=("http://127.0.0.1:1",), ca_cert=authority.cert)
