"""explain, recovery preview, and the reasons that lists show, on a cluster in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcsched.core.schedule import At
from etcsched.core.times import Utc
from etcsched.testing.world import World
from tests.cli.console import Console
from tests.cli.test_views import screen
from tests.support.jobs import job


@pytest.fixture
def world() -> World:
    world = World()
    world.scheduler("s1")
    world.agent("a1", slots=1, takes_s=300.0)
    world.advance(0.5)
    once = At(Utc("2026-11-22T12:00:02.000Z"))
    world.apply(job("long", once))
    world.apply(job("hourly", cron="0 * * * *"))
    later = At(Utc("2026-11-22T12:00:05.000Z"))
    world.apply(job("backup", later, require={"disk": "ssd"}, tags=("disk",)))
    world.apply(job("blocked", later))
    world.advance(0.5)
    world.advance(29)
    return world


@pytest.fixture
def console(world: World, tmp_path: Path) -> Console:
    console = Console(tmp_path)
    console.store = world.store
    console.at(world.now)
    return console


def test_a_run_that_waits(console: Console) -> None:
    assert console.ok("explain", "blocked/20261122T120005Z") == screen(
        """
        run     blocked/20261122T120005Z
        state   ready
        why     every agent that may run it is full
        buffer  1m35s left, until 2026-11-22 12:02:05Z
        turn    number 1 of all that wait for an agent

        AGENT  MAY RUN IT  USED  SLOTS  WHY
        a1     no             1      1  is full
        """
    )
    told = console.json("explain", "blocked/20261122T120005Z")
    assert (told["reason"]["why"], told["agents"][0]["may_run"]) == ("no_agent", False)


def test_a_run_that_runs_and_one_that_is_over(console: Console, world: World) -> None:
    assert "why    it runs on a1: due\n" in console.ok("explain", "long/20261122T120002Z")
    assert "has it, is full" in console.ok("explain", "long/20261122T120002Z")
    world.advance(300)
    console.at(world.now)
    shown = console.ok("explain", "long/20261122T120002Z")
    assert "why    it ended completed at 2026-11-22T12:05:02.000Z: completed\n" in shown
    missing = console.fails(4, "explain", "long/20261122T120003Z")
    assert missing.startswith("etcsched: run long/20261122T120003Z: there is none")
    assert "did you mean long?" in console.fails(4, "explain", "lnog")
    console.ok("jobs", "delete", "long", "--yes")
    gone = "etcsched: job long: is deleted; apply its file again to bring it back"
    assert console.fails(4, "explain", "long") == gone
    assert console.fails(4, "recovery", "preview", "long") == gone
    assert "long" not in console.fails(4, "explain", "lnog").partition(";")[2]


def test_a_job_in_an_outage(console: Console, world: World) -> None:
    assert console.ok("explain", "backup") == screen(
        """
        job    backup
        state  enabled
        why    an outage since 2026-11-22T12:00:05.000Z: no agent may run it: a1 has no label disk, the job requires disk=ssd
               its schedule has no tick any more

        AGENT  MAY RUN IT  USED  SLOTS  WHY
        a1     no             1      1  has no label disk, the job requires disk=ssd
        """  # noqa: E501
    )
    assert console.ok("recovery", "preview") == screen(
        """
        JOB     MODE  LATE  RECOVERED  MISSED  WHAT
        backup  last     1          0       0  late 12:00:05Z

        the outage, since 12:00:05Z: no agent may run it: a1 has no label disk, the job requires disk=ssd
        1 would run, if it ended now
        """  # noqa: E501
    )
    once = console.ok("recovery", "preview", "backup")
    assert console.ok("recovery", "preview", "backup", "backup") == once
    assert console.ok("recovery", "preview", "hourly") == "no outage: nothing is to be recovered\n"
    assert "nothing" in console.fails(4, "recovery", "preview", "nothing")
    for node in world.nodes.values():
        node.stop()
    world.advance(3600)
    console.at(world.now)
    of_all = {p["job"]: p for p in console.json("recovery", "preview")}
    assert len(of_all["hourly"]["late"]) == 1
    assert of_all["hourly"]["reason"] == "nobody leads"


def test_what_many_jobs_of_an_outage_have_in_common(console: Console, world: World) -> None:
    world.apply(job("often", cron="*/20 * * * *"))
    world.advance(1)
    for node in world.nodes.values():
        node.stop()
    world.advance(3 * 3600)
    console.at(Utc("2026-11-22T15:10:00.000Z"))
    console.ok("pause")
    assert console.ok("recovery", "preview", columns=80) == screen(
        """
        JOB      MODE  LATE  RECOVERED  MISSED  WHAT
        backup   last     0          1       0  recovers 12:00:05Z
        blocked  last     0          1       0  20261122T120005Z waits, and runs
        hourly   last     0          1       2  recovers 15:00:00Z; missed 13:00:00Z to
                                                14:00:00Z
        often    last     0          1       8  recovers 15:00:00Z; missed 12:20:00Z to
                                                14:40:00Z

        outage of backup, since 12:00:05Z: no agent may run it: a1 has no label disk,
        the job requires disk=ssd
        outage of blocked, hourly, often, since 12:00:30Z: nobody leads
        the cluster is paused: what is to run waits until it is resumed
        4 would run, if it ended now
        """
    )


def test_a_time_is_said_once(console: Console) -> None:
    assert "its next tick is due at 2026-11-22T13:00:00.000Z (in 59m" in console.ok(
        "explain", "hourly"
    )


def test_lists_show_why(console: Console) -> None:
    shown = console.ok("jobs", "list")
    assert "WAITING  WHY" in shown
    assert "1  every agent that may run it is full" in shown
    assert "0  an outage since 2026-11-22T12:00:05.000Z: no agent may run it" in shown
    shown = console.ok("status")
    assert "waiting     blocked/20261122T120005Z: every agent that may run it is full\n" in shown
    assert "outages     backup: an outage since 2026-11-22T12:00:05.000Z: no agent may" in shown
    assert "why    every agent that may run it is full" in console.ok("jobs", "show", "blocked")


def test_a_preview_of_jobs_with_a_tag(world: World, console: Console) -> None:
    assert [p["job"] for p in console.json("recovery", "preview", "--tag", "disk")] == ["backup"]
    assert console.fails(4, "recovery", "preview", "--tag", "tape") == (
        "etcsched: jobs with the tag tape: there are none"
    )
    assert console.fails(2, "recovery", "preview", "backup", "--tag", "disk").endswith("; not both")
