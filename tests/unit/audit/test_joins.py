"""I7: chains with several sources."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.audit.verdict import Invariant
from etcsched.core.records import (
    Arrival,
    Follow,
    Job,
    Join,
    Kind,
    Link,
    Run,
    ScheduleVersion,
    Source,
    Window,
)
from etcsched.core.states import JobState, Origin, RunState
from etcsched.keyspace.codec import encode
from tests.unit.audit.story import KEYS, Story, a_job, a_run, at
from tests.unit.audit.test_rules import check, check_clean

JOIN = KEYS.of(Kind.JOIN, "end", "i")


@pytest.fixture
def story() -> Story:
    """Runs of left, middle and right begin one of end."""
    story = Story().opened()
    for name in ("left", "middle", "right"):
        story.defined(a_source(name))
    story.defined(a_target())
    story.now_s = 45.0
    return story


def a_target(state: JobState = JobState.ENABLED, **of: Any) -> Job:
    return a_job("end", versions=(ScheduleVersion(since=at(0.5), state=state, **of),))


def a_source(
    name: str, state: JobState = JobState.ENABLED, *, joins: bool = True, **of: Any
) -> Job:
    version = ScheduleVersion(since=at(0.5), state=state, **of)
    return a_job(name, versions=(version,), chain=(Link(to="end", joins=joins),))


def came(job: str) -> Arrival:
    return Arrival(job=job, run=f"{job}-1", state=RunState.COMPLETED, at=at(45))


def a_join(*jobs: str, since_s: float = 45, run: str = "e1") -> tuple[str, Join]:
    return JOIN, Join(
        job="end", instance="i", run=run, since=at(since_s), arrived=tuple(map(came, jobs))
    )


def ended(job: str) -> tuple[str, Run]:
    """... and came to the join, or began its run."""
    run = a_run(
        f"{job}-1", RunState.READY, RunState.COMPLETED, job=job, origin=Origin.REQUEST,
        followed_by=(Follow(job="end", run="e1"),),
    )  # fmt: skip
    return KEYS.archive(job, f"{job}-1"), run


def begun(*jobs: str) -> tuple[str, Run]:
    sources = tuple(Source(job=j, run=f"{j}-1", state=RunState.COMPLETED) for j in jobs)
    run = a_run("e1", RunState.READY, job="end", origin=Origin.CHAIN, chained_from=sources)
    return KEYS.of(Kind.RUN, "end", "e1"), run


def joined(story: Story, last: tuple[str, ...] = ("left", "middle", "right")) -> None:
    story.put(a_join("left"), ended("left"))
    story.put(a_join("left", "middle"), ended("middle"))
    records = [(key, encode(record)) for key, record in (ended("right"), begun(*last))]
    story.commit((JOIN, None), *records)


def test_i7_a_join(story: Story) -> None:
    joined(story)
    check_clean(story)


def test_i7_a_join_that_doesnt_know_of_one(story: Story) -> None:
    joined(story, ("middle", "right"))
    check(story, Invariant.I7, "end/e1: left/left-1 had come to it, and is forgotten")


def test_i7_a_join_that_forgets_one_as_another_comes(story: Story) -> None:
    story.put(a_join("left"), ended("left"))
    story.put(a_join("middle"), ended("middle"))
    check(story, Invariant.I7, "end/e1: left/left-1 had come to it, and is forgotten")


def test_i7_a_join_that_becomes_another(story: Story) -> None:
    story.put(a_join("left"), ended("left"))
    story.put(a_join("left", "middle", run="e2"), ended("middle"))
    texts = " ".join(violation.text for violation in story.verdict().violations)
    assert "end/e1: a join that becomes one of end/e2" in texts


def test_i7_one_that_comes_and_hasnt_ended(story: Story) -> None:
    story.put(a_join("left", "middle"), ended("left"))
    check(story, Invariant.I7, "end/e1: middle/middle-1 counts as come, and hasn't ended so")


def test_i7_a_join_that_begins_before_all_have_come(story: Story) -> None:
    story.put(a_join("left"), ended("left"))
    records = [(key, encode(record)) for key, record in (ended("right"), begun("left", "right"))]
    story.commit((JOIN, None), *records)
    check(story, Invariant.I7, "end/e1: it began, and middle, which it joins, hasn't come")


def test_i7_a_join_that_begins_with_the_first_that_comes(story: Story) -> None:
    story.put(ended("right"), begun("right"))
    check(story, Invariant.I7, "left, which it joins, hasn't", "middle, which it joins, hasn't")


@pytest.mark.parametrize(
    "middle",
    [
        a_source("middle", JobState.DISABLED),
        a_source("middle", JobState.DELETED),
        a_job("middle"),
        a_source("middle", joins=False),
    ],
)
def test_i7_who_may_not_come_isnt_waited_for(story: Story, middle: Job) -> None:
    story.put(a_join("left"), ended("left"))
    story.defined(middle)
    records = [(key, encode(record)) for key, record in (ended("right"), begun("left", "right"))]
    story.commit((JOIN, None), *records)
    check_clean(story)


def test_i7_who_was_edited_a_moment_ago_may_not_have_been_seen(story: Story) -> None:
    story.defined(a_source("new"))
    joined(story)
    check_clean(story)
    other = Story().opened()
    for name in ("left", "middle", "right", "new"):
        other.defined(a_source(name))
    other.defined(a_target())
    other.now_s = 45.0
    joined(other)
    check(other, Invariant.I7, "new, which it joins, hasn't come")


def test_i7_a_link_that_joins_nobody_begins_at_once(story: Story) -> None:
    story.defined(a_source("right", joins=False))
    story.put(ended("right"), begun("right"))
    check_clean(story)


def test_i7_a_join_that_is_lost(story: Story) -> None:
    story.put(a_join("left"), ended("left"))
    story.delete(JOIN)
    check(story, Invariant.I7, "left/left-1 had come to it, and it is gone, and nothing began")


def test_i7_a_join_that_waited_in_vain_is_forgotten(story: Story) -> None:
    story.put(a_join("left"), ended("left"))
    story.put(a_join("left", since_s=45 - 7 * 86400))
    story.delete(JOIN)
    check_clean(story)


def test_i7_what_came_to_a_job_that_was_deleted_is_forgotten(story: Story) -> None:
    story.put(a_join("left"), ended("left"))
    story.defined(a_target(JobState.DELETED))
    story.defined(a_target())
    story.delete(JOIN)
    check_clean(story)


def test_i7_what_came_to_a_job_after_it_was_deleted_isnt(story: Story) -> None:
    story.defined(a_target(JobState.DELETED))
    story.defined(a_target())
    story.put(a_join("left"), ended("left"))
    story.delete(JOIN)
    check(story, Invariant.I7, "it is gone, and nothing began")


# --- a quiet end


def quiet_with(
    story: Story, *come: str, source: Job | None = None, target: Job | None = None
) -> None:
    if source is not None:
        story.defined(source)
    if target is not None:
        story.defined(target)
    for count, job in enumerate(come, 1):
        story.put(a_join(*come[:count]), ended(job))
    story.now_s = 59.0
    story.quiet()


def test_i7_a_join_to_which_all_have_come(story: Story) -> None:
    quiet_with(story, "left", "middle", "right")
    check(story, Invariant.I7, "end/e1: all have come that it joins, and it waits still")


def test_i7_a_join_that_waits_for_one(story: Story) -> None:
    quiet_with(story, "left", "middle")
    check_clean(story)


def test_i7_a_join_that_waits_for_nobody_any_more(story: Story) -> None:
    story.now_s = 20.0
    quiet_with(story, "left", "middle", source=a_source("right", JobState.DISABLED))
    check(story, Invariant.I7, "end/e1: all have come that it joins, and it waits still")


@pytest.mark.parametrize(
    "target",
    [a_target(JobState.DISABLED), a_target(JobState.DELETED), a_target(JobState.AD_HOC_ACTIVE)],
)
def test_i7_a_join_of_a_job_that_may_not_begin_goes(story: Story, target: Job) -> None:
    story.now_s = 20.0
    quiet_with(story, "left", "middle", "right", target=target)
    check(story, Invariant.I7, "end/e1: all have come that it joins, and it waits still")


@pytest.mark.parametrize("come", [("left", "middle"), ("left",)])
def test_i7_what_has_come_to_a_job_that_is_stopped_goes_with_the_last(
    story: Story, come: tuple[str, ...]
) -> None:
    story.now_s = 20.0
    story.defined(a_target(JobState.DISABLED))
    story.now_s = 50.0
    for count, job in enumerate(come, 1):
        story.put(a_join(*come[:count]), ended(job))
    key, last = ended("right")
    last = replace(last, followed_by=(Follow(job="end", note="that job is disabled"),))
    story.commit((key, encode(last)), (JOIN, None))
    if come == ("left", "middle"):
        check_clean(story)
    else:
        check(story, Invariant.I7, "it is gone, and nothing began")


def test_i7_a_window_may_let_a_disabled_one_go_on(story: Story) -> None:
    window = Window(since=at(500), until=at(600), state=JobState.ENABLED)
    story.now_s = 20.0
    right = a_source("right", JobState.DISABLED, windows=(window,))
    quiet_with(story, "left", "middle", source=right)
    check_clean(story)


def test_i7_a_join_goes_whose_job_was_made_anew_before_the_history_begins(story: Story) -> None:
    """The deletion lasted for no time at all, so the timeline doesn't tell."""
    story.put(ended("left"), a_join("left"))
    deleted_at = story.defined(a_target(JobState.DELETED))
    story.defined(replace(a_target(), made_anew_after=deleted_at))
    rest = story.continued()
    rest.now_s = 55.0
    rest.delete(JOIN)
    check_clean(rest)


# --- an end that is asked what follows


@pytest.mark.parametrize("asked", [True, False])
def test_i7_a_tick_that_ended_overlapped_says_what_follows(story: Story, asked: bool) -> None:
    link = Link(to="end", on=(RunState.OVERLAPPED,))
    story.defined(replace(a_job(), chain=(link,)))
    story.now_s = 60.0
    said = (Follow(job="end", note="its condition doesn't hold: x"),) if asked else ()
    run = a_run("20261122T120100Z", RunState.OVERLAPPED, followed_by=said)
    story.put((KEYS.archive("job", run.id), run))
    told = [v.text for v in story.verdict().violations if v.invariant is Invariant.I7]
    assert bool(told) != asked
    assert all("nobody asked what follows" in text for text in told)
