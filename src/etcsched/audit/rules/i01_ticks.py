"""I1: expected ticks map one to one to runs or explicit records."""

from __future__ import annotations

from collections import defaultdict

from etcsched.audit.history import Quiet
from etcsched.audit.rules.base import Court, Rule, tick_of
from etcsched.audit.state import ARCHIVE, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import (
    Calendar,
    FanOut,
    Gap,
    Job,
    Kind,
    Pause,
    Run,
    Watermark,
    fan_out_in,
    host_in,
)
from etcsched.core.times import ms_of, utc_of

_TIDY_ABOVE = 256


class Ticks(Rule):
    """A tick is expected once the watermark passes it. By then it must be a run or a record (of a
    job that runs on each agent: a fan-out, which then becomes a run for each agent that it names),
    unless its job has an open gap that says it isn't decided yet: then it is owed."""

    invariant = Invariant.I1
    places = frozenset(
        {
            Kind.RUN, ARCHIVE, Kind.WATERMARK, Kind.JOB, Kind.PAUSE, Kind.CALENDAR,
            Kind.FAN_OUT,
        }
    )  # fmt: skip

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._definitions = court.definitions
        self._born: set[tuple[str, ...]] = set()
        self._decided: dict[str, set[int]] = defaultdict(set)
        """Ticks that are decided and not yet expected."""
        self._owed: dict[str, set[int]] = defaultdict(set)
        self._unknown: set[str] = set()

    def begun(self) -> None:
        through_ms = self._definitions.through_ms
        for place in (Kind.RUN, ARCHIVE):
            for ids, held in self.state.all_of(place).items():
                self._born.add(ids)
                if isinstance(held.record, Run):
                    self._decide(held.record.job, self._ticks_of(held.record))
        for held in self.state.all_of(Kind.FAN_OUT).values():
            if isinstance(held.record, FanOut):
                self._decide(held.record.job, [ms_of(held.record.scheduled_at)])
        for (job,), held in self.state.all_of(Kind.GAP).items():
            if isinstance(held.record, Gap) and not held.record.closed:
                after_ms = ms_of(held.record.decided_through)
                owed = set(self._definitions.due(job, after_ms, through_ms))
                self._owed[job] = owed - self._decided[job]

    def wrote(self, write: Write, step: Step) -> None:
        match write.place:
            case Kind.WATERMARK:
                self._watermark_moved(write, step)
            case Kind.JOB | Kind.PAUSE | Kind.CALENDAR:
                self._defined(write, step)
            case Kind.FAN_OUT:
                self._fanned_out(write, step)
            case _ if (run := self.birth(write)) is not None:
                name = "/".join(write.ids)
                is_first = write.ids not in self._born
                self.expect(is_first, f"{name}: the run was created twice", step)
                self._born.add(write.ids)
                if is_first:
                    self._created(run, step)
            case _ if write.place == ARCHIVE and write.after is None:
                self._forgotten(write, step)
            case _:
                pass

    def committed(self, step: Step) -> None:
        if step.of(Kind.WATERMARK) is not None:
            for job, tick_ms in self._definitions.pass_to(self.state.through_ms):
                self._expected(job, tick_ms, step)
        for write in step.writes:
            if write.place is Kind.GAP:
                self._gap_moved(write, step)

    def quieted(self, quiet: Quiet) -> None:
        for job, owed in self._owed.items():
            for tick_ms in sorted(owed):
                text = f"{job}, due {utc_of(tick_ms)}: its outage is over, and it isn't decided"
                self.expect(False, text, at_ms=quiet.at_ms)
        through_ms = quiet.at_ms - self.bounds.recovery_ms
        for job, tick_ms in self._definitions.pass_to(through_ms):
            is_decided = tick_ms in self._decided[job] or self._is_in_gap(job, tick_ms)
            text = f"{job}, due {utc_of(tick_ms)}: the end came, and it isn't decided"
            self.expect(is_decided, text, at_ms=quiet.at_ms)

    def not_judged(self) -> list[str]:
        return [f"{job}: it can't judge {what} yet" for job, what in sorted(self._all_unknown())]

    def _all_unknown(self) -> set[tuple[str, str]]:
        return {(job, self._definitions.unknown(job)) for job in self._unknown}

    # --- one change

    def _watermark_moved(self, write: Write, step: Step) -> None:
        before = write.old
        after = write.new
        if isinstance(before, Watermark):
            grows = isinstance(after, Watermark) and after.through > before.through
            text = f"the watermark went from {before.through} back"
            if isinstance(after, Watermark):
                text += f" to {after.through}"
            self.expect(grows, text, step)

    def _defined(self, write: Write, step: Step) -> None:
        (name,) = write.ids
        record = write.new
        problem = None
        match write.place, record:
            case Kind.JOB, Job():
                problem = self._definitions.job_put(record)
                if self._definitions.unknown(name):
                    self._unknown.add(name)
            case Kind.JOB, _:
                self._definitions.job_gone(name)
                self._owed.pop(name, None)
            case Kind.CALENDAR, Calendar():
                problem = self._definitions.calendar_put(record)
            case Kind.CALENDAR, _:
                self._definitions.calendar_gone(name)
            case Kind.PAUSE, Pause():
                problem = self._definitions.pause_put(name, record)
            case Kind.PAUSE, _:
                self._definitions.pause_gone(name)
            case _:
                pass
        self.expect(problem is None, f"{name}: {problem}", step)

    def _created(self, run: Run, step: Step) -> None:
        tick_ms = tick_of(run)
        if tick_ms is None or self._definitions.unknown(run.job):
            return
        name = f"{run.job}/{run.id}"
        if (host := host_in(run.id)) != "":
            fan_out = self.state.record(FanOut, Kind.FAN_OUT, run.job, fan_out_in(run.id))
            is_named = fan_out is not None and host in fan_out.agents
            self.expect(is_named, f"{name}: no fan-out of its tick names {host}", step)
            return
        ticks = self._ticks_of(run)
        if run.missed_count > 1:
            text = f"{name} records {run.missed_count} missed ticks, due were {len(ticks)}"
            self.expect(len(ticks) == run.missed_count, text, step)
        else:
            self.expect(self._definitions.is_due(run.job, tick_ms), f"{name}: wasn't due", step)
        self._decided_now(run.job, ticks, name, step)

    def _fanned_out(self, write: Write, step: Step) -> None:
        name = "/".join(write.ids)
        before = write.old
        after = write.new
        if isinstance(after, FanOut) and write.is_new:
            tick_ms = ms_of(after.scheduled_at)
            is_due = self._definitions.is_due(after.job, tick_ms)
            self.expect(is_due, f"{name}: it is fanned out, and wasn't due", step)
            text = f"{name}: it is fanned out for nobody, and so leaves no run and no record"
            self.expect(bool(after.agents), text, step)
            self._decided_now(after.job, [tick_ms], name, step)
        elif isinstance(before, FanOut) and self.state.of(Kind.JOB, before.job) is not None:
            for agent in before.agents:
                is_born = (before.job, f"{before.run}@{agent}") in self._born
                text = f"{name}: its fan-out is gone, and there was no run on {agent}"
                self.expect(is_born, text, step)

    def _decided_now(self, job: str, ticks: list[int], name: str, step: Step) -> None:
        for tick in self._decide(job, ticks)[:1]:
            self.expect(False, f"{name}: {job}'s tick {utc_of(tick)} is decided twice", step)

    def _decide(self, job: str, ticks: list[int]) -> list[int]:
        """Those that were decided before."""
        owed, decided = self._owed[job], self._decided[job]
        twice = []
        for tick_ms in ticks:
            if tick_ms in owed:
                owed.discard(tick_ms)
            elif tick_ms > self._definitions.through_ms and tick_ms not in decided:
                decided.add(tick_ms)
            else:
                twice.append(tick_ms)
        if len(decided) > _TIDY_ABOVE:
            through_ms = self._definitions.through_ms
            self._decided[job] = {tick for tick in decided if tick > through_ms}
        return twice

    def _ticks_of(self, run: Run) -> list[int]:
        tick_ms = tick_of(run)
        if tick_ms is None or host_in(run.id):
            return []
        if run.missed_through is None:
            return [tick_ms]
        return list(self._definitions.due(run.job, tick_ms - 1, ms_of(run.missed_through)))

    def _expected(self, job: str, tick_ms: int, step: Step) -> None:
        decided = self._decided[job]
        if tick_ms in decided:
            decided.discard(tick_ms)
            self.court.checked[self.invariant] += 1
        elif self._is_in_gap(job, tick_ms):
            self._owed[job].add(tick_ms)
        else:
            text = f"{job}, due {utc_of(tick_ms)}: lost; the watermark passed it undecided"
            self.expect(False, text, step)

    def _is_in_gap(self, job: str, tick_ms: int) -> bool:
        gap = self.state.record(Gap, Kind.GAP, job)
        return gap is not None and not gap.closed and tick_ms > ms_of(gap.decided_through)

    def _gap_moved(self, write: Write, step: Step) -> None:
        (job,) = write.ids
        owed = self._owed.get(job, set())
        for tick_ms in sorted(tick for tick in owed if not self._is_in_gap(job, tick)):
            owed.discard(tick_ms)
            text = f"{job}, due {utc_of(tick_ms)}: lost; its gap passed it undecided"
            self.expect(False, text, step)
        before = write.old
        after = write.new
        if not isinstance(before, Gap) or not isinstance(after, Gap):
            return
        text = f"{job}: its gap's account went from {before.decided_through} back"
        text += f" to {after.decided_through}"
        self.expect(after.decided_through >= before.decided_through, text, step)
        stands = not (before.closed or after.closed)
        stands = stands and after.decided_through == before.decided_through
        stands = stands and after.reason == before.reason
        self.expect(not stands, f"{job}: its gap is written again, as it was", step)

    def _forgotten(self, write: Write, step: Step) -> None:
        before = write.old
        tick_ms = tick_of(before) if isinstance(before, Run) else None
        if tick_ms is not None:
            text = f"{'/'.join(write.ids)}: forgotten before the watermark passed its tick"
            self.expect(tick_ms <= self.state.through_ms, text, step)
