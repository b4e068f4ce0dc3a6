"""The service units in the documents say what the program can do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from etcsched.agent.config import AgentConfig
from etcsched.core.records import Job
from etcsched_cli.agent import agent
from etcsched_cli.main import cli

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "docs" / "systemd").glob("*.service"))
LONGEST_REPORT_S = 5
LEADER_S = 3


def settings_of(unit: Path) -> dict[str, dict[str, str]]:
    """By section. None is said twice here, though systemd would allow it."""
    sections: dict[str, dict[str, str]] = {}
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals, line
            assert name not in section, line
            section[name] = value
    return sections


def agents() -> dict[str, str]:
    (unit,) = (unit for unit in UNITS if unit.stem == "etcsched-agent")
    return settings_of(unit)["Service"]


def test_there_is_one_for_each_daemon() -> None:
    assert [unit.stem for unit in UNITS] == ["etcsched-agent", "etcsched-scheduler"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_what_there_is(unit: Path) -> None:
    program, *words = shlex.split(settings_of(unit)["Service"]["ExecStart"])
    assert program.startswith("/opt/etcsched/current/bin/")
    if program.endswith("/python"):
        assert words[:3] == ["-P", "-m", "etcsched_cli"]
        words = words[3:]
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    assert f"etcsched-{command.name}" == unit.stem
    command.make_context(words[0], words[1:])  # Usage errors are raised here.


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_daemon_comes_back_for_ever(unit: Path) -> None:
    sections = settings_of(unit)
    assert sections["Unit"]["StartLimitIntervalSec"] == "0"
    assert sections["Service"]["Restart"] == "always"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_variables_that_a_unit_names_are_read(unit: Path) -> None:
    named = set(re.findall(r"ETCSCHED_\w+", unit.read_text()))
    read = {option.envvar for option in cli.params if isinstance(option, click.Option)}
    assert named
    assert named <= read | {"ETCSCHED_PASSWORD"}


def test_systemd_waits_for_everything_that_a_stopping_agent_does() -> None:
    config = AgentConfig()
    grace_s = Job.__struct_defaults__[
        Job.__struct_fields__.index("kill_grace_s") - len(Job.__struct_fields__)
    ]
    end_s = grace_s + LONGEST_REPORT_S
    longest_s = config.stop_timeout_s + end_s + config.session_ttl_s + LEADER_S
    longest_s += 2 * config.shutdown_timeout_s + end_s
    assert longest_s == 233  # As the unit reckons it.
    assert longest_s < int(agents()["TimeoutStopSec"])


def test_schedulers_stop_after_agents() -> None:
    """What starts after another is stopped before it, by systemd and by Compose."""
    (unit,) = (settings_of(unit)["Unit"] for unit in UNITS if unit.stem == "etcsched-agent")
    assert "etcsched-scheduler.service" in unit["After"].split()
    compose = YAML(typ="safe").load((ROOT / "compose" / "compose.yaml").read_text())
    schedulers = {name for name in compose["services"] if name.startswith("scheduler-")}
    agents = [one for name, one in compose["services"].items() if name.startswith("agent-")]
    assert agents
    for one in agents:
        assert schedulers <= one["depends_on"].keys()
        assert one["stop_grace_period"] == "300s"


def test_descriptors_are_enough_for_the_slots() -> None:
    words = shlex.split(agents()["ExecStart"])
    slots = agent.make_context("agent", words[5:]).params["slots"]
    assert int(agents()["LimitNOFILE"]) >= 2 * slots + 100
