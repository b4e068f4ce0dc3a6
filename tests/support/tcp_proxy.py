"""A connection that can be cut and mended, between a client and a server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536


class TcpProxy:
    """Forwards one port, chosen by itself, to ``target_port``."""

    def __init__(self, target_port: int, host: str = HOST) -> None:
        """``host`` is where it listens."""
        self.port = 0
        self._host = host
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def mend(self) -> None:
        """Accept connections, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse new connections and end those there are; done on return."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._forward(reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until either side ends."""
        there_reader, there_writer = await asyncio.open_connection(HOST, self._target_port)
        try:
            directions = (
                asyncio.create_task(_copy(reader, there_writer)),
                asyncio.create_task(_copy(there_reader, writer)),
            )
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.wait(directions)
        finally:
            there_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()


@contextlib.asynccontextmanager
async def tcp_proxy(target_port: int, host: str = HOST) -> AsyncIterator[TcpProxy]:
    proxy = TcpProxy(target_port, host)
    await proxy.mend()
    try:
        yield proxy
    finally:
        await proxy.cut()
