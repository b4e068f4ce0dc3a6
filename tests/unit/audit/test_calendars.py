"""The auditor's own reading of calendars, windows and splay."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

import pytest

from etcsched.audit.definitions import Definitions
from etcsched.audit.verdict import Invariant
from etcsched.core import timeline
from etcsched.core.limits import Limits
from etcsched.core.records import (
    Calendar,
    CalendarVersion,
    Job,
    Kind,
    Noop,
    Run,
    ScheduleVersion,
    Window,
)
from etcsched.core.schedule import Cron
from etcsched.core.states import JobState, RunState
from etcsched.core.times import Utc, utc_of
from tests.unit.audit.story import KEYS, NOON, Story, a_job, a_run, an_assignment, at, tick
from tests.unit.audit.test_rules import check, check_clean

TODAY = "2026-11-22"
ONE = tick(60)


@pytest.fixture
def story() -> Story:
    return Story().opened()


def calendar(*versions: tuple[float, tuple[str, ...]]) -> Calendar:
    made = tuple(CalendarVersion(since=at(since), exclude=days) for since, days in versions)
    return Calendar(name="c", versions=made)


def with_calendar(*versions: tuple[float, tuple[str, ...]]) -> Story:
    story = Story().opened()
    version = a_job().versions[0]
    story.put((KEYS.of(Kind.CALENDAR, "c"), calendar(*versions)))
    uses = ScheduleVersion(since=version.since, patterns=version.patterns, calendars=("c",))
    story.defined(a_job(versions=(uses,)))
    return story


def test_a_tick_of_an_excluded_day_isnt_asked_for() -> None:
    story = with_calendar((0.5, (TODAY,)))
    story.through(125)
    check_clean(story)


def test_i1_a_run_of_an_excluded_day() -> None:
    story = with_calendar((0.5, (TODAY,)))
    story.now_s = 61
    story.put((KEYS.archive("job", ONE), a_run(ONE, RunState.MISSED)))
    check(story, Invariant.I1, "wasn't due")


def test_i1_the_days_in_force_at_its_time_decide() -> None:
    story = with_calendar((0.5, ()), (90, (TODAY,)))
    story.through(125)
    check(story, Invariant.I1, "job, due 2026-11-22T12:01:00.000Z: lost")


def test_i1_days_from_before_the_watermark() -> None:
    story = with_calendar((0.5, (TODAY,)))
    story.through(59)
    story.put((KEYS.of(Kind.CALENDAR, "c"), calendar((0.5, (TODAY,)), (30, ()))))
    check(story, Invariant.I1, "before the watermark")


def test_i1_a_window() -> None:
    story = Story().opened()
    version = a_job().versions[0]
    off = Window(since=at(50), until=at(100), state=JobState.DISABLED)
    windowed = ScheduleVersion(since=version.since, patterns=version.patterns, windows=(off,))
    story.defined(a_job(versions=(windowed,)))
    story.through(110)
    check_clean(story)
    story.through(125)
    check(story, Invariant.I1, "12:02:00.000Z: lost")


@pytest.mark.parametrize(
    ("delays", "assigned_s", "words"),
    [
        ((20.0,), 81.0, ""),
        ((20.0,), 75.0, "was assigned 5000 ms before its splay's end"),
        ((40.0,), 101.0, "delayed by more than its splay"),
        ((20.0, 21.0), 82.0, "delayed by another time than before"),
    ],
)
def test_i2_a_splay(story: Story, delays: tuple[float, ...], assigned_s: float, words: str) -> None:
    story.defined(a_job(splay_s=30.0))
    runs: list[Run] = []
    for number, delay_s in enumerate(delays):
        tick_s = 60 * (number + 1)
        fields: dict[str, Any] = {"not_before": at(tick_s + delay_s)}
        story.now_s = tick_s + 0.01
        run = a_run(tick(tick_s), RunState.READY, **fields)
        story.put((KEYS.of(Kind.RUN, "job", run.id), run))
        story.now_s = assigned_s + 60 * number
        runs.append(run)
        moved = a_run(run.id, RunState.READY, RunState.ASSIGNED, agent="a", attempt=1, **fields)
        story.put(
            (KEYS.of(Kind.RUN, "job", run.id), moved),
            (KEYS.of(Kind.ASSIGNMENT, "a", "job", run.id), an_assignment("a", run.id, 1)),
        )
    found = [v.text for v in story.verdict().violations if v.invariant is Invariant.I2]
    assert bool(found) == bool(words), found
    assert all(words in text for text in found)


def test_any_calendars_and_windows_agree_with_the_product() -> None:
    """Two readings of one definition, made apart from each other."""
    chance = random.Random(3)
    day_ms = 86_400_000

    def utc(days: float) -> Utc:
        return utc_of(NOON + int(days * 24) * 3_600_000)

    for _ in range(60):
        starts = sorted(chance.sample(range(24, 20 * 24), 6))
        windows = tuple(
            Window(
                since=utc_of(NOON + first * 3_600_000),
                until=utc_of(NOON + last * 3_600_000),
                state=chance.choice([None, JobState.DISABLED, JobState.ENABLED]),
                patterns=chance.choice([None, (Cron("30 */3 * * *"),)]),
            )
            for first, last in zip(starts[::2], starts[1::2], strict=True)
        )
        calendars = {}
        for name in "cd":
            since = sorted(chance.sample(range(15), 3))
            calendars[name] = Calendar(
                name=name,
                versions=tuple(
                    CalendarVersion(since=utc(each), exclude=some_days(chance), include=include)
                    for each in since
                    for include in [some_days(chance) if chance.random() < 0.3 else ()]
                ),
            )
        job = Job(
            name="job", run=Noop(),
            versions=(ScheduleVersion(
                since=utc(0), patterns=(Cron("15 1,12,23 * * *"),),
                timezone=chance.choice(["UTC", "Asia/Tokyo", "America/New_York"]),
                calendars=("c", "d"), windows=windows,
                state=chance.choice([JobState.ENABLED, JobState.DISABLED]),
            ),),
        )  # fmt: skip
        definitions = Definitions(0)
        assert definitions.job_put(job) is None
        for each in calendars.values():
            definitions.calendar_put(each)
        assert definitions.unknown("job") == ""
        through_ms = NOON + 25 * day_ms
        expected = list(timeline.ticks(job, Limits((), calendars), 0, through_ms))
        assert list(definitions.due("job", NOON - day_ms, through_ms)) == expected
        assert all(definitions.is_due("job", tick_ms) for tick_ms in expected)


def some_days(chance: random.Random) -> tuple[str, ...]:
    first = [date(2026, 11, 22) + timedelta(days=chance.randint(0, 22)) for _ in range(3)]
    return tuple(f"{day}/{day + timedelta(days=chance.randint(0, 3))}" for day in first)
