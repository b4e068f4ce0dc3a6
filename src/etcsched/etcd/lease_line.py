"""Lease calls of a thread of its own: synchronous, over connections that nothing else uses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc

from etcsched.core.errors import (
    ClusterRefused,
    ClusterUnreachable,
    EtcschedError,
    OutcomeUnknown,
)
from etcsched.etcd.certificates import Certificates, Pem
from etcsched.etcd.config import Endpoint, EtcdConfig
from etcsched.etcd.connection import (
    HAS_LEADER,
    channel_options,
    unary_keep_alive,
)
from etcsched.etcd.refusals import Verdict, error_of, judge
from etcsched.etcd.stubs import grpc_stubs, rpc_pb2
from etcsched.ports import LeaseInfo

__all__ = ["LeaseLine"]

_RETRY_PAUSE_S = 0.05


class _Line:
    def __init__(self, endpoint: Endpoint, config: EtcdConfig, pem: Pem) -> None:
        self.endpoint = endpoint
        self.pem = pem
        options = channel_options(config)
        self.channel = (
            grpc.secure_channel(endpoint.address, pem.credentials(), options)
            if endpoint.tls
            else grpc.insecure_channel(endpoint.address, options)
        )
        lease = grpc_stubs.LeaseStub(self.channel)
        self.grant: Callable[..., Any] = lease.LeaseGrant
        self.revoke: Callable[..., Any] = lease.LeaseRevoke
        self.keep_alive: Callable[..., Any] = unary_keep_alive(self.channel)
        self.authenticate: Callable[..., Any] = grpc_stubs.AuthStub(self.channel).Authenticate


class LeaseLine:
    """Each call is one attempt at the endpoint in front; after a failure the next one is in front.
    Not for several threads at once. ``ClusterUnreachable`` where the certificate files can't be
    read."""

    def __init__(self, config: EtcdConfig) -> None:
        self._config = config
        self._certificates = Certificates(config)
        try:
            pem = self._certificates.latest()
        except OSError as error:
            raise ClusterUnreachable(
                f"the certificate files for etcd can't be read: {error}"
            ) from error
        self._lines = [_Line(endpoint, config, pem) for endpoint in config.parsed_endpoints]
        self._token: str | None = None

    @property
    def endpoint_count(self) -> int:
        return len(self._lines)

    def close(self) -> None:
        for line in self._lines:
            line.channel.close()

    def grant(self, ttl_s: int, *, timeout_s: float) -> LeaseInfo:
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl_s)
        response = self._call(lambda line: line.grant, request, timeout_s)
        return LeaseInfo(response.ID, response.TTL, response.header.raft_term)

    def keep_alive(self, lease: int, *, timeout_s: float) -> LeaseInfo:
        """``ttl_s`` 0: the lease is gone."""
        request = rpc_pb2.LeaseKeepAliveRequest(ID=lease)
        response = self._call(lambda line: line.keep_alive, request, timeout_s)
        return LeaseInfo(response.ID, response.TTL, response.header.raft_term)

    def revoke(self, lease: int, *, timeout_s: float) -> None:
        request = rpc_pb2.LeaseRevokeRequest(ID=lease)
        self._call(lambda line: line.revoke, request, timeout_s)

    def _call(
        self, method: Callable[[_Line], Callable[..., Any]], request: Any, timeout_s: float
    ) -> Any:
        line = self._lines[0]
        try:
            return self._call_at(line, method(line), request, timeout_s)
        except ClusterUnreachable:
            self._lines.append(self._renewed(self._lines.pop(0)))
            raise
        except EtcschedError:
            self._lines.append(self._lines.pop(0))
            raise

    def _renewed(self, line: _Line) -> _Line:
        """A new connection, where the certificate files are no longer those of the one that
        failed."""
        pem = self._certificates.latest()
        if not line.endpoint.tls or pem == line.pem:
            return line
        line.channel.close()
        return _Line(line.endpoint, self._config, pem)

    def _call_at(
        self, line: _Line, method: Callable[..., Any], request: Any, timeout_s: float
    ) -> Any:
        """Again as long as users and roles are being changed, within the timeout."""
        renewed = False
        give_up_s = time.monotonic() + timeout_s
        while True:
            metadata = [HAS_LEADER]
            if self._token is not None:
                metadata.append(("token", self._token))
            left_s = max(give_up_s - time.monotonic(), 0.001)
            try:
                return method(request, timeout=left_s, metadata=metadata)
            except grpc.RpcError as error:
                code, details = _status_of(error)
                verdict = judge(code, details)
                if verdict is Verdict.AUTH_CHANGED:
                    self._token = None
                    renewed = False
                    if time.monotonic() + _RETRY_PAUSE_S < give_up_s:
                        time.sleep(_RETRY_PAUSE_S)
                        continue
                    raise _silence(line, code, details) from error
                if verdict is Verdict.UNCERTAIN or verdict is Verdict.NOT_NOW:
                    raise _silence(line, code, details) from error
                stale = verdict is Verdict.TOKEN_STALE or verdict is Verdict.NO_USER
                if not stale or renewed or self._config.user is None:
                    raise error_of(verdict, line.endpoint.address, details) from error
                renewed = True
                self._authenticate(line, max(give_up_s - time.monotonic(), 0.001))

    def _authenticate(self, line: _Line, timeout_s: float) -> None:
        request = rpc_pb2.AuthenticateRequest(
            name=self._config.user, password=self._config.password
        )
        try:
            self._token = line.authenticate(request, timeout=timeout_s).token
        except grpc.RpcError as error:
            code, details = _status_of(error)
            verdict = judge(code, details)
            if (
                verdict is Verdict.UNCERTAIN
                or verdict is Verdict.NOT_NOW
                or verdict is Verdict.AUTH_CHANGED
            ):
                raise _silence(line, code, details) from error
            raise ClusterRefused(str(error_of(verdict, line.endpoint.address, details))) from error


def _status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    call: Any = error  # what a failed synchronous call raises is the call itself
    return call.code(), call.details() or ""


def _silence(line: _Line, code: grpc.StatusCode, details: str) -> ClusterUnreachable:
    return OutcomeUnknown(
        f"etcd at {line.endpoint.address} didn't answer: "
        f"{code.name.lower().replace('_', ' ')} ({details})"
    )
