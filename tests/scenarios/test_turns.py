"""Runs of one job that wait for each other, where more than one of them could begin at once."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from etcsched.core.records import ClusterSettings, Kind, Link, Retry
from etcsched.core.schedule import At
from etcsched.core.states import (
    HostsFor,
    JobState,
    Lifecycle,
    OnAgentLoss,
    Outcome,
    Overlap,
    RunState,
)
from etcsched.core.times import Utc
from etcsched.testing.world import World
from tests.support.jobs import job, resubmit, trigger

FIRST, SECOND, THIRD = (f"20261122T120005.000Z-0{number}" for number in (1, 2, 3))


def at(time: str) -> At:
    return At(Utc(f"2026-11-22T{time}.000Z"))


def started(**agent: Any) -> World:
    world = World()
    world.scheduler("s1")
    world.agent("a1", **agent)
    world.put(Kind.SETTINGS, ClusterSettings(resubmit_states=(RunState.COMPLETED,)))
    world.advance(0.5)
    return world


def spans(world: World, name: str = "backup") -> list[tuple[float, float]]:
    """Of its attempts, in seconds, by their begin."""
    found = [span for agent in world.agents.values() for span in agent.spans if span.job == name]
    return sorted((span.start_s, span.end_s or world.now_s) for span in found)


def assert_one_at_a_time(world: World, attempts: int) -> None:
    found = spans(world)
    assert len(found) == attempts
    for (_, end_s), (start_s, _) in pairwise(found):
        assert start_s >= end_s, found


def test_retries_of_two_requests() -> None:
    """The requests overlap, as they may; that their retries are due together is nobody's wish."""
    world = started(takes_s=1.0, ends_as=Outcome.FAILED)
    world.apply(job("backup", retry=Retry(max=3, interval_s=30.0)))
    world.request(trigger(FIRST))
    world.request(trigger(SECOND))
    world.advance(10)
    world.agents["a1"].takes_s, world.agents["a1"].ends_as = 20.0, Outcome.COMPLETED
    world.advance(35)
    assert sorted(world.states("backup").values()) == ["assigned", "retrying"]
    world.advance(40)
    assert set(world.states("backup").values()) == {"completed"}


def test_a_resubmission_beside_the_retry_of_a_request() -> None:
    world = started(takes_s=1.0)
    world.apply(job("backup", retry=Retry(max=3, interval_s=20.0), overlap=Overlap.QUEUE))
    world.request(trigger(FIRST))
    world.advance(5)
    agent = world.agents["a1"]
    agent.ends_as = Outcome.FAILED
    world.request(trigger(SECOND))
    world.advance(4)
    agent.ends_as, agent.takes_s = Outcome.COMPLETED, 60.0
    world.request(trigger(THIRD))
    world.advance(1)
    world.request(resubmit("20261122T120011.000Z-04", FIRST))
    world.advance(3)
    agent.takes_s = 20.0
    world.advance(100)
    assert_one_at_a_time(world, 5)


def moved_beside_a_retry(*ticks: At) -> World:
    """The first attempt of a tick, or else of a request, has failed; a resubmission began during
    the wait, and was moved off an agent that was lost. Nobody is there to take either."""
    world = started(takes_s=1.0)
    world.apply(job("backup", *ticks, retry=Retry(max=3, interval_s=30.0)))
    world.request(trigger(FIRST))
    world.advance(6)
    agent = world.agents["a1"]
    agent.ends_as = Outcome.FAILED
    if not ticks:
        world.request(trigger("20261122T120008.000Z-02"))
    world.advance(4)
    agent.ends_as, agent.takes_s = Outcome.COMPLETED, 1000.0
    world.request(resubmit("20261122T120011.000Z-04", FIRST))
    world.advance(2)
    agent.kill()
    world.advance(60)
    return world


def test_a_retry_and_a_run_that_was_moved() -> None:
    """Both wait for the next agent."""
    world = moved_beside_a_retry(at("12:00:08"))
    assert sorted(world.states("backup").values()) == ["completed", "ready", "retrying"]
    world.agent("a2", takes_s=20.0)
    world.advance(70)
    assert set(world.states("backup").values()) == {"completed"}
    assert_one_at_a_time(world, 5)


