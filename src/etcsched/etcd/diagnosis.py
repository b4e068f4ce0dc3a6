"""Why an endpoint can't be talked to, found out with plain sockets.

gRPC tells a refused connection, an untrusted certificate and a server without TLS apart only in
prose that changes between releases. One look with the standard library's own sockets does better.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ssl

import msgspec

from etcsched.etcd.config import Endpoint, EtcdConfig

__all__ = ["Diagnosis", "Trouble", "diagnose", "tls_context", "tls_text"]

# What every HTTP/2 client says first (RFC 9113, 3.4), with an empty SETTINGS frame.
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_HTTP2_SETTINGS_TYPE = 4
_TLS_ALERT = 0x15
_CLOSES_S = 0.5
"""A connection that TLS has refused is closed at once."""


class Trouble(enum.Enum):
    UNREACHABLE = enum.auto()
    """Waiting can mend it."""
    MISCONFIGURED = enum.auto()
    """Certificates or schemes: only a person can mend it."""
    SILENT = enum.auto()
    """Something listens, but gives no answer that tells more; it may be starting or ending."""


class Diagnosis(msgspec.Struct, frozen=True):
    """``text`` follows the endpoint's name in a line, and says what to do."""

    trouble: Trouble
    text: str


async def diagnose(endpoint: Endpoint, config: EtcdConfig, *, timeout_s: float) -> Diagnosis:
    """Never raises; takes no longer than the timeout."""
    try:
        context = tls_context(config) if endpoint.tls else None
    except ssl.SSLError as error:
        return Diagnosis(Trouble.MISCONFIGURED, tls_text(error))
    except OSError as error:
        return Diagnosis(
            Trouble.MISCONFIGURED, f"the certificate files can't be read: {error.strerror or error}"
        )
    connected = False
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            connected = True
            try:
                if context is not None:
                    context.set_alpn_protocols(["h2"])
                    await _start_tls(writer, context, endpoint.host)
                writer.write(_HTTP2_PREFACE)
                answer = await reader.read(9)
            finally:
                with contextlib.suppress(OSError):
                    writer.close()
    except TimeoutError:
        if connected:
            return _SILENT
        return Diagnosis(
            Trouble.UNREACHABLE, f"no connection within {timeout_s:.1f} s; check host and network"
        )
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return _hung_up(endpoint)
    except ssl.SSLError as error:
        return Diagnosis(Trouble.MISCONFIGURED, tls_text(error))
    except ConnectionRefusedError:
        return Diagnosis(
            Trouble.UNREACHABLE, "connection refused, nothing listens there; start etcd"
        )
    except OSError as error:
        if connected:
            return _hung_up(endpoint)
        return Diagnosis(Trouble.UNREACHABLE, f"{error.strerror or error}; check host and network")
    return _judge_answer(endpoint, answer)


async def _start_tls(writer: asyncio.StreamWriter, context: ssl.SSLContext, host: str) -> None:
    try:
        await writer.start_tls(context, server_hostname=host)
    except OSError:
        # The stream keeps the error, too, and where nobody asks for it, it may be printed at the
        # end: which of the two is freed first is left to chance.
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSES_S):
                await writer.wait_closed()
        raise


_SILENT = Diagnosis(Trouble.SILENT, "accepts connections but doesn't answer; is it overloaded?")


def _judge_answer(endpoint: Endpoint, answer: bytes) -> Diagnosis:
    if not answer:
        return _hung_up(endpoint)
    if len(answer) > 3 and answer[3] == _HTTP2_SETTINGS_TYPE:
        return _SILENT
    if not endpoint.tls and (answer[0] == _TLS_ALERT or answer.startswith(b"HTTP/1")):
        return Diagnosis(
            Trouble.MISCONFIGURED, "the server speaks TLS; write https:// and give its CA"
        )
    return Diagnosis(Trouble.MISCONFIGURED, "what listens there isn't etcd; check the port")


def _hung_up(endpoint: Endpoint) -> Diagnosis:
    if endpoint.tls:
        return Diagnosis(
            Trouble.SILENT,
            "the server hung up in the TLS handshake; if it speaks plain http, write http://",
        )
    return Diagnosis(
        Trouble.SILENT,
        "the server hung up on plain http; if it speaks TLS, write https:// and give its CA",
    )


def tls_context(config: EtcdConfig) -> ssl.SSLContext:
    """By the files as they are now. ``OSError``, of which ``ssl.SSLError`` is one: they can't be
    read, aren't whole, or don't fit each other."""
    context = ssl.create_default_context(cafile=config.ca_cert)
    if config.cert is not None:
        # Of a key under a password it would ask the terminal.
        context.load_cert_chain(config.cert, config.key, password="")
    return context


def tls_text(error: ssl.SSLError) -> str:
    """Why TLS failed, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate isn't trusted ({error.verify_message.rstrip('.')}); "
            "check the CA file and the host name"
        )
    reason = error.reason or str(error)
    match reason:
        case "WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE" | "PACKET_LENGTH_TOO_LONG":
            return "the server speaks plain http, not TLS; write http:// or turn on TLS there"
        case "TLSV13_ALERT_CERTIFICATE_REQUIRED" | "SSLV3_ALERT_HANDSHAKE_FAILURE":
            return "the server wants a client certificate; give a certificate and its key"
        case "KEY_VALUES_MISMATCH":
            return "the client key doesn't belong to the client certificate"
        case _ if "ALERT" in reason:
            return f"the server turned down the client certificate ({reason}); check who issued it"
        case _:
            return f"TLS failed ({reason}); check the certificate files"
