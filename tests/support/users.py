"""Users of etcd for every node and person, each with what docs/keyspace.md grants it."""

from __future__ import annotations

from etcsched.core.records import Kind
from etcsched.etcd.admin import Access, EtcdAdmin
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import range_end_of
from etcsched.local.node import Role
from tests.support.etcd_cluster import EtcdCluster

KEYS = Keys()

Grants = list[tuple[Access, str, str | None]]


def prefix(key: str, access: Access = Access.READ) -> tuple[Access, str, str | None]:
    return access, key, range_end_of(key)


PEOPLE: dict[str, Grants] = {
    "operator": [
        prefix(KEYS.prefix),
        prefix(KEYS.of(Kind.JOB), Access.READ_WRITE),
        prefix(KEYS.of(Kind.CALENDAR), Access.READ_WRITE),
        prefix(KEYS.of(Kind.CONFLICT), Access.READ_WRITE),
        prefix(KEYS.of(Kind.PAUSE), Access.READ_WRITE),
        prefix(KEYS.of(Kind.DRAIN), Access.READ_WRITE),
        (Access.READ_WRITE, KEYS.of(Kind.EDITED), None),
        prefix(KEYS.prefix + "requests/", Access.READ_WRITE),
    ],
    "admin": [
        prefix(KEYS.prefix),
        prefix(KEYS.prefix + "spec/", Access.READ_WRITE),
        prefix(KEYS.prefix + "requests/", Access.READ_WRITE),
    ],
    "viewer": [prefix(KEYS.prefix)],
    # Everything but the access to output, which comes first.
    "watcher": [(Access.READ, KEYS.archive_prefix, range_end_of(KEYS.prefix))],
}


def grants_of_agent(agent: str) -> Grants:
    return [
        (Access.READ, KEYS.prefix, None),
        prefix(KEYS.of(Kind.JOB)),
        prefix(KEYS.of(Kind.PAUSE)),
        (Access.READ, KEYS.of(Kind.DRAIN, agent), None),
        (Access.READ, KEYS.of(Kind.SEAT, agent), None),
        (Access.READ, KEYS.of(Kind.LIVE, agent), None),
        prefix(KEYS.of(Kind.ASSIGNMENT, agent) + "/"),
        prefix(KEYS.of(Kind.ORDER, agent) + "/"),
        (Access.READ_WRITE, KEYS.of(Kind.PRESENCE, agent), None),
        (Access.READ_WRITE, KEYS.access(agent), None),
        prefix(KEYS.of(Kind.REPORT, agent) + "/", Access.READ_WRITE),
    ]


def grants_of(role: Role, id_: str) -> Grants:
    match role:
        case "scheduler":
            return [prefix(KEYS.prefix, Access.READ_WRITE)]
        case "agent":
            return grants_of_agent(id_)


def user_of(role: Role, id_: str) -> str:
    """All schedulers are one user, each agent is its own."""
    return f"agent-{id_}" if role == "agent" else "scheduler"


def password_of(user: str) -> str:
    return f"{user}-password"


def login(user: str) -> tuple[str, ...]:
    return (f"--user={user}:{password_of(user)}",)


class Users:
    """Of one etcd; a node's is made when it is started first."""

    def __init__(self, etcd: EtcdCluster) -> None:
        self._etcd = etcd
        self._made: set[str] = set()

    async def make(self, role: Role, id_: str) -> None:
        """This node's, and the people's."""
        wanted = {**PEOPLE, user_of(role, id_): grants_of(role, id_)}
        missing = {user: wanted[user] for user in wanted.keys() - self._made}
        if not missing:
            return
        async with EtcdClient(EtcdConfig(**self._etcd.config_kwargs)) as client:
            admin = EtcdAdmin(client)
            for user, grants in missing.items():
                await admin.role_add(user)
                for access, key, end in grants:
                    await admin.role_grant_permission(user, access, key, end)
                await admin.user_add(user, password_of(user))
                await admin.user_grant_role(user, user)
                self._made.add(user)
