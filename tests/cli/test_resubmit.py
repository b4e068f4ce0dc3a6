"""etcsched runs resubmit: what it chooses, asks, says, and ends with."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.records import Answer, ClusterSettings, Kind, Request, RequestKind, Run
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import Utc
from etcsched.keyspace.ops import Delete, Range, Txn, TxnResult
from etcsched.operator.store import commit
from etcsched.testing.model_etcd import ModelEtcd
from tests.cli.console import NOW, Console, finished, job

BASE = "20261122T190000.500Z-abcd"
OLD, NEW = "20261121T023000Z", "20261122T023000Z"


def digest(run: str) -> str:
    return hashlib.sha256(run.encode()).hexdigest()[:12]


def answered(console: Console, run: str, accepted: bool = True, message: str = "waits") -> str:
    """The leader's word, as if it had been asked already; the new run's name."""
    request = f"{BASE}-{digest(run)}"
    name, _ = run.split("/")
    record = Answer(
        request=request,
        accepted=accepted,
        message=message,
        at=NOW,
        job=name,
        run=request if accepted else "",
    )
    console.put(record, Kind.ANSWER, request)
    return f"{name}/{request}"


@pytest.fixture
def history(console: Console) -> Console:
    """Of two jobs: what died, failed and completed, was resubmitted, is a row of ticks."""
    console.put(job("close_books", tags=("finance",)), Kind.JOB, "close_books")
    console.put(job("report", tags=("finance", "nightly")), Kind.JOB, "report")
    console.put(job("other"), Kind.JOB, "other")
    old, new = Utc("2026-11-21T02:30:00.000Z"), Utc("2026-11-22T02:30:00.000Z")
    console.archive(finished("close_books", OLD, old, Outcome.FAILED))
    console.archive(finished("close_books", NEW, new, Outcome.DIED))
    console.archive(finished("report", NEW, new, Outcome.FAILED))
    console.archive(finished("report", OLD, old))
    console.archive(replace(finished("other", NEW, new, Outcome.FAILED), resubmitted_as=("again",)))
    console.archive(
        Run(
            job="other",
            id="20261122T030000Z",
            state=RunState.MISSED,
            origin=Origin.SCHEDULE,
            created_at=NOW,
            scheduled_at=Utc("2026-11-22T03:00:00.000Z"),
            missed_count=7,
        )
    )
    return console


def test_one(history: Console) -> None:
    name = f"close_books/{NEW}"
    new = answered(history, name, message="waits: its turn comes next")
    args = ["runs", "resubmit", name, "--param", "month=10", "--force"]
    assert history.ok(*args) == f"{name}: resubmitted as {new}; waits: its turn comes next\n"


def test_what_the_leader_is_asked(history: Console) -> None:
    name = f"close_books/{NEW}"
    said = history.fails(
        3, "--timeout", "50ms", "runs", "resubmit", name, "--param", "a=1", "--force"
    )
    assert said.startswith(
        "etcsched: no leader answered within 0.05 s: of 1 run 0 are known to be done"
    )
    asked = history.get(Request, Kind.REQUEST, f"{BASE}-{digest(name)}")
    assert (asked.kind, asked.job, asked.run) == (RequestKind.RESUBMIT, "close_books", NEW)
    assert (asked.params, asked.force) == ({"a": "1"}, True)
    # What was asked for isn't chosen again.
    left = history.ok("runs", "resubmit", "--job", "close_books", "--dry-run")
    assert (
        "would resubmit 1 run (1 failed)\n1 run left out: resubmitted before, or its original was\n"
        in left
    )


def test_each_run_is_asked_for_as_of_its_own_sending(
    history: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the leader took the last for old copies, where somebody confirms it the next day, say,
    or the machine sleeps in between."""
    sent_at = [Utc("2026-11-23T19:00:00.000Z"), Utc("2026-11-24T19:00:00.000Z")]
    times = iter(sent_at)

    async def takes_a_day(etcd: ModelEtcd, txn: Txn, *, timeout_s: float) -> TxnResult:
        history.now = next(times, history.now)
        return await commit(etcd, txn, timeout_s=timeout_s)

    def takes_long(*_: object) -> None:
        history.now = next(times)

    monkeypatch.setattr("etcsched_cli.resubmit.confirm", takes_long)
    monkeypatch.setattr("etcsched.operator.bulk.commit", takes_a_day)
    history.fails(3, "--timeout", "50ms", "runs", "resubmit", "--job", "close_books")
    names = [f"close_books/{run}" for run in (OLD, NEW)]
    asked = [history.get(Request, Kind.REQUEST, f"{BASE}-{digest(name)}") for name in names]
    assert [request.at for request in asked] == sent_at


