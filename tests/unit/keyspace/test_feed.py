"""What a scheduler takes in of what it can't read."""

from __future__ import annotations

import pytest

from etcsched.core.candidate import CandidateMachine
from etcsched.core.clock import Instant
from etcsched.core.records import Kind, Watermark
from etcsched.core.times import Utc
from etcsched.core.view import View
from etcsched.keyspace.codec import encode
from etcsched.keyspace.feed import Feed
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, KeyValue, Snapshot, WatchBatch, WatchEvent

KEYS = Keys()
GOOD = encode(Watermark(through=Utc("2026-11-22T12:00:00.000Z"), term=1))
BAD = b"nonsense"


def put(key: str, value: bytes, revision: int) -> WatchEvent:
    return WatchEvent(EventType.PUT, KeyValue(key, value, 1, revision, 1, 0))


@pytest.mark.parametrize("values", [(GOOD, BAD), (BAD, b"nonsense!"), (BAD,)])
def test_without_a_watermark_nobody_can_lead(values: tuple[bytes, ...]) -> None:
    """However many of its revisions one batch brings."""
    feed = Feed(KEYS, View(), lambda *_: None)
    events = [put(KEYS.watermark, value, 10 + n) for n, value in enumerate(values)]
    feed.take(WatchBatch(tuple(events), 20))
    assert feed.view.watermark is None
    assert feed.unreadable == ("watermark",)
    feed.take(WatchBatch((put(KEYS.watermark, GOOD, 21),), 21))
    assert not feed.unreadable


def test_what_is_gone_from_a_snapshot_is_unreadable_no_more() -> None:
    feed = Feed(KEYS, View(), lambda *_: None)
    feed.take(WatchBatch((put(KEYS.watermark, BAD, 10),), 10))
    feed.take(Snapshot((), 20))
    assert not feed.unreadable
    assert feed.view.seen(Kind.WATERMARK) == 0


def test_what_stands_there_is_what_transactions_compare() -> None:
    feed = Feed(KEYS, View(), lambda *_: None)
    drain = KEYS.of(Kind.DRAIN, "a1")
    feed.take(WatchBatch((put(drain, BAD, 10),), 10))
    assert (feed.view.drains, feed.view.seen(Kind.DRAIN, "a1")) == ({}, 10)
    feed.take(Snapshot((KeyValue(drain, BAD, 1, 10, 1, 0),), 20))
    assert feed.view.seen(Kind.DRAIN, "a1") == 10
    feed.take(Snapshot((), 30))
    assert feed.view.seen(Kind.DRAIN, "a1") == 0


def test_a_day_that_no_month_has_ends_nobody() -> None:
    bad: list[str] = []
    feed = Feed(KEYS, View(), lambda key, _: bad.append(key))
    value = (
        b'{"v":1,"agent":"a1","incarnation":"5","supervisor":"s","slots":1,"host":"h","pid":1,'
        b'"since":"2026-11-22T12:00:00.000Z","clock":"2026-02-30T12:00:00.000Z","version":"0"}'
    )
    key = KEYS.of(Kind.PRESENCE, "a1")
    changes = feed.take(WatchBatch((put(key, value, 9),), 9))
    CandidateMachine("s1", feed.view).view_changed(changes, True, Instant(0, 0.0))
    assert bad == [key]
