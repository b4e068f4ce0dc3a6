"""Job files and the cluster: export, prune, and what files may refer to."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from etcsched.core.errors import ClusterUnreachable
from etcsched.core.records import (
    Calendar,
    ClusterSettings,
    ConflictGroup,
    Exec,
    Job,
    Kind,
    Noop,
    ScheduleVersion,
    Watermark,
)
from etcsched.core.states import JobState
from etcsched.core.times import Utc
from etcsched.keyspace.ops import Put, Txn, TxnResult
from etcsched.testing.model_etcd import ModelEtcd
from etcsched_cli import imports
from tests.cli.console import NOW, Console

FILES = """\
settings:
  resubmit_states: [died, missed]
calendars:
  holidays:
    exclude: [2026-12-24/2026-12-26]
conflicts:
  ledger: [close_books, report]
jobs:
  close_books:
    run:
      exec: [/opt/erp/close, --date, '{scheduled_date}']
    schedule:
    - {cron: 30 4 * * 1-5}
    calendars: [holidays]
    timezone: Europe/Berlin
    recovery: all
    timeout: 2h
    chain:
    - to: report
      on: [completed, failed]
    notify:
    - on: [failed, died]
      run:
        shell: |
          echo one
          echo two
  once:
    run:
      exec: [/bin/true]
    schedule:
    - {at: '2026-11-22T20:00:00Z'}
  report:
    run: {shell: make-report}
    state: chain_active
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.yaml"
    path.write_text(FILES)
    return path


# --- notifications

OWN = "  close_books.notify: {run: {exec: [mine]}, schedule: {every: 1h}}\n"


def test_no_notification_takes_over_a_job(console: Console, file: Path) -> None:
    console.ok("apply", "-", stdin=f"jobs:\n{OWN}")
    assert console.fails(2, "apply", str(file)) == (
        f"etcsched: {file}:9: jobs.close_books: close_books.notify is its notification's name, and "
        "the cluster has another job of that name; rename that, or delete it: etcsched jobs delete "
        "close_books.notify"
    )
    assert console.get(Job, Kind.JOB, "close_books.notify").run == Exec(("mine",))
    console.ok("jobs", "delete", "close_books.notify", "--yes")
    console.ok("apply", str(file))


def test_no_job_takes_over_a_notification(console: Console, file: Path) -> None:
    """Unless its own job, which the files have, tells no more."""
    console.ok("apply", str(file))
    assert console.fails(2, "apply", "-", stdin=f"jobs:\n{OWN}") == (
        "etcsched: -:2: jobs.close_books.notify: is the name of close_books's notification in the "
        "cluster; rename this job, or give close_books's file, too, without notify"
    )
    exported = console.run("export", "close_books.notify").stdout
    assert console.ok("apply", "-", stdin=exported) == "1 unchanged\n"
    untold = "  close_books: {run: {exec: [x]}, schedule: {every: 1h}}\n"
    console.ok("apply", "-", stdin=f"jobs:\n{untold}{OWN}")
    assert console.get(Job, Kind.JOB, "close_books.notify").run == Exec(("mine",))


# --- many at once


def _many(path: Path) -> None:
    jobs = "".join(
        f"  j{number:02}: {{run: {{shell: x}}, schedule: {{every: 1h}}}}\n" for number in range(70)
    )
    path.write_text(f"conflicts: {{g: [j00, j69]}}\njobs:\n{jobs}")


@pytest.mark.parametrize(
    ("number", "code", "last"),
    [
        (None, 3, "etcsched: etcd is gone\n"),
        (signal.SIGINT, 130, ""),
        (signal.SIGTERM, 143, ""),
    ],
    ids=["etcd", "SIGINT", "SIGTERM"],
)
def test_who_ends_in_between_says_how_far_it_came(
    console: Console,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals | None,
    code: int,
    last: str,
) -> None:
    _many(file)
    writes = 0
    txn = ModelEtcd.txn

    async def failing(etcd: ModelEtcd, sent: Txn, *, timeout_s: float = 5.0) -> TxnResult:
        nonlocal writes
        writes += any(isinstance(operation, Put) for operation in sent.then)
        if writes == 3:  # The group, and twenty-five jobs, are there.
            if number is None:
                raise ClusterUnreachable("etcd is gone")
            signal.raise_signal(number)
            await asyncio.Event().wait()
        return await txn(etcd, sent, timeout_s=timeout_s)

    monkeypatch.setattr(ModelEtcd, "txn", failing)
    # Whoever runs the tests in the background has it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = console.run("apply", str(file))
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    note = "note: not all is done: 25 of 70 jobs are applied; apply again\n"
    assert result.stderr.rstrip("\n") == f"{note}{last}".rstrip("\n")
    assert console.get(ConflictGroup, Kind.CONFLICT, "g") is not None
    monkeypatch.undo()
    assert console.run("apply", str(file)).stdout.endswith("\n45 created, 26 unchanged\n")


