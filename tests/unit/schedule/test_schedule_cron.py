"""What each form of a cron expression means, and what refusals say. All in UTC: DST has its own."""

from __future__ import annotations

from itertools import islice

import pytest

from etcsched.core.schedule import Cron, Schedule
from etcsched.core.schedule.cron import CronExpression, parse_cron
from etcsched.core.times import Utc, ms_of, utc_of

FAR_MS = ms_of(Utc("2999-01-01T00:00:00.000Z"))


def ticks_after(expression: str, start: str, count: int) -> list[str]:
    schedule = Schedule.parse([Cron(expression)], "UTC")
    start_ms = ms_of(Utc(f"{start}.000Z"))
    return [utc_of(ms)[:19] for ms in islice(schedule.ticks(start_ms, FAR_MS), count)]


def days_after(expression: str, start_day: str, count: int) -> list[str]:
    """Of an expression of day fields only, due at midnight."""
    return [
        tick[:10]
        for tick in ticks_after(f"0 0 {expression}", f"{start_day}T00:00:00", count)
        if tick.endswith("T00:00:00")
    ]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", ["22T19:01:00", "22T19:02:00"]),
        ("*/20 * * * *", ["22T19:20:00", "22T19:40:00", "22T20:00:00"]),
        ("7/20 * * * *", ["22T19:07:00", "22T19:27:00", "22T19:47:00", "22T20:07:00"]),
        ("10-20/5,58 * * * *", ["22T19:10:00", "22T19:15:00", "22T19:20:00", "22T19:58:00"]),
        ("5-5 * * * *", ["22T19:05:00", "22T20:05:00"]),
        ("59/15 * * * *", ["22T19:59:00", "22T20:59:00"]),
        ("0 8-10 * * *", ["23T08:00:00", "23T09:00:00", "23T10:00:00", "24T08:00:00"]),
        ("0 0 * * *", ["23T00:00:00", "24T00:00:00"]),
        ("15,45 * * * * *", ["22T19:00:15", "22T19:00:45", "22T19:01:15"]),
        ("30 0 20 * * *", ["22T20:00:30", "23T20:00:30"]),
        ("  0\t20  * * *  ", ["22T20:00:00", "23T20:00:00"]),
    ],
)
def test_times_of_day(expression: str, expected: list[str]) -> None:
    found = ticks_after(expression, "2026-11-22T19:00:00", len(expected))
    assert found == [f"2026-11-{tick}" for tick in expected]


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        # dates
        ("1 * *", ["2026-12-01", "2027-01-01"]),
        ("1 jan,MAR *", ["2027-01-01", "2027-03-01"]),
        ("1 NOV-DEC *", ["2026-12-01", "2027-11-01"]),
        ("31 * *", ["2026-12-31", "2027-01-31", "2027-03-31"]),
        ("29 2 *", ["2028-02-29", "2032-02-29"]),
        ("*/15 * *", ["2026-12-01", "2026-12-16", "2026-12-31"]),
        # the last of a month
        ("L * *", ["2026-11-30", "2026-12-31", "2027-01-31", "2027-02-28"]),
        ("L 2 *", ["2027-02-28", "2028-02-29"]),
        ("1,L * *", ["2026-11-30", "2026-12-01", "2026-12-31"]),
        # the nearest day from Monday to Friday, never in another month
        ("15W * *", ["2026-12-15", "2027-01-15", "2027-02-15", "2027-03-15", "2027-04-15"]),
        ("15W 8 *", ["2027-08-16"]),  # the 15th is a Sunday
        ("15W 5 *", ["2027-05-14"]),  # the 15th is a Saturday
        ("1W 5 *", ["2027-05-03"]),  # the 1st is a Saturday
        ("1W 8 *", ["2027-08-02"]),  # the 1st is a Sunday
        ("31W 10 *", ["2027-10-29"]),  # the 31st is a Sunday
        ("31W * *", ["2026-12-31", "2027-01-29", "2027-03-31", "2027-05-31"]),  # as 31 alone
        ("LW * *", ["2026-11-30", "2026-12-31", "2027-01-29", "2027-02-26"]),
        ("lw,1w * *", ["2026-11-30", "2026-12-01", "2026-12-31", "2027-01-01"]),
        # weekdays; 2026-11-22 is a Sunday
        ("* * MON", ["2026-11-23", "2026-11-30"]),
        ("* * 0", ["2026-11-29", "2026-12-06"]),
        ("* * 7", ["2026-11-29", "2026-12-06"]),
        ("* * 5-7", ["2026-11-27", "2026-11-28", "2026-11-29", "2026-12-04"]),
        ("* * FRI-SUN", ["2026-11-27", "2026-11-28", "2026-11-29", "2026-12-04"]),
        ("* * 0-7", ["2026-11-23", "2026-11-24"]),
        ("* * SUN-SUN", ["2026-11-29", "2026-12-06"]),
        ("* * 5/2", ["2026-11-27", "2026-11-29", "2026-12-04"]),
        ("* * */7", ["2026-11-29", "2026-12-06"]),
        ("* * MON#2", ["2026-12-14", "2027-01-11"]),
        ("* * MON#5", ["2026-11-30", "2027-03-29"]),
        ("* * 7#1", ["2026-12-06", "2027-01-03"]),
        ("* * MON#1,FRI#3,3", ["2026-11-25", "2026-12-02", "2026-12-07", "2026-12-09"]),
        ("* * FRIL", ["2026-11-27", "2026-12-25"]),
        ("* * 5L", ["2026-11-27", "2026-12-25"]),
        ("* * L5", ["2026-11-27", "2026-12-25"]),
        ("* * 7L,6#1", ["2026-11-29", "2026-12-05", "2026-12-27"]),
        # both fields restricted: either; one of them starting with a star: both
        ("13 * FRI", ["2026-11-27", "2026-12-04", "2026-12-11", "2026-12-13"]),
        ("L * MON#1", ["2026-11-30", "2026-12-07", "2026-12-31"]),
        ("*/2 * MON", ["2026-11-23", "2026-12-07", "2026-12-21"]),
        ("1-7 * */5", ["2026-12-04", "2026-12-06", "2027-01-01", "2027-01-03"]),
        ("*,13 * FRI", ["2026-11-27", "2026-12-04"]),
        ("? * FRI", ["2026-11-27", "2026-12-04"]),
        ("13 * ?", ["2026-12-13", "2027-01-13"]),
        ("? * ?", ["2026-11-23", "2026-11-24"]),
    ],
)
def test_days(days: str, expected: list[str]) -> None:
    assert days_after(days, "2026-11-22", len(expected)) == expected


