"""Runs that waited for an agent as an outage began, told as stories in virtual time: whoever leads
after it, they are ticks of it, the oldest, and go by the job's recovery."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.records import ClusterSettings, Kind, Link, Retry
from etcsched.core.schedule import At, Cron
from etcsched.core.states import JobState, OnAgentLoss, Outcome, Overlap, Recovery
from etcsched.core.times import Utc
from etcsched.testing.world import World
from tests.support.jobs import job, resubmit

HOG = At(Utc("2026-11-22T12:00:05.000Z"))
"""It takes the only slot, for long."""

DEATHS = range(8)
"""The leader dies after so many of its writes (0: never)."""


@pytest.fixture
def world() -> World:
    world = World()
    world.scheduler("s1", ttl_s=5)
    world.agent("a1", slots=1, takes_s=4000.0)
    world.advance(0.5)
    world.apply(job("hog", HOG, on_agent_loss=OnAgentLoss.DIED))
    return world


def started(world: World) -> list[tuple[str, float]]:
    """Ticks of the job by the order in which they began, and when."""
    spans = [s for agent in world.agents.values() for s in agent.spans if s.job == "backup"]
    return [(span.run[9:15], span.start_s) for span in sorted(spans, key=lambda s: s.start_s)]


@pytest.mark.parametrize("mode", [Recovery.ALL, Recovery.LAST])
@pytest.mark.parametrize("dies_after", DEATHS)
def test_it_is_recovered_whoever_leads_at_the_outages_end(
    world: World, mode: Recovery, dies_after: int
) -> None:
    world.apply(job("backup", Cron("10 * * * *"), recovery=mode))
    world.advance(10 * 60 + 10)
    assert world.states("backup") == {"121000": "ready"}
    world.agents["a1"].kill()
    world.advance(600)
    world.scheduler("s2", ttl_s=5)
    world.advance(1)
    if dies_after:
        world.leader_dies_after = world.leader_writes + dies_after
    world.agent("a2", slots=1, takes_s=1.0)
    world.advance(60)
    assert world.states("backup") == {"121000": "completed"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dies_after", range(3))
def test_a_chained_one_waits_on_though_two_leaders_die(dies_after: int, seed: int) -> None:
    world = World(chance=random.Random(seed))
    world.scheduler("s1", ttl_s=5)
    agent = world.agent("a1", slots=2, takes_s=4000.0)
    world.advance(0.5)
    world.apply(job("hog", HOG))
    world.apply(job("next", state=JobState.CHAIN_ACTIVE, overlap=Overlap.ALLOW))
    world.apply(job("source", At(Utc("2026-11-22T12:09:00.000Z")), chain=(Link(to="next"),)))
    world.apply(job("hog2", At(Utc("2026-11-22T12:09:05.000Z")), priority=5))
    world.advance(500)
    agent.takes_s = 10.0
    world.advance(45)
    agent.takes_s = 4000.0
    world.advance(30)
    assert [run.state.value for run in world.runs("next").values()] == ["ready"]
    world.nodes["s1"].kill()
    world.advance(600)
    if dies_after:
        world.leader_dies_after = world.leader_writes + dies_after
    world.scheduler("s2", ttl_s=5)
    world.advance(1)
    world.scheduler("s3", ttl_s=5)
    world.advance(60)
    assert [run.state.value for run in world.runs("next").values()] == ["queued"]


def test_recovery_last_runs_the_latest_only_if_that_is_late_too(world: World) -> None:
    world.apply(job("backup", Cron("*/10 * * * *"), recovery=Recovery.LAST))
    world.advance(10 * 60 + 10)
    world.nodes["s1"].kill()
    world.advance(10 * 60)  # 12:20 is due, 20 s ago.
    world.scheduler("s2", ttl_s=5)
    world.agent("a2", takes_s=1.0)
    world.advance(60)
    assert world.states("backup") == {"121000": "missed", "122000": "completed"}


@pytest.mark.parametrize("overlap", [Overlap.ALLOW, Overlap.QUEUE, Overlap.SKIP])
@pytest.mark.parametrize("dies_after", DEATHS)
def test_it_is_the_oldest_of_those_that_are_recovered(
    world: World, overlap: Overlap, dies_after: int
) -> None:
    world.scheduler("s2", ttl_s=5)
    world.apply(job("backup", Cron("*/10 * * * *"), recovery=Recovery.ALL, overlap=overlap))
    world.advance(10 * 60 + 10)
    world.agents["a1"].kill()
    world.advance(35 * 60)
    if dies_after:
        world.leader_dies_after = world.leader_writes + dies_after
    world.agent("a2", slots=2, takes_s=5.0)
    world.advance(100)
    begun = started(world)
    assert [tick for tick, _ in begun] == ["121000", "122000", "123000", "124000"]
    assert all(later >= earlier + 5.0 for (_, earlier), (_, later) in pairwise(begun))


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_it_counts_for_the_limit(world: World, limit: int) -> None:
    world.apply(job("backup", Cron("*/10 * * * *"), recovery=Recovery.ALL, catch_up_limit=limit))
    world.advance(10 * 60 + 10)
    world.agents["a1"].kill()
    world.advance(35 * 60)
    world.agent("a2", slots=2, takes_s=5.0)
    world.advance(100)
    assert [tick for tick, _ in started(world)] == ["121000", "122000", "123000", "124000"][-limit:]


@pytest.mark.parametrize("interval_s", [0.0, 2.0, 60.0])
def test_retries_that_catch_up_go_one_at_a_time(world: World, interval_s: float) -> None:
    """Also where the job's runs may overlap; and a leader that finds two that are due goes on."""
    retry = Retry(max=2, interval_s=interval_s)
    world.apply(
        job(
            "backup", Cron("10,20 12 * * *"), recovery=Recovery.ALL, overlap=Overlap.ALLOW,
            retry=retry,
        )
    )  # fmt: skip
    world.advance(10 * 60 + 10)
    world.agents["a1"].kill()
    world.advance(19 * 60)
    world.agent("a2", slots=4, takes_s=5.0, ends_as=Outcome.FAILED)
    world.advance(300)
    assert world.states("backup") == {"121000": "failed", "122000": "failed"}
    begun = started(world)
    assert len(begun) >= 4  # The retries of 12:10 end as 12:20 is there.
    assert all(later >= earlier + 5.0 for (_, earlier), (_, later) in pairwise(begun))


