"""Ticks, overlap and outages, told as stories in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest

from etcsched.core.clock import Instant
from etcsched.core.errors import Refused
from etcsched.core.leader.context import Options
from etcsched.core.leader.effects import CreateRun, Effect
from etcsched.core.leader.events import LeaderEvent
from etcsched.core.leader.overlap import had_begun
from etcsched.core.records import Gap, Keep, Kind, Watermark
from etcsched.core.schedule import At
from etcsched.core.states import JobState, OnAgentLoss, Origin, Overlap, Recovery, RunState
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.keyspace.keys import Keys
from etcsched.operator.pauses import pause, resume
from etcsched.testing.model_etcd import ModelEtcd
from etcsched.testing.world import World
from tests.support.jobs import job, trigger
from tests.support.views import view_of


@pytest.fixture
def world() -> World:
    """Two schedulers and an agent, a second before the first job comes."""
    world = World()
    world.scheduler("s1")
    world.scheduler("s2")
    world.agent("a1", takes_s=1.0)
    world.advance(0.5)
    return world


def count(world: World, name: str = "backup") -> dict[str, int]:
    states = list(world.states(name).values())
    return {state: states.count(state) for state in sorted(set(states))}


def test_each_tick_becomes_one_run(world: World) -> None:
    world.apply(job(every_s=10))
    world.advance(31)
    assert world.states("backup") == {
        "120010": "completed",
        "120020": "completed",
        "120030": "completed",
    }
    starts = [span.start_s for span in world.agents["a1"].spans]
    assert starts == pytest.approx([10, 20, 30], abs=0.01)


def test_a_job_applied_before_the_first_scheduler_loses_no_tick() -> None:
    world = World()
    world.apply(job(every_s=10))
    world.advance(25)
    world.scheduler("s1")
    world.agent("a1")
    world.advance(10)
    assert list(world.states("backup")) == ["120010", "120020", "120030"]


@pytest.mark.parametrize("dies_after", [None, *range(1, 8)])
def test_many_ticks_at_once_are_decided_some_at_a_time(dies_after: int | None) -> None:
    """The first of them are sent before the last are decided; a leader may die in between."""
    world = World(options=Options(ticks_at_once=3))
    world.scheduler("s1")
    world.agent("a1", slots=20)
    for number in range(10):
        world.apply(job(f"job-{number}", At(Utc("2026-11-22T12:00:10.000Z"))))
    world.advance(9.9)
    world.scheduler("s2")
    leader = world.leader().leader
    assert leader is not None
    decided: list[int] = []
    handle_all = leader.handle_all

    def noted(events: Iterable[LeaderEvent], now: Instant) -> list[Effect]:
        effects = handle_all(events, now)
        decided.append(sum(isinstance(effect, CreateRun) for effect in effects))
        return effects

    leader.handle_all = noted  # type: ignore[method-assign]
    if dies_after is not None:
        world.leader_dies_after = world.leader_writes + dies_after
    world.advance(30)
    assert max(decided) == 3
    assert dies_after is not None or [many for many in decided if many] == [3, 3, 3, 1]
    for number in range(10):
        assert count(world, f"job-{number}") == {"completed": 1}


def test_takeover_after_every_single_write() -> None:
    """The leader dies right after its k-th write, for each k: each tick is still one run."""
    for k in range(1, 28):
        world = World()
        world.scheduler("s1")
        world.scheduler("s2")
        world.agent("a1", takes_s=2.0)
        world.leader_dies_after = k
        world.advance(0.5)
        world.apply(job("often", every_s=3, overlap=Overlap.QUEUE))
        world.apply(job("backup", every_s=5, overlap=Overlap.ALLOW))
        world.advance(60)
        assert world.leader_writes > k
        for name, every_s in (("often", 3), ("backup", 5)):
            due_s = [s for s in range(every_s, 61, every_s) if s > 0]
            assert len(world.states(name)) == len(due_s), (k, name)
            ran = [span.run for a in world.agents.values() for span in a.spans if span.job == name]
            assert len(ran) == len(set(ran)), (k, name)


@pytest.mark.parametrize(
    ("overlap", "states"),
    [
        (Overlap.SKIP, {"completed": 2, "overlapped": 2}),
        (Overlap.QUEUE, {"assigned": 1, "completed": 2, "queued": 1}),
        (Overlap.ALLOW, {"assigned": 1, "completed": 3}),
    ],
)
def test_overlap(world: World, overlap: Overlap, states: dict[str, int]) -> None:
    world.agents["a1"].takes_s = 15.0
    world.apply(job(every_s=10, overlap=overlap))
    world.advance(45)
    assert count(world) == states


def test_a_record_that_shows_in_the_archive_only_holds_nothing_up(world: World) -> None:
    """No event of the watched range tells of an overlapped tick."""
    world.agents["a1"].takes_s = 6.0
    world.apply(job(every_s=1))
    world.advance(8.0)
    starts = [span.start_s for span in world.agents["a1"].spans]
    assert starts == pytest.approx([1, 8], abs=0.01)


def test_late_ticks_after_a_failover_run_one_after_the_other(world: World) -> None:
    world.agents["a1"].takes_s = 3.0
    world.apply(job(every_s=5))
    world.advance(5.6)
    world.leader().kill()
    world.advance(40)
    spans = sorted(world.agents["a1"].spans, key=lambda span: span.start_s)
    assert all(
        one.end_s is not None and one.end_s <= other.start_s for one, other in pairwise(spans)
    )
    assert count(world).get("overlapped", 0) <= 1
    assert count(world)["completed"] >= 7


OUTAGE = [
    (Recovery.ALL, 6, 0),
    (Recovery.LAST, 0, 6),
    (Recovery.NONE, 0, 6),
]


@pytest.mark.parametrize(("mode", "recovered", "missed"), OUTAGE)
@pytest.mark.parametrize("cause", ["no leader", "no agent"])
def test_an_outage(world: World, cause: str, mode: Recovery, recovered: int, missed: int) -> None:
    """Of the ticks at 10..90 seconds the last three are late, and run whatever the mode: with
    ``last``, the latest tick is among them."""
    world.apply(job(every_s=10, recovery=mode, pickup_buffer_s=25.0))
    if cause == "no leader":
        for node in world.nodes.values():
            node.stop()
        world.advance(91)
        world.scheduler("s3")
    else:
        world.agents["a1"].leave()
        world.advance(91)
        assert world.states("backup") == {}
        world.agent("a2")
    world.advance(0.1)
    runs = world.runs("backup").values()
    assert sum(run.origin.value == "recovery" for run in runs) == recovered
    world.advance(60)
    runs = world.runs("backup").values()
    assert sum(max(1, run.missed_count) for run in runs) == 15
    singles = sum(run.state.value == "missed" and run.missed_count <= 1 for run in runs)
    summaries = sum(run.missed_count for run in runs if run.missed_count > 1)
    assert singles + summaries == missed
    assert world.records(Kind.GAP) == {}


def test_a_tick_queued_behind_a_recovery_runs_although_later_ones_may_overlap() -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", slots=20, takes_s=20.0)
    world.advance(0.5)
    world.apply(
        job(
            every_s=15,
            overlap=Overlap.ALLOW,
            recovery=Recovery.ALL,
            pickup_buffer_s=5.0,
            keep=Keep(runs=500),
        )
    )
    world.advance(20)
    world.nodes["s1"].kill()
    world.advance(60)
    world.scheduler("s2")
    world.advance(400)
    waiting = [run for run in world.runs("backup").values() if run.state is RunState.QUEUED]
    assert waiting == []
    assert any(run.origin is Origin.RECOVERY for run in world.runs("backup").values())


def test_last_runs_the_latest_where_none_is_late(world: World) -> None:
    world.apply(job(cron="*/1 * * * *", recovery=Recovery.LAST, pickup_buffer_s=10.0))
    world.agents["a1"].leave()
    world.advance(600 + 40)
    world.agent("a2")
    world.advance(5)
    assert [run.state.value for run in world.runs("backup").values()] == ["missed", "completed"]
    first = next(iter(world.runs("backup").values()))
    assert first.missed_count == 9


def test_what_is_left_of_a_recovery_goes_by_the_job_as_it_is_by_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mode changes right after the first of the recovery's steps."""
    fields: dict[str, Any] = {"every_s": 10, "pickup_buffer_s": 0.0, "keep": Keep(runs=500)}
    world.apply(job(recovery=Recovery.ALL, **fields))
    world.agents["a1"].leave()
    world.advance(405)

    def recovered() -> int:
        return sum(run.origin is Origin.RECOVERY for run in world.runs("backup").values())

    def edit_once(_: object) -> None:
        if recovered() and not is_edited:
            is_edited.append(recovered())
            world.apply(job(recovery=Recovery.NONE, **fields))

    is_edited: list[int] = []
    monkeypatch.setattr(world, "leader_wrote", edit_once)
    world.agent("a2", takes_s=0.1)
    world.advance(1)
    assert is_edited == [recovered()]
    missed = [run for run in world.runs("backup").values() if run.state is RunState.MISSED]
    assert sum(max(1, run.missed_count) for run in missed) == 40 - recovered()


