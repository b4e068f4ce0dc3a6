"""Taking agents out of service and back, until told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from etcsched.core.errors import NotFound, Refused
from etcsched.core.names import check_node_name
from etcsched.core.records import Drain, Kind
from etcsched.core.times import Utc
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.transactions import end_drain, write_drain
from etcsched.operator.store import check_there, committed, found, mod_of, read
from etcsched.ports import Etcd

__all__ = ["check_here", "drain", "undrain"]

_TRIES: Final = 30


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
        await check_here(etcd, keys, [agent])
    wanted, is_sent = Drain(agent=agent, since=now, by=by), False
    for _ in range(_TRIES):
        places = [keys.of(Kind.DRAIN, agent), keys.of(Kind.EDITED)]
        (at_drain, at_edited), _revision = await read(etcd, places)
        there = found(Drain, at_drain)
        if there is not None:
            return is_sent and there == wanted
        is_sent = True
        # One that can't be read counts for nobody.
        txn = write_drain(keys, wanted, mod_of(at_edited), mod_of(at_drain))
        if await committed(etcd, txn, timeout_s=timeout_s):
            return True
    raise _raced(agent)


async def check_here(etcd: Etcd, keys: Keys, agents: Sequence[str]) -> None:
    """``NotFound`` for the first that isn't here."""
    await check_there(etcd, keys, Kind.PRESENCE, agents, _not_here)


def _not_here(agent: str) -> NotFound:
    return NotFound(
        f"agent {agent}: isn't here; see etcsched agents list, or drain it before it comes with "
        "--absent-too"
    )


async def undrain(etcd: Etcd, keys: Keys, agent: str, *, timeout_s: float) -> bool:
    """False: it wasn't drained.

    ``NotFound`` for one that isn't there either; ``UsageError`` for a name that none can have.
    """
    check_node_name("agent", agent)
    is_sent = False
    for _ in range(_TRIES):
        places = [keys.of(Kind.DRAIN, agent), keys.of(Kind.PRESENCE, agent)]
        (at_drain, present), _revision = await read(etcd, places, keys_only=True)
        if at_drain is None and (is_sent or present is not None):
            return is_sent
        if at_drain is None:
            raise NotFound(
                f"agent {agent}: isn't here, and no drain awaits it; see etcsched agents list"
            )
        is_sent = True
        txn = end_drain(keys, agent, at_drain.mod_revision)
        if await committed(etcd, txn, timeout_s=timeout_s):
            return True
    raise _raced(agent)


def _raced(agent: str) -> Refused:
    return Refused(
        f"agent {agent}: others drained or edited something {_TRIES} times in a row; try again"
    )
