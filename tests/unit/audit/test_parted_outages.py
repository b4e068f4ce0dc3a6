"""I9: agents that go while an outage's ticks are being decided part it: what is left belongs to the
outage that begins then, which has a limit of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from etcsched.audit.history import FaultKind
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Drain, Kind, Run
from etcsched.core.states import Origin, Recovery, RunState
from tests.unit.audit.story import KEYS, Story, a_job, a_run, at, tick
from tests.unit.audit.test_rules import check, check_clean, in_an_outage

Happening = Callable[[Story], None]


@pytest.fixture
def story() -> Story:
    return Story().opened()


def a_step(story: Story, through_s: float, *records: tuple[str, Run], closed: bool = False) -> None:
    """... of a recovery: what it decides, and how far that accounts for the gap."""
    story.put(story.gap(through_s, closed=closed), *records)


def missed_ones(*seconds: float, term: int = 1) -> list[tuple[str, Run]]:
    return [
        (KEYS.archive("job", tick(s)), a_run(tick(s), RunState.MISSED, term=term)) for s in seconds
    ]


def chosen_ones(*seconds: float, term: int = 1) -> list[tuple[str, Run]]:
    return [
        (
            KEYS.of(Kind.RUN, "job", tick(s)),
            a_run(tick(s), RunState.QUEUED, origin=Origin.RECOVERY, term=term),
        )
        for s in seconds
    ]


def gone(story: Story) -> None:
    story.delete(KEYS.of(Kind.PRESENCE, "a"))


def drained(story: Story) -> None:
    story.put((KEYS.of(Kind.DRAIN, "a"), Drain(agent="a", since=at(360), by="op")))


def relabelled(story: Story) -> None:
    story.staffed(labels={"room": "2"})


def stopping(story: Story) -> None:
    story.staffed(draining=True)


def of_another_user(story: Story) -> None:
    story.staffed(users=("other",))


def stayed(story: Story) -> None:
    story.staffed("b", labels={"room": "2"})
    story.delete(KEYS.of(Kind.PRESENCE, "b"))


AWAY = [gone, drained, relabelled, stopping, of_another_user]


def recovered_around(
    story: Story, happens: Happening, before: list[float], after: list[float], **of: Any
) -> None:
    """Some of an outage's ticks are decided; the agents go, and come back; then the others are."""
    in_an_outage(story, of.pop("recovery", Recovery.ALL), require={"room": "1"}, **of)
    story.staffed(labels={"room": "1"})
    a_step(story, before[-1] + 1, *chosen_ones(*before))
    happens(story)
    story.now_s = 361
    story.staffed(labels={"room": "1"})
    if KEYS.of(Kind.DRAIN, "a") in story._now:
        story.delete(KEYS.of(Kind.DRAIN, "a"))
    left = [s for s in (120.0, 180.0, 240.0, 300.0) if before[-1] < s < after[0]]
    a_step(story, 361, *missed_ones(*left), *chosen_ones(*after), closed=True)


@pytest.mark.parametrize("away", AWAY)
def test_i9_agents_that_go_between_two_steps_part_an_outage(story: Story, away: Happening) -> None:
    recovered_around(story, away, [60, 120], [240, 300], catch_up_limit=2)
    check_clean(story)


@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize(
    ("before", "after"), [([60], [180, 240, 300]), ([60, 120, 180], [240, 300])]
)
def test_i9_neither_part_may_go_beyond_the_limit(
    story: Story, away: Happening, before: list[float], after: list[float]
) -> None:
    recovered_around(story, away, before, after, catch_up_limit=2)
    check(story, Invariant.I9, "3 missed ticks run, the limit is 2")


def test_i9_one_who_couldnt_run_it_anyway_parts_no_outage(story: Story) -> None:
    recovered_around(story, stayed, [60, 120], [240, 300], catch_up_limit=2)
    check(story, Invariant.I9, "4 missed ticks run, the limit is 2")


def test_i9_an_agent_without_a_seat_parts_an_outage(story: Story) -> None:
    in_an_outage(story, Recovery.ALL, catch_up_limit=2)
    story.bounded(1, "a")
    a_step(story, 121, *chosen_ones(60, 120))
    story.delete(KEYS.of(Kind.SEAT, "a"))
    story.now_s = 361
    story.seated("a")
    a_step(story, 361, *missed_ones(180), *chosen_ones(240, 300), closed=True)
    check_clean(story)