def _large(number: int, more: str = "") -> str:
    """Each job as large as files may have it."""
    jobs = "".join(
        f"  j{n:02}: {{run: {{shell: {'x' * (63 << 10)}}}, schedule: {{every: 1h}}}}\n"
        for n in range(number)
    )
    return f"{more}jobs:\n{jobs}"


def test_large_jobs_are_written_a_few_at_a_time(console: Console) -> None:
    assert console.run("apply", "-", stdin=_large(60)).stdout.endswith("\n60 created\n")
    names = [f"j{n:02}" for n in range(30)]
    assert console.ok("jobs", "delete", "--yes", *names).count(" is deleted\n") == 30
    pruned = console.ok(
        "apply", "-", "--prune", "--yes", stdin="jobs: {a: {run: {shell: x}, state: ad_hoc_active}}"
    )
    assert pruned.endswith("\n1 created, 30 removed\n")


def test_a_group_whose_jobs_are_too_large_together(console: Console) -> None:
    """They are written with it, as they are: so that none starts that was decided without it."""
    console.run("apply", "-", stdin=_large(30))
    revision = console.store.revision
    names = [f"j{n:02}" for n in range(17)]
    more = f"settings: {{recovery_rate: 7/s}}\nconflicts: {{g: [{', '.join(names)}]}}\n"
    for option in ([], ["--dry-run"]):
        assert console.fails(5, "apply", *option, "-", stdin=_large(30, more)) == (
            "etcsched: conflict group g: its jobs are 1075 KiB together, and are written at once, "
            "which takes 1024; leave some out, or make them smaller"
        )
    assert console.store.revision == revision
    fewer = f"conflicts: {{g: [{', '.join(names[:15])}]}}\n"
    assert console.run("apply", "-", stdin=_large(30, fewer)).exit_code == 0


