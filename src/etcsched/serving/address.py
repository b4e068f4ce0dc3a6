"""Where a daemon listens, and who may ask there (docs/adr/0025)."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final

import msgspec

from etcsched.core.errors import UsageError
from etcsched.files import read_text

__all__ = [
    "AGENT_LISTEN",
    "OFF",
    "OUTPUT_LISTEN",
    "SCHEDULER_LISTEN",
    "Address",
    "Listen",
    "listen_of",
    "read_token",
]

SCHEDULER_LISTEN: Final = "127.0.0.1:7631"
AGENT_LISTEN: Final = "127.0.0.1:7632"
"""Where ``etcsched health`` looks for the daemons of its host."""
OUTPUT_LISTEN: Final = "0.0.0.0:7633"
OFF: Final = "off"

LEAST_TOKEN_CHARS: Final = 16
MAX_TOKEN_FILE_BYTES: Final = 64 << 10
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]@]+):(?P<port>\d{1,5})")
_REACHED_AT: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Address(msgspec.Struct, frozen=True):
    """``host`` is without the brackets of an IPv6 address. Port 0: any free one."""

    host: str
    port: int

    @staticmethod
    def parse(text: str, option: str) -> Address:
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match["port"]) > 65535:
            raise UsageError(f"{option} {text!r}: write HOST:PORT, 127.0.0.1:7631 say")
        return Address(match["host"].strip("[]"), int(match["port"]))

    @property
    def is_loopback(self) -> bool:
        """Only this host's own processes get there."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def from_here(self) -> Address:
        """Where this host's own processes find what listens on all its addresses."""
        return Address(_REACHED_AT.get(self.host, self.host), self.port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """``token`` empty: whoever gets there may ask; that is for loopback alone.

    ``is_optional``: nobody asked for just this address, so a port that is taken is no failure.
    """

    address: Address
    token: str = ""
    is_optional: bool = False

    def __post_init__(self) -> None:
        if not self.token and not self.address.is_loopback:
            raise UsageError(
                f"--listen {self.address} is open to the network: give --listen-token-file too, or "
                "listen on 127.0.0.1"
            )


def listen_of(given: str | None, default: str, token_file: Path | None) -> Listen | None:
    """From ``--listen`` and ``--listen-token-file``; None: it is off."""
    text = default if given is None else given
    if text == OFF:
        return None
    return Listen(
        address=Address.parse(text, "--listen"),
        token=read_token(token_file) if token_file is not None else "",
        is_optional=given is None,
    )


def read_token(path: Path) -> str:
    try:
        token = read_text(path, MAX_TOKEN_FILE_BYTES).strip()
    except OSError as error:
        raise UsageError(f"--listen-token-file {path}: can't be read: {error.strerror}") from None
    if len(token) < LEAST_TOKEN_CHARS or not _TOKEN.fullmatch(token):
        raise UsageError(
            f"--listen-token-file {path}: a token is one line of {LEAST_TOKEN_CHARS} or more "
            "letters, digits and ._~+/=-"
        )
    return token
