"""Several patterns as one schedule; intervals, single times, zones; what refusals say."""

from __future__ import annotations

import time

import msgspec
import pytest

from etcsched.core.schedule import (
    At,
    Cron,
    Every,
    Pattern,
    Schedule,
    check_timezone,
    parse_at,
    parse_every,
    schedule_of,
)
from etcsched.core.times import Utc, ms_of, utc_of

NOON = Utc("2026-11-22T12:00:00.000Z")
NOON_MS = ms_of(NOON)
HOUR_MS = 3_600_000


def shown(schedule: Schedule, after_ms: int, through_ms: int) -> list[str]:
    return [utc_of(ms)[11:19] for ms in schedule.ticks(after_ms, through_ms)]


def test_two_patterns_due_at_one_instant_make_one_tick() -> None:
    schedule = Schedule.parse(
        [Cron("0 * * * *"), Cron("*/30 * * * *"), Every(1800, NOON), At(Utc(NOON))], "UTC"
    )
    assert shown(schedule, NOON_MS - 1, NOON_MS + HOUR_MS) == ["12:00:00", "12:30:00", "13:00:00"]


def test_patterns_interleave() -> None:
    schedule = Schedule.parse(
        [Cron("15 * * * *"), Every(1500, NOON), At(Utc("2026-11-22T12:20:01.000Z"))], "UTC"
    )
    assert shown(schedule, NOON_MS, NOON_MS + HOUR_MS) == [
        "12:15:00",
        "12:20:01",
        "12:25:00",
        "12:50:00",
    ]


def test_bounds_are_after_and_through() -> None:
    schedule = Schedule.parse([Cron("0 * * * *")], "UTC")
    assert schedule.next_after(NOON_MS) == NOON_MS + HOUR_MS
    assert schedule.next_after(NOON_MS - 1) == NOON_MS
    assert list(schedule.ticks(NOON_MS, NOON_MS + HOUR_MS)) == [NOON_MS + HOUR_MS]
    assert list(schedule.ticks(NOON_MS, NOON_MS + HOUR_MS - 1)) == []
    assert list(schedule.ticks(NOON_MS - 1, NOON_MS)) == [NOON_MS]
    assert schedule.last_before(NOON_MS, NOON_MS + HOUR_MS) == NOON_MS + HOUR_MS
    assert schedule.last_before(NOON_MS, NOON_MS + HOUR_MS - 1) is None
    assert schedule.last_before(NOON_MS - 1, NOON_MS) == NOON_MS
    assert schedule.last_before(NOON_MS + HOUR_MS, NOON_MS) is None
    assert list(schedule.ticks(NOON_MS + HOUR_MS, NOON_MS)) == []


def test_intervals_start_one_interval_after_their_anchor() -> None:
    schedule = Schedule.parse([Every(30, NOON)], "UTC")
    assert schedule.next_after(0) == NOON_MS + 30_000
    assert schedule.next_after(NOON_MS) == NOON_MS + 30_000
    assert schedule.next_after(NOON_MS + 30_000) == NOON_MS + 60_000
    assert schedule.last_before(0, NOON_MS + 29_999) is None
    assert schedule.last_before(0, NOON_MS + 99_999) == NOON_MS + 90_000


def test_an_anchor_within_a_second_counts_from_its_start() -> None:
    within = Utc("2026-11-22T12:00:00.900Z")
    assert Schedule.parse([Every(1, within)], "UTC").next_after(NOON_MS) == NOON_MS + 1000
    assert parse_every("1h30m", ms_of(within)) == Every(5400, NOON)


def test_a_single_time_is_due_once() -> None:
    schedule = Schedule.parse([At(NOON)], "UTC")
    assert schedule.next_after(NOON_MS - 1) == NOON_MS
    assert schedule.next_after(NOON_MS) is None
    assert schedule.last_before(0, NOON_MS * 2) == NOON_MS


def test_without_patterns_nothing_is_due() -> None:
    schedule = Schedule.parse([], "UTC")
    assert schedule.next_after(NOON_MS) is None
    assert schedule.last_before(0, NOON_MS) is None
    assert list(schedule.ticks(0, NOON_MS)) == []


