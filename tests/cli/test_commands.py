"""What commands do, and how they end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from etcsched.core.errors import ClusterUnreachable
from etcsched.core.records import (
    CLUSTER,
    Answer,
    Assignment,
    Calendar,
    CalendarVersion,
    ClusterSettings,
    ConflictGroup,
    Drain,
    Exec,
    Gap,
    Job,
    Kind,
    Link,
    Pause,
    Request,
    Run,
    StartSeen,
    Watermark,
)
from etcsched.core.states import JobState, OnDisconnect, Origin, Outcome, RunState
from etcsched.core.times import Utc
from etcsched.keyspace.ops import Delete, Txn, TxnResult
from etcsched.operator import waiting
from etcsched.testing.model_etcd import ModelEtcd
from tests.cli.console import NOW, Console, finished, job

JOBS = """\
jobs:
  close_books:
    run: {exec: [/opt/erp/close]}
    schedule: {cron: 30 2 * * *}
    timeout: 2h
  hourly:
    run: {shell: make report}
    schedule: {every: 1h}
"""
REQUEST_ID = "20261122T190000.500Z-abcd"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.yaml"
    path.write_text(JOBS)
    return path


# --- apply and delete ---------------------------------------------------------------------


def test_a_pause_outlives_its_job(console: Console, file: Path) -> None:
    console.ok("apply", str(file))
    console.ok("jobs", "pause", "hourly")
    console.ok("jobs", "delete", "hourly", "--yes")
    note = "note: paused before, and so still: hourly; etcsched jobs resume lets them go on\n"
    for options in (["--dry-run"], []):
        result = console.run("apply", str(file), *options)
        assert (result.exit_code, result.stderr) == (0, note)
    assert console.ok("apply", str(file)) == "2 unchanged\n"


def test_who_deletes_what_isnt_there_isnt_asked(console: Console, file: Path) -> None:
    console.ok("apply", str(file))
    line = "etcsched: job hurly: there is none; did you mean hourly?"
    assert console.fails(4, "jobs", "delete", "close_books", "hurly") == line
    assert console.get(Job, Kind.JOB, "close_books").current.state is JobState.ENABLED


def test_apply(console: Console, file: Path) -> None:
    assert console.ok("validate", str(file)) == "2 jobs, no problem\n"
    assert console.ok("apply", str(file), "--dry-run").endswith("\nwould be: 2 created\n")
    assert console.get(Job, Kind.JOB, "hourly") is None

    assert console.ok("apply", str(file)) == (
        "CHANGE  JOB          FIELD  BEFORE  AFTER\n"
        "create  close_books\n"
        "create  hourly\n"
        "\n"
        "2 created\n"
    )
    stored = console.get(Job, Kind.JOB, "hourly")
    assert (stored.current.since, stored.from_file) == (NOW, True)
    assert stored.changed_by.startswith("anna@")

    console.now = Utc("2026-11-22T19:10:00.000Z")
    assert console.ok("apply", str(file)) == "2 unchanged\n"
    assert console.get(Job, Kind.JOB, "hourly") == stored

    file.write_text(JOBS.replace("2h", "3h").replace("30 2", "45 2"))
    shown = (
        "CHANGE  JOB          FIELD     BEFORE                    AFTER\n"
        "update  close_books\n"
        '                     schedule  [{"cron": "30 2 * * *"}]  [{"cron": "45 2 * * *"}]\n'
        "                     timeout   2h                        3h\n"
        "\n"
    )
    assert console.ok("apply", str(file), "--dry-run") == (
        f"{shown}would be: 1 updated, 1 unchanged\n"
    )
    assert console.ok("apply", str(file)) == f"{shown}1 updated, 1 unchanged\n"
    versions = console.get(Job, Kind.JOB, "close_books").versions
    assert [version.since for version in versions] == [NOW, console.now]


def test_settings(console: Console, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("settings: {resubmit_states: [died, missed]}")
    assert console.ok("validate", str(path)) == "0 jobs, 1 setting, no problem\n"
    planned = console.ok("apply", str(path), "--dry-run")
    assert "update  (settings)\n" in planned
    assert planned.endswith('  ["died", "missed"]\n\nwould be: 1 updated\n')
    assert console.get(ClusterSettings, Kind.SETTINGS) is None
    assert console.ok("apply", str(path)).endswith("\n1 updated\n")
    stored = console.get(ClusterSettings, Kind.SETTINGS)
    assert stored.resubmit_states == (RunState.DIED, RunState.MISSED)
    assert stored.changed_by.startswith("anna@")
    assert console.ok("apply", str(path)) == "1 unchanged\n"
    assert console.json("settings", "show") == {
        "resubmit_states": ["died", "missed"],
        "recovery_rate": "10/s",
        "max_active_agents": "unlimited",
        "max_history": "512MiB",
    }
    assert "died, missed  no: failed, timed_out, " in console.ok("settings", "show")


GROUP = "conflicts: {ledger: [hourly, close_books]}\n"


def test_conflict_groups(console: Console, file: Path) -> None:
    assert console.ok("conflicts", "list").startswith("no conflict groups; ")
    file.write_text(JOBS + GROUP)
    assert console.ok("validate", str(file)) == "2 jobs, 1 conflict group, no problem\n"
    planned = console.ok("apply", str(file), "--dry-run")
    assert "create  (conflicts: ledger)\n" in planned
    assert console.get(ConflictGroup, Kind.CONFLICT, "ledger") is None
    assert console.ok("apply", str(file)).endswith("\n3 created\n")
    group = console.get(ConflictGroup, Kind.CONFLICT, "ledger")
    assert (group.jobs, group.from_file) == (("hourly", "close_books"), True)
    assert group.changed_by.startswith("anna@")
    before = console.get(Job, Kind.JOB, "hourly")
    assert console.ok("apply", str(file)) == "3 unchanged\n"

    for run_id, state in (("20261122T190000Z", "assigned"), ("20261122T200000Z", "conflicted")):
        name = "hourly" if state == "assigned" else "close_books"
        run = Run(
            job=name, id=run_id, state=RunState(state), origin=Origin.SCHEDULE, created_at=NOW
        )
        console.put(run, Kind.RUN, name, run_id)
    assert console.ok("conflicts", "list") == (
        "GROUP   JOBS, HIGHEST PRIORITY FIRST  HELD BY                  WAITING\n"
        "ledger  hourly, close_books           hourly/20261122T190000Z        1\n"
    )
    assert console.ok("conflicts", "show", "ledger") == (
        "JOB          HOLDS IT          WAITING\n"
        "hourly       20261122T190000Z  -\n"
        "close_books  -                 20261122T200000Z\n"
    )
    assert console.json("conflicts", "show", "ledger")["members"][0]["job"] == "hourly"

    file.write_text(JOBS + GROUP.replace("hourly, close_books", "close_books, hourly"))
    assert '["hourly", "close_books"]  ["close_books", "hourly"]' in console.ok("apply", str(file))
    assert console.get(Job, Kind.JOB, "hourly") == before

    assert console.ok("conflicts", "delete", "ledger", "--yes") == "ledger is deleted\n"
    assert console.fails(4, "conflicts", "delete", "ledger", "--yes") == (
        "etcsched: conflict group ledger: there is none; see etcsched conflicts list"
    )
    assert "there is none" in console.fails(4, "conflicts", "show", "ledger")


@pytest.mark.parametrize(
    ("on_disconnect", "holder"),
    [(OnDisconnect.CONTINUE, "hourly/20261122T190000Z"), (OnDisconnect.STOP, "-")],
)
def test_a_held_run_whose_process_may_run_on_holds_its_group(
    console: Console, file: Path, on_disconnect: OnDisconnect, holder: str
) -> None:
    """As the leader sees it (``scenarios/test_conflicts.py`` has its side)."""
    file.write_text(JOBS + GROUP)
    console.ok("apply", str(file))
    held = Run(
        job="hourly",
        id="20261122T190000Z",
        state=RunState.HELD,
        origin=Origin.SCHEDULE,
        created_at=NOW,
        agent="host-a",
        attempt=1,
    )
    console.put(held, Kind.RUN, held.job, held.id)
    assignment = Assignment(
        job=held.job,
        run=held.id,
        agent="host-a",
        incarnation="1f",
        attempt=1,
        action=Exec(("/bin/true",)),
        on_disconnect=on_disconnect,
        seen=StartSeen(job=1),
        assigned_at=NOW,
        term=7,
    )
    console.put(assignment, Kind.ASSIGNMENT, "host-a", held.job, held.id)
    (_, told) = console.ok("conflicts", "list").splitlines()
    assert told.split() == ["ledger", "hourly,", "close_books", holder, "0"]


CALENDAR = "calendars: {holidays: {exclude: [2026-11-23, 2026-12-24/2026-12-26]}}\n"


def test_calendars(console: Console, file: Path) -> None:
    assert console.ok("calendars", "list").startswith("no calendars; ")
    jobs = JOBS.replace("30 2 * * *}", "30 2 * * *, calendars: [holidays]}")
    file.write_text(jobs + CALENDAR)
    assert console.ok("validate", str(file)) == "2 jobs, 1 calendar, no problem\n"
    assert "create  (calendars: holidays)\n" in console.ok("apply", str(file), "--dry-run")
    assert console.get(Calendar, Kind.CALENDAR, "holidays") is None
    assert console.ok("apply", str(file)).endswith("\n3 created\n")
    assert console.ok("apply", str(file)) == "3 unchanged\n"
    assert console.ok("calendars", "list") == (
        "CALENDAR  EXCLUDE                            INCLUDE  USED BY\n"
        "holidays  2026-11-23, 2026-12-24/2026-12-26  -        close_books\n"
    )
    shown = console.json("calendars", "show", "holidays")
    assert shown["exclude"] == ["2026-11-23", "2026-12-24/2026-12-26"]
    assert shown["jobs"] == ["close_books"]
    ticks = console.json("jobs", "next", "close_books", "-n", "2")
    assert [tick["at"][:10] for tick in ticks] == ["2026-11-24", "2026-11-25"]
    assert console.json("jobs", "show", "close_books")["next_tick"][:10] == "2026-11-24"
    assert console.json("status")["next_tick"]["job"] == "hourly"

    console.now = Utc("2026-11-22T20:00:00.000Z")
    file.write_text(jobs + CALENDAR.replace("2026-11-23, ", ""))
    assert '["2026-12-24/2026-12-26"]' in console.ok("apply", str(file))
    versions = console.get(Calendar, Kind.CALENDAR, "holidays").versions
    assert [version.since for version in versions] == [NOW, console.now]
    (tick,) = console.json("jobs", "next", "close_books", "-n", "1")
    assert tick["at"][:10] == "2026-11-23"

    assert console.fails(5, "calendars", "delete", "holidays", "--yes").startswith(
        "etcsched: calendar holidays: used by close_books; take it out of their files first"
    )
    console.ok("jobs", "delete", "close_books", "--yes")
    store = console.store
    store.txn(Txn((), (Delete(console.keys.of(Kind.JOB, "close_books")),)))
    assert console.ok("calendars", "delete", "holidays", "--yes") == "holidays is deleted\n"
    assert "there is none" in console.fails(4, "calendars", "show", "holidays")


def test_what_an_import_prints_can_be_applied(console: Console, tmp_path: Path) -> None:
    ics = tmp_path / "holidays.ics"
    ics.write_text(
        "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\nBEGIN:VEVENT\nUID:1\nDTSTAMP:20260101T000000Z\n"
        "DTSTART;VALUE=DATE:20201225\nRRULE:FREQ=YEARLY\nSUMMARY:Christmas: day\nEND:VEVENT\n"
        "END:VCALENDAR\n"
    )
    printed = console.ok("calendars", "import", str(ics), "--name", "holidays")
    assert printed == (
        f"# from {ics}; recurring events through 2028-11-21\n"
        "calendars:\n"
        "  holidays:\n"
        "    exclude:\n"
        "      - 2025-12-25  # Christmas: day\n"
        "      - 2026-12-25  # Christmas: day\n"
        "      - 2027-12-25  # Christmas: day\n"
    )
    assert console.ok("apply", "-", stdin=printed).endswith("\n1 created\n")
    assert "include:" in console.ok("calendars", "import", str(ics), "--name", "x", "--include")
    null = console.ok("calendars", "import", str(ics), "--name", "null")
    assert console.ok("validate", "-", stdin=null) == "0 jobs, 1 calendar, no problem\n"
    for name in ("a: b", "a/b", "_x"):
        assert console.fails(2, "calendars", "import", str(ics), "--name", name).startswith(
            f"etcsched: --name: {name!r} is no name for a calendar; it takes"
        )
    ics.write_text(ics.read_text().replace("RRULE:FREQ=YEARLY\n", ""))
    assert "exclude: []" in console.ok("calendars", "import", str(ics), "--name", "x")
    none = console.fails(1, "calendars", "import", str(ics), "--name", "x", "--include")
    assert none == f"etcsched: {ics}: no day between 2025-11-21 and 2028-11-21"
    ics.write_text("nothing")
    assert "no iCalendar" in console.fails(2, "calendars", "import", str(ics), "--name", "x")


def test_splay_is_shown_with_the_ticks(console: Console, file: Path) -> None:
    file.write_text(JOBS.replace("timeout: 2h", "splay: 10m"))
    console.ok("apply", str(file))
    (tick,) = console.json("jobs", "next", "close_books", "-n", "1")
    assert tick["at"] < tick["starts_at"] < "2026-11-23T02:40"
    assert "STARTS" in console.ok("jobs", "next", "close_books")


def test_a_group_of_jobs_that_no_file_names_is_refused(console: Console, file: Path) -> None:
    file.write_text(JOBS + "conflicts:\n  ledger: [hourly, montly]\n")
    assert console.fails(2, "apply", str(file)) == (
        f"etcsched: {file}:10: conflicts.ledger[1]: unknown job 'montly'; "
        "known are close_books, hourly"
    )
    assert console.get(Job, Kind.JOB, "hourly") is None


def test_apply_says_what_continue_waives(console: Console, tmp_path: Path) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "jobs: {idem: {run: {exec: [x]}, schedule: {every: 1h}, on_disconnect: continue}}"
    )
    first, again = console.run("apply", str(path)), console.run("apply", str(path))
    assert first.stderr == (
        "note: idem: on_disconnect: continue waives that its attempts, and jobs of its conflict "
        "groups, never overlap\n"
    )
    assert (first.exit_code, again.exit_code, again.stderr) == (0, 0, "")


def test_apply_from_standard_input(console: Console) -> None:
    assert console.ok("apply", "-", stdin=JOBS).endswith("2 created\n")


def test_a_timeline_counts_from_the_watermark_and_keeps_what_a_gap_needs(
    console: Console, file: Path
) -> None:
    console.ok("apply", str(file))
    through = Utc("2026-11-22T20:00:00.000Z")
    console.put(Watermark(through=through, term=1), Kind.WATERMARK)
    gap = Gap(job="close_books", since=NOW, decided_through=NOW, reason="no agent")
    console.put(gap, Kind.GAP, "close_books")
    file.write_text(JOBS.replace("30 2", "45 2").replace("1h", "2h"))
    console.now = Utc("2026-11-22T19:59:00.000Z")
    console.ok("apply", str(file))
    kept = {
        name: [v.since for v in console.get(Job, Kind.JOB, name).versions]
        for name in ("close_books", "hourly")
    }
    right_after = Utc("2026-11-22T20:00:00.001Z")
    assert kept == {"close_books": [NOW, right_after], "hourly": [right_after]}


def test_nothing_is_applied_with_any_problem(console: Console, file: Path) -> None:
    bad = file.with_name("bad.yaml")
    bad.write_text("jobs:\n  a:\n    run: {exec: [x]}\n    timeout: 2 hours\n")
    assert console.fails(2, "apply", str(file), str(bad)) == (
        f"{bad}:2: jobs.a: has no schedule; give it one, or a lifecycle, or state: ad_hoc_active "
        "if it runs on request only, chain_active if other jobs chain to it\n"
        f"{bad}:4: jobs.a.timeout: '2 hours' is no duration; write e.g. 2h"
    )
    assert console.get(Job, Kind.JOB, "hourly") is None
    assert console.fails(2, "validate", str(bad)).count("\n") == 1


def test_apply_many(console: Console, tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    lines = "".join(
        f"  j{n}: {{run: {{exec: [x]}}, schedule: {{every: 1h}}}}\n" for n in range(250)
    )
    path.write_text(f"jobs:\n{lines}")
    result = console.run("apply", str(path))
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "250 created")
    assert result.stderr.startswith("warning: 250 jobs are due at 2026-11-22T20:00:00Z (j0, j1, ")
    assert console.ok("apply", str(path)) == "250 unchanged\n"


@pytest.mark.parametrize(
    ("of", "name"), [("jobs", "close_books"), ("calendars", "days"), ("conflicts", "ledger")]
)
def test_deleting_asks_first(console: Console, tmp_path: Path, of: str, name: str) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(JOBS + GROUP + "calendars: {days: {exclude: [2026-12-24]}}\n")
    console.ok("apply", str(file))
    declined = console.run(of, "delete", name, stdin="n\n")
    assert (declined.exit_code, declined.stdout, declined.stderr) == (
        1,
        "",
        f"Delete {name}? [y/N]: n\netcsched: nothing was deleted\n",
    )
    unasked = console.run(of, "delete", name)
    assert unasked.exit_code == 2
    assert unasked.stderr.endswith("\netcsched: nothing was deleted: nobody answered; say --yes\n")
    assert console.ok("apply", str(file)) == "4 unchanged\n"
    assert console.ok(of, "delete", name, "--yes") == f"{name} is deleted\n"


def test_delete(cluster: Console) -> None:
    assert cluster.ok("jobs", "delete", "close_books", "--yes") == "close_books is deleted\n"
    current = cluster.get(Job, Kind.JOB, "close_books").current
    assert (current.state, current.since) == (JobState.DELETED, NOW)
    assert [view["name"] for view in cluster.json("jobs", "list")] == ["rotate_logs"]
    assert cluster.fails(4, "jobs", "delete", "close_books", "--yes") == (
        "etcsched: job close_books: is deleted; apply its file again to bring it back"
    )


NAMES = [f"j{number:02}" for number in range(30)]


def jobs_of(names: Iterable[str], command: str = "x") -> str:
    """A file."""
    of_each = (f"  {n}: {{run: {{shell: {command}}}, schedule: {{every: 1h}}}}\n" for n in names)
    return "jobs:\n" + "".join(of_each)


def test_a_job_that_is_named_twice_is_deleted_once(cluster: Console) -> None:
    twice = ["close_books", "rotate_logs", "close_books"]
    told = "close_books is deleted\nrotate_logs is deleted\n"
    assert cluster.ok("jobs", "delete", "--yes", *twice) == told


def test_a_group_and_a_calendar_that_are_named_twice_are_deleted_once(cluster: Console) -> None:
    cluster.put(ConflictGroup(group="g", jobs=("close_books", "rotate_logs")), Kind.CONFLICT, "g")
    cluster.ok("conflicts", "delete", "g", "g", "--yes")
    version = CalendarVersion(since=NOW, exclude=("2026-12-25",))
    cluster.put(Calendar(name="c", versions=(version,)), Kind.CALENDAR, "c")
    cluster.ok("calendars", "delete", "c", "c", "--yes")


def test_a_time_that_passes_while_somebody_is_asked_is_refused(
    cluster: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text("jobs:\n  gone: {run: {exec: [/bin/true]}, schedule: {every: 1h}}\n")
    cluster.ok("apply", str(file))
    file.write_text(
        "jobs:\n  once: {run: {exec: [/bin/true]}, schedule: {at: 2026-11-22T19:00:30Z}}\n"
    )

    def takes_its_time(*_: object) -> None:
        cluster.at(Utc("2026-11-22T19:02:00.000Z"))

    monkeypatch.setattr("etcsched_cli.apply.confirm", takes_its_time)
    said = cluster.fails(5, "apply", "--prune", str(file))
    assert "at 2026-11-22T19:00:30Z has passed meanwhile" in said
    assert "once" not in cluster.ok("jobs", "list")


def test_of_jobs_of_which_one_isnt_there_none_is_deleted(console: Console) -> None:
    console.run("apply", "-", stdin=jobs_of(NAMES))
    assert console.fails(4, "jobs", "delete", "--yes", *NAMES, "nope") == (
        "etcsched: job nope: there is none; see etcsched jobs list"
    )
    assert len(console.json("jobs", "list")) == len(NAMES)


def test_a_delete_that_ends_in_between_says_how_far_it_came(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.run("apply", "-", stdin=jobs_of(NAMES))
    writes = 0

    async def commit(etcd: ModelEtcd, txn: Txn, *, timeout_s: float) -> TxnResult:
        nonlocal writes
        writes += 1
        if writes > 1:
            raise ClusterUnreachable("etcd is gone")
        return await etcd.txn(txn, timeout_s=timeout_s)

    monkeypatch.setattr("etcsched.operator.store.commit", commit)
    assert console.fails(3, "jobs", "delete", "--yes", *NAMES) == (
        "note: not all is done: 25 of 30 jobs are deleted\netcsched: etcd is gone"
    )
    assert [view["name"] for view in console.json("jobs", "list")] == NAMES[25:]


# --- pauses and drains --------------------------------------------------------------------


def test_pause_and_resume(cluster: Console) -> None:
    assert cluster.ok("jobs", "pause", "close_books") == "close_books is paused\n"
    assert cluster.ok("jobs", "pause", "close_books") == "close_books was paused already\n"
    pause = cluster.get(Pause, Kind.PAUSE, "close_books")
    assert (pause.intervals[0].since, pause.active) == (NOW, True)
    (paused, _) = cluster.json("jobs", "list")
    assert (paused["pausing"], paused["next_tick"]) == ("job", None)

    cluster.at(Utc("2026-11-22T19:30:00.000Z"))
    assert cluster.ok("jobs", "resume", "close_books") == "close_books goes on\n"
    assert cluster.ok("jobs", "resume", "close_books") == "close_books wasn't paused\n"
    assert cluster.get(Pause, Kind.PAUSE, "close_books").intervals[0].until == cluster.now

    assert cluster.ok("pause") == "the cluster is paused\n"
    assert cluster.get(Pause, Kind.PAUSE, CLUSTER).active
    assert "paused      everything is paused: nothing starts\n" in cluster.ok("status")
    assert cluster.ok("resume") == "the cluster goes on\n"
    assert "paused" not in cluster.ok("status")


@pytest.mark.parametrize(
    "edit", [["pause"], ["jobs", "pause", "rotate_logs"], ["jobs", "delete", "-y", "rotate_logs"]]
)
def test_a_clock_that_is_ahead_edits_nothing(cluster: Console, edit: list[str]) -> None:
    """What it forbids would start until it is as late as the edit was."""
    cluster.now = Utc("2026-11-22T19:02:01.000Z")
    assert cluster.fails(5, *edit) == (
        "etcsched: this host's clock is 121 s ahead of what any agent has shown, and an edit "
        "begins by it; set right whichever is wrong, or wait a minute until agents show theirs "
        "again"
    )
    cluster.at(cluster.now)
    cluster.ok(*edit)


def test_drain_and_undrain(cluster: Console) -> None:
    assert cluster.ok("agents", "drain", "host-a") == "host-a is draining\n"
    assert cluster.ok("agents", "drain", "host-a") == "host-a was draining already\n"
    assert cluster.get(Drain, Kind.DRAIN, "host-a").since == NOW
    assert cluster.ok("agents", "undrain", "host-a") == "host-a takes runs again\n"
    assert cluster.ok("agents", "undrain", "host-a") == "host-a wasn't draining\n"


def test_an_agent_is_drained_before_it_comes(cluster: Console) -> None:
    assert cluster.ok("agents", "drain", "host-c", "--absent-too") == "host-c is draining\n"
    assert cluster.ok("agents", "undrain", "host-c") == "host-c takes runs again\n"


def test_who_asks_may_have_a_name_that_is_no_text(cluster: Console) -> None:
    cluster.ok("agents", "drain", "host-a", LOGNAME="\udcff")
    assert cluster.get(Drain, Kind.DRAIN, "host-a").by.startswith("?@")


# --- requests and runs --------------------------------------------------------------------


def answer(console: Console, accepted: bool, message: str) -> None:
    """The leader's word on the next request, as if it had been asked already."""
    record = Answer(
        request=REQUEST_ID,
        accepted=accepted,
        message=message,
        at=NOW,
        job="close_books",
        run=REQUEST_ID,
    )
    console.put(record, Kind.ANSWER, REQUEST_ID)


