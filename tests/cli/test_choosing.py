"""Choosing runs and jobs by what they have in common: listing, cancelling, steering those."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from etcsched.core.records import Answer, Job, Kind, Pause, Request, RequestKind, Run
from etcsched.core.states import JobState, Origin, RunState
from etcsched.core.times import Utc
from etcsched.operator.bulk import id_for
from tests.cli.console import NOW, Console, finished, job
from tests.cli.test_views import screen

BASE = "20261122T190000.500Z-abcd"
RUNNING, ASSIGNED = "rotate_logs/20261122T185500Z", "rotate_logs/20261122T190000Z"
OLD, NEW = "close_books/20261121T023000Z", "close_books/20261122T023000Z"


def answer(console: Console, name: str, message: str, accepted: bool = True) -> None:
    """The leader's word, as if it had been asked already."""
    job, run = name.split("/")
    request = id_for(BASE, job, run)
    record = Answer(request=request, accepted=accepted, message=message, at=NOW, job=job, run=run)
    console.put(record, Kind.ANSWER, request)


@pytest.fixture
def queue(cluster: Console) -> Console:
    """Of a job with a tag, two wait besides, in their queue and for their group."""
    for hour, state in (("17", RunState.QUEUED), ("18", RunState.CONFLICTED)):
        at = Utc(f"2026-11-22T{hour}:00:00.000Z")
        run = Run(
            job="close_books",
            id=f"20261122T{hour}0000Z",
            state=state,
            origin=Origin.SCHEDULE,
            created_at=at,
            scheduled_at=at,
        )
        cluster.put(run, Kind.RUN, run.job, run.id)
    return cluster


QUEUED, CONFLICTED = "close_books/20261122T170000Z", "close_books/20261122T180000Z"


# --- runs list ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("--tag finance", [NEW, OLD]),
        ("--tag finance --tag nightly", []),
        ("--tag finance --state failed", [NEW]),
        ("--agent host-a", [ASSIGNED, NEW, OLD]),
        ("--agent host-b", [RUNNING]),
        ("--agent host-b --state running", [RUNNING]),
        ("--since 5m", [ASSIGNED]),
        ("--since 6m", [ASSIGNED, RUNNING]),
        ("--since 2026-11-22T02:30:00", [ASSIGNED, RUNNING, NEW]),
        ("--since 2026-11-22T02:30:01 --until 2026-11-22T19:00", [RUNNING]),
        ("--until 2026-11-22T03:30:01+01:00", [NEW, OLD]),
        ("--until 2026-11-22T02:30:00Z", [OLD]),
        ("close_books --since 2d --limit 1", [NEW]),
        ("rotate_logs --tag finance", []),
    ],
)
def test_runs_are_listed_by(cluster: Console, options: str, names: list[str]) -> None:
    assert [view["name"] for view in cluster.json("runs", "list", *options.split())] == names


def test_a_list_of_a_tag_in_full(cluster: Console) -> None:
    assert cluster.ok("runs", "list", "--tag", "finance", "--since", "30d") == screen(
        """
        RUN                           STATE      WHY        LATE   TOOK  AGENT   TRY
        close_books/20261122T023000Z  failed     schedule  12 ms  1.5 s  host-a    1
        close_books/20261121T023000Z  completed  schedule  12 ms  1.5 s  host-a    1
        """
    )


def test_the_agent_is_that_of_the_last_attempt(cluster: Console) -> None:
    run = finished("close_books", "20261122T030000Z", Utc("2026-11-22T03:00:00.000Z"))
    again = replace(run.attempts[0], number=2, agent="host-b")
    cluster.archive(replace(run, attempt=2, attempts=(*run.attempts, again)))
    by_agent = ["runs", "list", "close_books", "--agent"]
    assert len(cluster.json(*by_agent, "host-a")) == 2
    assert [v["name"] for v in cluster.json(*by_agent, "host-b")] == [f"close_books/{run.id}"]


def test_the_history_of_a_deleted_job_keeps_its_tags(cluster: Console) -> None:
    cluster.ok("jobs", "delete", "close_books", "--yes")
    assert len(cluster.json("runs", "list", "--tag", "finance")) == 2


@pytest.mark.parametrize(
    ("code", "options", "text"),
    [
        (2, "--since soon", "--since 'soon': not a time; write it like 2026-11-22T19:00:00"),
        (2, "--limit 100001", "100001 is not in the range 1<=x<=100000"),
        (4, "close_book --tag finance", "job close_book: there is none; did you mean close_books"),
    ],
)
def test_a_wrong_choice_to_list(cluster: Console, code: int, options: str, text: str) -> None:
    assert text in cluster.fails(code, "runs", "list", *options.split())


# --- runs cancel --------------------------------------------------------------------------


def test_a_cancelled_run(cluster: Console) -> None:
    answer(cluster, RUNNING, "host-b is told to end it")
    assert cluster.ok("runs", "cancel", RUNNING) == f"{RUNNING}: host-b is told to end it\n"
    assert cluster.fails(5, "runs", "cancel", NEW) == (
        f"etcsched: run {NEW}: is over already; only one that is ready, queued, conflicted, "
        "retrying, held, assigned or running can be cancelled, see etcsched runs show "
        f"{NEW}"
    )


def test_nothing_is_asked_where_one_of_several_is_over(cluster: Console) -> None:
    cluster.fails(5, "runs", "cancel", RUNNING, NEW)
    asked = cluster.get(Request, Kind.REQUEST, id_for(BASE, *RUNNING.split("/")))
    assert asked is None


