"""I3: no two attempts of a run overlap, by their own beats."""

from __future__ import annotations

from etcsched.audit.history import FaultKind, Truth, Word, WordKind
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import Step, Write
from etcsched.audit.truth import AttemptId, Execution
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Assignment, Kind
from etcsched.core.states import OnDisconnect


class Overlap(Rule):
    """Two executions overlap if one begins before the other's last sign of life. Judged in the
    end, since a fault that excuses it may be told afterwards."""

    invariant = Invariant.I3
    places = frozenset({Kind.ASSIGNMENT})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._pairs: dict[tuple[AttemptId, AttemptId], tuple[Execution, Execution]] = {}
        self._lets_run_on: set[AttemptId] = set()

    def said(self, word: Word, execution: Execution) -> None:
        if word.kind is WordKind.START:
            name = f"{word.job}/{word.run}"
            text = f"{name}: the attempt with token {word.token} was started twice"
            self.expect(execution.starts == 1, text, at_ms=word.at_ms)
        others = self.court.executions.by_run[word.job, word.run]
        if len(others) == 1:
            return
        for other in others:
            if other is not execution:
                first, second = sorted((execution, other), key=lambda e: (e.start_ms, e.token))
                if second.start_ms < first.last_ms:
                    self._pairs[first.attempt, second.attempt] = first, second

    def begun(self) -> None:
        for ids, held in self.state.all_of(Kind.ASSIGNMENT).items():
            self._remember_choice(ids, held.record, held.mod_revision)

    def wrote(self, write: Write, step: Step) -> None:
        if write.after is not None:
            self._remember_choice(write.ids, write.after.record, step.revision)

    def _remember_choice(self, ids: tuple[str, ...], record: object, token: int) -> None:
        """The attempt's, as its job was then."""
        if isinstance(record, Assignment) and record.on_disconnect is OnDisconnect.CONTINUE:
            self._lets_run_on.add((ids[1], ids[2], token))

    def finish(self) -> None:
        for first, second in self._pairs.values():
            if first.attempt in self._lets_run_on:
                continue
            overlap_ms = min(first.last_ms, second.last_ms) - second.start_ms
            text = (
                f"{first.job}/{first.run}: the attempt with token {first.token}"
                f"{_on(first)} lived for {overlap_ms} ms beside the one with {second.token}"
                f"{_on(second)}"
            )
            evidence = (_told(first), _told(second))
            is_residual = self._is_residual(first)
            self.expect(is_residual, text, at_ms=second.start_ms, evidence=evidence)

    def _is_residual(self, first: Execution) -> bool:
        """A host that was frozen whole can't end anything until it wakes: that is stated."""
        frozen = self.court.faults.overlapping(
            first.start_ms, first.last_ms, frozenset({FaultKind.HOST_FROZEN})
        )
        return any(
            fault.until_ms is not None
            and fault.target in (first.agent, "")
            and first.last_ms <= fault.until_ms + self.bounds.residual_ms
            for fault in frozen
        )

    def not_judged(self) -> list[str]:
        if Truth.WORDS not in self.court.holds:
            return ["no job's own word is recorded"]
        return []


def _on(execution: Execution) -> str:
    return f" on {execution.agent}" if execution.agent else ""


def _told(execution: Execution) -> str:
    end = f"end {execution.end_ms}" if execution.end_ms is not None else "no end"
    return (
        f"token {execution.token}: start {execution.start_ms}, last beat {execution.last_ms}, {end}"
    )
