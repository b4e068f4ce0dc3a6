"""What the end of an idle connection says, by a listener that ends it as it is told, or by one that
stands in front of a real member."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from etcsched.core.outage import Sight
from etcsched.etcd import member_line
from etcsched.etcd.client import Effect, EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.connection import Rpc
from etcsched.etcd.member_line import MemberLine
from etcsched.etcd.ports import ReservedPort
from etcsched.etcd.stubs import rpc_pb2
from tests.support.etcd_cluster import SharedEtcd

LIMIT_S = 2.0
BRIEFLY_S = 0.3
"""Where no answer comes."""


class _Trusting(MemberLine):
    """Whoever listens there is its member: a listener can't say so."""

    async def _identify(self, _config: EtcdConfig) -> None:
        pass


def line_to(listener: socket.socket, ended: asyncio.Event | None = None) -> MemberLine:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    return _Trusting(1, (url,), EtcdConfig(), ended or asyncio.Event())


class Door:
    """Stands in front of a member, as the process that the kernel ends when it is killed."""

    def __init__(self, inside: tuple[str, int]) -> None:
        self._inside = inside
        self._reserved = ReservedPort.any_free()
        self.url = f"http://127.0.0.1:{self._reserved.port}"
        self.open()

    def open(self) -> None:
        """What connects waits to be let in."""
        self._listener = socket.create_server(("127.0.0.1", self._reserved.port))
        self._listener.setblocking(False)
        self._entering: asyncio.Task[None] | None = None
        self._let_in: dict[socket.socket, asyncio.Task[None]] = {}

    async def close(self) -> None:
        await self.kill()
        self._reserved.release()

    async def let_in(self, limit: int | None = None) -> None:
        """From now on, until so many are in."""
        await self.let_nobody_in()
        self._entering = asyncio.create_task(self._enter(limit))

    async def kill(self) -> None:
        """Who is in is ended in order, who waits is reset, who comes is refused."""
        await self.let_nobody_in()
        for relay in self._let_in.values():
            relay.cancel()
        await asyncio.gather(*self._let_in.values(), return_exceptions=True)
        for connection in self._let_in:
            connection.close()
        self._listener.close()

    async def let_nobody_in(self) -> None:
        if self._entering is not None:
            self._entering.cancel()
            await asyncio.wait([self._entering])

    async def _enter(self, limit: int | None) -> None:
        while limit is None or limit > 0:
            connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            self._let_in[connection] = asyncio.create_task(self._relay(connection))
            limit = None if limit is None else limit - 1

    async def _relay(self, connection: socket.socket) -> None:
        with socket.create_connection(self._inside) as inner:
            inner.setblocking(False)
            await asyncio.gather(_copy(connection, inner), _copy(inner, connection))


async def _copy(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(source, 2**16):
            await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)


@contextlib.asynccontextmanager
async def door_and_line(etcd: SharedEtcd) -> AsyncIterator[tuple[Door, MemberLine]]:
    async with EtcdClient(EtcdConfig(**etcd.config_kwargs)) as client:
        (member,) = (
            await client.call(
                Rpc.MEMBER_LIST, rpc_pb2.MemberListRequest(), effect=Effect.NONE, timeout_s=5
            )
        ).members
    host, port = etcd.endpoints[0].removeprefix("http://").split(":")
    door = Door((host, int(port)))
    line = MemberLine(member.ID, (door.url,), EtcdConfig(), asyncio.Event())
    try:
        yield door, line
    finally:
        await line.close()
        await door.close()


async def until_ended(line: MemberLine) -> None:
    async with asyncio.timeout(LIMIT_S):
        await line._ended.wait()
    assert line.is_ended


async def killed_and_back(door: Door, line: MemberLine) -> None:
    """Held, killed, and listening again."""
    await door.let_in()
    assert await line.hold() == ""
    await door.kill()
    await until_ended(line)
    door.open()


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
    line = line_to(listener, ended)
    try:
        assert await line.look(LIMIT_S) is Sight.UNKNOWN, "never seen"
        assert await line.hold() == ""
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
    line = line_to(listener, ended)
    try:
        assert await line.hold() == ""
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        connection.close()
        async with asyncio.timeout(LIMIT_S):
            await ended.wait()
        assert await line.look(BRIEFLY_S) is Sight.UNKNOWN, "it listens, but doesn't answer"
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
    line = line_to(listener, ended)

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
        assert await line.hold() == ""
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        assert await line.look(LIMIT_S) is Sight.UNKNOWN
        listener.close()
        assert await line.look(LIMIT_S) is Sight.DOWN
    finally:
        await line.close()