def test_i9_a_step_that_commits_once_the_agents_have_gone_was_planned_before(story: Story) -> None:
    in_an_outage(story, Recovery.ALL, catch_up_limit=2)
    a_step(story, 61, *chosen_ones(60))
    gone(story)
    a_step(story, 121, *chosen_ones(120))
    story.now_s = 361
    story.staffed()
    a_step(story, 361, *missed_ones(180), *chosen_ones(240, 300), closed=True)
    check_clean(story)


@pytest.mark.parametrize("away", AWAY)
def test_i9_of_each_part_the_last_one_runs(story: Story, away: Happening) -> None:
    recovered_around(story, away, [60], [300], recovery=Recovery.LAST)
    check_clean(story)


@pytest.mark.parametrize(
    ("happens", "before", "after"),
    [(gone, [60], [240, 300]), (gone, [60, 120], [300]), (stayed, [60], [300])],
)
def test_i9_of_each_part_no_other_runs(
    story: Story, happens: Happening, before: list[float], after: list[float]
) -> None:
    recovered_around(story, happens, before, after, recovery=Recovery.LAST)
    check(story, Invariant.I9, "recovery last, and 2 missed ticks run")


def decided_alone(story: Story, recovery: Recovery, *chosen: float) -> None:
    """No one led; some of the ticks are decided one by one, without a gap."""
    story.defined(a_job(recovery=recovery, pickup_buffer_s=10.0, catch_up_limit=2))
    story.now_s = 200
    story.put(*chosen_ones(*chosen))


def left_over(story: Story, missed: list[float], chosen: list[float]) -> None:
    """A gap is opened for what is left, and decided later."""
    story.put(story.gap(60.1))
    story.through(359)
    story.now_s = 359.5
    a_step(story, 359.5, *missed_ones(*missed), *chosen_ones(*chosen), closed=True)


@pytest.mark.parametrize("recovery", [Recovery.LAST, Recovery.ALL])
@pytest.mark.parametrize("goes_first", [False, True])
def test_i9_a_gap_that_is_opened_for_want_of_agents_parts_an_outage(
    story: Story, recovery: Recovery, goes_first: bool
) -> None:
    """They may have gone before what was planned with them was committed."""
    if goes_first:
        gone(story)
    decided_alone(story, recovery, 60)
    if not goes_first:
        gone(story)
    story.staffed()
    chosen = [300.0] if recovery is Recovery.LAST else [240.0, 300.0]
    left_over(story, [s for s in (120.0, 180.0, 240.0) if s not in chosen], chosen)
    check_clean(story)


def test_i9_a_gap_that_is_opened_though_somebody_was_there_parts_none(story: Story) -> None:
    decided_alone(story, Recovery.ALL, 60)
    left_over(story, [120, 180], [240, 300])
    check(story, Invariant.I9, "3 missed ticks run, the limit is 2")


def test_i9_unless_etcd_refuses_what_would_have_to_come_first(story: Story) -> None:
    decided_alone(story, Recovery.ALL, 60)
    story.fault(FaultKind.OTHER, 190, 210)
    left_over(story, [120, 180], [240, 300])
    check_clean(story)


@pytest.mark.parametrize("runs", [True, False])
def test_what_a_second_leader_left_as_the_agents_went_is_of_the_outage_that_began_then(
    story: Story, runs: bool
) -> None:
    """The first one chose the last tick that it knew of, and died; the second one saw later ones,
    and of those but the first was decided when nobody was left."""
    story.defined(a_job(recovery=Recovery.LAST, pickup_buffer_s=10.0))
    story.now_s = 150
    story.put(*missed_ones(60), *chosen_ones(120))
    story.delete(KEYS.of(Kind.ELECTION, "1"))
    story.led(2)
    story.now_s = 320
    story.put(*missed_ones(180, term=2))
    gone(story)
    a_step(story, 180.1)
    story.through(320, term=2)
    story.staffed()
    story.now_s = 340
    last = chosen_ones(300, term=2) if runs else missed_ones(300, term=2)
    a_step(story, 320.5, *missed_ones(240, term=2), *last, closed=True)
    if runs:
        check_clean(story)
    else:
        check(story, Invariant.I9, "the last one missed, and none runs")
