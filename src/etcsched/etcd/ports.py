"""Ports on loopback that nobody else takes, also while the server that they are for is down."""

from __future__ import annotations

import errno
import random
import socket
from typing import Self

from etcsched.core.errors import EtcschedError

__all__ = ["HOST", "ReservedPort", "is_free"]

HOST = "127.0.0.1"
FREE_PORTS = range(20_000, 32_768)
"""Below Linux's default range for outgoing connections: none of those takes a server's port while
the server is down."""
_TAKEN = frozenset({errno.EADDRINUSE, errno.EACCES})


class ReservedPort:
    """Bound but never listened on. With SO_REUSEADDR on both sockets a server, as etcd is one, can
    bind the same port and listen; ``any_free`` of every other process passes it by."""

    def __init__(self, bound: socket.socket) -> None:
        self._bound = bound
        self.port: int = bound.getsockname()[1]

    @classmethod
    def any_free(cls) -> Self:
        for port in random.sample(FREE_PORTS, k=len(FREE_PORTS)):
            bound = _bound_to(port, reuse=False)
            if bound is not None:
                return cls(bound)
        raise EtcschedError(
            f"no free port on {HOST} from {FREE_PORTS.start} to {FREE_PORTS.stop - 1}"
        )

    @classmethod
    def of(cls, port: int) -> Self | None:
        """This one, though somebody may have reserved it; None if a server listens there."""
        bound = _bound_to(port, reuse=True)
        return cls(bound) if bound is not None else None

    def release(self) -> None:
        self._bound.close()


def is_free(port: int) -> bool:
    """Whether a server could listen there now; port 0 is none."""
    if port == 0:
        return False
    bound = _bound_to(port, reuse=True)
    if bound is not None:
        bound.close()
    return bound is not None


def _bound_to(port: int, *, reuse: bool) -> socket.socket | None:
    bound = socket.socket()
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        bound.bind((HOST, port))
    except OSError as error:
        bound.close()
        if error.errno in _TAKEN:
            return None
        raise
    # Set after a bind that refused to share: from now on a server may bind it, too.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    return bound
