"""Calendars, windows and splay in job files."""

from __future__ import annotations

import pytest

from etcsched.core.durations import format_duration
from etcsched.core.errors import InvalidJobFile
from etcsched.core.limits import Limits
from etcsched.core.records import CalendarVersion, ClusterSettings, Window
from etcsched.core.schedule import Every
from etcsched.core.states import JobState
from etcsched.core.timeline import next_tick
from etcsched.core.times import Utc, ms_of
from etcsched.jobfile import JobFiles, load
from etcsched.jobfile.exporting import export, to_yaml
from etcsched.jobfile.writing import fields_of

NOW = Utc("2026-11-22T19:00:00.500Z")
RUN = "run: {exec: [x]}, schedule: {every: 1h}"


def loaded(*texts: str) -> JobFiles:
    files = [(f"{'abc'[number]}.yaml", text) for number, text in enumerate(texts)]
    return load(files, ms_of(NOW))


def problem(*texts: str) -> str:
    with pytest.raises(InvalidJobFile) as caught:
        loaded(*texts)
    (found,) = caught.value.problems
    return found


def test_calendars_and_their_uses() -> None:
    found = loaded(
        "calendars: {h: {exclude: [2026-12-25, 2026-03-01/2026-03-04, 2026-12-25]},\n"
        "  q: {include: 2026-03-31}}",
        "defaults: {calendars: [q]}\njobs:\n"
        "  a: {run: {exec: [x]}, schedule: {cron: 30 2 * * *, calendars: [h]}}\n"
        "  b: {run: {exec: [x]}, schedule: [{every: 1h}]}\n"
        "  c: {run: {exec: [x]}, schedule: {every: 1h}, calendars: h}\n",
    )
    holidays, quarters = found.calendars
    assert (holidays.name, holidays.from_file) == ("h", True)
    assert holidays.current == CalendarVersion(
        since=NOW, exclude=("2026-03-01/2026-03-04", "2026-12-25")
    )
    assert quarters.current.include == ("2026-03-31",)
    uses = {job.name: job.current.calendars for job in found.jobs}
    assert uses == {"a": ("q", "h"), "b": ("q",), "c": ("h",)}
    assert fields_of(found.jobs[0])["calendars"] == ["q", "h"]


@pytest.mark.parametrize(
    ("calendars", "text"),
    [
        ("{h: {exclude: [2026-13-01]}}", ".h.exclude[0]: '2026-13-01' is no date; write 2026-"),
        ("{h: {exclude: [2026-12-25/2026-12-24]}}", "ends before it begins"),
        ("{h: {excluded: [2026-12-25]}}", ".h.excluded: unknown field 'excluded'; did you mean"),
        ("{h: [2026-12-25]}", ".h: takes a map like {exclude: [2026-12-25]}, not a list"),
        ("{h: {include: []}}", ".h.include: is empty, so it confines nothing; write e.g. ["),
        ("{_h: {}}", "._h: '_h' is no name for a calendar"),
    ],
)
def test_a_wrong_calendar(calendars: str, text: str) -> None:
    found = problem(f"\ncalendars: {calendars}")
    assert found.startswith("a.yaml:2: calendars")
    assert text in found


def test_a_calendar_given_twice() -> None:
    text = "calendars: {h: {}}"
    assert problem(text, text) == "b.yaml:1: calendars.h: is given twice; first in a.yaml:1"


@pytest.mark.parametrize(
    ("fields", "calendars", "text"),
    [
        ("calendars: [hs]", "{h: {}}", "calendars[0]: unknown calendar 'hs'; known are h"),
        ("calendars: hs", "", "calendars: unknown calendar 'hs'; these files have none, write"),
        ("calendars: [1, 2, 3, 4, 5, 6, 7, 8, 9]", "", "calendars[8]: 9 calendars; a job may use"),
    ],
)
def test_a_wrong_use_of_calendars(fields: str, calendars: str, text: str) -> None:
    found = problem(f"calendars: {calendars}\njobs:\n  a: {{{RUN}, {fields}}}")
    assert found.startswith(f"a.yaml:3: jobs.a.{text}")


@pytest.mark.parametrize("beside", ["calendars: [h]", "splay: 1m", "splay: 1m, calendars: h"])
def test_a_schedule_without_a_pattern(beside: str) -> None:
    job = f"{{run: {{exec: [x]}}, schedule: {{{beside}}}}}"
    found = problem(f"calendars: {{h: {{}}}}\njobs: {{a: {job}}}")
    assert found.startswith("a.yaml:2: jobs.a.schedule: has no pattern; write e.g. {cron: ")


@pytest.mark.parametrize(
    ("defaults", "own", "splay_s"),
    [
        ("", "schedule: {cron: 0 3 * * *, splay: 10m}", 600.0),
        ("splay: 5m", "schedule: {cron: 0 3 * * *, splay: 10m}", 600.0),
        ("splay: 5m", "schedule: {cron: 0 3 * * *}", 300.0),
        ("schedule: {every: 1h, splay: 5m}", "", 300.0),
        ("schedule: {every: 1h, splay: 5m}", "splay: 10m", 600.0),
        ("schedule: {every: 1h, splay: 5m}", "schedule: {every: 2h}", 0.0),
    ],
)
def test_a_splay_stands_beside_a_schedule_or_in_it(defaults: str, own: str, splay_s: float) -> None:
    text = f"defaults: {{{defaults}}}\njobs: {{a: {{run: {{exec: [x]}}, {own}}}}}"
    (job,) = loaded(text).jobs
    assert job.splay_s == splay_s
    again = export([job], [], [], ClusterSettings(), ms_of(NOW)).document
    assert again["jobs"]["a"].get("splay", "0s") == format_duration(splay_s)
    assert loaded(to_yaml(again)).jobs == [job]