def test_all_runs_at_most_the_limit_within_reach(world: World) -> None:
    world.apply(
        job(
            every_s=10,
            recovery=Recovery.ALL,
            pickup_buffer_s=0.0,
            catch_up_limit=4,
            recover_within_s=35.0,
        )
    )
    world.agents["a1"].leave()
    world.advance(101)
    world.agent("a2", takes_s=0.1)
    world.advance(2)
    recovered = [run.id for run in world.runs("backup").values() if run.origin.value == "recovery"]
    assert recovered == [f"20261122T1201{s}Z" for s in ("10", "20", "30", "40")][-len(recovered) :]
    assert 3 <= len(recovered) <= 4


@pytest.mark.parametrize("overlap", list(Overlap))
def test_what_catches_up_does_so_one_at_a_time_whatever_its_overlap(
    world: World, overlap: Overlap
) -> None:
    world.apply(job(every_s=60, recovery=Recovery.ALL, pickup_buffer_s=1.0, overlap=overlap))
    world.agents["a1"].leave()
    world.advance(250)
    world.agent("a2", slots=4, takes_s=7.0)
    world.advance(60)
    spans = sorted(world.agents["a2"].spans, key=lambda span: span.start_s)
    assert len(spans) >= 4
    for before, after in pairwise(spans[:4]):
        assert before.end_s is not None
        assert after.start_s >= before.end_s


