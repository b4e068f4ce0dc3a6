"""Alerts and dashboard ask for metrics that the daemons have, by labels that those have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from etcsched.agent.metrics import AgentMetrics
from etcsched.core.clock import Instant
from etcsched.core.states import RunState
from etcsched.core.view import View
from etcsched.scheduler.metrics import SchedulerMetrics
from tests.unit.agent.script import Script

DOCS = Path(__file__).parents[2] / "docs"
RULES: list[dict[str, Any]] = [
    rule
    for group in YAML(typ="safe").load(DOCS / "prometheus" / "alerts.yaml")["groups"]
    for rule in group["rules"]
]
PROMETHEUS_OWN = {"up": {"job", "instance"}}
ASKED = re.compile(r"\b(etcsched_\w+|process_\w+|up)\b(?:\{([^}]*)\})?")
LABEL = re.compile(r"(\w+)(=~|=)\"([^\"]*)\"")


def texts_in(found: Any) -> list[str]:
    """Of every ``expr`` of a dashboard, however deep."""
    if isinstance(found, dict):
        own = [found["expr"]] if "expr" in found else []
        return own + [text for value in found.values() for text in texts_in(value)]
    if isinstance(found, list):
        return [text for value in found for text in texts_in(value)]
    return []


EXPRESSIONS = [
    *(pytest.param(rule["expr"], id=rule["alert"]) for rule in RULES),
    *texts_in(json.loads((DOCS / "prometheus" / "dashboard.json").read_text())),
]


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """Of each sample that a daemon may send; those of gauges that have no value yet, too."""
    script = Script().ready()
    both = (
        SchedulerMetrics("s1", View(), lambda: None, lambda: Instant(1_800_000_000_000, 1.0)),
        AgentMetrics("a1", 2, script.machine, script.now),
    )
    found = {name: set(own) for name, own in PROMETHEUS_OWN.items()}
    for metrics in both:
        for family in metrics.registry.collect():
            own = set().union(*(sample.labels for sample in family.samples))
            own |= set(re.findall(r"etcsched_etcd_(?:up|db_size|alarms)", family.name)) and {
                "endpoint"
            }
            own |= {"job", "instance"}
            names = {family.name, f"{family.name}_total"} if not family.samples else set()
            if family.type == "histogram":
                names |= {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}
            for name in names | {sample.name for sample in family.samples}:
                found.setdefault(name, set()).update(own)
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_its_metrics_are_there(expression: str, labels: dict[str, set[str]]) -> None:
    asked = ASKED.findall(expression)
    assert asked
    for name, selector in asked:
        assert name in labels
        for label, _, value in LABEL.findall(selector):
            if label not in ("le", "call"):  # Those of what hasn't happened yet.
                assert label in labels[name]
            if label == "state":
                assert set(value.split("|")) <= {state.value for state in RunState}


def test_each_alert_says_what_to_do() -> None:
    """In itself, and in the runbook."""
    runbook = (DOCS / "monitoring.md").read_text()
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "description"}
        assert f"`{rule['alert']}`" in runbook
