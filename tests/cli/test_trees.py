"""etcsched runs tree: a chain's history, from wherever in it one asks."""

from __future__ import annotations

from textwrap import dedent

import pytest
from msgspec.structs import replace

from etcsched.core.records import Follow, Kind, Run, Source
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import Utc
from tests.cli.console import NOW, Console, finished

TICK = "20261122T023000Z"
AT = Utc("2026-11-22T02:30:00.000Z")


def follow(*runs: str, note: str = "") -> tuple[Follow, ...]:
    return tuple(Follow(job=run.split("/")[0], run=run.split("/")[1], note=note) for run in runs)


def chained(run: Run, *sources: str) -> Run:
    links = tuple(
        Source(job=s.split("/")[0], run=s.split("/")[1], state=RunState.COMPLETED) for s in sources
    )
    return replace(run, origin=Origin.CHAIN, chained_from=links, instance=TICK)


@pytest.fixture
def history(console: Console) -> Console:
    """load -> left, right; right failed and was resubmitted; both join at end, which goes on to
    mail, where a condition doesn't hold, and to a run that is pruned by now."""
    load = finished("load", TICK, AT)
    console.archive(replace(load, followed_by=follow("left/l", "right/r")))
    left = chained(finished("left", "l", AT), f"load/{TICK}")
    console.archive(replace(left, followed_by=follow("end/e", note="waits for right")))
    right = chained(finished("right", "r", AT, Outcome.FAILED), f"load/{TICK}")
    console.archive(replace(right, resubmitted_as=("r2",)))
    again = replace(
        chained(finished("right", "r2", AT), f"load/{TICK}"), origin=Origin.RESUBMISSION
    )
    console.archive(replace(again, resubmits="r", followed_by=follow("end/e")))
    end = replace(
        Run(job="end", id="e", state=RunState.READY, origin=Origin.CHAIN, created_at=NOW),
        instance=TICK,
        followed_by=(
            Follow(job="mail", note="its condition doesn't hold: rows isn't there"),
            *follow("gone/g"),
        ),
    )
    console.put(chained(end, "left/l", "right/r2"), Kind.RUN, "end", "e")
    return console


TREE = dedent(
    """\
    load/20261122T023000Z  completed  on host-a
    ├── left/l  completed  on host-a
    │   └── end/e  ready
    │       ├── mail  (its condition doesn't hold: rows isn't there)
    │       └── gone/g  (not there any more)
    └── right/r  failed  on host-a
        └── right/r2  completed  on host-a  (resubmitted)
            └── end/e  ready  (see above)
    """
)


@pytest.mark.parametrize("run", [f"load/{TICK}", "left/l", "right/r", "right/r2", "end/e"])
def test_the_whole_tree_whoever_is_asked_about(history: Console, run: str) -> None:
    assert history.ok("runs", "tree", run, columns=120) == TREE


def test_as_json(history: Console) -> None:
    (root,) = history.json("runs", "tree", "end/e")["roots"]
    assert (root["name"], root["run"]["state"]) == (f"load/{TICK}", "completed")
    left, right = root["children"]
    assert left["children"][0]["run"]["run"]["followed_by"][0]["job"] == "mail"
    assert right["children"][0]["children"][0]["is_repeated"]


def test_sources_that_join_are_both_roots(console: Console) -> None:
    for name in ("one", "two"):
        console.archive(replace(finished(name, TICK, AT), followed_by=follow("end/e")))
    console.archive(chained(finished("end", "e", AT), f"one/{TICK}", f"two/{TICK}"))
    lines = console.ok("runs", "tree", f"two/{TICK}").splitlines()
    assert lines == [
        f"one/{TICK}  completed  on host-a",
        "└── end/e  completed  on host-a",
        f"two/{TICK}  completed  on host-a",
        "└── end/e  completed  on host-a  (see above)",
    ]


def test_there_is_none(console: Console) -> None:
    assert console.fails(4, "runs", "tree", "a/b") == (
        "etcsched: run a/b: there is none; see etcsched runs list a"
    )


def test_show_names_both_ends_and_results(history: Console) -> None:
    run = replace(finished("job", "j", AT), results={"rows": ("5",), "file": ("a", "b")})
    history.archive(replace(run, results_problem="line 2, 'x', is no NAME=VALUE"))
    shown = history.ok("runs", "show", "job/j")
    assert "results       rows=5 file=a file=b\n" in shown
    assert "results file  line 2, 'x', is no NAME=VALUE\n" in shown
    shown = history.ok("runs", "show", "end/e")
    assert "chained from  left/l right/r2\n" in shown
    assert "followed by   mail (its condition doesn't hold: rows isn't there); gone/g\n" in shown
