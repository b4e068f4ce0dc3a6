"""Which agent gets the next run, by placement policy and preference."""

from __future__ import annotations

import pytest

from etcsched.core.leader.placement import (
    Tried,
    rank_of,
    requirement_of,
    requirement_of_run,
    tried_by,
)
from etcsched.core.leader.pool import LoadedPool, Member, Pool, RingPool, pool_of
from etcsched.core.leader.runs import Author, new_run
from etcsched.core.records import Attempt, Presence
from etcsched.core.states import HostsFor, Origin, Outcome, Placement, RunState
from tests.support.jobs import NOON, job


class Agents:
    """Their loads, and the pool that is told of every change."""

    def __init__(self, kind: type[Pool], **slots: int | tuple[int, int]) -> None:
        self.used = dict.fromkeys(slots, 0)
        members = {
            name: Member(*said) if isinstance(said, tuple) else Member(said)
            for name, said in slots.items()
        }
        self.pool = kind(members, lambda agent: self.used[agent])

    def change(self, agent: str, by: int) -> None:
        self.used[agent] += by
        self.pool.load_changed(agent)

    def fill(self, after: str | None = None) -> str:
        """The agents in the order in which they are chosen, until all are full."""
        chosen = ""
        while (agent := self.pool.choose(after=after)) is not None:
            chosen += agent
            self.change(agent, 1)
            after = agent
        return chosen


def test_the_least_loaded_first_then_the_larger_then_by_name() -> None:
    agents = Agents(LoadedPool, a=2, b=4, c=4)
    assert agents.fill() == "bcabcbcabc"
    agents.change("a", -1)
    assert agents.pool.choose() == "a"


def test_a_better_rank_first_while_it_has_a_free_slot() -> None:
    agents = Agents(LoadedPool, a=(2, 1), b=(1, 0), c=(2, 1))
    assert agents.fill() == "bacac"
    agents.change("b", -1)
    agents.change("a", -1)
    assert agents.pool.choose() == "b"


def test_turns_go_around_past_those_that_are_full() -> None:
    agents = Agents(RingPool, a=2, b=1, c=2)
    assert agents.fill("a") == "bcaca"
    agents.change("a", -1)
    assert agents.pool.choose(after="a") == "a"
    agents.change("b", -1)
    assert agents.pool.choose(after="a") == "b"
    assert agents.pool.choose(after="gone") == "a"


def test_turns_go_around_within_the_best_rank() -> None:
    assert Agents(RingPool, a=(1, 1), b=(2, 0), c=(2, 0), d=(1, 1)).fill("b") == "cbcbda"


def test_jobs_without_a_turn_yet_begin_at_different_agents() -> None:
    pool = Agents(RingPool, a=1, b=1, c=1).pool
    begun = {pool.choose(whose=f"job-{number}") for number in range(50)}
    assert begun == {"a", "b", "c"}
    assert pool.choose(whose="job-7") == pool.choose(whose="job-7")


@pytest.mark.parametrize("kind", [LoadedPool, RingPool])
def test_an_agent_to_avoid_comes_last(kind: type[Pool]) -> None:
    agents = Agents(kind, a=(2, 0), b=(2, 1))
    avoid = frozenset({"a"})
    assert agents.pool.choose(avoid, after="b") == "b"
    agents.change("b", 2)
    assert agents.pool.choose(avoid, after="b") == "a"
    agents.change("a", 2)
    assert agents.pool.choose(avoid, after="b") is None


@pytest.mark.parametrize("placement", list(Placement))
def test_agents_without_slots_and_pools_without_agents(placement: Placement) -> None:
    assert pool_of(placement, {"a": Member(0)}, lambda _: 0).choose() is None
    assert pool_of(placement, {}, lambda _: 0).choose() is None


def presence(name: str, **labels: str) -> Presence:
    return Presence(
        agent=name, incarnation="5", supervisor="s", slots=1, host="h", pid=1, since=NOON,
        clock=NOON, version="0", labels=labels,
    )  # fmt: skip


def test_the_most_preferred_first_by_name_or_label() -> None:
    asked = requirement_of(job(prefer=("b", "disk=ssd")))
    ranks = [rank_of(asked, presence(name)) for name in "ab"]
    assert ranks == [2, 0]
    assert rank_of(asked, presence("c", disk="ssd")) == 1
    assert rank_of(asked, presence("c", disk="hdd")) == 2


def test_a_fixed_priority_is_that_of_the_hosts_below_the_preference() -> None:
    asked = requirement_of(job(hosts=("c", "a", "b"), placement=Placement.FIXED_PRIORITY))
    assert sorted("abc", key=lambda name: rank_of(asked, presence(name))) == ["c", "a", "b"]
    asked = requirement_of(
        job(hosts=("c", "a", "b"), placement=Placement.FIXED_PRIORITY, prefer=("b",))
    )
    assert sorted("abc", key=lambda name: rank_of(asked, presence(name))) == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("hosts_for", "origin", "is_bound"),
    [
        (HostsFor.ALL, Origin.SCHEDULE, True),
        (HostsFor.ALL, Origin.REQUEST, True),
        (HostsFor.SCHEDULED, Origin.SCHEDULE, True),
        (HostsFor.SCHEDULED, Origin.RECOVERY, True),
        (HostsFor.SCHEDULED, Origin.REQUEST, False),
        (HostsFor.SCHEDULED, Origin.CHAIN, False),
        (HostsFor.SCHEDULED, Origin.RESUBMISSION, True),
        (HostsFor.SCHEDULED, Origin.LIFECYCLE, True),
    ],
)
def test_which_runs_the_hosts_bind(hosts_for: HostsFor, origin: Origin, is_bound: bool) -> None:
    bound = job(hosts=("a",), require={"disk": "ssd"}, hosts_for=hosts_for)
    run = new_run(
        Author(1, NOON), bound, "1", RunState.READY, "due", origin=origin, scheduled_at=NOON
    )
    found = requirement_of_run(bound, run)
    assert (found.hosts, found.labels) == ((("a",), (("disk", "ssd"),)) if is_bound else ((), ()))


def test_who_tried_a_run_follows_from_its_attempts() -> None:
    def attempt(agent: str, outcome: Outcome, *, started: bool) -> Attempt:
        return Attempt(
            number=1, agent=agent, token=1, assigned_at=NOON, outcome=outcome,
            started_at=NOON if started else None,
        )  # fmt: skip

    run = new_run(
        Author(1, NOON), job(), "1", RunState.READY, "due", origin=Origin.SCHEDULE,
        attempts=(
            attempt("a", Outcome.DECLINED, started=False),
            attempt("b", Outcome.FAILED, started=True),
            attempt("c", Outcome.FAILED, started=False),
            attempt("d", Outcome.DIED, started=False),
        ),
    )  # fmt: skip
    assert tried_by(run) == Tried(frozenset("abcd"), frozenset("ac"), "d")
