"""One scenario, simulated and judged."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence

import msgspec

from etcsched.audit.auditor import Auditor
from etcsched.audit.history import Entry
from etcsched.audit.verdict import Outcome, Verdict, Violation
from etcsched.testing.sim.cluster import Cluster
from etcsched.testing.sim.parts import PRODUCT, Parts
from etcsched.testing.sim.scenario import Scenario

__all__ = ["Result", "simulate"]


class Result(msgspec.Struct, kw_only=True):
    """``crash``: an exception out of the product or of the simulator, which is a failure too.
    ``violated``: the invariants, by number."""

    seed: int
    lasted_s: float
    trace_hash: str
    injected: Counter[str]
    counts: Counter[str]
    revisions: int
    crash: str = ""
    violations: tuple[str, ...] = ()
    violated: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return bool(self.crash or self.violations or self.invalid)

    @property
    def symptoms(self) -> frozenset[str]:
        """What kind of failure it is: while a scenario is made smaller, it stays the same."""
        if self.crash:
            return frozenset({self.crash.strip().rpartition("\n")[2][:60]})
        return frozenset(self.violated or self.invalid)


def simulate(
    scenario: Scenario,
    parts: Parts = PRODUCT,
    *,
    keeps_lines: bool = False,
    entries: list[Entry] | None = None,
    until: frozenset[str] = frozenset(),
) -> Result:
    """The same scenario has the same result, always and everywhere. It ends early once one of the
    invariants in ``until`` is violated."""
    auditor = Auditor()

    def tell(entry: Entry) -> None:
        if entries is not None:
            entries.append(entry)
        known = len(auditor.violations)
        auditor.take(entry)
        if until and any(v.invariant.name in until for v in auditor.violations[known:]):
            raise _Enough

    cluster = Cluster(scenario, tell, parts, keeps_lines=keeps_lines)
    crash, verdict = "", None
    try:
        cluster.run()
        verdict = auditor.finish()
    except _Enough:
        pass
    except Exception:
        crash = traceback.format_exc()
    return _result(cluster, auditor.violations, verdict, crash)


class _Enough(BaseException):
    """What was looked for is found."""


def _result(
    cluster: Cluster, violations: Sequence[Violation], verdict: Verdict | None, crash: str
) -> Result:
    invalid = verdict is not None and verdict.outcome is Outcome.INVALID
    return Result(
        seed=cluster.scenario.seed,
        lasted_s=cluster.loop.now_s,
        trace_hash=cluster.chronicle.hash,
        injected=cluster.injected,
        counts=cluster.etcd.counts,
        revisions=cluster.store.revision,
        crash=crash,
        violations=tuple(str(violation) for violation in violations),
        violated=tuple(sorted({violation.invariant.name for violation in violations})),
        invalid=verdict.invalid_because if verdict is not None and invalid else (),
        lines=tuple(cluster.chronicle.lines),
    )
