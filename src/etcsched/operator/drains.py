"""Taking agents out of service and back, until told otherwise."""

from __future__ import annotations

from etcsched.core.errors import NotFound
from etcsched.core.names import check_node_name
from etcsched.core.records import Drain, Kind
from etcsched.core.times import Utc
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.transactions import end_drain, write_drain
from etcsched.operator.store import commit, read
from etcsched.ports import Etcd

__all__ = ["drain", "undrain"]


async def drain(
    etcd: Etcd,
    keys: Keys,
    agent: str,
    now: Utc,
    by: str,
    *,
    timeout_s: float,
    absent_too: bool = False,
) -> bool:
    """From its return on, the agent gets nothing new; what runs on it ends. False: it was so.

    ``NotFound`` for an agent that isn't there, unless ``absent_too``; ``UsageError`` for a name
    that none can have.
    """
    check_node_name("agent", agent)
    if not absent_too:
        (present,), _ = await read(etcd, [keys.of(Kind.PRESENCE, agent)], keys_only=True)
        if present is None:
            raise NotFound(
                f"agent {agent}: isn't here; see etcsched agents list, "
                "or drain it before it comes with --absent-too"
            )
    txn = write_drain(keys, Drain(agent=agent, since=now, by=by))
    return (await commit(etcd, txn, timeout_s=timeout_s)).succeeded


async def undrain(etcd: Etcd, keys: Keys, agent: str, *, timeout_s: float) -> bool:
    """False: it wasn't drained.

    ``NotFound`` for one that isn't there either; ``UsageError`` for a name that none can have.
    """
    check_node_name("agent", agent)
    if (await commit(etcd, end_drain(keys, agent), timeout_s=timeout_s)).succeeded:
        return True
    (present,), _ = await read(etcd, [keys.of(Kind.PRESENCE, agent)], keys_only=True)
    if present is None:
        raise NotFound(
            f"agent {agent}: isn't here, and no drain awaits it; see etcsched agents list"
        )
    return False