def test_a_retry_doesnt_wait_for_a_run_whose_agent_is_gone_for_good() -> None:
    world = started(takes_s=1000.0)
    world.agent("a2", takes_s=1.0, ends_as=Outcome.FAILED)
    fields: dict[str, Any] = {
        "hosts_for": HostsFor.SCHEDULED,
        "retry": Retry(max=3, interval_s=30.0),
    }
    world.apply(job("backup", at("12:00:05"), hosts=("a1",), max_reassigns=5, **fields))
    world.advance(7)
    world.agents["a1"].claims_nothing = True
    world.request(trigger("20261122T120007.000Z-01"))
    world.agents["a1"].kill()
    world.advance(35)
    world.agents["a2"].ends_as = Outcome.COMPLETED
    world.advance(60)
    assert world.states("backup")["120007.000Z-01"] == "completed"


def test_a_resubmission_beside_a_run_on_each_agent() -> None:
    """What isn't bound to an agent waits for those that are, also while they are just begun."""
    world = started(takes_s=1.0)
    ticks = (at("12:00:05"), at("12:00:10"))
    world.apply(job("backup", *ticks, overlap=Overlap.QUEUE, per_host=True))
    world.advance(0.5)
    world.request(trigger(FIRST))
    world.advance(3)
    world.agents["a1"].takes_s = 20.0
    world.advance(8)
    world.request(resubmit("20261122T120012.000Z-03", FIRST))
    world.advance(103)
    assert_one_at_a_time(world, 4)


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE, Overlap.REPLACE])
def test_ticks_that_wait_as_their_job_may_overlap_no_more(overlap: Overlap) -> None:
    world = started(takes_s=30.0, slots=1)
    ticks = (at("12:00:05"), at("12:00:10"))
    world.apply(job("filler", at("12:00:02")))
    world.apply(job("backup", *ticks, overlap=Overlap.ALLOW, pickup_buffer_s=600.0))
    world.advance(15)
    world.apply(job("backup", *ticks, overlap=overlap, pickup_buffer_s=600.0))
    world.agent("a2", takes_s=30.0, slots=4)
    world.advance(100)
    assert_one_at_a_time(world, 2)


def test_a_chain_active_job_still_takes_turns() -> None:
    """Two that are chained at one instant: the second queues."""
    world = started(takes_s=1.0)
    world.apply(job("backup", state=JobState.CHAIN_ACTIVE))
    for name in ("one", "two"):
        world.apply(job(name, at("12:00:05"), chain=(Link(to="backup"),)))
    world.advance(20)
    assert_one_at_a_time(world, 2)


def test_a_moved_run_waits_for_the_retry_of_a_request_that_has_begun() -> None:
    world = moved_beside_a_retry()
    world.agent("a2", takes_s=20.0, slots=1)
    world.advance(5)
    world.agent("a3", takes_s=20.0, slots=1)
    world.advance(70)
    assert_one_at_a_time(world, 5)


def test_the_retry_of_a_request_takes_turns_also_once_it_was_moved() -> None:
    world = started(takes_s=10.0, ends_as=Outcome.FAILED)
    world.apply(job("backup", retry=Retry(max=3, interval_s=20.0), max_reassigns=3))
    world.request(trigger(FIRST))
    world.advance(2)
    world.agents["a1"].takes_s = 1.0
    world.request(trigger("20261122T120007.000Z-02"))
    world.advance(10)
    world.agents["a1"].takes_s = 1000.0
    world.advance(25)
    world.agents["a1"].kill()
    world.advance(60)
    world.agent("a2", takes_s=20.0, slots=1)
    world.advance(5)
    world.agent("a3", takes_s=20.0, slots=1)
    world.advance(70)
    (_, before_s), (begun_s, _) = spans(world)[-2:]
    assert begun_s >= before_s


# --- runs that are bound to an agent, of a job whose ticks aren't


def startup_job(**fields: Any) -> World:
    """Its startup on a1 has failed at 12:00:03, and its tick runs from 12:00:30 to 12:01:30."""
    world = World()
    world.scheduler("s1")
    world.advance(0.5)
    world.apply(job("backup", at("12:00:30"), lifecycle=Lifecycle.HOST_STARTUP, **fields))
    world.advance(1)
    agent = world.agent("a1", ends_as=Outcome.FAILED, takes_s=2.0)
    world.advance(10)
    agent.ends_as, agent.takes_s = Outcome.COMPLETED, 60.0
    return world


def test_a_tick_ends_the_retry_of_a_startup() -> None:
    world = startup_job(retry=Retry(max=1, interval_s=40.0))
    world.advance(125)
    assert len(spans(world)) == 2


def test_a_startup_is_resubmitted_while_a_tick_runs() -> None:
    world = startup_job()
    world.advance(25)
    (failed,) = (run for run in world.runs("backup") if "up" in run)
    states = (RunState.FAILED,)
    world.put(Kind.SETTINGS, ClusterSettings(resubmit_states=states))
    world.request(resubmit("20261122T120040.000Z-r", failed))
    world.advance(160)
    assert_one_at_a_time(world, 3)


