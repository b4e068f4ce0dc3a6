"""Certificates that are replaced under everything that a node has open to a real member."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from etcsched.core.errors import ClusterUnreachable
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.session import Session, SessionLoss, boottime_s
from etcsched.keyspace.ops import Put, Txn, TxnResult, WatchBatch
from etcsched.ports import Snapshot
from tests.conftest import StartEtcd
from tests.support.etcd_cluster import Security

A_PUT = Txn((), (Put("a", b"1"),))
TTL_S = 8
WITHIN_S = 20.0
REPLACED = "the certificate files for etcd were replaced"


async def when_reached(call: Callable[[], Awaitable[TxnResult]]) -> TxnResult:
    """Again while there is no connection."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await call()
            except ClusterUnreachable:
                await asyncio.sleep(0.1)


async def test_all_goes_on_by_new_certificates(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(security=Security.MUTUAL_TLS)
    config = EtcdConfig(**cluster.config_kwargs)
    losses: list[SessionLoss] = []
    renewals: asyncio.Queue[float] = asyncio.Queue()
    session = Session(
        config, ttl_s=TTL_S, on_renewed=renewals.put_nowait, on_lost=losses.append,
        stall_limit_s=600.0,
    )  # fmt: skip
    async with EtcdClient(config) as client, client.watch("a", "b") as updates, session:
        assert isinstance(await anext(updates), Snapshot)
        for _ in range(2):
            cluster.replace_certificates()
            await cluster.restart(0)
            result = await when_reached(lambda: client.txn(A_PUT))
            async with asyncio.timeout(WITHIN_S):
                while (batch := await anext(updates)).revision < result.revision:
                    pass
                assert isinstance(batch, WatchBatch)
                assert [event.kv.mod_revision for event in batch.events] == [result.revision]
                last_of_before_s = boottime_s() + TTL_S
                while await renewals.get() < last_of_before_s:
                    pass
    assert not losses


async def test_what_is_connected_is_left_alone(
    start_etcd: StartEtcd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cluster = await start_etcd(security=Security.MUTUAL_TLS)
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        first = await client.txn(A_PUT)
        cluster.replace_certificates()
        second = await client.txn(A_PUT)
        assert second.revision == first.revision + 1
    assert REPLACED not in caplog.text


async def test_half_replaced_files_are_waited_for(
    start_etcd: StartEtcd, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = await start_etcd(security=Security.MUTUAL_TLS)
    config = EtcdConfig(**cluster.config_kwargs)
    assert config.key is not None
    async with EtcdClient(config) as client:
        await client.txn(A_PUT)
        old_key = config.key.read_bytes()
        cluster.replace_certificates()
        new_key = config.key.read_bytes()
        config.key.write_bytes(old_key)
        await cluster.restart(0)
        for _ in range(3):
            with pytest.raises(ClusterUnreachable, match="key doesn't belong to"):
                await client.txn(A_PUT)
        assert caplog.text.count(REPLACED) == 1
        assert "going on with those before" in caplog.text
        config.key.write_bytes(new_key)
        await when_reached(lambda: client.txn(A_PUT))


async def test_a_session_begins_again_on_files_that_are_back(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(security=Security.MUTUAL_TLS)
    config = EtcdConfig(**cluster.config_kwargs)
    assert config.key is not None
    aside = config.key.rename(config.key.with_suffix(".aside"))
    session = Session(config, ttl_s=TTL_S)
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(ClusterUnreachable, match="can't be read"):
            await session.start()
        await session.stop()
        aside.rename(config.key)
        async with Session(config, ttl_s=TTL_S):
            pass
