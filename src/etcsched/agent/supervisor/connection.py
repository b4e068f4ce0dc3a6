"""One connection from an agent: frames in, frames out, never waiting for it."""

from __future__ import annotations

import os
import select
import socket
import struct

from etcsched.agent.supervisor.messages import (
    FRAME_MAX_BYTES,
    BrokenFrame,
    Report,
    Request,
    encode_frame,
    request_reader,
)

FLUSH_BEFORE_EXIT_S = 1.0

_PEER = struct.Struct("3i")


class Connection:
    def __init__(self, accepted: socket.socket, epoll: select.epoll) -> None:
        accepted.setblocking(False)
        self._socket = accepted
        self._epoll = epoll
        self._reader = request_reader()
        self._out = bytearray()
        self._waiting_to_write = False
        self.ended = False
        """Nothing more comes from the peer, or nothing that makes sense."""
        self.closed = False
        _, self.peer_uid, _ = _PEER.unpack(
            accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        )

    def fileno(self) -> int:
        return self._socket.fileno()

    def peer_may_command(self) -> bool:
        """The socket's mode says so already; this holds where somebody changed that."""
        return self.peer_uid in (0, os.geteuid())

    def receive(self) -> list[Request]:
        try:
            data = self._socket.recv(262144)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return []
        messages: list[Request] = []
        try:
            messages.extend(self._reader.feed(data))
        except BrokenFrame:
            self.ended = True
        return messages

    def send(self, message: Report) -> None:
        self._out += encode_frame(message)

    def flush(self) -> bool:
        """False: the peer is gone, or hasn't read for so long that it has to ask anew."""
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                break
            except OSError:
                return False
            del self._out[:sent]
        waiting = bool(self._out)
        if waiting != self._waiting_to_write:
            self._waiting_to_write = waiting
            events = select.EPOLLIN | (select.EPOLLOUT if waiting else 0)
            self._epoll.modify(self._socket.fileno(), events)
        return len(self._out) <= FRAME_MAX_BYTES

    def flush_before_exit(self) -> None:
        """What can't be sent now is in the journal."""
        self._socket.settimeout(FLUSH_BEFORE_EXIT_S)
        try:
            self._socket.sendall(self._out)
        except OSError:
            return

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._socket.close()
