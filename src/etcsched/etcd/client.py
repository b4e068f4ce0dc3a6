"""The etcd client: every call has a deadline, every failure is one of ``core.errors``.

How a call goes: the endpoints are tried in order of recent luck. An endpoint that can't be
connected to, or says that it can't serve now, has certainly done nothing, so any call goes on to
the next one. Where it may have done something, only calls that may be repeated go on; a write ends
as ``OutcomeUnknown``.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
import msgspec

from etcsched.core.errors import (
    ClusterRefused,
    ClusterUnreachable,
    EtcschedError,
    LeaseGone,
    OutcomeUnknown,
)
from etcsched.etcd.certificates import Certificates
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.connection import HAS_LEADER, Connection, Rpc, is_given_up
from etcsched.etcd.diagnosis import Diagnosis, Trouble, diagnose
from etcsched.etcd.member_status import status_of
from etcsched.etcd.refusals import Verdict, error_of, judge
from etcsched.etcd.stubs import rpc_pb2
from etcsched.etcd.watch import DEFAULT_TIMING, WatchTiming, follow
from etcsched.etcd.wire import range_request, range_result, txn_request, txn_result
from etcsched.keyspace.ops import Range, RangeResult, Txn, TxnResult
from etcsched.ports import LeaseInfo, MemberStatus, WatchUpdate

__all__ = ["Effect", "EtcdClient"]

_LEAST_ATTEMPT_S = 0.05
_RETRY_PAUSE_S = 0.1
_DIAGNOSIS_TIMEOUT_S = 1.0
_DIAGNOSIS_KEPT_S = 5.0


class Effect(enum.Enum):
    """What repeating a call does."""

    NONE = enum.auto()  # a read
    REPEATABLE = enum.auto()  # a write that may be sent twice
    ONCE = enum.auto()


class _EndpointError(Exception):
    """One endpoint couldn't serve a call. ``sent``: it may have done something all the same."""

    def __init__(self, connection: Connection, text: str, *, sent: bool, passing: bool) -> None:
        super().__init__(text)
        self.connection = connection
        self.text = text
        self.sent = sent
        self.passing = passing


class _Call(msgspec.Struct, frozen=True):
    rpc: Rpc
    request: Any
    effect: Effect
    deadline_s: float
    timeout_s: float


