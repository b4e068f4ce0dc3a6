"""I10: a run that finds no agent is given up only in its time, and if there was none for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.audit.history import FaultKind
from etcsched.audit.verdict import Invariant
from etcsched.core.records import (
    CLUSTER,
    Attempt,
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
    Transition,
    Window,
)
from etcsched.core.states import JobState, Occasion, Origin, Outcome, RunState, Stage
from etcsched.keyspace.codec import encode
from tests.unit.audit.story import KEYS, Story, a_job, a_live, a_run, an_assignment, at
from tests.unit.audit.test_rules import check

Happening = Callable[[Story], object]
KEY, ARCHIVE = KEYS.of(Kind.RUN, "w", "w1"), KEYS.archive("w", "w1")
READY, ASSIGNED, ABANDONED = RunState.READY, RunState.ASSIGNED, RunState.ABANDONED
LATER = 1000
"""A token of an attempt that came after everything else."""


def a_w(**of: Any) -> Job:
    """Its runs come from requests, and wait 20 s for an agent."""
    version = ScheduleVersion(since=at(0.5))
    return a_job("w", **{"versions": (version,), "pickup_buffer_s": 20.0, **of})


@pytest.fixture
def story() -> Story:
    """A run has been ready for some seconds, an agent has slots, and nothing stands in its way."""
    story = Story().opened()
    story.defined(a_w())
    story.now_s = 10.0
    waits(story)
    return story


def declined(
    agent: str, token: int = LATER, outcome: Outcome = Outcome.DECLINED, number: int = 1
) -> Attempt:
    return Attempt(
        number=number, agent=agent, token=token, assigned_at=at(6), ended_at=at(6), outcome=outcome
    )


def waits(story: Story, *states: RunState, key: str = KEY, **of: Any) -> None:
    run = key.rpartition("/")[2]
    story.put((key, a_run(run, *(states or (READY,)), **_fields(of))))


def _fields(of: dict[str, Any]) -> dict[str, Any]:
    return {"job": "w", "origin": Origin.REQUEST, "created_at": at(5), **of}


def given_up(
    story: Story,
    at_s: float,
    state: RunState = ABANDONED,
    run: str = "w1",
    attempts: tuple[Attempt, ...] = (),
) -> None:
    """... then, with one more attempt, say; and time passes."""
    story.now_s = at_s
    before = story.auditor.state.record(Run, Kind.RUN, "w", run)
    assert before is not None
    over = replace(
        before,
        state=state,
        history=(*before.history, Transition(state=state, at=at(at_s), cause="", term=1)),
        attempts=(*before.attempts, *attempts),
    )
    story.commit((KEYS.archive("w", run), encode(over)), (KEYS.of(Kind.RUN, "w", run), None))
    story.now_s += 10.0
    story.through(0.9)


def texts_of(story: Story) -> str:
    violations = story.verdict().violations
    return " ".join(v.text for v in violations if v.invariant is Invariant.I10)


# --- somebody could have taken it

WORDS = "w/w1: abandoned, and a could have taken it"


def test_i10_abandoned_beside_an_agent_with_a_slot(story: Story) -> None:
    given_up(story, 40)
    check(story, Invariant.I10, WORDS)


def drained(story: Story, agent: str = "a") -> None:
    story.put((KEYS.of(Kind.DRAIN, agent), Drain(agent=agent, since=at(1), by="op")))


def leaving(story: Story) -> None:
    story.staffed(draining=True)


def unseated(story: Story) -> None:
    story.put((KEYS.of(Kind.SETTINGS), ClusterSettings(max_active_agents=1)))


def starting(story: Story) -> None:
    due = (Due(occasion=Occasion.HOST_STARTUP, job="first"),)
    story.put((KEYS.of(Kind.LIVE, "a"), a_live("a", Stage.HERE, due=due)))


def begun_anew(story: Story) -> None:
    story.put((KEYS.of(Kind.LIVE, "a"), a_live("a", Stage.HERE, incarnation="a0")))


def full(story: Story, agent: str = "a") -> None:
    story.staffed(agent, slots=1)
    works(story, agent)


def works(story: Story, agent: str) -> None:
    run = a_run("r1", ASSIGNED, agent=agent, attempt=1, origin=Origin.REQUEST)
    place = KEYS.of(Kind.ASSIGNMENT, agent, "job", "r1")
    story.put((KEYS.of(Kind.RUN, "job", "r1"), run), (place, an_assignment(agent, "r1")))


def idles(story: Story, agent: str) -> None:
    gone = (KEYS.of(Kind.RUN, "job", "r1"), KEYS.of(Kind.ASSIGNMENT, agent, "job", "r1"))
    run = a_run("r1", ASSIGNED, RunState.CANCELLED, origin=Origin.REQUEST)
    story.commit((KEYS.archive("job", "r1"), encode(run)), *((key, None) for key in gone))


def paused(name: str) -> Happening:
    def pause(story: Story) -> None:
        record = Pause(intervals=(PauseInterval(since=at(story.now_s)),))
        story.put((KEYS.of(Kind.PAUSE, name), record))

    return pause


def in_an_outage(story: Story) -> None:
    story.put(story.gap(1.0, job="w"))


def grouped(story: Story) -> None:
    group = ConflictGroup(group="g", jobs=("w", "x"))
    story.put((KEYS.of(Kind.CONFLICT, "g"), group))


def edited(**of: Any) -> Happening:
    return lambda story: story.defined(a_w(**of))


def put_anew(*states: RunState, **of: Any) -> Happening:
    return lambda story: waits(story, *states, **of)


NOBODY: list[Happening] = [
    drained,
    leaving,
    unseated,
    starting,
    begun_anew,
    full,
    paused("w"),
    paused(CLUSTER),
    in_an_outage,
    grouped,
    edited(hosts=("b",)),
    edited(require={"room": "9"}),
    edited(user="other"),
    put_anew(attempts=(declined("a"),)),
    put_anew(occasion=Occasion.CLUSTER_STARTUP, incarnation="a1"),
    put_anew(not_before=at(59.7)),
]


@pytest.mark.parametrize("reason", NOBODY)
def test_i10_why_nobody_could_have_taken_it(story: Story, reason: Happening) -> None:
    """Each has stood for long as it ends."""
    reason(story)
    given_up(story, 60)
    assert "could have taken" not in texts_of(story)


def test_i10_a_run_that_is_bound_to_another_agent(story: Story) -> None:
    waits(story, key=KEYS.of(Kind.RUN, "w", "w1@b"))
    given_up(story, 40, run="w1@b")
    assert "could have taken" not in texts_of(story)


CHANGES: list[Happening] = [
    lambda story: story.led(2), edited(priority=1), lambda story: story.staffed(slots=5),
    lambda story: story.put((KEYS.of(Kind.LIVE, "a"), a_live("a", Stage.HERE))),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seconds", [2.0, 7.0])
def test_i10_what_has_just_changed_may_not_have_been_seen(
    story: Story, change: Happening, seconds: float
) -> None:
    story.now_s = 40.0
    change(story)
    given_up(story, 40 + seconds)
    assert (WORDS in texts_of(story)) is (seconds > 5)


@pytest.mark.parametrize("seconds", [2.0, 7.0])
def test_i10_an_agent_that_was_full_until_now_may_be_taken_for_full(
    story: Story, seconds: float
) -> None:
    full(story)
    story.now_s = 40.0
    idles(story, "a")
    given_up(story, 40 + seconds)
    assert (WORDS in texts_of(story)) is (seconds > 5)


@pytest.mark.parametrize(("since_s", "is_judged"), [(39.7, False), (38, True)])
def test_i10_one_that_is_ready_only_now(story: Story, since_s: float, is_judged: bool) -> None:
    waits(story, not_before=at(since_s))
    story.defined(a_w(pickup_buffer_s=0.1))
    given_up(story, 40)
    assert (WORDS in texts_of(story)) is is_judged


def test_i10_the_agents_that_havent_declined_it_could_have_taken_it(story: Story) -> None:
    story.staffed("b")
    story.put((KEYS.of(Kind.LIVE, "b"), a_live("b", Stage.HERE)))
    waits(story, attempts=(declined("a"),))
    given_up(story, 40)
    check(story, Invariant.I10, "w/w1: abandoned, and b could have taken it")


def test_i10_an_agent_that_has_begun_anew_hasnt_declined_it(story: Story) -> None:
    waits(story, attempts=(declined("a", token=story.revision),))
    story.delete(KEYS.of(Kind.PRESENCE, "a"))
    story.staffed("a")
    given_up(story, 40)
    check(story, Invariant.I10, WORDS)


@pytest.mark.parametrize(
    ("kind", "target", "is_excused"),
    [
        (FaultKind.CLOCK, "s2", True),
        (FaultKind.ETCD, "etcd", True),
        (FaultKind.BY_HAND, "a", True),
        (FaultKind.OTHER, "w", True),
        (FaultKind.OTHER, "a", True),
        (FaultKind.OTHER, "b", False),
        (FaultKind.FROZEN, "s1", True),
        (FaultKind.SLOW, "s1", True),
        (FaultKind.FROZEN, "a", False),
        (FaultKind.CUT_OFF, "s2", False),
        (FaultKind.KILLED, "b", False),
    ],
)
def test_i10_what_excuses_it(story: Story, kind: FaultKind, target: str, is_excused: bool) -> None:
    """... of what goes wrong meanwhile, elsewhere, or with the agent itself."""
    story.staffed("b", users=())
    given_up(story, 40)
    story.fault(kind, 37, 38, target=target)
    assert (WORDS in texts_of(story)) is not is_excused


def test_i10_what_was_over_long_before_excuses_nothing(story: Story) -> None:
    given_up(story, 40)
    story.fault(FaultKind.ETCD, 20, 30, target="etcd")
    check(story, Invariant.I10, WORDS)


# --- its buffer

EARLY = "w/w1: abandoned 5000 ms before its buffer of 20 s was over"


def test_i10_abandoned_before_its_buffer_is_over(story: Story) -> None:
    drained(story)
    given_up(story, 20)
    check(story, Invariant.I10, EARLY)


@pytest.mark.parametrize("why", [paused("w"), grouped, put_anew(attempts=(declined("a"),))])
def test_i10_nor_for_this(story: Story, why: Happening) -> None:
    why(story)
    given_up(story, 20)
    check(story, Invariant.I10, EARLY)


@pytest.mark.parametrize("end_s", [24.96, 25, 300])
def test_i10_abandoned_as_its_buffer_is_over(story: Story, end_s: float) -> None:
    drained(story)
    given_up(story, end_s)
    assert texts_of(story) == ""


def test_i10_its_buffer_begins_as_it_may_start(story: Story) -> None:
    drained(story)
    waits(story, not_before=at(18))
    given_up(story, 33)
    check(story, Invariant.I10, EARLY)


@pytest.mark.parametrize(("kind", "is_excused"), [(FaultKind.CLOCK, True), (FaultKind.ETCD, False)])
def test_i10_only_a_clock_makes_it_early(story: Story, kind: FaultKind, is_excused: bool) -> None:
    drained(story)
    given_up(story, 20)
    story.fault(kind, 2, 3)
    assert (EARLY in texts_of(story)) is not is_excused


# --- it has no buffer

KEPT = (RunState.QUEUED, ASSIGNED, READY)


@pytest.mark.parametrize("states", [KEPT, (RunState.HELD, READY)])
def test_i10_abandoned_without_a_buffer_that_could_be_over(
    story: Story, states: tuple[RunState, ...]
) -> None:
    drained(story)
    waits(story, *states)
    given_up(story, 40)
    check(story, Invariant.I10, "w/w1: abandoned, and nobody had declined it, nor has it a buffer")


def test_i10_what_has_run_has_no_buffer(story: Story) -> None:
    drained(story)
    waits(story, ASSIGNED, READY, attempts=(declined("a", outcome=Outcome.DIED),))
    given_up(story, 40, RunState.FAILED)
    check(story, Invariant.I10, "w/w1: failed, and nobody had declined it, nor has it a buffer")


def without_a_buffer(story: Story, **of: Any) -> None:
    """It was queued, a declined it, and b is here, and full."""
    story.staffed("b", slots=1, **of)
    story.put((KEYS.of(Kind.LIVE, "b"), a_live("b", Stage.HERE)))
    works(story, "b")
    waits(story, *KEPT, attempts=(declined("a"),))


def test_i10_who_is_full_will_have_a_slot(story: Story) -> None:
    without_a_buffer(story)
    given_up(story, 60)
    assert texts_of(story) == "w/w1: abandoned, and b could have taken it"


def test_i10_nor_is_it_given_up_at_once_beside_that_one(story: Story) -> None:
    without_a_buffer(story)
    story.defined(a_w(pickup_buffer_s=0.1))
    waits(story, *KEPT, attempts=(declined("a"),), not_before=at(59.9))
    given_up(story, 60)
    assert texts_of(story) == "w/w1: abandoned, and b could have taken it"


def test_i10_within_its_buffer_that_one_may_be_full(story: Story) -> None:
    without_a_buffer(story)
    waits(story, attempts=(declined("a"),))
    given_up(story, 60)
    assert texts_of(story) == ""


def shut_out(story: Story) -> None:
    drained(story, "b")


def unplugged(story: Story) -> None:
    story.delete(KEYS.of(Kind.PRESENCE, "b"))


@pytest.mark.parametrize("goes", [shut_out, unplugged])
@pytest.mark.parametrize(("waited_s", "is_wrong"), [(0, True), (19, True), (20, False)])
def test_i10_it_waits_as_long_as_a_buffer_for_who_has_gone(
    story: Story, goes: Happening, waited_s: float, is_wrong: bool
) -> None:
    without_a_buffer(story)
    story.now_s = 60.0
    goes(story)
    given_up(story, 60 + waited_s)
    words = "w/w1: abandoned within 20 s after b had gone, and hadn't declined"
    assert (words in texts_of(story)) is is_wrong


def test_i10_who_shows_its_clock_hasnt_gone(story: Story) -> None:
    without_a_buffer(story)
    due = (Due(occasion=Occasion.HOST_STARTUP, job="first"),)
    story.put((KEYS.of(Kind.LIVE, "b"), a_live("b", Stage.HERE, due=due)))
    story.now_s = 60.0
    story.staffed("b", slots=1, clock=at(60))
    given_up(story, 66)
    assert texts_of(story) == ""


def test_i10_who_has_gone_could_not_have_taken_it(story: Story) -> None:
    without_a_buffer(story)
    story.defined(a_w(require={"room": "9"}))
    story.now_s = 60.0
    unplugged(story)
    given_up(story, 66)
    assert texts_of(story) == ""


def test_i10_it_may_not_have_been_seen_to_go(story: Story) -> None:
    without_a_buffer(story)
    story.now_s = 60.0
    unplugged(story)
    given_up(story, 75)
    story.fault(FaultKind.FROZEN, 57, 58, target="s1")
    assert texts_of(story) == ""


NEVER_WAITED_FOR: list[Happening] = [
    lambda story: waits(story, *KEPT, attempts=(declined("a"), declined("b"))),
    paused("w"),
    lambda story: story.led(2),
    edited(hosts=("a",)),
]


@pytest.mark.parametrize("why", NEVER_WAITED_FOR)
def test_i10_why_it_doesnt_wait_for_who_has_gone(story: Story, why: Happening) -> None:
    """... or the leader may not know that there was hope."""
    without_a_buffer(story)
    story.now_s = 57.0
    why(story)
    story.now_s = 60.0
    unplugged(story)
    given_up(story, 66)
    assert texts_of(story) == ""


def test_i10_who_was_here_for_a_moment_may_not_have_been_seen(story: Story) -> None:
    without_a_buffer(story)
    drained(story, "b")
    story.now_s = 57.0
    story.delete(KEYS.of(Kind.DRAIN, "b"))
    story.now_s = 60.0
    unplugged(story)
    given_up(story, 66)
    assert texts_of(story) == ""


# --- straight from the agent that declined it


def ended_declined(
    story: Story, state: RunState = ABANDONED, count: int = 1, run: str = "w1", **of: Any
) -> None:
    last = declined("a", outcome=of.pop("last", Outcome.DECLINED), number=count)
    before = tuple(declined(f"a{n}", number=n) for n in range(1, count))
    of = {"attempts": before, "attempt": count, "agent": "a", **of}
    waits(story, ASSIGNED, key=KEYS.of(Kind.RUN, "w", run), **of)
    given_up(story, 40, state, run, (last,))


@pytest.mark.parametrize("state", [ABANDONED, RunState.FAILED, RunState.TIMED_OUT])
@pytest.mark.parametrize("count", [1, 3, 99])
def test_i10_a_decline_ends_no_run(story: Story, state: RunState, count: int) -> None:
    ended_declined(story, state, count)
    words = f"w/w1: {state.value} as a declined it, after {count - 1} others in a row"
    check(story, Invariant.I10, words)


def test_i10_the_hundredth_decline_does(story: Story) -> None:
    ended_declined(story, count=100)
    assert texts_of(story) == ""


def test_i10_only_those_in_a_row_count(story: Story) -> None:
    ran = declined("b", outcome=Outcome.DIED)
    attempts = (*(declined("a") for _ in range(60)), ran, *(declined("a") for _ in range(59)))
    ended_declined(story, RunState.FAILED, attempts=attempts)
    check(story, Invariant.I10, "after 59 others in a row")


def windowed(story: Story) -> None:
    window = Window(since=at(15), until=at(25), state=JobState.DISABLED)
    story.defined(a_w(versions=(ScheduleVersion(since=at(0.5), windows=(window,)),)))


def in_state(state: JobState) -> Happening:
    return edited(versions=(ScheduleVersion(since=at(0.5), state=state),))


def made_anew(story: Story) -> None:
    story.defined(a_w(made_anew_after=story.revision))


@pytest.mark.parametrize(
    "reason", [windowed, in_state(JobState.DISABLED), in_state(JobState.CHAIN_ACTIVE), made_anew]
)
def test_i10_what_may_not_start_any_more_ends(story: Story, reason: Happening) -> None:
    waits(story, ASSIGNED, agent="a", attempt=1)
    reason(story)
    given_up(story, 40, attempts=(declined("a"),))
    assert texts_of(story) == ""


def test_i10_what_is_forced_may_start(story: Story) -> None:
    in_state(JobState.DISABLED)(story)
    ended_declined(story, forced=True)
    check(story, Invariant.I10, "as a declined it")


@pytest.mark.parametrize("state", [JobState.DELETED, JobState.CHAIN_ACTIVE])
def test_i10_what_is_forced_may_start_in_no_other_state(story: Story, state: JobState) -> None:
    in_state(state)(story)
    ended_declined(story, forced=True)
    assert texts_of(story) == ""


def test_i10_a_run_that_is_bound_ends_as_its_agent_declines(story: Story) -> None:
    ended_declined(story, run="w1@a")
    assert texts_of(story) == ""


def test_i10_a_run_that_failed_ends(story: Story) -> None:
    ended_declined(story, RunState.FAILED, last=Outcome.FAILED)
    assert texts_of(story) == ""
