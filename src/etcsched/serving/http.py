"""A small HTTP server: GET, one request a connection, every step with a deadline.

What a request may cost is bounded: the size of its head, the time it takes to come and to be
answered, and how many there are at once. A handler that fails costs its request and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import h11
import msgspec

from etcsched.serving.address import Address

__all__ = ["Handler", "Request", "Response", "serve_http", "why_not"]

log = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 100
MOST_HEAD_BYTES: Final = 16 << 10
HEAD_WITHIN_S: Final = 5.0
SENT_WITHIN_S: Final = 30.0
_READ_BYTES: Final = 16 << 10


def why_not(error: OSError) -> str:
    """asyncio's own text repeats the address."""
    return os.strerror(error.errno) if error.errno else str(error)


class Request(msgspec.Struct, frozen=True):
    path: str
    query: dict[str, str]


class Response(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def line(status: int, text: str) -> Response:
        return Response(status, f"{text}\n".encode())


Handler = Callable[[Request], Awaitable[Response]]
"""Bounds its own time."""


@contextlib.asynccontextmanager
async def serve_http(
    address: Address,
    routes: Mapping[str, Handler],
    *,
    token: str = "",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Address]:
    """Serve within the block; gives the address that it came to. ``OSError`` where it can't listen.

    A route is the first part of a path (``/output`` answers ``/output/job/run``). With a ``token``
    every request has to bring it.
    """
    serving = _Serving(routes, token)
    # Bound before there are tasks, so that its failure comes out as what it is.
    server = await asyncio.start_server(
        serving.accept,
        address.host,
        address.port,
        ssl=tls,
        ssl_handshake_timeout=HEAD_WITHIN_S if tls is not None else None,
        start_serving=False,
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            serving.tasks = tasks
            await server.start_serving()
            try:
                yield Address(address.host, server.sockets[0].getsockname()[1])
            finally:
                serving.tasks = None
                server.close()
                for task in serving.conversations:
                    task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


class _Serving:
    def __init__(self, routes: Mapping[str, Handler], token: str) -> None:
        self._routes = routes
        self._token = token.encode()
        self.tasks: asyncio.TaskGroup | None = None
        self.conversations: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.tasks is None or len(self.conversations) >= MOST_CONNECTIONS:
            _cut(writer)
            return
        task = self.tasks.create_task(self._converse(reader, writer))
        self.conversations.add(task)
        task.add_done_callback(self.conversations.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer_to(reader)
            async with asyncio.timeout(SENT_WITHIN_S):
                writer.write(answer)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError):
            pass  # The other side is slow, or gone.
        except Exception:
            log.exception("a request could not be answered")
        finally:
            _cut(writer)

    async def _answer_to(self, reader: asyncio.StreamReader) -> bytes:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES)
        try:
            async with asyncio.timeout(HEAD_WITHIN_S):
                head = await _read_head(connection, reader)
        except h11.RemoteProtocolError as error:
            response = Response.line(error.error_status_hint, "not an HTTP request")
            return _encoded(connection, response)
        if head is None:
            return b""
        response = await self._answer(head)
        return _encoded(connection, response, has_body=head.method != b"HEAD")

    async def _answer(self, head: h11.Request) -> Response:
        if head.method not in (b"GET", b"HEAD"):
            return Response.line(HTTPStatus.METHOD_NOT_ALLOWED, "only GET")
        if not self._may_ask(head):
            return Response(
                HTTPStatus.UNAUTHORIZED,
                b"give the token: Authorization: Bearer ...\n",
                headers=(("WWW-Authenticate", 'Bearer realm="etcsched"'),),
            )
        try:
            target = urlsplit(head.target.decode("ascii", "replace"))
        except ValueError:
            return Response.line(HTTPStatus.BAD_REQUEST, "no path")
        handler = self._routes.get("/" + target.path[1:].partition("/")[0])
        if handler is None:
            known = ", ".join(self._routes)
            return Response.line(HTTPStatus.NOT_FOUND, f"nothing is here; there are {known}")
        try:
            return await handler(Request(target.path, dict(parse_qsl(target.query))))
        except Exception:
            log.exception("%s could not be answered", target.path)
            return Response.line(HTTPStatus.INTERNAL_SERVER_ERROR, "bug: see the daemon's log")

    def _may_ask(self, head: h11.Request) -> bool:
        if not self._token:
            return True
        given = next((value for name, value in head.headers if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


async def _read_head(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> h11.Request | None:
    """None: the other side said nothing."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ_BYTES))
        else:
            return None


def _cut(writer: asyncio.StreamWriter) -> None:
    """Whatever state it is in: asyncio's TLS transport of Python 3.11.2, Debian 12's, that was
    closed twice has no protocol left to abort, and says so by this error."""
    with contextlib.suppress(AttributeError):
        writer.transport.abort()


def _encoded(connection: h11.Connection, response: Response, *, has_body: bool = True) -> bytes:
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
        *response.headers,
    ]
    parts = (
        h11.Response(status_code=response.status, headers=headers),
        *([h11.Data(data=response.body)] if has_body else []),
        h11.EndOfMessage(),
    )
    return b"".join(connection.send(part) or b"" for part in parts)
