"""The command line where there is no Linux: all of it but what runs schedulers and agents."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from etcsched.core.records import Kind
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range
from etcsched_cli.main import COMMANDS
from etcsched_cli.signals import Signalled, on_signals, signals_raised
from tests.support.etcd_cluster import SharedEtcd

JOBS = "jobs: {a: {run: {exec: [/bin/true]}, schedule: {every: 1h}}}\n"


async def elsewhere(*args: str | Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.elsewhere", *args,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_cluster_is_changed_and_looked_at(etcd: SharedEtcd, tmp_path: Path) -> None:
    where = ("--endpoints", ",".join(etcd.endpoints), "--prefix", etcd.prefix)
    file = tmp_path / "jobs.yaml"
    file.write_text(JOBS)
    assert await elsewhere("validate", file) == (0, "1 job, no problem\n", "")
    code, out, err = await elsewhere(*where, "apply", file)
    assert (code, err) == (0, "")
    assert out.endswith("\n1 created\n")
    for look in (
        ("jobs", "list"), ("jobs", "show", "a"), ("jobs", "next", "a"), ("runs", "list"),
        ("agents", "list"), ("calendars", "list"), ("conflicts", "list"), ("status",), ("export",),
        ("explain", "a"), ("settings", "show"),
    ):  # fmt: skip
        code, out, err = await elsewhere(*where, *look)
        assert (code, err) == (0, ""), look
        assert out, look
    assert (await elsewhere(*where, "pause"))[0] == 0
    assert (await elsewhere(*where, "jobs", "delete", "a", "--yes"))[0] == 0
    async with EtcdClient(EtcdConfig(endpoints=etcd.endpoints)) as client:
        (pause,) = (await client.range(Range(Keys(etcd.prefix).of(Kind.PAUSE, "_cluster")))).kvs
    assert b'"by"' in pause.value


async def test_whatever_else_there_is_can_be_imported() -> None:
    code = (
        "from importlib import import_module\n"
        "from tests.support.elsewhere import leave_posix\n"
        "leave_posix()\n"
        "from etcsched_cli.main import COMMANDS\n"
        "for entry in COMMANDS.values():\n"
        "    entry.needs_linux or import_module('etcsched_cli.' + entry.place.partition(':')[0])\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0


@pytest.mark.parametrize("command", sorted(n for n, e in COMMANDS.items() if e.needs_linux))
async def test_what_needs_linux_says_so(command: str) -> None:
    code, out, err = await elsewhere(command)
    assert (code, out) == (2, "")
    assert err.startswith(f"etcsched: etcsched {command}: schedulers and agents need Linux; ")
    assert err.count("\n") == 1


def _refuse(*_: object) -> None:
    raise NotImplementedError


async def test_a_signal_ends_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(type(loop), "add_signal_handler", _refuse)
    before = signal.getsignal(signal.SIGTERM)

    async def command() -> None:
        with signals_raised():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    with pytest.raises(Signalled) as caught:
        await command()
    assert caught.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


async def test_signals_come_in_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(asyncio.get_running_loop()), "add_signal_handler", _refuse)
    came: asyncio.Queue[int] = asyncio.Queue()
    with on_signals([signal.SIGINT], came.put_nowait):
        os.kill(os.getpid(), signal.SIGINT)
        assert await came.get() == signal.SIGINT
