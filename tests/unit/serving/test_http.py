"""The HTTP server at the end of a socket: what it answers, refuses, and outlives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator

import pytest

from etcsched.serving import http
from etcsched.serving.address import Address
from etcsched.serving.http import Request, Response, serve_http

TOKEN = "a-token-of-enough-letters"
ANY = Address("127.0.0.1", 0)


async def echo(request: Request) -> Response:
    query = ",".join(f"{name}={value}" for name, value in request.query.items())
    return Response.line(200, f"{request.path} {query}")


async def broken(_: Request) -> Response:
    raise ValueError("of its own making")


ROUTES = {"/echo": echo, "/broken": broken}


@pytest.fixture
async def server() -> AsyncIterator[Address]:
    async with serve_http(ANY, ROUTES) as address:
        yield address


@pytest.fixture
async def guarded() -> AsyncIterator[Address]:
    async with serve_http(ANY, ROUTES, token=TOKEN) as address:
        yield address


async def say(address: Address, text: bytes, *, ends: bool = False) -> bytes:
    """All that is answered until it hangs up; ``ends``: nothing more is said."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(text)
    if ends:
        writer.write_eof()
    async with asyncio.timeout(20):
        try:
            answer = await reader.read()
        except ConnectionResetError:
            answer = b""
    writer.close()
    return answer


async def get(address: Address, path: str, *headers: str, method: str = "GET") -> tuple[int, str]:
    """Status and body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: here", *headers, "", ""]
    answer = (await say(address, "\r\n".join(lines).encode())).decode()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def test_a_route_is_the_first_part_of_a_path(server: Address) -> None:
    assert await get(server, "/echo/job/run?attempt=2&from=10") == (
        200,
        "/echo/job/run attempt=2,from=10\n",
    )
    assert await get(server, "/echo") == (200, "/echo \n")
    assert (await get(server, "/"))[0] == 404
    assert (await get(server, "/echoes"))[0] == 404


async def test_only_reading(server: Address) -> None:
    assert (await get(server, "/echo", "Content-Length: 3", method="POST"))[0] == 405
    assert await get(server, "/echo", method="HEAD") == (200, "")


async def test_a_handler_that_fails_costs_its_request_alone(
    server: Address, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await get(server, "/broken"))[0] == 500
    assert "of its own making" in caplog.text
    assert (await get(server, "/echo"))[0] == 200


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /echo HTTP/1.1\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: here\r\n" + b"X: " + b"x" * http.MOST_HEAD_BYTES,
    ],
    ids=["tls", "no target", "no host", "endless head"],
)
async def test_what_isnt_a_request(server: Address, text: bytes) -> None:
    answer = await say(server, text)
    assert answer.startswith(b"HTTP/1.1 4"), answer
    assert (await get(server, "/echo"))[0] == 200


async def test_who_says_nothing_is_hung_up_on(
    server: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await say(server, b"", ends=True) == b""
    monkeypatch.setattr(http, "HEAD_WITHIN_S", 0.1)
    assert await say(server, b"GET /echo HTT") == b""
    assert (await get(server, "/echo"))[0] == 200


async def test_only_so_many_at_once(server: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MOST_CONNECTIONS", 1)
    _, first = await asyncio.open_connection(server.host, server.port)
    first.write(b"GET /echo HTT")
    await first.drain()
    assert await say(server, b"GET /echo HTTP/1.1\r\nHost: here\r\n\r\n") == b""
    first.close()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("X: y", 401),
        ("Authorization: Bearer", 401),
        (f"Authorization: Bearer {TOKEN}x", 401),
        (f"Authorization: Bearer {TOKEN[:-1]}", 401),
        (f"Authorization: Basic {TOKEN}", 401),
        ("Authorization: Bearer é", 401),
        (f"Authorization: Bearer {TOKEN}", 200),
        (f"authorization: bearer {TOKEN}", 200),
    ],
)
async def test_only_with_the_token(guarded: Address, header: str, status: int) -> None:
    assert (await get(guarded, "/echo", header))[0] == status


async def test_a_wrong_token_learns_nothing_of_what_is_there(guarded: Address) -> None:
    assert await get(guarded, "/nothing") == await get(guarded, "/echo")


async def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        serving = serve_http(Address("127.0.0.1", taken.getsockname()[1]), ROUTES)
        with pytest.raises(OSError, match="in use"):
            await serving.__aenter__()


async def test_it_ends_with_its_block_whoever_is_connected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with serve_http(ANY, ROUTES) as address:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET /echo HTT")
        await writer.drain()
        assert (await get(address, "/echo"))[0] == 200
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError):
        await asyncio.open_connection(address.host, address.port)
    assert not caplog.records


@pytest.mark.parametrize("path", ["//[", "/echo?a=%ff", "http://[/echo", "*", "/\xe9", "//x]/echo"])
async def test_an_odd_path_is_answered(
    server: Address, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        status, _ = await get(server, path)
    assert status in (200, 400, 404)
    assert not caplog.records
