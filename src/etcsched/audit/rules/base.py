"""What every rule has in common, and what it may look at."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from etcsched.audit.definitions import Definitions
from etcsched.audit.history import Fence, Guarded, Operation, Quiet, Truth, Word
from etcsched.audit.standing import Standing
from etcsched.audit.state import ARCHIVE, Keyspace, Place, Step, Write
from etcsched.audit.truth import Execution, Executions, Faults
from etcsched.audit.verdict import Bounds, Invariant, Violation
from etcsched.core.records import Kind, Run
from etcsched.core.times import ms_of

__all__ = ["Court", "Rule", "tick_of"]

MAX_VIOLATIONS = 1000
"""Kept of each invariant; those beyond are counted only."""


class Court:
    """What has been told so far, and where violations go."""

    def __init__(
        self, bounds: Bounds, state: Keyspace, definitions: Definitions, holds: frozenset[Truth]
    ) -> None:
        self.bounds = bounds
        self.state = state
        self.definitions = definitions
        self.holds = holds
        self.executions = Executions()
        self.faults = Faults()
        self.standing = Standing(state)
        self.began_at_revision = 0
        self.began_ms = 0
        self.through_ms = 0
        """The time of the last entry."""
        self.ends_quietly = False
        self.violations: list[Violation] = []
        self.checked: Counter[Invariant] = Counter()
        self.violated: Counter[Invariant] = Counter()


class Rule:
    """One invariant. ``wrote`` is called with each write to a place in ``places`` while the state
    is still that before its revision; ``committed`` after it."""

    invariant: ClassVar[Invariant]
    places: ClassVar[frozenset[Place]] = frozenset()

    def __init__(self, court: Court) -> None:
        self.court = court
        self.state = court.state
        self.bounds = court.bounds

    def begun(self) -> None:
        """The state is that at the history's beginning."""

    def wrote(self, write: Write, step: Step) -> None: ...

    def committed(self, step: Step) -> None: ...

    def said(self, word: Word, execution: Execution) -> None: ...

    def operated(self, operation: Operation) -> None: ...

    def fenced(self, fence: Fence) -> None: ...

    def guarded(self, guarded: Guarded) -> None: ...

    def quieted(self, quiet: Quiet) -> None: ...

    def finish(self) -> None: ...

    def not_judged(self) -> list[str]:
        """What of the invariant couldn't be judged, and why."""
        return []

    def birth(self, write: Write) -> Run | None:
        """The run that this write creates, active or over at once; None: it creates none."""
        if not write.is_new or write.after is None:
            return None
        is_moving = write.place == ARCHIVE and self.state.of(Kind.RUN, *write.ids) is not None
        record = write.after.record
        return record if isinstance(record, Run) and not is_moving else None

    def expect(
        self,
        holds: bool,
        text: str,
        step: Step | None = None,
        *,
        at_ms: int = 0,
        evidence: tuple[str, ...] = (),
    ) -> bool:
        """One check. ``text`` says what is wrong if it fails."""
        court = self.court
        court.checked[self.invariant] += 1
        if holds:
            return True
        court.violated[self.invariant] += 1
        if court.violated[self.invariant] <= MAX_VIOLATIONS:
            if step is not None:
                evidence = (*evidence, *(_told(write) for write in step.writes[:8]))
            violation = Violation(
                invariant=self.invariant,
                text=text,
                revision=step.revision if step is not None else 0,
                at_ms=at_ms or (step.at_ms if step is not None else 0),
                evidence=evidence,
            )
            court.violations.append(violation)
        return False


def tick_of(run: Run) -> int | None:
    """When its tick was due; None: no schedule made it."""
    if not run.is_tick or run.scheduled_at is None:
        return None
    return ms_of(run.scheduled_at)


def _told(write: Write) -> str:
    if write.after is None:
        return f"deleted {write.key}"
    return f"{'created' if write.is_new else 'put'} {write.key}: {write.after.record}"
