"""Where etcd is and how to get in."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from etcsched.core.errors import UsageError
from etcsched.files import read_bytes

__all__ = ["LEAST_PING_INTERVAL_S", "MAX_PEM_BYTES", "Endpoint", "EtcdConfig"]

# etcd closes connections that ping faster than this (its --grpc-keepalive-min-time).
LEAST_PING_INTERVAL_S = 5.0
MAX_PEM_BYTES = 16 << 20

_ENDPOINT = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]@]+):(?P<port>\d{1,5})/?"
)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """``host`` is without the brackets of an IPv6 address."""

    host: str
    port: int
    tls: bool

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}"


class EtcdConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Validated on construction; ``UsageError`` names what is wrong in one line.

    ``endpoints`` are ``host:port`` or URLs. One without a scheme is spoken to in TLS if any
    certificate file is given. ``cert`` and ``key`` are this client's own, PEM; without ``ca_cert``
    the servers' certificates must come from a public authority. ``dial_timeout_s`` bounds one
    attempt to connect, ``ping_interval_s`` (at least 5) how long a silent connection is trusted.
    """

    endpoints: tuple[str, ...] = ("127.0.0.1:2379",)
    ca_cert: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str | None = None
    password: str | None = None
    dial_timeout_s: float = 2.0
    ping_interval_s: float = 6.0

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise UsageError("no etcd endpoint given; name at least one as host:port")
        for endpoint in self.parsed_endpoints:
            if not endpoint.tls and self._has_certificates:
                raise UsageError(
                    f"etcd endpoint {endpoint} is plain http, but certificates are given; "
                    "write https:// or leave the certificates out"
                )
        if len(set(self.parsed_endpoints)) < len(self.endpoints):
            raise UsageError(f"an etcd endpoint is given twice: {', '.join(self.endpoints)}")
        if (self.cert is None) != (self.key is None):
            missing, given = ("key", "certificate") if self.key is None else ("certificate", "key")
            raise UsageError(f"a client {given} for etcd is given without its {missing}; give both")
        for name, path in (("CA", self.ca_cert), ("certificate", self.cert), ("key", self.key)):
            if path is not None:
                _check_readable(name, path)
        if self.password is not None and not self.user:
            raise UsageError("a password for etcd is given without a user; give both")
        if self.user is not None and self.password is None:
            raise UsageError(f"etcd user {self.user!r} is given without a password; give both")
        if self.ping_interval_s < LEAST_PING_INTERVAL_S:
            raise UsageError(
                f"ping interval {self.ping_interval_s:g} s is too short; "
                f"etcd allows {LEAST_PING_INTERVAL_S:g} s or more"
            )
        if self.dial_timeout_s <= 0:
            raise UsageError(f"dial timeout {self.dial_timeout_s:g} s must be above 0")

    @property
    def _has_certificates(self) -> bool:
        return any(path is not None for path in (self.ca_cert, self.cert, self.key))

    @property
    def parsed_endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(_parse_endpoint(text, self._has_certificates) for text in self.endpoints)


def _parse_endpoint(text: str, tls_by_default: bool) -> Endpoint:
    match = _ENDPOINT.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise UsageError(
            f"etcd endpoint {text!r} isn't understood; write host:port, "
            "http://host:port or https://host:port"
        )
    tls = tls_by_default if match["scheme"] is None else match["scheme"] == "https"
    return Endpoint(host=match["host"].strip("[]"), port=int(match["port"]), tls=tls)


def _check_readable(name: str, path: Path) -> None:
    if path.is_fifo():
        raise UsageError(
            f"the {name} file for etcd, {path}, is a pipe; each connection reads it, so name a file"
        )
    try:
        pem = read_bytes(path, MAX_PEM_BYTES)
    except OSError as error:
        raise UsageError(
            f"the {name} file for etcd, {path}, can't be read: {error.strerror}"
        ) from error
    if b"-----BEGIN " not in pem:
        raise UsageError(f"the {name} file for etcd, {path}, isn't in PEM format")
