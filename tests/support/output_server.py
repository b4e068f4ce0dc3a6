"""An agent's output service by itself: in this event loop, or in a thread with one of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from etcsched.agent.output_service import OutputService
from etcsched.core.records import OutputAccess
from etcsched.serving.address import Address
from etcsched.serving.certificate import make_server_context
from etcsched.serving.http import serve_http
from etcsched.serving.outputs import ROUTE

TOKEN = "a-token-of-enough-letters"


def write(root: Path, job: str, run: str, number: int, text: bytes) -> None:
    """Appends."""
    path = root / job / run / f"{number}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(text)


@asynccontextmanager
async def serve(root: Path, agent: str = "a1") -> AsyncIterator[OutputService]:
    """All attempts are over, unless ``is_writing`` says otherwise."""
    os.makedirs(root, exist_ok=True)
    tls, fingerprint = make_server_context(agent)
    access = OutputAccess(agent=agent, token=TOKEN, certificate_sha256=fingerprint)
    service = OutputService(root, "", access)
    service.is_writing = lambda *_: False
    routes = {ROUTE: service.answer}
    async with serve_http(Address("127.0.0.1", 0), routes, token=TOKEN, tls=tls) as address:
        service.address = str(address)
        yield service


@contextmanager
def serve_in_thread(root: Path, agent: str = "a1") -> Iterator[OutputService]:
    ready = threading.Event()
    made: list[OutputService] = []
    stop: list[Callable[[], object]] = []

    async def run() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with serve(root, agent) as service:
            made.append(service)
            stop.append(lambda: loop.call_soon_threadsafe(over.set))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(30)
    try:
        yield made[0]
    finally:
        stop[0]()
        thread.join()
