"""What a node says of itself, under its own lease: candidates, terms, presences.

These stand alone, never nested: a put whose lease is gone fails the whole transaction.
"""

from __future__ import annotations

from etcsched.core.leader import effects as fx
from etcsched.core.records import Barred, Candidate, Kind, OutputAccess, Presence
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, Delete, Put, Range, Target, Txn


def join_election(keys: Keys, lease: int, candidate: Candidate) -> Txn:
    """Stand for election, once per session: the key's create revision is the place in the queue.
    The else branch reads what is there, so that a lost answer doesn't cost the place. Whoever
    stands isn't barred."""
    key = keys.election(lease)
    return Txn(
        (Compare(key, Target.CREATE, 0),),
        (Put(key, encode(candidate), lease), Delete(keys.barred(candidate.node))),
        (Range(key),),
    )


def update_candidate(keys: Keys, lease: int, seen: int, candidate: Candidate) -> Txn:
    """Renew what a candidate says of itself, as it last said it; its place in the queue stays."""
    key = keys.election(lease)
    return Txn((Compare(key, Target.MOD, seen),), (Put(key, encode(candidate), lease),))


def leave_election(keys: Keys, lease: int, token: int) -> Txn:
    """Resign: the next candidate leads at once."""
    key = keys.election(lease)
    return Txn((Compare(key, Target.CREATE, token),), (Delete(key),))


def say_barred(keys: Keys, lease: int, barred: Barred) -> Txn:
    """Only while it doesn't stand for election: a copy that etcd commits late must not say so."""
    stands_not = Compare(keys.election(lease), Target.CREATE, 0)
    return Txn((stands_not,), (Put(keys.barred(barred.node), encode(barred), lease),))


def unsay_barred(keys: Keys, node: str) -> Txn:
    return Txn((), (Delete(keys.barred(node)),))


def win_term(keys: Keys, write: fx.WinTerm) -> Txn:
    """Take the term: own election key as created, the term record as seen."""
    election_key = keys.of(Kind.ELECTION, write.term.election_key)
    return Txn(
        (
            Compare(election_key, Target.CREATE, write.term.token),
            Compare(keys.term, Target.MOD, write.old_revision),
        ),
        (Put(keys.term, encode(write.term)),),
    )


def join_presence(
    keys: Keys, lease: int, presence: Presence, access: OutputAccess | None = None
) -> Txn:
    """Register an agent: refused while another of its id is present (else branch: who)."""
    key = keys.of(Kind.PRESENCE, presence.agent)
    return Txn(
        (Compare(key, Target.CREATE, 0),),
        (Put(key, encode(presence), lease), *_access(keys, lease, access)),
        (Range(key),),
    )


def update_presence(
    keys: Keys,
    lease: int,
    seen: int,
    presence: Presence,
    access: OutputAccess | None = None,
) -> Txn:
    """Renew what an agent says of itself, as it last said it: a copy that etcd commits late must
    not take back what was said since. The else branch reads what is there."""
    key = keys.of(Kind.PRESENCE, presence.agent)
    return Txn(
        (Compare(key, Target.MOD, seen),),
        (Put(key, encode(presence), lease), *_access(keys, lease, access)),
        (Range(key),),
    )


def _access(keys: Keys, lease: int, access: OutputAccess | None) -> tuple[Put, ...]:
    return (Put(keys.access(access.agent), encode(access), lease),) if access is not None else ()


def leave_presence(keys: Keys, agent: str, create_revision: int) -> Txn:
    """The access to its output goes with the lease."""
    key = keys.of(Kind.PRESENCE, agent)
    return Txn((Compare(key, Target.CREATE, create_revision),), (Delete(key),))
