"""``etcsched top``, whole, on wide and narrow terminals."""

from __future__ import annotations

import io
from textwrap import dedent

import pytest
import rich.console
from msgspec.structs import replace

from etcsched.core.records import Gap, Kind, Run
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import Utc
from etcsched_cli.watched import Fitting
from tests.cli.console import Console, finished, job

SINCE = Utc("2026-11-22T18:00:00.000Z")

SCREEN = """
leader  host-a, term 7, for 30m
runs    1 running, 1 assigned, 1 waiting
late    LATE

AGENT   STATE  USED  SLOTS  RUNNING  LABELS    HOST    UP  VERSION
host-a  ready     1      4        0            host-a  1h  0.1.0
host-b  full      1      1        1  role=erp  host-b  1h  0.1.0

RUNNING
RUN                           ON      FOR  ATTEMPT
rotate_logs/20261122T185500Z  host-b  5m         1

WAITING
RUN                STATE   WHY
lonely             outage  OUTAGE
close_books/asked  ready   WAITS

NEXT
JOB          IN     AT
rotate_logs  4m59s  2026-11-22T19:05:00Z
close_books  7h29m  2026-11-23T02:30:00Z
lonely       8h59m  2026-11-23T04:00:00Z

FAILED LAST
RUN                           STATE   AGO     ON      WHY
close_books/20261122T023000Z  failed  16h29m  host-a  exit code 3
"""
FOLDED = {
    200: {
        "LATE": ["12 ms (median of the last 2 starts, worst 12 ms (close_books/20261122T023000Z))"],
        "OUTAGE": [
            "an outage since 2026-11-22T18:00:00.000Z: no agent; now: no agent may run it: "
            "host-a (and 1 more) is not among the job's hosts (gone)"
        ],
        "WAITS": [
            "no agent may run it: host-a (and 1 more) has no --default-user, and the job names "
            "no user"
        ],
    },
    80: {
        "LATE": [
            "12 ms (median of the last 2 starts, worst 12 ms",
            "        (close_books/20261122T023000Z))",
        ],
        "OUTAGE": [
            "an outage since 2026-11-22T18:00:00.000Z: no agent;",
            "                           now: no agent may run it: host-a (and 1 more) is not",
            "                           among the job's hosts (gone)",
        ],
        "WAITS": [
            "no agent may run it: host-a (and 1 more) has no",
            "                           --default-user, and the job names no user",
        ],
    },
}


@pytest.mark.parametrize("height", [1, 3, 6, 7])
def test_a_window_that_is_too_low_says_so(height: int) -> None:
    file = io.StringIO()
    console = rich.console.Console(file=file, width=80, height=height)
    whole = [f"line {number}" for number in range(7)]
    console.print(Fitting("\n".join(whole)), end="")
    lines = file.getvalue().splitlines()
    if height == len(whole):
        assert lines == whole
    else:
        kept = whole[: height - 1]
        more = f"... {7 - len(kept)} more lines: the window is too low for them"
        assert lines == [*kept, more]


@pytest.mark.parametrize("columns", [200, 80])
def test_the_screen(cluster: Console, columns: int) -> None:
    cluster.put(job("lonely", cron="0 4 * * *", hosts=("gone",)), Kind.JOB, "lonely")
    gap = Gap(job="lonely", since=SINCE, decided_through=SINCE, reason="no agent")
    cluster.put(gap, Kind.GAP, "lonely")
    waiting = Run(
        job="close_books",
        id="asked",
        state=RunState.READY,
        origin=Origin.REQUEST,
        created_at=Utc("2026-11-22T18:59:50.000Z"),
    )
    cluster.put(waiting, Kind.RUN, "close_books", "asked")
    expected = SCREEN.removeprefix("\n")
    for place, lines in FOLDED[columns].items():
        expected = expected.replace(place, "\n".join(lines))
    assert cluster.ok("top", "--once", columns=columns) == expected


def test_an_empty_cluster(console: Console) -> None:
    assert console.ok("top", "--once") == dedent(
        """\
        leader  nobody leads: nothing is decided; start etcsched scheduler
        runs    0 running, 0 assigned, 0 waiting

        no agent is here; start one with etcsched agent
        """
    )


def test_no_more_than_asked_for(cluster: Console) -> None:
    found = cluster.json("top", "--once", "--most", "1")
    assert [tick["job"] for tick in found["next_ticks"]] == ["rotate_logs"]
    assert [failure["run"] for failure in found["failures"]] == ["close_books/20261122T023000Z"]
    assert [one["run"] for one in found["running"]] == ["rotate_logs/20261122T185500Z"]


WAITS = "20261122T185950.000Z-1f3a5c7e9b0d-9af159ca2937"
FAILED = "20261122T185900.000Z-1f3a5c7e9b0d-9af159ca2937"
NARROW = """\
WAITING
RUN                                                         STATE
lonely                                                      outage
  an outage since 2026-11-22T18:00:00.000Z: no agent; now: no agent may run it:
  host-a (and 1 more) is not among the job's hosts (gone)
close_books/20261122T185950.000Z-1f3a5c7e9b0d-9af159ca2937  ready
  no agent may run it: host-a (and 1 more) has no --default-user, and the job
  names no user

NEXT
JOB          IN     AT
rotate_logs  4m59s  2026-11-22T19:05:00Z
close_books  7h29m  2026-11-23T02:30:00Z
lonely       8h59m  2026-11-23T04:00:00Z

FAILED LAST
RUN                                                         STATE   AGO
close_books/20261122T185900.000Z-1f3a5c7e9b0d-9af159ca2937  failed  16h29m
  exit code 3
close_books/20261122T023000Z                                failed  16h29m
  exit code 3
not shown for want of width: ON; see --json
"""


def test_reasons_stay_where_names_take_the_line(cluster: Console) -> None:
    """Those of resubmissions are the longest."""
    cluster.put(job("lonely", cron="0 4 * * *", hosts=("gone",)), Kind.JOB, "lonely")
    gap = Gap(job="lonely", since=SINCE, decided_through=SINCE, reason="no agent")
    cluster.put(gap, Kind.GAP, "lonely")
    due = Utc("2026-11-22T02:30:00.000Z")
    waits = Run(
        job="close_books",
        id=WAITS,
        state=RunState.READY,
        origin=Origin.RESUBMISSION,
        created_at=Utc("2026-11-22T18:59:50.000Z"),
        scheduled_at=due,
    )
    cluster.put(waits, Kind.RUN, "close_books", WAITS)
    failed = finished("close_books", FAILED, due, Outcome.FAILED)
    cluster.archive(replace(failed, origin=Origin.RESUBMISSION))
    shown = cluster.ok("top", "--once", columns=80)
    assert shown[shown.index("WAITING") :] == NARROW
    assert max(map(len, shown.splitlines())) <= 80
