"""Whether the etcd that a node is about to rely on is to be trusted."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from etcsched.core.errors import ClusterUnreachable
from etcsched.etcd.admin import EtcdAdmin
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.member_status import version_by_http
from etcsched.etcd.releases import check_version
from etcsched.ports import MemberStatus

__all__ = ["check_server"]

_HTTP_TIMEOUT_S = 2.0
_UNTOLD_VERSION = (
    "tells its version neither to this user nor by HTTP; give an endpoint that serves HTTP, too"
)


async def check_server(
    client: EtcdClient,
    *,
    embedded: bool,
    auth_enabled: bool | None = None,
    allow_unfenced_auth: bool = False,
) -> tuple[MemberStatus, ...]:
    """Every endpoint's status; ``UnsupportedEtcd`` if one that answers isn't to be trusted.

    ``embedded``: the server is a demo's own, where lost data is no harm. ``auth_enabled`` None: ask
    the server.
    """
    statuses = await _with_versions(client.config, await client.status())
    known = [status for status in statuses if status.version]
    if not known:
        first = statuses[0]
        raise ClusterUnreachable(first.error or f"etcd at {first.endpoint} {_UNTOLD_VERSION}")
    if auth_enabled is None:
        auth_enabled = await EtcdAdmin(client).auth_enabled()
    for status in known:
        check_version(
            status.version,
            status.endpoint,
            embedded=embedded,
            auth_enabled=auth_enabled,
            allow_unfenced_auth=allow_unfenced_auth,
        )
    return statuses


async def _with_versions(
    config: EtcdConfig, statuses: tuple[MemberStatus, ...]
) -> tuple[MemberStatus, ...]:
    """A user that isn't let in is told so by its first read; whether the server is to be trusted
    can be known all the same."""
    answers = await asyncio.gather(
        *(
            version_by_http(config, endpoint, _HTTP_TIMEOUT_S) if status.error else _nothing()
            for status, endpoint in zip(statuses, config.parsed_endpoints, strict=True)
        )
    )
    return tuple(
        replace(status, version=version, error="") if version else status
        for status, version in zip(statuses, answers, strict=True)
    )


async def _nothing() -> str:
    return ""
