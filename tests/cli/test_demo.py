"""How ``demo`` and ``up`` are asked for; what comes of a demonstration is seen in ``make demo``."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner

from etcsched_cli.main import cli
from tests.cli.console import Console


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--soak=1", "--compose=."], "--soak is for a cluster on this machine"),
        (["--seed=1"], "--seed is for --soak"),
        (["--soak=0"], "is not in the range"),
        (["--soak=x"], "is not a valid float"),
    ],
)
def test_what_makes_no_sense(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(cli, ["demo", *arguments])
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize("command", ["up", "demo"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--user=anna"], "--user: not for"),
        (["--endpoints=h:1", "--prefix=/x/"], "--endpoints, --prefix: not for"),
    ],
)
def test_its_etcd_is_its_own(
    console: Console, command: str, arguments: list[str], says: str
) -> None:
    assert console.fails(2, *arguments, command).startswith(f"etcsched: {says} {command}, which")


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 1_234_567)
    result = CliRunner().invoke(cli, ["up"])
    assert result.exit_code == 2
    assert result.stderr.startswith("etcsched: this user has no home directory; say with --data")
