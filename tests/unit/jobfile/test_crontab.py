"""Crontabs, and the job files that they become."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcsched.core.records import Exec, Shell
from etcsched.core.states import RunState
from etcsched.core.times import Utc, ms_of
from etcsched.jobfile import load
from etcsched.jobfile.crontab import Entry, read_crontab
from etcsched.jobfile.exporting import to_yaml
from etcsched.jobfile.from_crontab import Imported, import_crontabs

NOW_MS = ms_of(Utc("2026-11-22T19:00:00.000Z"))

SYSTEM = """\
# The usual head.
SHELL=/bin/sh
PATH="/usr/local/bin:/usr/bin:/bin"
MAILTO = root,ops@example.org

# m h dom mon dow user  command
17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly
25 6 * * * root test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
# Back up
# everything
*/5 1-5 * jan,MAR mon-fri  app  /opt/bin/backup --name x\\%y "$(date +\\%F)"%line one%line two
# 5 4 * * * root /opt/bin/switched_off
@midnight root echo hi
"""


def entries(text: str, *, is_system: bool = False) -> list[Entry]:
    crontab = read_crontab("tab", text, is_system=is_system)
    assert crontab.unreadable == ()
    return list(crontab.entries)


def imported(text: str, *, is_system: bool = False, **more: Any) -> Imported:
    options: dict[str, Any] = {"timezone": "UTC", "user": "", "host": "", **more}
    crontab = read_crontab("tab", text, is_system=is_system)
    return import_crontabs([crontab], now_ms=NOW_MS, **options)


def jobs_of(text: str, **more: Any) -> dict[str, Any]:
    found = imported(text, **more)
    assert found.left_out == ()
    return {job.name: job for job in load([("", to_yaml(found.document))], NOW_MS).jobs}


# --- reading


def test_a_system_crontab() -> None:
    hourly, daily, backup, hi = entries(SYSTEM, is_system=True)
    settings = {
        "SHELL": "/bin/sh",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "MAILTO": "root,ops@example.org",
    }
    assert hourly == Entry(
        7, "17 * * * *", "root", "cd / && run-parts --report /etc/cron.hourly", None, settings, ""
    )
    assert daily.command.endswith("cron.daily; }")
    assert (backup.time, backup.user) == ("*/5 1-5 * jan,MAR mon-fri", "app")
    assert backup.command == '/opt/bin/backup --name x%y "$(date +%F)"'
    assert backup.input == "line one\nline two"
    assert backup.comment == "Back up everything"
    assert (hi.time, hi.command, hi.comment) == ("@midnight", "echo hi", "")


def test_settings_hold_for_what_stands_below() -> None:
    first, second = entries("* * * * * a\nA = 'x y' \nB=\n* * * * * b\n")
    assert (first.settings, second.settings) == ({}, {"A": "x y", "B": ""})


def test_a_command_may_look_like_a_setting() -> None:
    (entry,) = entries("*/5 * * * * A=1 B=2 run")
    assert entry.command == "A=1 B=2 run"


@pytest.mark.parametrize("line", ["0 0 * root", "hello", "@daily", "* * * * *"])
def test_what_cron_would_refuse(line: str) -> None:
    crontab = read_crontab("tab", f"\n{line}\n", is_system=False)
    assert crontab.entries == ()
    (bad,) = crontab.unreadable
    assert (bad.line, bad.text) == (2, line)


# --- what becomes of it


def test_the_jobs() -> None:
    jobs = jobs_of(SYSTEM, is_system=True, timezone="Europe/Berlin", host="host-a")
    assert [name for name in jobs if not name.endswith(".notify")] == [
        "cron.hourly", "cron.daily", "backup", "echo"
    ]  # fmt: skip
    backup = jobs["backup"]
    assert backup.user == "app"
    assert backup.hosts == ("host-a",)
    assert backup.description == "Back up everything"
    assert backup.env == {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    assert backup.current.timezone == "Europe/Berlin"
    assert backup.current.patterns[0].expression == "*/5 1-5 * jan,MAR mon-fri"
    (link,) = backup.chain
    assert link.to == "backup.notify"
    assert set(link.on) >= {RunState.FAILED, RunState.DIED}
    notice = jobs["backup.notify"].run
    assert isinstance(notice, Shell)
    assert notice.command.endswith(" root ops@example.org")


def test_what_the_jobs_share_stands_in_the_defaults() -> None:
    document = imported(SYSTEM, is_system=True, timezone="Europe/Berlin").document
    assert document["defaults"].keys() == {"timezone", "env", "notify"}
    assert document["jobs"]["echo"].keys() == {"run", "schedule", "user"}


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("cat%one%two", "one\ntwo\n"),
        ("cat%one%%", "one\n\n\n"),
        (r"cat%100\%%END", "100%\nEND\n"),
        ("cat; cat%$HOME `x`", "$HOME `x`\n"),
        ("tr a b | tr b c # done%aa", "cc\n"),
        (r"printf '\%s\n' x", "x\n"),
        ("exit 0%never read", ""),
    ],
)
def test_standard_input(command: str, printed: str) -> None:
    """As cron gives it: a last line without an end gets one."""
    (job,) = jobs_of(f"* * * * * {command}").values()
    assert isinstance(job.run, Shell)
    done = subprocess.run(
        ["/bin/sh", "-c", job.run.command], capture_output=True, check=True, timeout=30
    )
    assert done.stdout.decode() == printed


def test_another_shell_takes_braces_as_they_are() -> None:
    (job,) = jobs_of("SHELL=/bin/bash\n* * * * * for x in {a,b}; do echo ${x}; done").values()
    assert job.run == Exec(("/bin/bash", "-c", "for x in {{a,b}}; do echo ${{x}}; done"))


def test_what_settings_become() -> None:
    text = "CRON_TZ=Asia/Tokyo\nHOME=/srv/app\nRANDOM_DELAY=7\nMAILTO=\n5 5 * * * run"
    found = imported(text, user="app")
    (job,) = load([("", to_yaml(found.document))], NOW_MS).jobs
    assert (job.current.timezone, job.splay_s, job.workdir) == ("Asia/Tokyo", 420.0, "/srv/app")
    assert (job.env, job.chain, job.user) == ({"HOME": "/srv/app"}, (), "app")
    assert found.notes[0].startswith("tab:5: RANDOM_DELAY became a splay")
    for word in ("MAILTO", "--user", "workdir"):
        assert not any(word in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@reboot run", "tab:1: @reboot is no time; give a job lifecycle: host_startup"),
        ("0 0 31 2 * run", "tab:1: schedule[0].cron: '0 0 31 2 *': never due"),
        ("0~9 * * * * run", "tab:1: schedule[0].cron: '0~9 * * * *': minute: '0~9' is not under"),
        ("CRON_TZ=Mars/X\n5 5 * * * run", "tab:2: timezone: "),
        (f"5 5 * * * run {'x' * 70_000}", "tab:1: takes 70"),
        ("@every_second run", "tab:1: schedule[0].cron: '@every_second'"),
        ("5 5 * * mon-fri/9 run", "tab:1: schedule[0].cron: "),
        ("whatever", "tab:1: 'whatever' is neither a setting nor a time with a command"),
    ],
)
def test_what_is_left_out(text: str, said: str) -> None:
    found = imported(f"{text}\nCRON_TZ=UTC\n6 6 * * * kept")
    assert list(found.document["jobs"]) == ["kept"]
    (missing,) = found.left_out
    assert missing.startswith(said)


def test_a_variable_that_no_job_can_have_is_named() -> None:
    found = imported("A-B=1\nETCSCHED_RUN=2\n6 6 * * * run")
    assert found.document["jobs"]["run"].keys() == {"run", "schedule"}
    first, second, *_ = found.notes
    assert first == "tab:3: A-B=1: a job can't have a variable of this name; left out"
    assert second.startswith("tab:3: ETCSCHED_RUN=2: ")


def test_what_is_different_is_said() -> None:
    notes = " ".join(imported("6 6 * * * run").notes)
    for word in ("without MAILTO", "--user", "--host", "overlap: allow", "recovery: none"):
        assert word in notes
    assert "it starts in /, unless the job has a workdir" in notes
    some_have = " ".join(imported("6 6 * * * run\nHOME=/srv\n7 7 * * * other").notes)
    assert "unless the job has a workdir" in some_have
    notes = " ".join(imported("MAILTO=a\n6 6 * * * run", user="u", host="h").notes)
    assert "cron mails what a command prints" in notes
    assert "say --system" in " ".join(imported("6 6 * * * root\trun").notes)
    for word in ("without MAILTO", "--user", "--host", "--system"):
        assert word not in notes


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/local/bin/nightly.sh --all", "nightly.sh"),
        ("nice -n 10 /opt/a/report", "report"),
        ("cd /srv/app && ./manage.py clear", "manage.py"),
        ("[ -x /usr/bin/foo ] && /usr/bin/foo -q", "foo"),
        ("TZ=UTC flock -n /tmp/x python3 /opt/sync.py", "sync.py"),
        ("flock -w 10 -E 0 /run/lock/backup.lock -c '/opt/nightly --all'", "nightly"),
        ("/usr/bin/flock -n /run/lock/x /opt/nightly --all", "nightly"),
        ("/bin/sleep 30 && /opt/renew", "renew"),
        ("my-flock -n /run/x /opt/y", "my-flock"),
        ("sleep $((RANDOM \\% 600)); /usr/bin/renew", "renew"),
        ("sleep 30 && flock -x /run/x sh -c 'sleep 5; report'", "report"),
        ("sleep 30", "sleep"),
        ("timeout 2h /opt/tidy", "tidy"),
        ("timeout -k 5 -s KILL --foreground 90 python3 /opt/tidy.py", "tidy.py"),
        ("sudo -u postgres -E pg_dump shop", "pg_dump"),
        ("su - postgres -c 'pg_dump shop'", "pg_dump"),
        ("/usr/bin/sudo --user bob /opt/x", "x"),
        ("/usr/bin/timeout 5m /opt/x", "x"),
        ("wait-timeout 5 x", "wait-timeout"),
        ("sudo -s /opt/x.sh all", "x.sh"),
        ('sh -c "sudo -u bob /opt/x.sh"', "x.sh"),
        ("bash -c 'timeout 5m /opt/backup.sh'", "backup.sh"),
        ("runuser -l bob -c /opt/x", "x"),
        ("timeout " + "-k1 " * 40 + "x", "x"),
        ("test -e /run/systemd/system || SERVICE_MODE=1 /usr/lib/e2fsprogs/scrub_all", "scrub_all"),
        ("[ -x /usr/lib/php/clean ] && if [ ! -d /run/x ]; then /usr/lib/php/clean; fi", "clean"),
        ("if [ -x /opt/raid ] && [ $(date +\\%d) -le 7 ]; then /opt/raid --all; fi", "raid"),
        (
            "test -x /usr/bin/certbot -a \\! -d /run/systemd/system "
            "&& perl -e 'sleep int(rand(43200))' && certbot -q renew",
            "certbot",
        ),
        ('[ "$(date +\\%u)" = 1 ] && /opt/weekly', "weekly"),
        ("[ `hostname` = host-a ] && /opt/there", "there"),
        ("[[ -x /opt/x ]] && /opt/y", "y"),
        ("[ -f /etc/on ] && cd /srv/app && ./bin/sync", "sync"),
        ("test -d /srv || exit 0; /opt/run", "run"),
        ("test -x /opt/a -o -x /opt/b && /opt/c", "c"),
        ("test -x /usr/bin/only", "only"),
        ("which foo >/dev/null && foo bar", "foo"),
        ("pgrep worker >/dev/null || /opt/worker", "worker"),
        ("sh -c 'cd /srv && /opt/x.sh'", "x.sh"),
        ("find /var/tmp -mtime +7 -delete", "find"),
        ("find /srv/data -name '*.log' -exec gzip {} \\;", "gzip"),
        ("nice -n 10 find /srv -execdir sh -c '/opt/b {}' +", "b"),
        ("find /srv -type f -print0 | xargs -0 -n 1 /opt/index", "index"),
        ("find /etc/x -newer /stamp | grep -q . && /opt/reload", "reload"),
        ("[ " * 900 + "x", "x"),
        ("_hidden", "hidden"),
        ("a.notify", "a-notify"),
        ("$RUN", "job"),
    ],
)
def test_names(command: str, name: str) -> None:
    assert name in jobs_of(f"* * * * * {command}")


def test_names_are_told_apart() -> None:
    text = "* * * * * run\n5 * * * * run\n* * * * * run-2\n6 * * * * run\n"
    assert list(jobs_of(text)) == ["run", "run-2", "run-2-2", "run-3"]


TIMES = st.sampled_from(
    ["* * * * *", "@daily", "@reboot", "*/5 1-5 * jan sun", "0 0 30 2 *", "0~9 1 * * *", "x"]
)
COMMANDS = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=30)
LINES = st.one_of(
    st.tuples(TIMES, COMMANDS).map(" ".join),
    st.tuples(st.sampled_from(["A", "MAILTO", "SHELL", "HOME", "CRON_TZ", "A B"]), COMMANDS).map(
        "=".join
    ),
    COMMANDS,
    COMMANDS.map("# ".__add__),
)


@settings(max_examples=60)
@given(st.lists(LINES, max_size=8), st.booleans())
def test_whatever_comes_out_is_a_job_file(lines: list[str], is_system: bool) -> None:
    text = "\n".join(lines)
    found = imported(text, is_system=is_system, timezone="Europe/Berlin")
    crontab = read_crontab("tab", text, is_system=is_system)
    if found.document:
        load([("", to_yaml(found.document))], NOW_MS)
    kept = len(found.document.get("jobs", ()))
    assert kept + len(found.left_out) == len(crontab.entries) + len(crontab.unreadable)