@pytest.mark.parametrize(
    ("alias", "expression"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        (" @Daily ", "0 0 * * *"),
    ],
)
def test_aliases(alias: str, expression: str) -> None:
    start = "2026-11-22T19:00:00"
    assert ticks_after(alias, start, 5) == ticks_after(expression, start, 5)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("", "has 0 fields; write 5 (minute, hour, day of month, month, day of week) or 6"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * 2027", "has 7 fields"),
        ("60 * * * *", "minute: 60 is out of range; it takes 0 to 59"),
        ("60 * * * * *", "second: 60 is out of range; it takes 0 to 59"),
        ("0 24 * * *", "hour: 24 is out of range; it takes 0 to 23"),
        ("0 0 0 * *", "day of month: 0 is out of range; it takes 1 to 31"),
        ("0 0 1 13 *", "month: 13 is out of range; it takes 1 to 12"),
        ("0 0 * * 8", "day of week: 8 is out of range; it takes 0 to 7"),
        ("0 0 1 FOO *", "month: 'FOO' is not a value; it takes 1 to 12, JAN to DEC"),
        ("0 MON * * *", "hour: 'MON' is not a value; it takes 0 to 23"),
        ("22-2 * * * *", "minute: range '22-2' runs backwards; write two: 22-59,0-2"),
        ("0 0 * * FRI-MON", "day of week: range 'FRI-MON' runs backwards; write two: 5-6,0-1"),
        ("0 0 * NOV-FEB *", "month: range 'NOV-FEB' runs backwards; write two: 11-12,1-2"),
        ("*/0 * * * *", "minute: step 0 in '*/0' must be from 1 to 60"),
        ("*/90 * * * *", "minute: step 90 in '*/90' must be from 1 to 60"),
        ("0 */25 * * *", "hour: step 25 in '*/25' must be from 1 to 24"),
        ("1,,2 * * * *", "minute: '' is not understood; write a value, a range a-b, *"),
        ("-5 * * * *", "minute: '-5' is not understood"),
        ("5- * * * *", "minute: '5-' is not understood"),
        ("*5 * * * *", "minute: '*5' is not understood"),
        ("1.5 * * * *", "minute: '1.5' is not understood"),
        ("H * * * *", "minute: 'H' is not a value"),
        ("R * * * *", "minute: 'R' is not a value"),
        ("? * * * *", "minute: '?' is not understood"),
        ("٣ * * * *", "minute: '٣' is not understood"),
        ("999999999999999999 * * * *", "minute: '999999999999999999' is not understood"),
        ("0 0 W * *", "day of month: 'W' is not understood; write L, LW or a day with W"),
        ("0 0 W15 * *", "day of month: 'W15' is not understood"),
        ("0 0 1-5W * *", "day of month: '1-5W' is not understood"),
        ("0 0 32W * *", "day of month: 32 is out of range"),
        ("0 0 L-3 * *", "day of month: 'L-3' is not understood"),
        ("0 0 ?,1 * *", "day of month: '?' is not understood"),
        ("0 0 * * L", "day of week: 'L' is not understood; write MON#2"),
        ("0 0 * * 8L", "day of week: 8 is out of range"),
        ("0 0 * * MON#0", "day of week: 'MON#0': after # stands 1 to 5"),
        ("0 0 * * MON#6", "day of week: 'MON#6': after # stands 1 to 5"),
        ("0 0 * * MON-FRI#2", "day of week: 'MON-FRI#2' is not understood"),
        ("0 0 * * FOO#2", "day of week: 'FOO' is not a value; it takes 0 to 7, SUN to SAT"),
        ("@reboot", "set `lifecycle`"),
        ("@often", "not a schedule; write one of @hourly, @daily"),
        ("0 0 31 2 *", "never due"),
        ("0 0 30 2 *", "never due"),
        ("0 0 31 4,6,9,11 *", "never due"),
        ("0 0 31W 2,4 *", "never due"),
        ("0 0 1-7 * */7#1", "day of week: '*/7#1' is not understood"),
    ],
)
def test_refusals_name_the_field_and_what_would_be_right(expression: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        Schedule.parse([Cron(expression)], "UTC")
    line = str(caught.value)
    assert line.startswith(f"cron {expression!r}: ")
    assert problem in line
    assert "\n" not in line


def test_the_rarest_days_are_found() -> None:
    """29 February on one weekday: every 28 years, but 40 across a year like 2100."""
    assert days_after("29 2 *", "2096-03-01", 1) == ["2104-02-29"]
    assert days_after("*/28 2 MON#5", "1970-01-01", 6) == [
        "1988-02-29",
        "2016-02-29",
        "2044-02-29",
        "2072-02-29",
        "2112-02-29",
        "2140-02-29",
    ]
    before_2112_s = ms_of(Utc("2112-02-28T00:00:00.000Z")) // 1000
    in_2072_s = CronExpression("0 0 */28 2 MON#5").last(before_2112_s)
    assert in_2072_s == ms_of(Utc("2072-02-29T00:00:00.000Z")) // 1000


def test_a_leap_days_next_and_last_across_a_century() -> None:
    schedule = Schedule.parse([Cron("0 0 */28 2 MON#5")], "Europe/Berlin")
    from_ms = ms_of(Utc("2072-03-01T00:00:00.000Z"))
    through_ms = ms_of(Utc("2112-02-28T22:59:59.999Z"))
    assert schedule.next_after(from_ms) == ms_of(Utc("2112-02-28T23:00:00.000Z"))
    assert schedule.last_before(from_ms, through_ms) is None
    assert schedule.last_before(0, through_ms) == ms_of(Utc("2072-02-28T23:00:00.000Z"))


def test_expressions_are_parsed_once() -> None:
    assert parse_cron("1 2 3 4 5") is parse_cron("1 2 3 4 5")