@pytest.mark.parametrize(
    ("mode", "state"),
    [(Recovery.ALL, "completed"), (Recovery.LAST, "completed"), (Recovery.NONE, "missed")],
)
def test_a_ready_run_whose_buffer_ended_in_an_outage(
    world: World, mode: Recovery, state: str
) -> None:
    """Its agent was full as it came due, and then gone."""
    world.agents["a1"].leave()
    world.agent("a2", slots=1, takes_s=1000.0)
    world.advance(0)
    world.apply(job("blocker", At(Utc("2026-11-22T12:00:02.000Z")), on_agent_loss=OnAgentLoss.DIED))
    once = At(Utc("2026-11-22T12:00:05.000Z"))
    world.apply(job("backup", once, recovery=mode, pickup_buffer_s=20.0))
    world.advance(10)
    assert world.states("backup") == {"120005": "ready"}
    world.agents["a2"].kill()
    world.advance(60)
    assert world.states("backup") == {"120005": "ready"}
    world.agent("a3")
    world.advance(5)
    assert world.states("backup") == {"120005": state}


def test_a_buffer_that_ends_as_the_next_tick_comes_due(world: World) -> None:
    """An outage begins for the waiting run's sake, at the very instant of another tick."""
    world.agents["a1"].leave()
    world.agent("a2", slots=1, takes_s=1000.0)
    world.apply(job("blocker", At(Utc("2026-11-22T12:00:02.000Z"))))
    every_minute = job(cron="*/1 * * * *", pickup_buffer_s=60.0, overlap=Overlap.ALLOW)
    world.apply(every_minute)
    world.advance(70)
    world.agents["a2"].kill()
    world.advance(80)
    world.agent("a3", takes_s=0.1)
    world.advance(5)
    assert list(world.states("backup")) == ["120100", "120200"]


def test_a_run_that_finds_no_slot_is_abandoned(world: World) -> None:
    world.agents["a1"].leave()
    world.agent("a2", slots=1, takes_s=1000.0)
    world.apply(job("blocker", At(Utc("2026-11-22T12:00:02.000Z"))))
    world.apply(job("backup", At(Utc("2026-11-22T12:00:05.000Z")), pickup_buffer_s=20.0))
    world.advance(30)
    assert world.states("backup") == {"120005": "abandoned"}


def test_priority_goes_before_age_whatever_a_run_asks_for(world: World) -> None:
    world.agents["a1"].leave()
    world.agent("a2", slots=1, takes_s=10.0, labels={"disk": "ssd"})
    world.apply(job("blocker", At(Utc("2026-11-22T12:00:02.000Z"))))
    world.apply(job("low", At(Utc("2026-11-22T12:00:03.000Z"))))
    once = At(Utc("2026-11-22T12:00:04.000Z"))
    world.apply(job("high", once, priority=5, require={"disk": "ssd"}))
    world.advance(60)
    assert [span.job for span in world.agents["a2"].spans] == ["blocker", "high", "low"]


