"""What an outage or a mass loss has held up starts at ``recovery_rate``, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from etcsched.core.leader.waiting_runs import WaitingRuns
from etcsched.core.records import ClusterSettings, Kind, Run
from etcsched.core.schedule import At
from etcsched.core.splay import delay_ms
from etcsched.core.states import Overlap
from etcsched.core.times import Utc
from etcsched.core.view import Entry, RunKey
from etcsched.testing.world import World
from tests.support.jobs import job

ONCE = At(Utc("2026-11-22T12:00:05.000Z"))
JOBS = 60
RATE = 10


def started(world: World, *agents: str) -> list[float]:
    return sorted(span.start_s for agent in agents for span in world.agents[agent].spans)


def check_bounded(starts: list[float], rate: float) -> None:
    """In any time at most a second's worth, and what the rate allows meanwhile."""
    most_at_once = max(1.0, rate)
    for n, first in enumerate(starts):
        for count, later in enumerate(starts[n:], start=1):
            assert count <= most_at_once + (later - first) * rate + 1e-3, (first, later)


def check_paced(starts: list[float], rate: float) -> None:
    """Bounded, and no slower than it has to be."""
    assert len(starts) == JOBS
    check_bounded(starts, rate)
    assert starts[-1] - starts[0] <= (JOBS - max(1.0, rate)) / rate + 0.5


def lost_world(rate: float = RATE) -> World:
    """a1 and a2 run 60 jobs, and are killed at once."""
    world = World()
    world.scheduler("s1")
    world.put(Kind.SETTINGS, ClusterSettings(recovery_rate=rate))
    for name in ("a1", "a2"):
        world.agent(name, takes_s=1000.0, slots=JOBS)
    world.advance(0.5)
    for n in range(JOBS):
        world.apply(job(f"j{n}", ONCE))
    world.advance(6)
    assert len(started(world, "a1", "a2")) == JOBS
    for name in ("a1", "a2"):
        world.agents[name].kill()
    world.agent("a3", takes_s=1000.0, slots=1000)
    return world


@pytest.mark.parametrize("rate", [RATE, 2.0, 30.0])
def test_a_mass_loss_is_paced(rate: float) -> None:
    world = lost_world(rate)
    world.advance(15 + JOBS / rate)
    check_paced(started(world, "a3"), rate)


def test_the_reason_is_shown() -> None:
    world = lost_world()
    world.advance(13)
    (run,) = world.runs(f"j{JOBS - 1}").values()
    assert run.state.value == "ready"
    reason = "starts after an outage or a loss are paced (10/s)"
    assert run.history[-1].cause.endswith(f"was lost; it waits, since {reason}")
    world.advance(10)
    (run,) = world.runs(f"j{JOBS - 1}").values()
    assert run.history[-1].cause == f"its turn has come: {reason}"


def test_a_takeover_goes_on_with_it() -> None:
    world = lost_world()
    world.advance(13)
    before = len(started(world, "a3"))
    assert 0 < before < JOBS
    world.leader().kill()
    world.scheduler("s2")
    world.advance(30)
    starts = started(world, "a3")
    assert len(starts) == JOBS
    check_bounded(starts[before:], RATE)


def test_what_is_due_now_is_not_held_up() -> None:
    world = lost_world(2.0)
    world.apply(job("now", At(Utc("2026-11-22T12:00:20.000Z"))))
    world.advance(15)
    (run,) = world.runs("now").values()
    (span,) = [s for s in world.agents["a3"].spans if s.job == "now"]
    assert span.start_s == pytest.approx(20.0, abs=0.1)
    assert run.state.value == "assigned"


def test_few_are_moved_at_once() -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=1000.0, slots=RATE)
    world.advance(0.5)
    for n in range(RATE):
        world.apply(job(f"j{n}", ONCE))
    world.advance(6)
    world.agents["a1"].kill()
    world.agent("a2", takes_s=1000.0, slots=RATE)
    world.advance(20)
    starts = started(world, "a2")
    assert len(starts) == RATE
    assert starts[-1] - starts[0] < 0.1


def test_no_buffer_ends_while_it_waits_for_its_turn() -> None:
    """Also if the leader dies meanwhile."""
    world = World()
    first = world.scheduler("s1")
    world.put(Kind.SETTINGS, ClusterSettings(recovery_rate=1.0))
    world.agent("a1", takes_s=1.0, slots=1000)
    world.advance(0.5)
    for n in range(JOBS):
        world.apply(job(f"j{n}", At(Utc("2026-11-22T12:00:40.000Z")), pickup_buffer_s=30.0))
    world.advance(2)
    first.kill()
    world.advance(60)
    second = world.scheduler("s2")
    world.advance(20)
    second.kill()
    world.scheduler("s3")
    world.advance(90)
    ended = [run.state.value for n in range(JOBS) for run in world.runs(f"j{n}").values()]
    assert ended == ["completed"] * JOBS
    check_bounded(started(world, "a1"), 1.0)


def test_late_ticks_of_a_long_outage_are_paced() -> None:
    """Nobody led for a minute; each job has one late tick."""
    world = World()
    first = world.scheduler("s1")
    world.agent("a1", takes_s=1.0, slots=1000)
    world.advance(0.5)
    due = At(Utc("2026-11-22T12:00:40.000Z"))
    for n in range(JOBS):
        world.apply(job(f"j{n}", due, overlap=Overlap.SKIP))
    world.advance(2)
    first.kill()
    world.advance(60)
    world.scheduler("s2")
    world.advance(30)
    check_paced(started(world, "a1"), RATE)