def test_trigger(cluster: Console) -> None:
    answer(cluster, True, "assigned to host-a")
    assert cluster.ok("jobs", "trigger", "close_books") == (
        f"close_books/{REQUEST_ID}: assigned to host-a\n"
    )


def test_a_request_without_a_leader_stays(console: Console) -> None:
    console.put(job("close_books"), Kind.JOB, "close_books")
    args = ["--timeout", "50ms", "jobs", "trigger", "close_books", "--param", "month=2026-10"]
    assert console.fails(3, *args) == (
        f"etcsched: no leader answered request {REQUEST_ID} within 0.05 s; it stays, and will be "
        "answered once a scheduler leads: see etcsched leader"
    )
    request = console.get(Request, Kind.REQUEST, REQUEST_ID)
    assert (request.job, request.params) == ("close_books", {"month": "2026-10"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mont=1", "has no parameter 'mont'; did you mean month? it declares host1, month, year"),
        ("MONTH=1", "has no parameter 'MONTH'; did you mean month? it declares host1, month, year"),
        ("host=1", "has no parameter 'host'; did you mean host1? it declares host1, month, year"),
        ("Host1=1", "has no parameter 'Host1'; did you mean host1? it declares host1, month, year"),
        ("host2=1", ""),
        ("x=1", ""),
        ("month=1", ""),
        ("months=1", ""),
    ],
)
def test_a_misspelt_parameter(console: Console, given: str, said: str) -> None:
    """What a job declares that the chain comes to is meant for that one; what nobody declares is
    handed on, as a source's results are, or another number of a name."""
    params = {"year": "2026", "month": "1", "host1": "a"}
    console.put(job("a", params=params, chain=(Link(to="b"),)), Kind.JOB, "a")
    console.put(job("b", chain=(Link(to="c"), Link(to="a"))), Kind.JOB, "b")
    console.put(job("c", params={"months": "0"}), Kind.JOB, "c")
    args = ["--timeout", "50ms", "jobs", "trigger", "a", "--param", given]
    if said:
        assert console.fails(5, *args) == f"etcsched: job a: {said}"
    else:
        assert "no leader answered" in console.fails(3, *args)
    is_asked = console.get(Request, Kind.REQUEST, REQUEST_ID) is not None
    assert is_asked is not bool(said)