def test_a_misspelt_parameter(history: Console) -> None:
    """Then none is resubmitted; what a run has, a chain may have brought."""
    history.put(job("report", params={"rows": "0"}), Kind.JOB, "report")
    brought = replace(
        finished("report", OLD, Utc("2026-11-21T02:30:00.000Z"), Outcome.FAILED),
        params={"rows": "4", "row": "10"},
    )
    history.archive(brought)
    line = "etcsched: job report: has no parameter 'row'; did you mean rows? it declares rows"
    names = [f"close_books/{NEW}", f"report/{OLD}", f"report/{NEW}"]
    for chosen in (names, ["--since", "3d"]):
        for dry in ([], ["--dry-run"]):
            args = ["runs", "resubmit", *chosen, *dry, "--param", "row=11"]
            assert history.fails(5, *args) == line
    assert history.store.range(Range(*history.keys.all_of(Kind.REQUEST))).kvs == ()
    new = answered(history, f"report/{OLD}")
    assert new in history.ok("runs", "resubmit", f"report/{OLD}", "--param", "row=11")


def test_a_refusal(history: Console) -> None:
    name = f"close_books/{NEW}"
    text = "run close_books/x is completed; the settings allow failed, died"
    answered(history, name, accepted=False, message=text)
    assert history.fails(5, "runs", "resubmit", name) == f"etcsched: {text}"


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["--job", "close_books"], [f"close_books/{OLD}", f"close_books/{NEW}"]),
        (["--job", "close_books", "--state", "died"], [f"close_books/{NEW}"]),
        (["--tag", "finance", "--since", "2026-11-22"], [f"close_books/{NEW}", f"report/{NEW}"]),
        (["--tag", "finance", "--since", "1d"], [f"close_books/{NEW}", f"report/{NEW}"]),
        (["--tag", "finance", "--tag", "nightly"], [f"report/{NEW}"]),
        (["--until", "2026-11-22T02:30:00Z"], [f"close_books/{OLD}"]),
        (["--until", "2026-11-22T03:30:01+01:00", "--state", "died"], [f"close_books/{NEW}"]),
        (["--job", "other"], []),
    ],
)
def test_choosing(history: Console, options: list[str], chosen: list[str]) -> None:
    assert history.json("runs", "resubmit", *options, "--dry-run") == chosen


def test_what_is_left_out_is_said(history: Console) -> None:
    assert history.ok("runs", "resubmit", "--since", "2d", "--dry-run") == (
        "RUN                           STATE   SCHEDULED\n"
        f"close_books/{OLD}  failed  2026-11-21 02:30:00Z\n"
        f"close_books/{NEW}  died    2026-11-22 02:30:00Z\n"
        f"report/{NEW}       failed  2026-11-22 02:30:00Z\n"
        "\n"
        "would resubmit 3 runs (2 failed, 1 died)\n"
        "1 run left out: resubmitted before, or its original was\n"
        "1 record left out: each stands for several missed ticks\n"
    )


def test_a_bulk_asks_first(history: Console) -> None:
    args = ["runs", "resubmit", "--job", "close_books"]
    result = history.run(*args, stdin="n\n")
    assert result.exit_code == 1
    assert result.stderr.endswith("\netcsched: nothing was resubmitted\n")
    assert "Resubmit 2 runs (1 failed, 1 died)? [y/N]" in result.stderr
    first = answered(history, f"close_books/{OLD}")
    second = answered(history, f"close_books/{NEW}")
    assert history.ok(*args, "--yes") == (
        f"close_books/{OLD}: resubmitted as {first}; waits\n"
        f"close_books/{NEW}: resubmitted as {second}; waits\n"
        "resubmitted 2 runs\n"
    )


def test_a_bulk_with_a_refusal(history: Console) -> None:
    answered(history, f"close_books/{OLD}")
    answered(history, f"close_books/{NEW}", accepted=False, message="no")
    result = history.run("runs", "resubmit", "--job", "close_books", "--yes")
    assert (result.exit_code, result.stderr) == (5, "etcsched: no\n")
    assert result.stdout.endswith("resubmitted 1 run\n")
    found = history.run_json(5, "runs", "resubmit", "--job", "close_books", "--yes")
    assert [each["accepted"] for each in found] == [True, False]


