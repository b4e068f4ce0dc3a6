"""Calendars, windows and splay, told as stories in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from etcsched.core.records import Kind, Link, Retry, Window
from etcsched.core.schedule import At, Cron, Every
from etcsched.core.splay import delay_ms
from etcsched.core.states import JobState, Origin, Outcome, Overlap, Recovery, RunState
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.testing.world import World
from tests.support.jobs import NOON, cancel, job, resubmit, trigger

TODAY = "2026-11-22"


@pytest.fixture
def world() -> World:
    world = World()
    world.scheduler("s1")
    world.agent("a1")
    world.advance(0.5)
    return world


def minute(clock: str) -> Utc:
    return Utc(f"{TODAY}T{clock}:00.000Z")


# --- calendars


def test_an_excluded_day_leaves_no_trace(world: World) -> None:
    world.calendar("holidays", exclude=(TODAY,))
    world.apply(job("backup", every_s=60, calendars=("holidays",)))
    world.advance(300)
    assert world.runs("backup") == {}
    assert world.through_ms() > ms_of(minute("12:04"))


def test_requests_dont_ask_calendars(world: World) -> None:
    world.calendar("holidays", exclude=(TODAY,))
    world.apply(job("backup", every_s=60, calendars=("holidays",)))
    world.request(trigger("20261122T120001Z-r1"))
    world.advance(5)
    assert list(world.states("backup").values()) == ["completed"]


def test_chains_and_resubmissions_dont_ask_calendars(world: World) -> None:
    world.calendar("holidays", exclude=(TODAY,))
    world.apply(job("backup", every_s=60, calendars=("holidays",)))
    once = At(minute("12:01"))
    world.apply(job("load", once, chain=(Link(to="backup", on=(RunState.FAILED,)),)))
    world.agents["a1"].ends_as = Outcome.FAILED
    world.advance(70)
    (chained,) = world.runs("backup").values()
    assert (chained.origin, chained.state) == (Origin.CHAIN, RunState.FAILED)
    world.request(resubmit("20261122T120110Z-r1", chained.id))
    world.advance(5)
    again = world.runs("backup")["20261122T120110Z-r1"]
    assert (again.origin, again.state) == (Origin.RESUBMISSION, RunState.FAILED)


def test_an_edit_holds_from_its_time_on_while_a_leader_leads(world: World) -> None:
    world.calendar("holidays", exclude=("2026-12-25",))
    world.apply(job("backup", every_s=60, calendars=("holidays",)))
    world.advance(150)
    world.calendar("holidays", exclude=(TODAY,))
    world.advance(120)
    world.calendar("holidays")
    world.advance(100)
    assert list(world.states("backup")) == ["120100", "120200", "120500", "120600"]


@pytest.mark.parametrize("recovery", [Recovery.ALL, Recovery.NONE])
def test_edits_in_an_outage_neither_lose_nor_invent_ticks(recovery: Recovery) -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1")
    world.calendar("holidays", exclude=("2026-12-25",))
    fields: dict[str, Any] = {"recovery": recovery, "pickup_buffer_s": 30.0}
    world.apply(job("backup", every_s=60, calendars=("holidays",), **fields))
    world.advance(90)
    world.leader().kill()
    world.advance(60)  # 12:02 is due, 12:03 and 12:04 aren't, 12:05 and 12:06 are.
    world.calendar("holidays", exclude=(TODAY,))
    world.advance(120)
    world.calendar("holidays", exclude=())
    world.advance(145)
    world.scheduler("s2")
    world.advance(100)
    runs = world.runs("backup")
    if recovery is Recovery.ALL:
        ran = [run_id[9:13] for run_id in runs if run_id < "20261122T1207"]
        assert ran == ["1201", "1202", "1205", "1206"]
    decided = sum(max(run.missed_count, 1) for run in runs.values() if run.id < "20261122T1207")
    assert decided == 4


def test_a_tick_decided_without_the_edit_is_refused(world: World) -> None:
    """The calendar changes in the very instant in which the leader decides the tick."""
    world.calendar("holidays")
    world.apply(job("backup", every_s=60, calendars=("holidays",)))
    world.advance(30)
    world.at(60.0, lambda: world.calendar("holidays", exclude=(TODAY,)))
    world.advance(60)
    assert world.runs("backup") == {}


def test_a_tick_dropped_without_the_edit_is_taken_up_again(world: World) -> None:
    """... and an edit that lets it be due comes in that very instant."""
    world.calendar("holidays", exclude=(TODAY,))
    world.apply(job("backup", every_s=60, calendars=("holidays",)))
    world.advance(30)
    world.at(60.0, lambda: world.calendar("holidays"))
    world.advance(60)
    assert world.states("backup") == {"120100": "completed"}


def test_only_the_day_of_the_jobs_zone_counts(world: World) -> None:
    world.calendar("holidays", exclude=(TODAY,))
    for name, zone in (("here", "UTC"), ("there", "Pacific/Kiritimati")):
        world.apply(
            job(name, Cron("* * * * *"), timezone=zone, calendars=("holidays",))
        )  # In Kiritimati it is the 23rd already.
    world.advance(100)
    assert (len(world.runs("here")), len(world.runs("there"))) == (0, 1)


def test_a_new_leader_goes_by_the_same_calendar(world: World) -> None:
    world.calendar("holidays", exclude=(TODAY,))
    world.apply(job("backup", every_s=5, calendars=("holidays",)))
    world.advance(20)
    world.leader().kill()
    world.scheduler("s2")
    world.advance(60)
    assert world.runs("backup") == {}
    assert world.records(Kind.GAP) == {}


# --- windows


def window(since: str, until: str, **fields: object) -> Window:
    return Window(since=minute(since), until=minute(until), **fields)  # type: ignore[arg-type]


def test_a_window_disables_and_reverts(world: World) -> None:
    off = window("12:02", "12:04", state=JobState.DISABLED)
    world.apply(job("backup", every_s=60, windows=(off,)))
    world.advance(330)
    assert list(world.states("backup")) == ["120100", "120400", "120500"]


def test_a_window_has_another_schedule(world: World) -> None:
    often = window("12:02", "12:03", patterns=(Every(20, minute("12:02")),))
    world.apply(job("backup", every_s=60, windows=(often,)))
    world.advance(200)
    assert list(world.states("backup")) == ["120100", "120220", "120240", "120300"]


def test_a_window_through_an_outage() -> None:
    world = World()
    world.agent("a1")
    off = window("12:02", "12:04", state=JobState.DISABLED)
    world.apply(job("backup", every_s=60, windows=(off,), recovery=Recovery.ALL))
    world.advance(330)
    world.scheduler("s1")
    world.advance(20)
    assert list(world.states("backup")) == ["120100", "120400", "120500"]


def test_nothing_starts_in_a_window_that_forbids_it(world: World) -> None:
    world.agents["a1"].takes_s = 90.0
    off = window("12:02", "12:05", state=JobState.DISABLED)
    world.apply(job("backup", every_s=50, windows=(off,), overlap=Overlap.QUEUE))
    world.advance(130)
    assert world.states("backup") == {"120050": "assigned", "120140": "cancelled"}
    world.request(trigger("20261122T120230Z-r1"))
    world.advance(1)
    answer = world.answer("20261122T120230Z-r1")
    assert answer is not None
    assert answer.message == (
        "job backup is disabled; wait until its window is over, or apply its file without that "
        "window first"
    )
    world.advance(280)
    assert world.states("backup")["120500"] == "completed"


def test_no_retry_begins_in_a_window_that_forbids_it(world: World) -> None:
    """It was due before, and no agent was there."""
    world.agents["a1"].ends_as = Outcome.FAILED
    off = window("12:02", "12:05", state=JobState.DISABLED)
    retry = Retry(max=3, interval_s=20.0)
    world.apply(job("backup", every_s=60, windows=(off,), retry=retry))
    world.advance(70)
    world.agents["a1"].kill()
    world.advance(60)
    world.agent("a1")
    world.advance(20)
    assert world.states("backup")["120100"] == "failed"


# --- splay


def splayed(seconds: float, **fields: Any) -> tuple[float, dict[str, Any]]:
    """The delay that a job ``backup`` of this splay has, and its fields."""
    given = {"splay_s": seconds, **fields}
    return delay_ms(job("backup", every_s=60, **given)) / 1000, given


def test_a_run_starts_later_and_keeps_its_tick(world: World) -> None:
    delay_s, fields = splayed(40.0)
    assert 2 < delay_s < 39
    world.apply(job("backup", every_s=60, **fields))
    world.advance(60 + delay_s - 1)
    assert world.states("backup") == {"120100": "ready"}
    world.advance(5)
    (run,) = world.runs("backup").values()
    (span,) = world.agents["a1"].spans
    assert span.start_s == pytest.approx(60 + delay_s, abs=0.01)
    assert run.not_before == utc_of(ms_of(minute("12:01")) + round(delay_s * 1000))


def test_the_next_leader_waits_for_the_same(world: World) -> None:
    delay_s, fields = splayed(40.0)
    world.apply(job("backup", every_s=3600, **fields))
    world.advance(3601)
    world.leader().kill()
    world.scheduler("s2")
    world.advance(60)
    (span,) = world.agents["a1"].spans
    assert span.start_s == pytest.approx(3600 + max(delay_s, 10), abs=2)


def test_the_buffer_begins_with_the_delayed_start(world: World) -> None:
    delay_s, fields = splayed(40.0, pickup_buffer_s=20.0)
    world.agent("a2", slots=1, takes_s=1000.0)
    world.apply(job("filler", state=JobState.AD_HOC_ACTIVE, hosts=("a2",)))
    world.apply(job("backup", every_s=3600, hosts=("a2",), **fields))
    world.advance(3590)
    world.request(trigger("20261122T125950Z-r1", "filler"))
    world.advance(9.5 + delay_s + 19)
    assert world.states("backup") == {"130000": "ready"}
    world.advance(2)
    assert world.states("backup") == {"130000": "abandoned"}


def test_a_waiting_splay_can_be_cancelled(world: World) -> None:
    _, fields = splayed(40.0)
    world.apply(job("backup", every_s=60, **fields))
    world.advance(60)
    world.request(cancel("20261122T120100Z-c", "20261122T120100Z"))
    world.advance(60)
    assert world.states("backup")["120100"] == "cancelled"


def test_a_delayed_tick_of_an_outage_within_its_buffer_is_late_only() -> None:
    world = World()
    world.agent("a1")
    delay_s, fields = splayed(400.0, pickup_buffer_s=20.0, recovery=Recovery.NONE)
    assert delay_s > 20
    world.apply(job("backup", every_s=3600, since=NOON, **fields))
    world.advance(7200 + delay_s + 15)
    world.scheduler("s1")
    world.advance(5)
    assert world.states("backup") == {"130000": "missed", "140000": "completed"}
