"""I2: outside of faults a run starts within ε of its tick, and within the recovery bound after."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from etcsched.audit import verdict
from etcsched.audit.history import FaultKind, Truth, Word, WordKind
from etcsched.audit.rules.base import Court, Rule, tick_of
from etcsched.audit.state import ARCHIVE, Step, Write
from etcsched.audit.truth import Execution
from etcsched.audit.verdict import Invariant
from etcsched.core.records import CLUSTER, Calendar, Job, Kind, Pause, Record, Report, Run
from etcsched.core.states import Origin, RunState
from etcsched.core.times import ms_of, utc_of

BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)
WRONG_CLOCK = frozenset({FaultKind.CLOCK})

Place = tuple[str, ...]


class _Awaited(msgspec.Struct):
    """A run that was assigned as soon as it was due: the start of this attempt is awaited."""

    token: int
    tick_ms: int
    term_since_ms: int
    claimed_ms: int | None = None


class _Suspect(msgspec.Struct, frozen=True):
    """Too late, or too early, unless a fault explains it; those may be told afterwards."""

    name: str
    what: str
    tick_ms: int
    at_ms: int
    term_since_ms: int


class Lateness(Rule):
    """Judged are runs that had nothing to wait for but the scheduler and the agent: assigned when
    created, to the first attempt's start. Of the others, that they were created in time.

    Starts are the processes' own words; of jobs that don't speak, the claims.
    """

    invariant = Invariant.I2
    places = frozenset(
        {Kind.RUN, ARCHIVE, Kind.REPORT, Kind.ASSIGNMENT, Kind.JOB, Kind.PAUSE, Kind.CALENDAR}
    )

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._awaited: dict[Place, _Awaited] = {}
        self._suspects: list[_Suspect] = []
        self._delays: dict[tuple[str, str, float], int] = {}
        self._edits: dict[str, tuple[int, int]] = {}
        """By job, or ``CLUSTER`` for those of several: from when on the last edit holds, and when
        it was committed. An operator's clock may be behind."""
        self._counts = [0] * (len(BUCKETS_MS) + 1)
        self._worst: tuple[int, str] | None = None

    def wrote(self, write: Write, step: Step) -> None:
        if write.place in (Kind.JOB, Kind.PAUSE, Kind.CALENDAR):
            self._edited(write, step)
        elif write.place is Kind.REPORT:
            awaited = self._awaited.get(write.ids[1:])
            if write.is_new and awaited is not None and awaited.claimed_ms is None:
                self._claimed(write, awaited, step)
        elif write.place is Kind.ASSIGNMENT:
            self._not_before(write, step)
            if write.before is not None:  # Moved, or over before it started.
                awaited = self._awaited.get(write.ids[1:])
                if awaited is not None and awaited.claimed_ms is None:
                    del self._awaited[write.ids[1:]]
        elif (run := self.birth(write)) is not None:
            self._splayed(run, step)
            tick_ms = tick_of(run)
            is_in_outage = (
                run.origin is Origin.RECOVERY
                or run.state is RunState.MISSED
                or self.state.of(Kind.GAP, run.job) is not None
                or step.of(Kind.GAP, run.job) is not None
            )
            if tick_ms is None or is_in_outage or not step.at_ms:
                return
            name, since_ms = "/".join(write.ids), self.state.term_since_ms
            if run.state is RunState.ASSIGNED:
                # Where its job has a splay, it is due a little after its tick.
                due_ms = self._due_ms(run.job, ms_of(run.starts_at))
                self._awaited[write.ids] = _Awaited(step.revision, due_ms, since_ms)
            else:
                due_ms = self._due_ms(run.job, tick_ms)
                self._judge(name, "was decided", due_ms, step.at_ms, since_ms)

    def _edited(self, write: Write, step: Step) -> None:
        before = write.old
        after = write.new
        since_ms, before_ms = _since_ms(after), _since_ms(before)
        if since_ms is None and isinstance(after, Pause):
            # It is over, by a clock that is behind, for so long that nothing of it is left.
            since_ms, before_ms = before_ms, None
        if since_ms is not None and since_ms != before_ms:
            name = write.ids[0] if write.place is not Kind.CALENDAR else CLUSTER
            self._edits[name] = since_ms, step.at_ms

    def _due_ms(self, job: str, tick_ms: int) -> int:
        """Nobody could decide it before the edit was there that made it due."""
        for name in (job, CLUSTER):
            since_ms, edited_ms = self._edits.get(name, (0, 0))
            if since_ms <= tick_ms < edited_ms:
                tick_ms = edited_ms
        return tick_ms

    def _not_before(self, write: Write, step: Step) -> None:
        """A splay delays a run's first assignment."""
        held = step.of(Kind.RUN, *write.ids[1:])
        run = held.new if held is not None else None
        if write.after is None or not isinstance(run, Run) or run.not_before is None:
            return
        if run.attempt == 1 and step.at_ms:
            due_ms, name = ms_of(run.not_before), "/".join(write.ids[1:])
            if step.at_ms < due_ms - self.bounds.early_ms:
                since_ms = self.state.term_since_ms
                self._suspects.append(_Suspect(name, "was assigned", due_ms, step.at_ms, since_ms))
            else:
                self.court.checked[self.invariant] += 1

    def _splayed(self, run: Run, step: Step) -> None:
        """A splay delays by no more than it says, and a job (on a host) always by the same. T1
        compares the job, so its definition is the one that the run is by."""
        held = self.state.of(Kind.JOB, run.job)
        if run.not_before is None or run.scheduled_at is None or held is None:
            return
        if not isinstance(held.record, Job):
            return
        name, splay_ms = f"{run.job}/{run.id}", held.record.splay_s * 1000
        delay_ms = ms_of(run.not_before) - ms_of(run.scheduled_at)
        self.expect(delay_ms <= splay_ms, f"{name}: delayed by more than its splay", step)
        host = run.id[len("20261122T120000Z") :]
        usual_ms = self._delays.setdefault((run.job, host, splay_ms), delay_ms)
        self.expect(delay_ms == usual_ms, f"{name}: delayed by another time than before", step)

    def said(self, word: Word, execution: Execution) -> None:
        awaited = self._awaited.get((word.job, word.run))
        if awaited is not None and word.kind is WordKind.START:
            del self._awaited[word.job, word.run]
            if word.token != awaited.token:
                return  # The attempt that was awaited is over, and no process of it began.
            self._started((word.job, word.run), awaited, word.at_ms)

    def _claimed(self, write: Write, awaited: _Awaited, step: Step) -> None:
        report = write.new
        if not isinstance(report, Report):
            return
        awaited.claimed_ms = step.at_ms
        if Truth.WORDS not in self.court.holds:
            del self._awaited[write.ids[1:]]
            self._started(write.ids[1:], awaited, step.at_ms)

    def _started(self, ids: Place, awaited: _Awaited, at_ms: int) -> None:
        name, tick_ms = "/".join(ids), awaited.tick_ms
        is_in_time = self._judge(name, "started", tick_ms, at_ms, awaited.term_since_ms)
        if is_in_time:
            self._count(name, at_ms - tick_ms)

    def _count(self, name: str, late_ms: int) -> None:
        self._counts[bisect_left(BUCKETS_MS, late_ms)] += 1
        if self._worst is None or late_ms > self._worst[0]:
            self._worst = late_ms, name

    def _judge(self, name: str, what: str, tick_ms: int, at_ms: int, term_since_ms: int) -> bool:
        """Whether it was in time; else it is judged in the end."""
        is_in_time = -self.bounds.early_ms <= at_ms - tick_ms <= self.bounds.lateness_ms
        if is_in_time:
            self.court.checked[self.invariant] += 1
        else:
            self._suspects.append(_Suspect(name, what, tick_ms, at_ms, term_since_ms))
        return is_in_time

    def finish(self) -> None:
        for ids, awaited in list(self._awaited.items()):
            if awaited.claimed_ms is not None and ids[0] not in self.court.executions.speaking:
                self._started(ids, awaited, awaited.claimed_ms)
        for suspect in self._suspects:
            self._sentence(suspect)

    def _sentence(self, suspect: _Suspect) -> None:
        late_ms = suspect.at_ms - suspect.tick_ms
        due = "its splay's end" if suspect.what == "was assigned" else "its tick"
        text = f"{suspect.name} {suspect.what} {_span(late_ms)} {due} {utc_of(suspect.tick_ms)}"
        heals_ms = self._heals_of(suspect)
        if heals_ms and late_ms >= 0:
            latest_ms = max(suspect.tick_ms, *heals_ms) + self.bounds.recovery_ms
            since_ms = suspect.at_ms - latest_ms + self.bounds.recovery_ms
            text += f", {since_ms} ms after the last heal"
            self.expect(suspect.at_ms <= latest_ms, text, at_ms=suspect.at_ms)
        elif not heals_ms:
            if suspect.what == "started":
                self._count(suspect.name, late_ms)
            self.expect(False, f"{text}, and no fault is recorded", at_ms=suspect.at_ms)

    def _heals_of(self, suspect: _Suspect) -> list[int]:
        """When each fault that may be the reason was over; one that lasts is over at the moment
        judged. Only a wrong clock makes anything early, however far ahead it was."""
        at_ms, recovery_ms = suspect.at_ms, self.bounds.recovery_ms
        if at_ms < suspect.tick_ms:
            faults = self.court.faults.overlapping(at_ms - recovery_ms, at_ms, WRONG_CLOCK)
        else:
            faults = self.court.faults.overlapping(suspect.tick_ms - recovery_ms, at_ms)
        heals_ms = [at_ms if fault.until_ms is None else fault.until_ms for fault in faults]
        if suspect.tick_ms < suspect.term_since_ms:
            heals_ms.append(suspect.term_since_ms)
        return heals_ms

    def histogram(self) -> verdict.Lateness:
        worst_ms, worst_run = self._worst or (None, "")
        return verdict.Lateness(
            up_to_ms=BUCKETS_MS,
            counts=tuple(self._counts),
            worst_ms=worst_ms,
            worst_run=worst_run,
        )

    def not_judged(self) -> list[str]:
        if Truth.WORDS not in self.court.holds:
            return ["starts are the agents' claims: no job's own word is recorded"]
        return []


def _since_ms(record: Record | None) -> int | None:
    """From when on the last change in it holds."""
    match record:
        case Job() | Calendar():
            return ms_of(record.versions[-1].since)
        case Pause():
            edges = [edge for each in record.intervals for edge in (each.since, each.until)]
            return max((ms_of(edge) for edge in edges if edge is not None), default=None)
        case _:
            return None


def _span(late_ms: int) -> str:
    return f"{late_ms} ms after" if late_ms >= 0 else f"{-late_ms} ms before"
