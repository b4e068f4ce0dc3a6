"""Each transaction compares exactly what DESIGN 4 says, and each of its compares counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from etcsched.core.agent.effects import Claim, ReportOutcome
from etcsched.core.leader import effects as fx
from etcsched.core.records import (
    CLUSTER,
    Answer,
    Assignment,
    Gap,
    Job,
    Kind,
    Noop,
    Order,
    Pause,
    Report,
    Run,
    StartSeen,
    Term,
    Watermark,
)
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import Utc
from etcsched.keyspace import transactions as tx
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, Delete, Put, RangeResult, Target, Txn, TxnResult
from etcsched.testing.model_store import ModelStore
from etcsched.testing.txn_rules import check_form
from tests.support.jobs import job

KEYS = Keys()
NOW = Utc("2026-11-22T12:00:00.000Z")
TICK = Utc("2026-11-22T12:00:05.000Z")
LATER = Utc("2026-11-22T12:00:09.000Z")
RUN_ID = "20261122T120005Z"
BUILD = tx.LeaderTransactions(KEYS).build
AGENT = tx.AgentTransactions(KEYS).build

PLACES = {
    "run": KEYS.of(Kind.RUN, "j", RUN_ID),
    "archive": KEYS.archive("j", RUN_ID),
    "job": KEYS.of(Kind.JOB, "j"),
    "pause": KEYS.of(Kind.PAUSE, "j"),
    "cluster pause": KEYS.of(Kind.PAUSE, CLUSTER),
    "presence": KEYS.of(Kind.PRESENCE, "a1"),
    "drain": KEYS.of(Kind.DRAIN, "a1"),
    "new presence": KEYS.of(Kind.PRESENCE, "a2"),
    "new drain": KEYS.of(Kind.DRAIN, "a2"),
    "watermark": KEYS.watermark,
    "assignment": KEYS.of(Kind.ASSIGNMENT, "a1", "j", RUN_ID),
    "report": KEYS.of(Kind.REPORT, "a1", "j", RUN_ID),
    "order": KEYS.of(Kind.ORDER, "a1", "j", RUN_ID),
    "request": KEYS.of(Kind.REQUEST, "r1"),
    "gap": KEYS.of(Kind.GAP, "j"),
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


def seen_by(seen: Seen, drain: str = "drain") -> StartSeen:
    return StartSeen(
        job=seen("job"), pause=seen("pause"), cluster_pause=seen("cluster pause"), drain=seen(drain)
    )


def assignment(seen: Seen, agent: str = "a1") -> Assignment:
    return Assignment(
        job="j", run=RUN_ID, agent=agent, incarnation="5", attempt=1, action=Noop(),
        seen=seen_by(seen, "drain" if agent == "a1" else "new drain"), assigned_at=NOW, term=1,
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


def create(state: RunState, *, is_tick: bool, assigned: bool, asks: bool) -> Callable[[Seen], Txn]:
    return lambda seen: BUILD(
        fx.CreateRun(
            seq=1,
            run=run_in(state),
            seen=seen_by(seen) if assigned else StartSeen(
                job=seen("job"), pause=seen("pause"), cluster_pause=seen("cluster pause")
            ),
            is_tick=is_tick,
            assignment=assignment(seen) if assigned else None,
            presence_revision=seen("presence") if assigned else 0,
            consumed=consumed(seen) if asks else None,
        )
    )  # fmt: skip


THERE = {"job", "pause", "watermark"}
CASES = [
    Case(
        "T1 assigned",
        create(RunState.ASSIGNED, is_tick=True, assigned=True, asks=False),
        THERE | {"presence"},
        {"run", "archive", "watermark", "presence", "drain", *START},
        {"run", "assignment"},
    ),
    Case(
        "T1 ready",
        create(RunState.READY, is_tick=True, assigned=False, asks=False),
        THERE,
        {"run", "archive", "watermark", *START},
        {"run"},
    ),
    Case(
        "T1 missed",
        create(RunState.MISSED, is_tick=True, assigned=False, asks=False),
        THERE,
        {"run", "archive", "watermark", *START},
        {"archive"},
    ),
    Case(
        "T1 requested",
        create(RunState.READY, is_tick=False, assigned=False, asks=True),
        THERE | {"request"},
        {"run", "archive", "request", *START},
        {"run", "answer"},
        {"request"},
    ),
    Case(
        "dispatch",
        lambda seen: BUILD(
            fx.Dispatch(
                seq=1,
                run=run_in(RunState.ASSIGNED),
                run_revision=seen("run"),
                assignment=assignment(seen),
                presence_revision=seen("presence"),
            )
        ),
        {"run", "job", "presence"},
        {"run", "presence", "drain", *START},
        {"run", "assignment"},
    ),
    Case(
        "T2 claim",
        lambda seen: AGENT(
            Claim(token=seen("assignment"), assignment=assignment(seen), report=report())
        ),
        {"assignment", "job"},
        {"assignment", "report", "drain", *START},
        {"report"},
    ),
    Case(
        "T4b with an outcome",
        lambda seen: BUILD(
            fx.EndRun(
                seq=1,
                run=run_in(RunState.COMPLETED),
                run_revision=seen("run"),
                old=old_attempt(seen, presence=False),
            )
        ),
        {"run", "assignment", "report", "order"},
        {"run", "archive", "assignment", "report"},
        {"archive"},
        {"run", "assignment", "report", "order"},
    ),
    Case(
        "T4b without an attempt",
        lambda seen: BUILD(
            fx.EndRun(
                seq=1,
                run=run_in(RunState.CANCELLED),
                run_revision=seen("run"),
                consumed=consumed(seen),
            )
        ),
        {"run", "request"},
        {"run", "archive", "request"},
        {"archive", "answer"},
        {"run", "request"},
    ),
    Case(
        "T5 to another agent",
        lambda seen: BUILD(
            fx.MoveRun(
                seq=1,
                run=run_in(RunState.ASSIGNED, agent="a2"),
                run_revision=seen("run"),
                old=old_attempt(seen, presence=True),
                assignment=assignment(seen, "a2"),
                presence_revision=seen("new presence"),
            )
        ),
        {"run", "assignment", "report", "job", "new presence"},
        {"run", "assignment", "report", "presence", "new presence", "new drain", *START},
        {"run", KEYS.of(Kind.ASSIGNMENT, "a2", "j", RUN_ID)},
        {"assignment", "report", "order"},
    ),
    Case(
        "T5 to wait",
        lambda seen: BUILD(
            fx.MoveRun(
                seq=1,
                run=run_in(RunState.READY),
                run_revision=seen("run"),
                old=old_attempt(seen, presence=True),
            )
        ),
        {"run", "assignment"},
        {"run", "assignment", "report", "presence"},
        {"run"},
        {"assignment", "report", "order"},
    ),
    Case(
        "T5 to the same agent's new incarnation",
        lambda seen: BUILD(
            fx.MoveRun(
                seq=1,
                run=run_in(RunState.ASSIGNED, agent="a1"),
                run_revision=seen("run"),
                old=old_attempt(seen, presence=True),
                assignment=assignment(seen),
                presence_revision=seen("presence"),
            )
        ),
        {"run", "assignment", "report", "job", "presence"},
        {"run", "assignment", "report", "presence", "drain", *START},
        {"run", "assignment"},
        {"report", "order"},
    ),
    Case(
        "requeue",
        lambda seen: BUILD(
            fx.Requeue(seq=1, run=run_in(RunState.QUEUED), run_revision=seen("run"))
        ),
        {"run"},
        {"run"},
        {"run"},
    ),
    Case(
        "order",
        lambda seen: BUILD(
            fx.SendOrder(
                seq=1,
                agent="a1",
                order=Order(job="j", run=RUN_ID, token=seen("assignment"), at=NOW),
                run_revision=seen("run"),
                consumed=consumed(seen),
            )
        ),
        {"run", "assignment", "request"},
        {"run", "assignment", "request"},
        {"order", "answer"},
        {"request"},
    ),
    Case(
        "answer",
        lambda seen: BUILD(fx.AnswerRequest(seq=1, consumed=consumed(seen))),
        {"request"},
        {"request"},
        {"answer"},
        {"request"},
    ),
    Case(
        "open a gap",
        lambda seen: BUILD(
            fx.OpenGap(
                seq=1,
                gap=Gap(job="j", since=NOW, decided_through=NOW, reason=""),
                gap_revision=seen("gap"),
                job_revision=seen("job"),
            )
        ),
        {"job"},
        {"gap", "job"},
        {"gap"},
    ),
    Case(
        "recover, no leader was there",
        lambda seen: BUILD(
            fx.RecoverTicks(
                seq=1,
                job="j",
                job_revision=seen("job"),
                pause_revision=seen("pause"),
                cluster_pause_revision=seen("cluster pause"),
                gap_revision=seen("gap"),
                gap=Gap(job="j", since=NOW, decided_through=TICK, reason=""),
                created=(run_in(RunState.QUEUED),),
                archived=(),
                first_tick=TICK,
            )
        ),
        {"job", "watermark"},
        {"gap", "watermark", "run", "archive", *START},
        {"gap", "run"},
    ),
    Case(
        "recover from a gap",
        lambda seen: BUILD(
            fx.RecoverTicks(
                seq=1,
                job="j",
                job_revision=seen("job"),
                pause_revision=seen("pause"),
                cluster_pause_revision=seen("cluster pause"),
                gap_revision=seen("gap"),
                gap=Gap(job="j", since=NOW, decided_through=TICK, reason=""),
                created=(),
                archived=(run_in(RunState.MISSED),),
            )
        ),
        {"job", "gap"},
        {"gap", "run", "archive", *START},
        {"gap", "archive"},
    ),
    Case(
        "forget a gap",
        lambda seen: BUILD(fx.ForgetGap(seq=1, job="j", revision=seen("gap"))),
        {"gap"},
        {"gap"},
        set(),
        {"gap"},
    ),
    Case(
        "forget an attempt without its run",
        lambda seen: BUILD(
            fx.ForgetAttempt(
                seq=1,
                agent="a1",
                job="j",
                run_id=RUN_ID,
                assignment_revision=seen("assignment"),
                report_revision=seen("report"),
            )
        ),
        {"assignment", "report", "order"},
        {"run", "assignment", "report"},
        set(),
        {"assignment", "report", "order"},
    ),
    Case(
        "forget a job",
        lambda seen: BUILD(
            fx.ForgetJob(
                seq=1, job="j", job_revision=seen("job"), pause_revision=seen("pause")
            )
        ),
        {"job", "pause"},
        {"job", "pause", "gap"},
        set(),
        {"job", "pause"},
    ),
    Case(
        "forget a run",
        lambda seen: BUILD(
            fx.Forget(seq=1, job="j", run_id=RUN_ID, revision=seen("archive"))
        ),
        {"archive"},
        {"archive"},
        set(),
        {"archive"},
    ),
    Case(
        "fold a late report",
        lambda seen: BUILD(
            fx.FoldLateReport(
                seq=1,
                agent="a1",
                job="j",
                run_id=RUN_ID,
                token=7,
                report_revision=seen("late report"),
                run=run_in(RunState.COMPLETED),
                run_revision=seen("archive"),
                in_archive=True,
            )
        ),
        {"late report", "archive"},
        {"late report", "archive"},
        {"archive"},
        {"late report"},
    ),
    Case(
        "watermark",
        lambda seen: BUILD(
            fx.AdvanceWatermark(
                seq=1,
                watermark=Watermark(through=TICK, term=1),
                old_revision=seen("watermark"),
                edited_revision=seen("edited"),
            )
        ),
        {"watermark", "edited"},
        {"watermark", "edited"},
        {"watermark"},
    ),
]  # fmt: skip
NAMES = [case.name for case in CASES]


def store_of(case: Case) -> tuple[ModelStore, Seen]:
    store = ModelStore()
    for place in sorted(case.exist):
        value = encode(Watermark(through=NOW, term=1)) if place == "watermark" else b"{}"
        store.txn(Txn((), (Put(PLACES[place], value),)))

    def seen(place: str) -> int:
        kv = store.snapshot(PLACES[place], None).kvs
        return kv[0].mod_revision if kv else 0

    return store, seen


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_what_it_compares_and_changes(case: Case) -> None:
    store, seen = store_of(case)
    txn = case.build(seen)
    assert {compare.key for compare in txn.compares} == {PLACES[name] for name in case.compares}
    puts = {operation.key for operation in txn.then if isinstance(operation, Put)}
    deletes = {operation.key for operation in txn.then if isinstance(operation, Delete)}
    assert puts == {PLACES.get(name, name) for name in case.puts}
    assert deletes == {PLACES[name] for name in case.deletes}
    assert tx.touched(txn) == puts | deletes
    assert store.txn(Txn((), (txn,))).responses[0].succeeded  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("case", "place"),
    [(case, place) for case in CASES for place in sorted(case.compares)],
    ids=[f"{case.name}: {place}" for case in CASES for place in sorted(case.compares)],
)
def test_each_compare_alone_refuses_it(case: Case, place: str) -> None:
    store, seen = store_of(case)
    txn = case.build(seen)
    value = encode(Watermark(through=LATER, term=1)) if place == "watermark" else b"{}"
    store.txn(Txn((), (Put(PLACES[place], value),)))
    before = store.revision
    assert not store.txn(Txn((), (txn,))).responses[0].succeeded  # type: ignore[union-attr]
    assert store.revision == before


@pytest.mark.parametrize("name", [c.name for c in CASES if c.name.startswith(("T1", "recover"))])
def test_a_refusal_tells_that_the_run_exists(name: str) -> None:
    (case,) = [case for case in CASES if case.name == name]
    store, seen = store_of(case)
    txn = case.build(seen)
    store.txn(Txn((), (Put(PLACES["archive"], b"{}"),)))
    (answer,) = store.txn(Txn((), (txn,))).responses
    assert isinstance(answer, TxnResult)
    assert any(isinstance(found, RangeResult) and found.count for found in answer.responses)


def test_an_outcome_goes_late_once_its_assignment_moved() -> None:
    store = ModelStore()
    token = store.txn(Txn((), (Put(PLACES["assignment"], b"{}"),))).revision
    write = ReportOutcome(agent="a1", token=token, report=report(Outcome.COMPLETED))
    assert store.txn(AGENT(write)).succeeded
    store.txn(Txn((), (Put(PLACES["assignment"], b"{}"),)))
    assert not store.txn(AGENT(write)).succeeded
    late = KEYS.of(Kind.LATE_REPORT, "a1", "j", RUN_ID, str(token))
    assert store.snapshot(late, None).kvs


@pytest.mark.parametrize("place", ["election", "term"])
def test_the_leaders_guard(place: str) -> None:
    store = ModelStore()
    token = store.txn(Txn((), (Put(PLACES["election"], b"{}"),))).revision
    term = Term(number=1, leader="s1", election_key="5", token=token, since=NOW)
    term_revision = store.txn(Txn((), (Put(KEYS.term, encode(term)),))).revision
    guard = tx.LeaderGuard(KEYS, term, term_revision)
    outer = tx.guarded(guard, [Txn((), (Put("/x", b""),))])
    assert store.txn(outer).succeeded
    if place == "election":
        store.txn(Txn((), (Delete(PLACES["election"]),)))
    store.txn(Txn((), (Put(PLACES[place], b"{}"),)))
    assert not store.txn(outer).succeeded


def test_a_candidate_may_renew_what_it_says_of_itself_under_its_guard() -> None:
    assert {c.target for c in tx.AgentGuard(KEYS, "a1", 5).compares} == {Target.CREATE}
    term = Term(number=1, leader="s1", election_key="5", token=3, since=NOW)
    own, _ = tx.LeaderGuard(KEYS, term, 9).compares
    assert own == Compare(PLACES["election"], Target.CREATE, 3)


def test_edits_are_seen_by_the_watermark() -> None:
    definition: Job = job("j", every_s=5)
    pause = Pause(intervals=())
    for txn in (
        tx.write_jobs(KEYS, [(definition, 0)], 0),
        tx.write_pause(KEYS, "j", pause, 0, 0),
    ):
        assert PLACES["edited"] in tx.touched(txn)
        assert KEYS.watermark in {compare.key for compare in txn.compares}


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_full_batch_is_taken(case: Case) -> None:
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


def test_the_largest_step_of_a_recovery_fits() -> None:
    runs = [
        Run(
            job="j", id=f"r{n}", state=RunState.QUEUED, origin=Origin.RECOVERY, created_at=NOW
        )
        for n in range(16 + 17)
    ]  # fmt: skip
    write = fx.RecoverTicks(
        seq=1, job="j", job_revision=1, pause_revision=0, cluster_pause_revision=0, gap_revision=1,
        gap=Gap(job="j", since=NOW, decided_through=TICK, reason=""), created=tuple(runs),
        archived=(), first_tick=TICK,
    )  # fmt: skip
    txn = BUILD(write)
    assert tx.cost(txn) + 1 <= tx.MAX_OPERATIONS
    check_form(Txn((), (txn,)))