@pytest.mark.parametrize("command", ["resubmit", "cancel"])
def test_whoever_interrupts_it_hears_how_far_it_came(
    history: Console, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Ctrl-C while the third of three is being asked for."""
    names = [f"close_books/{OLD}", f"close_books/{NEW}", f"report/{NEW}"]
    for name in names:
        run, id_ = name.split("/")
        waiting = Run(job=run, id=id_, state=RunState.READY, origin=Origin.REQUEST, created_at=NOW)
        history.put(waiting, Kind.RUN, run, id_)
    txn, requests = ModelEtcd.txn, 0

    async def interrupted(etcd: ModelEtcd, asked: Txn, **limits: float) -> TxnResult:
        nonlocal requests
        requests += any("/requests/" in getattr(op, "key", "") for op in asked.then)
        if requests == 3:
            raise KeyboardInterrupt
        result = await txn(etcd, asked, **limits)
        await asyncio.sleep(0)
        return result

    monkeypatch.setattr(ModelEtcd, "txn", interrupted)
    assert history.fails(130, "runs", command, *names, "--yes") == (
        "note: of 3 runs 0 are known to be done, 2 or 3 more are asked for (whoever leads does "
        "them; see etcsched leader)"
    )


def test_whoever_interrupts_the_choice_hears_that_nothing_was_asked_for(
    history: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*_: Any, **_limits: float) -> TxnResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelEtcd, "txn", interrupted)
    for command in ("resubmit", "cancel"):
        line = history.fails(130, "runs", command, "--job", "close_books", "--yes")
        assert line == "note: nothing was asked for"


def test_of_runs_that_go_back_to_one_only_the_last_is_chosen(history: Console) -> None:
    """The leader takes one at a time, and what has succeeded isn't done again."""

    def copied(number: int, outcome: Outcome = Outcome.FAILED) -> Run:
        copy = finished("close_books", NEW, Utc("2026-11-22T02:30:00.000Z"), outcome)
        created = Utc(f"2026-11-22T18:0{number}:00.000Z")
        return replace(
            copy, id=f"again-{number}", created_at=created, resubmits=NEW, resubmits_first=NEW
        )

    def chosen() -> list[str]:
        args = ("runs", "resubmit", "--job", "close_books", "--state", "failed", "--since", "1d")
        found: list[str] = history.json(*args, "--dry-run")
        return found

    history.archive(copied(1))
    history.archive(copied(2))
    assert chosen() == ["close_books/again-2"]
    assert "1 run left out: resubmitted before" in history.ok(
        "runs", "resubmit", "--job", "close_books", "--state", "failed", "--since", "1d",
        "--dry-run",
    )  # fmt: skip
    working = Run(
        job="close_books", id="again-3", state=RunState.READY, origin=Origin.RESUBMISSION,
        created_at=NOW, resubmits="again-2", resubmits_first=NEW,
    )  # fmt: skip
    history.put(working, Kind.RUN, "close_books", "again-3")
    assert chosen() == []
    history.store.txn(Txn((), (Delete(history.keys.of(Kind.RUN, "close_books", "again-3")),)))
    assert chosen() == ["close_books/again-2"]
    history.archive(copied(3, Outcome.COMPLETED))
    assert chosen() == []
    history.archive(copied(3))
    request = Request(
        id="q", kind=RequestKind.RESUBMIT, job="close_books", run="again-2", at=NOW, by="anna"
    )
    history.put(request, Kind.REQUEST, "q")
    assert chosen() == []


def test_nothing_to_do(history: Console) -> None:
    args = ["runs", "resubmit", "--job", "close_books", "--since", "1h"]
    assert history.ok(*args) == "no run to resubmit\n"


def test_states_that_the_settings_dont_allow(history: Console) -> None:
    settings = ClusterSettings(resubmit_states=(RunState.DIED,))
    history.put(settings, Kind.SETTINGS)
    args = ["runs", "resubmit", "--job", "close_books"]
    assert history.fails(5, *args, "--state", "failed") == (
        "etcsched: runs that are failed: the settings allow died"
    )
    assert history.json(*args, "--dry-run") == [f"close_books/{NEW}"]


@pytest.mark.parametrize(
    ("code", "args", "text"),
    [
        (2, [], "name runs, or choose them with --job, --tag, --state, --since and --until"),
        (2, ["a/b", "--job", "a"], "; not both"),
        (2, ["a"], "'a' names no run; write job/id"),
        (2, ["a/b", "--param", "x"], "--param 'x': write NAME=VALUE"),
        (2, ["--since", "soon"], "--since 'soon': not a time; write it like 2026-11-22T19:00:00"),
        (2, ["--state", "running"], "'running' is not one of"),
        (4, ["close_books/never"], "run close_books/never: there is none; see etcsched runs list"),
        (4, ["--job", "close_book"], "job close_book: there is none; did you mean close_books?"),
    ],
)
def test_wrong_input(history: Console, code: int, args: list[str], text: str) -> None:
    assert text in history.fails(code, "runs", "resubmit", *args)


def test_runs_show_links_both_ways(history: Console) -> None:
    original = finished("report", NEW, Utc("2026-11-22T02:30:00.000Z"), Outcome.FAILED)
    history.archive(replace(original, resubmitted_as=("r1", "r2")))
    history.archive(
        replace(original, id="r1", origin=Origin.RESUBMISSION, resubmits=NEW, retries=2)
    )
    assert "resubmitted as  report/r1 report/r2\n" in history.ok("runs", "show", f"report/{NEW}")
    again = history.ok("runs", "show", "report/r1")
    assert f"resubmits  report/{NEW}\n" in again
    assert "retry      2 so far\n" in again
    assert history.json("runs", "show", "report/r1")["run"]["resubmits"] == NEW


def test_a_waiting_retry_is_shown(history: Console) -> None:
    waiting = replace(
        finished("report", "r3", Utc("2026-11-22T02:30:00.000Z"), Outcome.FAILED),
        state=RunState.RETRYING,
        retries=1,
        retry_at=Utc("2026-11-22T19:05:00.000Z"),
    )
    history.put(waiting, Kind.RUN, "report", "r3")
    shown = history.ok("runs", "show", "report/r3")
    assert "number 1, due at 2026-11-22 19:05:00Z\n" in shown
    assert "retrying" in history.ok("runs", "list", "report")
