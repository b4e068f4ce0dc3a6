"""One gRPC channel to one endpoint, replaced when the certificate files are."""

from __future__ import annotations

import asyncio
import enum
from typing import Any

import grpc
import grpc.aio

from etcsched.etcd.certificates import Certificates, Pem
from etcsched.etcd.config import Endpoint, EtcdConfig
from etcsched.etcd.stubs import grpc_stubs, rpc_pb2

__all__ = [
    "HAS_LEADER",
    "Connection",
    "Rpc",
    "channel_options",
    "is_given_up",
    "unary_keep_alive",
]

# With this, a member that has no leader says so at once instead of letting a call hang.
HAS_LEADER = ("hasleader", "true")

# A range or a watch response can be far over gRPC's default of 4 MiB.
_UNLIMITED = -1
_RECONNECT_FIRST_MS = 100
_RECONNECT_MAX_MS = 1000
_CLOSE_TIMEOUT_S = 0.5
_LEAVE_OPEN_S = 10.0
"""A channel that was replaced, for what is still under way on it: as long as calls usually may
take."""


class Rpc(enum.Enum):
    """Service and method."""

    RANGE = ("KV", "Range")
    TXN = ("KV", "Txn")
    COMPACT = ("KV", "Compact")
    LEASE_GRANT = ("Lease", "LeaseGrant")
    LEASE_REVOKE = ("Lease", "LeaseRevoke")
    LEASE_KEEP_ALIVE = ("Lease", "LeaseKeepAlive")
    LEASE_TIME_TO_LIVE = ("Lease", "LeaseTimeToLive")
    AUTHENTICATE = ("Auth", "Authenticate")
    AUTH_ENABLE = ("Auth", "AuthEnable")
    USER_ADD = ("Auth", "UserAdd")
    USER_GRANT_ROLE = ("Auth", "UserGrantRole")
    ROLE_ADD = ("Auth", "RoleAdd")
    ROLE_GRANT_PERMISSION = ("Auth", "RoleGrantPermission")
    STATUS = ("Maintenance", "Status")
    ALARM = ("Maintenance", "Alarm")
    DEFRAGMENT = ("Maintenance", "Defragment")
    MEMBER_LIST = ("Cluster", "MemberList")


def unary_keep_alive(channel: Any) -> Any:
    """LeaseKeepAlive with one request and one response is, on the wire, a unary call."""
    return channel.unary_unary(
        "/etcdserverpb.Lease/LeaseKeepAlive",
        request_serializer=rpc_pb2.LeaseKeepAliveRequest.SerializeToString,
        response_deserializer=rpc_pb2.LeaseKeepAliveResponse.FromString,
    )


def channel_options(config: EtcdConfig) -> list[tuple[str, int]]:
    dial_ms = int(config.dial_timeout_s * 1000)
    return [
        ("grpc.max_receive_message_length", _UNLIMITED),
        ("grpc.max_send_message_length", _UNLIMITED),
        ("grpc.keepalive_time_ms", int(config.ping_interval_s * 1000)),
        ("grpc.keepalive_timeout_ms", 3000),
        ("grpc.http2.max_pings_without_data", 0),
        # Also the limit of one attempt to connect.
        ("grpc.min_reconnect_backoff_ms", dial_ms),
        ("grpc.initial_reconnect_backoff_ms", _RECONNECT_FIRST_MS),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MAX_MS),
        # A write must never be sent a second time behind our back.
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.use_local_subchannel_pool", 1),
        # etcd is reached directly; http_proxy in the environment is meant for the web.
        ("grpc.enable_http_proxy", 0),
    ]


def is_given_up() -> bool:
    """Of a call that ended as cancelled: whether the call alone was. gRPC cancels those of a
    channel that is closed, which doesn't end who made them."""
    task = asyncio.current_task()
    return task is not None and not task.cancelling()


class Connection:
    """Bound to the event loop it is made in. ``OSError`` where the certificate files can't be
    read."""

    def __init__(self, endpoint: Endpoint, config: EtcdConfig, certificates: Certificates) -> None:
        self.endpoint = endpoint
        self._options = channel_options(config)
        self._certificates = certificates
        self._connecting: asyncio.Task[bool] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self.is_closed = False
        self._open(certificates.latest() if endpoint.tls else None)

    def _open(self, pem: Pem | None) -> None:
        self._pem = pem
        self._channel: Any = (
            grpc.aio.insecure_channel(self.endpoint.address, self._options)
            if pem is None
            else grpc.aio.secure_channel(self.endpoint.address, pem.credentials(), self._options)
        )
        services = {
            name: getattr(grpc_stubs, f"{name}Stub")(self._channel)
            for name in ("KV", "Lease", "Auth", "Maintenance", "Cluster", "Watch")
        }
        self.rpcs: dict[Rpc, Any] = {
            rpc: getattr(services[rpc.value[0]], rpc.value[1]) for rpc in Rpc
        }
        self.rpcs[Rpc.LEASE_KEEP_ALIVE] = unary_keep_alive(self._channel)
        self.watch_rpc: Any = services["Watch"].Watch

    @property
    def is_ready(self) -> bool:
        state = self._channel.get_state(try_to_connect=True)
        return bool(state is grpc.ChannelConnectivity.READY)

    def renew(self) -> None:
        """Go by the certificate files as they are now, unless it is connected: what works goes on
        with those that it was made with."""
        if self._pem is None or self.is_ready:
            return
        pem = self._certificates.latest()
        if pem != self._pem:
            leaving = asyncio.create_task(_leave(self._channel, self._connecting, _LEAVE_OPEN_S))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            self._connecting = None
            self._open(pem)

    async def ready(self, timeout_s: float) -> bool:
        """Whether the channel is connected, after trying to for at most the timeout.

        What isn't ready hasn't sent anything: that is how a write that certainly didn't happen is
        known, without reading gRPC's messages.
        """
        if self.is_ready:
            return True
        self.renew()
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(_connect(self._channel))
        # By the time this one has ended, somebody else may have begun the next attempt.
        attempt = self._connecting
        done, _ = await asyncio.wait({attempt}, timeout=max(timeout_s, 0))
        return bool(done) and not attempt.cancelled() and attempt.result()

    async def close(self) -> None:
        self.is_closed = True
        await _leave(self._channel, self._connecting, None)
        if self._leaving:
            await asyncio.wait(self._leaving)


async def _connect(channel: Any) -> bool:
    """Ends with the outcome of the first attempt that ends from now on."""
    backing_off = channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
    while True:
        state = channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return True
        if state is grpc.ChannelConnectivity.SHUTDOWN:
            return False
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and not backing_off:
            return False
        await channel.wait_for_state_change(state)
        backing_off = False


async def _leave(
    channel: Any, connecting: asyncio.Task[bool] | None, grace_s: float | None
) -> None:
    """Lets gRPC answer what is pending: answers to a loop that is gone end in the log."""
    await channel.close(grace_s)
    if connecting is not None:
        _, pending = await asyncio.wait({connecting}, timeout=_CLOSE_TIMEOUT_S)
        if pending:
            connecting.cancel()
            await asyncio.wait(pending)
        elif not connecting.cancelled():
            connecting.exception()