def test_an_old_gap_is_not_forgotten_before_the_next_opens() -> None:
    """A second outage follows right on the first, and the leader dies in between."""
    for k in range(40):
        world = World()
        world.scheduler("s1")
        world.scheduler("s2")
        world.agent("a1").leave()
        world.advance(0.5)
        world.apply(job(every_s=2, recovery=Recovery.NONE, pickup_buffer_s=0.0))
        world.advance(20)
        world.agent("a2", takes_s=0.1)
        world.leader_dies_after = world.leader_writes + k
        world.advance(0.3)
        world.agents["a2"].leave()
        world.advance(30.3)
        world.leader_dies_after = None
        world.advance(25)
        world.agent("a3", takes_s=0.1)
        world.advance(3)
        covered = sum(max(1, run.missed_count) for run in world.runs("backup").values())
        assert covered == 39, k


def test_a_run_decided_just_before_both_died_is_not_decided_again() -> None:
    """The tick is decided and over, later than the watermark; its leader and all agents are gone.
    The next leader finds no agent and opens a gap that reaches back before that tick."""
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", takes_s=0.2)
    world.advance(0.7)
    world.apply(job(every_s=3, recovery=Recovery.ALL, pickup_buffer_s=1.0, keep=Keep(runs=99)))
    world.advance(3.0)
    assert world.states("backup") == {"120003": "completed"}
    assert world.through_ms() < world.start_ms + 3_000
    world.leader().kill()
    agent.leave()
    world.scheduler("s2")
    world.advance(30)
    world.agent("a2", takes_s=0.2)
    world.advance(30)
    states = world.states("backup")
    assert set(states.values()) == {"completed"}
    assert len(states) == 21


def test_edits_decide_by_the_time_of_the_tick(world: World) -> None:
    world.apply(job(every_s=10))
    world.advance(15)
    world.apply(job(every_s=4))
    world.advance(10)
    assert list(world.states("backup")) == ["120010", "120016", "120020", "120024"]


def test_edits_in_an_outage_of_the_leader(world: World) -> None:
    world.apply(job(every_s=10, recovery=Recovery.ALL, pickup_buffer_s=0.0))
    world.advance(15)
    for node in world.nodes.values():
        node.stop()
    world.advance(10)
    world.set_state("backup", JobState.DISABLED)
    world.advance(20)
    world.set_state("backup", JobState.ENABLED)
    world.advance(10)
    world.scheduler("s3")
    world.advance(10)
    assert list(world.states("backup")) == ["120010", "120020", "120050", "120100"]


def test_resume_makes_ticks_due_again_at_once(world: World) -> None:
    world.apply(job(every_s=1, overlap=Overlap.ALLOW))
    world.advance(3)
    world.pause("backup")
    world.advance(4)
    world.resume("backup")
    world.advance(2.4)
    ran = list(world.states("backup"))
    assert ran == ["120001", "120002", "120003", "120008", "120009"]


def test_a_resume_that_the_leader_learns_of_late(world: World) -> None:
    """It has let ticks pass as paused that were due."""
    world.apply(job(every_s=1, overlap=Overlap.ALLOW))
    world.advance(3)
    world.pause()
    world.advance(2.0)
    leader = world.leader()
    leader.is_cut_off = True
    world.resume()
    world.advance(3.0)
    leader.is_cut_off = False
    world.advance(1.5)
    assert list(world.states("backup"))[3:6] == ["120006", "120007", "120008"]


