"""What the daemons' options turn down before anything is started, in one line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from etcsched.agent.config import AgentConfig
from etcsched.scheduler.config import SchedulerConfig
from tests.cli.console import Console


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("agent", "--output-keep=7"), "--output-keep: '7' has no unit; did you mean 7s?"),
        (("agent", "--output-keep-size=1G"), "--output-keep-size: '1G' is not a size; write a"),
        (("agent", "--output-cap=lots"), "--output-cap: 'lots' is not a size; write a whole"),
        (("agent", "--stop-timeout=1"), "--stop-timeout: '1' has no unit; did you mean 1s?"),
        (("agent", "--output-listen=7633"), "--output-listen '7633': write HOST:PORT"),
        (("agent", "--output-address=a b"), "--output-address 'a b:1': write HOST:PORT"),
        (("agent", "--listen=0.0.0.0:7632"), "--listen 0.0.0.0:7632 is open to the network: give"),
        (("scheduler", "--listen=[::]:7631"), "--listen [::]:7631 is open to the network: give"),
        (("scheduler", "--listen=nowhere"), "--listen 'nowhere': write HOST:PORT"),
        (("agent", "--label=a b=c"), "--label 'a b=c': 'a b' is no label; it takes letters"),
        (("agent", "--label=a=b", "--label=a=c"), "--label 'a=c': a is 'b' already; give it"),
        (("agent", "--output-keep=0s"), "--output-keep: must be longer than 0s"),
        (("agent", "--id=a/b"), "agent id 'a/b': letters, digits, '.', '_' and '-', up to 128"),
        (("scheduler", "--id=a/b"), "scheduler id 'a/b': letters, digits, '.', '_' and '-', up"),
        (
            ("scheduler", "--state-dir=/dev/null"),
            "state directory /dev/null can't be written: File exists; name another with",
        ),
        (
            ("scheduler", "--state-dir=/proc/none"),
            "state directory /proc/none can't be written: No such file or directory; name",
        ),
        (("scheduler", "--listen-token-file=/none"), "--listen-token-file /none: can't be read"),
        (
            ("agent", "--listen-token-file=/dev/zero"),
            "--listen-token-file /dev/zero: can't be read: it has more than 64KiB",
        ),
    ],
)
def test_one_line(console: Console, args: tuple[str, ...], words: str) -> None:
    line = console.fails(2, *args)
    assert line.startswith(f"etcsched: {words}"), line
    assert "\n" not in line


def test_an_agent_has_a_slot(console: Console) -> None:
    assert "0 is not in the range 1<=x<=100000" in console.fails(2, "agent", "--slots=0")


def test_where_up_keeps_its_data(console: Console) -> None:
    assert "~/.local/share/etcsched/up" in console.ok("up", "--help")


def test_from_the_environment(console: Console, tmp_path: Path) -> None:
    line = console.fails(2, "agent", ETCSCHED_AGENT_OUTPUT_CAP="1")
    assert line.startswith("etcsched: --output-cap: '1' is not a size")
    line = console.fails(2, "scheduler", ETCSCHED_SCHEDULER_LISTEN="10.0.0.1:1")
    assert line.startswith("etcsched: --listen 10.0.0.1:1 is open to the network")


@pytest.mark.parametrize("command", ["scheduler", "agent", "status"])
@pytest.mark.parametrize("emptied", ["", " ", ", ,"])
def test_endpoints_that_the_environment_empties(
    console: Console, monkeypatch: pytest.MonkeyPatch, command: str, emptied: str
) -> None:
    """Not this machine's etcd, nor the configuration file's: whoever set it meant another."""
    for run in ("etcsched.agent.run.run_agent", "etcsched.scheduler.node.run_scheduler"):
        monkeypatch.setattr(run, lambda *_: pytest.fail("it started"))
    line = "etcsched: ETCSCHED_ENDPOINTS: is set, but empty; name at least one as host:port, or "
    assert console.fails(2, command, ETCSCHED_ENDPOINTS=emptied) == f"{line}unset it"
    file = console.home / "file.yaml"
    file.write_text("endpoints: h:1\n")
    options = ("--config", str(file), command)
    assert console.fails(2, *options, ETCSCHED_ENDPOINTS=emptied) == f"{line}unset it"


def test_who_needs_no_endpoints(console: Console) -> None:
    file = console.home / "jobs.yaml"
    file.write_text("jobs: {a: {run: {exec: [/bin/true]}, schedule: {every: 1h}}}\n")
    console.ok("validate", str(file), ETCSCHED_ENDPOINTS="")
    console.ok("--endpoints", "h:1", "jobs", "list", ETCSCHED_ENDPOINTS="")
    line = "etcsched: --endpoints: is empty; name at least one as host:port"
    assert console.fails(2, "--endpoints", " , ", "jobs", "list") == line


def test_what_holds_without_a_word(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are the host's name; output is kept for 7 days, and at most 1 GiB of it."""
    agents: list[AgentConfig] = []
    schedulers: list[SchedulerConfig] = []
    monkeypatch.setattr("etcsched.agent.run.run_agent", lambda config, _: agents.append(config))
    monkeypatch.setattr(
        "etcsched.scheduler.node.run_scheduler", lambda config, _: schedulers.append(config)
    )
    monkeypatch.setattr(socket, "gethostname", lambda: "host-a")
    for args in (["agent"], ["agent", "--id=other"], ["scheduler"], ["scheduler", "--id=other"]):
        assert console.run(*args).exit_code == 0
    assert [config.agent_id for config in agents] == ["host-a", "other"]
    assert [config.node for config in schedulers] == ["host-a", "other"]
    assert agents[0].output_keep_s == 7 * 24 * 3600
    assert agents[0].output_keep_bytes == 1024**3