def test_a_refused_request(cluster: Console) -> None:
    answer(cluster, False, "job close_books is disabled; apply its file with state: enabled first")
    assert cluster.fails(5, "jobs", "trigger", "close_books") == (
        "etcsched: job close_books is disabled; apply its file with state: enabled first"
    )


@pytest.mark.parametrize(
    ("outcome", "code"), [(Outcome.COMPLETED, 0), (Outcome.FAILED, 1), (Outcome.TIMED_OUT, 1)]
)
def test_trigger_and_wait(cluster: Console, outcome: Outcome, code: int) -> None:
    answer(cluster, True, "assigned to host-a")
    run = finished("close_books", REQUEST_ID, Utc("2026-11-22T19:00:00.000Z"), outcome)
    cluster.archive(run)
    result = cluster.run("jobs", "trigger", "close_books", "--wait")
    assert result.exit_code == code
    assert outcome.value in result.stdout

    result = cluster.run("runs", "wait", f"close_books/{REQUEST_ID}", "--json")
    assert result.exit_code == code
    assert msgspec.json.decode(result.stdout)["state"] == outcome.value


def test_waiting_is_bounded(cluster: Console) -> None:
    assert cluster.fails(1, "runs", "wait", "rotate_logs/20261122T190000Z", "--for", "20ms") == (
        "etcsched: run rotate_logs/20261122T190000Z: isn't over after 20ms; it goes on"
    )


