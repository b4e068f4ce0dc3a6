"""Each of the leader's writes compares exactly what DESIGN 4 says, and each compare counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.records import (
    FanOut,
    Gap,
    Join,
    Kind,
    Live,
    Order,
    Rotation,
    Run,
    Seat,
    StartSeen,
    Watermark,
)
from etcsched.core.states import Origin, RunState, Stage
from etcsched.jobfile.chains import MAX_LINKS
from etcsched.keyspace import transactions as tx
from etcsched.keyspace.ops import Put, RangeResult, Txn, TxnResult
from etcsched.testing.txn_rules import check_form
from tests.unit.keyspace.writing import (
    AGAIN,
    KEYS,
    NOW,
    PLACES,
    RUN_ID,
    START,
    TICK,
    Case,
    Seen,
    assignment,
    compares_and_changes_what_it_says,
    consumed,
    fills_a_batch,
    is_refused_by_one_compare,
    old_attempt,
    run_in,
    seen_by,
    store_of,
)

BUILD = tx.LeaderTransactions(KEYS).build
FAN_OUT = FanOut(
    job="j", run=RUN_ID, scheduled_at=TICK, agents=("a1", "a2"), origin=Origin.SCHEDULE,
    cause="due", at=NOW, term=1,
)  # fmt: skip


def following(seen: Seen) -> fx.Following:
    chained = Run(
        job="t", id="c1", state=RunState.READY, origin=Origin.CHAIN, created_at=NOW
    )  # fmt: skip
    waiting = Join(job="u", instance=RUN_ID, run="c2", since=NOW, arrived=())
    return fx.Following(
        created=(chained,),
        joins=(
            fx.JoinChange(target="t", instance=RUN_ID, revision=seen("join"), join=None),
            fx.JoinChange(target="u", instance=RUN_ID, revision=seen("other join"), join=waiting),
        ),
        jobs=(("j", seen("job")), ("t", seen("target"))),
        edited_revision=seen("edited"),
    )


THERE = {"job", "pause", "watermark"}


def create(
    state: RunState,
    *,
    is_tick: bool,
    assigned: bool,
    asks: bool,
    calendar: bool = False,
    fanned_out: bool = False,
) -> Callable[[Seen], Txn]:
    return lambda seen: BUILD(
        fx.CreateRun(
            seq=1,
            run=run_in(state),
            seen=seen_by(seen) if assigned else StartSeen(
                job=seen("job"), pause=seen("pause"), cluster_pause=seen("cluster pause")
            ),
            is_tick=is_tick,
            fan_out_revision=seen("fan-out") if fanned_out else 0,
            calendars=(("c", seen("calendar")),) if calendar else (),
            assignment=assignment(seen) if assigned else None,
            presence_revision=seen("presence") if assigned else 0,
            consumed=consumed(seen) if asks else None,
        )
    )  # fmt: skip


def resubmission() -> Run:
    return replace(run_in(RunState.QUEUED, resubmits=RUN_ID), id=AGAIN)


CASES = [
    Case(
        "T1 assigned",
        create(RunState.ASSIGNED, is_tick=True, assigned=True, asks=False),
        THERE | {"presence"},
        {"run", "archive", "watermark", "presence", "drain", "seat", *START},
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
        "T1 by a calendar",
        create(RunState.READY, is_tick=True, assigned=False, asks=False, calendar=True),
        THERE,
        {"run", "archive", "watermark", "calendar", *START},
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
        "T1 of a fan-out",
        create(RunState.READY, is_tick=False, assigned=False, asks=False, fanned_out=True),
        THERE | {"fan-out"},
        {"run", "archive", "fan-out", *START},
        {"run"},
    ),
    Case(
        "T1 of a tick for several agents",
        lambda seen: BUILD(
            fx.CreateFanOut(
                seq=1, fan_out=FAN_OUT, seen=seen_by(seen), calendars=(("c", seen("calendar")),)
            )
        ),
        {"job", "watermark"},
        {"fan-out", "run", "archive", "watermark", "calendar", *START},
        {"fan-out"},
    ),
    Case(
        "forget a fan-out",
        lambda seen: BUILD(
            fx.ForgetFanOut(seq=1, job="j", run_id=RUN_ID, revision=seen("fan-out"))
        ),
        {"fan-out"},
        {"fan-out"},
        set(),
        {"fan-out"},
    ),
    Case(
        "a step of a recovery, for several agents",
        lambda seen: BUILD(
            fx.RecoverTicks(
                seq=1,
                job="j",
                job_revision=seen("job"),
                pause_revision=seen("pause"),
                cluster_pause_revision=seen("cluster pause"),
                gap_revision=seen("gap"),
                gap=Gap(job="j", since=NOW, decided_through=TICK, reason="no agent"),
                created=(),
                archived=(),
                fan_outs=(FAN_OUT,),
            )
        ),
        {"job", "gap"},
        {"gap", "fan-out", "run", "archive", *START},
        {"gap", "fan-out"},
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
        {"run", "presence", "drain", "seat", *START},
        {"run", "assignment"},
    ),
    Case(
        "dispatch, in rotation",
        lambda seen: BUILD(
            fx.Dispatch(
                seq=1,
                run=run_in(RunState.ASSIGNED),
                run_revision=seen("run"),
                assignment=assignment(seen),
                presence_revision=seen("presence"),
                rotation=Rotation(job="j", agent="a1"),
            )
        ),
        {"run", "job", "presence", "rotation"},
        {"run", "presence", "drain", "seat", *START},
        {"run", "assignment", "rotation"},
    ),
    Case(
        "the seat of one that is gone goes to another",
        lambda seen: BUILD(
            fx.ChangeSeats(
                seq=1,
                given=((Seat(agent="a2", since=NOW, term=1), 0, seen("new presence")),),
                taken=(("a1", seen("seat"), seen("presence")),),
                settings_revision=seen("settings"),
            )
        ),
        {"settings", "seat", "new presence"},
        {"settings", "seat", "presence", "new seat", "new presence"},
        {"new seat"},
        {"seat"},
    ),
    Case(
        "one agent comes, with a run; one may go, for another is there; one is forgotten",
        lambda seen: BUILD(
            fx.ChangeLive(
                seq=1,
                changes=(
                    fx.LiveChange(
                        agent="a2",
                        revision=seen("new live"),
                        presence_revision=seen("new presence"),
                        live=Live(
                            agent="a2", incarnation="6", stage=Stage.HERE, since=NOW, term=1
                        ),
                    ),
                    fx.LiveChange(
                        agent="a1",
                        revision=seen("live"),
                        presence_revision=seen("presence"),
                        live=None,
                    ),
                ),
                created=(run_in(RunState.READY),),
                jobs=(("j", seen("job")),),
                witnesses=(("a3", seen("third presence")),),
            )
        ),
        {"live", "new presence", "third presence", "job"},
        {
            "live", "new live", "presence", "new presence", "third presence", "job", "run",
            "archive",
        },
        {"new live", "run"},
        {"live"},
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
        "T4b that completes one join and comes to another",
        lambda seen: BUILD(
            fx.EndRun(
                seq=1,
                run=run_in(RunState.COMPLETED),
                run_revision=seen("run"),
                old=old_attempt(seen, presence=False),
                following=following(seen),
            )
        ),
        {"run", "assignment", "report", "order", "job", "target", "join", "edited"},
        {
            "run", "archive", "assignment", "report", "job", "target", "join", "other join",
            "chained run", "chained archive", "edited",
        },
        {"archive", "chained run", "other join"},
        {"run", "assignment", "report", "order", "join"},
    ),
    Case(
        "T1 overlapped, with what follows",
        lambda seen: BUILD(
            fx.CreateRun(
                seq=1,
                run=run_in(RunState.OVERLAPPED),
                seen=StartSeen(
                    job=seen("job"), pause=seen("pause"), cluster_pause=seen("cluster pause")
                ),
                is_tick=True,
                following=following(seen),
            )
        ),
        THERE | {"target", "join", "edited"},
        {
            "run", "archive", "watermark", "target", "join", "other join",
            "chained run", "chained archive", "edited", *START,
        },
        {"archive", "chained run", "other join"},
        {"join"},
    ),
    Case(
        "begin what a join lacks nothing for",
        lambda seen: BUILD(fx.EndJoin(seq=1, following=following(seen))),
        {"job", "target", "join", "edited"},
        {"job", "target", "join", "other join", "chained run", "chained archive", "edited"},
        {"chained run", "other join"},
        {"join"},
    ),
    Case(
        "forget a join",
        lambda seen: BUILD(
            fx.ForgetJoin(seq=1, target="t", instance=RUN_ID, revision=seen("join"))
        ),
        {"join"},
        {"join"},
        set(),
        {"join"},
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
        "resubmit",
        lambda seen: BUILD(
            fx.Resubmit(
                seq=1,
                run=resubmission(),
                seen=StartSeen(job=seen("job")),
                original=run_in(RunState.DIED, resubmitted_as=(AGAIN,)),
                original_revision=seen("archive"),
                was_active=False,
                consumed=consumed(seen),
            )
        ),
        {"archive", "request", "job"},
        {"archive", "request", "new run", "new archive", *START},
        {"archive", "answer", "new run"},
        {"request"},
    ),
    Case(
        "resubmit what waits for a retry",
        lambda seen: BUILD(
            fx.Resubmit(
                seq=1,
                run=resubmission(),
                seen=StartSeen(job=seen("job")),
                original=run_in(RunState.FAILED, resubmitted_as=(AGAIN,)),
                original_revision=seen("run"),
                was_active=True,
                consumed=consumed(seen),
            )
        ),
        {"run", "request", "job"},
        {"run", "archive", "request", "new run", "new archive", *START},
        {"archive", "answer", "new run"},
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
        {
            "run", "assignment", "report", "presence", "new presence", "new drain", "new seat",
            *START,
        },
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
        "T4a",
        lambda seen: BUILD(
            fx.MoveRun(
                seq=1,
                run=run_in(RunState.RETRYING, retries=1, retry_at=TICK),
                run_revision=seen("run"),
                old=old_attempt(seen, presence=False),
            )
        ),
        {"run", "assignment", "report", "order"},
        {"run", "assignment", "report"},
        {"run"},
        {"assignment", "report", "order"},
    ),
    Case(
        "T5 to hold, the agent is lost",
        lambda seen: BUILD(
            fx.HoldRun(
                seq=1,
                run=run_in(RunState.HELD),
                run_revision=seen("run"),
                old=old_attempt(seen, presence=True),
                is_attempt_over=False,
            )
        ),
        {"run", "assignment", "report", "presence", "order"},
        {"run", "assignment", "report", "presence"},
        {"run"},
    ),
    Case(
        "hold, the agent said that it died",
        lambda seen: BUILD(
            fx.HoldRun(
                seq=1,
                run=run_in(RunState.HELD),
                run_revision=seen("run"),
                old=old_attempt(seen, presence=False),
                is_attempt_over=True,
            )
        ),
        {"run", "assignment", "report", "order"},
        {"run", "assignment", "report"},
        {"run"},
        {"assignment", "report", "order"},
    ),
    Case(
        "a held run's agent came back with it",
        lambda seen: BUILD(
            fx.ResumeRun(
                seq=1,
                run=run_in(RunState.ASSIGNED, agent="a1"),
                run_revision=seen("run"),
                old=old_attempt(seen, presence=True),
            )
        ),
        {"run", "assignment", "report", "presence"},
        {"run", "assignment", "report", "presence"},
        {"run"},
    ),
    Case(
        "release of a held run whose agent is lost",
        lambda seen: BUILD(
            fx.MoveRun(
                seq=1,
                run=run_in(RunState.READY),
                run_revision=seen("run"),
                old=old_attempt(seen, presence=True),
                consumed=consumed(seen),
            )
        ),
        {"run", "assignment", "report", "request"},
        {"run", "assignment", "report", "presence", "request"},
        {"run", "answer"},
        {"assignment", "report", "order", "request"},
    ),
    Case(
        "release of a held run whose attempt is over",
        lambda seen: BUILD(
            fx.MoveRun(
                seq=1,
                run=run_in(RunState.READY),
                run_revision=seen("run"),
                old=None,
                consumed=consumed(seen),
            )
        ),
        {"run", "request"},
        {"run", "request"},
        {"run", "answer"},
        {"request"},
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
        {"run", "assignment", "report", "presence", "drain", "seat", *START},
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
                gap=Gap(job="j", since=NOW, decided_through=TICK, reason=""),
                gap_revision=seen("gap"),
                job_revision=seen("job"),
                pause_revision=seen("pause"),
                cluster_pause_revision=seen("cluster pause"),
            )
        ),
        {"job", "watermark"},
        {"gap", "job", "pause", "cluster pause", "watermark"},
        {"gap"},
    ),
    Case(
        "keep a gap, for another reason",
        lambda seen: BUILD(
            fx.KeepGap(
                seq=1,
                gap=Gap(job="j", since=NOW, decided_through=TICK, reason="another"),
                gap_revision=seen("gap"),
            )
        ),
        {"gap"},
        {"gap"},
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
        {"gap", "watermark", "run", "archive", "fan-out", *START},
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
                calendars=(("c", seen("calendar")),),
                gap_revision=seen("gap"),
                gap=Gap(job="j", since=NOW, decided_through=TICK, reason=""),
                created=(),
                archived=(run_in(RunState.MISSED),),
            )
        ),
        {"job", "gap"},
        {"calendar", "gap", "run", "archive", "fan-out", *START},
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
        {"job", "pause", "rotation"},
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
COMPARES = [(case, place) for case in CASES for place in sorted(case.compares)]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_what_it_compares_and_changes(case: Case) -> None:
    compares_and_changes_what_it_says(case)


@pytest.mark.parametrize(("case", "place"), COMPARES, ids=[f"{c.name}: {p}" for c, p in COMPARES])
def test_each_compare_alone_refuses_it(case: Case, place: str) -> None:
    is_refused_by_one_compare(case, place)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_full_batch_is_taken(case: Case) -> None:
    fills_a_batch(case)


@pytest.mark.parametrize("name", [c.name for c in CASES if c.name.startswith(("T1", "recover"))])
def test_a_refusal_tells_that_the_run_exists(name: str) -> None:
    (case,) = [case for case in CASES if case.name == name]
    store, seen = store_of(case)
    txn = case.build(seen)
    store.txn(Txn((), (Put(PLACES["archive"], b"{}"),)))
    (answer,) = store.txn(Txn((), (txn,))).responses
    assert isinstance(answer, TxnResult)
    assert any(isinstance(found, RangeResult) and found.count for found in answer.responses)


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


def test_the_end_of_a_run_with_the_longest_chain_fits() -> None:
    """Every link completes a join, and a request is answered, too."""
    names = [f"t{n}" for n in range(MAX_LINKS)]
    chained = tuple(
        Run(job=name, id="c", state=RunState.READY, origin=Origin.CHAIN, created_at=NOW)
        for name in names
    )
    joins = tuple(
        fx.JoinChange(target=name, instance=RUN_ID, revision=1, join=None) for name in names
    )
    write = fx.EndRun(
        seq=1,
        run=run_in(RunState.CANCELLED),
        run_revision=1,
        old=old_attempt(lambda _: 1, presence=True),
        consumed=consumed(lambda _: 1),
        following=fx.Following(
            created=chained,
            joins=joins,
            jobs=tuple((name, 1) for name in ["j", *names]),
            edited_revision=1,
        ),
    )
    txn = BUILD(write)
    assert tx.cost(txn) + 1 <= tx.MAX_OPERATIONS
    check_form(Txn((), (txn,)))
