"""Conflict groups, told as stories in virtual time."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import Matter
from etcsched.core.leader.waiting_runs import WaitingRuns
from etcsched.core.records import Kind, Link, Retry, Run, Window
from etcsched.core.schedule import At
from etcsched.core.states import (
    JobState,
    OnAgentLoss,
    OnDisconnect,
    Origin,
    Outcome,
    Overlap,
    Recovery,
    RunState,
)
from etcsched.core.times import Utc
from etcsched.core.view import Entry, RunKey
from etcsched.testing.world import World
from tests.support.jobs import job, trigger

NOON_5 = At(Utc("2026-11-22T12:00:05.000Z"))
TICK = "120005"


@pytest.fixture
def world() -> World:
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=10.0)
    world.advance(0.5)
    return world


def spans(world: World, name: str) -> list[tuple[float, float]]:
    """When runs of the job had a process, wherever; the end of one that runs is now."""
    found = [
        (span.start_s, span.end_s if span.end_s is not None else world.now_s)
        for agent in world.agents.values()
        for span in agent.spans
        if span.job == name
    ]
    return sorted(found)


def assert_apart(world: World, *names: str) -> None:
    for one, other in combinations(names, 2):
        for start, end in spans(world, one):
            for start2, end2 in spans(world, other):
                assert end <= start2 or end2 <= start, (one, other)


def order(world: World, *names: str) -> list[str]:
    begun = [(start, name) for name in names for start, _ in spans(world, name)]
    return [name for _, name in sorted(begun)]


# --- exclusion and order


def test_due_at_once_they_run_one_after_the_other_by_place(world: World) -> None:
    for name in "abc":
        world.apply(job(name, NOON_5))
    world.group("ledger", "c", "a", "b")
    world.advance(6)
    assert [world.states(name)[TICK] for name in "cab"] == ["assigned", "conflicted", "conflicted"]
    world.advance(40)
    assert order(world, *"abc") == ["c", "a", "b"]
    assert_apart(world, *"abc")
    assert [world.states(name)[TICK] for name in "abc"] == ["completed"] * 3


@pytest.mark.parametrize("dies_after", [None, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(8))
def test_one_above_that_runs_on_each_agent_goes_first(seed: int, dies_after: int | None) -> None:
    """Its tick is decided at once, and its runs are made one by one after that: also then nobody
    below gets in between."""
    world = World(chance=random.Random(seed))
    for name in ("s1", "s2"):
        world.scheduler(name)
    for name in ("a1", "a2"):
        world.agent(name, takes_s=2.0)
    world.advance(0.5)
    world.apply(job("high", NOON_5, per_host=True))
    world.apply(job("low", NOON_5))
    world.group("ledger", "high", "low")
    world.advance(4)
    if dies_after is not None:
        world.leader_dies_after = world.leader_writes + dies_after
    world.advance(40)
    *first, last = order(world, "high", "low")
    assert set(first) == {"high"}
    assert last == "low"
    assert_apart(world, "high", "low")


def test_the_group_is_held_on_any_host(world: World) -> None:
    world.agent("a2", takes_s=10.0)
    world.apply(job("a", NOON_5, hosts=("a1",)))
    world.apply(job("b", NOON_5, hosts=("a2",)))
    world.group("ledger", "a", "b")
    world.advance(40)
    assert order(world, "a", "b") == ["a", "b"]
    assert_apart(world, "a", "b")


def test_nothing_is_preempted(world: World) -> None:
    world.apply(job("low", NOON_5))
    world.apply(job("high", At(Utc("2026-11-22T12:00:07.000Z"))))
    world.group("ledger", "high", "low")
    world.advance(40)
    assert order(world, "low", "high") == ["low", "high"]
    assert_apart(world, "low", "high")


def test_the_highest_of_the_blocked_goes_first_however_late_it_came(world: World) -> None:
    world.apply(job("holder", NOON_5))
    world.apply(job("low", At(Utc("2026-11-22T12:00:06.000Z"))))
    world.apply(job("high", At(Utc("2026-11-22T12:00:12.000Z"))))
    world.group("ledger", "high", "low", "holder")
    world.advance(60)
    assert order(world, "holder", "low", "high") == ["holder", "high", "low"]


def test_who_has_no_agent_doesnt_block_those_below(world: World) -> None:
    world.apply(job("high", NOON_5, require={"role": "erp"}))
    world.apply(job("low", NOON_5))
    world.group("ledger", "high", "low")
    world.advance(20)
    assert spans(world, "high") == []
    assert world.states("low")[TICK] == "completed"


def test_who_finds_every_agent_full_doesnt_block_those_below(world: World) -> None:
    world.agent("a2", slots=1, takes_s=60.0, labels={"role": "erp"})
    world.apply(job("filler", At(Utc("2026-11-22T12:00:02.000Z")), hosts=("a2",)))
    world.apply(job("high", NOON_5, hosts=("a2",)))
    world.apply(job("low", NOON_5, hosts=("a1",)))
    world.group("ledger", "high", "low")
    world.advance(20)
    assert world.states("low")[TICK] == "completed"
    assert world.states("high")[TICK] == "ready"


def test_several_groups_of_a_job(world: World) -> None:
    for name in "abc":
        world.apply(job(name, NOON_5))
    world.group("one", "a", "b")
    world.group("two", "b", "c")
    world.advance(6)
    assert [world.states(name)[TICK] for name in "abc"] == ["assigned", "conflicted", "assigned"]
    world.advance(30)
    assert_apart(world, "a", "b")
    assert_apart(world, "b", "c")
    assert world.states("b")[TICK] == "completed"


def test_contradicting_orders_still_exclude(world: World) -> None:
    for name in "ab":
        world.apply(job(name, NOON_5))
    world.group("one", "a", "b")
    world.group("two", "b", "a")
    world.advance(40)
    assert order(world, "a", "b") == ["a", "b"]
    assert_apart(world, "a", "b")


def test_a_jobs_own_runs_are_its_overlaps_matter(world: World) -> None:
    world.apply(job("a", NOON_5, At(Utc("2026-11-22T12:00:07.000Z")), overlap=Overlap.ALLOW))
    world.apply(job("b", state=JobState.AD_HOC_ACTIVE))
    world.group("ledger", "a", "b")
    world.advance(8)
    assert len(spans(world, "a")) == 2


def test_a_job_that_overlaps_itself_lets_go_for_one_above(world: World) -> None:
    world.apply(job("low", every_s=4, overlap=Overlap.ALLOW, pickup_buffer_s=600.0))
    world.apply(job("high", At(Utc("2026-11-22T12:00:21.000Z"))))
    world.group("ledger", "high", "low")
    world.advance(60)
    assert world.states("high")["120021"] == "completed"
    assert_apart(world, "high", "low")
    assert len(spans(world, "low")) > 8


def test_requests_wait_their_turn(world: World) -> None:
    world.apply(job("a", state=JobState.AD_HOC_ACTIVE))
    world.apply(job("b", NOON_5))
    world.group("ledger", "b", "a")
    world.advance(6)
    world.request(trigger("20261122T120006Z-r1", "a"))
    world.advance(0.5)
    answer = world.answer("20261122T120006Z-r1")
    assert answer is not None
    assert answer.message == "waits: b/20261122T120005Z on a1 holds ledger"
    world.advance(30)
    assert_apart(world, "a", "b")
    assert list(world.states("a").values()) == ["completed"]


def test_a_request_is_told_what_it_waits_for_in_a_free_group(world: World) -> None:
    world.apply(job("a", state=JobState.AD_HOC_ACTIVE))
    world.apply(job("b", NOON_5))
    world.group("ledger", "b", "a")
    world.request(trigger("20261122T120001Z-r1", "a"))
    world.advance(1)
    world.drain("a1")
    world.advance(10)
    world.request(trigger("20261122T120010Z-r2", "a"))
    world.advance(1)
    asked = ("20261122T120001Z-r1", "20261122T120010Z-r2")
    assert [told.message for request in asked if (told := world.answer(request)) is not None] == [
        "starts now, unless another of its conflict groups goes first",
        "waits: no agent may run it: a1 is drained",
    ]


# --- release


def test_a_wait_for_retry_releases_the_group_and_the_retry_waits_for_it(world: World) -> None:
    retry = Retry(max=1, interval_s=15.0)
    world.agent("a2", takes_s=3.0, ends_as=Outcome.FAILED)
    world.apply(job("flaky", NOON_5, retry=retry, hosts=("a2",)))
    world.apply(job("other", NOON_5, hosts=("a1",)))
    world.agents["a1"].takes_s = 30.0
    world.group("ledger", "flaky", "other")
    world.advance(12)
    assert world.states("other")[TICK] == "assigned"
    world.advance(15)
    assert world.states("flaky")[TICK] == "retrying"
    world.advance(40)
    assert world.states("flaky")[TICK] == "failed"
    assert len(spans(world, "flaky")) == 2
    assert_apart(world, "flaky", "other")


def test_a_lost_attempt_holds_the_group_until_its_agent_is_surely_gone(world: World) -> None:
    world.apply(job("a", NOON_5))
    world.apply(job("b", NOON_5))
    world.group("ledger", "a", "b")
    world.advance(6)
    world.agents["a1"].kill()
    world.agent("a2", takes_s=1.0)
    world.advance(40)
    # The run that moves never let go.
    assert order(world, "a", "b") == ["a", "a", "b"]
    assert world.states("b")[TICK] == "completed"


@pytest.mark.parametrize(
    ("on_disconnect", "state"),
    [(OnDisconnect.STOP, "completed"), (OnDisconnect.CONTINUE, "conflicted")],
)
def test_a_hold_releases_the_group_unless_its_copy_may_run_on(
    world: World, on_disconnect: OnDisconnect, state: str
) -> None:
    held: dict[str, Any] = {"on_agent_loss": OnAgentLoss.HOLD, "on_disconnect": on_disconnect}
    world.apply(job("a", NOON_5, **held))
    world.apply(job("b", NOON_5))
    world.group("ledger", "a", "b")
    world.advance(6)
    world.agents["a1"].kill()
    world.agent("a2", takes_s=1.0)
    world.advance(40)
    assert (world.states("a")[TICK], world.states("b")[TICK]) == ("held", state)


def test_a_cancelled_blocked_run_leaves(world: World) -> None:
    world.apply(job("a", NOON_5))
    world.apply(job("b", NOON_5))
    world.group("ledger", "a", "b")
    world.advance(6)
    world.set_state("b", JobState.DISABLED)
    world.advance(1)
    assert world.states("b")[TICK] == "cancelled"


# --- buffers and recovery


def test_a_blocked_run_past_its_buffer_is_conflict_missed(world: World) -> None:
    world.agents["a1"].takes_s = 60.0
    world.apply(job("a", NOON_5))
    world.apply(job("b", NOON_5, pickup_buffer_s=20.0))
    world.group("ledger", "a", "b")
    world.advance(24)
    assert world.states("b")[TICK] == "conflicted"
    world.advance(2)
    (run,) = world.runs("b").values()
    assert run.state.value == "conflict_missed"
    assert run.history[-1].cause == (
        "a/20261122T120005Z on a1 holds ledger, as its pickup buffer of 20 s was over"
    )


def test_recovery_conflicted_runs_however_late(world: World) -> None:
    world.agents["a1"].takes_s = 600.0
    world.apply(job("a", NOON_5))
    world.apply(job("b", NOON_5, pickup_buffer_s=20.0, recovery=Recovery.CONFLICTED))
    world.group("ledger", "a", "b")
    world.advance(1500)
    assert world.states("b")[TICK] == "completed"
    assert_apart(world, "a", "b")


def test_recovery_conflicted_survives_a_leader_and_waits_for_a_slot(world: World) -> None:
    world.agents["a1"].takes_s = 100.0
    world.apply(job("a", NOON_5))
    world.apply(job("b", NOON_5, pickup_buffer_s=20.0, recovery=Recovery.CONFLICTED))
    world.group("ledger", "a", "b")
    world.advance(30)
    world.leader().kill()
    world.scheduler("s2")
    world.advance(200)
    assert world.states("b")[TICK] == "completed"


def test_recovery_conflicted_waits_on_where_the_conflict_clears_without_a_slot(
    world: World,
) -> None:
    world.agents["a1"].takes_s = 40.0
    world.agent("a2", slots=1, takes_s=80.0)
    world.apply(job("filler", At(Utc("2026-11-22T12:00:06.000Z")), hosts=("a2",)))
    world.apply(job("a", At(Utc("2026-11-22T12:00:04.000Z")), hosts=("a1",)))
    only: dict[str, Any] = {
        "hosts": ("a2",),
        "recovery": Recovery.CONFLICTED,
        "pickup_buffer_s": 20.0,
    }
    world.apply(job("b", NOON_5, **only))
    world.group("ledger", "a", "b")
    world.advance(70)
    assert world.states("b")[TICK] == "conflicted"
    world.advance(120)
    assert world.states("b")[TICK] == "completed"


def test_recovery_conflicted_is_none_for_outages() -> None:
    world = World()
    world.agent("a1", takes_s=1.0)
    world.apply(job("b", NOON_5, recovery=Recovery.CONFLICTED))
    world.advance(300)
    world.scheduler("s1")
    world.advance(30)
    assert world.states("b")[TICK] == "missed"


@pytest.mark.parametrize(
    ("recovery", "state"), [(Recovery.ALL, "completed"), (Recovery.NONE, "missed")]
)
def test_a_blocked_run_whose_buffer_ends_while_nobody_leads(
    world: World, recovery: Recovery, state: str
) -> None:
    world.agents["a1"].takes_s = 25.0
    world.apply(job("a", NOON_5))
    world.apply(job("b", NOON_5, pickup_buffer_s=30.0, recovery=recovery))
    world.group("ledger", "a", "b")
    world.advance(10)
    assert world.states("b")[TICK] == "conflicted"
    world.leader().kill()
    world.advance(60)
    world.scheduler("s2")
    world.advance(60)
    assert world.states("b")[TICK] == state


def test_a_blocked_run_whose_conflict_clears_without_a_slot_is_ready(world: World) -> None:
    world.agent("a2", slots=1, takes_s=12.0)
    world.apply(job("b", NOON_5, hosts=("a2",)))
    world.apply(job("filler", At(Utc("2026-11-22T12:00:06.000Z")), hosts=("a2",)))
    world.apply(job("a", At(Utc("2026-11-22T12:00:04.000Z")), hosts=("a1",)))
    world.group("ledger", "a", "b")
    world.advance(15)
    assert world.states("b")[TICK] == "ready"
    world.advance(20)
    assert world.states("b")[TICK] == "completed"


# --- edits of groups


def test_a_group_put_while_both_run_stops_neither_and_counts_both(world: World) -> None:
    for name in "abc":
        world.apply(job(name, NOON_5 if name != "c" else At(Utc("2026-11-22T12:00:08.000Z"))))
    world.advance(6)
    assert [world.states(name)[TICK] for name in "ab"] == ["assigned", "assigned"]
    world.group("ledger", "a", "b", "c")
    world.advance(3)
    assert world.states("c")["120008"] == "conflicted"
    world.advance(30)
    assert [world.states(name)[TICK] for name in "ab"] == ["completed", "completed"]
    assert_apart(world, "a", "c")
    assert_apart(world, "b", "c")


def test_what_was_assigned_before_and_isnt_claimed_goes_by_the_new_group(world: World) -> None:
    world.agents["a1"].claims_nothing = True
    world.agent("a2", takes_s=10.0)
    world.apply(job("b", NOON_5, hosts=("a2",)))
    world.apply(job("a", NOON_5, hosts=("a1",)))
    world.advance(6)
    assert [world.states(name)[TICK] for name in "ab"] == ["assigned", "assigned"]
    world.group("ledger", "a", "b")
    world.agents["a1"].claims_nothing = False
    world.advance(0.5)
    assert world.states("a")[TICK] == "conflicted"
    world.advance(30)
    assert_apart(world, "a", "b")
    assert world.states("a")[TICK] == "completed"


def test_a_plan_made_without_the_group_is_refused(world: World) -> None:
    """The leader decides ``a`` in the very instant in which the group comes."""
    world.apply(job("b", NOON_5))
    world.apply(job("a", At(Utc("2026-11-22T12:00:08.000Z"))))
    world.advance(7)
    world.at(8.0, lambda: world.group("ledger", "a", "b"))
    world.advance(30)
    assert_apart(world, "a", "b")


def test_a_deleted_group_lets_the_blocked_go(world: World) -> None:
    world.apply(job("a", NOON_5))
    world.apply(job("b", NOON_5))
    world.group("ledger", "a", "b")
    world.advance(6)
    world.remove(Kind.CONFLICT, "ledger")
    world.advance(0.5)
    assert world.states("b")[TICK] == "assigned"


# --- leaders


@pytest.mark.parametrize("dies_after", range(1, 24))
def test_a_leader_that_dies_after_any_write(dies_after: int) -> None:
    world = World(chance=random.Random(dies_after))
    world.leader_dies_after = dies_after
    for name in ("s1", "s2"):
        world.scheduler(name)
    for name in ("a1", "a2"):
        world.agent(name, takes_s=4.0)
    names = "abcd"
    for name in names:
        world.apply(job(name, NOON_5, At(Utc("2026-11-22T12:00:20.000Z")), overlap=Overlap.QUEUE))
    world.group("one", "a", "b", "c")
    world.group("two", "c", "d")
    world.advance(150)
    assert_apart(world, "a", "b", "c")
    assert_apart(world, "c", "d")
    for name in names:
        assert set(world.states(name).values()) == {"completed"}, name


def test_who_is_paused_holds_up_nobody_below_it(world: World) -> None:
    world.agents["a1"].takes_s = 100.0
    high = At(Utc("2026-11-22T12:01:05.000Z"))
    world.apply(job("high", high, recovery=Recovery.CONFLICTED))
    world.apply(job("low", every_s=60, overlap=Overlap.ALLOW, pickup_buffer_s=50.0))
    world.group("g", "high", "low")
    world.advance(69)
    world.pause("high")
    world.advance(600)
    assert set(world.states("low").values()) == {"completed", "assigned"}
    world.resume("high")
    world.advance(300)
    assert world.states("high") == {"120105": "completed"}


def test_recovery_conflicted_waits_for_its_group_though_it_was_paused() -> None:
    """It had no slot, and was paused; as its buffer ends its rival runs."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", slots=1, takes_s=300.0)
    world.advance(0.5)
    world.apply(job("hog", NOON_5))
    low = At(Utc("2026-11-22T12:00:10.000Z"))
    world.apply(job("low", low, recovery=Recovery.CONFLICTED, pickup_buffer_s=60.0))
    world.apply(job("high"))
    world.group("g", "high", "low")
    world.advance(20)
    world.pause("low")
    world.apply(job("high", At(Utc("2026-11-22T12:00:30.000Z")), priority=5))
    world.advance(15)
    world.agent("a2", takes_s=200.0)
    world.advance(60)
    assert world.states("low") == {"120010": "conflicted"}
    world.resume("low")
    world.advance(600)
    assert world.states("low") == {"120010": "completed"}


