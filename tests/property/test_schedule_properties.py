"""Schedules against an oracle that looks at every minute, cronsim, and themselves."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from etcsched.core.durations import format_duration, parse_duration_s
from etcsched.core.schedule import At, Cron, Every, Pattern, Schedule, parse_at
from etcsched.core.schedule import zone as zones
from etcsched.core.schedule.zone import check_timezone, period_at
from etcsched.core.times import Utc, ms_of, ms_of_tick_id, tick_id, utc_of
from tests.support.cron_oracle import (
    CLOCK_CHANGES,
    SPECIAL_DATES,
    SPECIAL_WEEKDAYS,
    Drawn,
    every_twenty_minutes,
    expressions,
    fields,
    oracle_ticks_s,
    utc_midnight,
)

# By half an hour, every-hour jobs of cronsim miss the tick at the gap's end.
HALF_HOURS = ("America/Caracas", "Australia/Lord_Howe")
ZONES = sorted({zone for zone, _ in CLOCK_CHANGES})
START_MS = ms_of(Utc("2000-01-01T00:00:00.000Z"))
END_MS = ms_of(Utc("2060-01-01T00:00:00.000Z"))
instants_ms = st.integers(START_MS, END_MS)
DAY_MS = 86_400_000


def parse_if_ever_due(patterns: list[Pattern], zone: str) -> Schedule:
    """Drawn expressions can ask for a 31 February; its refusal has tests of its own."""
    try:
        return Schedule.parse(patterns, zone)
    except ValueError as error:
        assume("never due" not in str(error))
        raise


def ticks_s(schedule: Schedule, first: datetime, last: datetime) -> list[int]:
    """In [first, last)."""
    return [
        ms // 1000
        for ms in schedule.ticks(
            int(first.timestamp()) * 1000 - 1, int(last.timestamp()) * 1000 - 1
        )
    ]


def check_around(drawn: Drawn, change: tuple[str, date]) -> None:
    zone, day = change
    schedule = Schedule.parse([Cron(drawn.text)], zone)
    first, last = utc_midnight(day) - timedelta(hours=12), utc_midnight(day) + timedelta(hours=40)
    expected = oracle_ticks_s(drawn, ZoneInfo(zone), first, last)
    assert ticks_s(schedule, first, last) == expected
    # Asked from any time, also from within an hour that comes twice, forward and backward.
    first_s, last_s = int(first.timestamp()), int(last.timestamp())
    for at_s in range(first_s, last_s, 599):
        n = bisect_right(expected, at_s)
        before_s = expected[n - 1] if n else None
        after_s = expected[n] if n < len(expected) else None
        last_ms = schedule.last_before(first_s * 1000 - 1, at_s * 1000)
        next_ms = schedule.next_after(at_s * 1000)
        assert last_ms == (None if before_s is None else before_s * 1000)
        if after_s is None:
            assert next_ms is None or next_ms >= last_s * 1000
        else:
            assert next_ms == after_s * 1000


@pytest.mark.parametrize("change", CLOCK_CHANGES, ids=lambda change: f"{change[0]} {change[1]}")
@pytest.mark.parametrize(("hour", "step"), [("*", 1), ("0-23", 1), ("*/2", 2), ("0-23/2", 2)])
def test_at_every_clock_change_both_rules_are_those_of_the_oracle(
    hour: str, step: int, change: tuple[str, date]
) -> None:
    check_around(every_twenty_minutes(hour, step), change)


@pytest.mark.parametrize("change", CLOCK_CHANGES, ids=lambda change: f"{change[0]} {change[1]}")
def test_it_doesnt_matter_where_a_zones_stretches_end(
    change: tuple[str, date], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stretches of 25 minutes end within every gap and every repeated hour, and at their ends."""
    monkeypatch.setattr(zones, "_STRETCH_S", 1500)
    zones._periods.cache_clear()
    try:
        check_around(every_twenty_minutes("*"), change)
        check_around(every_twenty_minutes("0-23"), change)
    finally:
        zones._periods.cache_clear()


@settings(deadline=None)
@given(expressions(every_day=True), st.sampled_from(CLOCK_CHANGES))
def test_around_a_clock_change_ticks_are_those_of_the_oracle(
    drawn: Drawn, change: tuple[str, date]
) -> None:
    check_around(drawn, change)


@settings(deadline=None)
@given(expressions(), st.sampled_from(CLOCK_CHANGES))
def test_restricted_days_around_a_clock_change_are_those_of_the_oracle(
    drawn: Drawn, change: tuple[str, date]
) -> None:
    zone, day = change
    schedule = parse_if_ever_due([Cron(drawn.text)], zone)
    first, last = utc_midnight(day) - timedelta(hours=6), utc_midnight(day) + timedelta(hours=30)
    expected = oracle_ticks_s(drawn, ZoneInfo(zone), first, last)
    assert ticks_s(schedule, first, last) == expected