@pytest.mark.parametrize(
    ("how", "message"),
    [("--reassign", "waits for an agent: it will run again"), ("--died", "ended as died")],
)
def test_release(cluster: Console, how: str, message: str) -> None:
    answer(cluster, True, message)
    assert cluster.ok("runs", "release", "rotate_logs/20261122T185500Z", how) == (
        f"rotate_logs/20261122T185500Z: {message}\n"
    )


def test_a_release_that_the_leader_refuses(cluster: Console) -> None:
    answer(
        cluster,
        False,
        "run rotate_logs/20261122T185500Z is assigned; only what is held can be released",
    )
    assert cluster.fails(5, "runs", "release", "rotate_logs/20261122T185500Z", "--died") == (
        "etcsched: run rotate_logs/20261122T185500Z is assigned; only what is held can be released"
    )


def test_whoever_interrupts_a_wait_hears_that_the_run_goes_on(
    cluster: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting, "wait_for_end", interrupted)
    note = "note: rotate_logs/20261122T185500Z goes on"
    assert cluster.fails(130, "runs", "wait", "rotate_logs/20261122T185500Z") == note


# --- what isn't there, and what makes no sense --------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        ("foo", 2, "no command 'foo'; see etcsched --help"),
        ("jobs lst", 2, "no such command 'lst'; did you mean 'list'?"),
        (
            "jobs list --tagg",
            2,
            "no such option '--tagg' (did you mean one of: '--state', '--tag'?)",
        ),
        ("runs show", 2, "missing argument 'RUN'; see cli runs show --help"),
        (
            "jobs list --limit x",
            2,
            "invalid value for '--limit': 'x' is not a valid integer range; see cli jobs list",
        ),
        ("jobs show clse_books", 4, "job clse_books: there is none; did you mean close_books?"),
        ("jobs next x", 4, "job x: there is none; see etcsched jobs list"),
        ("jobs trigger x", 4, "job x: there is none; see etcsched jobs list"),
        ("jobs pause x", 4, "job x: there is none; see etcsched jobs list"),
        ("jobs resume clse_books", 4, "job clse_books: there is none; did you mean close_books?"),
        ("runs list x", 4, "job x: there is none; see etcsched jobs list"),
        ("runs show a/b", 4, "run a/b: there is none; see etcsched runs list a"),
        ("runs wait a/b", 4, "run a/b: there is none; see etcsched runs list a"),
        ("runs release a/b --died", 4, "run a/b: there is none; see etcsched runs list a"),
        (
            "runs release close_books/20261121T023000Z --died",
            5,
            "run close_books/20261121T023000Z: is over already; only one that is held can be "
            "released, see etcsched runs show close_books/20261121T023000Z",
        ),
        ("runs release a/b", 2, "say what becomes of a/b: --reassign or --died"),
        (
            "runs release a/b --reassign --died",
            2,
            "say what becomes of a/b: --reassign or --died, not both",
        ),
        (
            "conflicts delete nope",
            4,
            "conflict group nope: there is none; see etcsched conflicts list",
        ),
        ("calendars delete nope", 4, "calendar nope: there is none; see etcsched calendars list"),
        ("runs cancel a/b", 4, "run a/b: there is none; see etcsched runs list a"),
        (
            "runs show a",
            2,
            "'a' names no run; write job/id, e.g. close_books/20261122T190000Z",
        ),
        ("jobs trigger close_books --param x", 2, "--param 'x': write NAME=VALUE"),
        ("jobs trigger close_books --param a-b=8", 2, "--param 'a-b=8': 'a-b' is no variable's"),
        (
            "runs resubmit a/b --param job=x",
            2,
            "--param 'job=x': every run has its own 'job'; choose another name",
        ),
        (
            "runs resubmit a/b --param a_b=3 --param A_B=4",
            2,
            "--param: parameters a_b and A_B differ only in case; rename one",
        ),
        (
            "agents drain --absent-too \udcff\udcfe",
            2,
            "'\\udcff\\udcfe' isn't text in UTF-8",
        ),
        ("jobs trigger close_books --param a=\udcff", 2, "'a=\\udcff' isn't text in UTF-8"),
        (
            "agents drain --absent-too a/b",
            2,
            "agent id 'a/b': letters, digits, '.', '_' and '-', up to 128",
        ),
        (
            "agents undrain a/b",
            2,
            "agent id 'a/b': letters, digits, '.', '_' and '-', up to 128",
        ),
        (
            "agents undrain x",
            4,
            "agent x: isn't here, and no drain awaits it; see etcsched agents list",
        ),
        (
            "agents drain x",
            4,
            "agent x: isn't here; see etcsched agents list, or drain it before it comes with "
            "--absent-too",
        ),
        ("--timeout x status", 2, "--timeout: 'x' is not a duration"),
        ("--timeout 0s status", 2, "--timeout: must be longer than 0s"),
        ("--endpoints x status", 2, "etcd endpoint 'x' isn't understood"),
        ("--endpoints , status", 2, "--endpoints: is empty; name at least one as host:port"),
        ("--prefix x status", 2, "prefix 'x': must begin and end with '/', e.g. /etcsched/v1/"),
        ("--prefix / status", 2, "prefix '/': must name a place, e.g. /etcsched/v1/"),
        ("--user anna status", 2, "--user anna: has no password; set ETCSCHED_PASSWORD"),
        ("--cert /nonexistent status", 2, "a client certificate for etcd is given without its key"),
        ("--config /nonexistent status", 2, "--config /nonexistent: no such file"),
        (
            "--config /dev/zero status",
            2,
            "configuration file /dev/zero: can't be read: it has more",
        ),
        ("--config / status", 2, "configuration file /: can't be read: Is a directory"),
        ("audit /dev/zero", 2, "/dev/zero:1: not an entry of a recording: JSON is malformed"),
        ("apply /nonexistent", 2, "/nonexistent: can't be read: No such file or directory"),
    ],
)
def test_one_line_and_a_code(cluster: Console, args: str, code: int, line: str) -> None:
    said = cluster.fails(code, *args.split())
    assert said.removeprefix("etcsched: ").startswith(line)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["statu"], "no command 'statu'; did you mean status?"),
        (["frobnicate"], "no command 'frobnicate'; see etcsched --help"),
        (["jobs", "frobnicate"], "no such command 'frobnicate'"),
        (["runs", "list", "--state", "odd"], "'odd' is not one of 'ready'"),
        (["apply"], "missing argument 'FILE...'"),
        (["status", "--frob"], "no such option"),
    ],
)
def test_usage(console: Console, args: list[str], hint: str) -> None:
    assert hint in console.fails(2, *args)


