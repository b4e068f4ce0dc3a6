"""Where a daemon may listen, and with which token."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcsched.core.errors import UsageError
from etcsched.serving.address import AGENT_LISTEN, Address, Listen, listen_of

TOKEN = "a-token-of-enough-letters"


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback", "from_here"),
    [
        ("127.0.0.1:7631", "127.0.0.1", 7631, True, "127.0.0.1:7631"),
        ("localhost:0", "localhost", 0, True, "localhost:0"),
        ("[::1]:7631", "::1", 7631, True, "[::1]:7631"),
        ("127.8.0.1:1", "127.8.0.1", 1, True, "127.8.0.1:1"),
        ("0.0.0.0:7631", "0.0.0.0", 7631, False, "127.0.0.1:7631"),
        ("[::]:7631", "::", 7631, False, "[::1]:7631"),
        ("10.0.0.7:65535", "10.0.0.7", 65535, False, "10.0.0.7:65535"),
        ("host-a.example:7631", "host-a.example", 7631, False, "host-a.example:7631"),
    ],
)
def test_addresses(text: str, host: str, port: int, is_loopback: bool, from_here: str) -> None:
    address = Address.parse(text, "--listen")
    assert (address.host, address.port, address.is_loopback) == (host, port, is_loopback)
    assert (str(address), str(address.from_here)) == (text, from_here)


@pytest.mark.parametrize(
    "text", ["", "7631", ":7631", "host:", "host:65536", "::1:7631", "http://h:1", "h:-1", "a b:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--listen .*write HOST:PORT"):
        Address.parse(text, "--listen")


def test_the_default_may_fail_and_what_is_asked_for_may_not() -> None:
    default = listen_of(None, AGENT_LISTEN, None)
    assert default == Listen(address=Address("127.0.0.1", 7632), is_optional=True)
    assert listen_of(AGENT_LISTEN, AGENT_LISTEN, None) == Listen(address=Address("127.0.0.1", 7632))
    assert listen_of("off", AGENT_LISTEN, None) is None


def test_only_a_token_opens_it_to_the_network(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    for text in ("0.0.0.0:7631", "[::]:7631", "host-a:7631"):
        with pytest.raises(UsageError, match="is open to the network: give --listen-token-file"):
            listen_of(text, AGENT_LISTEN, None)
        listen = listen_of(text, AGENT_LISTEN, file)
        assert listen is not None
        assert listen.token == TOKEN


@pytest.mark.parametrize("content", ["", "short", "two words that are long", "é" * 20])
def test_what_is_no_token(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"^--listen-token-file .*token: "):
        listen_of("127.0.0.1:0", AGENT_LISTEN, file)


def test_a_token_file_that_isnt_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        listen_of(None, AGENT_LISTEN, tmp_path / "none")
