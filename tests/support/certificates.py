"""A certificate authority for tests: elliptic keys, so that it takes milliseconds."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=1)
CLOCK_SLACK = datetime.timedelta(minutes=5)


class CertificateAuthority:
    """``cert`` is what those who trust it need. Files are written into ``directory``."""

    def __init__(self, directory: Path, name: str = "etcsched test authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        certificate = (
            _builder(self._name, self._name, self._key.public_key(), LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.cert = directory / "ca.pem"
        self.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue_client(
        self, common_name: str, lifetime: datetime.timedelta = LIFETIME
    ) -> tuple[Path, Path]:
        """A certificate and its key; ``common_name`` is who etcd takes the client for. Issuing
        one again replaces its files. With a negative ``lifetime`` it has expired."""
        return self._issue(common_name, _name(common_name), lifetime)

    def issue_server(self, lifetime: datetime.timedelta = LIFETIME) -> tuple[Path, Path]:
        """Likewise, for a server on loopback. It names nobody, so that it can be shown to etcd's
        HTTP gateway too, which refuses certificates of users."""
        return self._issue("server", x509.Name([]), lifetime)

    def _issue(
        self, file_name: str, subject: x509.Name, lifetime: datetime.timedelta
    ) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        hosts = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        certificate = (
            _builder(subject, self._name, key.public_key(), lifetime)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        cert_path = self._directory / f"{file_name}.pem"
        key_path = self._directory / f"{file_name}.key"
        cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert_path, key_path


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + lifetime) - CLOCK_SLACK)
        .not_valid_after(now + lifetime)
    )
