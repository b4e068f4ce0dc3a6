"""What the auditor says in the end, and by which bounds it judges."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from etcsched.core.times import utc_of

__all__ = ["Bounds", "Invariant", "Lateness", "Outcome", "Result", "Verdict", "Violation", "plain"]


class Invariant(enum.Enum):
    """Those of FAULTS, by number; the value is what a person calls it."""

    __hash__ = object.__hash__  # Members are singletons; enum's own is Python, and slow.

    I1 = "each due tick became one run or one record"
    I2 = "runs start in time"
    I3 = "no two attempts of a run overlap"
    I4 = "an attempt follows only when the one before is over"
    I5 = "tokens grow, and stale ones are refused"
    I6 = "one leader a term, each write under its live key"
    I7 = "final states stay, outcomes aren't lost"
    I8 = "acknowledged operations take effect, once"
    I9 = "missed ticks go by the recovery mode"
    I10 = "assignments go only where they may"
    I11 = "an agent without a session is fenced in time"
    I12 = "nothing is left behind"
    I13 = "every node sees what etcd holds"
    I14 = "nothing starts after a stop"
    I15 = "all ends within its time after a heal"
    I16 = "startup and shutdown jobs run once, when they should"


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """``lateness_ms``: ε, from a tick to its process's start, outside of faults. ``recovery_ms``:
    what is due counts as late only so long after a heal (I2), and is final so long after the last
    one, or after it became due (I15; the job's own run time comes on top). ``residual_ms``: how
    long the processes of a host that was frozen whole may live on once it wakes. ``early_ms``: how
    far ahead of true time the clock of a scheduler may be."""

    lateness_ms: int = 1000
    recovery_ms: int = 30_000
    residual_ms: int = 1000
    early_ms: int = 50


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """``text`` says what is wrong, in words; ``evidence`` the events that show it."""

    invariant: Invariant
    text: str
    revision: int = 0
    at_ms: int = 0
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f" at revision {self.revision}" if self.revision else ""
        return f"{self.invariant.name}{where}: {self.text}"


class Outcome(enum.Enum):
    """``invalid``: the recording can't tell, because something in it is missing."""

    CLEAN = "clean"
    VIOLATED = "violated"
    INVALID = "invalid"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Of one invariant: how often it was checked, and what kept it from being judged wholly."""

    invariant: Invariant
    checked: int
    violated: int
    not_judged: tuple[str, ...] = ()


class Lateness(msgspec.Struct, frozen=True, kw_only=True):
    """From tick to first start, of the runs that fell into no fault's time: how many were at most
    each bound late. ``worst_ms`` None: there was none."""

    up_to_ms: tuple[int, ...]
    counts: tuple[int, ...]
    """One more than bounds: the last counts what was later than all."""
    worst_ms: int | None = None
    worst_run: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """``through_revision``: everything from the beginning through it was judged."""

    outcome: Outcome
    violations: tuple[Violation, ...]
    results: tuple[Result, ...]
    invalid_because: tuple[str, ...]
    from_revision: int
    through_revision: int
    from_ms: int
    through_ms: int
    lateness: Lateness
    least_fence_slack_ms: int | None = None


def plain(verdict: Verdict) -> dict[str, Any]:
    """For programs: invariants by number."""
    return {
        "outcome": verdict.outcome.value,
        "invalid_because": verdict.invalid_because,
        "from_revision": verdict.from_revision,
        "through_revision": verdict.through_revision,
        "from": utc_of(verdict.from_ms),
        "through": utc_of(verdict.through_ms),
        "invariants": [
            {
                "invariant": result.invariant.name,
                "means": result.invariant.value,
                "checked": result.checked,
                "violated": result.violated,
                "not_judged": result.not_judged,
            }
            for result in verdict.results
        ],
        "violations": [
            {
                "invariant": violation.invariant.name,
                "text": violation.text,
                "revision": violation.revision,
                "at": utc_of(violation.at_ms),
                "evidence": violation.evidence,
            }
            for violation in verdict.violations
        ],
        "lateness": msgspec.to_builtins(verdict.lateness),
        "least_fence_slack_ms": verdict.least_fence_slack_ms,
    }
