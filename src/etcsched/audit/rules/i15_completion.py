"""I15: within T of the last heal every due run is final."""

from __future__ import annotations

from etcsched.audit.history import Quiet
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import ARCHIVE, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Assignment, Kind, Presence, Run
from etcsched.core.states import WORKING


class Completion(Rule):
    """At a quiet end nothing may be unfinished. Without one, of what is assigned: a live agent
    takes it up, or its end is folded, within the recovery bound."""

    invariant = Invariant.I15
    places = frozenset({Kind.RUN, ARCHIVE})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._changed_ms: dict[tuple[str, ...], int] = {}
        self._is_quiet = False

    def begun(self) -> None:
        for ids in self.state.all_of(Kind.RUN):
            self._changed_ms[ids] = self.court.began_ms

    def wrote(self, write: Write, step: Step) -> None:
        if write.place == ARCHIVE:
            self.court.checked[self.invariant] += write.is_new
        elif write.after is not None:
            self._changed_ms[write.ids] = step.at_ms or self.court.began_ms
        else:
            self._changed_ms.pop(write.ids, None)

    def quieted(self, quiet: Quiet) -> None:
        self._is_quiet = True
        for ids, changed_ms in self._changed_ms.items():
            run = self.state.record(Run, Kind.RUN, *ids)
            state = run.state.value if run is not None else "no record"
            waited_s = (quiet.at_ms - changed_ms) / 1000
            text = f"{'/'.join(ids)}: the end came, and it is {state}, for {waited_s:.1f} s"
            self.expect(False, text, at_ms=quiet.at_ms)

    def finish(self) -> None:
        if self._is_quiet:
            return
        now_ms, most_ms = self.court.through_ms, self.bounds.recovery_ms
        faults = self.court.faults.overlapping(now_ms - most_ms, now_ms)
        for ids, changed_ms in self._changed_ms.items():
            run = self.state.record(Run, Kind.RUN, *ids)
            if run is None or run.state not in WORKING or faults:
                continue
            place = (run.agent, *ids)
            assignment = self.state.record(Assignment, Kind.ASSIGNMENT, *place)
            presence = self.state.record(Presence, Kind.PRESENCE, run.agent)
            is_here = assignment is not None and presence is not None
            is_claimed = self.state.of(Kind.REPORT, *place) is not None
            text = f"{'/'.join(ids)}: assigned to {run.agent}, which lives and doesn't take it up"
            is_stuck = is_here and not is_claimed and now_ms - changed_ms > most_ms
            self.expect(not is_stuck, text, at_ms=now_ms)

    def not_judged(self) -> list[str]:
        if not self._is_quiet:
            return ["the history has no quiet end; only what hangs between agents is judged"]
        return []
