"""I7: what an outage took is followed once, whoever decides it, and in however many records."""

from __future__ import annotations

from etcsched.audit.history import FaultKind
from etcsched.audit.rules.base import Court, Rule, tick_of
from etcsched.audit.state import ARCHIVE, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Gap, Job, Kind, Link, Run, host_in, params_bytes
from etcsched.core.states import JobState, RunState
from etcsched.core.times import ms_of

SURELY_FITS_BYTES = 8 << 10
"""Parameters beyond what a run may have keep it from beginning."""
_ON = (JobState.ENABLED, JobState.CHAIN_ACTIVE)
_HANDS = frozenset({FaultKind.BY_HAND})


class MissedTicks(Rule):
    """A record of missed ticks whose job names them in its chain begins what follows them, unless
    the ticks right before them have such a record, too, and the outage of both wasn't over in
    between: its gap was open all the while, and the job was due at no other time."""

    invariant = Invariant.I7
    places = frozenset({ARCHIVE, Kind.GAP})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._followed: dict[str, tuple[int, frozenset[str]]] = {}
        """By job, the last of the missed ticks that its open gap ends with, and the targets that
        were asked for them."""
        self._unsure: set[str] = set()
        """Jobs with an outage that began before the history."""

    def begun(self) -> None:
        for (job,), held in self.state.all_of(Kind.GAP).items():
            if not isinstance(held.record, Gap) or not held.record.closed:
                self._unsure.add(job)

    def wrote(self, write: Write, step: Step) -> None:
        run = self.birth(write) if write.place is ARCHIVE else None
        if run is not None and run.state is RunState.MISSED and not host_in(run.id):
            tick_ms = tick_of(run)
            if tick_ms is not None and not self.court.definitions.unknown(run.job):
                self._recorded(run, tick_ms, step)

    def committed(self, step: Step) -> None:
        for write in step.writes:
            if write.place is Kind.GAP and not _is_open(write.new):
                self._followed.pop(write.ids[0], None)
                self._unsure.discard(write.ids[0])

    def _recorded(self, run: Run, tick_ms: int, step: Step) -> None:
        before = self._followed.pop(run.job, None)
        job = self.state.record(Job, Kind.JOB, run.job)
        if job is None or job.current.state is JobState.DELETED:
            return
        links = [link for link in job.chain if RunState.MISSED in link.on]
        gap = step.of(Kind.GAP, run.job)
        is_row = before is not None and self._goes_on(run.job, before[0], tick_ms)
        asked = before[1] if before is not None and is_row else frozenset[str]()
        targets = frozenset(link.to for link in links)
        if links and gap is not None and _is_open(gap.new):
            last_ms = ms_of(run.missed_through) if run.missed_through is not None else tick_ms
            self._followed[run.job] = (last_ms, asked | targets)
        name, told = f"{run.job}/{run.id}", {follow.job for follow in run.followed_by}
        text = f"{name}: missed, and nobody asked what follows"
        self.expect(targets <= told, text, step)
        if run.job in self._unsure:
            return
        begun = {follow.job for follow in run.followed_by if follow.run}
        if is_row:
            text = f"{name}: missed in a row with others that were followed, and followed again"
            self.expect(not begun & asked, text, step)
        for link in links:
            if link.to not in asked and self._surely_goes_on(job, run, link, step):
                text = f"{name}: missed, and {link.to}, which follows that, didn't begin"
                self.expect(link.to in begun, text, step)

    def _goes_on(self, job: str, before_ms: int, tick_ms: int) -> bool:
        gap = self.state.record(Gap, Kind.GAP, job)
        due = self.court.definitions.due(job, before_ms, tick_ms - 1)
        return gap is not None and not gap.closed and next(iter(due), None) is None

    def _surely_goes_on(self, job: Job, run: Run, link: Link, step: Step) -> bool:
        """Nothing in the link, its target or the parameters can keep it from beginning, and no hand
        or backup has made a run of that id."""
        target = self.state.record(Job, Kind.JOB, link.to)
        if target is None or target.current.windows or target.current.state not in _ON:
            return False
        params = {**target.params, **job.params, **run.params}
        is_free = not (link.when or link.within or link.joins)
        by_hand = self.court.faults.overlapping(0, step.at_ms, _HANDS)
        return is_free and not by_hand and params_bytes(params) <= SURELY_FITS_BYTES


def _is_open(record: object) -> bool:
    return isinstance(record, Gap) and not record.closed