async def test_a_connection_that_waits_to_be_accepted_is_not_held(
    etcd: SharedEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be reset, not ended in order, if its member were killed now."""
    monkeypatch.setattr(member_line, "_IDENTIFY_S", BRIEFLY_S)
    async with door_and_line(etcd) as (door, line):
        await door.let_in(1)
        assert await line.hold() != ""
        assert not line.is_held
        monkeypatch.undo()
        await door.let_in()
        assert await line.hold() == ""
        await door.kill()
        await until_ended(line)
        assert await line.look(LIMIT_S) is Sight.DOWN


async def test_a_member_that_is_killed_before_it_accepted_the_new_connection(
    etcd: SharedEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was back, and may have answered over others; what proves it down is what was there."""
    opened = asyncio.Event()

    async def open_behind_a_shut_door(
        host: str, port: int
    ) -> tuple[asyncio.Transport, member_line._Idle]:
        await door.let_nobody_in()
        opened.set()
        return await really_open(host, port)

    really_open = member_line._open
    async with door_and_line(etcd) as (door, line):
        await door.let_in()
        assert await line.hold() == ""
        assert await line.look(LIMIT_S) is Sight.HAS_LEADER
        await door.kill()
        await until_ended(line)
        assert await line.look(LIMIT_S) is Sight.DOWN
        door.open()
        await door.let_in()
        monkeypatch.setattr(member_line, "_open", open_behind_a_shut_door)
        while not opened.is_set():
            await line.look(BRIEFLY_S)
        await door.kill()
        assert await line.look(LIMIT_S) is Sight.DOWN


async def test_a_connection_that_fails_is_made_at_the_next_look(
    etcd: SharedEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing would ever be proven of that member again."""
    async with door_and_line(etcd) as (door, line):
        await killed_and_back(door, line)
        await door.let_in()
        with monkeypatch.context() as patch:
            patch.setattr(member_line, "_open", _too_slow)
            assert await line.look(LIMIT_S) is Sight.UNKNOWN
        assert line.is_ended
        assert await line.look(LIMIT_S) is Sight.HAS_LEADER
        assert not line.is_ended


async def _too_slow(_host: str, _port: int) -> None:
    raise TimeoutError


async def test_what_is_begun_anew_stays_until_the_member_answers(
    etcd: SharedEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handshake may take longer than a look."""
    async with door_and_line(etcd) as (door, line):
        await killed_and_back(door, line)
        with monkeypatch.context() as patch:
            patch.setattr(line, "_ask", _no_answer)
            assert await line.look(LIMIT_S) is Sight.UNKNOWN
            begun = line._next, line._connection
            assert await line.look(LIMIT_S) is Sight.UNKNOWN
            assert (line._next, line._connection) == begun
        await door.let_in()
        assert await line.look(LIMIT_S) is Sight.HAS_LEADER
        assert not line.is_ended


async def _no_answer(_limit_s: float) -> Sight:
    return Sight.UNKNOWN


async def test_a_line_that_is_closed_during_a_look() -> None:
    """gRPC cancels the look, which must not end the watch."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    line = line_to(listener)
    try:
        assert await line.hold() == ""
        idle, _ = await asyncio.get_running_loop().sock_accept(listener)
        looking = asyncio.create_task(line.look(LIMIT_S))
        asking, _ = await asyncio.get_running_loop().sock_accept(listener)
        await line.close()
        assert await looking is Sight.UNKNOWN
        assert await line.look(LIMIT_S) is Sight.UNKNOWN
        idle.close()
        asking.close()
    finally:
        await line.close()
        listener.close()


async def test_a_refusal_alone_says_nothing() -> None:
    """The connection stands; new ones are refused."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    line = line_to(listener)
    try:
        assert await line.hold() == ""
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        listener.close()
        assert await line.look(LIMIT_S) is Sight.UNKNOWN
        connection.close()
    finally:
        await line.close()