@pytest.mark.parametrize("after_ms", [-(10**18), -1, 0, 221_876_927_999_999, 10**18])
def test_any_time_can_be_asked_about(after_ms: int) -> None:
    """Ticks lie in the years 1970 to 9000, whoever's clock says what."""
    for zone in ("UTC", "Africa/Monrovia", "Pacific/Kiritimati", "America/New_York"):
        schedule = Schedule.parse([Cron("* * * * * *"), Cron("0 0 29 2 *")], zone)
        following = schedule.next_after(after_ms)
        assert following is None or 0 <= following < 221_876_928_000_000
        assert (following is None) == (after_ms >= 221_876_927_999_000)
        assert schedule.last_before(-(10**18), after_ms) == (
            None if after_ms < 0 else min(after_ms, 221_876_927_999_000) // 1000 * 1000
        )


def test_the_last_tick_of_a_long_outage_is_found_without_listing_all() -> None:
    schedule = Schedule.parse([Cron("* * * * * *"), Every(1, NOON)], "Europe/Berlin")
    ten_years_ms = 10 * 365 * 24 * HOUR_MS
    started = time.perf_counter()
    assert schedule.last_before(NOON_MS, NOON_MS + ten_years_ms + 1) == NOON_MS + ten_years_ms
    assert time.perf_counter() - started < 1  # listing them takes an hour


def test_ticks_are_computed_as_they_are_asked_for() -> None:
    schedule = Schedule.parse([Cron("* * * * * *")], "UTC")
    assert next(schedule.ticks(NOON_MS, NOON_MS * 4)) == NOON_MS + 1000


def test_schedules_are_shared() -> None:
    patterns: tuple[Pattern, ...] = (Cron("0 3 * * *"), Every(30, NOON))
    again: tuple[Pattern, ...] = (Cron("0 3 * * *"), Every(30, NOON))
    assert schedule_of(patterns, "UTC") is schedule_of(again, "UTC")
    assert schedule_of(patterns, "UTC") is not schedule_of(patterns, "Europe/Berlin")


def test_patterns_are_stored_as_tagged_objects() -> None:
    patterns: list[Pattern] = [Cron("0 3 * * *"), Every(30, NOON), At(NOON)]
    text = msgspec.json.encode(patterns)
    assert text == (
        b'[{"kind":"cron","expression":"0 3 * * *"},'
        b'{"kind":"every","interval_s":30,"anchor":"2026-11-22T12:00:00.000Z"},'
        b'{"kind":"at","time":"2026-11-22T12:00:00.000Z"}]'
    )
    assert msgspec.json.decode(text, type=list[Pattern]) == patterns


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (Every(0, NOON), "every 0s: the interval must be at least 1s"),
        (Every(30, Utc("noon")), "'noon' is not a time"),
        (At(Utc("2026-11-22")), "'2026-11-22' is not a time"),
        (At(Utc("2026-11-22T12:00:00.500Z")), "must be a whole second"),
        (Cron("nonsense"), "has 1 fields"),
    ],
)
def test_patterns_that_make_no_sense_are_refused(pattern: Pattern, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Schedule.parse([pattern], "UTC")


@pytest.mark.parametrize("text", ["0s", "500ms", "1s500ms", "30", "", "-5s", "soon"])
def test_intervals_are_whole_seconds(text: str) -> None:
    with pytest.raises(ValueError):
        parse_every(text, NOON_MS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tomorrow", "not a time; write it like 2026-11-22T19:00:00"),
        ("", "not a time"),
        ("2026-02-30T00:00", "not a time"),
        ("2026-11-22T19:00:00.5", "whole second"),
        ("2026-11-22T19:00:00+01:00:00.5", "offset must be whole seconds"),
        ("1969-12-31T00:00", "years 1970 to 9000"),
        ("9999-12-31T23:59:59-12:00", "years 1970 to 9000"),
    ],
)
def test_times_that_make_no_sense_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_at(text, "Europe/Berlin")


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("europe/berlin", "did you mean Europe/Berlin"),
        ("Berlin", "did you mean Europe/Berlin"),
        ("New York", "did you mean America/New_York"),
        ("Europe/Berln", "did you mean Europe/Berlin"),
        ("Nowhere/At_All", "write it like Europe/Berlin or UTC"),
        ("", "write it like Europe/Berlin or UTC"),
        ("../../etc/passwd", "write it like"),
        ("/etc/localtime", "unknown"),
        ("localtime", "unknown"),
        ("right/Europe/Berlin", "did you mean Europe/Berlin"),
        ("Europe", "unknown"),
    ],
)
def test_unknown_zones_are_refused_with_near_matches(zone: str, hint: str) -> None:
    for check in (check_timezone, lambda name: Schedule.parse([], name)):
        with pytest.raises(ValueError) as caught:
            check(zone)
        assert str(caught.value).startswith(f"timezone {zone!r} is unknown; ")
        assert hint in str(caught.value)
