"""What is odd about schedules, though nothing is wrong with them."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from etcsched.core.schedule import Cron
from etcsched.core.times import Utc, ms_of
from etcsched.jobfile import JobFiles, Known, load
from etcsched.jobfile.lint import STAMPEDE_JOBS, lint

NOW_MS = ms_of(Utc("2026-11-22T19:00:00.000Z"))
RUN = "run: {exec: [x]}"
ON_REQUEST = "state: ad_hoc_active"


def said(text: str, now_ms: int = NOW_MS) -> list[str]:
    return lint_of(load([("a.yaml", text)], NOW_MS), now_ms)


def lint_of(files: JobFiles, now_ms: int) -> list[str]:
    return lint(files.jobs, {one.name: one for one in files.calendars}, now_ms)


@pytest.mark.parametrize(
    ("fields", "warnings"),
    [
        ("schedule: {cron: 0 3 * * *}", []),
        ("schedule: {cron: 30 2 * * *}", []),
        ("schedule: {every: 1h}, timezone: Europe/Berlin", []),
        # Dead.
        (
            "schedule: {cron: 0 0 29 2 *}",
            ["a: schedule: cron '0 0 29 2 *' isn't due before 2028-02-29"],
        ),
        ("schedule: {cron: 0 0 29 2 *}, state: disabled", []),
        (
            "schedule: {cron: 0 3 * * 7}, calendars: [weekday]",
            ["a: schedule: cron '0 3 * * 7' is never due: its calendars (weekday) forbid it"],
        ),
        (
            "schedule: [{cron: 0 3 * * *}, {at: '2026-12-25T03:00:00'}], calendars: [christmas]",
            [
                "a: schedule: at 2026-12-25T03:00:00Z is never due: its calendars (christmas) "
                "forbid it"
            ],
        ),
        (
            "schedule: {cron: 0 3 * * *}, "
            "windows: {from: 2026-01-01, until: 2026-02-01, state: disabled}",
            ["a: windows[0] was over at 2026-02-01T00:00:00Z; take it out"],
        ),
        (
            "schedule: {at: '2027-01-05T00:00:00'}, "
            "windows: {from: 2027-01-01, until: 2027-02-01, state: disabled}",
            ["a: schedule: never due, as its windows and calendars have it"],
        ),
        (
            "schedule: {every: 3000000d}",
            ["a: schedule: every 3000000d is never due: ticks end with the year 9000"],
        ),
        (
            "schedule: {every: 3000000d}, calendars: [weekday]",
            ["a: schedule: every 3000000d is never due: ticks end with the year 9000"],
        ),
        ("state: ad_hoc_active", []),
        # Changes of the clocks.
        (
            "schedule: {cron: 30 2 * * *}, timezone: Europe/Berlin",
            [
                "a: schedule: cron '30 2 * * *' in Europe/Berlin: 2027-03-28 02:30 is skipped by "
                "the clocks, it is due at 03:00 then; 2027-10-31 02:30 comes twice, it is due the "
                "first time only"
            ],
        ),
        (
            "schedule: {cron: 15 1 * * 0}, timezone: America/New_York",
            [
                "a: schedule: cron '15 1 * * 0' in America/New_York: 2027-11-07 01:15 comes twice, "
                "it is due the first time only"
            ],
        ),
        ("schedule: {cron: 30 2 * * 1}, timezone: Europe/Berlin", []),
        ("schedule: {cron: 0 3 * * *}, timezone: Europe/Berlin", []),
        ("schedule: {cron: '*/30 * * * *'}, timezone: Europe/Berlin", []),
        ("schedule: {cron: 30 2 * * *}, timezone: Asia/Tokyo", []),
        ("schedule: {cron: 30 2 * * *}, timezone: Europe/Berlin, state: disabled", []),
        # Splays.
        (
            "schedule: {cron: '0,5 3 * * *', splay: 5m}",
            [
                "a: splay: 5m is as long as its ticks are apart (5m) or longer, and with overlap: "
                "skip a tick is lost where the one before still waits for its splay; shorten it, "
                "or take overlap: queue"
            ],
        ),
        ("schedule: {cron: '0,5 3 * * *', splay: 4m}", []),
        ("schedule: {every: 1m, splay: 5m}, overlap: queue", []),
    ],
)
def test_what_is_said(fields: str, warnings: list[str]) -> None:
    calendars = "calendars: {weekday: {include: [2027-01-04]}, christmas: {exclude: [2026-12-25]}}"
    assert said(f"{calendars}\njobs: {{a: {{{RUN}, {fields}}}}}") == warnings


def test_a_time_that_has_passed() -> None:
    text = f"jobs: {{a: {{{RUN}, schedule: {{at: '2026-12-25'}}}}}}"
    known = Known(jobs={job.name: job for job in load([("a.yaml", text)], NOW_MS).jobs})
    later_ms = NOW_MS + 40 * 86_400_000
    again = load([("a.yaml", text)], later_ms, known)
    assert lint_of(again, later_ms) == ["a: schedule: at 2026-12-25T00:00:00Z has passed"]


@pytest.mark.parametrize(
    ("run", "named"),
    [
        ("shell: 'load {rows} $ETCSCHED_PARAM_DAY'", ["rows"]),
        ("shell: 'load {day} {rows} {rows}'", ["rows", "day"]),
        ("shell: 'load ${rows} {other} rows'", []),
        ("exec: [load, '{rows}']", []),
    ],
)
def test_parameters_in_a_shell(run: str, named: list[str]) -> None:
    assert said(f"jobs: {{a: {{run: {{{run}}}, params: {{rows: 1, day: 2}}, {ON_REQUEST}}}}}") == [
        f"a: run: a shell gets {{{name}}} as it stands; write $ETCSCHED_PARAM_{name.upper()}"
        for name in named
    ]


def test_chains() -> None:
    b = f"b: {{{RUN}, state: disabled}}"
    a = f"a: {{{RUN}, schedule: {{every: 1h}}, chain: {{to: b, require: all}}}}"
    idle = (
        "a: chain: b is disabled, so nothing follows there until its state is enabled or "
        "chain_active"
    )
    alone = "a: chain: require: all waits for nobody, since no other job joins at b"
    jobs = {job.name: job for job in load([("a.yaml", f"jobs:\n {a}\n {b}\n")], NOW_MS).jobs}
    assert lint([*jobs.values()], {}, NOW_MS) == [idle, alone]
    assert lint([jobs["a"]], {}, NOW_MS, {"a"}, jobs) == [idle, alone]
    assert lint([jobs["b"]], {}, NOW_MS, {"b"}, jobs) == [idle]
    assert lint([jobs["b"]], {}, NOW_MS, set(), jobs) == []


def test_a_per_host_job_that_joins_with_another() -> None:
    end = f"end: {{{RUN}, state: chain_active}}"
    both = "schedule: {every: 1h}, chain: {to: end, require: all}"
    text = f"jobs:\n a: {{{RUN}, {both}, per_host: true}}\n b: {{{RUN}, {both}}}\n {end}\n"
    assert said(text) == [
        "a: chain: require: all waits at end for b in vain: per_host begins a chain on each agent, "
        "and b is in none of them"
    ]
    assert said(text.replace(", per_host: true", "")) == []


def many(count: int, more: str = "", crons: tuple[str, str] = ("0 0 * * *", "@daily")) -> str:
    return "jobs:\n" + "".join(
        f"  j{n:03}: {{{RUN}, schedule: {{cron: '{crons[n % 2]}'}}{more}}}\n" for n in range(count)
    )


def test_stampedes() -> None:
    assert said(many(STAMPEDE_JOBS - 1)) == []
    assert said(many(STAMPEDE_JOBS)) == [
        f"{STAMPEDE_JOBS} jobs are due at 2026-11-23T00:00:00Z (j000, j001, j002 and "
        f"{STAMPEDE_JOBS - 3} more); a splay spreads them"
    ]
    assert said(many(STAMPEDE_JOBS, ", splay: 10m")) == []
    assert said(many(STAMPEDE_JOBS, ", state: disabled")) == []
    (often,) = said(
        many(STAMPEDE_JOBS).replace("0 0 * * *", "0 * * * *").replace("@daily", "@hourly")
    )
    assert "and likewise at 23 more instants within a day" in often


def test_intervals_of_one_anchor_are_one_stampede() -> None:
    jobs = "".join(f"  j{n:03}: {{{RUN}}}\n" for n in range(STAMPEDE_JOBS))
    (found,) = said(f"defaults: {{schedule: {{every: 1h}}}}\njobs:\n{jobs}")
    assert found.startswith(f"{STAMPEDE_JOBS} jobs are due at 2026-11-22T20:00:00Z ")


def test_only_what_has_changed_is_said() -> None:
    text = many(STAMPEDE_JOBS) + (
        f"  alone: {{{RUN}, schedule: {{cron: 30 2 * * *}}, timezone: Europe/Berlin}}\n"
    )
    jobs = load([("a.yaml", text)], NOW_MS).jobs
    assert len(lint(jobs, {}, NOW_MS, {"alone"})) == 1
    assert len(lint(jobs, {}, NOW_MS, {"j003"})) == 1
    assert lint(jobs, {}, NOW_MS, set()) == []


def test_many_different_schedules_are_looked_at_in_bounded_time() -> None:
    (job,) = load([("a.yaml", many(1))], NOW_MS).jobs
    lots = []
    for number in range(5_000):
        own = Cron(f"{number % 60} {number // 60 % 24} * * *")
        version = replace(job.current, patterns=(own, Cron("* * * * *")))
        lots.append(replace(job, name=f"k{number}", versions=(version,)))
    begun_s = time.process_time()
    (found,) = lint(lots, {}, NOW_MS)
    assert " jobs are due at " in found
    assert time.process_time() - begun_s < 30
