"""Which days calendars leave, and what they and windows make of a job's ticks."""

from __future__ import annotations

import random
from datetime import date, timedelta

import pytest

from etcsched.core import timeline
from etcsched.core.calendars import Days, local_day, parse_days, start_of_day_ms
from etcsched.core.limits import NO_LIMITS, Limits
from etcsched.core.records import Calendar, CalendarVersion, Job, Noop, ScheduleVersion, Window
from etcsched.core.schedule import Cron, Every, Pattern
from etcsched.core.splay import delay_ms
from etcsched.core.states import JobState
from etcsched.core.times import Utc, ms_of, utc_of
from tests.support.jobs import job as any_job

JAN = date(2026, 1, 1).toordinal() - 1
"""January's days count from 1."""


def days(exclude: list[tuple[int, int]], include: list[tuple[int, int]] | None) -> Days:
    def moved(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(JAN + first, JAN + last) for first, last in stretches]

    return Days(moved(exclude), None if include is None else moved(include))


@pytest.mark.parametrize(
    ("text", "length"), [("2026-12-25", 1), ("2026-12-24/2027-01-01", 9), ("2028-02-29", 1)]
)
def test_dates(text: str, length: int) -> None:
    first, last = parse_days(text)
    assert (date.fromordinal(first).isoformat(), last - first + 1) == (text[:10], length)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-13-01", "is no date"), ("2026-2-1", "is no date"), ("20261225", "is no date"),
        ("2026-W01-1", "is no date"), ("2026-12-25/", "is no date"), ("", "is no date"),
        ("2027-01-01/2026-12-24", "ends before it begins"),
    ],
)  # fmt: skip
def test_wrong_dates(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_days(text)


def test_any_calendar_against_its_definition() -> None:
    """First and last allowed day, over random ones, against looking at every day."""
    chance = random.Random(7)
    for _ in range(400):

        def some(most: int) -> list[tuple[int, int]]:
            begins = [chance.randint(1, 30) for _ in range(chance.randint(0, most))]
            return [(first, first + chance.randint(0, 4)) for first in begins]

        exclude, include = some(5), chance.choice([None, some(4)])
        allowed = [
            JAN + day
            for day in range(-10, 60)
            if not any(first <= day <= last for first, last in exclude)
            and (include is None or any(first <= day <= last for first, last in include))
        ]
        subject = days(exclude, include)
        for day in range(JAN + 1, JAN + 40):
            later = [each for each in allowed if each >= day]
            earlier = [each for each in allowed if each <= day]
            assert subject.first_from(day) == (later[0] if later else None)
            assert subject.last_until(day) == (earlier[-1] if earlier else None)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Havana", "Asia/Beirut"])
def test_days_begin_at_midnight_wherever(zone: str) -> None:
    for number in range(366):
        day = date(2026, 1, 1).toordinal() + number
        begin_ms = start_of_day_ms(zone, day)
        assert local_day(zone, begin_ms) == day
        assert local_day(zone, begin_ms - 1) == day - 1


def job(*patterns: Pattern, timezone: str = "UTC", windows: tuple[Window, ...] = ()) -> Job:
    version = ScheduleVersion(
        since=Utc("2026-01-01T00:00:00.000Z"), patterns=patterns, timezone=timezone,
        calendars=("c",), windows=windows,
    )  # fmt: skip
    return Job(name="j", run=Noop(), versions=(version,))


def calendar(*versions: tuple[str, tuple[str, ...], tuple[str, ...]]) -> Limits:
    made = tuple(
        CalendarVersion(since=Utc(f"{since}:00.000Z"), exclude=exclude, include=include)
        for since, exclude, include in versions
    )
    return Limits((), {"c": Calendar(name="c", versions=made)})


def due(subject: Job, limits: Limits, after: str, through: str) -> list[str]:
    """In (after, through]; found in three ways."""
    after_ms, through_ms = ms_of(Utc(f"{after}:00.000Z")), ms_of(Utc(f"{through}:00.000Z"))
    found = list(timeline.ticks(subject, limits, after_ms, through_ms))
    forwards, at_ms = [], after_ms
    while (tick := timeline.next_tick(subject, limits, at_ms)) is not None and tick <= through_ms:
        forwards.append(tick)
        at_ms = tick
    backwards, at_ms = [], through_ms
    while (tick := timeline.last_tick(subject, limits, after_ms, at_ms)) is not None:
        backwards.append(tick)
        at_ms = tick - 1
    assert found == forwards == backwards[::-1]
    return [utc_of(ms)[5:16] for ms in found]


NOON = Cron("0 12 * * *")
ALWAYS = "2026-01-01T00:00"


def test_excluded_days() -> None:
    limits = calendar((ALWAYS, ("2026-03-02", "2026-03-04/2026-03-06"), ()))
    assert due(job(NOON), limits, "2026-03-01T00:00", "2026-03-08T00:00") == [
        "03-01T12:00", "03-03T12:00", "03-07T12:00"
    ]  # fmt: skip


def test_included_days_and_exclusion_wins() -> None:
    limits = calendar((ALWAYS, ("2026-03-03",), ("2026-03-02/2026-03-04",)))
    assert due(job(NOON), limits, "2026-02-01T00:00", "2026-04-08T00:00") == [
        "03-02T12:00", "03-04T12:00"
    ]  # fmt: skip


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Adak"])
@pytest.mark.parametrize(
    ("exclude", "include", "ticks"),
    [
        (("2026-03-02/9999-12-31",), (), ["03-01"]),
        (("0001-01-01/9999-12-31",), (), []),
        (("0001-01-01/2026-03-01",), (), ["03-02", "03-03"]),
        (("9999-12-31",), (), ["03-01", "03-02", "03-03"]),
        ((), ("9999-12-31",), []),
        ((), ("0001-01-01/9999-12-31",), ["03-01", "03-02", "03-03"]),
    ],
)
def test_for_ever_and_a_day(
    zone: str, exclude: tuple[str, ...], include: tuple[str, ...], ticks: list[str]
) -> None:
    """Days at the ends of all calendars: the arithmetic of dates ends there."""
    subject = job(NOON, timezone=zone)
    found = due(
        subject, calendar((ALWAYS, exclude, include)), "2026-02-27T00:00", "2026-03-06T00:00"
    )
    days_found = [day_of(subject, text) for text in found]
    assert [day for day in days_found if day in ("03-01", "03-02", "03-03")] == ticks
    horizon = ms_of(Utc("9000-01-01T00:00:00.000Z"))
    if exclude == ("0001-01-01/9999-12-31",):
        assert timeline.next_tick(subject, calendar((ALWAYS, exclude, include)), horizon) is None


def day_of(subject: Job, text: str) -> str:
    """The day in the job's zone."""
    at_ms = ms_of(Utc(f"2026-{text}:00.000Z"))
    return date.fromordinal(local_day(subject.current.timezone, at_ms)).isoformat()[5:]


def test_an_end_of_all_included_days_is_an_end() -> None:
    limits = calendar((ALWAYS, (), ("2026-03-02",)))
    subject = job(Every(1, Utc("2026-01-01T00:00:00.000Z")))
    begin_ms = ms_of(Utc("2026-03-03T00:00:00.000Z"))
    assert timeline.next_tick(subject, limits, begin_ms) is None
    assert timeline.last_tick(subject, limits, 0, begin_ms + 10**10) == begin_ms - 1000


def test_the_day_is_that_of_the_jobs_zone() -> None:
    subject = job(Cron("30 0,23 * * *"), timezone="Europe/Berlin")
    limits = calendar((ALWAYS, ("2026-03-02",), ()))
    assert due(subject, limits, "2026-03-01T12:00", "2026-03-03T12:00") == [
        "03-01T22:30", "03-02T23:30", "03-03T22:30"
    ][:2]  # fmt: skip


def test_the_version_in_force_at_a_ticks_time_decides() -> None:
    limits = calendar(
        ("2026-03-02T13:00", ("2026-03-02", "2026-03-03"), ()),
        ("2026-03-03T13:00", ("2026-03-03", "2026-03-04"), ()),
        ("2026-03-04T13:00", ("2026-03-05",), ()),
    )
    hourly = job(Cron("0 11-14 * * *"))
    assert due(hourly, limits, "2026-03-02T00:00", "2026-03-06T12:00") == [
        "03-02T11:00", "03-02T12:00", "03-04T13:00", "03-04T14:00", "03-06T11:00", "03-06T12:00"
    ]  # fmt: skip


def test_a_calendar_that_isnt_there_says_nothing() -> None:
    assert len(due(job(NOON), NO_LIMITS, "2026-03-01T00:00", "2026-03-08T00:00")) == 7


def window(since: str, until: str, **fields: object) -> Window:
    return Window(since=Utc(f"{since}:00.000Z"), until=Utc(f"{until}:00.000Z"), **fields)  # type: ignore[arg-type]


def test_windows_change_a_schedule_and_revert() -> None:
    windows = (
        window("2026-03-02T00:00", "2026-03-03T12:00", state=JobState.DISABLED),
        window("2026-03-04T00:00", "2026-03-05T00:00", patterns=(Cron("0 */8 * * *"),)),
    )
    assert due(job(NOON, windows=windows), NO_LIMITS, "2026-03-01T00:00", "2026-03-05T12:00") == [
        "03-01T12:00", "03-03T12:00",
        "03-04T00:00", "03-04T08:00", "03-04T16:00", "03-05T12:00",
    ]  # fmt: skip


def test_a_window_can_enable_what_is_disabled() -> None:
    windows = (window("2026-03-02T00:00", "2026-03-03T00:00", state=JobState.ENABLED),)
    subject = job(NOON, windows=windows)
    version = subject.current
    off = ScheduleVersion(
        since=version.since, patterns=version.patterns, windows=windows, state=JobState.DISABLED
    )
    subject = Job(name="j", run=Noop(), versions=(off,))
    assert due(subject, NO_LIMITS, "2026-03-01T00:00", "2026-03-05T12:00") == ["03-02T12:00"]
    assert off.at(ms_of(Utc("2026-03-02T23:59:59.999Z"))).state is JobState.ENABLED
    assert off.at(ms_of(Utc("2026-03-03T00:00:00.000Z"))).state is JobState.DISABLED


def test_an_edit_cuts_the_windows_before_it() -> None:
    first = ScheduleVersion(
        since=Utc("2026-03-01T00:00:00.000Z"), patterns=(NOON,),
        windows=(window("2026-03-02T00:00", "2026-03-09T00:00", state=JobState.DISABLED),),
    )  # fmt: skip
    second = ScheduleVersion(since=Utc("2026-03-04T00:00:00.000Z"), patterns=(NOON,))
    subject = Job(name="j", run=Noop(), versions=(first, second))
    assert due(subject, NO_LIMITS, "2026-03-01T00:00", "2026-03-05T13:00") == [
        "03-01T12:00", "03-04T12:00", "03-05T12:00"
    ]  # fmt: skip


def test_calendar_revisions_keep_what_isnt_decided_yet() -> None:
    def at(hour: int) -> Utc:
        return utc_of(ms_of(Utc("2026-03-01T00:00:00.000Z")) + hour * 3_600_000)

    def wanted(*exclude: str) -> Calendar:
        return Calendar(name="c", versions=(CalendarVersion(since=at(0), exclude=exclude),))

    first = timeline.revise_calendar(None, wanted("2026-03-02"), at(1), None)
    assert timeline.revise_calendar(first, wanted("2026-03-02"), at(9), at(1)) is first
    second = timeline.revise_calendar(first, wanted("2026-03-03"), at(5), at(2))
    assert [version.since for version in second.versions] == [at(1), at(5)]
    third = timeline.revise_calendar(second, wanted(), at(9), at(8), open_from=at(3))
    assert [version.since for version in third.versions] == [at(1), at(5), at(9)]
    fourth = timeline.revise_calendar(third, wanted("2026-04-01"), at(9), at(12))
    # Right after the watermark: what is due at it is decided.
    assert [version.since for version in fourth.versions] == ["2026-03-01T12:00:00.001Z"]


def test_a_splay_is_stable_and_spread() -> None:
    delays = [delay_ms(any_job(f"j{n}", every_s=5, splay_s=600.0)) for n in range(500)]
    assert delays == [delay_ms(any_job(f"j{n}", every_s=5, splay_s=600.0)) for n in range(500)]
    assert max(delays) < 600_000
    assert max(delays) > 590_000
    assert min(delays) < 10_000
    one = any_job("j", every_s=5, splay_s=600.0)
    assert len({delay_ms(one, host) for host in ("", "a", "b", "c")}) == 4
    assert delay_ms(any_job("j", every_s=5)) == 0


def test_days_of_many_years_are_quick_to_skip() -> None:
    subject = job(Every(1, Utc("2026-01-01T00:00:00.000Z")))
    limits = calendar((ALWAYS, ("2026-03-02/2126-03-02",), ()))
    begin_ms = ms_of(Utc("2026-03-02T00:00:00.000Z"))
    tick_ms = timeline.next_tick(subject, limits, begin_ms)
    assert tick_ms is not None
    assert utc_of(tick_ms) == "2126-03-03T00:00:00.000Z"
    assert date.fromordinal(local_day("UTC", tick_ms)) - timedelta(days=1) == date(2126, 3, 2)
