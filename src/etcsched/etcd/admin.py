"""What operators do to the cluster itself: maintenance, members, users and roles."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from etcsched.core.errors import ClusterRefused, Refused
from etcsched.etcd.client import Effect, EtcdClient
from etcsched.etcd.connection import Connection, Rpc
from etcsched.etcd.stubs import auth_pb2, rpc_pb2
from etcsched.etcd.wire import key_bytes, range_end_bytes

__all__ = ["Access", "Alarm", "EtcdAdmin", "Member"]

_ADMIN_TIMEOUT_S = 5.0
_DEFRAGMENT_TIMEOUT_S = 60.0


class Access(enum.Enum):
    READ = 0
    WRITE = 1
    READ_WRITE = 2


class Alarm(msgspec.Struct, frozen=True):
    """``name`` is NOSPACE or CORRUPT."""

    member_id: int
    name: str


class Member(msgspec.Struct, frozen=True):
    """A ``learner`` doesn't vote. ``client_urls`` are empty until the member has started once."""

    member_id: int
    name: str
    client_urls: tuple[str, ...]
    peer_urls: tuple[str, ...]
    learner: bool


class EtcdAdmin:
    def __init__(self, client: EtcdClient) -> None:
        self._client = client

    # Maintenance

    async def alarms(self, *, timeout_s: float = _ADMIN_TIMEOUT_S) -> tuple[Alarm, ...]:
        response = await self._client.call(
            Rpc.ALARM, rpc_pb2.AlarmRequest(), effect=Effect.NONE, timeout_s=timeout_s
        )
        return tuple(
            Alarm(alarm.memberID, rpc_pb2.AlarmType.Name(alarm.alarm)) for alarm in response.alarms
        )

    async def disarm(self, alarm: Alarm, *, timeout_s: float = _ADMIN_TIMEOUT_S) -> None:
        request = rpc_pb2.AlarmRequest(
            action=rpc_pb2.AlarmRequest.DEACTIVATE,
            memberID=alarm.member_id,
            alarm=rpc_pb2.AlarmType.Value(alarm.name),
        )
        await self._client.call(Rpc.ALARM, request, effect=Effect.REPEATABLE, timeout_s=timeout_s)

    async def defragment(
        self, connection: Connection, *, timeout_s: float = _DEFRAGMENT_TIMEOUT_S
    ) -> None:
        """One member (of ``EtcdClient.connections``), which serves nothing meanwhile."""
        await self._client.call_at(
            connection, Rpc.DEFRAGMENT, rpc_pb2.DefragmentRequest(), timeout_s=timeout_s
        )

    async def members(self, *, timeout_s: float = _ADMIN_TIMEOUT_S) -> tuple[Member, ...]:
        response = await self._client.call(
            Rpc.MEMBER_LIST, rpc_pb2.MemberListRequest(), effect=Effect.NONE, timeout_s=timeout_s
        )
        return tuple(
            Member(
                member.ID,
                member.name,
                tuple(member.clientURLs),
                tuple(member.peerURLs),
                member.isLearner,
            )
            for member in response.members
        )

    # Users and roles

    async def auth_enabled(self, *, timeout_s: float = _ADMIN_TIMEOUT_S) -> bool:
        """3.4 can't be asked outright: it says that authentication is off to whoever tries to
        authenticate, before it looks at the name (a nameless user is never let in)."""
        nobody = rpc_pb2.AuthenticateRequest()
        try:
            await self._client.call(
                Rpc.AUTHENTICATE, nobody, effect=Effect.NONE, timeout_s=timeout_s
            )
        except Refused:
            return False
        except ClusterRefused:
            return True
        raise AssertionError("etcd let a nameless user in")

    async def auth_enable(self, *, timeout_s: float = _ADMIN_TIMEOUT_S) -> None:
        """Needs a user ``root`` with the role ``root``."""
        await self._write(Rpc.AUTH_ENABLE, rpc_pb2.AuthEnableRequest(), timeout_s)

    async def role_add(self, role: str, *, timeout_s: float = _ADMIN_TIMEOUT_S) -> None:
        """``Refused`` where it exists."""
        await self._write(Rpc.ROLE_ADD, rpc_pb2.AuthRoleAddRequest(name=role), timeout_s)

    async def role_grant_permission(
        self,
        role: str,
        access: Access,
        key: str,
        range_end: str | None = None,
        *,
        timeout_s: float = _ADMIN_TIMEOUT_S,
    ) -> None:
        """On one key, or on [key, range_end)."""
        permission = auth_pb2.Permission(
            permType=access.value, key=key_bytes(key), range_end=range_end_bytes(range_end)
        )
        request = rpc_pb2.AuthRoleGrantPermissionRequest(name=role, perm=permission)
        await self._write(Rpc.ROLE_GRANT_PERMISSION, request, timeout_s)

    async def user_add(
        self, user: str, password: str | None, *, timeout_s: float = _ADMIN_TIMEOUT_S
    ) -> None:
        """Without a password the user gets in by a certificate of that common name alone.
        ``Refused`` where it exists."""
        options = auth_pb2.UserAddOptions(no_password=password is None)
        request = rpc_pb2.AuthUserAddRequest(name=user, password=password or "", options=options)
        await self._write(Rpc.USER_ADD, request, timeout_s)

    async def user_grant_role(
        self, user: str, role: str, *, timeout_s: float = _ADMIN_TIMEOUT_S
    ) -> None:
        request = rpc_pb2.AuthUserGrantRoleRequest(user=user, role=role)
        await self._write(Rpc.USER_GRANT_ROLE, request, timeout_s)

    async def _write(self, rpc: Rpc, request: Any, timeout_s: float) -> None:
        await self._client.call(rpc, request, effect=Effect.ONCE, timeout_s=timeout_s)
