"""Days out of iCalendar files."""

from __future__ import annotations

import pytest

from etcsched.core.errors import InvalidJobFile
from etcsched.core.times import Utc, ms_of
from etcsched.jobfile.ics import days_of_events

NOW_MS = ms_of(Utc("2026-11-22T19:00:00.000Z"))


def ics(*events: str) -> str:
    made = "".join(
        f"BEGIN:VEVENT\r\nUID:{number}\r\nDTSTAMP:20260101T000000Z\r\n{event}\r\nEND:VEVENT\r\n"
        for number, event in enumerate(events)
    )
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//test//EN\r\n{made}END:VCALENDAR\r\n"


def days(*events: str, years: int = 1) -> list[tuple[str, str]]:
    return list(days_of_events(ics(*events), NOW_MS, years).days)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("DTSTART;VALUE=DATE:20261225", ["2026-12-25"]),
        ("DTSTART;VALUE=DATE:20261225\r\nDTEND;VALUE=DATE:20261227", ["2026-12-25/2026-12-26"]),
        ("DTSTART;VALUE=DATE:20261225\r\nDURATION:P2D", ["2026-12-25/2026-12-26"]),
        ("DTSTART:20261203T220000Z\r\nDTEND:20261204T000000Z", ["2026-12-03"]),
        ("DTSTART:20261203T220000Z\r\nDTEND:20261204T000001Z", ["2026-12-03/2026-12-04"]),
        ("DTSTART:20261203T220000Z", ["2026-12-03"]),
        (
            "DTSTART;TZID=Asia/Tokyo:20261204T000000\r\nDTEND:20261203T160000Z",
            ["2026-12-04"],
        ),
        (
            "DTSTART;VALUE=DATE:20201225\r\nRRULE:FREQ=YEARLY\r\nEXDATE;VALUE=DATE:20251225",
            ["2026-12-25"],
        ),
        (
            "DTSTART:20261224T100000Z\r\nRRULE:FREQ=DAILY;UNTIL=20261225",
            ["2026-12-24", "2026-12-25"],
        ),
        (
            "DTSTART;TZID=America/New_York:20261224T220000\r\nRRULE:FREQ=DAILY;UNTIL=20261225",
            ["2026-12-24", "2026-12-25"],
        ),
        (
            "DTSTART;TZID=America/New_York:20261224T220000\r\n"
            "RRULE:FREQ=DAILY;UNTIL=20261225T220000",
            ["2026-12-24", "2026-12-25"],
        ),
        (
            "DTSTART;TZID=America/New_York:20261224T220000\r\nRRULE:FREQ=YEARLY;UNTIL=99991231",
            ["2026-12-24"],
        ),
        ("DTSTART;VALUE=DATE:20261225\r\nSTATUS:CANCELLED", []),
        ("DTSTART;VALUE=DATE:20201225", []),
    ],
)
def test_days(event: str, expected: list[str]) -> None:
    assert [day for day, _ in days(event)] == expected


def test_the_horizon_and_names() -> None:
    event = "DTSTART;VALUE=DATE:20201225\r\nRRULE:FREQ=YEARLY\r\nSUMMARY:Christmas\\n# day"
    assert days(event, years=3) == [
        (f"{year}-12-25", "Christmas # day") for year in (2025, 2026, 2027, 2028)
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "no iCalendar file that can be read"),
        ("", "no iCalendar file that can be read"),
        (ics("DTSTART:20261203T220000Z\r\nRRULE:FREQ=SECONDLY"), "recurs more than once a day"),
        (
            ics("DTSTART:20261203T220000Z\r\nRRULE:FREQ=DAILY;INTERVAL=0"),
            "recurs with an INTERVAL below 1",
        ),
        (ics("DTSTART;VALUE=DATE:20260101\r\nDTEND;VALUE=DATE:90000101"), "lasts more than 36525"),
        (ics("DTSTART;VALUE=DATE:20260105\r\nDTEND;VALUE=DATE:20260101"), "ends before it begins"),
        (ics("DTSTART;VALUE=DATE:20260105\r\nDURATION:-P2D"), "ends before it begins"),
        (ics("DTSTART:20260105T100000\r\nDTEND:20260105T090000"), "ends before it begins"),
        (ics("SUMMARY:Christmas"), "Christmas has no DTSTART"),
        (
            ics("DTSTART;VALUE=DATE:20261225\r\nRRULE:FREQ=DAILY\r\nEXRULE:FREQ=WEEKLY"),
            "has an EXRULE",
        ),
    ],
)
def test_what_is_no_calendar(text: str, why: str) -> None:
    with pytest.raises(InvalidJobFile, match=why):
        days_of_events(text, NOW_MS, 1)


def of_one_uid(*events: str) -> list[str]:
    made = "".join(f"BEGIN:VEVENT\r\nUID:1\r\n{event}\r\nEND:VEVENT\r\n" for event in events)
    text = f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//test//EN\r\n{made}END:VCALENDAR\r\n"
    return [day for day, _ in days_of_events(text, NOW_MS, 1).days]


def test_what_recurs_and_has_no_uid_ends_at_the_horizon_too() -> None:
    event = "BEGIN:VEVENT\r\nDTSTART;VALUE=DATE:{0}\r\n{1}END:VEVENT\r\n"
    made = event.format("20200115", "RRULE:FREQ=YEARLY\r\n") + event.format("20270301", "")
    text = f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{made}END:VCALENDAR\r\n"
    found = [day for day, _ in days_of_events(text, NOW_MS, 1).days]
    assert found == ["2026-01-15", "2027-01-15", "2027-03-01"]


def test_events_that_share_a_uid() -> None:
    """Files give one to several; of revisions of one event the last counts."""
    christmas, boxing = "DTSTART;VALUE=DATE:20261225", "DTSTART;VALUE=DATE:20261226"
    assert of_one_uid(christmas, boxing) == ["2026-12-25", "2026-12-26"]
    revised = of_one_uid(f"{christmas}\r\nSEQUENCE:1", f"{boxing}\r\nSEQUENCE:2")
    assert revised == ["2026-12-26"]
    with pytest.raises(InvalidJobFile, match="no iCalendar file that can be read"):
        of_one_uid(f"{christmas}\r\nSEQUENCE:x", boxing)


def test_an_event_that_doesnt_recur_counts_however_far_ahead_it_is() -> None:
    assert [day for day, _ in days("DTSTART;VALUE=DATE:20401225")] == ["2040-12-25"]
