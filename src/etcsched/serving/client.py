"""Asking a daemon over HTTPS, whose certificate is known by its fingerprint."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl

import h11
import msgspec

from etcsched.core.errors import EtcschedError
from etcsched.serving.address import Address

__all__ = ["Answer", "NotThatDaemon", "Unanswered", "ask"]

_READ_BYTES = 1 << 16


class Unanswered(EtcschedError):
    """Nobody there, or no whole answer in time."""

    exit_code = 3


class NotThatDaemon(EtcschedError):
    """Somebody answers at the address, but not who should."""

    exit_code = 3


class Answer(msgspec.Struct, frozen=True):
    """``headers`` by their names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(
    address: Address, target: str, *, token: str, certificate_sha256: str, timeout_s: float
) -> Answer:
    """GET ``target``. The token is told only to who has the certificate."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=_context(), server_hostname=""
            )
            try:
                _check(writer, address, certificate_sha256)
                return await _converse(reader, writer, address, target, token)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        raise Unanswered(f"{address}: no answer within {timeout_s:g} s") from None
    except ssl.SSLError as error:
        raise NotThatDaemon(f"{address}: speaks no TLS ({error.reason})") from None
    except ConnectionRefusedError:
        raise Unanswered(f"{address}: nobody listens there") from None
    except OSError as error:
        raise Unanswered(f"{address}: {error.strerror or error}") from None
    except h11.ProtocolError as error:
        raise Unanswered(f"{address}: {error}") from None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # Its fingerprint is checked instead.
    return context


def _check(writer: asyncio.StreamWriter, address: Address, expected: str) -> None:
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
    if hashlib.sha256(shown).hexdigest() != expected:
        raise NotThatDaemon(f"{address}: another answers there than etcd knows of")


async def _converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    address: Address,
    target: str,
    token: str,
) -> Answer:
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", str(address)), ("Authorization", f"Bearer {token}")]
    request = h11.Request(method="GET", target=target, headers=headers)
    writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    status, got, body = 0, {}, bytearray()
    while True:
        event = connection.next_event()
        match event:
            case h11.Response():
                status = event.status_code
                got = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                return Answer(status, got, bytes(body))
            case h11.NEED_DATA:
                connection.receive_data(await reader.read(_READ_BYTES))
            case _:
                raise Unanswered(f"{address}: hung up")
