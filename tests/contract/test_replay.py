"""The model and a real etcd, given the same random operations, say the same: every result, every
refusal, every event, to the last revision number.

``pytest --hypothesis-profile=thorough`` goes on for minutes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import assert_never

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcsched.core.errors import EtcschedError
from etcsched.etcd.client import EtcdClient
from etcsched.keyspace.ops import (
    Compare,
    Delete,
    Operation,
    Put,
    Range,
    Relation,
    Target,
    Txn,
    range_end_of,
)
from etcsched.ports import Etcd
from etcsched.testing.model_etcd import ModelEtcd
from etcsched.testing.model_store import ModelStore
from tests.contract.subject import LEAST_TTL_S, next_events

NAMES = ("a", "b", "c", "d")
LEASES = (1, 2)
TTL_S = 600

_lease_bases = itertools.count(1_000_000, 1_000)


class Grant(msgspec.Struct, frozen=True):
    lease: int


class Revoke(msgspec.Struct, frozen=True):
    lease: int


class Compact(msgspec.Struct, frozen=True):
    revisions_back: int


Step = Txn | Range | Grant | Revoke | Compact

# Drawn keys are names without a prefix. Revisions are drawn as 0 to 6 and mean so many back from
# the newest; -1 is one to come.

names = st.sampled_from(NAMES)
range_ends = st.none() | st.sampled_from((*NAMES, "e"))
values = st.sampled_from((b"", b"x", b"y"))
revisions_back = st.integers(-1, 6)
compares = st.one_of(
    st.builds(
        Compare,
        names,
        st.sampled_from([Target.CREATE, Target.MOD]),
        revisions_back,
        st.sampled_from(Relation),
    ),
    st.builds(
        Compare, names, st.just(Target.VERSION), st.integers(0, 3), st.sampled_from(Relation)
    ),
    st.builds(
        Compare,
        names,
        st.just(Target.LEASE),
        st.sampled_from((0, *LEASES)),
        st.just(Relation.EQUAL),
    ),
    st.builds(Compare, names, st.just(Target.VALUE), values, st.sampled_from(Relation)),
)
puts = st.builds(Put, names, values, st.sampled_from((0, 0, 0, *LEASES)))
ranges = st.builds(
    Range, names, range_ends, st.integers(0, 3), st.just(0), st.booleans(), st.booleans()
) | st.builds(Range, names, range_ends, st.just(0), revisions_back)
plain = st.one_of(puts, puts, st.builds(Delete, names, range_ends), ranges)


def txns_of(operations: st.SearchStrategy[Operation]) -> st.SearchStrategy[Txn]:
    return st.builds(
        Txn,
        st.lists(compares, max_size=2).map(tuple),
        st.lists(operations, max_size=3).map(tuple),
        st.lists(operations, max_size=2).map(tuple),
    )


txns = txns_of(plain | txns_of(plain | txns_of(plain)))
steps = st.lists(
    st.one_of(
        txns,
        txns,
        txns,
        ranges,
        st.builds(Grant, st.sampled_from(LEASES)),
        st.builds(Revoke, st.sampled_from(LEASES)),
        st.builds(Compact, revisions_back),
    ),
    max_size=25,
)


class Binding(msgspec.Struct, frozen=True):
    """What drawn names, leases and revisions mean at one moment."""

    prefix: str
    lease_base: int
    revision: int

    def lease(self, drawn: int) -> int:
        return self.lease_base + drawn if drawn else 0

    def compare(self, drawn: Compare) -> Compare:
        operand = drawn.operand
        if isinstance(operand, int):
            if drawn.target is Target.LEASE:
                operand = self.lease(operand)
            elif drawn.target is not Target.VERSION:
                operand = self.revision - operand
        return Compare(self.prefix + drawn.key, drawn.target, operand, drawn.relation)

    def range(self, drawn: Range) -> Range:
        return msgspec.structs.replace(
            drawn,
            key=self.prefix + drawn.key,
            range_end=self.end(drawn.range_end),
            revision=self.revision - drawn.revision if drawn.revision else 0,
        )

    def end(self, drawn: str | None) -> str | None:
        return None if drawn is None else self.prefix + drawn

    def txn(self, drawn: Txn) -> Txn:
        return Txn(
            tuple(self.compare(compare) for compare in drawn.compares),
            tuple(self.operation(operation) for operation in drawn.then),
            tuple(self.operation(operation) for operation in drawn.otherwise),
        )

    def operation(self, drawn: Operation) -> Operation:
        match drawn:
            case Put():
                return Put(self.prefix + drawn.key, drawn.value, self.lease(drawn.lease))
            case Delete():
                return Delete(self.prefix + drawn.key, self.end(drawn.range_end))
            case Range():
                return self.range(drawn)
            case Txn():
                return self.txn(drawn)
            case _:
                assert_never(drawn)


async def perform(etcd: Etcd, step: Step, binding: Binding) -> object:
    """The result, or the kind of error."""
    try:
        match step:
            case Txn():
                return await etcd.txn(binding.txn(step))
            case Range():
                return await etcd.range(binding.range(step))
            case Grant():
                return await etcd.lease_grant(TTL_S, lease=binding.lease(step.lease))
            case Revoke():
                await etcd.lease_revoke(binding.lease(step.lease))
            case Compact():
                await etcd.compact(binding.revision - step.revisions_back)
            case _:
                assert_never(step)
    except EtcschedError as error:
        return type(error)
    return None


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
async def test_model_and_etcd_agree(
    real_client: EtcdClient, new_prefix: Callable[[], str], steps: list[Step]
) -> None:
    prefix = new_prefix()
    end = range_end_of(prefix)
    lease_base = next(_lease_bases)
    # Another example's compaction is not the model's; this makes both start from the same one.
    start = await real_client.txn(Txn((), (Put(prefix[:-1], b""),)))
    await real_client.compact(start.revision)
    store = ModelStore(
        revision=start.revision - 1, raft_term=start.raft_term, least_ttl_s=LEAST_TTL_S
    )
    store.txn(Txn((), (Put(prefix[:-1], b""),)))
    store.compact(start.revision)
    subjects: tuple[Etcd, Etcd] = (ModelEtcd(store), real_client)

    async with AsyncExitStack() as stack:
        watches = [
            await stack.enter_async_context(
                etcd.watch(prefix, end, prev_kv=True, start_revision=start.revision + 1)
            )
            for etcd in subjects
        ]
        seen = start.revision

        async def compare_events() -> None:
            """Those since the last time. Compaction takes previous values away, so this comes
            before it."""
            nonlocal seen
            if store.revision > seen:
                seen = store.revision
                expected, actual = [await next_events(watch, seen) for watch in watches]
                assert actual == expected

        for step in steps:
            if isinstance(step, Compact):
                await compare_events()
            binding = Binding(prefix, lease_base, store.revision)
            expected, actual = [await perform(etcd, step, binding) for etcd in subjects]
            assert actual == expected, step
        for lease in LEASES:
            for etcd in subjects:
                await etcd.lease_revoke(lease_base + lease)
        await compare_events()
