"""What operators write."""

from __future__ import annotations

from etcsched.core.records import (
    ClusterSettings,
    Job,
    Kind,
    Pause,
)
from etcsched.keyspace import transactions as tx
from etcsched.keyspace.ops import Compare, Target
from tests.support.jobs import job
from tests.unit.keyspace.writing import (
    KEYS,
    PLACES,
)


def test_edits_are_seen_by_the_watermark() -> None:
    definition: Job = job("j", every_s=5)
    pause = Pause(intervals=())
    for txn in (
        tx.write_jobs(KEYS, [(definition, 0)], 0),
        tx.write_pause(KEYS, "j", pause, 0, 0),
    ):
        assert PLACES["edited"] in tx.touched(txn)
        assert KEYS.watermark in {compare.key for compare in txn.compares}


def test_settings_are_written_as_they_were_seen() -> None:
    txn = tx.write_settings(KEYS, ClusterSettings(), 7)
    assert txn.compares == (Compare(KEYS.of(Kind.SETTINGS), Target.MOD, 7),)
    assert tx.touched(txn) == {KEYS.of(Kind.SETTINGS)}
