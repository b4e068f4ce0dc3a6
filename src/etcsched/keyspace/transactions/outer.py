"""Outer transactions: who guards them, and how much fits into one (DESIGN 5)."""

from __future__ import annotations

from etcsched.core.records import Kind, Term
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, Delete, Put, Target, Txn

MAX_OPERATIONS = 120
"""Below etcd's default ``--max-txn-ops`` of 128. An outer transaction of n nested ones with at
most k compares or operations each is accepted while n + k is at most that."""

MAX_BYTES = 1 << 20
"""Below etcd's default request limit of 1.5 MiB."""


class LeaderGuard:
    """What every transaction of one leader compares: its own election key and its term."""

    def __init__(self, keys: Keys, term: Term, term_revision: int) -> None:
        self.compares = (
            Compare(keys.of(Kind.ELECTION, term.election_key), Target.CREATE, term.token),
            Compare(keys.term, Target.MOD, term_revision),
        )


class AgentGuard:
    """What every report of one agent compares: its presence, by create revision, since an agent
    may change its own record."""

    def __init__(self, keys: Keys, agent: str, presence_create_revision: int) -> None:
        self.compares = (
            Compare(keys.of(Kind.PRESENCE, agent), Target.CREATE, presence_create_revision),
        )


def guarded(guard: LeaderGuard | AgentGuard, nested: list[Txn]) -> Txn:
    """One outer transaction; its responses are the nested ones', in order."""
    return Txn(guard.compares, tuple(nested))


def cost(txn: Txn) -> int:
    """What one nested transaction adds to k (see ``MAX_OPERATIONS``)."""
    return max(len(txn.compares), len(txn.then), len(txn.otherwise))


def size_bytes(txn: Txn) -> int:
    """Roughly what a nested transaction takes on the wire."""
    total = sum(len(compare.key) + 24 for compare in txn.compares)
    for operation in (*txn.then, *txn.otherwise):
        match operation:
            case Put():
                total += len(operation.key) + len(operation.value) + 16
            case Txn():
                total += size_bytes(operation)
            case _:
                total += len(operation.key) + 16
    return total


def touched(txn: Txn) -> set[str]:
    """The keys that a nested transaction writes: no two of one outer may share any."""
    keys: set[str] = set()
    for operation in (*txn.then, *txn.otherwise):
        match operation:
            case Put() | Delete():
                keys.add(operation.key)
            case Txn():
                keys |= touched(operation)
            case _:
                pass
    return keys
