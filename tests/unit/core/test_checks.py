"""A record that makes no sense where it stands counts as absent: it must never get to the cores."""

from __future__ import annotations

import json
from typing import Any

import pytest

from etcsched.core.records import Kind
from etcsched.keyspace.codec import MalformedRecord, change_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue

KEYS = Keys()
T = "2026-11-22T10:00:00.000Z"

JOB: dict[str, Any] = {
    "v": 1,
    "name": "j",
    "run": {"executor": "shell", "command": "true"},
    "versions": [{"since": T, "patterns": [{"kind": "cron", "expression": "* * * * *"}]}],
}
PRESENCE: dict[str, Any] = {
    "v": 1, "agent": "a", "incarnation": "1f", "supervisor": "s", "slots": 1, "host": "h", "pid": 1,
    "since": T, "clock": T, "version": "0",
}  # fmt: skip
REPORT: dict[str, Any] = {
    "v": 1, "job": "j", "run": "r", "attempt": 1, "token": 5, "incarnation": "1f",
    "supervisor": "s", "claimed_at": T,
}  # fmt: skip
RUN: dict[str, Any] = {
    "v": 1, "job": "j", "id": "r", "state": "ready", "origin": "request", "created_at": T,
}  # fmt: skip


def version(**fields: Any) -> dict[str, Any]:
    return {**JOB, "versions": [{**JOB["versions"][0], **fields}]}


def read(kind: Kind, ids: tuple[str, ...], fields: dict[str, Any]) -> None:
    key = KEYS.of(kind, *ids)
    change = change_of(KEYS, KeyValue(key, json.dumps(fields).encode(), 1, 1, 1, 0))
    assert change is not None


@pytest.mark.parametrize(
    ("kind", "ids", "fields"),
    [
        (Kind.JOB, ("j",), JOB),
        (Kind.PRESENCE, ("a",), PRESENCE),
        (Kind.REPORT, ("a", "j", "r"), REPORT),
        (Kind.LATE_REPORT, ("a", "j", "r", "5"), {**REPORT, "outcome": "completed"}),
        (Kind.RUN, ("j", "r"), RUN),
        (Kind.PAUSE, ("_cluster",), {"v": 1, "intervals": [{"since": T}]}),
        (Kind.CONFLICT, ("g",), {"v": 1, "group": "g", "jobs": ["a", "b"]}),
        (Kind.CALENDAR, ("c",), {"v": 1, "name": "c", "versions": [{"since": T}]}),
        (Kind.SETTINGS, (), {"v": 1, "resubmit_states": ["died"]}),
    ],
)
def test_sense_is_let_through(kind: Kind, ids: tuple[str, ...], fields: dict[str, Any]) -> None:
    read(kind, ids, fields)


def test_whatever_stands_in_the_mark_of_edits_counts() -> None:
    """Its revision holds the watermark back; were it absent to us, that would be for ever."""
    change = change_of(KEYS, KeyValue(KEYS.of(Kind.EDITED), b"garbage", 3, 7, 2, 0))
    assert change is not None
    assert (change.record is not None, change.mod_revision) == (True, 7)


@pytest.mark.parametrize(
    ("kind", "ids", "fields", "why"),
    [
        (Kind.JOB, ("other",), JOB, "it is a record of j"),
        (Kind.JOB, ("j",), {**JOB, "versions": []}, "no version"),
        (Kind.JOB, ("j",), version(since="yesterday"), "regex"),
        (Kind.JOB, ("j",), version(since="2026-02-30T10:00:00.000Z"), "not a time"),
        (Kind.JOB, ("j",), version(timezone="Mars/X"), "Mars/X"),
        (
            Kind.JOB,
            ("j",),
            version(patterns=[{"kind": "cron", "expression": "99 99 * * *"}]),
            "99",
        ),
        (
            Kind.JOB,
            ("j",),
            version(patterns=[{"kind": "every", "interval_s": 0, "anchor": T}]),
            "interval",
        ),
        (Kind.PAUSE, ("j",), {"v": 1, "intervals": [{"since": "never"}]}, "regex"),
        (
            Kind.PAUSE,
            ("j",),
            {"v": 1, "intervals": [{"since": T, "until": "2026-11-21T10:00:00.000Z"}]},
            "ends before it begins",
        ),
        (
            Kind.PAUSE,
            ("j",),
            {"v": 1, "intervals": [{"since": T}, {"since": T}]},
            "isn't the last",
        ),
        (Kind.PRESENCE, ("ghost",), PRESENCE, "it is a record of a"),
        (Kind.PRESENCE, ("a",), {**PRESENCE, "incarnation": "x"}, "no lease"),
        (Kind.PRESENCE, ("a",), {**PRESENCE, "clock": "x"}, "regex"),
        (Kind.PRESENCE, ("a",), {**PRESENCE, "slots": -1}, "slots"),
        (Kind.REPORT, ("a", "j", "r"), {**REPORT, "incarnation": "x"}, "no lease"),
        (Kind.LATE_REPORT, ("a", "j", "r", "5"), REPORT, "names an outcome"),
        (
            Kind.LATE_REPORT,
            ("a", "j", "r", "five"),
            {**REPORT, "outcome": "completed"},
            "a token in its key",
        ),
        (Kind.RUN, ("j", "r"), {**RUN, "state": "retrying"}, "no attempt that is retried"),
        (
            Kind.JOIN,
            ("j", "i"),
            {"v": 1, "job": "j", "instance": "i", "run": "r", "since": T, "arrived": []},
            "nobody has come",
        ),
        (Kind.JOB, ("j",), {**JOB, "splay_s": 1e300}, "out of range"),
        (Kind.JOB, ("j",), {**JOB, "retry": {"interval_s": -1e12}}, "out of range"),
        (Kind.DRAIN, ("a",), {"v": 1, "agent": "b", "since": T}, "it is a record of b"),
        (Kind.CALENDAR, ("c",), {"v": 1, "name": "d", "versions": []}, "it is a record of d"),
        (Kind.CALENDAR, ("c",), {"v": 1, "name": "c", "versions": []}, "it has no version"),
        (
            Kind.CALENDAR,
            ("c",),
            {"v": 1, "name": "c", "versions": [{"since": T, "exclude": ["x"]}]},
            "is no date",
        ),
        (Kind.JOB, ("j",), version(windows=[{"since": T, "until": T}]), "before it begins"),
        (Kind.CONFLICT, ("g",), {"v": 1, "group": "h", "jobs": []}, "it is a record of h"),
        (Kind.CONFLICT, ("g",), {"v": 1, "group": "g", "jobs": ["a", "a"]}, "stands in it twice"),
        (Kind.SETTINGS, (), {"v": 1, "resubmit_states": ["ready"]}, "no run ends ready"),
        (Kind.SETTINGS, (), {"v": 1, "max_active_agents": 0}, "0 active agents"),
        (Kind.SETTINGS, (), {"v": 1, "max_history_bytes": 0}, "0 bytes of history"),
        (Kind.SETTINGS, (), {"v": 1, "recovery_rate": 0}, "no recovery goes at 0 a second"),
    ],
)
def test_nonsense_is_refused(
    kind: Kind, ids: tuple[str, ...], fields: dict[str, Any], why: str
) -> None:
    with pytest.raises(MalformedRecord, match=why):
        read(kind, ids, fields)