# --- an assignment that nobody claimed is no attempt


def unclaimed(mode: Recovery, **fields: Any) -> World:
    """The agent that got it at 12:00:05 goes a second later, without having claimed it."""
    world = World()
    world.scheduler("s1", ttl_s=5)
    world.agent("a1").claims_nothing = True
    world.advance(0.5)
    world.apply(job("backup", HOG, recovery=mode, **fields))
    world.advance(5.5)
    assert world.states("backup") == {"120005": "assigned"}
    world.agents["a1"].leave()
    return world


@pytest.mark.parametrize(
    ("mode", "away_s", "state"),
    [
        (Recovery.NONE, 60, "completed"),
        (Recovery.NONE, 300, "missed"),
        (Recovery.CONFLICTED, 300, "missed"),
        (Recovery.LAST, 300, "completed"),
        (Recovery.LAST, 13 * 3600, "missed"),
        (Recovery.ALL, 300, "completed"),
        (Recovery.ALL, 13 * 3600, "missed"),
    ],
)
@pytest.mark.parametrize("is_led", [True, False])
def test_one_that_nobody_claimed_goes_by_its_jobs_recovery(
    mode: Recovery, away_s: int, state: str, is_led: bool
) -> None:
    world = unclaimed(mode)
    world.advance(1)
    if not is_led:
        world.nodes["s1"].kill()
    world.advance(away_s)
    if not is_led:
        world.scheduler("s2", ttl_s=5)
    world.agent("a2", takes_s=1.0)
    world.advance(20)
    assert world.states("backup") == {"120005": state}