def test_special_days_are_those_of_the_oracle_in_every_shape_of_month() -> None:
    firsts = [date(year, month, 1) for year in range(2000, 2028) for month in range(1, 13)]
    ends = [*firsts[1:], date(2028, 1, 1)]
    # By length and first weekday: all 28 there are.
    months = {
        ((end - first).days, first.weekday()): (first, end)
        for first, end in zip(firsts, ends, strict=True)
    }
    assert len(months) == 28
    columns = [(f"{text} * *", on) for text, on in SPECIAL_DATES]
    columns += [(f"* * {text}", on) for text, on in SPECIAL_WEEKDAYS]
    for text, on in columns:
        schedule = Schedule.parse([Cron(f"0 0 {text}")], "UTC")
        for first, end in months.values():
            days = [first + timedelta(days=n) for n in range((end - first).days)]
            expected = [int(utc_midnight(day).timestamp()) for day in days if on(day)]
            assert ticks_s(schedule, utc_midnight(first), utc_midnight(end)) == expected, text


@settings(deadline=None)
@given(expressions(), st.dates(date(1971, 1, 1), date(2400, 1, 1)))
def test_the_days_of_two_years_are_those_of_the_oracle(drawn: Drawn, start: date) -> None:
    schedule = parse_if_ever_due([Cron(drawn.text)], "UTC")
    days = [start + timedelta(days=n) for n in range(731)]
    expected = [day for day in days if drawn.on(day)]
    found = []
    for day in days:
        midnight_ms = int(utc_midnight(day).timestamp()) * 1000
        tick_ms = schedule.next_after(midnight_ms - 1)
        if tick_ms is not None and tick_ms < midnight_ms + DAY_MS:
            found.append(day)
    assert found == expected


