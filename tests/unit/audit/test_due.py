"""The auditor's own cron against an oracle, cronsim and, last, what it judges."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from etcsched.audit.due import due_within, is_due
from etcsched.core.schedule import At, Cron, Every, Schedule
from etcsched.core.times import Utc, ms_of
from tests.support.cron_oracle import (
    CLOCK_CHANGES,
    SPECIAL_DATES,
    SPECIAL_WEEKDAYS,
    Drawn,
    every_twenty_minutes,
    expressions,
    oracle_ticks_s,
    utc_midnight,
)


def ticks_s(text: str, zone: str, first: datetime, last: datetime) -> list[int]:
    """In [first, last)."""
    first_ms, last_ms = int(first.timestamp()) * 1000, int(last.timestamp()) * 1000
    found = due_within((Cron(text),), zone, first_ms - 1, last_ms - 1)
    return [tick_ms // 1000 for tick_ms in found]


@pytest.mark.parametrize("change", CLOCK_CHANGES, ids=lambda change: f"{change[0]} {change[1]}")
@pytest.mark.parametrize(("hour", "step"), [("*", 1), ("0-23", 1), ("*/2", 2), ("0-23/2", 2)])
def test_at_every_clock_change_it_is_the_oracles(
    hour: str, step: int, change: tuple[str, date]
) -> None:
    zone, day = change
    drawn = every_twenty_minutes(hour, step)
    first, last = utc_midnight(day) - timedelta(hours=12), utc_midnight(day) + timedelta(hours=40)
    expected = oracle_ticks_s(drawn, ZoneInfo(zone), first, last)
    assert ticks_s(drawn.text, zone, first, last) == expected


@settings(deadline=None, max_examples=20)
@given(expressions(), st.sampled_from(CLOCK_CHANGES))
def test_any_expression_around_a_clock_change_is_the_oracles(
    drawn: Drawn, change: tuple[str, date]
) -> None:
    zone, day = change
    first, last = utc_midnight(day) - timedelta(hours=6), utc_midnight(day) + timedelta(hours=30)
    expected = oracle_ticks_s(drawn, ZoneInfo(zone), first, last)
    assert ticks_s(drawn.text, zone, first, last) == expected


def test_special_days_are_the_oracles_for_a_year() -> None:
    days = [date(2024, 1, 1) + timedelta(days=n) for n in range(366)]
    noons = [int(utc_midnight(day).timestamp()) * 1000 for day in days]
    columns = [(f"{text} * *", on) for text, on in SPECIAL_DATES]
    columns += [(f"* * {text}", on) for text, on in SPECIAL_WEEKDAYS]
    for text, on in columns:
        patterns = (Cron(f"0 0 {text}"),)
        found = [d for d, ms in zip(days, noons, strict=True) if is_due(patterns, "UTC", ms)]
        assert found == [day for day in days if on(day)], text


@pytest.mark.parametrize(
    "text",
    ["*/10 * * * * *", "5,10 0 9-17 * * MON-FRI", "0 0 L * *", "30 4 1,15 * 5", "0 0 * * 5L"],
)
def test_in_utc_cronsim_agrees(text: str) -> None:
    start = datetime(2026, 11, 22, tzinfo=UTC)
    wanted = [int(moment.timestamp()) for moment in islice(CronSim(text, start), 10)]
    last = datetime.fromtimestamp(wanted[-1] + 1, UTC)
    assert ticks_s(text, "UTC", start + timedelta(seconds=1), last) == wanted


@pytest.mark.parametrize(
    "text", ["@hourly", "@weekly", "0 0 29 2 *", "0 12 15W * ?", "0 0 * * 5-SUN"]
)
def test_it_reads_what_the_product_reads(text: str) -> None:
    begin, end = ms_of(Utc("2027-12-01T00:00:00.000Z")), ms_of(Utc("2028-04-01T00:00:00.000Z"))
    judged = list(Schedule.parse([Cron(text)], "Europe/Berlin").ticks(begin, end))
    assert judged
    assert list(due_within((Cron(text),), "Europe/Berlin", begin, end)) == judged


def test_every_counts_from_its_anchor_and_at_comes_once() -> None:
    anchor = Utc("2026-11-22T12:00:00.700Z")
    patterns = (
        Every(1800, anchor),
        At(Utc("2026-11-22T13:00:00.000Z")),
        At(Utc("2026-11-22T13:10:00.000Z")),
    )
    begin = ms_of(Utc("2026-11-22T00:00:00.000Z"))
    found = [
        datetime.fromtimestamp(ms / 1000, UTC).strftime("%H:%M:%S")
        for ms in due_within(patterns, "UTC", begin, ms_of(Utc("2026-11-22T13:30:00.000Z")))
    ]
    assert found == ["12:30:00", "13:00:00", "13:10:00", "13:30:00"]


def test_what_is_no_schedule_is_said() -> None:
    for pattern, zone in (
        (Cron("61 * * * *"), "UTC"),
        (Cron("* *"), "UTC"),
        (Cron("@reboot"), "UTC"),
    ):
        with pytest.raises(ValueError):
            list(due_within((pattern,), zone, 0, 1000))