def test_a_cluster_out_of_reach(console: Console) -> None:
    console.is_reachable = False
    for args in (
        ["status"],
        ["jobs", "list"],
        ["pause"],
        ["doctor"],
        ["runs", "wait", "a/b", "--for", "10s"],
        ["runs", "logs", "-f", "a/b"],
        ["audit", "--live", "--for", "10s"],
    ):
        assert console.fails(3, *args) == "etcsched: the model of etcd is cut off"


def test_a_bug_is_one_line_too(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcsched.operator.cluster.Keys.all_of", None)
    assert console.fails(1, "status").startswith("etcsched: bug: TypeError: ")
    assert isinstance(console.run("--debug", "status").exception, TypeError)


# --- settings -----------------------------------------------------------------------------


def test_flag_then_environment_then_file(console: Console) -> None:
    path = console.home / ".config/etcsched/config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("endpoints: [file-a:1, file-b]\nuser: anna\npassword: x\n")
    assert "'file-b'" in console.fails(2, "status")
    assert "'env'" in console.fails(2, "status", ETCSCHED_ENDPOINTS="env")
    flag = console.fails(2, "--endpoints", "flag", "status", ETCSCHED_ENDPOINTS="env")
    assert "'flag'" in flag
    half = console.fails(2, "status", ETCSCHED_PASSWORD="\udcff")
    assert half == "etcsched: ETCSCHED_PASSWORD isn't text in UTF-8"

    assert "'x' is not a valid integer" in console.fails(2, "agent", ETCSCHED_AGENT_SLOTS="x")

    path.write_text("endpoint: x\n")
    assert console.fails(2, "status") == (
        f"etcsched: configuration file {path}: unknown endpoint; known are endpoints, prefix, "
        "cacert, cert, key, user, password, timeout, context, contexts"
    )
    path.write_text("[")
    assert console.fails(2, "status").startswith(
        f"etcsched: configuration file {path}: line 1: not YAML: while parsing a flow node"
    )
    path.write_text("[" * 5000)
    deep = console.fails(2, "status")
    assert deep == f"etcsched: configuration file {path}: line 1: nested more than 50 levels deep"
    path.write_text("password: secret-1\npassword: secret-2\n")
    twice = console.fails(2, "status")
    assert twice == f"etcsched: configuration file {path}: line 2: a key is given twice"
    path.write_text('endpoints: "\\ud800"')
    half = console.fails(2, "status")
    assert half == f"etcsched: configuration file {path}: endpoints: '\\ud800' isn't text"


def test_a_full_disk_behind_the_output_is_no_bug() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "etcsched_cli", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "etcsched: output: No space left on device\n")


