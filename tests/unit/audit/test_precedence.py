"""I10: of those that a conflict group keeps waiting, the highest priority goes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from etcsched.audit.history import FaultKind
from etcsched.audit.verdict import Invariant
from etcsched.core.records import (
    CLUSTER,
    ClusterSettings,
    ConflictGroup,
    Drain,
    Due,
    Job,
    Kind,
    Pause,
    PauseInterval,
    Run,
    ScheduleVersion,
    Window,
)
from etcsched.core.states import JobState, Occasion, Origin, RunState, Stage
from etcsched.keyspace.codec import encode
from tests.unit.audit.story import KEYS, Story, a_job, a_live, a_run, an_assignment, at
from tests.unit.audit.test_rules import check, check_clean

Happening = Callable[[Story], None]
GROUP = ("top", "high", "low", "lower")


def an_asked(name: str, **of: Any) -> Job:
    """... for job: it has no schedule."""
    return a_job(name, versions=(ScheduleVersion(since=at(0.5)),), **of)


def grouped(story: Story, name: str, *jobs: str) -> None:
    story.put((KEYS.of(Kind.CONFLICT, name), ConflictGroup(group=name, jobs=jobs)))


@pytest.fixture
def story() -> Story:
    """A run of high is blocked by one of low, which then ends; nothing stands in its way."""
    story = Story().opened()
    for name in GROUP:
        story.defined(an_asked(name))
    grouped(story, "g", *GROUP)
    story.now_s = 10.0
    went(story, "low", "l0")
    waits(story)
    story.now_s = 18.0
    over(story, "low", "l0")
    story.now_s = 20.0
    return story


def key(job: str, run: str) -> str:
    return KEYS.of(Kind.RUN, job, run)


def asked(job: str, run: str, *states: RunState, **of: Any) -> Run:
    return a_run(run, *states, job=job, **{"origin": Origin.REQUEST, "created_at": at(5), **of})


def waits(story: Story, run: str = "h1", **of: Any) -> None:
    states = (RunState.READY, RunState.CONFLICTED)
    story.put((key("high", run), asked("high", run, *states, **of)))


def went(story: Story, job: str, run: str, agent: str = "a", **of: Any) -> None:
    record = asked(job, run, RunState.ASSIGNED, agent=agent, attempt=1, **of)
    assignment = an_assignment(agent, run, job=job)
    story.put((key(job, run), record), (KEYS.of(Kind.ASSIGNMENT, agent, job, run), assignment))


def over(story: Story, job: str, run: str, agent: str = "a") -> None:
    record = asked(job, run, RunState.ASSIGNED, RunState.CANCELLED)
    place = KEYS.of(Kind.ASSIGNMENT, agent, job, run)
    story.commit((KEYS.archive(job, run), encode(record)), (key(job, run), None), (place, None))


def passed_over(story: Story, seconds: float = 6.0) -> None:
    """One of low goes instead; and time passes."""
    went(story, "low", "l1")
    story.now_s += 1
    over(story, "low", "l1")
    story.now_s += seconds
    story.through(0.9)


WORDS = "low/l1: it went before high/h1, which comes first in g, and which a could have taken"


def test_i10_a_lower_one_goes_first(story: Story) -> None:
    passed_over(story)
    check(story, Invariant.I10, WORDS)


def test_i10_a_lower_one_of_the_job_that_holds_the_group_goes_first(story: Story) -> None:
    """It may overlap itself, and would never let go."""
    other = Story().opened()
    for name in GROUP:
        other.defined(an_asked(name))
    grouped(other, "g", *GROUP)
    went(other, "low", "l0")
    waits(other)
    other.now_s = 20.0
    passed_over(other)
    check(other, Invariant.I10, WORDS)


def test_i10_the_highest_goes_first(story: Story) -> None:
    went(story, "high", "h1")
    story.now_s = 30.0
    check_clean(story)


def paused(story: Story, name: str) -> None:
    pause = Pause(intervals=(PauseInterval(since=at(story.now_s)),))
    story.put((KEYS.of(Kind.PAUSE, name), pause))


def drained(story: Story) -> None:
    story.put((KEYS.of(Kind.DRAIN, "a"), Drain(agent="a", since=at(1), by="op")))


def unseated(story: Story) -> None:
    story.put((KEYS.of(Kind.SETTINGS), ClusterSettings(max_active_agents=1)))


def starting(story: Story) -> None:
    due = (Due(occasion=Occasion.HOST_STARTUP, job="first"),)
    story.put((KEYS.of(Kind.LIVE, "a"), a_live("a", Stage.HERE, due=due)))


def edited(**of: Any) -> Happening:
    def edit(story: Story) -> None:
        story.defined(an_asked("high", **of))

    return edit


def windowed(story: Story) -> None:
    window = Window(since=at(15), until=at(25), state=JobState.DISABLED)
    version = ScheduleVersion(since=at(0.5), windows=(window,))
    story.defined(a_job("high", versions=(version,)))


def away(story: Story) -> None:
    story.staffed(slots=0)


def led_anew(story: Story) -> None:
    story.led(2)


def regrouped(story: Story) -> None:
    grouped(story, "g", "low", "high")


def contradicted(story: Story) -> None:
    grouped(story, "h", "low", "lower", "high")


def of_another_group(story: Story) -> None:
    """Who holds that one keeps high from going, and not low."""
    story.defined(an_asked("third"))
    grouped(story, "h", "high", "third")
    story.put((key("third", "t1"), asked("third", "t1", RunState.READY)))


def one_above(story: Story) -> None:
    story.put((key("top", "t1"), asked("top", "t1", RunState.READY)))


def in_an_outage(story: Story) -> None:
    story.put(story.gap(1.0, job="high"))


def held(story: Story) -> None:
    story.put((key("high", "h0"), asked("high", "h0", RunState.ASSIGNED, RunState.HELD)))


def put_anew(**of: Any) -> Happening:
    return lambda story: waits(story, **of)


def wants_another_label(story: Story) -> None:
    story.defined(an_asked("high", require={"room": "9"}))


def wants_another_user(story: Story) -> None:
    story.defined(an_asked("high", user="other"))


REASONS: list[Happening] = [
    lambda story: paused(story, "high"),
    lambda story: paused(story, CLUSTER),
    drained,
    unseated,
    starting,
    windowed,
    away,
    contradicted,
    of_another_group,
    one_above,
    in_an_outage,
    held,
    put_anew(attempt=1),
    put_anew(not_before=at(38)),
    put_anew(origin=Origin.RECOVERY, scheduled_at=at(1)),
    put_anew(origin=Origin.SCHEDULE, scheduled_at=at(1)),
    put_anew(origin=Origin.LIFECYCLE, occasion=Occasion.CLUSTER_STARTUP, incarnation="a1"),
    wants_another_label,
    wants_another_user,
    edited(hosts=("b",)),
]


@pytest.mark.parametrize("reason", REASONS)
def test_i10_why_a_lower_one_may_go_first(story: Story, reason: Happening) -> None:
    """Each has stood for long as it goes."""
    reason(story)
    story.now_s = 40.0
    passed_over(story)
    texts = " ".join(violation.text for violation in story.verdict().violations)
    assert "it went before" not in texts


CHANGES: list[Happening] = [
    led_anew, edited(priority=1), put_anew(), lambda story: story.staffed(slots=5),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_i10_what_has_just_changed_may_not_have_been_seen(story: Story, change: Happening) -> None:
    change(story)
    passed_over(story)
    texts = " ".join(violation.text for violation in story.verdict().violations)
    assert "it went before" not in texts


@pytest.mark.parametrize("change", CHANGES)
def test_i10_what_changed_long_ago_was_seen(story: Story, change: Happening) -> None:
    change(story)
    story.now_s = 40.0
    passed_over(story)
    assert WORDS in [violation.text for violation in story.verdict().violations]


def full_until_now(story: Story) -> None:
    went(story, "job", "r1", agent="b")
    over(story, "job", "r1", agent="b")


@pytest.mark.parametrize("seconds", [0.0, 7.0])
def test_i10_an_agent_that_was_full_until_now_may_be_taken_for_full(
    story: Story, seconds: float
) -> None:
    story.staffed("a", slots=0)
    story.staffed("b", slots=1)
    story.put((KEYS.of(Kind.LIVE, "b"), a_live("b", Stage.HERE)))
    story.now_s = 40.0
    full_until_now(story)
    story.now_s += seconds
    went(story, "low", "l1", agent="b")
    story.now_s += 7.0
    story.through(0.9)
    texts = " ".join(violation.text for violation in story.verdict().violations)
    assert ("which b could have taken" in texts) is bool(seconds)


def took_the_slot(story: Story) -> None:
    went(story, "job", "r9")


def ended(story: Story) -> None:
    record = asked("high", "h1", RunState.CONFLICTED, RunState.CONFLICT_MISSED)
    story.commit((KEYS.archive("high", "h1"), encode(record)), (key("high", "h1"), None))


def one_above_came(story: Story) -> None:
    one_above(story)


@pytest.mark.parametrize("after", [took_the_slot, ended, one_above_came, led_anew])
@pytest.mark.parametrize("seconds", [1.0, 7.0])
def test_i10_what_comes_at_once_may_have_been_under_way(
    story: Story, after: Happening, seconds: float
) -> None:
    went(story, "low", "l1")
    story.now_s += seconds
    if seconds > 5:
        story.through(0.9)
    after(story)
    story.now_s += 7.0
    story.through(0.95)
    texts = " ".join(violation.text for violation in story.verdict().violations)
    assert ("it went before" in texts) is (seconds > 5)


@pytest.mark.parametrize("kind", [FaultKind.CLOCK, FaultKind.ETCD, FaultKind.OTHER])
def test_i10_a_fault_excuses_it(story: Story, kind: FaultKind) -> None:
    passed_over(story)
    story.fault(kind, 17, 18)
    check_clean(story)


def test_i10_what_moves_to_another_agent_has_its_turn(story: Story) -> None:
    other = Story().opened()
    for name in GROUP:
        other.defined(an_asked(name))
    grouped(other, "g", *GROUP)
    other.staffed("b")
    went(other, "low", "l1")
    waits(other)
    other.now_s = 20.0
    run = asked("low", "l1", RunState.ASSIGNED, RunState.ASSIGNED, agent="b", attempt=2)
    other.commit(
        (key("low", "l1"), encode(run)),
        (KEYS.of(Kind.ASSIGNMENT, "a", "low", "l1"), None),
        (
            KEYS.of(Kind.ASSIGNMENT, "b", "low", "l1"),
            encode(an_assignment("b", "l1", 2, job="low")),
        ),
    )
    other.now_s = 30.0
    other.through(0.9)
    check_clean(other)
