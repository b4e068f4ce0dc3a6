"""The dashboard, the alert rules and docs/monitoring.md name metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from etcsched.agent.metrics import AgentMetrics
from etcsched.core.clock import Instant
from etcsched.core.view import View
from etcsched.scheduler.metrics import SchedulerMetrics
from tests.unit.agent.script import Script

DOCS = Path(__file__).parents[3] / "docs"
PARTS = {"histogram": ("_bucket", "_sum", "_count"), "counter": (), "gauge": ()}
NAME = re.compile(r"\b(?:etcsched|process)_[a-z_]+\b")


def families() -> dict[str, str]:
    """Type by name, of both daemons."""
    now = lambda: Instant(0, 0.0)  # noqa: E731
    daemons = (
        SchedulerMetrics("s1", View(), lambda: None, now),
        AgentMetrics("a1", 4, Script().machine, now),
    )
    found = re.findall(
        r"^# TYPE (\S+) (\S+)$", "".join(d.text().decode() for d in daemons), re.MULTILINE
    )
    return dict(found)


FAMILIES = families()
SERIES = {name + part for name, kind in FAMILIES.items() for part in PARTS[kind] or ("",)}


def rules() -> list[dict[str, Any]]:
    (group,) = YAML(typ="safe").load(DOCS / "prometheus/alerts.yaml")["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DOCS / "prometheus/dashboard.json").read_text())[
        "panels"
    ]
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert(rule: dict[str, Any]) -> None:
    names = set(NAME.findall(rule["expr"]))
    assert names
    assert names <= SERIES
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    for metric in NAME.findall(rule["annotations"]["description"]):
        assert metric in FAMILIES


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        names = set(NAME.findall(target["expr"]))
        assert names
        assert names <= SERIES


def test_every_metric_is_described() -> None:
    described = set(NAME.findall((DOCS / "monitoring.md").read_text())) - {"process_"}
    ours = {name for name in FAMILIES if name.startswith("etcsched_")}
    assert described == ours


def test_panels_stand_side_by_side() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            assert x < 24
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_expressions_are_whole() -> None:
    """As far as can be seen without Prometheus: brackets, and braces around labels."""
    expressions = [rule["expr"] for rule in rules()]
    expressions += [target["expr"] for panel in panels() for target in panel["targets"]]
    for expression in expressions:
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), expression
        assert "{}" not in expression