def test_help_imports_neither_etcd_nor_rich() -> None:
    """So it is quick, and the agent's supervisor can be forked before gRPC exists."""
    program = (
        "import sys\n"
        "from etcsched_cli.main import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'grpc', 'google.protobuf', 'rich.table', 'ruamel.yaml', 'etcd3'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    for args in (["--help"], ["agent", "--help"], ["scheduler", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *args], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_every_command_has_an_example(console: Console) -> None:
    for args in (["apply"], ["jobs", "trigger"], ["runs", "wait"], ["agents", "drain"], ["doctor"]):
        assert "etcsched " + " ".join(args) in console.ok(*args, "--help").split("\n", 1)[1]


def test_a_group_says_that_a_job_of_it_is_deleted(console: Console) -> None:
    jobs = "jobs:\n" + "".join(
        f"  {name}: {{run: {{shell: x}}, state: ad_hoc_active}}\n" for name in ("a", "b")
    )
    console.ok("apply", "-", stdin=f"{jobs}conflicts: {{g: [a, b]}}\n")
    console.ok("jobs", "delete", "b", "--yes")
    assert "b (no such job)" in console.ok("conflicts", "show", "g")


@pytest.mark.parametrize("columns", [0, -1])
def test_a_terminal_without_a_size_isnt_a_line_without_room(cluster: Console, columns: int) -> None:
    assert cluster.ok("jobs", "list", columns=columns) == cluster.ok("jobs", "list", columns=500)


def test_what_cant_be_read_is_there_to_be_deleted(console: Console) -> None:
    for kind, place in ((Kind.CALENDAR, "calendars"), (Kind.CONFLICT, "conflicts")):
        console.put_raw(console.keys.of(kind, "broken"), b"{}")
        result = console.run(place, "delete", "broken", stdin="y\n")
        assert (result.exit_code, result.stdout) == (0, "broken is deleted\n")


def test_an_interruption_as_it_starts(tmp_path: Path) -> None:
    """Modules take most of a short command's time to be read."""
    script = (
        "import sys, etcsched_cli.__main__ as entry\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'etcsched_cli.settings': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "entry.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_the_doctor_names_no_pause_of_a_deleted_job(console: Console) -> None:
    console.ok("apply", "-", stdin="jobs: {a: {run: {shell: x}, schedule: {cron: 0 3 * * *}}}")
    console.ok("jobs", "pause", "a")
    assert "paused jobs" in console.run("doctor").stdout
    console.ok("jobs", "delete", "a", "--yes")
    assert "paused jobs" not in console.run("doctor").stdout
