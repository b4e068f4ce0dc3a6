"""When a chain goes on: conditions over a run's results, and windows of time.

Pure. A name may have several values: ``equals``, ``in`` and the comparisons hold if one of them
does, ``not_equals`` and ``not_in`` if none is what they exclude. A name that isn't there has no
value. Comparisons are of numbers, decimal and exact; what is no number is never less or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, assert_never

from etcsched.core.records import Condition
from etcsched.core.results import Results
from etcsched.core.schedule.cron import parse_cron
from etcsched.core.schedule.zone import period_at
from etcsched.core.states import ConditionOp
from etcsched.core.times import Utc, ms_of

_LATEST_S: Final = ms_of(Utc("9000-12-31T23:59:59.000Z")) // 1000


def holds(condition: Condition, results: Results) -> bool:
    values, given = results.get(condition.name, ()), condition.values
    match condition.op:
        case ConditionOp.EXISTS:
            return bool(values)
        case ConditionOp.MISSING:
            return not values
        case ConditionOp.EQUALS | ConditionOp.IN:
            return any(value in given for value in values)
        case ConditionOp.NOT_EQUALS | ConditionOp.NOT_IN:
            return all(value not in given for value in values)
        case (
            ConditionOp.LESS_THAN
            | ConditionOp.AT_MOST
            | ConditionOp.MORE_THAN
            | ConditionOp.AT_LEAST
        ):
            bound = number_of(given[0])
            numbers = [number for value in values if (number := number_of(value)) is not None]
            return bound is not None and any(_compares(condition.op, n, bound) for n in numbers)
        case other:
            assert_never(other)


def _compares(op: ConditionOp, number: Decimal, bound: Decimal) -> bool:
    match op:
        case ConditionOp.LESS_THAN:
            return number < bound
        case ConditionOp.AT_MOST:
            return number <= bound
        case ConditionOp.MORE_THAN:
            return number > bound
        case _:
            return number >= bound


def number_of(text: str) -> Decimal | None:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def first_unmet(conditions: Sequence[Condition], results: Results) -> str | None:
    """The first condition that doesn't hold, in words; None: all do."""
    for condition in conditions:
        if not holds(condition, results):
            values = results.get(condition.name)
            found = "isn't there" if values is None else f"is {', '.join(values)[:80]}"
            wanted = " ".join([condition.op.value, ", ".join(condition.values)]).strip()[:80]
            return f"{condition.name} {found} (wanted: {wanted})"
    return None


def is_within(expression: str, timezone: str, at_ms: int) -> bool:
    """Whether the zone's clock matches in the minute (with a field for seconds: the second) of
    ``at_ms``. No tick is asked for: an hour that the clock shows twice matches twice."""
    unit_s = 1 if len(expression.split()) == 6 else 60
    at_s = min(max(at_ms // 1000, 0), _LATEST_S)  # Some clock said so; calendars end.
    wall_s = at_s + period_at(timezone, at_s).offset_s
    begin_s = wall_s - wall_s % unit_s
    return parse_cron(expression).first(begin_s) == begin_s
