"""The benchmark's arithmetic, and what it prints."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from tests.bench.results import (
    Limit,
    Machine,
    Row,
    Subject,
    Target,
    at_least,
    at_most,
    heading_of,
    json_of,
    limit_of,
    percentile,
    quantity,
    table_of,
)

MACHINE = Machine(processors=2, python="3.11.7", etcd="3.4.23", load=0.1, is_quick=True)

TABLE = """\
┏━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━━━━┳━━━━━━┓
┃ measure   ┃    value ┃ limit beside it ┃ ratio ┃        target ┃ met? ┃
┡━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━━━━╇━━━━━━┩
│ runs      │ 1,100 /s │ 1,800 /s  bare  │  0.61 │ ≥ 0.6 × limit │ yes  │
│ one agent │          │                 │       │               │      │
├───────────┼──────────┼─────────────────┼───────┼───────────────┼──────┤
│ runs      │  4.00 /s │                 │       │        ≤ 3 /s │ no   │
│ runs      │  7.00 /s │ 2.00 /s  bare   │  3.50 │               │      │
└───────────┴──────────┴─────────────────┴───────┴───────────────┴──────┘
"""


def row(
    value: float,
    limit: float | None = None,
    target: Target | None = None,
    *,
    group: str = "g",
    note: str = "",
) -> Row:
    return Row(
        group=group,
        measure="runs",
        value=value,
        unit="/s",
        samples=(value,),
        limit=Limit(text="bare", value=limit) if limit is not None else None,
        target=target,
        note=note,
    )


@pytest.mark.parametrize(
    ("value", "limit", "target", "is_met"),
    [
        (600.0, 1000.0, at_least(0.6, Subject.RATIO), True),
        (599.0, 1000.0, at_least(0.6, Subject.RATIO), False),
        (1500.0, 1000.0, at_most(1.5, Subject.RATIO), True),
        (1501.0, 1000.0, at_most(1.5, Subject.RATIO), False),
        (10.6, 10.0, at_most(10.6), True),
        (10.7, 10.0, at_most(10.6), False),
        (5.0, None, at_most(5.0), True),
        (5.0, 0.0, at_most(5.0), True),
        (5.0, 0.0, at_most(1.5, Subject.RATIO), None),
        (5.0, None, at_least(0.6, Subject.RATIO), None),
        (5.0, 10.0, None, None),
    ],
)
def test_a_target_speaks_of_the_value_or_of_its_ratio_to_the_limit(
    value: float, limit: float | None, target: Target | None, is_met: bool | None
) -> None:
    assert row(value, limit, target).is_met is is_met


def test_a_limit_is_the_median_of_its_samples() -> None:
    assert limit_of("bare", [3.0, 1.0, 100.0]) == Limit(
        text="bare", value=3.0, samples=(3.0, 1.0, 100.0)
    )


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (1, 1.0), (50, 50.0), (99, 99.0), (99.5, 100.0), (100, 100)]
)
def test_a_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    samples = [float(number) for number in range(100, 0, -1)]
    assert percentile(samples, percent) == expected


def test_a_percentile_of_few_samples_is_one_of_them() -> None:
    assert percentile([7.0], 50) == 7.0
    assert percentile([1.0, 2.0], 50) == 1.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 99) == 4.0
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.25, "0.25 s"), (9.99, "9.99 s"), (10.24, "10.2 s"), (123.4, "123 s"), (6012.3, "6,012 s")],
)
def test_quantities_have_about_three_digits(value: float, text: str) -> None:
    assert quantity(value, "s") == text


def test_the_table_shows_value_limit_ratio_target_and_verdict_of_each_row() -> None:
    rows = [
        row(1100.0, 1800.0, at_least(0.6, Subject.RATIO), note="one agent"),
        row(4.0, None, at_most(3.0), group="other"),
        row(7.0, 2.0, group="other"),
    ]
    output = io.StringIO()
    Console(file=output, width=100).print(table_of(rows))
    assert output.getvalue() == TABLE


def test_the_heading_says_where_the_numbers_come_from() -> None:
    assert heading_of(MACHINE) == (
        "etcsched bench (quick, coarse): 2 processors, etcd 3.4.23, Python 3.11.7, "
        "load 0.1 at the start"
    )


def test_json_holds_the_samples_and_what_follows_from_them() -> None:
    report = json.loads(json_of([row(1100.0, 1000.0, at_least(0.6, Subject.RATIO))], MACHINE))
    assert report["machine"]["is_quick"] is True
    (entry,) = report["rows"]
    assert entry["samples"] == [1100.0]
    assert entry["limit"] == {"text": "bare", "value": 1000.0, "samples": []}
    assert entry["target"] == {"bound": "≥", "number": 0.6, "subject": "ratio"}
    assert entry["ratio"] == pytest.approx(1.1)
    assert entry["is_met"] is True
