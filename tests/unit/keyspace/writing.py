"""A transaction as a table row: what there is, what it compares, what it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from etcsched.core.leader import effects as fx
from etcsched.core.records import (
    CLUSTER,
    Answer,
    Assignment,
    Kind,
    Noop,
    Report,
    Run,
    StartSeen,
    Watermark,
)
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import Utc
from etcsched.keyspace import transactions as tx
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, Delete, Put, Target, Txn
from etcsched.testing.model_store import ModelStore
from etcsched.testing.txn_rules import check_form

KEYS = Keys()
NOW = Utc("2026-11-22T12:00:00.000Z")
TICK = Utc("2026-11-22T12:00:05.000Z")
LATER = Utc("2026-11-22T12:00:09.000Z")
RUN_ID = "20261122T120005Z"
AGAIN = "20261122T120009.000Z-01"

PLACES = {
    "run": KEYS.of(Kind.RUN, "j", RUN_ID),
    "archive": KEYS.archive("j", RUN_ID),
    "new run": KEYS.of(Kind.RUN, "j", AGAIN),
    "new archive": KEYS.archive("j", AGAIN),
    "job": KEYS.of(Kind.JOB, "j"),
    "pause": KEYS.of(Kind.PAUSE, "j"),
    "cluster pause": KEYS.of(Kind.PAUSE, CLUSTER),
    "presence": KEYS.of(Kind.PRESENCE, "a1"),
    "drain": KEYS.of(Kind.DRAIN, "a1"),
    "seat": KEYS.of(Kind.SEAT, "a1"),
    "new seat": KEYS.of(Kind.SEAT, "a2"),
    "live": KEYS.of(Kind.LIVE, "a1"),
    "new live": KEYS.of(Kind.LIVE, "a2"),
    "third presence": KEYS.of(Kind.PRESENCE, "a3"),
    "settings": KEYS.of(Kind.SETTINGS),
    "new presence": KEYS.of(Kind.PRESENCE, "a2"),
    "new drain": KEYS.of(Kind.DRAIN, "a2"),
    "watermark": KEYS.watermark,
    "assignment": KEYS.of(Kind.ASSIGNMENT, "a1", "j", RUN_ID),
    "report": KEYS.of(Kind.REPORT, "a1", "j", RUN_ID),
    "order": KEYS.of(Kind.ORDER, "a1", "j", RUN_ID),
    "request": KEYS.of(Kind.REQUEST, "r1"),
    "gap": KEYS.of(Kind.GAP, "j"),
    "fan-out": KEYS.of(Kind.FAN_OUT, "j", RUN_ID),
    "rotation": KEYS.of(Kind.ROTATION, "j"),
    "target": KEYS.of(Kind.JOB, "t"),
    "chained run": KEYS.of(Kind.RUN, "t", "c1"),
    "chained archive": KEYS.archive("t", "c1"),
    "join": KEYS.of(Kind.JOIN, "t", RUN_ID),
    "other join": KEYS.of(Kind.JOIN, "u", RUN_ID),
    "calendar": KEYS.of(Kind.CALENDAR, "c"),
    "edited": KEYS.of(Kind.EDITED),
    "answer": KEYS.of(Kind.ANSWER, "r1"),
    "late report": KEYS.of(Kind.LATE_REPORT, "a1", "j", RUN_ID, "7"),
    "term": KEYS.term,
    "election": KEYS.of(Kind.ELECTION, "5"),
}
Seen = Callable[[str], int]
START = {"job", "pause", "cluster pause"}


def run_in(state: RunState, **fields: object) -> Run:
    return Run(
        job="j", id=RUN_ID, state=state, origin=Origin.SCHEDULE, created_at=NOW,
        scheduled_at=TICK, **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def seen_by(seen: Seen, new: str = "") -> StartSeen:
    return StartSeen(
        job=seen("job"), pause=seen("pause"), cluster_pause=seen("cluster pause"),
        drain=seen(f"{new}drain"), seat=seen(f"{new}seat"),
    )  # fmt: skip


def assignment(seen: Seen, agent: str = "a1") -> Assignment:
    return Assignment(
        job="j", run=RUN_ID, agent=agent, incarnation="5", attempt=1, action=Noop(),
        seen=seen_by(seen, "" if agent == "a1" else "new "), assigned_at=NOW, term=1,
    )  # fmt: skip


def report(outcome: Outcome | None = None) -> Report:
    return Report(
        job="j", run=RUN_ID, attempt=1, token=7, incarnation="5", supervisor="s", claimed_at=NOW,
        outcome=outcome,
    )  # fmt: skip


def consumed(seen: Seen) -> fx.Consumed:
    answer = Answer(request="r1", accepted=True, message="", at=NOW)
    return fx.Consumed(request_revision=seen("request"), answer=answer)


def old_attempt(seen: Seen, presence: bool) -> fx.OldAttempt:
    return fx.OldAttempt(
        agent="a1",
        assignment_revision=seen("assignment"),
        report_revision=seen("report"),
        presence_revision=seen("presence") if presence else None,
    )


class Case(NamedTuple):
    """``exist``: what is there; ``compares``: what is compared; ``puts`` and ``deletes``."""

    name: str
    build: Callable[[Seen], Txn]
    exist: set[str]
    compares: set[str]
    puts: set[str]
    deletes: set[str] = set()  # noqa: RUF012 - never changed


def store_of(case: Case) -> tuple[ModelStore, Seen]:
    store = ModelStore()
    for place in sorted(case.exist):
        value = encode(Watermark(through=NOW, term=1)) if place == "watermark" else b"{}"
        store.txn(Txn((), (Put(PLACES[place], value),)))

    def seen(place: str) -> int:
        kv = store.snapshot(PLACES[place], None).kvs
        return kv[0].mod_revision if kv else 0

    return store, seen


def compares_and_changes_what_it_says(case: Case) -> None:
    store, seen = store_of(case)
    txn = case.build(seen)
    assert {compare.key for compare in txn.compares} == {PLACES[name] for name in case.compares}
    puts = {operation.key for operation in txn.then if isinstance(operation, Put)}
    deletes = {operation.key for operation in txn.then if isinstance(operation, Delete)}
    assert puts == {PLACES.get(name, name) for name in case.puts}
    assert deletes == {PLACES[name] for name in case.deletes}
    assert tx.touched(txn) == puts | deletes
    assert store.txn(Txn((), (txn,))).responses[0].succeeded  # type: ignore[union-attr]


def is_refused_by_one_compare(case: Case, place: str) -> None:
    store, seen = store_of(case)
    txn = case.build(seen)
    value = encode(Watermark(through=LATER, term=1)) if place == "watermark" else b"{}"
    store.txn(Txn((), (Put(PLACES[place], value),)))
    before = store.revision
    assert not store.txn(Txn((), (txn,))).responses[0].succeeded  # type: ignore[union-attr]
    assert store.revision == before


def fills_a_batch(case: Case) -> None:
    """As many of the largest as ``MAX_OPERATIONS`` allows, in form alone."""
    _, seen = store_of(case)
    txn = case.build(seen)
    most = tx.MAX_OPERATIONS - tx.cost(txn)
    nested = [
        Txn(txn.compares, tuple(_elsewhere(operation, n) for operation in txn.then), txn.otherwise)
        for n in range(most)
    ]
    check_form(Txn((Compare("/a", Target.MOD, 1), Compare("/b", Target.MOD, 1)), tuple(nested)))


def _elsewhere(operation: object, n: int) -> Put | Delete:
    match operation:
        case Put(key=key, value=value):
            return Put(f"{key}/{n}", value)
        case Delete(key=key):
            return Delete(f"{key}/{n}")
    raise AssertionError(operation)
