"""What changes while a leader decides ticks one after the other, told to the millisecond."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from etcsched.core.leader import effects as fx
from etcsched.core.records import Gap, Kind, Window
from etcsched.core.schedule import At, Every
from etcsched.core.states import JobState, Recovery
from etcsched.core.times import Utc, ms_of
from etcsched.testing.simulated_scheduler import SimulatedScheduler
from etcsched.testing.world import World
from tests.support.jobs import NOON, cancel, job, trigger


def at(time: str, day: int = 22) -> At:
    return At(Utc(f"2026-11-{day}T{time}.000Z"))


def unheard(world: World, leader: SimulatedScheduler, edit: Callable[[], None]) -> None:
    """For some milliseconds the leader hears nothing; in them the edit is committed, and what the
    leader decides at their end."""
    leader.is_cut_off = True
    edit()
    world.advance(0.004)
    leader.time_passed()
    leader.send_all()
    leader.is_cut_off = False


def test_an_outage_begins_beside_the_end_of_a_pause() -> None:
    """The operator's clock is 1.5 s behind the leader's, which has let a tick pass as paused."""
    world = World()
    leader = world.scheduler("s1")
    leader.wall_offset_ms = 1_500
    agent = world.agent("a1", slots=0)
    world.advance(0.5)
    ticks = (at("12:00:10"), at("12:01:10"))
    world.apply(job("backup", *ticks, pickup_buffer_s=61.0, recovery=Recovery.ALL))
    world.advance(14.5)
    world.pause()
    agent.kill()
    world.advance(54.498)
    unheard(world, leader, world.resume)  # As of 12:01:09.498; the first tick's buffer ends.
    world.advance(10)
    world.agent("a2")
    world.advance(60)
    assert world.states("backup").keys() == {"120010", "120110"}


def test_an_outage_begins_beside_an_edit_of_a_calendar() -> None:
    world = World(start="2026-11-22T23:59:00.000Z")
    leader = world.scheduler("s1")
    leader.wall_offset_ms = 1_500
    world.advance(0.5)
    world.calendar("days", exclude=("2026-11-22",))
    ticks = (at("23:59:59"), at("00:00:00", 23))
    world.apply(job("backup", *ticks, calendars=("days",), recovery=Recovery.ALL))
    world.advance(57.997)
    unheard(world, leader, lambda: world.calendar("days"))  # As of a second before.
    world.advance(10)
    world.agent("a1")
    world.advance(60)
    assert world.runs("backup").keys() == {"20261122T235959Z", "20261123T000000Z"}


def test_the_last_window_closes_and_the_agents_go_between_two_steps() -> None:
    world = World()
    leader = world.scheduler("s1")
    world.advance(0.5)
    on = Window(since=NOON, until=Utc("2026-11-22T13:00:00.000Z"), state=JobState.ENABLED)
    fields: dict[str, Any] = {"windows": (on,), "per_host": True, "recovery": Recovery.ALL}
    world.apply(job("backup", Every(60, NOON), state=JobState.DISABLED, **fields))
    world.advance(3598)
    agent = world.agent("a1")
    leader.look()
    leader.send_all()  # The first step, of 16 ticks.
    leader.is_cut_off = True
    agent.kill()
    world.remove(Kind.PRESENCE, "a1")
    world.advance(2)
    leader.is_cut_off = False
    world.advance(60)
    assert sum(run.missed_count or 1 for run in world.runs("backup").values()) == 59


def test_a_window_closes_between_two_ticks_of_a_takeover() -> None:
    """The second is late only, but hadn't begun as its job was stopped."""
    world = World()
    first = world.scheduler("s1", ttl_s=5)
    world.agent("a1", takes_s=1.0)
    world.advance(0.5)
    since, until = Utc("2026-11-22T12:00:20.000Z"), Utc("2026-11-22T13:00:00.000Z")
    off = Window(since=since, until=until, state=JobState.DISABLED)
    fields: dict[str, Any] = {"pickup_buffer_s": 8.0, "recovery": Recovery.NONE}
    world.apply(job("backup", at("12:00:10"), at("12:00:12"), windows=(off,), **fields))
    world.advance(9)
    first.kill()
    world.advance(10.49)  # 12:00:19.990
    leader = world.scheduler("s2")
    leader.is_cut_off = True
    while not world.states("backup"):
        leader.look()
        leader.send_one()
    world.advance(0.1)
    leader.is_cut_off = False
    world.advance(30)
    assert world.states("backup") == {"120010": "missed", "120012": "missed"}


def test_an_account_never_goes_back() -> None:
    """The next leader's clock is 1.9 s behind that of the one before, who had begun a recovery."""
    world = World()
    ahead = world.scheduler("s1")
    ahead.wall_offset_ms = 1_900
    world.advance(0.5)
    world.scheduler("s2")
    world.advance(3.0)
    world.apply(job("backup", every_s=1, recovery=Recovery.NONE, pickup_buffer_s=0.0))
    world.advance(5)
    gap = world.records(Kind.GAP)[("backup",)].record
    assert isinstance(gap, Gap)
    last_ms = ms_of(gap.decided_through) + 1 + 5_000_000  # Of the 5,001st tick.
    world.advance((last_ms - world.start_ms) / 1000 - 1.9 - world.now_s + 0.05)
    ahead.is_cut_off = True
    world.agent("a1")
    ahead.look()
    ahead.send_all()  # Its first step: 5,000 ticks.
    ahead.stop()
    world.advance(6)
    runs = world.runs("backup")
    (many,) = (run for run in runs.values() if run.missed_count == 5000)
    others = [run.scheduled_at for run in runs.values() if run is not many]
    assert many.missed_through is not None
    assert [tick for tick in others if tick is not None and tick <= many.missed_through] == []


def test_a_gap_is_opened_once_though_a_run_of_the_job_is_unsettled() -> None:
    """A write about another run is answered late."""
    world = World()
    first = world.scheduler("s1", ttl_s=5)
    world.agent("a1", slots=0)
    world.advance(0.5)
    fields: dict[str, Any] = {"per_host": True, "recovery": Recovery.ALL}
    world.apply(job("backup", at("12:00:10"), at("12:00:12"), pickup_buffer_s=3.0, **fields))
    world.advance(5)
    asked = "20261122T120005.000Z-01"
    world.request(trigger(asked))
    world.advance(1)
    first.kill()
    world.advance(30)
    world.request(cancel("20261122T120030.000Z-02", asked))
    leader = world.scheduler("s2")
    leader.is_cut_off = True
    opened = 0
    for _ in range(60):
        leader.look()
        write = leader.send_one(but=fx.EndRun)
        opened += isinstance(write, fx.OpenGap)
        if write is not None:
            leader.take_answer(last=True)
        if isinstance(write, fx.CreateFanOut):
            world.remove(Kind.PRESENCE, "a1")
    assert opened == 1
    leader.is_cut_off = False
    world.advance(10)
    world.agent("a2")
    world.advance(20)
    assert len(world.runs("backup")) == 3
