"""I7: what a run's record tells of its attempts, also where there are more than it has room for."""

from __future__ import annotations

import pytest

from etcsched.audit.history import WordKind
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Attempt, Kind
from etcsched.core.states import Outcome, RunState
from etcsched.keyspace.codec import encode
from tests.unit.audit.story import KEYS, Story, a_run, an_attempt, tick
from tests.unit.audit.test_rules import check, check_clean

ONE = tick(60)
KEPT = 500


@pytest.fixture
def story() -> Story:
    return Story().opened()


def told(story: Story, *attempts: Attempt) -> None:
    run = a_run(ONE, RunState.RETRYING, attempts=attempts)
    story.put((KEYS.of(Kind.RUN, "job", ONE), run))


def over(story: Story, *attempts: Attempt) -> None:
    run = a_run(ONE, RunState.RETRYING, RunState.FAILED, attempts=attempts)
    story.commit((KEYS.archive("job", ONE), encode(run)), (KEYS.of(Kind.RUN, "job", ONE), None))


def failed(count: int) -> list[Attempt]:
    """So many attempts; their tokens begin above the revision that each of these stories is at."""
    return [an_attempt(1000 + n, Outcome.FAILED, n + 1) for n in range(count)]


def test_i7_attempts_that_are_told_on(story: Story) -> None:
    story.now_s = 60.01
    told(story, *failed(1))
    told(story, *failed(2))
    over(story, *failed(3))
    check_clean(story)


@pytest.mark.parametrize(
    "after",
    [
        failed(3)[1:],
        failed(1),
        [*failed(1), an_attempt(1001, Outcome.DIED, 2), failed(3)[2]],
        [failed(2)[1], failed(1)[0]],
        [failed(1)[0], failed(3)[2], failed(2)[1]],
    ],
)
@pytest.mark.parametrize("ends", [False, True])
def test_i7_attempts_that_are_told_otherwise(
    story: Story, after: list[Attempt], ends: bool
) -> None:
    story.now_s = 60.01
    told(story, *failed(2))
    (over if ends else told)(story, *after)
    if not ends:
        over(story, *after)
    check(story, Invariant.I7, "what was told of its attempts is told no more")


def kept_of(count: int) -> list[Attempt]:
    every = failed(count)
    return every if count <= KEPT else [every[0], *every[1 - KEPT :]]


def tried_too_often(story: Story) -> None:
    """For its record to have room for all attempts."""
    for count in range(KEPT - 1, KEPT + 4):
        told(story, *kept_of(count))
    over(story, *kept_of(KEPT + 4))


def test_i7_of_very_many_the_first_and_the_newest_are_told(story: Story) -> None:
    story.now_s = 60.01
    tried_too_often(story)
    check_clean(story)


def test_i7_a_process_of_an_attempt_that_is_told_no_more(story: Story) -> None:
    """It did run, and its record did say so."""
    story.now_s = 60.01
    tried_too_often(story)
    story.word(WordKind.START, ONE, 1002)
    verdict = story.verdict()
    assert Invariant.I7 not in {violation.invariant for violation in verdict.violations}


def test_i7_a_process_of_one_that_was_never_told(story: Story) -> None:
    story.now_s = 60.01
    tried_too_often(story)
    story.word(WordKind.START, ONE, 999)
    texts = " ".join(violation.text for violation in story.verdict().violations)
    assert "it ran with the tokens [999], its record has" in texts


@pytest.mark.parametrize(
    "after",
    [
        failed(KEPT + 1)[1:],
        failed(KEPT),
        [*failed(KEPT - 1), failed(KEPT + 1)[-1]],
        [failed(1)[0], *failed(KEPT + 1)[3:]],
    ],
)
def test_i7_of_very_many_others_are_told(story: Story, after: list[Attempt]) -> None:
    """The first is missing; the newest; a newer one than need be; or more than need be."""
    story.now_s = 60.01
    told(story, *failed(KEPT))
    story.put((KEYS.of(Kind.RUN, "job", ONE), a_run(ONE, RunState.ASSIGNED, attempts=tuple(after))))
    over(story, *after)
    if after == failed(KEPT):
        check_clean(story)  # (That one was lost is seen where its report is folded.)
    else:
        check(story, Invariant.I7, "what was told of its attempts is told no more")