def test_ticks_that_a_stall_delays_overlap_nothing() -> None:
    """A leader that hears nothing for a few seconds, and leads on."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=0.05)
    world.advance(0.5)
    world.apply(job(every_s=1, keep=Keep(runs=100)))
    world.advance(5.2)
    leader = world.leader()
    leader.is_cut_off = True
    world.advance(4.0)
    leader.is_cut_off = False
    world.advance(10.0)
    assert world.term().number == 1
    assert count(world) == {"completed": len(world.states("backup"))}
    assert len(world.states("backup")) == 19


def test_a_job_that_takes_too_long_is_overlapped_as_ever(world: World) -> None:
    world.apply(job(every_s=1, keep=Keep(runs=100)))
    world.agents["a1"].takes_s = 2.5
    world.advance(12.2)
    assert count(world).keys() == {"completed", "overlapped"} | ({"assigned"} & count(world).keys())
    assert count(world)["overlapped"] >= 6


@pytest.mark.parametrize("per_host", [False, True])
@pytest.mark.parametrize("first", range(1, 10))
def test_a_run_that_had_begun_is_overlapped_though_its_leader_died(
    world: World, first: int, per_host: bool
) -> None:
    """Wherever the watermark stood then."""
    ticks = (At(Utc(f"2026-11-22T12:00:0{first}.000Z")), At(Utc("2026-11-22T12:00:14.000Z")))
    world.apply(job("backup", *ticks, per_host=per_host))
    world.agents["a1"].takes_s = 100.0
    world.advance(first)
    world.nodes["s1"].kill()
    world.advance(60)
    assert list(world.states("backup").values()) == ["assigned", "overlapped"]


def test_a_run_begins_no_earlier_than_it_was_assigned_by_an_agents_clock_that_is_behind(
    world: World,
) -> None:
    agent = world.agents["a1"]
    agent.takes_s, agent.behind_s = 100.0, 30.0
    world.apply(job("backup", At(Utc("2026-11-22T12:00:05.000Z"))))
    world.advance(10)
    view = view_of(world)
    run = view.runs["backup", "20261122T120005Z"].record
    seconds = (4_000, 6_000)
    assert [had_begun(view, run, world.start_ms + ms) for ms in seconds] == [False, True]


def test_the_watermark_moves_when_idle_and_never_past_an_open_tick(world: World) -> None:
    world.advance(60)
    assert world.now_s * 1000 - (world.through_ms() - world.start_ms) <= 5_000


def test_the_watermark_waits_for_edits_that_the_leader_has_not_seen(world: World) -> None:
    """A leader that was frozen wakes, with news unread: it mustn't call that time decided."""
    world.advance(4)
    leader = world.leader()
    leader.is_cut_off = True
    world.apply(job(every_s=1))
    world.advance(3)
    before = world.through_ms()
    leader.time_passed()
    leader.send_all()
    assert world.through_ms() == before
    leader.is_cut_off = False
    world.advance(5)
    assert list(world.states("backup"))[:3] == ["120005", "120006", "120007"]


def test_a_jump_of_the_wall_clock_ends_a_leadership(world: World) -> None:
    world.apply(job(every_s=10))
    world.advance(5)
    leader = world.leader()
    leader.wall_offset_ms = 3_600_000
    world.advance(20)
    assert leader.demotions
    assert world.leader() is not leader
    assert list(world.states("backup")) == ["120010", "120020"]


def test_small_differences_are_slewed(world: World) -> None:
    world.apply(job(every_s=10))
    world.advance(5)
    world.leader().wall_offset_ms = 1_500
    world.advance(60)
    assert len(world.states("backup")) == 6
    assert not world.leader().demotions


def test_nothing_wakes_an_idle_leader_but_the_watermark(world: World) -> None:
    machine = world.leader().leader
    assert machine is not None
    world.advance(30)
    assert machine.next_wake_s() > world.now_s


def test_a_request_asked_again_after_its_answer_is_forgotten(world: World) -> None:
    world.apply(job(state=JobState.AD_HOC_ACTIVE))
    world.request(trigger("20261122T120000Z-r1"))
    world.advance(5)
    world.remove(Kind.ANSWER, "20261122T120000Z-r1")
    world.request(trigger("20261122T120000Z-r1"))
    world.advance(5)
    answer = world.answer("20261122T120000Z-r1")
    assert answer is not None
    assert answer.accepted
    assert len(world.runs("backup")) == 1


