"""Calls that overlap with a change of etcd's users and roles, at a server that says so of each as
often as a test wants. A real etcd does it too rarely to show more than that nothing else goes
wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from etcsched.core.errors import ClusterUnreachable
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.lease_line import LeaseLine
from etcsched.etcd.stubs import rpc_pb2
from etcsched.keyspace.ops import Put, Range, Txn

FOR_EVER = 10**9
TTL_S = 7


class ChangingAuth:
    """``old`` of the answers to come say that users or roles were just changed."""

    def __init__(self) -> None:
        self.old = 0
        self.asked = 0
        self.tokens: list[str | None] = []
        """What each call came with."""
        self._server = grpc.aio.server()
        lease = rpc_pb2.LeaseGrantResponse(ID=1, TTL=TTL_S)
        kept = rpc_pb2.LeaseKeepAliveResponse(ID=1, TTL=TTL_S)
        self._serve("KV", "Range", rpc_pb2.RangeRequest, rpc_pb2.RangeResponse())
        self._serve("KV", "Txn", rpc_pb2.TxnRequest, rpc_pb2.TxnResponse(succeeded=True))
        self._serve("Lease", "LeaseGrant", rpc_pb2.LeaseGrantRequest, lease)
        self._serve("Lease", "LeaseKeepAlive", rpc_pb2.LeaseKeepAliveRequest, kept)
        self._handle("Auth", "Authenticate", rpc_pb2.AuthenticateRequest, self._authenticate)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoints = (f"127.0.0.1:{port}",)
        self._issued = 0

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    def _serve(self, service: str, method: str, request: Any, response: Any) -> None:
        async def answer(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            metadata = dict(context.invocation_metadata() or ())
            token = metadata.get("token")
            self.tokens.append(token if isinstance(token, str) else None)
            self.asked += 1
            if self.asked <= self.old:
                old = "etcdserver: revision of auth store is old"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, old)
            return response

        self._handle(service, method, request, answer)

    def _handle(
        self, service: str, method: str, request: Any, answer: Callable[..., Awaitable[Any]]
    ) -> None:
        handler: Any = grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        name = f"etcdserverpb.{service}"
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(name, {method: handler}),)
        )

    async def _authenticate(self, _request: Any, _context: Any) -> Any:
        self._issued += 1
        return rpc_pb2.AuthenticateResponse(token=f"token {self._issued}")


@pytest_asyncio.fixture
async def etcd() -> AsyncIterator[ChangingAuth]:
    server = ChangingAuth()
    await server.start()
    yield server
    await server.stop()


def by_certificate(etcd: ChangingAuth) -> EtcdConfig:
    """As far as calls show: without a user there is no token."""
    return EtcdConfig(endpoints=etcd.endpoints)


def by_password(etcd: ChangingAuth) -> EtcdConfig:
    return EtcdConfig(endpoints=etcd.endpoints, user="node", password="secret")


configs = pytest.mark.parametrize("config_of", [by_certificate, by_password])


@configs
async def test_reads_and_writes_go_through_in_the_end(
    etcd: ChangingAuth, config_of: Callable[[ChangingAuth], EtcdConfig]
) -> None:
    async with EtcdClient(config_of(etcd)) as client:
        etcd.old = 3
        await client.range(Range("a"))
        etcd.old = etcd.asked + 3
        assert (await client.txn(Txn((), (Put("a", b""),)))).succeeded
    assert etcd.asked == 8
    if client.config.user is not None:
        assert etcd.tokens == [f"token {n}" for n in (1, 2, 3, 4, 4, 5, 6, 7)]


@configs
async def test_one_that_never_does_waits_in_between_and_has_done_nothing(
    etcd: ChangingAuth, config_of: Callable[[ChangingAuth], EtcdConfig]
) -> None:
    etcd.old = FOR_EVER
    async with EtcdClient(config_of(etcd)) as client:
        with pytest.raises(ClusterUnreachable, match="auth store is old") as failure:
            await client.txn(Txn((), (Put("a", b""),)), timeout_s=1.0)
    assert failure.type is ClusterUnreachable
    assert 2 < etcd.asked <= 20


@configs
async def test_leases_likewise(
    etcd: ChangingAuth, config_of: Callable[[ChangingAuth], EtcdConfig]
) -> None:
    line = LeaseLine(config_of(etcd))
    try:
        etcd.old = 3
        granted = await asyncio.to_thread(line.grant, TTL_S, timeout_s=5.0)
        assert granted.ttl_s == TTL_S
        etcd.old = etcd.asked + 3
        kept = await asyncio.to_thread(line.keep_alive, granted.lease, timeout_s=5.0)
        assert kept.ttl_s == TTL_S
        etcd.old = FOR_EVER
        with pytest.raises(ClusterUnreachable, match="auth store is old"):
            await asyncio.to_thread(line.keep_alive, granted.lease, timeout_s=1.0)
        assert etcd.asked <= 8 + 21
    finally:
        line.close()