def test_one_of_a_jobs_runs_whose_own_agent_is_full_doesnt_speak_for_the_others() -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=1000.0, slots=1)
    world.agent("a2", takes_s=10.0, slots=4)
    world.advance(0.5)
    early, due = At(Utc("2026-11-22T12:00:03.000Z")), At(Utc("2026-11-22T12:00:05.000Z"))
    world.apply(job("filler", early, hosts=("a1",)))
    world.apply(job("holder", early, hosts=("a2",)))
    world.apply(job("z-above", due, per_host=True, pickup_buffer_s=600.0))
    world.apply(job("a-below", due, hosts=("a2",), pickup_buffer_s=600.0))
    world.group("g", "holder", "z-above", "a-below")
    world.advance(15)
    assert world.states("z-above")["120005Z@a2"] == "assigned"
    assert world.states("a-below") == {"120005": "conflicted"}


def test_one_that_lets_another_go_first_asks_who_comes_before_that(world: World) -> None:
    """c is offered first, and b goes before it; but a, whose runs are just being made, before b."""
    world.agent("a2", takes_s=10.0)
    world.apply(job("a", NOON_5, per_host=True))
    world.apply(job("b", NOON_5))
    world.apply(job("c", NOON_5, priority=9))
    world.group("one", "a", "b")
    world.group("two", "b", "c")
    world.advance(60)
    assert order(world, "a", "b")[0] == "a"