class EtcdClient:
    """Implements ``ports.Etcd``. Make it, use it and close it in one event loop.

    ``on_raft_term`` hears of each term higher than all before it in any answer, ``on_call`` of each
    call that is over: its name, the seconds that it took, and whether it failed.
    """

    def __init__(
        self,
        config: EtcdConfig,
        *,
        on_raft_term: Callable[[int], None] | None = None,
        on_call: Callable[[str, float, bool], None] | None = None,
        watch_timing: WatchTiming = DEFAULT_TIMING,
        rng: random.Random | None = None,
    ) -> None:
        self.config = config
        self.on_raft_term = on_raft_term
        self._on_call = on_call
        self.last_raft_term = 0
        self._watch_timing = watch_timing
        self._rng = rng or random.Random()
        certificates = Certificates(config)
        self._connections = tuple(
            Connection(endpoint, config, certificates) for endpoint in config.parsed_endpoints
        )
        # Shuffled, so that a thousand agents with one list of endpoints don't all sit on the first.
        self._order = self._rng.sample(self._connections, len(self._connections))
        self._token: str | None = None
        self._auth_is_off = False
        self._authenticating = asyncio.Lock()
        self._diagnoses: dict[Connection, tuple[float, Diagnosis]] = {}
        self._was_served = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._connections))

    # The key-value store

    async def txn(self, txn: Txn, *, timeout_s: float = 5.0) -> TxnResult:
        effect = Effect.NONE if txn.only_reads else Effect.ONCE
        response = await self.call(Rpc.TXN, txn_request(txn), effect=effect, timeout_s=timeout_s)
        return txn_result(response, response.header.revision, response.header.raft_term)

    async def range(self, request: Range, *, timeout_s: float = 5.0) -> RangeResult:
        response = await self.call(
            Rpc.RANGE, range_request(request), effect=Effect.NONE, timeout_s=timeout_s
        )
        return range_result(response, response.header.revision, response.header.raft_term)

    async def compact(self, revision: int, *, timeout_s: float = 5.0) -> None:
        """Compacting what is compacted already raises ``Compacted``."""
        request = rpc_pb2.CompactionRequest(revision=revision)
        await self.call(Rpc.COMPACT, request, effect=Effect.ONCE, timeout_s=timeout_s)

    def watch(
        self, key: str, range_end: str, *, prev_kv: bool = False, start_revision: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchUpdate]]:
        return follow(
            self,
            key,
            range_end,
            prev_kv=prev_kv,
            start_revision=start_revision,
            timing=self._watch_timing,
            rng=self._rng,
        )

    # Leases

    async def lease_grant(self, ttl_s: int, *, lease: int = 0, timeout_s: float = 5.0) -> LeaseInfo:
        """etcd raises ``ttl_s`` to 1.5 times its election timeout where it is less. A lease whose
        grant came to an unknown outcome ends by itself."""
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl_s, ID=lease)
        response = await self.call(
            Rpc.LEASE_GRANT, request, effect=Effect.ONCE, timeout_s=timeout_s
        )
        return LeaseInfo(response.ID, response.TTL, response.header.raft_term)

    async def lease_keepalive_once(self, lease: int, *, timeout_s: float = 5.0) -> LeaseInfo:
        """``ttl_s`` 0: the lease is gone."""
        request = rpc_pb2.LeaseKeepAliveRequest(ID=lease)
        response = await self.call(
            Rpc.LEASE_KEEP_ALIVE, request, effect=Effect.REPEATABLE, timeout_s=timeout_s
        )
        return LeaseInfo(response.ID, response.TTL, response.header.raft_term)

    async def lease_revoke(self, lease: int, *, timeout_s: float = 5.0) -> None:
        request = rpc_pb2.LeaseRevokeRequest(ID=lease)
        try:
            await self.call(
                Rpc.LEASE_REVOKE, request, effect=Effect.REPEATABLE, timeout_s=timeout_s
            )
        except LeaseGone:
            return

    async def lease_time_to_live(self, lease: int, *, timeout_s: float = 5.0) -> LeaseInfo:
        """``ttl_s`` -1 of ``granted_s`` 0: the lease is gone."""
        request = rpc_pb2.LeaseTimeToLiveRequest(ID=lease)
        response = await self.call(
            Rpc.LEASE_TIME_TO_LIVE, request, effect=Effect.NONE, timeout_s=timeout_s
        )
        return LeaseInfo(response.ID, response.TTL, response.header.raft_term, response.grantedTTL)

    # The endpoints, each for itself

    async def status(self, *, timeout_s: float = 2.0) -> tuple[MemberStatus, ...]:
        return tuple(
            await asyncio.gather(
                *(status_of(self, connection, timeout_s) for connection in self._connections)
            )
        )

    # How a call goes

    @property
    def connections(self) -> tuple[Connection, ...]:
        return self._connections

    async def call(self, rpc: Rpc, request: Any, *, effect: Effect, timeout_s: float) -> Any:
        """The response of whichever endpoint answers."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        call = _Call(rpc, request, effect, began_s + timeout_s, timeout_s)
        has_failed = True
        try:
            response = await self._call(call, tuple(self._order))
            has_failed = False
            return response
        finally:
            if self._on_call is not None:
                self._on_call(rpc.value[1], loop.time() - began_s, has_failed)

    async def call_at(
        self,
        connection: Connection,
        rpc: Rpc,
        request: Any,
        *,
        timeout_s: float,
        needs_leader: bool = False,
    ) -> Any:
        """The response of one endpoint; for calls that concern that member alone, which most can
        answer without a leader."""
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        call = _Call(rpc, request, Effect.NONE, deadline_s, timeout_s)
        return await self._call(call, (connection,), has_leader=needs_leader)

    async def _call(
        self, call: _Call, order: tuple[Connection, ...], *, has_leader: bool = True
    ) -> Any:
        loop = asyncio.get_running_loop()
        while True:
            faults: list[_EndpointError] = []
            for position, connection in enumerate(order):
                left_s = call.deadline_s - loop.time()
                if left_s < _LEAST_ATTEMPT_S and faults:
                    break
                try:
                    return await self._attempt(
                        call, connection, left_s, len(order) - position, has_leader
                    )
                except _EndpointError as fault:
                    faults.append(fault)
                    self.put_behind(connection)
                    if fault.sent and call.effect is Effect.ONCE:
                        raise _unknown(call, faults) from fault
            left_s = call.deadline_s - loop.time()
            if left_s <= _RETRY_PAUSE_S * 2 or not any(fault.passing for fault in faults):
                raise await self._failure(call, faults)
            await asyncio.sleep(_RETRY_PAUSE_S * self._rng.uniform(0.5, 1.5))
            order = tuple(connection for connection in self._order if connection in order)

    async def _attempt(
        self, call: _Call, connection: Connection, left_s: float, candidates: int, has_leader: bool
    ) -> Any:
        """One endpoint's response. A call that may be repeated leaves the next endpoints their
        share of the time."""
        loop = asyncio.get_running_loop()
        share_s = left_s if call.effect is Effect.ONCE else left_s / candidates
        if not connection.is_ready and not await connection.ready(
            min(self.config.dial_timeout_s, left_s / candidates)
        ):
            raise _EndpointError(connection, "no connection", sent=False, passing=False)
        give_up_s = loop.time() + share_s
        renewed = False
        while True:
            token = self._token
            if token is None and self.config.user is not None:
                token = await self._current_token(connection, give_up_s)
            metadata = [HAS_LEADER] if has_leader else []
            if token is not None:
                metadata.append(("token", token))
            timeout_s = min(give_up_s, call.deadline_s) - loop.time()
            try:
                response = await connection.rpcs[call.rpc](
                    call.request, timeout=max(timeout_s, 0.001), metadata=metadata
                )
            except asyncio.CancelledError as error:
                if connection.is_closed or not is_given_up():
                    raise
                raise _EndpointError(
                    connection, "connection given up", sent=True, passing=False
                ) from error
            except grpc.aio.AioRpcError as error:
                verdict = judge(error.code(), error.details())
                if verdict is Verdict.AUTH_CHANGED:
                    self.drop_token(token)
                if (
                    verdict is Verdict.UNCERTAIN
                    or verdict is Verdict.NOT_NOW
                    or verdict is Verdict.AUTH_CHANGED
                ):
                    raise _fault_of(connection, error, verdict, sent=True) from error
                stale = verdict is Verdict.TOKEN_STALE or verdict is Verdict.NO_USER
                if not stale or renewed or self.config.user is None:
                    raise error_of(verdict, connection.endpoint.address, error.details()) from error
                renewed = True
                self.drop_token(token)
                continue
            self._was_served = True
            self.observe_raft_term(response.header.raft_term)
            return response

    def observe_raft_term(self, raft_term: int) -> None:
        if raft_term > self.last_raft_term:
            self.last_raft_term = raft_term
            if self.on_raft_term is not None:
                self.on_raft_term(raft_term)

    def put_behind(self, connection: Connection) -> None:
        """Prefer the other endpoints from now on."""
        self._order.remove(connection)
        self._order.append(connection)

    def preferred(self) -> Connection:
        return self._order[0]

    # Authentication

    def drop_token(self, token: str | None) -> None:
        """Authenticate before the next call, unless somebody has since ``token`` was current."""
        if token == self._token:
            self._token = None
            self._auth_is_off = False

    async def current_token(self, connection: Connection, *, timeout_s: float) -> str | None:
        """None: calls need no token. Errors are those of a read."""
        give_up_s = asyncio.get_running_loop().time() + timeout_s
        try:
            return await self._current_token(connection, give_up_s)
        except _EndpointError as fault:
            raise ClusterUnreachable(
                f"etcd at {connection.endpoint.address} didn't answer: {fault.text}"
            ) from fault

    async def _current_token(self, connection: Connection, give_up_s: float) -> str | None:
        if self.config.user is None or self._auth_is_off or self._token is not None:
            return self._token
        try:
            async with asyncio.timeout_at(give_up_s), self._authenticating:
                if self._token is None and not self._auth_is_off:
                    await self._authenticate(connection, self.config.user, give_up_s)
                return self._token
        except TimeoutError as error:
            raise _EndpointError(
                connection, "no token in time", sent=False, passing=False
            ) from error

    async def _authenticate(self, connection: Connection, user: str, give_up_s: float) -> None:
        request = rpc_pb2.AuthenticateRequest(name=user, password=self.config.password)
        timeout_s = give_up_s - asyncio.get_running_loop().time()
        try:
            response = await connection.rpcs[Rpc.AUTHENTICATE](
                request, timeout=max(timeout_s, 0.001), metadata=[HAS_LEADER]
            )
        except grpc.aio.AioRpcError as error:
            verdict = judge(error.code(), error.details())
            if verdict is Verdict.AUTH_OFF:
                self._auth_is_off = True
                return
            if (
                verdict is Verdict.UNCERTAIN
                or verdict is Verdict.NOT_NOW
                or verdict is Verdict.AUTH_CHANGED
            ):
                # Whatever call needed the token hasn't been sent.
                raise _fault_of(connection, error, verdict, sent=False) from error
            raise error_of(verdict, connection.endpoint.address, error.details()) from error
        self._token = response.token

    # Errors

    async def _failure(self, call: _Call, faults: list[_EndpointError]) -> EtcschedError:
        """No endpoint served the call. What was well before may be mended without us: certificates
        are replaced on one side first."""
        if any(fault.sent for fault in faults) and call.effect is not Effect.NONE:
            return _unknown(call, faults)
        left_s = call.deadline_s - asyncio.get_running_loop().time()
        diagnoses = await asyncio.gather(*(self._diagnose(fault, left_s) for fault in faults))
        texts = [
            f"{fault.connection.endpoint.address}: {diagnosis.text if diagnosis else fault.text}"
            for fault, diagnosis in zip(faults, diagnoses, strict=True)
        ]
        line = f"etcd can't be reached: {' | '.join(texts)}"
        if not self._was_served and all(
            diagnosis is not None and diagnosis.trouble is Trouble.MISCONFIGURED
            for diagnosis in diagnoses
        ):
            return ClusterRefused(line)
        return ClusterUnreachable(line)

    async def _diagnose(self, fault: _EndpointError, left_s: float) -> Diagnosis | None:
        """Only of an endpoint that couldn't be connected to; not looked at again for 5 s."""
        if fault.sent or fault.passing:
            return None
        now_s = asyncio.get_running_loop().time()
        made_s, diagnosis = self._diagnoses.get(fault.connection, (now_s, None))
        if diagnosis is None or now_s - made_s > _DIAGNOSIS_KEPT_S:
            diagnosis = await diagnose(
                fault.connection.endpoint,
                self.config,
                timeout_s=min(_DIAGNOSIS_TIMEOUT_S, max(left_s, 0.2)),
            )
            self._diagnoses[fault.connection] = (now_s, diagnosis)
        return diagnosis


def _unknown(call: _Call, faults: list[_EndpointError]) -> OutcomeUnknown:
    said = " | ".join(f"{fault.connection.endpoint.address}: {fault.text}" for fault in faults)
    return OutcomeUnknown(
        f"etcd may or may not have done {call.rpc.value[1]} (limit {call.timeout_s:g} s): {said}"
    )


def _fault_of(
    connection: Connection, error: grpc.aio.AioRpcError, verdict: Verdict, *, sent: bool
) -> _EndpointError:
    """What another endpoint, or the same one later, may serve all the same."""
    uncertain = verdict is Verdict.UNCERTAIN
    return _EndpointError(
        connection, _words_of(error), sent=sent and uncertain, passing=not uncertain
    )


def _words_of(error: grpc.aio.AioRpcError) -> str:
    code = error.code().name.lower().replace("_", " ")
    details = (error.details() or "").removeprefix("etcdserver: ")
    return f"{code} ({details})" if details else code
