"""I7: final states never change; no acknowledged outcome is lost or run again."""

from __future__ import annotations

from etcsched.audit.history import Truth
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import ARCHIVE, Step, Write
from etcsched.audit.truth import AttemptId
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Assignment, Kind, Noop, Report, Run
from etcsched.core.states import FINAL, Outcome, RunState

Ids = tuple[str, ...]
MAX_LATE_REPORTS = 8
"""Kept in a run's record."""
MAX_ATTEMPTS = 500
"""Likewise: of one that was tried more often, the first and the newest."""


class Outcomes(Rule):
    invariant = Invariant.I7
    places = frozenset({Kind.RUN, ARCHIVE, Kind.ASSIGNMENT, Kind.REPORT, Kind.LATE_REPORT})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._ended: dict[Ids, Run] = {}
        """Every run that ever was in the archive, as it was last."""
        self._known: set[Ids] = set()
        """Every run that there ever was."""
        self._over: list[tuple[Ids, Report]] = []
        """Reports with outcomes that this revision consumes."""
        self._late: list[tuple[Ids, Report]] = []
        self._silent: set[AttemptId] = set()
        """Attempts without a process."""
        self._untold: dict[Ids, set[int]] = {}
        """Tokens of attempts that a run's record had, and has no more: it has too many."""

    def begun(self) -> None:
        for ids, held in self.state.all_of(ARCHIVE).items():
            self._known.add(ids)
            if isinstance(held.record, Run):
                self._ended[ids] = held.record
        self._known.update(self.state.all_of(Kind.RUN))

    def wrote(self, write: Write, step: Step) -> None:
        after = write.new
        before = write.old
        match write.place:
            case Kind.RUN:
                self._known.add(write.ids)
                if write.after is None:
                    text = f"{'/'.join(write.ids)}: the run vanished without a record of its end"
                    archived = step.of(ARCHIVE, *write.ids)
                    self.expect(archived is not None and archived.after is not None, text, step)
                self._moved(write, step)
            case _ if write.place == ARCHIVE and isinstance(after, Run):
                self._known.add(write.ids)
                self._archived(write, after, step)
            case Kind.ASSIGNMENT if isinstance(after, Assignment):
                self._assigned(after, step)
            case Kind.REPORT if isinstance(before, Report):
                self._reported(write, before, after, step)
            case Kind.LATE_REPORT if isinstance(before, Report) and after is None:
                self._late.append((write.ids[1:3], before))
            case _:
                pass

    def committed(self, step: Step) -> None:
        for ids, report in self._over:
            run = self.state.record(Run, Kind.RUN, *ids) or self.state.record(Run, ARCHIVE, *ids)
            if run is None or report.outcome is None:
                continue
            text = f"{'/'.join(ids)}: the outcome {report.outcome.value} was acknowledged, and lost"
            kept = any(
                attempt.token == report.token and attempt.outcome is report.outcome
                for attempt in run.attempts
            )
            self.expect(kept, text, step)
        for ids, report in self._late:
            run = self.state.record(Run, Kind.RUN, *ids) or self.state.record(Run, ARCHIVE, *ids)
            if run is not None and len(run.late_reports) < MAX_LATE_REPORTS:
                told = (*run.late_reports, *run.attempts)
                text = f"{'/'.join(ids)}: the late outcome of token {report.token} was dropped"
                self.expect(any(a.token == report.token for a in told), text, step)
        self._over.clear()
        self._late.clear()

    def _archived(self, write: Write, run: Run, step: Step) -> None:
        name, ended = "/".join(write.ids), self._ended.get(write.ids)
        if write.before is not None and ended is not None:
            same = (run.state, run.attempts) == (ended.state, ended.attempts)
            text = f"{name}: it had ended {ended.state.value}, and is {run.state.value} now"
            if run.state is ended.state:
                text = f"{name}: what is said of its attempts changed after its end"
            self.expect(same, text, step)
        else:
            self.expect(ended is None, f"{name}: it ended twice", step)
            text = f"{name}: it was archived as {run.state.value}"
            self.expect(run.state in FINAL, text, step)
        self._ended[write.ids] = run

    def _moved(self, write: Write, step: Step) -> None:
        """What was told of an active run's attempts is told still, in its order."""
        archived = step.of(ARCHIVE, *write.ids)
        next_ = write.after or (archived.after if archived is not None else None)
        old = write.old
        new = next_.record if next_ is not None else None
        if not isinstance(old, Run) or not isinstance(new, Run) or not old.attempts:
            return
        before, after = _told(old), _told(new)
        is_kept = after[: len(before)] == before
        if not is_kept and len(after) == MAX_ATTEMPTS:
            known = set(after)
            left_out = [each for each in before if each not in known]
            kept = [before[0], *before[1 + len(left_out) :]]
            is_kept = after[: len(kept)] == kept
            self._untold.setdefault(write.ids, set()).update(token for token, _ in left_out)
        text = f"{'/'.join(write.ids)}: what was told of its attempts is told no more, or otherwise"
        self.expect(is_kept, text, step)

    def _assigned(self, new: Assignment, step: Step) -> None:
        ids = (new.job, new.run)
        if isinstance(new.action, Noop):
            self._silent.add((*ids, step.revision))
        name = "/".join(ids)
        text = f"{name}: it was over, and attempt {new.attempt} began"
        self.expect(ids not in self._ended, text, step)
        run = self.state.record(Run, Kind.RUN, *ids)
        done = run is not None and any(a.outcome is Outcome.COMPLETED for a in run.attempts)
        for agent in self.state.agents_of.get(ids, set()):
            report = self.state.record(Report, Kind.REPORT, agent, *ids)
            done = done or (report is not None and report.outcome is Outcome.COMPLETED)
        text = f"{name}: an attempt had completed, and attempt {new.attempt} began"
        self.expect(not done, text, step)

    def _reported(self, write: Write, before: Report, after: object, step: Step) -> None:
        if before.outcome is None:
            return
        if write.after is None:
            self._over.append((write.ids[1:], before))
            return
        same = isinstance(after, Report) and (after.token, after.outcome) == (
            before.token,
            before.outcome,
        )
        text = f"{'/'.join(write.ids)}: the outcome {before.outcome.value} was overwritten"
        self.expect(same, text, step)

    def finish(self) -> None:
        """The jobs' own words against etcd's."""
        executions = self.court.executions
        since = self.court.began_at_revision
        for ids, its in executions.by_run.items():
            name = "/".join(ids)
            tokens = [execution.token for execution in its if execution.token > since]
            if not tokens:
                continue
            at_ms = its[0].start_ms
            self.expect(ids in self._known, f"{name}: it ran, and isn't in etcd", at_ms=at_ms)
            run = self._ended.get(ids)
            if run is not None:
                known = {attempt.token for attempt in (*run.attempts, *run.late_reports)}
                known |= self._untold.get(ids, set())
                text = f"{name}: it ran with the tokens {tokens}, its record has {sorted(known)}"
                self.expect(set(tokens) <= known, text, at_ms=at_ms)
        for place, run in self._ended.items():
            if run.state is not RunState.COMPLETED or run.job not in executions.speaking:
                continue
            token = run.attempts[-1].token if run.attempts else 0
            if token > since and (run.job, run.id, token) not in self._silent:
                execution = executions.by_attempt.get((run.job, run.id, token))
                ended = execution is not None and execution.end_ms is not None
                text = f"{'/'.join(place)}: etcd says completed, its process never said so"
                self.expect(ended, text)

    def not_judged(self) -> list[str]:
        if Truth.WORDS not in self.court.holds:
            return ["whether processes did what etcd says: no job's own word is recorded"]
        return []


def _told(run: Run) -> list[tuple[int, Outcome]]:
    return [(attempt.token, attempt.outcome) for attempt in run.attempts]
