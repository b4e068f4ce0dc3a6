from __future__ import annotations

import json

import pytest

from etcsched.core.records import Gap, Job, Kind, Run, Watermark
from etcsched.core.states import Origin, RunState
from etcsched.core.times import Utc
from etcsched.keyspace.codec import (
    RECORD_TYPES,
    MalformedRecord,
    change_of,
    change_of_event,
    decode,
    encode,
    watermark_operand,
)
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, EventType, KeyValue, Put, Relation, Target, Txn
from etcsched.keyspace.ops import WatchEvent as Event
from etcsched.testing.model_store import ModelStore
from tests.support.jobs import NOON, job

RUN = Run(job="j", id="r", state=RunState.READY, origin=Origin.SCHEDULE, created_at=NOON)


def test_one_line_that_begins_with_its_version_and_leaves_defaults_out() -> None:
    raw = encode(RUN)
    assert raw == (
        b'{"v":1,"job":"j","id":"r","state":"ready","origin":"schedule",'
        b'"created_at":"2026-11-22T12:00:00.000Z"}'
    )
    assert decode(Run, raw) == RUN


def test_a_job_survives() -> None:
    definition = job(cron="0 3 * * *", params={"a": "ü\n"}, tags=("x",))
    assert decode(Job, encode(definition)) == definition
    assert b"\n" not in encode(definition)


def test_every_kind_has_a_record() -> None:
    assert RECORD_TYPES.keys() == set(Kind)


def test_what_a_newer_schema_wrote_survives_rewrites() -> None:
    newer = b'{"v":2,"job":"j","since":"%s","decided_through":"%s","reason":"","colour":["red"]}'
    raw = newer % (NOON.encode(), NOON.encode())
    for _ in range(3):
        gap = decode(Gap, raw)
        assert gap.job == "j"
        raw = encode(gap)
        assert raw.startswith(b'{"v":2,')
        assert json.loads(raw)["colour"] == ["red"]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"{}", b"null", b"\xff", b'{"v":1}', b'{"v":0,"through":"x","term":1}',
        b'{"v":"1","through":"x","term":1}', b'{"v":2,"through":5,"term":1}',
        b'{"v":1,"through":"x","term":"1"}',
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedRecord, match="no valid Watermark record"):
        decode(Watermark, raw)


@pytest.mark.parametrize(
    ("through", "tick", "is_later"),
    [
        ("2026-11-22T12:00:04.999Z", "2026-11-22T12:00:05.000Z", True),
        ("2026-11-22T12:00:05.000Z", "2026-11-22T12:00:05.000Z", False),
        ("2026-11-22T12:00:05.001Z", "2026-11-22T12:00:05.000Z", False),
        ("2025-12-31T23:59:59.999Z", "2026-01-01T00:00:00.000Z", True),
    ],
)
def test_a_tick_is_compared_with_the_watermark_as_text(
    through: str, tick: str, is_later: bool
) -> None:
    store = ModelStore()
    for term in (1, 10):
        watermark = Watermark(through=Utc(through), term=term)
        store.txn(Txn((), (Put("/w", encode(watermark)),)))
        compare = Compare("/w", Target.VALUE, watermark_operand(Utc(tick)), Relation.LESS)
        assert store.txn(Txn((compare,), ())).succeeded is is_later


def test_without_a_watermark_no_tick_is_later() -> None:
    compare = Compare("/w", Target.VALUE, watermark_operand(NOON), Relation.LESS)
    assert not ModelStore().txn(Txn((compare,), ())).succeeded


def test_changes() -> None:
    keys = Keys()
    kv = KeyValue(keys.of(Kind.RUN, "j", "r"), encode(RUN), 5, 7, 2, 0)
    change = change_of(keys, kv)
    assert change is not None
    assert (change.kind, change.ids, change.record) == (Kind.RUN, ("j", "r"), RUN)
    assert (change.create_revision, change.mod_revision) == (5, 7)
    assert change_of_event(keys, Event(EventType.PUT, kv)) == change
    gone = change_of_event(keys, Event(EventType.DELETE, kv))
    assert gone is not None
    assert (gone.record, gone.mod_revision) == (None, 7)
    alien = KeyValue("/etcsched/v1/else/where", b"", 1, 1, 1, 0)
    assert change_of(keys, alien) is None
    assert change_of_event(keys, Event(EventType.DELETE, alien)) is None
