"""An agent's claims and outcomes."""

from __future__ import annotations

import pytest

from etcsched.core.agent.effects import Adopt, Claim, ReportOutcome
from etcsched.core.records import (
    Kind,
)
from etcsched.core.states import Outcome
from etcsched.keyspace import transactions as tx
from etcsched.keyspace.ops import Put, Txn
from etcsched.testing.model_store import ModelStore
from tests.unit.keyspace.writing import (
    KEYS,
    PLACES,
    RUN_ID,
    START,
    Case,
    assignment,
    compares_and_changes_what_it_says,
    fills_a_batch,
    is_refused_by_one_compare,
    report,
)

AGENT = tx.AgentTransactions(KEYS).build
CASES = [
    Case(
        "T2 claim",
        lambda seen: AGENT(
            Claim(token=seen("assignment"), assignment=assignment(seen), report=report())
        ),
        {"assignment", "job"},
        {"assignment", "report", "drain", "seat", *START},
        {"report"},
    ),
    Case(
        "T6 adopt",
        lambda seen: AGENT(
            Adopt(
                agent="a1",
                token=seen("assignment"),
                report=report(),
                report_revision=seen("report"),
            )
        ),
        {"assignment", "report"},
        {"assignment", "report"},
        {"report"},
    ),
]
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


def test_an_outcome_goes_late_once_its_assignment_moved() -> None:
    store = ModelStore()
    token = store.txn(Txn((), (Put(PLACES["assignment"], b"{}"),))).revision
    write = ReportOutcome(agent="a1", token=token, report=report(Outcome.COMPLETED))
    assert store.txn(AGENT(write)).succeeded
    store.txn(Txn((), (Put(PLACES["assignment"], b"{}"),)))
    assert not store.txn(AGENT(write)).succeeded
    late = KEYS.of(Kind.LATE_REPORT, "a1", "j", RUN_ID, str(token))
    assert store.snapshot(late, None).kvs
