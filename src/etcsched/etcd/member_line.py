"""One member of etcd, looked at over an idle TCP connection and a channel of its own.

A process that is killed has its connections ended by its kernel, in order (FIN), and new ones
refused. A firewall can refuse, too, and can reset a connection, but it can't end one in order. So
the connection stays idle (no byte is ever sent on it), and only its orderly end counts.

A connection that its process hasn't accepted yet is reset when that is killed, though ``connect``
has long returned: it waits in the listener's queue. So one counts only once the member has answered
a call over another that was made after it: the queue is in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import grpc
import grpc.aio
import msgspec

from etcsched.core.errors import EtcschedError
from etcsched.core.outage import Sight
from etcsched.etcd.certificates import Certificates
from etcsched.etcd.client import Effect, EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.connection import HAS_LEADER, Connection, Rpc, is_given_up
from etcsched.etcd.stubs import rpc_pb2

_IDENTIFY_S = 3.0
_CONNECT_S = 3.0
_NO_ANSWER = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    }
)


class _Idle(asyncio.Protocol):
    def __init__(self) -> None:
        self.is_ended_in_order = False
        self.is_over = asyncio.get_running_loop().create_future()

    def eof_received(self) -> bool:
        self.is_ended_in_order = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.is_ended_in_order = False
        if not self.is_over.done():
            self.is_over.set_result(None)


class MemberLine:
    """``urls``: where the member says that clients reach it. ``on_end`` hears of its end."""

    def __init__(
        self, member: int, urls: tuple[str, ...], config: EtcdConfig, ended: asyncio.Event
    ) -> None:
        self.member = member
        self.urls = urls
        self._config = config
        self._certificates = Certificates(config)
        self._ended = ended
        self._idle: _Idle | None = None
        self._transport: asyncio.Transport | None = None
        self._address: Any = None
        self._connection: Connection | None = None
        self._next: tuple[asyncio.Transport, _Idle] | None = None
        """In place of one that ended, once the member has answered; older than ``_connection``."""
        self.why_unknown = ""
        """What the last look lacked, if it proved nothing."""

    @property
    def is_held(self) -> bool:
        """Whether there is a connection, or was one that its member ended."""
        return self._idle is not None

    @property
    def is_ended(self) -> bool:
        return self._idle is not None and self._idle.is_over.done()

    async def close(self) -> None:
        """A look that is under way sees nothing."""
        self._drop()
        await self._ask_over(None)

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._transport = self._idle = None
        self._drop_next()

    def _drop_next(self) -> None:
        if self._next is not None:
            self._next[0].abort()
        self._next = None

    # --- while etcd is well

    async def hold(self) -> str:
        """Connect to the first of its addresses that this member answers at, unless there is a
        connection. Returns why there is none, or nothing."""
        if self._idle is not None and not (self.is_ended and await self._listens()):
            return "refuses connections" if self.is_ended else ""
        why = "it names no address for clients"
        for url in self.urls:
            try:
                if await self._hold_at(url):
                    return ""
                why = f"{url}: no new connection lasts"
            except (EtcschedError, OSError, TimeoutError) as error:
                why = f"{url}: {error or type(error).__name__}"
        return why

    async def _hold_at(self, url: str) -> bool:
        config = msgspec.structs.replace(self._config, endpoints=(url,))
        (endpoint,) = config.parsed_endpoints
        transport, idle = await _open(endpoint.host, endpoint.port)
        try:
            await self._identify(config)
            if idle.is_over.done():
                return False
            self._take(transport, idle)
        finally:
            if self._idle is not idle:
                transport.abort()
        if self._connection is None or self._connection.endpoint != endpoint:
            await self._ask_over(Connection(endpoint, self._config, self._certificates))
        return True

    async def _ask_over(self, connection: Connection | None) -> None:
        last, self._connection = self._connection, connection
        if last is not None:
            await last.close()

    async def _identify(self, config: EtcdConfig) -> None:
        """Who answers there, over a connection made now, must be this member: ``localhost`` is
        another one on each host."""
        async with EtcdClient(config) as client:
            answer = await client.call(
                Rpc.MEMBER_LIST,
                rpc_pb2.MemberListRequest(),
                effect=Effect.NONE,
                timeout_s=_IDENTIFY_S,
            )
        if answer.header.member_id != self.member:
            raise EtcschedError(f"member {answer.header.member_id:x} answers there")

    def _take(self, transport: asyncio.Transport, idle: _Idle) -> None:
        self._drop()
        self._transport, self._idle = transport, idle
        self._address = transport.get_extra_info("peername")
        idle.is_over.add_done_callback(lambda _: self._ended.set())

    # --- while it may be down

    async def look(self, limit_s: float) -> Sight:
        """Takes at most ``limit_s``."""
        self.why_unknown = ""
        if self._address is None:
            return self._unknown("was never connected")
        try:
            async with asyncio.timeout(limit_s):
                if self.is_ended and not await self._listens():
                    if self._idle is not None and self._idle.is_ended_in_order:
                        return Sight.DOWN
                    return self._unknown("refuses connections, but its last one was reset")
                if self.is_ended:
                    await self._begin_anew()
                sight = await self._ask(limit_s)
                if sight is not Sight.UNKNOWN and self.is_ended and not self._go_on_anew():
                    return self._unknown("answered, but no new connection lasts")
                return sight
        except TimeoutError:
            return self._unknown(f"didn't answer within {limit_s:.1f} s")
        except OSError as error:
            return self._unknown(f"{error.strerror or error}")

    async def _begin_anew(self) -> None:
        """A new idle connection, and after it one to ask over. Both stay for the looks to come as
        long as the first does: a handshake with a member that has just begun can take longer than
        a look."""
        if self._next is not None and not self._next[1].is_over.done():
            return
        self._drop_next()
        transport, idle = await _open(*self._address[:2])
        if not self.is_ended or self._connection is None:
            transport.abort()  # Another one was made, or the line was closed, in the meantime.
            return
        self._next = transport, idle
        endpoint = self._connection.endpoint
        await self._ask_over(Connection(endpoint, self._config, self._certificates))

    def _go_on_anew(self) -> bool:
        """The member has answered. Not if it may have been killed since: the listener of a process
        that is being killed outlives its connections for a moment. What connects then is refused
        or reset, and would leave nothing that proves the member down."""
        if self._next is None or self._next[1].is_over.done():
            return False
        next_, self._next = self._next, None
        self._take(*next_)
        return True

    def _unknown(self, why: str) -> Sight:
        self.why_unknown = why
        return Sight.UNKNOWN

    async def _listens(self) -> bool:
        """False: refused, at the very address that it was connected to."""
        kind = socket.AF_INET6 if len(self._address) == 4 else socket.AF_INET
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                async with asyncio.timeout(_CONNECT_S):
                    await asyncio.get_running_loop().sock_connect(probe, self._address)
            except ConnectionRefusedError:
                return False
            except (OSError, TimeoutError):
                return True  # Who knows: whoever goes on will see.
        return True

    async def _ask(self, limit_s: float) -> Sight:
        """Any answer but "no leader" says that it has one: the member looks at that before
        anything else, also before it asks who calls."""
        if self._connection is None:
            return self._unknown("was never reached")
        self._connection.renew()
        request = rpc_pb2.RangeRequest(key=b"\0", serializable=True, keys_only=True)
        try:
            await self._connection.rpcs[Rpc.RANGE](request, timeout=limit_s, metadata=[HAS_LEADER])
        except asyncio.CancelledError:
            if not is_given_up():
                raise
            return self._unknown("was given up during the look")
        except grpc.aio.AioRpcError as error:
            if (error.details() or "").endswith("etcdserver: no leader"):
                return Sight.LEADERLESS
            if error.code() in _NO_ANSWER:
                end = "its connection ended" if self.is_ended else "its connection stands"
                return self._unknown(f"gave no answer ({error.code().name.lower()}; {end})")
        return Sight.HAS_LEADER


async def _open(host: str, port: int) -> tuple[asyncio.Transport, _Idle]:
    async with asyncio.timeout(_CONNECT_S):
        transport, idle = await asyncio.get_running_loop().create_connection(_Idle, host, port)
    # A host that vanishes and comes back doesn't end what it forgot; asking it does.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return transport, idle


async def close_all(lines: list[MemberLine]) -> None:
    for line in lines:
        with contextlib.suppress(OSError):
            await line.close()
