from __future__ import annotations

import pytest

from etcsched.core.errors import UsageError
from etcsched.core.records import CLUSTER, Kind
from etcsched.keyspace.keys import Keys

IDS: dict[Kind, tuple[str, ...]] = {
    Kind.ELECTION: ("7f",),
    Kind.PRESENCE: ("a1",),
    Kind.REPORT: ("a1", "backup", "20261122T190000Z"),
    Kind.LATE_REPORT: ("a1", "backup", "20261122T190000Z", "42"),
    Kind.REQUEST: ("r1",),
    Kind.JOB: ("backup",),
    Kind.PAUSE: (CLUSTER,),
    Kind.DRAIN: ("a1",),
    Kind.CALENDAR: ("holidays",),
    Kind.CONFLICT: ("ledger",),
    Kind.SETTINGS: (),
    Kind.EDITED: (),
    Kind.TERM: (),
    Kind.WATERMARK: (),
    Kind.RUN: ("backup", "20261122T190000Z"),
    Kind.ASSIGNMENT: ("a1", "backup", "20261122T190000Z"),
    Kind.ORDER: ("a1", "backup", "20261122T190000Z"),
    Kind.ANSWER: ("r1",),
    Kind.GAP: ("backup",),
    Kind.JOIN: ("backup", "20261122T190000Z"),
    Kind.ROTATION: ("backup",),
    Kind.FAN_OUT: ("backup", "20261122T190000Z"),
    Kind.SEAT: ("a1",),
    Kind.LIVE: ("a1",),
}


@pytest.mark.parametrize("prefix", ["/etcsched/v1/", "/x/"])
@pytest.mark.parametrize("kind", list(Kind))
def test_each_key_reads_back_and_is_watched(kind: Kind, prefix: str) -> None:
    keys = Keys(prefix)
    key = keys.of(kind, *IDS[kind])
    assert keys.parse(key) == (kind, IDS[kind])
    assert keys.watched <= key < keys.watched_end


@pytest.mark.parametrize("kind", [kind for kind in Kind if IDS[kind]])
def test_the_range_of_a_kind_holds_its_keys(kind: Kind) -> None:
    keys = Keys()
    key = keys.of(kind, *IDS[kind])
    for depth in range(len(IDS[kind])):
        begin, end = keys.all_of(kind, *IDS[kind][:depth])
        assert begin <= key < end


@pytest.mark.parametrize(
    "key",
    [
        "election", "presence/a/b", "reports/a", "reports/a/late/j/r", "spec/jobs", "spec/x/y",
        "spec/jobs/a/b", "state/runs/j", "state/term/x", "state/other", "else/where", "",
    ],
)  # fmt: skip
def test_what_is_not_ours(key: str) -> None:
    assert Keys().parse(f"/etcsched/v1/{key}") is None


def test_a_job_called_late_is_no_late_report() -> None:
    keys = Keys()
    assert keys.parse(keys.of(Kind.REPORT, "a1", "late", "r")) == (
        Kind.REPORT,
        ("a1", "late", "r"),
    )


def test_the_archive_lies_outside_of_what_is_watched() -> None:
    keys = Keys()
    key = keys.archive("backup", "20261122T190000Z")
    assert not keys.watched <= key < keys.watched_end
    assert keys.parse_archive(key) == ("backup", "20261122T190000Z")
    begin, end = keys.archive_of("backup")
    assert begin <= key < end
    assert not begin <= keys.archive("backup2", "r") < end


def test_the_election_is_laid_out_as_etcd_does_it() -> None:
    assert Keys().election(0x694D8E2) == "/etcsched/v1/election/694d8e2"


@pytest.mark.parametrize("prefix", ["", "/", "etcsched/", "/etcsched"])
def test_bad_prefixes(prefix: str) -> None:
    with pytest.raises(UsageError, match=r"must begin and end with|must name a place"):
        Keys(prefix)
