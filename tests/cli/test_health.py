"""``etcsched health``: which daemons it asks, and how it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.console import Console

TOKEN = "a-token-of-enough-letters"


@contextmanager
def daemon(status: int, line: str, token: str = "") -> Iterator[str]:
    """One that answers this to whoever brings the token; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            may_ask = not token or self.headers["Authorization"] == f"Bearer {token}"
            code, text = (status, line) if may_ask else (401, "give the token")
            self.send_response(code if self.path == "/healthz" else 404)
            self.end_headers()
            self.wfile.write(f"{text}\n".encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address that refuses connections, for as long as the test lasts."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def both(scheduler: str, agent: str) -> dict[str, str]:
    return {"ETCSCHED_SCHEDULER_LISTEN": scheduler, "ETCSCHED_AGENT_LISTEN": agent}


def test_one_of_the_two_is_enough(console: Console, nowhere: str) -> None:
    with daemon(200, "agent a1: 0 of 8 slots in use") as agent:
        said = console.ok("health", **both(nowhere, agent))
        assert said == "agent a1: 0 of 8 slots in use\n"
        assert console.ok("health", **both("off", agent)) == said
        assert console.ok("health", "agent", **both(nowhere, agent)) == said


def test_both_are_said_in_one_line(console: Console) -> None:
    with daemon(200, "scheduler s1: stands by") as s, daemon(200, "agent a1: 1 of 8") as a:
        assert console.ok("health", **both(s, a)) == "scheduler s1: stands by; agent a1: 1 of 8\n"


def test_one_that_is_unwell_is_enough_to_fail(console: Console) -> None:
    with daemon(503, "scheduler s1: it has no session with etcd") as s, daemon(200, "agent") as a:
        line = console.fails(1, "health", **both(s, a))
        assert line == "etcsched: scheduler s1: it has no session with etcd"
        assert console.ok("health", "agent", **both(s, a)) == "agent\n"


def test_nobody_answers(console: Console, nowhere: str) -> None:
    line = console.fails(1, "health", **both(nowhere, nowhere))
    assert line == (
        f"etcsched: no scheduler at {nowhere}, no agent at {nowhere}: start it, or name its "
        "--address"
    )
    line = console.fails(1, "health", "scheduler", **both(nowhere, nowhere))
    assert line.startswith(f"etcsched: no scheduler at {nowhere}: ")
    assert console.fails(1, "health", **both("off", "off")).startswith("etcsched: nothing of this")


def test_one_that_is_told_where(console: Console, nowhere: str) -> None:
    with daemon(200, "agent a1: fine") as address:
        port = address.partition(":")[2]
        env = both(nowhere, nowhere)
        assert console.ok("health", "--address", address, **env) == "agent a1: fine\n"
        assert console.ok("health", "--address", f"0.0.0.0:{port}", **env) == "agent a1: fine\n"


def test_one_that_wants_a_token(console: Console, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with daemon(200, "agent a1: fine", TOKEN) as address:
        refused = console.fails(1, "health", "--address", address)
        assert refused == f"etcsched: daemon at {address}: 401 give the token"
        told = console.ok("health", "--address", address, "--listen-token-file", str(file))
        env = both("off", address) | {"ETCSCHED_AGENT_LISTEN_TOKEN_FILE": str(file)}
        assert console.ok("health", **env) == told == "agent a1: fine\n"


def test_one_that_hangs(console: Console) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        line = console.fails(1, "--timeout=100ms", "health", "--address", address)
        assert line == f"etcsched: daemon at {address}: no answer within 0.1 s"


def test_something_else_that_listens_there(console: Console) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        stack.callback(thread.join)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        line = console.fails(1, "health", "--address", address)
        assert line == f"etcsched: daemon at {address}: what answers there isn't etcsched"


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", "127.0.0.1:x"])
def test_an_address_that_is_none(console: Console, address: str) -> None:
    assert "write HOST:PORT" in console.fails(2, "health", "--address", address)