def test_what_the_leader_is_asked_of_each(queue: Console) -> None:
    said = queue.fails(
        3, "--timeout", "50ms", "runs", "cancel", "--job", "close_books", "--state", "queued", "-y"
    )
    assert said.startswith(
        "etcsched: no leader answered within 0.05 s: of 1 run 0 are known to be done"
    )
    asked = queue.get(Request, Kind.REQUEST, id_for(BASE, *QUEUED.split("/")))
    assert (asked.kind, f"{asked.job}/{asked.run}") == (RequestKind.CANCEL, QUEUED)
    assert asked.by.startswith("anna@")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        # What waits first, the newest first: so that none gets its turn by another's end.
        ("--since 1d", [CONFLICTED, QUEUED, ASSIGNED, RUNNING]),
        ("--job close_books", [CONFLICTED, QUEUED]),
        ("--tag finance --state queued", [QUEUED]),
        ("--state running", [RUNNING]),
        ("--state assigned --state conflicted", [CONFLICTED, ASSIGNED]),
        ("--since 2h --tag finance", [CONFLICTED]),
        ("--until 2026-11-22T18:00", [QUEUED]),
        ("--job rotate_logs --tag finance", []),
    ],
)
def test_runs_to_cancel(queue: Console, options: str, names: list[str]) -> None:
    assert queue.json("runs", "cancel", *options.split(), "--dry-run") == names


def test_runs_to_cancel_are_shown(queue: Console) -> None:
    assert queue.ok("runs", "cancel", "--since", "1d", "--dry-run") == screen(
        """
        RUN                           STATE       SCHEDULED             AGENT
        close_books/20261122T180000Z  conflicted  2026-11-22 18:00:00Z  -
        close_books/20261122T170000Z  queued      2026-11-22 17:00:00Z  -
        rotate_logs/20261122T190000Z  assigned    2026-11-22 19:00:00Z  host-a
        rotate_logs/20261122T185500Z  running     2026-11-22 18:55:00Z  host-b

        would cancel 4 runs (1 conflicted, 1 queued, 1 assigned, 1 running)
        """
    )
    assert queue.ok("runs", "cancel", RUNNING, "--dry-run") == f"would cancel {RUNNING}\n"
    assert queue.ok("runs", "cancel", "--since", "100ms", "--dry-run") == "no run to cancel\n"
    assert queue.ok("runs", "cancel", "--since", "0s", "--yes") == "no run to cancel\n"


def test_a_bulk_asks_first(queue: Console) -> None:
    args = ["runs", "cancel", "--tag", "finance"]
    result = queue.run(*args, stdin="n\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Cancel 2 runs (1 conflicted, 1 queued)? [y/N]" in result.stderr
    assert result.stderr.endswith("etcsched: nothing was cancelled\n")
    assert queue.get(Request, Kind.REQUEST, id_for(BASE, *QUEUED.split("/"))) is None
    answer(queue, QUEUED, "cancelled")
    answer(queue, CONFLICTED, "run close_books/20261122T180000Z is over already", accepted=False)
    result = queue.run(*args, "--yes")
    assert (result.exit_code, result.stdout, result.stderr) == (
        5,
        f"{QUEUED}: cancelled\ncancelled 1 run\n",
        "etcsched: run close_books/20261122T180000Z is over already\n",
    )
    found = queue.run_json(5, *args, "--yes")
    assert [(each["run"], each["accepted"]) for each in found] == [
        (CONFLICTED, False),
        (QUEUED, True),
    ]


@pytest.mark.parametrize(
    ("code", "options", "text"),
    [
        (2, "", "name runs, or choose them with --job, --tag, --state, --since and --until"),
        (2, "a/b --job a", "; not both"),
        (2, "--state completed", "'completed' is not one of"),
        (2, "--until soon", "--until 'soon': not a time; write it like 2026-11-22T19:00:00"),
        (4, "--job rotate_log", "job rotate_log: there is none; did you mean rotate_logs?"),
    ],
)
def test_a_wrong_choice_to_cancel(cluster: Console, code: int, options: str, text: str) -> None:
    assert text in cluster.fails(code, "runs", "cancel", *options.split())


# --- jobs ---------------------------------------------------------------------------------


def test_jobs_with_a_tag(console: Console) -> None:
    for name, tags in (("a", ("x",)), ("b", ("x", "y")), ("c", ())):
        console.put(job(name, tags=tags), Kind.JOB, name)
    assert console.ok("jobs", "pause", "--tag", "x") == "a is paused\nb is paused\n"
    assert console.get(Pause, Kind.PAUSE, "c") is None
    assert console.ok("jobs", "resume", "--tag", "x", "--tag", "y") == "b goes on\n"
    assert "Delete b?" in console.run("jobs", "delete", "--tag", "y", stdin="n\n").stderr
    assert console.ok("jobs", "delete", "--tag", "y", "--yes") == "b is deleted\n"
    assert console.get(Job, Kind.JOB, "b").current.state is JobState.DELETED
    # What is deleted isn't there to be paused.
    assert console.ok("jobs", "pause", "--tag", "x") == "a was paused already\n"


@pytest.mark.parametrize("verb", ["pause", "resume", "delete"])
@pytest.mark.parametrize(
    ("code", "options", "text"),
    [
        (2, "", "etcsched: name jobs, or choose them with --tag"),
        (2, "close_books --tag x", "etcsched: name jobs, or choose them with --tag; not both"),
        (4, "--tag x --tag y", "etcsched: jobs with the tag x and y: there are none"),
    ],
)
def test_a_wrong_choice_of_jobs(
    cluster: Console, verb: str, code: int, options: str, text: str
) -> None:
    assert cluster.fails(code, "jobs", verb, *options.split()) == text
