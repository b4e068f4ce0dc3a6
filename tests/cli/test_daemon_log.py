"""A daemon's log, line by line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from etcsched.core.errors import AgentIdInUse
from etcsched_cli.daemon_log import logged

log = logging.getLogger("etcsched.test")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines(capsys)]
    for entry in found:
        assert entry.pop("at").endswith("Z")
    return found


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with logged("info", "text", "agent", "a1"):
        log.debug("not shown")
        log.info("claimed %s", "job/r1", extra={"job": "job"})
    (line,) = lines(capsys)
    assert line[10] == "T"
    assert line[23:] == "Z INFO    claimed job/r1"


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with logged("info", "json", "agent", "a1"):
        log.info("claimed %s", "job/r1", extra={"job": "job", "run": "r1", "attempt": 2})
        log.warning("two\nlines of \udc80")
    fixed = {"role": "agent", "node": "a1"}
    assert objects(capsys) == [
        {
            "level": "info",
            **fixed,
            "message": "claimed job/r1",
            "job": "job",
            "run": "r1",
            "attempt": 2,
        },
        {"level": "warning", **fixed, "message": "two\nlines of \\udc80"},
    ]


def test_a_traceback_is_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with logged("info", "json", "agent", "a1"):
        try:
            int("broken")
        except ValueError:
            log.exception("failed")
    (entry,) = objects(capsys)
    assert entry["level"] == "error"
    assert entry["error"].endswith("invalid literal for int() with base 10: 'broken'")


def test_what_ends_it_is_a_line_like_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, logged("info", "json", "agent", "a1"):
        raise AgentIdInUse("agent a1 is already running")
    assert ended.value.code == AgentIdInUse.exit_code
    (entry,) = objects(capsys)
    assert entry["message"] == "agent a1 is already running"
    with pytest.raises(AgentIdInUse), logged("info", "text", "agent", "a1"):
        raise AgentIdInUse("agent a1 is already running")
    assert lines(capsys) == []
