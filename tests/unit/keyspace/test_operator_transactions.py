"""What operators write."""

from __future__ import annotations

from etcsched.core.records import (
    MAX_GROUP_JOBS,
    Calendar,
    ClusterSettings,
    ConflictGroup,
    Drain,
    Job,
    Kind,
    Pause,
)
from etcsched.keyspace import transactions as tx
from etcsched.keyspace.codec import decode, encode
from etcsched.keyspace.ops import Compare, Put, Range, Relation, Target, Txn
from etcsched.testing.model_store import ModelStore
from etcsched.testing.txn_rules import check_form
from tests.support.jobs import job
from tests.unit.keyspace.writing import (
    KEYS,
    NOW,
    PLACES,
)


def test_edits_are_seen_by_the_watermark() -> None:
    definition: Job = job("j", every_s=5)
    pause = Pause(intervals=())
    for txn in (
        tx.write_jobs(KEYS, [(definition, 0)], 0),
        tx.write_pause(KEYS, "j", pause, 0, 0, gaps_revision=5),
        tx.write_calendar(KEYS, Calendar(name="c", versions=()), 0, 0, 5),
    ):
        assert PLACES["edited"] in tx.touched(txn)
        assert KEYS.watermark in {compare.key for compare in txn.compares}


def test_what_may_be_there_again_later_is_written_once() -> None:
    """That it isn't there is no proof: nothing else may have been edited, either."""
    for txn in (
        tx.write_drain(KEYS, Drain(agent="a1", since=NOW), 7),
        tx.write_group(KEYS, ConflictGroup(group="g", jobs=()), 0, [], 7),
    ):
        assert PLACES["edited"] in tx.touched(txn)
        assert Compare(PLACES["edited"], Target.MOD, 7) in txn.compares


def test_settings_are_written_as_they_were_seen() -> None:
    txn = tx.write_settings(KEYS, ClusterSettings(), 7)
    assert txn.compares == (Compare(KEYS.of(Kind.SETTINGS), Target.MOD, 7),)
    assert tx.touched(txn) == {KEYS.of(Kind.SETTINGS)}


def test_a_group_that_gains_a_job_puts_all_of_its_jobs_anew() -> None:
    """Each compare counts: what was seen of the group, of a job, of one that isn't there."""
    group = ConflictGroup(group="g", jobs=("j", "k"))
    definition = job("j", every_s=5)
    at_group, at_j, at_k = (
        KEYS.of(Kind.CONFLICT, "g"), KEYS.of(Kind.JOB, "j"), KEYS.of(Kind.JOB, "k")
    )  # fmt: skip
    for moved in (None, at_group, at_j, at_k):
        store = ModelStore()
        seen = store.txn(Txn((), (Put(at_j, encode(definition)),))).revision
        if moved is not None:
            store.txn(Txn((), (Put(moved, encode(definition)),)))
        before = store.txn(Txn((), (Range(at_j),))).revision
        txn = tx.write_group(KEYS, group, 0, [("j", definition, seen), ("k", None, 0)], 0)
        assert store.txn(txn).succeeded == (moved is None), moved
        (kv,) = store.range(Range(at_j)).kvs
        assert (kv.mod_revision > before) == (moved is None)
        assert decode(Job, kv.value) == definition
        if moved is None:
            (kv,) = store.range(Range(at_group)).kvs
            assert decode(ConflictGroup, kv.value) == group


def test_a_calendar_is_written_as_it_was_seen_and_deleted_as_the_jobs_were() -> None:
    at = KEYS.of(Kind.CALENDAR, "c")
    written = tx.write_calendar(KEYS, Calendar(name="c", versions=()), 7, 8, 9)
    start, end = KEYS.all_of(Kind.GAP)
    assert written.compares == (
        Compare(at, Target.MOD, 7), Compare(KEYS.watermark, Target.MOD, 8),
        Compare(start, Target.MOD, 10, Relation.LESS, end),
    )  # fmt: skip
    deleted = tx.delete_calendar(KEYS, "c", 7, 9)
    assert deleted.compares == (
        Compare(at, Target.MOD, 7), Compare(PLACES["edited"], Target.MOD, 9)
    )  # fmt: skip
    assert tx.touched(deleted) == {at, PLACES["edited"]}


def test_a_group_is_deleted_as_it_was_seen() -> None:
    txn = tx.delete_group(KEYS, "g", 7)
    assert txn.compares == (Compare(KEYS.of(Kind.CONFLICT, "g"), Target.MOD, 7),)
    assert tx.touched(txn) == {KEYS.of(Kind.CONFLICT, "g")}


def test_the_largest_group_fits_a_transaction() -> None:
    jobs = [f"{'j' * 120}{n}" for n in range(MAX_GROUP_JOBS)]
    members: list[tuple[str, Job | None, int]] = [(name, job(name, every_s=5), 7) for name in jobs]
    txn = tx.write_group(KEYS, ConflictGroup(group="g", jobs=tuple(jobs)), 0, members, 0)
    check_form(txn)
    assert tx.cost(txn) <= tx.MAX_OPERATIONS
