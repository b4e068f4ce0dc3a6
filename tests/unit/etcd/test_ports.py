"""Reserved ports: a server can have them, nobody else is given them."""

from __future__ import annotations

import socket

import pytest

from etcsched.core.errors import EtcschedError
from etcsched.etcd import ports
from etcsched.etcd.ports import HOST, ReservedPort, is_free


def test_a_server_listens_on_a_reserved_port_again_and_again() -> None:
    reserved = ReservedPort.any_free()
    for _ in range(2):
        with socket.create_server((HOST, reserved.port)) as server:
            assert not is_free(reserved.port)
            assert ReservedPort.of(reserved.port) is None
            with socket.create_connection(server.getsockname()):
                pass
        assert is_free(reserved.port)
    reserved.release()


def test_nobody_is_given_what_is_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ReservedPort.any_free()
    second = ReservedPort.any_free()
    monkeypatch.setattr(ports, "FREE_PORTS", [first.port, second.port])
    second.release()
    third = ReservedPort.any_free()
    assert third.port == second.port
    monkeypatch.setattr(ports, "FREE_PORTS", range(first.port, first.port + 1))
    with pytest.raises(EtcschedError, match="no free port"):
        ReservedPort.any_free()
    for reserved in (first, third):
        reserved.release()
