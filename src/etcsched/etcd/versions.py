"""Which etcd servers this program trusts with its data.

Sources: etcd's advisory of 2022-03 on data inconsistency (3.5.0 to 3.5.2 can lose committed writes
after a crash); CVE-2026-33343 (role permissions weren't checked inside nested transactions: fixed
in 3.4.42, 3.5.28, 3.6.9), CVE-2026-33413 (lease calls of others: the same releases) and
CVE-2026-44283 (leases attached by a put inside a transaction: fixed in 3.4.44, 3.5.30, 3.6.11).
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import urllib.request

from msgspec.structs import replace

from etcsched.core.errors import ClusterUnreachable, UnsupportedEtcd
from etcsched.etcd.admin import EtcdAdmin
from etcsched.etcd.binaries import LEAST_VERSION
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import Endpoint, EtcdConfig
from etcsched.ports import MemberStatus

__all__ = ["check_server", "check_version"]

_HTTP_TIMEOUT_S = 2.0

_CORRUPTING = ((3, 5, 0), (3, 5, 2))
# The first release of each line that enforces roles in everything this program does.
_FENCED_AUTH = {(3, 4): (3, 4, 44), (3, 5): (3, 5, 30), (3, 6): (3, 6, 11)}


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
    if all(status.error for status in statuses):
        raise ClusterUnreachable(statuses[0].error)
    if auth_enabled is None:
        auth_enabled = await EtcdAdmin(client).auth_enabled()
    for status in statuses:
        if not status.error:
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
    """Where roles hold, only root may ask for a member's status; anybody may ask for its version,
    by HTTP."""
    answers = await asyncio.gather(
        *(
            asyncio.to_thread(_version_by_http, config, endpoint) if status.error else _nothing()
            for status, endpoint in zip(statuses, config.parsed_endpoints, strict=True)
        )
    )
    return tuple(
        replace(status, version=version, error="") if version else status
        for status, version in zip(statuses, answers, strict=True)
    )


async def _nothing() -> str:
    return ""


def _version_by_http(config: EtcdConfig, endpoint: Endpoint) -> str:
    """Empty where the member doesn't say."""
    context = None
    if endpoint.tls:
        context = ssl.create_default_context(cafile=config.ca_cert)
        if config.cert is not None and config.key is not None:
            context.load_cert_chain(config.cert, config.key)
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with direct.open(f"{endpoint}/version", timeout=_HTTP_TIMEOUT_S) as response:
            return str(json.load(response)["etcdserver"])
    except (OSError, ValueError, KeyError):
        return ""


def check_version(
    version: str, endpoint: str, *, embedded: bool, auth_enabled: bool, allow_unfenced_auth: bool
) -> None:
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        raise UnsupportedEtcd(f"etcd at {endpoint} has a version nobody knows: {version!r}")
    number = (int(match[1]), int(match[2]), int(match[3]))
    if number < LEAST_VERSION:
        raise UnsupportedEtcd(
            f"etcd at {endpoint} is {version}; etcsched needs 3.4 or later: upgrade etcd"
        )
    if _CORRUPTING[0] <= number <= _CORRUPTING[1] and not embedded:
        raise UnsupportedEtcd(
            f"etcd at {endpoint} is {version}, which can lose committed writes; "
            "upgrade etcd to the newest 3.5"
        )
    fenced = _FENCED_AUTH.get(number[:2])
    if auth_enabled and not allow_unfenced_auth and fenced is not None and number < fenced:
        raise UnsupportedEtcd(
            f"etcd at {endpoint} is {version} with authentication on, but doesn't enforce roles "
            f"in transactions before {'.'.join(map(str, fenced))}: any user can write everything; "
            "upgrade etcd, or say that you accept it"
        )
