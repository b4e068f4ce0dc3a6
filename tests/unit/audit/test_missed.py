"""I7: what follows missed ticks."""

from __future__ import annotations

from typing import Any

import pytest

from etcsched.audit.verdict import Invariant
from etcsched.core.records import Follow, Gap, Job, Kind, Link, Run, ScheduleVersion, Source
from etcsched.core.states import JobState, Origin, Recovery, RunState
from etcsched.keyspace.codec import encode
from tests.unit.audit.story import KEYS, Story, a_job, a_run, at, tick
from tests.unit.audit.test_rules import check, check_clean

BEGUN = "begun"


@pytest.fixture
def story() -> Story:
    """What a job misses, two others follow. Its first five minutes are an outage."""
    story = Story().opened()
    story.defined(a_source())
    for name in ("next", "end"):
        story.defined(a_target(name))
    story.now_s = 305.0
    return story


def a_source(**link: Any) -> Job:
    links = tuple(Link(to=to, on=(RunState.MISSED,), **link) for to in ("next", "end"))
    return a_job(chain=links, recovery=Recovery.NONE, pickup_buffer_s=240.0)


def a_target(name: str, state: JobState = JobState.CHAIN_ACTIVE) -> Job:
    return a_job(name, versions=(ScheduleVersion(since=at(0.5), state=state),))


def missed(
    story: Story,
    first_s: float,
    last_s: float | None = None,
    *,
    gap: Gap | None = None,
    follows: tuple[str, ...] = (BEGUN, BEGUN),
) -> None:
    """One step of the outage's end: a record, with what follows it by its own word."""
    name = tick(first_s)
    told = tuple(
        Follow(job=to, run=f"{name}-{to}") if note == BEGUN else Follow(job=to, note=note)
        for to, note in zip(("next", "end"), follows, strict=False)
    )
    many: dict[str, Any] = {} if last_s is None else {
        "missed_count": 1 + int(last_s - first_s) // 60, "missed_through": at(last_s)
    }  # fmt: skip
    record = a_run(name, RunState.MISSED, followed_by=told, **many)
    source = Source(job="job", run=name, state=RunState.MISSED)
    chained: list[tuple[str, Run]] = [
        (
            KEYS.of(Kind.RUN, each.job, each.run),
            a_run(
                each.run, RunState.READY, job=each.job, origin=Origin.CHAIN, chained_from=(source,)
            ),
        )
        for each in told
        if each.run
    ]
    gap = gap or story.gap(last_s or first_s)[1]
    story.commit(
        (KEYS.archive("job", name), encode(record)),
        (KEYS.of(Kind.GAP, "job"), encode(gap)),
        *((key, encode(run)) for key, run in chained),
    )


GOES_ON = ("in a row", "in a row")


def test_a_stretch_is_followed_once(story: Story) -> None:
    missed(story, 60)
    missed(story, 120, follows=GOES_ON)
    missed(story, 180, 300, gap=story.gap(300, closed=True)[1], follows=GOES_ON)
    check_clean(story)


def test_one_record_may_be_all(story: Story) -> None:
    missed(story, 60, 300, gap=story.gap(300, closed=True)[1])
    check_clean(story)


def test_nobody_asked(story: Story) -> None:
    missed(story, 60, follows=(BEGUN,))
    check(story, Invariant.I7, "missed, and nobody asked what follows")


def test_it_was_asked_and_nothing_began(story: Story) -> None:
    missed(story, 60, 300, follows=GOES_ON)
    check(story, Invariant.I7, "missed, and next, which follows that, didn't begin")


def test_it_is_followed_again(story: Story) -> None:
    missed(story, 60)
    missed(story, 120, 300)
    check(story, Invariant.I7, "followed again")


@pytest.mark.parametrize("follows", [GOES_ON, (BEGUN, BEGUN)])
def test_another_outage_is_followed_again(story: Story, follows: tuple[str, str]) -> None:
    missed(story, 60, 120, gap=story.gap(130, closed=True)[1])
    missed(story, 180, 300, follows=follows)
    if follows == GOES_ON:
        check(story, Invariant.I7, "which follows that, didn't begin")
    else:
        check_clean(story)


def test_so_is_another_stretch(story: Story) -> None:
    """A tick between them runs."""
    missed(story, 60)
    story.created(tick(120))
    missed(story, 180, 300, follows=GOES_ON)
    check(story, Invariant.I7, "which follows that, didn't begin")


@pytest.mark.parametrize("state", [JobState.DISABLED, JobState.AD_HOC_ACTIVE])
def test_a_target_that_is_stopped(story: Story, state: JobState) -> None:
    for name in ("next", "end"):
        story.defined(a_target(name, state))
    missed(story, 60, 300, follows=("that job is stopped",) * 2)
    check_clean(story)


def test_a_condition_may_not_hold(story: Story) -> None:
    story.defined(a_source(within="* 3 * * *"))
    missed(story, 60, 300, follows=("it ended outside of it",) * 2)
    check_clean(story)


def test_a_history_that_begins_in_the_outage(story: Story) -> None:
    missed(story, 60)
    rest = story.continued()
    missed(rest, 120, 300, follows=GOES_ON)
    check_clean(rest)
