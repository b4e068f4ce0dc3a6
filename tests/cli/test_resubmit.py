"""etcsched runs resubmit: what it chooses, asks, says, and ends with."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.missed import tick_in
from etcsched.core.records import Answer, ClusterSettings, Kind, Request, RequestKind, Run
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import Utc, ms_of, tick_id, utc_of
from etcsched.keyspace.ops import Delete, Range, Txn, TxnResult
from etcsched.operator import resubmit as resubmitting
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
    """Of two jobs: what died, failed and completed, and was resubmitted."""
    console.put(job("close_books", tags=("finance",)), Kind.JOB, "close_books")
    console.put(job("report", tags=("finance", "nightly")), Kind.JOB, "report")
    console.put(job("other"), Kind.JOB, "other")
    old, new = Utc("2026-11-21T02:30:00.000Z"), Utc("2026-11-22T02:30:00.000Z")
    console.archive(finished("close_books", OLD, old, Outcome.FAILED))
    console.archive(finished("close_books", NEW, new, Outcome.DIED))
    console.archive(finished("report", NEW, new, Outcome.FAILED))
    console.archive(finished("report", OLD, old))
    console.archive(replace(finished("other", NEW, new, Outcome.FAILED), resubmitted_as=("again",)))
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
    )


def a_summary(count: int, *, resubmitted: tuple[tuple[int, int], ...] = ()) -> Run:
    """Of a job's ticks, a minute apart from one at night on."""
    first_ms = ms_of(Utc("2026-11-22T01:00:00.000Z"))
    return Run(
        job="other",
        id=tick_id(first_ms),
        state=RunState.MISSED,
        origin=Origin.SCHEDULE,
        created_at=NOW,
        scheduled_at=utc_of(first_ms),
        missed_count=count,
        missed_through=utc_of(first_ms + (count - 1) * 60_000),
        missed_steps=((60_000, count - 1),),
        resubmitted_ticks=resubmitted,
    )


def at_night(minute: int) -> str:
    return f"other/20261122T01{minute:02}00Z"


def test_a_tick_that_shares_its_record(history: Console) -> None:
    history.archive(a_summary(7))
    name = at_night(3)
    assert history.ok("runs", "resubmit", name, "--dry-run") == f"would resubmit {name}\n"
    said = history.fails(3, "--timeout", "50ms", "runs", "resubmit", name)
    assert "no leader answered" in said
    asked = history.get(Request, Kind.REQUEST, f"{BASE}-{digest(name)}")
    assert (asked.run, asked.tick) == ("20261122T010000Z", "20261122T010300Z")
    # What was asked for isn't chosen again.
    chosen = history.json("runs", "resubmit", "--job", "other", "--dry-run")
    assert chosen == [at_night(minute) for minute in (0, 1, 2, 4, 5, 6)]
    new = answered(history, name)
    assert history.ok("runs", "resubmit", name) == f"{name}: resubmitted as {new}; waits\n"


@pytest.mark.parametrize("name", ["other/20261122T010030Z", "other/20261122T010700Z"])
def test_a_time_that_no_record_stands_for(history: Console, name: str) -> None:
    history.archive(a_summary(7))
    line = f"etcsched: run {name}: there is none; see etcsched runs list other"
    assert history.fails(4, "runs", "resubmit", name) == line
    assert history.fails(4, "runs", "show", name) == line


@pytest.mark.parametrize(
    ("options", "minutes"),
    [
        (["--state", "missed"], [0, 1, 4, 5, 6]),
        (["--since", "2026-11-22T01:01", "--until", "2026-11-22T01:05"], [1, 4]),
        (["--since", "2026-11-22T01:06"], [6]),
        (["--since", "2026-11-22T01:07", "--until", "2026-11-22T02:00"], []),
    ],
)
def test_choosing_among_ticks_that_share_a_record(
    history: Console, options: list[str], minutes: list[int]
) -> None:
    history.archive(a_summary(7, resubmitted=((2, 3),)))
    chosen = history.json("runs", "resubmit", "--job", "other", *options, "--dry-run")
    assert chosen == [at_night(minute) for minute in minutes]


def test_a_bulk_takes_a_thousand_of_such_ticks(history: Console) -> None:
    history.archive(a_summary(1500))
    args = ["runs", "resubmit", "--job", "other", "--state", "missed", "--dry-run"]
    assert history.ok(*args).endswith(
        "would resubmit 1000 runs (1000 missed)\n"
        "500 missed ticks left out: of those that share a record at most 1000 at once, the oldest; "
        "the same command again takes up the rest, unless the runs of these have driven their "
        "record out by then (keep)\n"
    )
    assert history.json(*args)[-1] == "other/20261122T173900Z"
    history.archive(a_summary(1500, resubmitted=((0, 999),)))
    assert len(history.json(*args)) == 500


def test_no_more_are_held_than_are_taken(history: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage of many jobs leaves millions of such ticks: the oldest of all are taken."""
    made: list[int] = []

    def counted(record: Run, tick_ms: int) -> Run:
        made.append(tick_ms)
        return tick_in(record, tick_ms)

    monkeypatch.setattr(resubmitting, "tick_in", counted)
    for name in ("other", "report"):
        history.archive(replace(a_summary(1500), job=name))
    chosen = history.json("runs", "resubmit", "--state", "missed", "--dry-run")
    assert len(chosen) == len(made) == 1000
    assert [name.split("/")[0] for name in chosen] == ["other", "report"] * 500
    assert chosen[-1] == "report/20261122T091900Z"


def test_of_an_older_version_the_first_and_the_last_are_known(history: Console) -> None:
    history.archive(replace(a_summary(7), missed_steps=()))
    args = ["runs", "resubmit", "--job", "other", "--state", "missed", "--dry-run"]
    assert history.json(*args) == [at_night(0), at_night(6)]
    left = "5 missed ticks left out: their record, of an older version, doesn't name them\n"
    assert left in history.ok(*args)


def test_the_record_is_shown_for_each_of_its_ticks(history: Console) -> None:
    history.archive(a_summary(7, resubmitted=((2, 3),)))
    shown = history.ok("runs", "show", at_night(5))
    assert at_night(0) in shown
    assert "7 ticks through 2026-11-22 01:06:00Z, 2 of them resubmitted; etcsched runs" in shown
    assert f"takes each by its time, {at_night(0)} is the first" in shown
    listed = history.json(
        "runs", "list", "other", "--since", "2026-11-22T01:05", "--state", "missed"
    )
    assert [each["name"] for each in listed] == [at_night(0)]


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
