"""The certificate files, which may be replaced while the program runs.

Somebody who replaces three files does it one after the other, so for a moment they don't fit each
other. What is half replaced isn't used: the files before go on to count until it is whole.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import grpc
import msgspec

from etcsched.etcd.config import MAX_PEM_BYTES, EtcdConfig
from etcsched.etcd.diagnosis import tls_context, tls_text
from etcsched.files import read_bytes

__all__ = ["Certificates", "Pem"]

log = logging.getLogger(__name__)


class Pem(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the files, at one moment."""

    ca_cert: bytes | None
    cert: bytes | None
    key: bytes | None

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root_certificates=self.ca_cert, private_key=self.key, certificate_chain=self.cert
        )


class Certificates:
    """Those of one configuration. The first that are read count as they are: why they don't do is
    told by whoever fails to connect with them."""

    def __init__(self, config: EtcdConfig) -> None:
        self._config = config
        self._latest: Pem | None = None
        self._complaint = ""

    def latest(self) -> Pem:
        """As the files are now, or were when they last fitted each other. Reads them all.
        ``OSError``: they can't be read, and never could."""
        if self._latest is None:
            self._latest = self._read()
            return self._latest
        try:
            found = self._read()
            if found != self._latest:
                tls_context(self._config)
                if self._read() == found:
                    self._latest = found
                    log.info("the certificate files for etcd were replaced; going by the new ones")
            self._complaint = ""
        except ssl.SSLError as error:
            self._complain(tls_text(error))
        except OSError as error:
            self._complain(str(error))
        return self._latest

    def _read(self) -> Pem:
        config = self._config
        return Pem(
            ca_cert=_bytes_of(config.ca_cert),
            cert=_bytes_of(config.cert),
            key=_bytes_of(config.key),
        )

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            log.warning(
                "the certificate files for etcd were replaced, but can't be used (%s); "
                "going on with those before, and looking again",
                text,
            )
        self._complaint = text


def _bytes_of(path: Path | None) -> bytes | None:
    return None if path is None else read_bytes(path, MAX_PEM_BYTES)
