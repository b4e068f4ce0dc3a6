"""What was measured, beside its limit: the arithmetic, the table and the JSON."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Sequence

import msgspec
from rich.table import Table


class Bound(enum.Enum):
    AT_LEAST = "≥"
    AT_MOST = "≤"


class Subject(enum.Enum):
    """What a target speaks of: the value itself, or its ratio to the limit."""

    VALUE = "value"
    RATIO = "ratio"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    bound: Bound
    number: float
    subject: Subject = Subject.VALUE


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What could be reached at best, measured in the same run, in the row's unit. ``samples`` is
    empty where the limit is a setting."""

    text: str
    value: float
    samples: tuple[float, ...] = ()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measure. ``value`` is what became of ``samples`` (their median, or what ``note`` says);
    without a target it is shown for comparison only."""

    group: str
    measure: str
    value: float
    unit: str
    samples: tuple[float, ...] = ()
    limit: Limit | None = None
    target: Target | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """None: there is no limit, or it is zero."""
        if self.limit is None or not self.limit.value:
            return None
        return self.value / self.limit.value

    @property
    def is_met(self) -> bool | None:
        """None: nothing is asked of it, or it has no ratio to be judged by."""
        if self.target is None:
            return None
        judged = self.ratio if self.target.subject is Subject.RATIO else self.value
        if judged is None:
            return None
        if self.target.bound is Bound.AT_LEAST:
            return judged >= self.target.number
        return judged <= self.target.number


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rows come from. ``load`` is the load average of the last minute as the run began:
    much above 0, something else took part."""

    processors: int
    python: str
    etcd: str
    load: float
    is_quick: bool


def at_least(number: float, subject: Subject = Subject.VALUE) -> Target:
    return Target(bound=Bound.AT_LEAST, number=number, subject=subject)


def at_most(number: float, subject: Subject = Subject.VALUE) -> Target:
    return Target(bound=Bound.AT_MOST, number=number, subject=subject)


def limit_of(text: str, samples: Sequence[float]) -> Limit:
    return Limit(text=text, value=statistics.median(samples), samples=tuple(samples))


def percentile(samples: Sequence[float], percent: float) -> float:
    """By the nearest rank: a value that was measured, never one between two."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def heading_of(machine: Machine) -> str:
    mode = "quick, coarse" if machine.is_quick else "full"
    return (
        f"etcsched bench ({mode}): {machine.processors} processors, etcd {machine.etcd}, "
        f"Python {machine.python}, load {machine.load:.1f} at the start"
    )


def table_of(rows: Sequence[Row]) -> Table:
    table = Table()
    for column in ("measure", "value", "limit beside it", "ratio", "target", "met?"):
        is_number = column in {"value", "ratio", "target"}
        table.add_column(column, justify="right" if is_number else "left")
    group = None
    for row in rows:
        if group not in {None, row.group}:
            table.add_section()
        group = row.group
        table.add_row(
            f"{row.measure}\n[dim]{row.note}[/]" if row.note else row.measure,
            quantity(row.value, row.unit),
            f"{quantity(row.limit.value, row.unit)}  {row.limit.text}" if row.limit else "",
            f"{row.ratio:.2f}" if row.ratio is not None else "",
            _words_of(row),
            {True: "[green]yes", False: "[bold red]no", None: ""}[row.is_met],
        )
    return table


def quantity(value: float, unit: str) -> str:
    """Three significant digits, whole numbers from a hundred on."""
    if abs(value) >= 100:
        return f"{value:,.0f} {unit}"
    digits = 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def _words_of(row: Row) -> str:
    if row.target is None:
        return ""
    number, bound = row.target.number, row.target.bound.value
    if row.target.subject is Subject.RATIO:
        return f"{bound} {number:g} × limit"
    return f"{bound} {number:g} {row.unit}"


def json_of(rows: Sequence[Row], machine: Machine) -> bytes:
    """Everything, samples too, with what follows from it."""
    report = {
        "machine": msgspec.to_builtins(machine),
        "rows": [
            {**msgspec.to_builtins(row), "ratio": row.ratio, "is_met": row.is_met} for row in rows
        ],
    }
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