@settings(deadline=None)
@given(
    minute=fields(0, 59),
    hour=fields(0, 23),
    day=st.one_of(
        fields(1, 31), st.sampled_from([("L", frozenset({31})), ("LW", frozenset({31}))])
    ),
    month=fields(1, 12),
    weekday=st.sampled_from(["*", "1-5", "0", "7", "MON,FRI", "*/2", "5L", "3#2", "0#5"]),
    start_ms=instants_ms,
)
def test_in_utc_cronsim_agrees(
    minute: tuple[str, frozenset[int]],
    hour: tuple[str, frozenset[int]],
    day: tuple[str, frozenset[int]],
    month: tuple[str, frozenset[int]],
    weekday: str,
    start_ms: int,
) -> None:
    text = " ".join([minute[0], hour[0], day[0], month[0], weekday])
    start_ms -= start_ms % 1000
    schedule = parse_if_ever_due([Cron(text)], "UTC")
    start = datetime.fromtimestamp(start_ms // 1000, UTC)
    forward = [int(moment.timestamp()) * 1000 for moment in islice(CronSim(text, start), 20)]
    assert list(islice(schedule.ticks(start_ms, END_MS * 2), 20)) == forward
    backward = next(CronSim(text, datetime.fromtimestamp(start_ms // 1000, UTC), reverse=True))
    assert schedule.last_before(START_MS * 0, start_ms - 1) == int(backward.timestamp()) * 1000


@settings(deadline=None)
@given(
    minute=st.integers(0, 59),
    hour=st.one_of(st.just("*"), st.integers(0, 23).map(str)),
    change=st.sampled_from([change for change in CLOCK_CHANGES if change[0] not in HALF_HOURS]),
)
def test_where_its_rules_are_ours_cronsim_agrees_on_clock_changes(
    minute: int, hour: str, change: tuple[str, date]
) -> None:
    """They are for a single fixed time and for every hour, where clocks move by whole hours."""
    zone, day = change
    text = f"{minute} {hour} * * *"
    first, last = utc_midnight(day) - timedelta(days=1), utc_midnight(day) + timedelta(days=2)
    start = (first - timedelta(days=2)).astimezone(ZoneInfo(zone))
    expected = []
    for moment in CronSim(text, start):
        if moment >= last:
            break
        if moment >= first:
            expected.append(int(moment.timestamp()))
    assert ticks_s(Schedule.parse([Cron(text)], zone), first, last) == sorted(set(expected))


patterns = st.lists(
    st.one_of(
        expressions().map(lambda drawn: Cron(drawn.text)),
        st.builds(Every, st.integers(1, 10_000_000), instants_ms.map(utc_of)),
        instants_ms.map(lambda ms: At(utc_of(ms - ms % 1000))),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None)
@given(patterns, st.sampled_from(ZONES), instants_ms, st.integers(0, 400 * DAY_MS))
def test_all_views_of_a_schedule_are_one_sequence(
    drawn: list[Pattern], zone: str, after_ms: int, length_ms: int
) -> None:
    schedule = parse_if_ever_due(drawn, zone)
    through_ms = after_ms + length_ms
    ticks = list(islice(schedule.ticks(after_ms, through_ms), 100))
    assert all(earlier < later for earlier, later in pairwise(ticks))
    assert all(after_ms < tick <= through_ms and tick % 1000 == 0 for tick in ticks)

    stepped: list[int] = []
    at_ms = after_ms
    while len(stepped) < 100:
        following = schedule.next_after(at_ms)
        if following is None or following > through_ms:
            break
        stepped.append(following)
        at_ms = following
    assert ticks == stepped

    last_ms = ticks[-1] if ticks else None
    assert schedule.last_before(after_ms, through_ms if len(ticks) < 100 else ticks[-1]) == last_ms
    for earlier, later in pairwise(ticks):
        assert schedule.last_before(after_ms, later - 1) == earlier
    if ticks:
        assert schedule.last_before(ticks[-1], ticks[-1]) is None


@settings(deadline=None)
@given(patterns, st.sampled_from(ZONES), instants_ms, st.lists(st.integers(1, 30), min_size=1))
def test_ticks_are_the_union_of_the_patterns(
    drawn: list[Pattern], zone: str, after_ms: int, days: list[int]
) -> None:
    through_ms = after_ms + min(days) * DAY_MS // 10
    schedule = parse_if_ever_due(drawn, zone)
    separate = {
        tick
        for pattern in drawn
        for tick in Schedule.parse([pattern], zone).ticks(after_ms, through_ms)
    }
    assert list(schedule.ticks(after_ms, through_ms)) == sorted(separate)


@settings(deadline=None)
@given(
    st.integers(1, 100_000), instants_ms, instants_ms, st.integers(0, 500_000).map(lambda s: s * 7)
)
def test_every_counts_from_its_anchor(
    interval_s: int, anchor_ms: int, after_ms: int, span_ms: int
) -> None:
    schedule = Schedule.parse([Every(interval_s, utc_of(anchor_ms))], "Europe/Berlin")
    anchor_ms -= anchor_ms % 1000
    for at_ms in (after_ms, anchor_ms - 1, anchor_ms, anchor_ms + span_ms):
        tick_ms = schedule.next_after(at_ms)
        assert tick_ms is not None
        assert tick_ms > max(at_ms, anchor_ms)
        assert (tick_ms - anchor_ms) % (interval_s * 1000) == 0
        assert tick_ms - interval_s * 1000 <= max(at_ms, anchor_ms)


@settings(deadline=None)
@given(st.sampled_from(ZONES), instants_ms)
def test_a_zones_periods_are_those_of_zoneinfo(zone: str, ms: int) -> None:
    instant_s = ms // 1000
    check_timezone(zone)
    period = period_at(zone, instant_s)
    assert period.start_s <= instant_s < period.end_s
    for at_s in (period.start_s, instant_s, period.end_s - 1):
        offset = datetime.fromtimestamp(at_s, ZoneInfo(zone)).utcoffset()
        assert offset == timedelta(seconds=period.offset_s)
    assert period_at(zone, period.end_s).start_s == period.end_s
    shown = [
        datetime.fromtimestamp(at_s, ZoneInfo(zone)).replace(tzinfo=UTC).timestamp()
        for at_s in range(period.start_s - 2 * 86_400, period.start_s, 60)
    ]
    assert period.fresh_wall_s == max(*shown, shown[-1]) + 60 or (
        period.fresh_wall_s == period.start_s + period.offset_s > max(shown)
    )


@settings(deadline=None)
@given(st.sampled_from(ZONES), instants_ms)
def test_at_without_an_offset_reads_the_zones_clock(zone: str, ms: int) -> None:
    shown = datetime.fromtimestamp(ms // 1000, ZoneInfo(zone))
    found_s = ms_of(parse_at(shown.replace(tzinfo=None).isoformat(), zone).time) // 1000
    assert found_s == int(shown.replace(fold=0).timestamp())
    assert parse_at(shown.isoformat(), "UTC") == parse_at(shown.isoformat(), zone)
    assert ms_of(parse_at(shown.isoformat(), zone).time) == ms // 1000 * 1000


all_instants_ms = st.integers(-62_135_596_800_000, 253_402_300_799_999)


@given(all_instants_ms, all_instants_ms)
def test_texts_of_times_are_exact_and_sort_as_time_does(one_ms: int, other_ms: int) -> None:
    one, other = utc_of(one_ms), utc_of(other_ms)
    assert ms_of(one) == one_ms
    assert (one < other) == (one_ms < other_ms)
    second_ms = one_ms - one_ms % 1000
    assert ms_of_tick_id(tick_id(second_ms)) == second_ms
    moment = datetime.fromisoformat(one)
    assert moment == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=one_ms)


@given(all_instants_ms, st.integers(0, 24), st.sampled_from([*"0159-+T:.,Z W_\u0663", ""]))
def test_what_reads_as_a_time_is_written_as_it_was_read(ms: int, index: int, other: str) -> None:
    right = utc_of(ms)
    for text in (right[:index] + other + right[index + 1 :], right[:index] + other + right[index:]):
        try:
            read_ms = ms_of(Utc(text))
        except ValueError:
            continue
        assert utc_of(read_ms) == text


@given(st.integers(0, 10**12))
def test_durations_are_read_as_they_are_written(ms: int) -> None:
    assert round(parse_duration_s(format_duration(ms / 1000)) * 1000) == ms
