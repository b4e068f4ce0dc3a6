"""Ground truth apart from etcd: what jobs say of themselves, and the times of faults."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from etcsched.audit.history import Fault, FaultKind, Word, WordKind

__all__ = ["AttemptId", "Execution", "Executions", "Faults"]

AttemptId = tuple[str, str, int]
"""Job, run, token. Attempts of different runs that one transaction began share their token."""


class Execution(msgspec.Struct):
    """The processes of one attempt, by their own words. ``end_ms`` None: they never said that
    they came to their end; ``last_ms`` is their last sign of life."""

    job: str
    run: str
    token: int
    agent: str
    start_ms: int
    last_ms: int
    end_ms: int | None = None
    starts: int = 1

    @property
    def attempt(self) -> AttemptId:
        return self.job, self.run, self.token


class Executions:
    def __init__(self) -> None:
        self.by_attempt: dict[AttemptId, Execution] = {}
        self.by_run: dict[tuple[str, str], list[Execution]] = defaultdict(list)
        self.speaking: set[str] = set()
        """Jobs whose processes ever said a word."""

    def take(self, word: Word) -> Execution:
        self.speaking.add(word.job)
        execution = self.by_attempt.get((word.job, word.run, word.token))
        if execution is None:
            execution = Execution(
                word.job, word.run, word.token, word.agent, word.at_ms, word.at_ms
            )
            self.by_attempt[execution.attempt] = execution
            self.by_run[word.job, word.run].append(execution)
        elif word.kind is WordKind.START:
            execution.starts += 1
        execution.last_ms = max(execution.last_ms, word.at_ms)
        if word.kind is WordKind.END:
            execution.end_ms = word.at_ms
        return execution


class Faults:
    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}

    def take(self, fault: Fault) -> None:
        self._faults[fault.id] = fault

    def all(self) -> list[Fault]:
        return list(self._faults.values())

    def overlapping(
        self, from_ms: int, through_ms: int, kinds: frozenset[FaultKind] | None = None
    ) -> list[Fault]:
        return [
            fault
            for fault in self._faults.values()
            if fault.from_ms <= through_ms
            and (fault.until_ms is None or fault.until_ms >= from_ms)
            and (kinds is None or fault.kind in kinds)
        ]

    def without_proof(self) -> list[Fault]:
        """Those that are over, and of which nobody knows whether they took effect."""
        return [f for f in self._faults.values() if f.until_ms is not None and not f.proof]