def test_a_tick_ends_a_retry_of_when_its_job_ran_on_each_agent() -> None:
    world = started(takes_s=20.0)
    ticks, retry = (at("12:00:10"), at("12:00:50")), Retry(max=1, interval_s=60.0)
    world.apply(job("backup", *ticks, per_host=True, retry=retry))
    world.advance(15)
    agent = world.agents["a1"]
    agent.ends_as = Outcome.FAILED
    world.advance(20)
    agent.ends_as, agent.takes_s = Outcome.COMPLETED, 60.0
    world.apply(job("backup", *ticks, retry=retry))
    world.advance(170)
    assert len(spans(world)) == 2


def test_a_retry_doesnt_begin_beside_a_request_that_begins_with_it() -> None:
    """Both waited for the conflict group; the request goes first, since its priority is higher."""
    world = started(takes_s=1.0, ends_as=Outcome.FAILED)
    retry = Retry(max=1, interval_s=10.0)
    world.apply(job("backup", retry=retry))
    world.apply(job("other", at("12:00:09")))
    world.group("group", "backup", "other")
    world.request(trigger(FIRST))
    world.advance(5)
    agent = world.agents["a1"]
    agent.takes_s, agent.ends_as = 30.0, Outcome.COMPLETED
    world.advance(10)
    world.apply(job("backup", retry=retry, priority=1))
    world.request(trigger("20261122T120015.000Z-02"))
    world.advance(5)
    assert sorted(world.states("backup").values()) == ["conflicted", "retrying"]
    world.advance(120)
    assert_one_at_a_time(world, 3)


def test_a_run_that_waits_behind_a_retry_can_still_end_with_its_agent() -> None:
    """It had lost an attempt before: then it ends as that did."""
    world = World()
    world.scheduler("s1")
    a2 = world.agent("a2", takes_s=100.0, slots=1)
    world.advance(0.5)
    retry = Retry(max=3, interval_s=15.0)
    world.apply(job("backup", at("12:00:01"), per_host=True, hosts=("a1",), retry=retry))
    world.apply(job("filler", at("12:00:20"), hosts=("a1",), priority=50, pickup_buffer_s=600.0))
    a1 = world.agent("a1", takes_s=2.0, slots=1, ends_as=Outcome.FAILED)
    world.advance(4)
    a1.takes_s, a1.ends_as = 30.0, Outcome.DIED
    world.advance(16)
    world.apply(job("backup", hosts=("a1", "a2"), retry=retry, recover_within_s=30.0))
    a2.takes_s, a2.ends_as = 18.0, Outcome.FAILED
    world.request(trigger("20261122T120020-t"))
    world.advance(22)
    a2.takes_s = 1000.0
    world.advance(40)
    assert "queued" in world.states("backup").values()
    world.drain("a1")
    world.advance(2)
    a1.kill()
    world.advance(60)
    assert "died" in world.states("backup").values()


@pytest.mark.parametrize("order", range(20))
@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE])
def test_a_tick_beside_the_fan_out_of_when_its_job_ran_on_each_agent(
    order: int, overlap: Overlap
) -> None:
    """The leader died once it was written; the bound run is made while the tick's run is."""
    world = World(chance=random.Random(order))
    world.scheduler("s1")
    world.agent("a1", takes_s=20.0, slots=4)
    world.advance(0.5)
    ticks = (at("12:00:05"), at("12:00:08"))
    world.apply(job("backup", *ticks, per_host=True, overlap=overlap))
    world.advance(4)

    def last_write() -> None:
        world.leader_dies_after = world.leader_writes + 1

    world.at(4.95, last_write)
    world.advance(1)
    world.apply(job("backup", *ticks, overlap=overlap))
    world.advance(6)
    world.leader_dies_after = None
    world.scheduler("s2")
    world.advance(100)
    assert_one_at_a_time(world, 2)


def test_ticks_dont_wait_for_one_that_is_queued_for_an_agent_that_is_gone() -> None:
    """Its job ran on each agent, and doesn't any more."""
    world = started(takes_s=1000.0)
    world.agent("a2", takes_s=1.0, slots=4)
    fields: dict[str, Any] = {"on_agent_loss": OnAgentLoss.DIED}
    world.apply(
        job("backup", every_s=10, hosts=("a1",), per_host=True, overlap=Overlap.QUEUE, **fields)
    )
    world.advance(22)
    world.agents["a1"].kill()
    world.apply(job("backup", every_s=10, overlap=Overlap.SKIP))
    world.advance(600)
    assert list(world.states("backup").values()).count("completed") > 55
