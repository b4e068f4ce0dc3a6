"""What commands write is taken back, whatever it holds."""

from __future__ import annotations

import json
from pathlib import Path

from etcsched.jobfile.crontab import read_crontab
from etcsched.jobfile.from_crontab import import_crontabs
from tests.cli.console import Console

DISPLAY = """
jobs:
  shot:
    run: {shell: ": > /tmp/x; scrot"}
    env: {DISPLAY: ":0"}
    params: {listen: "?x"}
    state: ad_hoc_active
"""
NOTIFIED = """
jobs:
  a: {run: {shell: x}, schedule: {cron: 0 3 * * *}, notify: {run: {shell: alert}}}
  b: {run: {shell: x}, schedule: {cron: 0 4 * * *}}
"""


def test_an_export_of_texts_that_begin_oddly(console: Console) -> None:
    console.ok("apply", "-", stdin=DISPLAY)
    assert "1 unchanged" in console.ok("apply", "-", stdin=console.ok("export"))


def test_what_jobs_show_says(console: Console) -> None:
    console.ok("apply", "-", stdin=DISPLAY)
    shown = console.ok("jobs", "show", "shot").partition("\n\n")[2]
    assert "1 unchanged" in console.ok("apply", "-", stdin=shown)


def test_a_crontab_for_a_display() -> None:
    crontab = read_crontab("mine", "DISPLAY=:0\n0 3 * * * scrot\n", is_system=False)
    found = import_crontabs([crontab], timezone="UTC", user="", host="", now_ms=0)
    assert found.left_out == ()
    assert found.document["jobs"]["scrot"]["env"] == {"DISPLAY": ":0"}


def test_one_job_with_its_notifications(console: Console, tmp_path: Path) -> None:
    console.ok("apply", "-", stdin=NOTIFIED)
    exported = console.run("export", "a")
    assert exported.stderr == ""
    assert "2 created" in Console(tmp_path / "other").ok("apply", "-", stdin=exported.stdout)


def test_what_jobs_show_says_of_a_long_command(console: Console) -> None:
    """Wherever a line would be folded."""
    for length in range(60, 100):
        text = f"éecho 'sa{'a' * (length - 9)}\\b{' cb' * 9}"
        console.ok(
            "apply",
            "-",
            stdin=json.dumps(
                {"jobs": {"long": {"run": {"exec": ["sh", "-c", text]}, "state": "ad_hoc_active"}}}
            ),
        )
        shown = console.ok("jobs", "show", "long").partition("\n\n")[2]
        assert "1 unchanged" in console.ok("apply", "-", stdin=shown)
