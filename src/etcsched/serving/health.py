"""``/healthz``, ``/livez`` and ``/metrics`` of a daemon."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import msgspec

from etcsched.core.errors import EtcschedError
from etcsched.serving.address import Listen
from etcsched.serving.http import Request, Response, serve_http, why_not

__all__ = ["Condition", "serve_health"]

log = logging.getLogger(__name__)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Condition(msgspec.Struct, frozen=True):
    """Whether a daemon can do its work, and a line about that."""

    is_well: bool
    text: str


@contextlib.asynccontextmanager
async def serve_health(
    listen: Listen | None,
    who: str,
    condition: Callable[[], Condition],
    metrics: Callable[[], bytes],
) -> AsyncIterator[None]:
    """Within the block; None: nothing listens. Both callbacks run in the event loop."""

    async def healthz(_: Request) -> Response:
        now = condition()
        status = HTTPStatus.OK if now.is_well else HTTPStatus.SERVICE_UNAVAILABLE
        return Response.line(status, f"{who}: {now.text}")

    async def livez(_: Request) -> Response:
        return Response.line(HTTPStatus.OK, f"{who}: alive")

    async def all_metrics(_: Request) -> Response:
        return Response(HTTPStatus.OK, metrics(), METRICS_TYPE)

    async with contextlib.AsyncExitStack() as stack:
        if listen is not None:
            routes = {"/healthz": healthz, "/livez": livez, "/metrics": all_metrics}
            serving = serve_http(listen.address, routes, token=listen.token)
            try:
                address = await stack.enter_async_context(serving)
            except OSError as error:
                why = f"health and metrics: can't listen on {listen.address}: {why_not(error)}"
                if not listen.is_optional:
                    raise EtcschedError(f"{why}; choose another --listen, or off") from None
                log.warning("%s; --listen chooses another address", why)
            else:
                log.info("health and metrics at http://%s", address)
        yield
