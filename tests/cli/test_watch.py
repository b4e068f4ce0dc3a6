"""``--watch``: on every list and every object, until q or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterator

import click
import pytest

from etcsched.core.errors import ClusterUnreachable
from etcsched.testing.model_etcd import ModelEtcd
from etcsched_cli import watched
from etcsched_cli.main import cli
from etcsched_cli.signals import Signalled
from tests.cli.console import Console


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


NO_VIEWS = {
    "a change": (
        "apply", "jobs trigger", "jobs pause", "jobs resume", "jobs delete", "runs cancel",
        "runs release", "runs resubmit", "calendars delete", "calendars import", "conflicts delete",
        "agents drain", "agents undrain", "pause", "resume",
    ),
    "a process that stays, or a wait for an end": (
        "scheduler", "agent", "up", "demo", "top", "runs wait", "runs logs",
    ),
    "of files, not of a cluster": ("validate", "import crontab", "contexts", "completion"),
    "an examination, whose exit code counts": ("doctor", "health", "audit"),
    "a file": ("export",),
}  # fmt: skip
"""All that shows neither a list nor an object of a cluster, by what it is instead."""

VIEWS = [
    path for path in commands(cli) if not any(" ".join(path) in each for each in NO_VIEWS.values())
]


def test_only_what_there_is_is_no_view() -> None:
    there = {" ".join(path) for path in commands(cli)}
    assert {name for each in NO_VIEWS.values() for name in each} <= there
    assert {("jobs", "next"), ("agents", "show"), ("runs", "tree"), ("status",)} <= set(VIEWS)


@pytest.mark.parametrize("path", VIEWS, ids=" ".join)
def test_whatever_is_looked_at_can_be_watched(path: tuple[str, ...]) -> None:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {"--json", "--watch"} <= flags


@pytest.mark.parametrize(("number", "leaves_as"), [(errno.EIO, Signalled), (errno.ENOSPC, OSError)])
async def test_a_terminal_that_is_gone_is_a_hangup(
    monkeypatch: pytest.MonkeyPatch, number: int, leaves_as: type[BaseException]
) -> None:
    """Whichever is noticed first: that nothing can be written, or the signal."""

    @contextlib.contextmanager
    def drawn(*_: object) -> Iterator[Callable[[str, str], None]]:
        def draw(*_: str) -> None:
            raise OSError(number, os.strerror(number))

        yield draw

    async def read() -> str:
        return "picture"

    monkeypatch.setattr(watched, "_drawn", drawn)
    with pytest.raises(leaves_as) as caught:
        await watched.show_again(read, lambda value: [value], as_json=False)
    if isinstance(caught.value, Signalled):
        assert caught.value.code == 129


@pytest.mark.parametrize("args", [("jobs", "list"), ("calendars", "list"), ("settings", "show")])
def test_again_and_again(
    cluster: Console, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    looks = 0

    async def three_times(_typed: asyncio.Event, _seconds: float) -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(watched, "is_set_within", three_times)
    result = cluster.run(*args, "--watch", "--json")
    assert result.exit_code == 130
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert json.loads(lines[0]) == json.loads(lines[2])


def test_while_etcd_is_away_the_last_picture_stays(
    cluster: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its line comes once; without a first picture it is the end."""
    looks = 0

    async def cut_in_between(_typed: asyncio.Event, _seconds: float) -> bool:
        nonlocal looks
        looks += 1
        monkeypatch.setattr(ModelEtcd, "txn", away if looks in (1, 2) else txn)
        return looks == 4

    async def away(*_: object, **__: object) -> None:
        raise ClusterUnreachable("etcd can't be reached: a: gone")

    txn = ModelEtcd.txn
    monkeypatch.setattr(watched, "is_set_within", cut_in_between)
    for form in ((), ("--json",)):
        looks = 0
        result = cluster.run("status", "--watch", *form)
        assert (result.exit_code, result.stderr) == (
            0,
            "etcsched: etcd can't be reached: a: gone; looking again\n",
        )
        lines = result.stdout.splitlines()
        assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    monkeypatch.setattr(ModelEtcd, "txn", away)
    assert cluster.fails(3, "status", "--watch") == "etcsched: etcd can't be reached: a: gone"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_how_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with watched.redrawn("q ends this") as draw:
        draw(["what is shown"], "etcd is away")
    shown = terminal.getvalue()
    hint, trouble = shown.find("q ends this"), shown.find("etcd is away")
    assert 0 <= hint < trouble < shown.find("what is shown")