def test_nor_while_it_waits_for_its_turn_once_its_conflict_has_cleared() -> None:
    """Their group is free 18 s after their tick, and others use up the pace beyond their buffer."""
    world = World()
    world.scheduler("s1")
    world.scheduler("s2")
    world.put(Kind.SETTINGS, ClusterSettings(recovery_rate=0.1))
    agent = world.agent("a1", takes_s=25.0, slots=50)
    world.advance(0.5)
    world.apply(job("long", ONCE))
    due = At(Utc("2026-11-22T12:00:12.000Z"))
    for name in ("high", "low"):
        world.apply(job(name, due, pickup_buffer_s=30.0))
    for n in range(5):
        world.apply(job(f"j{n}", due, priority=1))
    world.group("g", "long", "high", "low")
    world.advance(9)
    world.leader().kill()
    agent.takes_s = 1.0
    world.advance(25)
    assert world.states("high") == world.states("low") == {"120012": "queued"}
    world.advance(90)
    assert world.states("high") == world.states("low") == {"120012": "completed"}
    check_bounded(started(world, "a1")[1:], 0.1)


def test_what_starts_by_its_splay_after_the_outage_is_not_held_up() -> None:
    """Its tick was late, and its start isn't."""
    world = World()
    world.scheduler("s1")
    world.put(Kind.SETTINGS, ClusterSettings(recovery_rate=0.2))
    world.agent("a1", takes_s=0.5, slots=50)
    world.advance(0.5)
    jobs = [job(f"j{n}", At(Utc("2026-11-22T12:00:20.000Z")), splay_s=60.0) for n in range(12)]
    for each in jobs:
        world.apply(each)
    world.advance(15)
    world.nodes["s1"].kill()
    world.advance(9)
    world.scheduler("s2")
    world.advance(200)
    late_s = {
        span.job: span.start_s - 20 - delay_ms(each) / 1000
        for each in jobs
        for span in world.agents["a1"].spans
        if span.job == each.name
    }
    assert len(late_s) == 12
    is_due_later = {each.name for each in jobs if delay_ms(each) > 6_000}
    assert len(is_due_later) > 6
    assert all(late_s[name] < 0.1 for name in is_due_later), late_s


def test_few_look_before_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One timer is enough for all that wait."""
    world = lost_world()
    looks: list[RunKey] = []
    decide = WaitingRuns.decide

    def counted(self: WaitingRuns, key: RunKey, entry: Entry[Run]) -> None:
        looks.append(key)
        decide(self, key, entry)

    monkeypatch.setattr(WaitingRuns, "decide", counted)
    world.advance(25)
    assert len(started(world, "a3")) == JOBS
    assert len(looks) <= 4 * JOBS


def test_it_is_said_once() -> None:
    world = lost_world()
    world.advance(25)
    said = [note.text for note in world.nodes["s1"].notes if note.text.startswith("starts after")]
    assert len(said) <= 2


def test_what_cant_start_takes_no_turn_from_others() -> None:
    world = lost_world(1.0)
    for number in range(30):
        world.pause(f"j{number}")
    world.advance(15 + 32)
    starts = started(world, "a3")
    assert len(starts) == 30
    check_bounded(starts, 1.0)


def test_a_turn_that_comes_while_its_conflict_group_is_held_is_kept() -> None:
    """Else those below it that aren't paced went first, as long as others use up the pace."""
    world = World()
    world.scheduler("s1")
    world.put(Kind.SETTINGS, ClusterSettings(recovery_rate=1.0))
    world.agent("a1", slots=1000, takes_s=1000.0)
    world.agent("a2", slots=1000, takes_s=2.0)
    world.advance(0.5)
    both: dict[str, Any] = {"hosts": ("a1", "a2"), "prefer": ("a1",)}
    for number in range(40):
        world.apply(job(f"j{number:02}", ONCE, **both))
    world.apply(job("high", ONCE, priority=9, max_reassigns=5, **both))
    low: dict[str, Any] = {"overlap": Overlap.QUEUE, "pickup_buffer_s": 600.0}
    world.apply(job("low", every_s=1, hosts=("a2",), **low))
    world.group("ledger", "high", "low")
    world.advance(6)
    world.agents["a1"].kill()
    world.advance(24)
    spans = [span for agent in world.agents.values() for span in agent.spans]
    assert len([span for span in spans if span.job == "high"]) == 2


@pytest.mark.parametrize("rate", [1.0, 4.0])
def test_turns_that_are_kept_dont_come_all_at_once(rate: float) -> None:
    """Beyond the pace no more than another second's worth."""
    world = World()
    world.scheduler("s1")
    world.put(Kind.SETTINGS, ClusterSettings(recovery_rate=rate))
    world.agent("a1", slots=100, takes_s=1000.0)
    world.agent("a3", slots=1, takes_s=60.0)
    world.advance(0.5)
    for number in range(30):
        world.apply(job(f"j{number}", ONCE, hosts=("a1", "a2")))
    world.apply(job("block", ONCE, hosts=("a3",)))
    world.advance(6)
    for number in range(30):
        world.group(f"g{number}", "block", f"j{number}")
    world.agents["a1"].kill()
    world.agent("a2", slots=100, takes_s=1000.0)
    world.advance(120)
    starts = started(world, "a2")
    assert len(starts) == 30
    for number, first in enumerate(starts):
        for count, later in enumerate(starts[number:], start=1):
            assert count <= 2 * max(1.0, rate) + (later - first) * rate + 1e-3
