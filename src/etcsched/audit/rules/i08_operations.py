"""I8: every acknowledged request shows its effect once; failed ones none; unknown ones at most
once."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec

from etcsched.audit.history import Operation, OperationKind, OperationOutcome, Truth
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import ARCHIVE, Place, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import (
    Answer,
    Drain,
    Job,
    Kind,
    Pause,
    Record,
    Request,
    RequestKind,
    Run,
)
from etcsched.core.states import JobState, Origin

_PLACES: dict[OperationKind, Kind] = {
    OperationKind.APPLY: Kind.JOB,
    OperationKind.DELETE: Kind.JOB,
    OperationKind.PAUSE: Kind.PAUSE,
    OperationKind.RESUME: Kind.PAUSE,
    OperationKind.DRAIN: Kind.DRAIN,
    OperationKind.UNDRAIN: Kind.DRAIN,
    OperationKind.REQUEST: Kind.REQUEST,
}


class _Effect(msgspec.Struct, frozen=True):
    """A write to what an operator may write. ``does``: the kinds of operation that it can be."""

    revision: int
    at_ms: int
    mark: str
    does: OperationKind | None


class Operations(Rule):
    invariant = Invariant.I8
    places = frozenset(
        {Kind.JOB, Kind.PAUSE, Kind.DRAIN, Kind.REQUEST, Kind.ANSWER, Kind.RUN, ARCHIVE}
    )

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._effects: dict[tuple[Place, str], list[_Effect]] = defaultdict(list)
        self._operations: list[Operation] = []
        self._requested: set[tuple[str, ...]] = set()
        """Runs that requests made."""
        self._answered: Counter[str] = Counter()

    def begun(self) -> None:
        for place in (Kind.RUN, ARCHIVE):
            for ids, held in self.state.all_of(place).items():
                if isinstance(held.record, Run) and held.record.origin is Origin.REQUEST:
                    self._requested.add(ids)

    def operated(self, operation: Operation) -> None:
        self._operations.append(operation)

    def wrote(self, write: Write, step: Step) -> None:
        match write.place:
            case Kind.ANSWER:
                self._answer(write, step)
            case Kind.RUN:
                self._born(write)
            case _ if write.place == ARCHIVE:
                self._born(write)
            case Kind.REQUEST if write.after is None:
                (request,) = write.ids
                text = f"request {request}: it was consumed without an answer"
                answer = step.of(Kind.ANSWER, request)
                self.expect(answer is not None and answer.after is not None, text, step)
            case Kind.JOB | Kind.PAUSE | Kind.DRAIN | Kind.REQUEST as place:
                does, mark = (None, "") if _is_regrouped(write, step) else _read(write)
                effect = _Effect(step.revision, step.at_ms, mark, does)
                self._effects[place, write.ids[0]].append(effect)
            case _:
                pass

    def _born(self, write: Write) -> None:
        run = self.birth(write)
        if run is not None and run.origin is Origin.REQUEST:
            self._requested.add(write.ids)

    def _answer(self, write: Write, step: Step) -> None:
        (request_id,) = write.ids
        if not write.is_new:
            if write.after is not None:
                self.expect(False, f"request {request_id}: its answer was changed", step)
            return
        self._answered[request_id] += 1
        text = f"request {request_id}: it was answered twice"
        self.expect(self._answered[request_id] == 1, text, step)
        request = self.state.record(Request, Kind.REQUEST, request_id)
        text = f"request {request_id}: it was answered, and nobody had asked"
        self.expect(self.state.of(Kind.REQUEST, request_id) is not None, text, step)
        answer = write.new
        if request is None or not isinstance(answer, Answer):
            return
        if request.kind is not RequestKind.TRIGGER:
            return
        ids = (request.job, request_id)
        is_made = any(
            made.ids == ids and made.after is not None and made.place in (Kind.RUN, ARCHIVE)
            for made in step.writes
        )
        was_made = ids in self._requested
        if answer.accepted:
            text = f"request {request_id}: it was accepted, and no run of {request.job} began"
            self.expect(is_made or was_made, text, step)
        else:
            text = f"request {request_id}: it was refused, and a run of {request.job} began"
            self.expect(not is_made, text, step)

    def finish(self) -> None:
        for operation in self._operations:
            self._judge(operation)

    def _judge(self, operation: Operation) -> None:
        place = _PLACES[operation.kind]
        seen = [
            effect
            for effect in self._effects.get((place, operation.target), ())
            if effect.does is operation.kind and effect.at_ms >= operation.sent_ms
        ]
        if operation.mark:
            seen = [effect for effect in seen if effect.mark == operation.mark]
        count = len(seen)
        what = f"{operation.kind.value} {operation.target}"
        is_countable = bool(operation.mark) or operation.kind is OperationKind.REQUEST
        match operation.outcome:
            case OperationOutcome.ACKNOWLEDGED if operation.revision:
                at_it = any(effect.revision == operation.revision for effect in seen)
                text = (
                    f"{what} was acknowledged with revision {operation.revision}, where nothing "
                    "of it is"
                )
                self.expect(at_it, text, at_ms=operation.done_ms)
            case OperationOutcome.ACKNOWLEDGED if operation.changes:
                self.expect(
                    count > 0, f"{what} was acknowledged, and is lost", at_ms=operation.done_ms
                )
            case OperationOutcome.FAILED if is_countable:
                text = f"{what} had failed, and took effect {count} times"
                self.expect(count == 0, text, at_ms=operation.done_ms)
            case _:
                pass
        if is_countable and operation.outcome is not OperationOutcome.FAILED:
            text = f"{what} took effect {count} times"
            self.expect(count <= 1, text, at_ms=operation.done_ms)

    def not_judged(self) -> list[str]:
        if Truth.OPERATIONS not in self.court.holds:
            return ["what operators were told isn't recorded; only requests' answers are judged"]
        return []


def _is_regrouped(write: Write, step: Step) -> bool:
    """Who puts a job into a conflict group puts the job's record again as it is."""
    return (
        write.place is Kind.JOB
        and write.before is not None
        and write.after is not None
        and write.before.record == write.after.record
        and any(other.place is Kind.CONFLICT for other in step.writes)
    )


def _read(write: Write) -> tuple[OperationKind | None, str]:
    """Which operation this write can be, and its mark."""
    record: Record | None = write.new
    match write.place, record:
        case Kind.JOB, Job():
            is_deleted = record.current.state is JobState.DELETED
            kind = OperationKind.DELETE if is_deleted else OperationKind.APPLY
            return kind, record.changed_by
        case Kind.PAUSE, Pause():
            if record.active:
                return OperationKind.PAUSE, record.intervals[-1].by
            return OperationKind.RESUME, ""
        case Kind.DRAIN, Drain():
            return OperationKind.DRAIN, record.by
        case Kind.DRAIN, None:
            return OperationKind.UNDRAIN, ""
        case Kind.REQUEST, Request() if write.is_new:
            return OperationKind.REQUEST, record.by
        case _:
            return None, ""
