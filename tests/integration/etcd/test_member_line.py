"""What the end of an idle connection says, by a listener that ends it as it is told."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest

from etcsched.core.outage import Sight
from etcsched.etcd.client import Effect, EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.connection import Rpc
from etcsched.etcd.member_line import MemberLine
from etcsched.etcd.stubs import rpc_pb2
from tests.conftest import StartEtcd

LIMIT_S = 2.0


def in_order(connection: socket.socket) -> None:
    """As the kernel of a killed process does it."""
    connection.close()


def by_reset(connection: socket.socket) -> None:
    """As a firewall can do it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize(("end", "sight"), [(in_order, Sight.DOWN), (by_reset, Sight.UNKNOWN)])
async def test_only_an_orderly_end_counts(
    end: Callable[[socket.socket], None], sight: Sight
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    ended = asyncio.Event()
    line = MemberLine(1, (), EtcdConfig(), ended)
    try:
        assert await line.look(LIMIT_S) is Sight.UNKNOWN, "never seen"
        await line.connect("127.0.0.1", listener.getsockname()[1])
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        listener.close()
        end(connection)
        async with asyncio.timeout(LIMIT_S):
            await ended.wait()
        assert await line.look(LIMIT_S) is sight
    finally:
        await line.close()


async def test_a_listener_that_outlives_its_connections_for_a_moment() -> None:
    """A killed process's connections end one after the other, and its listener among them."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    ended = asyncio.Event()
    line = MemberLine(1, (), EtcdConfig(), ended)
    try:
        await line.connect("127.0.0.1", listener.getsockname()[1])
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        connection.close()
        async with asyncio.timeout(LIMIT_S):
            await ended.wait()
        assert await line.look(LIMIT_S) is Sight.UNKNOWN, "it listens, but doesn't answer"
        listener.close()
        assert await line.look(LIMIT_S) is Sight.DOWN
    finally:
        await line.close()


@pytest.mark.parametrize("outlives", [True, False])
async def test_a_member_that_is_killed_right_after_it_answered(
    monkeypatch: pytest.MonkeyPatch, outlives: bool
) -> None:
    """The end of its connection is noticed only then; the listener may outlive both."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    ended = asyncio.Event()
    line = MemberLine(1, (), EtcdConfig(), ended)

    async def answer_and_die(_limit_s: float) -> Sight:
        if ended.is_set():
            return Sight.UNKNOWN
        connection.close()
        if not outlives:
            listener.close()
        await ended.wait()
        return Sight.HAS_LEADER

    monkeypatch.setattr(line, "_ask", answer_and_die)
    try:
        await line.connect("127.0.0.1", listener.getsockname()[1])
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        assert await line.look(LIMIT_S) is Sight.UNKNOWN
        listener.close()
        assert await line.look(LIMIT_S) is Sight.DOWN
    finally:
        await line.close()


async def test_a_connection_that_fails_is_made_at_the_next_look(
    start_etcd: StartEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing would ever be proven of that member again."""
    etcd = await start_etcd()
    config = EtcdConfig(**etcd.config_kwargs)
    async with EtcdClient(config) as client:
        members = (
            await client.call(
                Rpc.MEMBER_LIST, rpc_pb2.MemberListRequest(), effect=Effect.NONE, timeout_s=5
            )
        ).members
    line = MemberLine(members[0].ID, tuple(members[0].clientURLs), config, asyncio.Event())
    try:
        assert await line.hold() == ""
        line._drop()
        with monkeypatch.context() as patch:
            patch.setattr(line, "connect", _too_slow)
            assert await line.look(LIMIT_S) is Sight.UNKNOWN
        assert not line.is_held
        assert await line.look(LIMIT_S) is Sight.HAS_LEADER
        assert line.is_held
    finally:
        await line.close()


async def _too_slow(_host: str, _port: int) -> None:
    raise TimeoutError


async def test_a_refusal_alone_says_nothing() -> None:
    """The connection stands; new ones are refused."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    line = MemberLine(1, (), EtcdConfig(), asyncio.Event())
    try:
        await line.connect("127.0.0.1", listener.getsockname()[1])
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        listener.close()
        assert await line.look(LIMIT_S) is Sight.UNKNOWN
        connection.close()
    finally:
        await line.close()
