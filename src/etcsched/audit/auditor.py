"""The auditor's way in and out: entries of a history one by one, and the verdict at their end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

from etcsched.audit.definitions import Definitions
from etcsched.audit.history import (
    FORMAT_VERSION,
    Begun,
    Ended,
    Entry,
    Fault,
    Fence,
    Guarded,
    Hole,
    Operation,
    Quiet,
    Revision,
    Word,
)
from etcsched.audit.rules import RULES, Court, Rule
from etcsched.audit.rules.i02_lateness import Lateness
from etcsched.audit.rules.i11_fencing import Fencing
from etcsched.audit.state import Keyspace, Place, Step, Write
from etcsched.audit.truth import Executions
from etcsched.audit.verdict import Bounds, Invariant, Outcome, Result, Verdict, Violation
from etcsched.core.records import Calendar, Job, Kind, Pause

__all__ = ["Auditor"]

T = TypeVar("T", bound=Rule)


class Auditor:
    """Judges while the history grows: one entry costs what it changes, never what exists.

    ``take`` never raises for what a history says; ``violations`` grows as they are found. What
    can be judged only when all is over (a loss, a quiet end, what a fault excuses) is added by
    ``finish``.
    """

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self._holes: list[str] = []
        self._court: Court | None = None
        self._rules: list[Rule] = []
        self._by_place: dict[Place, list[Callable[[Write, Step], None]]] = defaultdict(list)
        self._committed: list[Rule] = []
        self._said: list[Rule] = []
        self._takers: dict[type, Callable[[Any], None]] = {
            Revision: self._revise,
            Word: self._word,
            Operation: lambda entry: self._each(lambda rule: rule.operated(entry)),
            Fault: self._fault,
            Fence: lambda entry: self._each(lambda rule: rule.fenced(entry)),
            Guarded: lambda entry: self._each(lambda rule: rule.guarded(entry)),
            Quiet: self._quiet,
            Hole: lambda entry: self._holes.append(entry.reason),
            Ended: self._end,
        }

    @property
    def violations(self) -> list[Violation]:
        return self._court.violations if self._court is not None else []

    @property
    def state(self) -> Keyspace:
        """The keyspace as it was told so far; only after ``Begun``."""
        return self._tried.state

    @property
    def definitions(self) -> Definitions:
        """What operators committed so far, and what is due by it."""
        return self._tried.definitions

    @property
    def executions(self) -> Executions:
        """What the jobs' processes said so far."""
        return self._tried.executions

    @property
    def is_valid(self) -> bool:
        """Nothing is known to be missing so far."""
        return not self._holes

    @property
    def _tried(self) -> Court:
        assert self._court is not None, "the first entry must be Begun"
        return self._court

    def take(self, entry: Entry) -> None:
        """The next entry; the first is ``Begun``."""
        if isinstance(entry, Begun):
            self._begin(entry)
            return
        if self._court is None:
            self._holes.append("the history doesn't say how it began")
            return
        self._takers[type(entry)](entry)

    def _begin(self, entry: Begun) -> None:
        if self._court is not None:
            self._holes.append("the history begins twice")
            return
        if entry.format > FORMAT_VERSION:
            self._holes.append(
                f"the history has format {entry.format}, this version knows {FORMAT_VERSION}"
            )
        state = Keyspace(entry.prefix)
        state.begin(entry.kvs, entry.revision, entry.at_ms)
        definitions = Definitions(state.through_ms)
        for held in state.all_of(Kind.JOB).values():
            if isinstance(held.record, Job):
                definitions.job_put(held.record)
        for held in state.all_of(Kind.CALENDAR).values():
            if isinstance(held.record, Calendar):
                definitions.calendar_put(held.record)
        for (name,), held in state.all_of(Kind.PAUSE).items():
            if isinstance(held.record, Pause):
                definitions.pause_put(name, held.record)
        court = Court(self.bounds, state, definitions, frozenset(entry.holds))
        court.began_at_revision, court.began_ms = entry.revision, entry.at_ms
        court.through_ms = entry.at_ms
        self._court = court
        self._rules = [rule(court) for rule in RULES]
        for rule in self._rules:
            rule.begun()
            for place in rule.places:
                self._by_place[place].append(rule.wrote)
        for place in court.standing.places:  # After the rules: to them it is as before.
            self._by_place[place].append(court.standing.wrote)
        self._committed = [r for r in self._rules if type(r).committed is not Rule.committed]
        self._said = [r for r in self._rules if type(r).said is not Rule.said]

    def _revise(self, entry: Revision) -> None:
        state = self._tried.state
        if entry.revision <= state.revision:
            self._holes.append(f"revision {entry.revision} came after {state.revision}")
            return
        try:
            step = state.step_of(entry.revision, entry.at_ms, entry.events)
        except ValueError as hole:
            self._holes.append(str(hole))
            return
        for write in step.writes:
            if write.place is not None:
                for wrote in self._by_place[write.place]:
                    wrote(write, step)
        state.apply(step)
        for rule in self._committed:
            rule.committed(step)
        self._passed(entry.at_ms)

    def _word(self, entry: Word) -> None:
        execution = self._tried.executions.take(entry)
        for rule in self._said:
            rule.said(entry, execution)
        self._passed(entry.at_ms)

    def _fault(self, entry: Fault) -> None:
        self._tried.faults.take(entry)

    def _each(self, tell: Callable[[Rule], None]) -> None:
        for rule in self._rules:
            tell(rule)

    def _quiet(self, entry: Quiet) -> None:
        if entry.revision > self._tried.state.revision:
            self._holes.append(
                f"recorded is revision {self._tried.state.revision}, the quiet end is at "
                f"{entry.revision}"
            )
            return
        for rule in self._rules:
            rule.quieted(entry)
        self._passed(entry.at_ms)

    def _end(self, entry: Ended) -> None:
        if entry.revision > self._tried.state.revision:
            self._holes.append(
                f"recorded is revision {self._tried.state.revision}, the end is {entry.revision}"
            )
        self._passed(entry.at_ms)

    def _passed(self, at_ms: int) -> None:
        court = self._tried
        court.through_ms = max(court.through_ms, at_ms)

    # --- the verdict

    def results(self) -> tuple[Result, ...]:
        """As it stands so far."""
        court = self._tried
        return tuple(
            Result(
                invariant=invariant,
                checked=court.checked[invariant],
                violated=court.violated[invariant],
                not_judged=tuple(
                    reason
                    for rule in self._rules
                    if rule.invariant is invariant
                    for reason in rule.not_judged()
                ),
            )
            for invariant in Invariant
        )

    def finish(self) -> Verdict:
        """The verdict on all that was taken; nothing may be taken after it."""
        if self._court is None:
            self.take(Begun(at_ms=0, prefix="/etcsched/v1/"))
            self._holes.append("the history is empty")
        court = self._tried
        for rule in self._rules:
            rule.finish()
        self._holes += [
            f"fault {fault.id} ({fault.kind.value} {fault.target}): nothing proves that it took "
            "effect"
            for fault in court.faults.without_proof()
        ]
        outcome = Outcome.VIOLATED if court.violations else Outcome.CLEAN
        return Verdict(
            outcome=Outcome.INVALID if self._holes else outcome,
            violations=tuple(court.violations),
            results=self.results(),
            invalid_because=tuple(self._holes),
            from_revision=court.began_at_revision + 1,
            through_revision=court.state.revision,
            from_ms=court.began_ms,
            through_ms=court.through_ms,
            lateness=self._rule(Lateness).histogram(),
            least_fence_slack_ms=self._rule(Fencing).least_slack_ms,
        )

    def _rule(self, type_: type[T]) -> T:
        return next(rule for rule in self._rules if isinstance(rule, type_))
