"""I12: after quiescence no orphan process, assignment, report or lease is left."""

from __future__ import annotations

from etcsched.audit.history import Quiet
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Gap, Kind

_MUST_GO = (
    Kind.RUN,
    Kind.ASSIGNMENT,
    Kind.ORDER,
    Kind.REPORT,
    Kind.LATE_REPORT,
    Kind.REQUEST,
)


class Remains(Rule):
    invariant = Invariant.I12

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._quiet: Quiet | None = None

    def quieted(self, quiet: Quiet) -> None:
        self._quiet = quiet
        for kind in _MUST_GO:
            for ids in self.state.all_of(kind):
                text = f"{kind.value} {'/'.join(ids)}: left behind"
                self.expect(False, text, at_ms=quiet.at_ms)
        for (job,), held in self.state.all_of(Kind.GAP).items():
            is_over = isinstance(held.record, Gap) and held.record.closed
            self.expect(is_over, f"gap {job}: left open", at_ms=quiet.at_ms)
        for key in sorted(self.state.strays):
            self.expect(False, f"{key}: a key of no kind", at_ms=quiet.at_ms)
        for process in quiet.processes or ():
            self.expect(False, f"process {process}: left running", at_ms=quiet.at_ms)
        if quiet.leases is not None:
            text = f"{quiet.leases} leases are left for {quiet.nodes} nodes"
            self.expect(quiet.leases == quiet.nodes, text, at_ms=quiet.at_ms)
        self.court.checked[self.invariant] += 1

    def not_judged(self) -> list[str]:
        if self._quiet is None:
            return ["the history has no quiet end"]
        missing = []
        if self._quiet.processes is None:
            missing.append("nobody looked for processes")
        if self._quiet.leases is None:
            missing.append("nobody counted the leases")
        return missing
