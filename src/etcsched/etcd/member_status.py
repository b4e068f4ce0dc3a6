"""What one member says of itself, to whoever asks.

With authentication on, 3.4.44, 3.5.30, 3.6.11 and later give a member's status to root alone. Any
user may still ask for the alarms, and anybody for the version, by HTTP; size and leader stay
untold.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING

from msgspec.structs import replace

from etcsched.core.errors import ClusterUnreachable, EtcschedError, PermissionDenied
from etcsched.etcd.config import Endpoint, EtcdConfig
from etcsched.etcd.connection import Connection, Rpc
from etcsched.etcd.diagnosis import tls_context
from etcsched.etcd.stubs import rpc_pb2
from etcsched.ports import MemberStatus

if TYPE_CHECKING:
    from etcsched.etcd.client import EtcdClient

__all__ = ["status_of", "version_by_http"]

# How a member's status names an alarm.
_ALARM = re.compile(r"memberID:\d+ alarm:(\w+)")


async def status_of(client: EtcdClient, connection: Connection, timeout_s: float) -> MemberStatus:
    """Alarms are those of the whole cluster, as this member knows them."""
    loop = asyncio.get_running_loop()
    address, give_up_s = connection.endpoint.address, loop.time() + timeout_s
    try:
        status = await client.call_at(
            connection, Rpc.STATUS, rpc_pb2.StatusRequest(), timeout_s=timeout_s
        )
    except PermissionDenied:
        return await _told_to_anybody(client, connection, give_up_s - loop.time())
    except EtcschedError as error:
        return MemberStatus(address, error=str(error))
    return MemberStatus(
        address,
        version=status.version,
        member_id=status.header.member_id,
        leader_id=status.leader,
        raft_term=status.raftTerm,
        revision=status.header.revision,
        db_size_bytes=status.dbSize,
        # Among the errors is also that it has no leader, which leader_id says.
        alarms=tuple(name for error in status.errors for name in _ALARM.findall(error)),
    )


async def _told_to_anybody(
    client: EtcdClient, connection: Connection, timeout_s: float
) -> MemberStatus:
    """Of a member that has answered already, so it is up."""
    version, status = await asyncio.gather(
        version_by_http(client.config, connection.endpoint, timeout_s),
        _with_alarms(client, connection, timeout_s),
    )
    return replace(status, version=version)


async def _with_alarms(
    client: EtcdClient, connection: Connection, timeout_s: float
) -> MemberStatus:
    untold = MemberStatus(
        connection.endpoint.address,
        member_id=None,
        leader_id=None,
        raft_term=None,
        revision=None,
        db_size_bytes=None,
        alarms=None,
    )
    try:
        answer = await client.call_at(
            connection, Rpc.ALARM, rpc_pb2.AlarmRequest(), timeout_s=timeout_s, needs_leader=True
        )
    except ClusterUnreachable:
        # A majority has to agree on the answer; there is none that this member can ask.
        return replace(untold, leader_id=0)
    except EtcschedError:
        return untold
    header = answer.header  # 3.4 leaves it empty.
    return replace(
        untold,
        member_id=header.member_id or None,
        raft_term=header.raft_term or None,
        revision=header.revision or None,
        alarms=tuple(rpc_pb2.AlarmType.Name(alarm.alarm) for alarm in answer.alarms),
    )


async def version_by_http(config: EtcdConfig, endpoint: Endpoint, timeout_s: float) -> str:
    """Empty where the member doesn't say."""
    try:
        return await asyncio.to_thread(_version_by_http, config, endpoint, timeout_s)
    except RuntimeError:  # The host has no thread left.
        return ""


def _version_by_http(config: EtcdConfig, endpoint: Endpoint, timeout_s: float) -> str:
    try:
        context = tls_context(config) if endpoint.tls else None
        direct = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with direct.open(f"{endpoint}/version", timeout=timeout_s) as response:
            return str(json.load(response)["etcdserver"])
    except (OSError, HTTPException, ValueError, KeyError):
        return ""
