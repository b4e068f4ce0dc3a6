"""docs/features.md names, for each feature, tests that there are; and no feature is forgotten."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from etcsched.core.records import ClusterSettings
from etcsched.core.states import RunState
from etcsched.jobfile.jobs import KNOWN
from etcsched_cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
GOLDEN = ROOT / "tests" / "scenarios" / "golden"
NOT_YET = "not there yet"


def rows() -> list[tuple[str, str]]:
    found = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] != "feature" and set(cells[0]) != {"-"}:
            assert len(cells) == 2, line
            found.append((cells[0], cells[1]))
    return found


@cache
def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return _functions(tree.body) | {
        f"{each.name}::{name}" for each in classes for name in _functions(each.body)
    }


def _functions(body: list[ast.stmt]) -> set[str]:
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("feature", "proof"), rows(), ids=lambda text: text[:40])
def test_each_feature_is_proven(feature: str, proof: str) -> None:
    named = re.findall(r"`([^`]+)`", proof)
    if not named:
        section = proof.partition("below, under ")[2]
        assert proof == NOT_YET or re.search(rf"^## {section}", PAGE, re.I | re.M), proof
    for name in named:
        path, _, test = name.partition("::")
        if path.startswith("golden/"):
            assert (GOLDEN / path.removeprefix("golden/")).is_file(), name
        else:
            assert test.rpartition("::")[2].startswith("test_"), name
            assert test in names_in(path), name


def mentioned() -> set[str]:
    features = " ".join(feature for feature, _ in rows())
    return {word for text in re.findall(r"`([^`]+)`", features) for word in re.split(r"[ :]", text)}


def test_little_is_not_there_yet() -> None:
    missing = {feature for feature, proof in rows() if proof == NOT_YET}
    assert missing == {
        "`run`: `http`, `docker`, `python`",
        "`notify` by webhook, with `run`: `http`",
    }


def test_every_field_of_a_job_file_is_there() -> None:
    assert set(KNOWN) - mentioned() == set()


def test_every_state_and_setting_is_there() -> None:
    settings = set(ClusterSettings.__struct_fields__) - {"unknown", "changed_by"}
    assert ({state.value for state in RunState} | settings) - mentioned() == set()


def test_every_scenario_is_named() -> None:
    named = set(re.findall(r"`golden/([a-z_]+)\.txt`", PAGE))
    assert {path.stem for path in GOLDEN.glob("*.txt")} == named


def test_commands_for_people_are_there() -> None:
    of_daemons = {"scheduler", "agent", "up", "demo"}
    assert set(COMMANDS) - of_daemons - mentioned() == set()
