"""Which certificate files count while somebody replaces them."""

from __future__ import annotations

import asyncio
import gc
import ssl
from pathlib import Path

import pytest

from etcsched.etcd.certificates import Certificates, Pem
from etcsched.etcd.config import Endpoint, EtcdConfig
from etcsched.etcd.connection import Connection
from etcsched.etcd.diagnosis import Trouble, diagnose
from tests.support.certificates import CertificateAuthority


@pytest.fixture
def config(tmp_path: Path) -> EtcdConfig:
    authority = CertificateAuthority(tmp_path)
    cert, key = authority.issue_client("node")
    return EtcdConfig(
        endpoints=("https://127.0.0.1:1",), ca_cert=authority.cert, cert=cert, key=key
    )


def files_of(config: EtcdConfig) -> tuple[Path, Path, Path]:
    assert config.ca_cert is not None
    assert config.cert is not None
    assert config.key is not None
    return config.ca_cert, config.cert, config.key


def now_in(config: EtcdConfig) -> Pem:
    ca_cert, cert, key = files_of(config)
    return Pem(ca_cert=ca_cert.read_bytes(), cert=cert.read_bytes(), key=key.read_bytes())


def test_the_last_that_fitted_each_other(
    config: EtcdConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """One after the other, as somebody copies them."""
    ca_cert, cert, key = files_of(config)
    certificates = Certificates(config)
    old = certificates.latest()
    assert old == now_in(config)
    CertificateAuthority(ca_cert.parent).issue_client("node")
    new = now_in(config)
    assert new.ca_cert is not None
    assert new.cert is not None
    assert new.key is not None
    assert old.key is not None
    key.write_bytes(old.key)
    assert certificates.latest() == certificates.latest() == old
    key.write_bytes(new.key[:40])
    assert certificates.latest() == old
    key.unlink()
    assert certificates.latest() == old
    key.write_bytes(new.key)
    cert.write_bytes(new.cert[: len(new.cert) // 2])
    assert certificates.latest() == old
    cert.write_bytes(new.cert)
    ca_cert.write_bytes(b"")
    assert certificates.latest() == old
    ca_cert.write_bytes(new.ca_cert)
    assert certificates.latest() == new
    doesnt_belong = "the client key doesn't belong to the client certificate"
    assert caplog.text.count(doesnt_belong) == 1


def test_files_that_are_gone_from_the_start_on(config: EtcdConfig) -> None:
    ca_cert, _, _ = files_of(config)
    ca_cert.unlink()
    with pytest.raises(FileNotFoundError):
        Certificates(config).latest()


async def test_a_pair_that_doesnt_fit_ends_in_no_connection(config: EtcdConfig) -> None:
    ca_cert, _, key = files_of(config)
    before = key.read_bytes()
    CertificateAuthority(ca_cert.parent).issue_client("node")
    key.write_bytes(before)
    (endpoint,) = config.parsed_endpoints
    connection = Connection(endpoint, config, Certificates(config))
    try:
        assert not await connection.ready(1.0)
        assert not await connection.ready(1.0)
    finally:
        await connection.close()


async def test_the_diagnosis_of_files_that_are_gone(config: EtcdConfig) -> None:
    _, cert, _ = files_of(config)
    cert.unlink()
    endpoint = Endpoint(host="127.0.0.1", port=1, tls=True)
    diagnosis = await diagnose(endpoint, config, timeout_s=1.0)
    assert diagnosis.trouble is Trouble.MISCONFIGURED
    assert diagnosis.text == "the certificate files can't be read: No such file or directory"


async def test_the_diagnosis_leaves_no_error_that_nobody_asks_for(
    config: EtcdConfig, tmp_path: Path
) -> None:
    """It would be printed behind the one line, at times."""
    (elsewhere := tmp_path / "elsewhere").mkdir()
    cert, key = CertificateAuthority(elsewhere, "a stranger").issue_server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    endpoint = Endpoint(host="127.0.0.1", port=server.sockets[0].getsockname()[1], tls=True)
    gc.disable()
    try:
        diagnosis = await diagnose(endpoint, config, timeout_s=5.0)
        await asyncio.sleep(0.05)
        untold = [
            each
            for each in gc.get_objects()
            if isinstance(each, asyncio.Future) and each.done() and each._log_traceback
        ]
    finally:
        gc.enable()
        server.close()
    assert "isn't trusted" in diagnosis.text
    assert untold == []