@pytest.mark.parametrize(
    ("defaults", "own", "text"),
    [
        (
            "",
            "splay: 1m, schedule: {every: 1h, splay: 1m}",
            "2: jobs.a.schedule.splay: is given twice; beside the schedule in line 2",
        ),
        (
            "splay: 1m, schedule: {every: 1h, splay: 1m}",
            "",
            "1: defaults.schedule.splay: is given twice; beside the schedule in line 1",
        ),
        ("", "schedule: {every: 1h, splay: soon}", "2: jobs.a.schedule.splay: 'soon' is no durat"),
        (
            "",
            "schedule: [{every: 1h, splay: 1m}]",
            "2: jobs.a.schedule[0].splay: unknown field 'splay'; known are cron, every, at",
        ),
        ("", "schedule: !of_mine {every: 1h}", "2: jobs.a.schedule: the tag !of_mine has no"),
    ],
)
def test_a_wrong_splay(defaults: str, own: str, text: str) -> None:
    found = problem(f"defaults: {{{defaults}}}\njobs: {{a: {{run: {{exec: [x]}}, {own}}}}}")
    assert found.startswith(f"a.yaml:{text}")


def test_windows() -> None:
    (job,) = loaded(
        """
        defaults: {timezone: Europe/Berlin}
        jobs:
          a:
            run: {exec: [x]}
            schedule: {every: 1h}
            splay: 10m
            windows:
              - {from: "2026-12-30T12:00", until: "2026-12-31T12:00Z", schedule: {every: 5m}}
              - {from: 2026-12-24, until: 2026-12-27, state: disabled}
        """
    ).jobs
    assert job.current.windows == (
        Window(
            since=Utc("2026-12-23T23:00:00.000Z"),
            until=Utc("2026-12-26T23:00:00.000Z"),
            state=JobState.DISABLED,
        ),
        Window(
            since=Utc("2026-12-30T11:00:00.000Z"),
            until=Utc("2026-12-31T12:00:00.000Z"),
            patterns=(Every(300, Utc("2026-12-30T11:00:00.000Z")),),
        ),
    )
    shown = fields_of(job)
    assert shown["splay"] == "10m"
    assert shown["windows"][1] == {
        "from": "2026-12-30T11:00:00Z", "until": "2026-12-31T12:00:00Z",
        "schedule": [{"every": "5m"}],
    }  # fmt: skip


WINDOW = "from: 2026-12-24, until: 2026-12-27"


@pytest.mark.parametrize(
    ("windows", "text"),
    [
        (f"{{{WINDOW}}}", ": changes nothing; write a state or a schedule, e.g. {from: "),
        ("{from: 2026-12-24, state: disabled}", ": has no until; write e.g. {from: "),
        (
            "{from: 2026-12-24, until: 2026-12-24, state: disabled}",
            ".until: isn't later than its from",
        ),
        ("{from: soon, until: 2026-12-24, state: disabled}", ".from: 'soon': not a time; write"),
        (
            f"[{{{WINDOW}, state: disabled}}, {{from: 2026-12-26, until: 2027-01-01, "
            "state: enabled}]",
            "[1]: overlaps the window from 2026-12-24T00:00:00Z until 2026-12-27T00:00:00Z; ",
        ),
        (f"{{{WINDOW}, state: off}}", ".state: unknown value 'off'"),
        (
            f"{{{WINDOW}, schedule: {{every: 1h, calendars: [h]}}}}",
            ".schedule.calendars: is the job's own matter; leave it out here",
        ),
        (
            f"{{{WINDOW}, schedule: {{every: 1h, splay: 1m}}}}",
            ".schedule.splay: is the job's own matter; leave it out here",
        ),
        (
            f"{{{WINDOW}, schedule: {{at: 2026-12-23T23:59:59}}}}",
            ".schedule.at: '2026-12-23T23:59:59' is before its window, which begins at "
            "2026-12-24T00:00:00Z; give a later time",
        ),
    ],
)
def test_a_wrong_window(windows: str, text: str) -> None:
    found = problem(f"jobs:\n  a: {{{RUN}, windows: {windows}}}")
    assert found.startswith("a.yaml:2: jobs.a.windows")
    assert text in found


def test_what_is_due_as_its_window_begins() -> None:
    begin = "2026-12-24T00:00:00"
    files = loaded(
        f"jobs: {{a: {{run: {{exec: [x]}}, windows: {{{WINDOW}, schedule: {{at: {begin}}}}}}}}}"
    )
    (job,) = files.jobs
    begin_ms = ms_of(Utc(f"{begin}.000Z"))
    assert next_tick(job, Limits(), begin_ms - 1000) == begin_ms


def test_a_job_may_be_scheduled_in_its_windows_only() -> None:
    (job,) = loaded(
        f"jobs: {{a: {{run: {{exec: [x]}}, windows: {{{WINDOW}, schedule: {{every: 1h}}}}}}}}"
    ).jobs
    assert job.current.patterns == ()