@pytest.mark.parametrize("edited", ["job", "pause", "calendar"])
def test_an_edit_makes_no_tick_late(edited: str) -> None:
    """What was decided since the watermark is looked at again, and found in etcd: the first tick
    after it doesn't wait for that."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=0.1)
    world.advance(0.5)
    world.calendar("holidays", exclude=("2026-12-25",))
    keep = Keep(runs=1000)
    world.apply(job("backup", every_s=1, keep=keep, calendars=("holidays",)))
    world.advance(24.2)
    match edited:
        case "job":
            world.apply(job("backup", every_s=1, keep=keep, calendars=("holidays",), priority=3))
        case "pause":
            world.pause("backup")
            world.advance(0.1)
            world.resume("backup")
        case _:
            world.calendar("holidays", exclude=("2026-12-26",))
    world.advance(10)
    runs = world.runs("backup").values()
    assert len(runs) == 34
    assert max(ms_of(r.created_at) - ms_of(r.scheduled_at or r.created_at) for r in runs) < 50


def test_a_late_tick_of_a_job_that_is_paused_says_so() -> None:
    world = World()
    first = world.scheduler("s1")
    world.agent("a1")
    world.advance(0.5)
    world.apply(job("backup", At(Utc("2026-11-22T12:00:20.000Z"))))
    world.advance(10)
    first.kill()
    world.advance(15)
    world.pause("backup")
    world.advance(5)
    world.scheduler("s2")
    world.advance(1)
    (run,) = world.runs("backup").values()
    assert (run.state, run.history[-1].cause) == (RunState.READY, "due, but job backup is paused")


def test_a_tick_a_millisecond_after_a_takeover_isnt_lost() -> None:
    """It falls on the very instant before which the recovery of those before keeps the watermark,
    and is due before that one's first step is answered."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=100.0)
    world.advance(0.5)
    ticks = (At(Utc("2026-11-22T12:01:02.000Z")), At(Utc("2026-11-22T12:01:06.000Z")))
    world.apply(job("backup", *ticks, pickup_buffer_s=1.0, overlap=Overlap.ALLOW))
    world.advance(61.6)
    assert world.states("backup") == {"120102": "assigned"}
    world.nodes["s1"].stop()
    world.advance(3.899)
    s2 = world.scheduler("s2")
    while s2.leader is None:
        s2.look()
    assert world.now == "2026-11-22T12:01:05.999Z"
    s2.is_cut_off = True  # The network takes 3 ms.
    world.at(66.0, lambda: None)
    world.at(66.002, lambda: setattr(s2, "is_cut_off", False))
    world.advance(30)
    assert world.states("backup") == {"120102": "assigned", "120106": "assigned"}


def test_a_pause_by_a_clock_that_is_ahead(world: World) -> None:
    """It would begin in ten minutes, and its end lose the ticks until then."""
    world.apply(job("a", every_s=10))
    world.advance(5)
    etcd, keys = ModelEtcd(world.store), Keys()
    ahead = utc_of(ms_of(world.now) + 600_000)
    with pytest.raises(Refused, match="ahead of what any agent has shown"):
        asyncio.run(pause(etcd, keys, "a", ahead, "anna", timeout_s=5))
    asyncio.run(pause(etcd, keys, "a", world.now, "anna", timeout_s=5))
    world.advance(30)
    assert not world.runs("a")
    with pytest.raises(Refused, match="ahead of what any agent has shown"):
        asyncio.run(resume(etcd, keys, "a", ahead, timeout_s=5))
    asyncio.run(resume(etcd, keys, "a", world.now, timeout_s=5))
    world.advance(20)
    assert list(world.states("a")) == ["120040", "120050"]


@pytest.mark.parametrize("kind", [Kind.WATERMARK, Kind.GAP])
def test_an_account_that_a_hand_took_to_the_end_of_time(kind: Kind) -> None:
    """Nothing is due any more; all else goes on: edits, requests, a takeover, an agent's loss."""
    last = Utc("9999-12-31T23:59:59.999Z")
    world = World()
    if kind is Kind.WATERMARK:
        world.put(kind, Watermark(through=last, term=0))
    world.scheduler("s1")
    world.agent("a1")
    world.advance(1)
    world.apply(job("backup", every_s=7, recovery=Recovery.ALL))
    world.advance(1)
    if kind is Kind.GAP:
        gap = Gap(job="backup", since=world.now, decided_through=last, reason="")
        world.put(kind, gap, "backup")
    world.advance(30)
    world.pause("backup")
    world.calendar("days", exclude=("2026-12-25",))
    world.apply(job("backup", every_s=7, recovery=Recovery.ALL, calendars=("days",)))
    world.advance(5)
    world.resume("backup")
    world.nodes["s1"].kill()
    world.scheduler("s2")
    world.agents["a1"].kill()
    world.advance(30)
    world.agent("a1")
    world.request(trigger("20261122T120001.000Z-aa"))
    world.advance(30)
    assert world.states("backup") == {"120001.000Z-aa": "completed"}
    world.delete("backup")
    world.advance(30)
    assert not world.records(Kind.RUN)
