from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from etcsched.core.errors import UsageError
from etcsched.etcd.config import EtcdConfig


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "some.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    return path


def test_endpoints_are_understood(pem: Path) -> None:
    plain = EtcdConfig(endpoints=("a:1", "http://[::1]:2", "https://c.example:3/"))
    assert [str(endpoint) for endpoint in plain.parsed_endpoints] == [
        "http://a:1",
        "http://[::1]:2",
        "https://c.example:3",
    ]
    assert [endpoint.address for endpoint in plain.parsed_endpoints][1] == "[::1]:2"
    secured = EtcdConfig(endpoints=("a:1",), ca_cert=pem)
    assert secured.parsed_endpoints[0].tls


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"endpoints": ()}, "no etcd endpoint given"),
        ({"endpoints": ("a",)}, "'a' isn't understood"),
        ({"endpoints": ("a:0",)}, "'a:0' isn't understood"),
        ({"endpoints": ("a:65536",)}, "isn't understood"),
        ({"endpoints": ("ftp://a:1",)}, "isn't understood"),
        ({"endpoints": ("a b:1",)}, "isn't understood"),
        ({"endpoints": ("a:1", "a:1")}, "given twice"),
        ({"endpoints": ("a:1", "http://a:1")}, "given twice"),
        ({"ca_cert": Path("/nowhere/ca.pem")}, "/nowhere/ca.pem, can't be read: No such file"),
        ({"password": "secret"}, "without a user"),
        ({"user": "root"}, "without a password"),
        ({"ping_interval_s": 4.9}, "too short"),
        ({"dial_timeout_s": 0.0}, "must be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line) as refusal:
        EtcdConfig(**settings)
    assert "\n" not in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_certificates_are_checked(pem: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="client key for etcd is given without its certificate"):
        EtcdConfig(key=pem)
    with pytest.raises(UsageError, match="client certificate for etcd is given without its key"):
        EtcdConfig(cert=pem)
    with pytest.raises(UsageError, match="is plain http, but certificates are given"):
        EtcdConfig(endpoints=("http://a:1",), ca_cert=pem)
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x30\x82")
    with pytest.raises(UsageError, match="isn't in PEM format"):
        EtcdConfig(ca_cert=garbage)
    with pytest.raises(UsageError, match="can't be read: Is a directory"):
        EtcdConfig(ca_cert=tmp_path)
    with pytest.raises(UsageError, match="can't be read: it has more than 16MiB"):
        EtcdConfig(ca_cert=Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is a pipe"):
        EtcdConfig(ca_cert=tmp_path / "pipe")
