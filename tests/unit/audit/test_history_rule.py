"""I7: what may be forgotten, and what not."""

from __future__ import annotations

import pytest

from etcsched.audit.history import FaultKind
from etcsched.audit.verdict import Invariant
from etcsched.core.records import ClusterSettings, Keep, Kind
from etcsched.core.states import RunState
from tests.unit.audit.story import KEYS, Story, a_job, a_run, tick

KEEPS_TWO = a_job(keep=Keep(runs=2, age_s=600.0))
FIRST, SECOND, THIRD = tick(60), tick(120), tick(180)


@pytest.fixture
def story() -> Story:
    """Three runs are over; their job keeps two."""
    story = Story().opened()
    story.defined(KEEPS_TWO)
    for run in (FIRST, SECOND, THIRD):
        story.put((KEYS.archive("job", run), a_run(run, RunState.COMPLETED)))
    story.now_s = 200
    return story


def forgotten(story: Story) -> list[str]:
    """What the auditor says of it."""
    found = story.verdict().violations
    return [each.text for each in found if each.invariant is Invariant.I7]


def test_what_keep_doesnt_name(story: Story) -> None:
    story.delete(KEYS.archive("job", FIRST))
    assert forgotten(story) == []


def test_what_keep_names(story: Story) -> None:
    story.delete(KEYS.archive("job", SECOND))
    assert forgotten(story) == [
        f"job/{SECOND}: forgotten at an age of 80 s, with 1 newer ones; its job keeps 2 runs for "
        "600 s"
    ]


def test_two_where_one_is_too_much(story: Story) -> None:
    story.delete(KEYS.archive("job", FIRST))
    story.delete(KEYS.archive("job", SECOND))
    (text,) = forgotten(story)
    assert text.startswith(f"job/{SECOND}: ")


def test_what_is_too_old(story: Story) -> None:
    story.now_s = 185 + 600
    story.delete(KEYS.archive("job", THIRD))
    assert forgotten(story) == []


@pytest.mark.parametrize(("seconds", "wrong"), [(59, 0), (61, 1)])
def test_a_keep_of_a_moment_ago_counts(story: Story, seconds: float, wrong: int) -> None:
    story.put((KEYS.of(Kind.JOB, "job"), a_job(keep=Keep(runs=1))))
    story.put((KEYS.of(Kind.JOB, "job"), KEEPS_TWO))
    story.now_s += seconds
    story.delete(KEYS.archive("job", SECOND))
    assert len(forgotten(story)) == wrong


def test_what_a_deleted_job_has_left(story: Story) -> None:
    story.delete(KEYS.of(Kind.JOB, "job"))
    story.now_s += 61
    story.delete(KEYS.archive("job", FIRST))
    assert len(forgotten(story)) == 1


@pytest.mark.parametrize("kind", [FaultKind.CLOCK, FaultKind.BY_HAND, FaultKind.KILLED])
def test_a_wrong_clock_or_a_hand_excuses_it(story: Story, kind: FaultKind) -> None:
    story.delete(KEYS.archive("job", SECOND))
    story.fault(kind, 150, 190)
    assert len(forgotten(story)) == (1 if kind is FaultKind.KILLED else 0)


def test_where_there_may_be_too_much_nothing_is_judged(story: Story) -> None:
    story.put((KEYS.of(Kind.SETTINGS), ClusterSettings(max_history_bytes=4096)))
    story.delete(KEYS.archive("job", THIRD))
    assert forgotten(story) == []
    (result,) = [one for one in story.verdict().results if one.invariant is Invariant.I7]
    assert "history may be larger than the settings allow" in str(result.not_judged)