def test_what_a_pause_kept_is_not_said_to_be_a_conflicts_fault(world: World) -> None:
    world.apply(job("a", NOON_5))
    world.apply(job("b", NOON_5, pickup_buffer_s=30.0))
    world.group("ledger", "a", "b")
    world.advance(7)
    world.pause("b")
    world.advance(60)
    (run,) = world.runs("b").values()
    assert run.state is RunState.ABANDONED
    assert "the job was paused" in run.history[-1].cause


@pytest.mark.parametrize("seed", range(12))
def test_one_below_waits_as_long_as_one_above_it_does(seed: int) -> None:
    """mid lets x go first, whose run is just being made, though no agent will ever take it."""
    world = World(chance=random.Random(seed))
    world.scheduler("s1")
    world.agent("a1", slots=100, takes_s=20.0)
    world.advance(0.5)
    world.apply(job("x", NOON_5, hosts=("elsewhere",)))
    world.apply(job("mid", NOON_5))
    world.apply(job("low", NOON_5))
    world.group("one", "x", "mid")
    world.group("two", "mid", "low")
    world.advance(15)
    assert list(world.states("mid").values()) == ["assigned"]


@pytest.mark.parametrize("waits", ["for its group", "for its window"])
def test_what_waits_for_long_is_woken_once(
    world: World, monkeypatch: pytest.MonkeyPatch, waits: str
) -> None:
    """However often it is looked at meanwhile."""
    windows: tuple[Window, ...] = ()
    if waits == "for its window":
        since, until = Utc("2026-11-22T18:00:00.000Z"), Utc("2026-11-22T19:00:00.000Z")
        windows = (Window(since=since, until=until, state=JobState.DISABLED),)
    woken: Counter[str] = Counter()
    wake_at = Context.wake_at

    def count(context: Context, mono_s: float, matter: Matter) -> None:
        woken[matter[-1]] += matter[:2] == ("run", "backup")
        wake_at(context, mono_s, matter)

    monkeypatch.setattr(Context, "wake_at", count)
    world.agents["a1"].takes_s = 1000.0
    world.apply(job("rival", At(Utc("2026-11-22T12:00:02.000Z"))))
    world.advance(5)
    fields: dict[str, Any] = {"overlap": Overlap.ALLOW, "pickup_buffer_s": 36_000.0}
    world.apply(job("backup", every_s=1, windows=windows, **fields))
    world.group("g", "rival", "backup")
    world.advance(60)
    assert set(world.states("backup").values()) == {"conflicted"}
    assert max(woken.values()) <= 2, woken


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the leader has looked at waiting runs, by job."""
    looks: Counter[str] = Counter()
    decide = WaitingRuns.decide

    def count(waiting: WaitingRuns, key: RunKey, entry: Entry[Run]) -> None:
        looks[key[0]] += 1
        decide(waiting, key, entry)

    monkeypatch.setattr(WaitingRuns, "decide", count)
    return looks


def test_what_is_blocked_is_left_alone_while_its_group_is_held(
    world: World, looked_at: Counter[str]
) -> None:
    """Ticks of the job that holds it come and go meanwhile."""
    world.agents["a1"].takes_s = 95.0
    world.apply(job("high", every_s=5))
    world.apply(job("low", overlap=Overlap.ALLOW, pickup_buffer_s=600.0))
    world.group("ledger", "high", "low")
    world.advance(6)
    for number in range(40):
        world.request(trigger(f"20261122T120006.{number:03d}Z-aa", "low"))
    world.advance(2)
    assert set(world.states("low").values()) == {"conflicted"}
    looked_at.clear()
    world.advance(60)
    assert looked_at["low"] == 0
    world.advance(40)
    assert list(world.states("low").values()).count("assigned") == 4


def test_of_many_that_are_blocked_the_first_is_looked_at_as_their_group_is_free(
    world: World, looked_at: Counter[str]
) -> None:
    """Each in its turn, by priority, though of as many jobs as there are."""
    names = [f"j{number:02d}" for number in range(40)]
    for name in names:
        world.apply(job(name, NOON_5, pickup_buffer_s=3600.0, priority=int(name[1:]) % 7))
    world.group("ledger", *names)
    world.advance(8)
    world.agents["a1"].takes_s = 1.0
    looked_at.clear()
    world.advance(60)
    assert order(world, *names) == names
    assert sum(looked_at.values()) < 40 * 41  # At most one look a job each time it is free.


def test_so_is_only_who_catches_up_first_where_runs_may_overlap(
    world: World, looked_at: Counter[str]
) -> None:
    world.agents["a1"].takes_s = 5.0
    world.apply(
        job("backup", every_s=2, overlap=Overlap.ALLOW, recovery=Recovery.ALL, pickup_buffer_s=0.5)
    )
    world.agents["a1"].kill()
    world.advance(102)
    world.agent("a1", takes_s=5.0)
    world.advance(2)
    looked_at.clear()
    world.advance(60)
    caught_up = [run for run in world.runs("backup").values() if run.origin is Origin.RECOVERY]
    assert len([run for run in caught_up if run.state is RunState.COMPLETED]) > 10
    assert looked_at["backup"] < 300


def test_what_an_outage_took_of_a_higher_place_goes_before_what_waited_lower(world: World) -> None:
    """As the agent comes, one has a run that waits, the other a tick in its open gap."""
    agent = world.agents["a1"]
    agent.takes_s = 1000.0
    ticks = {"hog": "12:00:05", "low": "12:01:00", "high": "12:02:00"}
    for name, time in ticks.items():
        tick = At(Utc(f"2026-11-22T{time}.000Z"))
        fields: dict[str, Any] = {"pickup_buffer_s": 600.0, "on_agent_loss": OnAgentLoss.DIED}
        world.apply(job(name, tick, hosts=("a2",) if name == "hog" else (), **fields))
    world.group("g", "high", "low")
    world.drain("a1")
    world.agent("a2", takes_s=1000.0, slots=1)
    world.advance(70)
    assert world.states("low") == {"120100": "ready"}
    world.agents["a2"].kill()
    world.advance(60)
    assert world.states("high") == {}
    world.undrain("a1")
    world.advance(2)
    assert world.states("high") == {"120200": "assigned"}
    assert world.states("low") == {"120100": "conflicted"}


def test_the_next_goes_where_the_first_of_those_blocked_has_ended(world: World) -> None:
    """A retry, say: what frees the group begins its job's next run, which ends it. What was asked
    for goes all the same before a run of lower place."""
    agent = world.agents["a1"]
    agent.takes_s, agent.ends_as = 1.0, Outcome.FAILED
    world.group("g", "high", "low")
    world.apply(job("high", NOON_5, retry=Retry(max=1, interval_s=5.0)))
    times = [At(Utc(f"2026-11-22T12:00:{second}.000Z")) for second in ("08", "12")]
    chain = (Link(to="high"),)
    world.apply(job("low", *times, overlap=Overlap.QUEUE, chain=chain))
    world.advance(6)
    agent.takes_s, agent.ends_as = 10.0, Outcome.COMPLETED
    world.advance(8)
    world.request(trigger("r1", "high"))
    world.advance(30)
    assert [start for start, _ in spans(world, "high")][:2] == [5.0, 18.0]
    assert spans(world, "low")[1][0] >= 28.0