def test_what_is_confirmed_late_begins_late(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody leads, so nothing of the hour in between is decided, and it stays as it was."""
    console.put(Watermark(through=NOW, term=1), Kind.WATERMARK)
    file = "jobs: {{{}: {{run: {{shell: x}}, schedule: {{cron: '* * * * *'}}}}}}"
    console.ok("apply", "-", stdin=file.format("old"))
    an_hour_later = Utc("2026-11-22T20:00:00.500Z")

    def confirm(*_: str) -> None:
        console.now = an_hour_later

    monkeypatch.setattr("etcsched_cli.apply.confirm", confirm)
    assert console.run("apply", "-", "--prune", stdin=file.format("new")).exit_code == 0
    for name in ("new", "old"):
        assert console.get(Job, Kind.JOB, name).current.since == an_hour_later


# --- export


def test_export_gives_the_files_back(console: Console, file: Path) -> None:
    console.ok("apply", str(file))
    revision = console.store.revision
    printed = console.ok("export")
    assert printed == FILES
    console.now = Utc("2026-11-22T19:30:00.000Z")
    assert console.ok("apply", "-", stdin=printed) == "7 unchanged\n"
    assert console.store.revision == revision


def test_an_export_of_some_jobs_has_their_calendars(console: Console, file: Path) -> None:
    file.write_text(FILES.replace("  once:\n", "  once:\n    tags: [a, b]\n"))
    console.ok("apply", str(file))
    assert list(_sections(console.ok("export", "--tag", "a", "--tag", "b"))) == ["jobs:"]
    result = console.run("export", "close_books")
    assert list(_sections(result.stdout)) == ["calendars:", "jobs:"]
    assert "  close_books:\n" in result.stdout
    assert "once" not in result.stdout
    assert "    notify:\n" in result.stdout
    assert result.stderr == (
        "note: close_books: chains to report, which isn't there; apply refuses that\n"
    )
    assert console.fails(4, "export", "nightly") == (
        "etcsched: job nightly: there is none; see etcsched jobs list"
    )


@pytest.mark.parametrize("rate", ["12.345678/s", "0.1/s", "1000/s", "7/s"])
def test_a_rate_is_exported_as_it_is(console: Console, rate: str) -> None:
    console.ok("apply", "-", stdin=f"settings: {{recovery_rate: {rate}}}")
    exported = console.ok("export")
    assert f"recovery_rate: {rate}}}" in exported
    assert console.ok("apply", "-", stdin=exported) == "1 unchanged\n"


@pytest.mark.parametrize(
    ("zone", "since", "until", "exported"),
    [
        ("Europe/Berlin", "1970-01-01", "2027-01-01", "from: '1970-01-01T00:00:00+01:00'"),
        ("UTC", "1970-01-01T00:00+23:59", "2027-01-01", "from: '1970-01-01T00:00:00+23:59'"),
        ("America/New_York", "2027-01-01", "9000-12-31", "until: '9000-12-31T05:00:00Z'"),
        (
            "America/New_York", "2027-01-01", "9000-12-31T22:00:00",
            "until: 9000-12-31T23:59:59-03:00:01",
        ),
    ],
)  # fmt: skip
def test_a_window_at_the_ends_of_time_is_taken_as_it_is_exported(
    console: Console, zone: str, since: str, until: str, exported: str
) -> None:
    window = f"{{from: {since}, until: {until}, state: disabled}}"
    job = f"{{run: {{shell: x}}, timezone: {zone}, schedule: {{every: 1h}}, windows: {window}}}"
    assert console.run("apply", "-", stdin=f"jobs: {{a: {job}}}").exit_code == 0
    printed = console.ok("export")
    assert exported in printed
    assert console.run("apply", "-", stdin=printed).stdout == "1 unchanged\n"


def _sections(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and line[0] not in " #-"]


def test_what_has_passed_is_taken_only_by_who_has_it(console: Console, file: Path) -> None:
    console.ok("apply", str(file))
    console.now = Utc("2026-11-23T08:00:00.000Z")
    result = console.run("export")
    assert (result.exit_code, result.stdout) == (0, FILES)
    assert result.stderr == (
        "note: once: at a time that has passed; only a cluster that has it already takes it\n"
    )
    assert console.ok("apply", str(file)) == "7 unchanged\n"
    console.ok("jobs", "delete", "once", "--yes")
    assert "'2026-11-22T20:00:00Z' has passed" in console.fails(2, "apply", str(file))
    assert "'2026-11-22T20:00:00Z' has passed" in console.fails(2, "validate", str(file))


def test_an_export_says_what_it_lacks(console: Console, file: Path) -> None:
    file.write_text(FILES.replace("at: '2026-11-22T20:00:00Z'", "every: 1h"))
    console.ok("apply", str(file))
    console.ok("jobs", "delete", "once", "--yes")
    group = ConflictGroup(group="g", jobs=("once", "report", "close_books"))
    console.put(group, Kind.CONFLICT, "g")
    group = ConflictGroup(group="h", jobs=("once", "report"))
    console.put(group, Kind.CONFLICT, "h")
    version = ScheduleVersion(since=NOW, state=JobState.AD_HOC_ACTIVE)
    bench = Job(name="bench", run=Noop(), versions=(version,))
    console.put(bench, Kind.JOB, "bench")
    newer = Job(name="newer", run=Exec(("x",)), versions=(version,), unknown={"v": 2, "later": 1})
    console.put(newer, Kind.JOB, "newer")
    console.put_raw(console.keys.of(Kind.JOB, "broken"), b"{")
    result = console.run("export")
    assert result.exit_code == 1
    assert "  g: [report, close_books]\n" in result.stdout
    assert "bench" not in result.stdout
    assert result.stderr.splitlines() == [
        "note: bench: has the executor noop, which no job file can give; left out",
        "note: conflict group g is written without: no job once",
        "note: conflict group h is left out: no job once",
        "note: newer: later: of a newer version; left out",
        "etcsched: /etcsched/v1/spec/jobs/broken can't be read, so it is left out; see doctor",
    ]


def test_an_export_of_nothing(console: Console) -> None:
    assert console.ok("export") == "# nothing to write\n"


# --- prune


def test_prune_removes_what_the_files_no_longer_name(console: Console, file: Path) -> None:
    console.ok("apply", str(file))
    version = ScheduleVersion(since=NOW, state=JobState.AD_HOC_ACTIVE)
    console.put(Job(name="by_hand", run=Noop(), versions=(version,)), Kind.JOB, "by_hand")
    file.write_text("jobs: {report: {run: {shell: make-report}, state: chain_active}}\n")
    assert console.ok("apply", str(file)) == "1 unchanged\n"
    planned = console.ok("apply", str(file), "--prune", "--dry-run")
    shown = (
        "CHANGE  JOB                    FIELD  BEFORE  AFTER\n"
        "delete  (conflicts: ledger)\n"
        "delete  close_books\n"
        "delete  close_books.notify\n"
        "delete  once\n"
        "delete  (calendars: holidays)\n"
        "\n"
    )
    assert planned == f"{shown}would be: 5 removed, 1 unchanged\n"
    assert console.get(Job, Kind.JOB, "once").current.state is JobState.ENABLED

    # The watermark has passed all that went by the calendar.
    console.put(Watermark(through=Utc("2026-11-22T19:20:00.000Z"), term=1), Kind.WATERMARK)
    assert console.ok("apply", str(file), "--prune", "--yes") == (
        f"{shown}5 removed, 1 unchanged\n"
    )
    for name in ("close_books", "close_books.notify", "once"):
        job = console.get(Job, Kind.JOB, name)
        assert (job.current.state, job.changed_by[:5]) == (JobState.DELETED, "anna@")
    assert console.get(ConflictGroup, Kind.CONFLICT, "ledger") is None
    assert console.get(Calendar, Kind.CALENDAR, "holidays") is None
    assert console.get(Job, Kind.JOB, "by_hand").current.state is JobState.AD_HOC_ACTIVE
    assert console.get(ClusterSettings, Kind.SETTINGS).resubmit_states
    assert console.ok("apply", str(file), "--prune") == "1 unchanged\n"


def test_prune_asks(console: Console, file: Path) -> None:
    console.ok("apply", str(file))
    file.write_text(FILES.replace("  once:\n", "  twice:\n"))
    result = console.run("apply", str(file), "--prune", stdin="n\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("\netcsched: nothing was applied or removed\n")
    assert result.stderr.startswith("job once\nRemove 1 item? [y/N]: ")
    # Not even what is new was applied.
    assert console.get(Job, Kind.JOB, "twice") is None
    result = console.run("apply", str(file), "--prune", stdin="y\n")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (
        0, "1 created, 1 removed, 6 unchanged"
    )  # fmt: skip


def test_a_calendar_that_ticks_just_past_go_by_stays(console: Console, file: Path) -> None:
    console.ok("apply", str(file))
    console.now = Utc("2026-11-22T19:10:00.000Z")
    file.write_text(FILES.replace("    calendars: [holidays]\n", "").replace("holidays", "new"))
    result = console.run("--timeout", "300ms", "apply", str(file), "--prune", "--yes")
    assert result.exit_code == 0
    assert result.stdout.endswith("\n1 created, 1 updated, 5 unchanged\n")
    assert result.stderr.startswith("note: calendar holidays: used by close_books; ")
    assert result.stderr.endswith("; apply again with --prune\n")
    assert console.get(Calendar, Kind.CALENDAR, "holidays") is not None


def test_what_goes_is_in_nobodys_way(console: Console, file: Path) -> None:
    """A group in another order, and a job that has a notification's name, beside those that go."""
    jobs = "{run: {shell: x}, schedule: {every: 1h}}"
    told = "{run: {shell: x}, schedule: {every: 1h}, notify: {on: [failed], run: {shell: y}}}"
    file.write_text(f"jobs: {{a: {jobs}, b: {jobs}, x: {told}}}\nconflicts: {{old: [a, b]}}\n")
    console.ok("apply", str(file))
    file.write_text(
        f"jobs: {{a: {jobs}, b: {jobs}, x.notify: {jobs}}}\nconflicts: {{new: [b, a]}}\n"
    )
    assert "removed" in console.ok("apply", str(file), "--prune", "--yes")


def test_what_is_done_is_done_whatever_is_said_of_it(
    console: Console, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> list[str]:
        raise ClusterUnreachable("etcd can't be reached: a: gone")

    monkeypatch.setattr("etcsched.operator.jobs.paused_among", away)
    assert "created" in console.ok("apply", str(file))


def test_what_is_kept_must_not_need_what_goes(console: Console, file: Path) -> None:
    console.ok("apply", str(file))
    file.write_text(
        "jobs: {close_books: {run: {shell: x}, schedule: {every: 1h}, chain: [{to: report}]}}\n"
    )
    before = console.store.revision
    assert console.fails(2, "apply", str(file), "--prune", "--yes") == (
        "etcsched: --prune would remove job report, which job close_books refers to; name its "
        "file, too"
    )
    file.write_text(
        "jobs: {new: {run: {shell: x}, schedule: {every: 1h}, calendars: [holidays]}}\n"
    )
    assert console.fails(2, "apply", str(file), "--prune", "--dry-run") == (
        "etcsched: --prune would remove calendar holidays, which job new refers to; name its file, "
        "too"
    )
    assert console.store.revision == before


def test_what_others_changed_meanwhile_stays(
    console: Console, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.ok("apply", str(file))
    file.write_text(FILES.replace("  once:\n", "  twice:\n"))
    from etcsched.operator import pruning
    from etcsched.operator.apply import prune

    async def late(*args: Any, **options: Any) -> object:
        job = console.get(Job, Kind.JOB, "once")
        changed = Job(name="once", run=job.run, versions=job.versions, changed_by="eva@h")
        console.put(changed, Kind.JOB, "once")
        return await prune(*args, **options)

    monkeypatch.setattr(pruning, "prune", late)
    assert console.fails(5, "apply", str(file), "--prune", "--yes") == (
        "etcsched: job once was changed by eva@h while this went on, so it stays, and what else "
        "was to be removed; look again with --dry-run"
    )
    assert console.get(Job, Kind.JOB, "once").current.state is JobState.ENABLED


# --- what files may refer to


def test_files_may_refer_to_what_the_cluster_has(console: Console, file: Path) -> None:
    console.ok("apply", str(file))
    text = (
        "conflicts: {other: [close_books, late]}\n"
        "jobs:\n"
        "  late:\n"
        "    run: {shell: x}\n"
        "    schedule: {cron: 0 5 * * *, calendars: [holidays]}\n"
        "    chain: [{to: report}]\n"
    )
    file.write_text(text)
    assert console.ok("apply", str(file)).endswith("\n2 created\n")
    assert console.fails(2, "validate", str(file)).splitlines() == [
        f"{file}:1: conflicts.other[0]: unknown job 'close_books'; known are late",
        f"{file}:5: jobs.late.schedule.calendars[0]: unknown calendar 'holidays'; these files have "
        "none, write it below the top-level map calendars",
    ]
    file.write_text(text.replace("holidays", "holliday").replace("close_books", "close_boks"))
    assert console.fails(2, "apply", str(file)).splitlines() == [
        f"{file}:1: conflicts.other[0]: unknown job 'close_boks'; did you mean close_books "
        "or close_books.notify?",
        f"{file}:5: jobs.late.schedule.calendars[0]: unknown calendar 'holliday'; did you mean "
        "holidays?",
    ]


def test_groups_agree_with_those_of_the_cluster(console: Console, file: Path) -> None:
    console.ok("apply", str(file))
    file.write_text("conflicts: {other: [report, once, close_books]}\n")
    assert console.fails(2, "apply", str(file)) == (
        f"etcsched: {file}:1: conflicts.other: its order contradicts that of ledger (close_books "
        "before report before once before close_books); put these jobs in one order everywhere"
    )


def test_a_file_that_refers_to_nothing_asks_the_cluster_for_nothing_but_its_jobs(
    console: Console, file: Path
) -> None:
    console.is_reachable = False
    file.write_text("jobs: {a: {run: {shell: x}, schdule: {every: 1h}}}\n")
    assert "unknown field 'schdule'; did you mean schedule?" in console.fails(2, "apply", str(file))


# --- lint


def test_lint_warns_and_applies(console: Console, file: Path) -> None:
    """On standard error, and the exit code is 0; of what hasn't changed nothing is said again."""
    file.write_text(
        "jobs: {a: {run: {shell: x}, schedule: {cron: 30 2 * * *}, timezone: Europe/Berlin}}\n"
    )
    warning = (
        "warning: a: schedule: cron '30 2 * * *' in Europe/Berlin: 2027-03-28 02:30 is skipped by "
        "the clocks, it is due at 03:00 then; 2027-10-31 02:30 comes twice, it is due the first "
        "time only\n"
    )
    result = console.run("validate", str(file))
    assert (result.exit_code, result.stdout) == (0, "1 job, no problem\n")
    assert result.stderr == warning
    for args in (["--dry-run"], []):
        result = console.run("apply", str(file), *args)
        assert (result.exit_code, result.stderr) == (0, warning)
    assert console.ok("apply", str(file)) == "1 unchanged\n"


def test_a_job_that_others_chain_to_may_be_disabled(
    console: Console, tmp_path: Path, file: Path
) -> None:
    """And then its sources' files, and an export, can be applied again."""
    console.ok("apply", str(file))
    report = tmp_path / "report.yaml"
    report.write_text("jobs: {report: {run: {shell: make-report}, state: disabled}}\n")
    console.ok("apply", str(report))
    sources = tmp_path / "sources.yaml"
    sources.write_text(
        FILES.replace("  report:\n    run: {shell: make-report}\n    state: chain_active\n", "")
    )
    assert console.ok("apply", str(sources)) == "6 unchanged\n"
    sources.write_text(sources.read_text().replace("timeout: 2h", "timeout: 3h"))
    result = console.run("apply", str(sources))
    assert (result.exit_code, result.stderr) == (
        0,
        "warning: close_books: chain: report is disabled, so nothing follows there until its "
        "state is enabled or chain_active\n",
    )
    exported = tmp_path / "exported.yaml"
    exported.write_text(console.ok("export"))
    assert console.ok("apply", str(exported)) == "7 unchanged\n"


def test_lint_knows_the_clusters_calendars(console: Console, file: Path) -> None:
    file.write_text("calendars: {days: {include: [2026-12-25]}}\n")
    console.ok("apply", str(file))
    file.write_text(
        "jobs: {a: {run: {shell: x}, schedule: {cron: 0 3 * * 1}, calendars: [days]}}\n"
    )
    result = console.run("apply", str(file))
    assert (result.exit_code, result.stderr) == (
        0,
        "warning: a: schedule: cron '0 3 * * 1' is never due: its calendars (days) forbid it\n",
    )


# --- import crontab


CRONTAB = """\
MAILTO=""
17 * * * * root run-parts /etc/cron.hourly
@reboot root /opt/bin/first
"""


def test_import_crontab(console: Console, tmp_path: Path) -> None:
    path = tmp_path / "crontab"
    path.write_text(CRONTAB)
    args = ("import", "crontab", str(path), "--system", "--timezone", "Europe/Berlin")
    result = console.run(*args, "--host", "host-a")
    assert result.exit_code == 1
    assert result.stdout == (
        f"# from {path}; cron's zone: Europe/Berlin\n"
        "jobs:\n"
        "  cron.hourly:\n"
        "    run: {shell: run-parts /etc/cron.hourly}\n"
        "    schedule:\n"
        "    - {cron: 17 * * * *}\n"
        "    timezone: Europe/Berlin\n"
        "    user: root\n"
        "    hosts: [host-a]\n"
    )
    *notes, missing = result.stderr.splitlines()
    assert all(note.startswith("note: ") for note in notes)
    assert missing == (
        f"left out: {path}:3: @reboot is no time; give a job lifecycle: host_startup, then it runs "
        "on each agent that joins"
    )
    assert console.ok("validate", "-", stdin=result.stdout) == "1 job, no problem\n"

    path.write_text(CRONTAB.replace("@reboot", "@daily"))
    written = tmp_path / "jobs.yaml"
    result = console.run(*args, "-o", str(written))
    assert (result.exit_code, result.stdout) == (0, "")
    assert console.ok("apply", str(written)).endswith("\n2 created\n")
    assert console.fails(2, *args, "-o", str(written)) == (
        f"etcsched: {written}: is there already; choose another name"
    )


def test_import_crontab_from_elsewhere(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = console.run("import", "crontab", "-", stdin="6 6 * * * run\n", TZ="Asia/Tokyo")
    assert "    timezone: Asia/Tokyo\n" in result.stdout
    marked = b"\xef\xbb\xbf6 6 * * * run\n"
    assert "  run:\n" in console.run("import", "crontab", "-", stdin=marked).stdout
    directory = tmp_path / "cron.d"
    directory.mkdir()
    (directory / "one").write_text("6 6 * * * root one\n")
    (directory / "two.dpkg-old").write_text("6 6 * * * root two\n")
    result = console.run("import", "crontab", str(directory), "--system", "--timezone", "UTC")
    assert "  one:\n" in result.stdout
    assert "two" not in result.stdout
    monkeypatch.setattr(imports, "_SYSTEM", (str(directory),))
    result = console.run("import", "crontab", str(directory / "one"), "--timezone", "UTC")
    assert "  one:\n" in result.stdout
    given = ("--user", "anna", "--timezone", "UTC")
    assert console.fails(2, "import", "crontab", str(directory / "one"), *given) == (
        f"etcsched: --user: in {directory / 'one'} each entry names its own"
    )
    monkeypatch.chdir(directory)
    result = console.run("import", "crontab", "-", *given, stdin="6 6 * * * run\n")
    assert "  run:\n" in result.stdout

    program = tmp_path / "crontab"
    program.write_text("#!/bin/sh\n[ \"$1\" = -l ] && echo '6 6 * * * run'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    result = console.run("import", "crontab", "--timezone", "UTC")
    # Also in a directory where a file of that name would be the system's.
    assert result.stdout.startswith("# from crontab; cron's zone: UTC\njobs:\n  run:\n")
    assert "    user: " in result.stdout
    program.write_text("#!/bin/sh\necho no crontab for anna >&2\nexit 1\n")
    assert console.fails(2, "import", "crontab") == (
        "etcsched: crontab -l: no crontab for anna; give a FILE, or - for standard input"
    )
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "crontab -l can't be run here" in console.fails(2, "import", "crontab")


@pytest.mark.parametrize(
    "command", ["validate -", "apply -", "import crontab -", "calendars import - --name x"]
)
def test_standard_input_is_text_too(console: Console, command: str) -> None:
    assert console.fails(2, *command.split(), stdin=b"jobs: {}\n# caf\xe9\n") == (
        "etcsched: -: can't be read: it isn't text in UTF-8 (line 2)"
    )


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["/nonexistent"], "/nonexistent: can't be read: No such file or directory"),
        (["-", "--timezone", "UTC"], "-: no entries"),
        (["-", "--system", "--user", "x"], "--user: with --system each entry names its own"),
        (
            ["-", "--host", "a b"],
            "--host: 'a b' is no name; it takes letters, digits, '.', '_', '/' and '-'",
        ),
        (["-", "--user", "a b"], "--user: 'a b' is no user's name"),
        (
            ["-", "--timezone", "UXX"],
            "--timezone: timezone 'UXX' is unknown; write it like Europe/Berlin or UTC",
        ),
    ],
)
def test_import_crontab_refuses(console: Console, args: list[str], line: str) -> None:
    assert console.fails(2, "import", "crontab", *args) == f"etcsched: {line}"


@pytest.mark.parametrize(
    "more",
    [
        "calendars: {h: {exclude: [2026-12-25]}}",
        "jobs: {x: {run: {exec: [x]}, schedule: {every: 1h}}}",
    ],
)
def test_a_clock_that_is_ahead_applies_nothing_at_all(cluster: Console, more: str) -> None:
    cluster.now = Utc("2026-11-22T19:02:01.000Z")
    cluster.fails(5, "apply", "-", stdin=f"settings: {{recovery_rate: 7/s}}\n{more}\n")
    assert "recovery_rate" not in cluster.ok("export")
