"""Conditions over results, and windows of time."""

from __future__ import annotations

import pytest

from etcsched.core.conditions import first_unmet, holds, is_within
from etcsched.core.records import Condition
from etcsched.core.states import ConditionOp
from etcsched.core.times import Utc, ms_of

RESULTS = {
    "n": ("5",), "many": ("1", "10"), "text": ("abc",), "empty": ("",), "odd": ("nan", "1e400"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "op", "values", "expected"),
    [
        ("n", "exists", (), True),
        ("empty", "exists", (), True),
        ("none", "exists", (), False),
        ("none", "missing", (), True),
        ("n", "missing", (), False),
        ("text", "equals", ("abc",), True),
        ("n", "equals", ("5.0",), False),
        ("many", "equals", ("10",), True),
        ("none", "equals", ("",), False),
        ("empty", "equals", ("",), True),
        ("text", "not_equals", ("abd",), True),
        ("many", "not_equals", ("10",), False),
        ("none", "not_equals", ("x",), True),
        ("text", "in", ("x", "abc"), True),
        ("text", "in", ("x",), False),
        ("none", "in", ("x",), False),
        ("many", "not_in", ("2", "3"), True),
        ("many", "not_in", ("2", "1"), False),
        ("none", "not_in", ("2",), True),
        ("n", "less_than", ("5",), False),
        ("n", "less_than", ("5.0001",), True),
        ("n", "at_most", ("5.0",), True),
        ("n", "more_than", ("4",), True),
        ("n", "more_than", ("5",), False),
        ("n", "at_least", ("5",), True),
        ("n", "at_least", ("1e1",), False),
        ("many", "more_than", ("5",), True),
        ("many", "less_than", ("5",), True),
        ("text", "at_least", ("0",), False),
        ("text", "at_most", ("0",), False),
        ("none", "less_than", ("5",), False),
        ("odd", "less_than", ("5",), False),
        ("odd", "more_than", ("5",), True),
        ("n", "more_than", ("x",), False),
    ],
)
def test_holds(name: str, op: str, values: tuple[str, ...], expected: bool) -> None:
    condition = Condition(name=name, op=ConditionOp(op), values=values)
    assert holds(condition, RESULTS) is expected


def test_all_have_to_hold_and_the_first_that_does_not_is_said() -> None:
    yes = Condition(name="n", op=ConditionOp.EXISTS)
    no = Condition(name="many", op=ConditionOp.IN, values=("2", "3"))
    absent = Condition(name="none", op=ConditionOp.EXISTS)
    assert first_unmet([], {}) is None
    assert first_unmet([yes], RESULTS) is None
    assert first_unmet([yes, no, absent], RESULTS) == "many is 1, 10 (wanted: in 2, 3)"
    assert first_unmet([absent], RESULTS) == "none isn't there (wanted: exists)"


@pytest.mark.parametrize(
    ("expression", "timezone", "at", "expected"),
    [
        ("* 8-17 * * 1-5", "UTC", "2026-11-23T17:59:59.999Z", True),
        ("* 8-17 * * 1-5", "UTC", "2026-11-23T18:00:00.000Z", False),
        ("* 8-17 * * 1-5", "UTC", "2026-11-22T12:00:00.000Z", False),
        ("* 8-17 * * *", "Europe/Berlin", "2026-11-23T07:00:00.000Z", True),
        ("* 8-17 * * *", "Europe/Berlin", "2026-11-23T17:30:00.000Z", False),
        ("30 * * * *", "UTC", "2026-11-23T17:30:59.000Z", True),
        ("0-29 * * * * *", "UTC", "2026-11-23T17:30:29.500Z", True),
        ("0-29 * * * * *", "UTC", "2026-11-23T17:30:30.000Z", False),
        ("@hourly", "UTC", "2026-11-23T17:00:30.000Z", True),
        # The clock shows 2:00 to 3:00 twice, from 0:00Z and from 1:00Z.
        ("* 1-4 * * *", "Europe/Berlin", "2026-10-25T00:30:00.000Z", True),
        ("* 1-4 * * *", "Europe/Berlin", "2026-10-25T01:30:00.000Z", True),
        ("* 0-23 * * *", "Europe/Berlin", "2026-10-25T01:30:00.000Z", True),
        ("0-29 * 2 * * *", "Europe/Berlin", "2026-10-25T01:30:29.000Z", True),
        ("* 2 * * *", "Europe/Berlin", "2026-10-25T02:00:00.000Z", False),
        # It goes from 2:00 to 3:00 at once, at 1:00Z.
        ("* 2 * * *", "Europe/Berlin", "2026-03-29T00:59:59.000Z", False),
        ("* 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00.000Z", False),
        ("* 3 * * *", "Europe/Berlin", "2026-03-29T01:00:00.000Z", True),
        # Minutes are the clock's, where a zone isn't whole hours from UTC.
        ("0-44 5 * * *", "Asia/Kathmandu", "2026-11-23T00:00:00.000Z", False),
        ("45 5 * * *", "Asia/Kathmandu", "2026-11-23T00:00:59.000Z", True),
    ],
)
def test_windows(expression: str, timezone: str, at: str, expected: bool) -> None:
    assert is_within(expression, timezone, ms_of(Utc(at))) is expected