def test_one_that_nobody_claimed_is_abandoned_where_no_slot_is_free() -> None:
    world = unclaimed(Recovery.LAST)
    world.agent("a2", slots=0)
    world.advance(110)
    assert world.states("backup") == {"120005": "ready"}
    world.advance(10)
    (run,) = world.runs("backup").values()
    assert run.state.value == "abandoned"
    assert run.history[-1].at == "2026-11-22T12:02:05.000Z"


def test_one_that_nobody_claimed_is_not_abandoned_for_its_turn_in_the_pace() -> None:
    """Their agent is found dead after their buffer, and they start one in two seconds elsewhere."""
    world = World()
    world.scheduler("s1", ttl_s=5)
    world.put(Kind.SETTINGS, ClusterSettings(recovery_rate=0.5))
    world.agent("a1", slots=9).claims_nothing = True
    world.advance(0.5)
    for n in range(5):
        world.apply(job(f"j{n}", HOG, pickup_buffer_s=3.0))
    world.advance(6)
    world.agents["a1"].kill()
    world.agent("a2", slots=9, takes_s=1.0)
    world.advance(30)
    assert {world.states(f"j{n}")["120005"] for n in range(5)} == {"completed"}


def test_one_that_was_queued_and_that_nobody_claimed_waits_on() -> None:
    """What was in a queue has no buffer, though an agent has gone with it meanwhile."""
    world = World()
    world.scheduler("s1", ttl_s=5)
    agent = world.agent("a1", slots=1, takes_s=600.0)
    world.advance(0.5)
    world.apply(job("backup", Cron("0,5 12 * * *"), HOG, overlap=Overlap.QUEUE))
    world.advance(604)
    agent.claims_nothing = True
    world.advance(2)
    assert world.states("backup") == {"120005": "completed", "120500": "assigned"}
    agent.leave()
    world.agent("a2", slots=0)
    world.advance(600)
    assert world.states("backup")["120500"] == "ready"
    world.agent("a3", takes_s=1.0)
    world.advance(20)
    assert world.states("backup")["120500"] == "completed"


def test_one_whose_conflict_cleared_late_and_that_nobody_claimed_waits_on() -> None:
    world = World()
    world.scheduler("s1", ttl_s=5)
    agent = world.agent("a1", slots=1, takes_s=600.0)
    world.advance(0.5)
    world.apply(job("hog", HOG))
    world.apply(job("backup", At(Utc("2026-11-22T12:00:10.000Z")), recovery=Recovery.CONFLICTED))
    world.group("g", "hog", "backup")
    world.advance(604)
    agent.claims_nothing = True
    world.advance(2)
    assert world.states("backup") == {"120010": "assigned"}
    agent.leave()
    world.advance(600)
    assert world.states("backup") == {"120010": "ready"}
    world.agent("a2", takes_s=1.0)
    world.advance(20)
    assert world.states("backup") == {"120010": "completed"}


@pytest.mark.parametrize("splay_s", [0.0, 7000.0])
@pytest.mark.parametrize("is_led", [True, False])
def test_its_buffer_goes_by_the_splay_it_was_made_with(is_led: bool, splay_s: float) -> None:
    """A splay that is set while it waits is one for the ticks that come."""
    world = World()
    world.scheduler("s1", ttl_s=5)
    world.agent("a1", slots=0)
    world.advance(0.5)
    backup = job("backup", HOG, At(Utc("2026-11-22T18:00:00.000Z")), pickup_buffer_s=60.0)
    world.apply(backup)
    world.advance(20)
    world.apply(replace(backup, splay_s=splay_s))
    world.advance(5)
    if is_led:
        world.agents["a1"].leave()
    else:
        world.nodes["s1"].kill()
    world.advance(90)
    world.agent("a2", takes_s=1.0)
    if not is_led:
        world.scheduler("s2", ttl_s=5)
    world.advance(10)
    assert world.states("backup") == {"120005": "completed"}


