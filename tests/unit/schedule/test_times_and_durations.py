"""Texts of times and durations: what is written, what is refused."""

from __future__ import annotations

import pytest

from etcsched.core.durations import format_duration, parse_duration_s
from etcsched.core.times import Utc, instant_after, ms_of, ms_of_tick_id, tick_id, utc_of


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_795_374_000_123, "2026-11-22T19:00:00.123Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_have_one_text(ms: int, text: str) -> None:
    assert utc_of(ms) == text
    assert ms_of(Utc(text)) == ms


def test_after_the_last_instant_comes_none() -> None:
    last, before = Utc("9999-12-31T23:59:59.999Z"), Utc("9999-12-31T23:59:59.998Z")
    assert instant_after(before) == instant_after(last) == last


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-22T19:00:00Z",
        "2026-11-22T19:00:00.000",
        "2026-11-22T19:00:00.000+00:00",
        "2026-11-22 19:00:00.000Z",
        "2026-11-22T19:00:00,000Z",
        "2026-11-22T19:00:60.000Z",
        "2026-11-22T24:00:00.000Z",
        "2026-02-29T00:00:00.000Z",
        "0000-01-01T00:00:00.000Z",
        "2026-W47-7T19:00:00.000Z",
        "2026-11-22T19:00:00.000Z ",
        "2026-11-22T19:00:+1.000Z",
        "２026-11-22T19:00:00.000Z",
    ],
)
def test_other_spellings_of_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time like 2026-"):
        ms_of(Utc(text))


@pytest.mark.parametrize("ms", [-62_135_596_800_001, 253_402_300_800_000, 10**18])
def test_times_beyond_four_digit_years_are_refused(ms: int) -> None:
    with pytest.raises(ValueError, match="outside of the years 1 to 9999"):
        utc_of(ms)


def test_ids_of_ticks() -> None:
    assert tick_id(1_795_374_000_000) == "20261122T190000Z"
    assert ms_of_tick_id("20261122T190000Z") == 1_795_374_000_000
    with pytest.raises(ValueError, match="not a whole second"):
        tick_id(1_795_374_000_001)


@pytest.mark.parametrize(
    "text", ["", "20261122T190000", "20261122T1900Z", "20261322T190000Z", "20261122T190060Z",
             "20261122T240000Z", "2026-11-22T19:00:00Z", "20261122T190000Zx", "20261122 190000Z"],
)  # fmt: skip
def test_other_ids_are_no_ticks(text: str) -> None:
    with pytest.raises(ValueError, match="is not a tick's id like 20261122T190000Z"):
        ms_of_tick_id(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("1d", 86_400.0),
        ("1d2h3m4s5ms", 93_784.005),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400.0), ("0h", 0.0), ("007s", 7.0), ("24h", 86_400.0)]
)
def test_durations_have_several_spellings(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("30", "'30' has no unit; did you mean 30s?"),
        ("", "'' is not a duration; write whole numbers with units"),
        ("h", "'h' is not a duration"),
        ("1.5h", "'1.5h' is not a duration"),
        ("-5s", "'-5s' is not a duration"),
        ("5 s", "'5 s' is not a duration"),
        ("5S", "'5S' is not a duration"),
        ("30m1h", "'30m1h' is not a duration"),
        ("1h1h", "'1h1h' is not a duration"),
        ("1w", "'1w' is not a duration"),
        ("1s\n", "is not a duration"),
        ("٣s", "is not a duration"),
        ("9999999999s", "its numbers may have 9 digits"),
    ],
)
def test_what_is_no_duration(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration_s(text)
    assert problem in str(caught.value)


def test_durations_are_never_negative() -> None:
    with pytest.raises(ValueError, match="can't be negative"):
        format_duration(-1)
    assert format_duration(0.0004) == "0s"
