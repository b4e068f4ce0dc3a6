"""Serving what runs wrote to whoever brings the agent's token (docs/adr/0028).

``/output/<job>/<run>?attempt=N&from=OFFSET&wait=SECONDS`` is answered with the bytes from there on,
at most ``MOST_BYTES``; where there are none yet it waits for them so long. 404: nothing is here, be
it pruned or never written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

from etcsched.agent.config import AgentConfig
from etcsched.agent.state_dir import StateDir
from etcsched.core.errors import EtcschedError
from etcsched.core.records import OutputAccess
from etcsched.etcd.config import EtcdConfig
from etcsched.serving.address import Address
from etcsched.serving.certificate import make_server_context
from etcsched.serving.http import Request, Response, serve_http, why_not
from etcsched.serving.outputs import MOST_BYTES, MOST_WAIT_S, OVER_HEADER, ROUTE, place_in

__all__ = ["OutputService", "serve_output"]

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.1
_MOST_OFFSET: Final = 1 << 62


class OutputService:
    """``address`` is what others reach it by. ``is_writing`` says of an attempt (job, run, number)
    whether its output may still grow."""

    def __init__(self, root: Path, address: str, access: OutputAccess) -> None:
        self._root = root
        self.address = address
        self.access = access
        self.is_writing: Callable[[str, str, int], bool] = lambda *_: True

    async def answer(self, request: Request) -> Response:
        try:
            job, run = place_in(request.path)
            number = _number(request, "attempt", 1_000_000)
            offset = _number(request, "from", _MOST_OFFSET)
            wait_s = _number(request, "wait", MOST_WAIT_S)
        except ValueError as error:
            return Response.line(HTTPStatus.BAD_REQUEST, str(error))
        path = self._root / job / run / f"{number}.log"
        give_up_s = asyncio.get_running_loop().time() + wait_s
        while True:
            # Asked before it is read: what is read then is all that there will be.
            is_over = not self.is_writing(job, run, number)
            data, rest = await asyncio.to_thread(_read, path, offset)
            if data is None and is_over:
                return Response.line(
                    HTTPStatus.NOT_FOUND, f"no output of attempt {number} of {job}/{run} is here"
                )
            is_late = asyncio.get_running_loop().time() >= give_up_s
            if data or is_over or is_late:
                over = "1" if is_over and not rest else "0"
                return Response(
                    HTTPStatus.OK,
                    data or b"",
                    "application/octet-stream",
                    ((OVER_HEADER, over),),
                )
            await asyncio.sleep(_LOOK_EVERY_S)


def _number(request: Request, name: str, most: int) -> int:
    text = request.query.get(name, "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= most):
        raise ValueError(f"{name} must be a whole number up to {most}")
    return int(text)


def _read(path: Path, offset: int) -> tuple[bytes | None, bool]:
    """What is there, and whether there is more; None: no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None, False
    with open(descriptor, "rb") as file:
        data = os.pread(descriptor, MOST_BYTES, offset)
        return data, offset + len(data) < os.fstat(file.fileno()).st_size


@contextlib.asynccontextmanager
async def serve_output(
    config: AgentConfig, etcd_config: EtcdConfig, state: StateDir
) -> AsyncIterator[OutputService | None]:
    """Within the block; None: it is off."""
    if config.output_listen is None:
        yield None
        return
    tls, fingerprint = await asyncio.to_thread(make_server_context, config.agent_id)
    access = OutputAccess(
        agent=config.agent_id, token=secrets.token_urlsafe(32), certificate_sha256=fingerprint
    )
    service = OutputService(state.output, "", access)
    async with contextlib.AsyncExitStack() as stack:
        listen = config.output_listen
        routes = {ROUTE: service.answer}
        try:
            serving = serve_http(listen, routes, token=access.token, tls=tls)
            bound = await stack.enter_async_context(serving)
        except OSError as error:
            if not config.output_port_may_vary:
                raise EtcschedError(
                    f"output: can't listen on {listen}: {why_not(error)}; choose another "
                    "--output-listen, or off"
                ) from None
            anywhere = Address(listen.host, 0)
            serving = serve_http(anywhere, routes, token=access.token, tls=tls)
            bound = await stack.enter_async_context(serving)
        service.address = _advertised(config, etcd_config, bound)
        log.info("output at https://%s", service.address)
        yield service


def _advertised(config: AgentConfig, etcd_config: EtcdConfig, bound: Address) -> str:
    if config.output_address:
        host, port = config.output_address, bound.port
        if ":" in host.rpartition("]")[2]:
            return host
        return f"{host}:{port}"
    if bound.from_here == bound:
        return str(bound)
    return str(Address(_own_host(etcd_config, bound), bound.port))


def _own_host(etcd_config: EtcdConfig, bound: Address) -> str:
    """By which this host goes out to etcd: others that reach etcd most likely reach it there. Where
    etcd is on this host alone, so is who asks. Nothing is sent to find that out."""
    found = []
    for endpoint in etcd_config.parsed_endpoints:
        family = socket.AF_INET6 if ":" in bound.host else socket.AF_INET
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((endpoint.host, endpoint.port))
            found.append(str(probe.getsockname()[0]))
    away = [host for host in found if not Address(host, 0).is_loopback]
    return (away or found or [socket.gethostname()])[0]
