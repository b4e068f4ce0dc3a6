"""I5: tokens grow strictly within a run; nothing accepted a stale one."""

from __future__ import annotations

from itertools import pairwise

from etcsched.audit.history import Guarded, Truth
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import Step, Write
from etcsched.audit.truth import AttemptId
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Assignment, Kind, Report


class Tokens(Rule):
    invariant = Invariant.I5
    places = frozenset({Kind.ASSIGNMENT, Kind.REPORT})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._given: set[AttemptId] = set()
        self._accepted: dict[str, int] = {}

    def begun(self) -> None:
        for ids, held in self.state.all_of(Kind.ASSIGNMENT).items():
            self._given.add((ids[1], ids[2], held.mod_revision))

    def wrote(self, write: Write, step: Step) -> None:
        record = write.new
        if isinstance(record, Assignment):
            self._given.add((record.job, record.run, step.revision))
        elif isinstance(record, Report):
            held = self.state.of(Kind.ASSIGNMENT, *write.ids)
            agent, job, run = write.ids
            current = held.mod_revision if held is not None else None
            text = (
                f"{job}/{run}: {agent} reported with the token {record.token}, "
                f"{'and its assignment is gone' if current is None else f'current is {current}'}"
            )
            self.expect(record.token == current, text, step)

    def guarded(self, guarded: Guarded) -> None:
        if not guarded.accepted:
            self.court.checked[self.invariant] += 1
            return
        highest = self._accepted.get(guarded.resource, 0)
        text = f"{guarded.resource} accepted the token {guarded.token} after {highest}"
        self.expect(guarded.token >= highest, text, at_ms=guarded.at_ms)
        self._accepted[guarded.resource] = max(highest, guarded.token)

    def finish(self) -> None:
        for execution in self.court.executions.by_attempt.values():
            if execution.token > self.court.began_at_revision:
                name = f"{execution.job}/{execution.run}"
                text = f"{name} ran with the token {execution.token}, which no assignment gave it"
                is_given = execution.attempt in self._given
                self.expect(is_given, text, at_ms=execution.start_ms)
        for (job, run), its in self.court.executions.by_run.items():
            for first, second in pairwise(sorted(its, key=lambda execution: execution.start_ms)):
                text = f"{job}/{run}: the token {second.token} started after {first.token}"
                grows = second.token > first.token
                self.expect(grows, text, at_ms=second.start_ms)

    def not_judged(self) -> list[str]:
        missing = []
        if Truth.WORDS not in self.court.holds:
            missing.append("what processes ran with: no job's own word is recorded")
        if Truth.GUARDED not in self.court.holds:
            missing.append("what a guarded resource accepted isn't recorded")
        return missing
