"""One gRPC channel to one endpoint."""

from __future__ import annotations

import asyncio
import enum
from typing import Any

import grpc
import grpc.aio

from etcsched.etcd.config import Endpoint, EtcdConfig
from etcsched.etcd.stubs import grpc_stubs, rpc_pb2

__all__ = [
    "HAS_LEADER",
    "Connection",
    "Rpc",
    "channel_credentials",
    "channel_options",
    "unary_keep_alive",
]

# With this, a member that has no leader says so at once instead of letting a call hang.
HAS_LEADER = ("hasleader", "true")

# A range or a watch response can be far over gRPC's default of 4 MiB.
_UNLIMITED = -1
_RECONNECT_FIRST_MS = 100
_RECONNECT_MAX_MS = 1000
_CLOSE_TIMEOUT_S = 0.5


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


def channel_credentials(config: EtcdConfig) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=config.ca_cert.read_bytes() if config.ca_cert else None,
        private_key=config.key.read_bytes() if config.key else None,
        certificate_chain=config.cert.read_bytes() if config.cert else None,
    )


class Connection:
    """Bound to the event loop it is made in."""

    def __init__(self, endpoint: Endpoint, config: EtcdConfig) -> None:
        self.endpoint = endpoint
        options = channel_options(config)
        self._channel: Any = (
            grpc.aio.secure_channel(endpoint.address, channel_credentials(config), options)
            if endpoint.tls
            else grpc.aio.insecure_channel(endpoint.address, options)
        )
        self._connecting: asyncio.Task[bool] | None = None
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

    async def ready(self, timeout_s: float) -> bool:
        """Whether the channel is connected, after trying to for at most the timeout.

        What isn't ready hasn't sent anything: that is how a write that certainly didn't happen is
        known, without reading gRPC's messages.
        """
        if self.is_ready:
            return True
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        # By the time this one has ended, somebody else may have begun the next attempt.
        attempt = self._connecting
        done, _ = await asyncio.wait({attempt}, timeout=max(timeout_s, 0))
        return bool(done) and attempt.result()

    async def _connect(self) -> bool:
        """Ends with the outcome of the first attempt that ends from now on."""
        backing_off = self._channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        while True:
            state = self._channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                return True
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE and not backing_off:
                return False
            await self._channel.wait_for_state_change(state)
            backing_off = False

    async def close(self) -> None:
        """Lets gRPC answer what is pending: answers to a loop that is gone end in the log."""
        await self._channel.close()
        if self._connecting is not None:
            _, pending = await asyncio.wait({self._connecting}, timeout=_CLOSE_TIMEOUT_S)
            if pending:
                self._connecting.cancel()
                await asyncio.wait(pending)
            elif not self._connecting.cancelled():
                self._connecting.exception()
