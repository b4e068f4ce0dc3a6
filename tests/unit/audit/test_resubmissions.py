"""I8: resubmissions of missed ticks that share a record."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.audit.verdict import Invariant
from etcsched.core.records import Kind, Run
from etcsched.core.states import Origin, Recovery, RunState
from etcsched.keyspace.codec import encode
from tests.unit.audit.story import KEYS, Story, a_job, a_run, at, tick
from tests.unit.audit.test_rules import check, check_clean

MISSED = a_run(
    tick(60), RunState.MISSED,
    missed_count=5, missed_through=at(300), missed_steps=((60_000, 4),),
)  # fmt: skip


@pytest.fixture
def story() -> Story:
    """The first five minutes of a job are an outage, and it takes none of them up."""
    story = Story().opened()
    story.defined(a_job(recovery=Recovery.NONE))
    story.now_s = 305.0
    return story


def missed(story: Story, record: Run = MISSED) -> None:
    story.put((KEYS.archive("job", record.id), record), story.gap(300, closed=True))


def resubmitted(story: Story, due_s: float, run: str = "r1", **fields: Any) -> None:
    """Its record's link goes with it."""
    links = fields.pop("links", (run,))
    fields = {"resubmits": MISSED.id, "resubmits_first": tick(due_s), **fields}
    again = a_run(
        run, RunState.QUEUED, origin=Origin.RESUBMISSION, scheduled_at=at(due_s), **fields
    )
    story.commit(
        (KEYS.of(Kind.RUN, "job", run), encode(again)),
        (KEYS.archive("job", MISSED.id), encode(replace(MISSED, resubmitted_as=links))),
    )


@pytest.mark.parametrize("due_s", [60, 180, 300])
def test_any_tick_of_the_record(story: Story, due_s: float) -> None:
    missed(story)
    resubmitted(story, due_s)
    check_clean(story)


@pytest.mark.parametrize("due_s", [0, 90, 360])
def test_a_time_that_is_none_of_its_ticks(story: Story, due_s: float) -> None:
    missed(story)
    resubmitted(story, due_s)
    check(story, Invariant.I8, "stands for no tick of that time")


def test_it_goes_back_to_its_tick(story: Story) -> None:
    missed(story)
    resubmitted(story, 180, resubmits_first=MISSED.id)
    check(story, Invariant.I8, f"it goes back to {MISSED.id}")


def test_each_of_them_once_at_a_time(story: Story) -> None:
    missed(story)
    resubmitted(story, 180)
    resubmitted(story, 240, "r2")
    resubmitted(story, 180, "r3")
    check(story, Invariant.I8, f"{tick(180)} is resubmitted as r1 already, which isn't over")


def test_a_record_without_the_link(story: Story) -> None:
    missed(story)
    resubmitted(story, 180, links=())
    check(story, Invariant.I8, "has no link to it")


def test_a_record_that_tells_of_other_ticks(story: Story) -> None:
    missed(story, replace(MISSED, missed_steps=((30_000, 2), (90_000, 2))))
    check(story, Invariant.I8, "it doesn't say which missed ticks it stands for")
