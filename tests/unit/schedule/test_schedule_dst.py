"""Ticks where clocks change, in the zone's own time with its offset."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from etcsched.core.schedule import At, Cron, Every, Schedule, parse_at
from etcsched.core.times import Utc, ms_of, utc_of


def shown(expression: str, zone: str, first: str, last: str) -> list[str]:
    """Ticks in [first, last), wall times of the zone; each as day, time and offset.

    Walked both forward and backward."""
    key = ZoneInfo(zone)

    def ms(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=key).timestamp()) * 1000

    schedule = Schedule.parse([Cron(expression)], zone)
    ticks = list(schedule.ticks(ms(first) - 1, ms(last) - 1))
    backward: list[int] = []
    through_ms = ms(last) - 1
    while (tick_ms := schedule.last_before(ms(first) - 1, through_ms)) is not None:
        backward.append(tick_ms)
        through_ms = tick_ms - 1
    assert backward[::-1] == ticks
    return [f"{datetime.fromtimestamp(tick // 1000, key):%d %H:%M:%S %z}" for tick in ticks]


BERLIN_SPRING = ("Europe/Berlin", "2026-03-29T00:00", "2026-03-30T00:00")  # 02:00 to 03:00
BERLIN_AUTUMN = ("Europe/Berlin", "2026-10-25T00:00", "2026-10-26T00:00")  # 03:00 to 02:00


@pytest.mark.parametrize(
    ("expression", "where", "expected"),
    [
        # A fixed hour in the gap: once, right after it.
        ("30 2 * * *", BERLIN_SPRING, ["29 03:00:00 +0200"]),
        ("*/10 2 * * *", BERLIN_SPRING, ["29 03:00:00 +0200"]),
        ("*/20 * 2 * * *", BERLIN_SPRING, ["29 03:00:00 +0200"]),
        ("0 2,3 * * *", BERLIN_SPRING, ["29 03:00:00 +0200"]),
        ("30 2-3 * * *", BERLIN_SPRING, ["29 03:00:00 +0200", "29 03:30:00 +0200"]),
        ("59 1 * * *", BERLIN_SPRING, ["29 01:59:00 +0100"]),
        ("0 3 * * *", BERLIN_SPRING, ["29 03:00:00 +0200"]),
        # A fixed hour that comes twice: its first occurrence.
        ("30 2 * * *", BERLIN_AUTUMN, ["25 02:30:00 +0200"]),
        ("0,30 2 * * *", BERLIN_AUTUMN, ["25 02:00:00 +0200", "25 02:30:00 +0200"]),
        (
            "30 1-3 * * *",
            BERLIN_AUTUMN,
            ["25 01:30:00 +0200", "25 02:30:00 +0200", "25 03:30:00 +0100"],
        ),
        # Lists and ranges are fixed hours, however many.
        ("30 0-23 28-29 3 *", BERLIN_SPRING, [f"29 0{h}:30:00 +0100" for h in range(2)]
         + ["29 03:00:00 +0200"] + [f"29 {h:02d}:30:00 +0200" for h in range(3, 24)]),
        # By the hour: whenever the clock matches, twice where it shows an hour twice.
        (
            "30 * * * *",
            ("Europe/Berlin", "2026-03-29T01:00", "2026-03-29T05:00"),
            ["29 01:30:00 +0100", "29 03:30:00 +0200", "29 04:30:00 +0200"],
        ),
        (
            "30 * * * *",
            ("Europe/Berlin", "2026-10-25T01:00", "2026-10-25T04:00"),
            ["25 01:30:00 +0200", "25 02:30:00 +0200", "25 02:30:00 +0100", "25 03:30:00 +0100"],
        ),
        (
            "0 */2 * * *",
            ("Europe/Berlin", "2026-03-29T00:00", "2026-03-29T07:00"),
            ["29 00:00:00 +0100", "29 04:00:00 +0200", "29 06:00:00 +0200"],
        ),
        (
            "0 */2 * * *",
            ("Europe/Berlin", "2026-10-25T00:00", "2026-10-25T05:00"),
            ["25 00:00:00 +0200", "25 02:00:00 +0200", "25 02:00:00 +0100", "25 04:00:00 +0100"],
        ),
        # Half an hour: 02:00 to 02:30, and 02:00 to 01:30.
        (
            "15 2 * * *",
            ("Australia/Lord_Howe", "2026-10-04T00:00", "2026-10-05T00:00"),
            ["04 02:30:00 +1100"],
        ),
        (
            "45 1 * * *",
            ("Australia/Lord_Howe", "2026-04-05T00:00", "2026-04-06T00:00"),
            ["05 01:45:00 +1100"],
        ),
        (
            "45 * * * *",
            ("Australia/Lord_Howe", "2026-04-05T00:30", "2026-04-05T03:00"),
            ["05 00:45:00 +1100", "05 01:45:00 +1100", "05 01:45:00 +1030", "05 02:45:00 +1030"],
        ),
        # Midnight itself is skipped, or comes twice with the hour before.
        (
            "0 0 * * *",
            ("Asia/Beirut", "2026-03-28T00:00", "2026-03-31T00:00"),
            ["28 00:00:00 +0200", "29 01:00:00 +0300", "30 00:00:00 +0300"],
        ),
        (
            "@daily",
            ("America/Sao_Paulo", "2017-10-14T00:00", "2017-10-17T00:00"),
            ["14 00:00:00 -0300", "15 01:00:00 -0200", "16 00:00:00 -0200"],
        ),
        (
            "30 23 * * *",
            ("America/Sao_Paulo", "2018-02-16T00:00", "2018-02-19T00:00"),
            ["16 23:30:00 -0200", "17 23:30:00 -0200", "18 23:30:00 -0300"],
        ),
        (
            "0 0 18 2 *",
            ("America/Sao_Paulo", "2018-02-16T00:00", "2018-02-20T00:00"),
            ["18 00:00:00 -0300"],
        ),
        # 30 December 2011 didn't happen in Samoa.
        (
            "0 9 * * *",
            ("Pacific/Apia", "2011-12-29T00:00", "2012-01-01T00:00"),
            ["29 09:00:00 -1000", "31 00:00:00 +1400", "31 09:00:00 +1400"],
        ),
        (
            "0 */12 * * *",
            ("Pacific/Apia", "2011-12-29T00:00", "2012-01-01T00:00"),
            ["29 00:00:00 -1000", "29 12:00:00 -1000", "31 00:00:00 +1400", "31 12:00:00 +1400"],
        ),
    ],
)  # fmt: skip
def test_ticks_where_clocks_change(
    expression: str, where: tuple[str, str, str], expected: list[str]
) -> None:
    assert shown(expression, *where) == expected


def test_what_starts_within_the_repeated_hour_waits_for_the_next_day() -> None:
    schedule = Schedule.parse([Cron("30 2 * * *")], "Europe/Berlin")
    second_two_oclock_ms = ms_of(Utc("2026-10-25T01:00:00.000Z"))
    assert schedule.next_after(second_two_oclock_ms) == ms_of(Utc("2026-10-26T01:30:00.000Z"))


def test_an_expression_that_only_gaps_match_has_no_next_tick() -> None:
    # Egypt's clocks skip the midnight of April's last Friday, and by the hour it isn't made up.
    schedule = Schedule.parse([Cron("0 */24 * 4 FRIL")], "Africa/Cairo")
    start_ms = ms_of(Utc("2030-01-01T00:00:00.000Z"))
    assert schedule.next_after(start_ms) is None
    assert schedule.last_before(start_ms, start_ms + 100 * 365 * 86_400_000) is None
    fixed = Schedule.parse([Cron("0 0 * 4 FRIL")], "Africa/Cairo")
    assert fixed.next_after(start_ms) == ms_of(Utc("2030-04-25T22:00:00.000Z"))


def test_intervals_are_elapsed_time() -> None:
    anchor = Utc("2026-10-24T22:00:00.000Z")
    schedule = Schedule.parse([Every(3600, anchor)], "Europe/Berlin")
    ticks = list(schedule.ticks(ms_of(anchor), ms_of(anchor) + 5 * 3_600_000))
    assert ticks == [ms_of(anchor) + n * 3_600_000 for n in range(1, 6)]


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-11-22T19:00:00Z", "Europe/Berlin", "2026-11-22T19:00:00.000Z"),
        ("2026-11-22T19:00:00+05:45", "Europe/Berlin", "2026-11-22T13:15:00.000Z"),
        ("2026-11-22T19:00", "Europe/Berlin", "2026-11-22T18:00:00.000Z"),
        ("2026-11-22 19:00:00", "UTC", "2026-11-22T19:00:00.000Z"),
        ("2026-11-22", "America/New_York", "2026-11-22T05:00:00.000Z"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:00:00.000Z"),  # in the gap
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30:00.000Z"),  # comes twice
        ("2026-10-25T02:30+01:00", "Europe/Berlin", "2026-10-25T01:30:00.000Z"),
        ("2011-12-30T12:00", "Pacific/Apia", "2011-12-30T10:00:00.000Z"),
    ],
)
def test_at_is_read_in_the_jobs_zone(text: str, zone: str, expected: str) -> None:
    assert parse_at(text, zone) == At(Utc(expected))


def test_a_daily_job_has_one_tick_a_day_for_a_century() -> None:
    schedule = Schedule.parse([Cron("30 2 * * *")], "Europe/Berlin")
    first_ms, last_ms = (ms_of(Utc(f"{year}-01-01T00:00:00.000Z")) for year in (2000, 2100))
    ticks = list(schedule.ticks(first_ms, last_ms))
    assert len(ticks) == 36_525
    # In spring 02:30 is 03:00, half an hour early as time elapses; in autumn an hour is repeated.
    half_hours = {(later - earlier) / 1_800_000 for earlier, later in pairwise(ticks)}
    assert half_hours == {47, 48, 50}
    assert utc_of(ticks[-1]) == "2099-12-31T01:30:00.000Z"