def test_a_late_tick_beside_a_resubmission() -> None:
    """Resubmissions overlap nothing: it waits for the one that runs."""
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", takes_s=1.0, ends_as=Outcome.FAILED)
    world.advance(0.5)
    ticks = [At(Utc(f"2026-11-22T12:00:{second}.000Z")) for second in ("05", "30")]
    world.apply(job("backup", *ticks))
    world.advance(10)
    agent.leave()
    world.advance(5)
    world.request(resubmit("20261122T120015.000Z-01", "20261122T120005Z"))
    world.advance(30)
    world.agent("a1", takes_s=1.0)
    world.advance(60)
    assert world.states("backup")["120030"] == "completed"


def test_a_late_tick_waits_for_what_catches_up_also_where_runs_may_overlap() -> None:
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", takes_s=1000.0, slots=1)
    world.advance(0.5)
    world.apply(job("hog", At(Utc("2026-11-22T12:00:01.000Z"))))
    ticks = [At(Utc(f"2026-11-22T12:00:{second}.000Z")) for second in ("05", "30")]
    fields: dict[str, Any] = {"recovery": Recovery.ALL, "pickup_buffer_s": 20.0}
    world.apply(job("backup", *ticks, overlap=Overlap.ALLOW, **fields))
    world.advance(10)
    agent.leave()
    world.advance(30)
    world.agent("a2", takes_s=5.0, slots=4)
    world.advance(60)
    (_, first_s), (_, second_s) = started(world)
    assert second_s >= first_s + 5.0


@pytest.mark.parametrize("back_s", [0.0, 3.0])
def test_a_bound_run_goes_by_its_mode_though_its_agent_is_back_after_the_leader(
    back_s: float,
) -> None:
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", takes_s=8.0, slots=1)
    world.advance(0.5)
    world.apply(job("other", At(Utc("2026-11-22T12:00:04.000Z"))))
    ticks = [At(Utc(f"2026-11-22T12:0{time}.000Z")) for time in ("0:05", "2:00")]
    fields: dict[str, Any] = {"recovery": Recovery.ALL, "pickup_buffer_s": 20.0}
    world.apply(job("backup", *ticks, per_host=True, **fields))
    world.advance(7)
    world.nodes["s1"].kill()
    agent.kill()
    world.advance(200)
    if not back_s:
        world.agent("a1")
    world.scheduler("s2")
    world.advance(back_s)
    if back_s:
        world.agent("a1")
    world.advance(60)
    assert list(world.states("backup").values()) == ["completed"] * 2


@pytest.mark.parametrize("mode", [Recovery.ALL, Recovery.LAST])
@pytest.mark.parametrize("per_host", [False, True])
@pytest.mark.parametrize("dies_after", DEATHS)
def test_it_goes_before_what_waited_for_a_lower_place_in_its_group(
    world: World, dies_after: int, per_host: bool, mode: Recovery
) -> None:
    world.apply(job("low", At(Utc("2026-11-22T12:01:00.000Z")), pickup_buffer_s=6000.0))
    fields: dict[str, Any] = {"pickup_buffer_s": 60.0, "recovery": mode, "per_host": per_host}
    world.apply(job("backup", At(Utc("2026-11-22T12:01:30.000Z")), **fields))
    world.group("g", "backup", "low")
    world.advance(100)
    assert (*world.states("low").values(), *world.states("backup").values()) == ("ready", "ready")
    world.nodes["s1"].kill()
    world.agents["a1"].kill()
    world.advance(120)
    world.agent("a1", slots=5, takes_s=4000.0)
    if dies_after:
        world.leader_dies_after = world.leader_writes + dies_after
    world.scheduler("s2", ttl_s=5)
    world.scheduler("s3", ttl_s=5)
    world.advance(30)
    assert list(world.states("backup").values()) == ["assigned"]
    assert list(world.states("low").values()) == ["conflicted"]
