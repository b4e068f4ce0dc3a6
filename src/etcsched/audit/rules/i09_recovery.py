"""I9: missed ticks follow the job's recovery mode exactly."""

from __future__ import annotations

from itertools import pairwise

import msgspec

from etcsched.audit.eligibility import ELIGIBILITY, eligible_for
from etcsched.audit.history import FaultKind
from etcsched.audit.rules.base import Court, Rule, tick_of
from etcsched.audit.state import ARCHIVE, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import FanOut, Gap, Job, Kind, Run, host_in
from etcsched.core.states import JobState, Origin, Recovery, RunState
from etcsched.core.times import ms_of, utc_of

_DECIDES = ("recovery", "catch_up_limit", "recover_within_s", "pickup_buffer_s", "splay_s")
"""Fields of a job by which an outage's ticks are decided."""
_CLOCKS = frozenset({FaultKind.CLOCK})
_REFUSALS = frozenset({FaultKind.ETCD, FaultKind.OTHER})
"""What may make etcd take no write about a job."""


class _Outage(msgspec.Struct):
    """What an outage's end has decided so far: ticks that run although they were missed, ticks
    that are recorded as missed (first, last, count), and when that began. ``redefined``: since
    then, so that the job as it is now doesn't say what was right for all of them. ``past_ms``: the
    latest tick since then that was decided in the ordinary way. ``terms``: of those who decided;
    one that took over before there was an account of it may have seen another outage behind it.
    ``taken_up_ms``: when the last of them began.
    ``parted``: how many were chosen whenever the agents went before all were decided: what was left
    is of the outage that began then, which has a limit of its own. ``is_deserted``: they are away;
    ``was_deserted``: or were, since it was decided or parted last."""

    began_ms: int
    terms: set[int] = set()
    taken_up_ms: int = 0
    past_ms: int = 0
    redefined: bool = False
    could_start: bool = True
    chosen: list[int] = []
    parted: list[int] = []
    is_deserted: bool = False
    was_deserted: bool = False
    missed: list[tuple[int, int, int]] = []

    def decided_by(self, term: int, at_ms: int) -> None:
        if term not in self.terms:
            self.terms.add(term)
            self.taken_up_ms = at_ms

    def part(self) -> None:
        self.parted.append(len(self.chosen))
        self.was_deserted = self.is_deserted

    def counts(self) -> list[int]:
        """How many were chosen of each outage that it was parted into."""
        return [end - begin for begin, end in pairwise([0, *self.parted, len(self.chosen)])]


class Recoveries(Rule):
    """An outage is judged when its job's gap is closed, or when a later one begins: one that left
    only ticks that were decided one by one has no gap. A later one begins with a gap of its own, or
    with a missed tick after one that was decided in the ordinary way. When exactly the leader
    looked at the clock isn't known, so ticks near the edges of ``pickup_buffer`` and
    ``recover_within``, by the recovery bound, may go either way."""

    invariant = Invariant.I9
    places = frozenset({Kind.RUN, ARCHIVE, Kind.GAP, Kind.ASSIGNMENT, Kind.JOB, Kind.FAN_OUT})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._outages: dict[str, _Outage] = {}
        self._latest_run_ms: dict[str, int] = {}
        """Of each job, the latest tick that became a run that may run."""

    def begun(self) -> None:
        for place in (Kind.RUN, ARCHIVE):
            for held in self.state.all_of(place).values():
                if isinstance(held.record, Run):
                    self._remember(held.record)

    def wrote(self, write: Write, step: Step) -> None:
        run = self.birth(write) if write.place in (Kind.RUN, ARCHIVE) else None
        if run is not None and not host_in(run.id):
            self._born(run, step)
        elif write.place is Kind.FAN_OUT and write.is_new:
            self._fanned_out(write, step)
        elif write.place is Kind.JOB and (outage := self._outages.get(write.ids[0])) is not None:
            outage.redefined = outage.redefined or _is_other_mode(write)
        elif write.place is Kind.ASSIGNMENT and write.after is not None:
            self._alone(write, step)

    def committed(self, step: Step) -> None:
        if self._outages and any(write.place in ELIGIBILITY for write in step.writes):
            self._look_for_agents()
        for write in step.writes:
            gap = write.new
            if write.place is not Kind.GAP or not isinstance(gap, Gap):
                continue
            if _begins(write) and not gap.closed and not _decides(step, gap.job):
                self._gap_opened(gap.job, step)
            if gap.closed or (_begins(write) and self._is_another(gap)):
                outage = self._outages.pop(gap.job, None)
                job = self.state.record(Job, Kind.JOB, gap.job)
                if outage is not None and job is not None:
                    self._judge(job, outage, step)

    def _look_for_agents(self) -> None:
        """Where the gap is open already, an outage ends with who could run its ticks, wherever its
        account is, and what is left is planned anew when somebody comes. What is committed
        meanwhile was planned before."""
        for name, outage in self._outages.items():
            was_deserted, outage.is_deserted = outage.is_deserted, self._is_deserted(name)
            outage.was_deserted = outage.was_deserted or outage.is_deserted
            gap = self.state.record(Gap, Kind.GAP, name)
            is_open = gap is not None and not gap.closed
            if is_open and was_deserted and not outage.is_deserted:
                outage.part()

    def _is_deserted(self, name: str) -> bool:
        job = self.state.record(Job, Kind.JOB, name)
        return job is not None and next(eligible_for(self.state, job), None) is None

    def _gap_opened(self, name: str, step: Step) -> None:
        """They went, perhaps for a moment; or etcd takes no write about the job."""
        outage = self._outages.get(name)
        if outage is None:
            return
        span_ms = self.bounds.recovery_ms
        if outage.was_deserted or self.court.faults.overlapping(
            step.at_ms - span_ms, step.at_ms, _REFUSALS
        ):
            outage.part()

    def _is_another(self, gap: Gap) -> bool:
        """Whether an open gap is of a later outage than the one whose ticks were decided last: what
        was due when the last leader began to decide that was decided before."""
        outage = self._outages.get(gap.job)
        if outage is None:
            return False
        through_ms = ms_of(gap.decided_through)
        due = self.court.definitions.due(gap.job, through_ms, outage.taken_up_ms)
        return next(due, None) is None

    # --- one change

    def _remember(self, run: Run) -> None:
        tick_ms = tick_of(run)
        if tick_ms is not None and run.state is not RunState.MISSED:
            self._latest_run_ms[run.job] = max(tick_ms, self._latest_run_ms.get(run.job, 0))

    def _born(self, run: Run, step: Step) -> None:
        tick_ms = tick_of(run)
        job = self.state.record(Job, Kind.JOB, run.job)
        if tick_ms is None or job is None:
            return
        self._remember(run)
        if run.state is RunState.MISSED or run.origin is Origin.RECOVERY:
            outage = self._outage_of(job, tick_ms, step)
            outage.decided_by(run.history[-1].term if run.history else 0, step.at_ms)
            if run.origin is Origin.RECOVERY:
                outage.chosen.append(tick_ms)
            else:
                last_ms = ms_of(run.missed_through) if run.missed_through is not None else tick_ms
                if step.at_ms < last_ms <= self.state.through_ms:
                    return  # The watermark is ahead of time, and so no mode makes it run.
                outage.missed.append((tick_ms, last_ms, max(1, run.missed_count)))
                outage.could_start = outage.could_start and self._can_start(job, step.at_ms)
            return
        self._passed(job, tick_ms)
        if run.state is not RunState.OVERLAPPED:
            self._judge_lateness(job, f"{run.job}/{run.id}", tick_ms, step)

    def _fanned_out(self, write: Write, step: Step) -> None:
        """The decision on a tick of a job that runs on each agent."""
        fan_out = write.new
        if not isinstance(fan_out, FanOut):
            return
        job = self.state.record(Job, Kind.JOB, fan_out.job)
        tick_ms = ms_of(fan_out.scheduled_at)
        self._latest_run_ms[fan_out.job] = max(tick_ms, self._latest_run_ms.get(fan_out.job, 0))
        if fan_out.origin is Origin.RECOVERY:
            if job is not None:
                outage = self._outage_of(job, tick_ms, step)
                outage.decided_by(fan_out.term, step.at_ms)
                outage.chosen.append(tick_ms)
        elif job is not None:
            self._passed(job, tick_ms)
            self._judge_lateness(job, f"{fan_out.job}/{fan_out.run}", tick_ms, step)

    def _outage_of(self, job: Job, tick_ms: int, step: Step) -> _Outage:
        """The one that this missed tick belongs to."""
        before = self._outages.get(job.name)
        if before is not None and 0 < before.past_ms < tick_ms:
            del self._outages[job.name]
            self._judge(job, before, step)
        outage = self._outages.get(job.name)
        if outage is None:
            outage = self._outages[job.name] = _Outage(began_ms=step.at_ms)
            outage.is_deserted = outage.was_deserted = self._is_deserted(job.name)
        return outage

    def _passed(self, job: Job, tick_ms: int) -> None:
        outage = self._outages.get(job.name)
        if outage is not None:
            outage.past_ms = max(outage.past_ms, tick_ms)

    def _judge_lateness(self, job: Job, name: str, tick_ms: int, step: Step) -> None:
        if not self._knows_the_time(step.at_ms):
            return
        late_ms = step.at_ms - tick_ms
        most_ms = int((job.pickup_buffer_s + job.splay_s) * 1000) + self.bounds.recovery_ms
        text = (
            f"{name}: {late_ms // 1000} s late, beyond its pickup buffer, and it runs as if it "
            "weren't"
        )
        self.expect(late_ms <= most_ms, text, step)

    def _alone(self, write: Write, step: Step) -> None:
        """Runs that catch up go one at a time, oldest first; those that are bound to an agent,
        each agent's."""
        _, job, run_id = write.ids
        run = self.state.record(Run, Kind.RUN, job, run_id)
        if run is None or run.origin is not Origin.RECOVERY:
            return
        for other_id in self.state.runs_of.get(job, set()) - {run_id}:
            if host_in(other_id) != host_in(run_id):
                continue
            other = self.state.record(Run, Kind.RUN, job, other_id)
            if other is None or other.origin is not Origin.RECOVERY:
                continue
            text = f"{job}/{run_id}: it catches up while {job}/{other_id}, which does too, runs"
            self.expect(other.state is not RunState.ASSIGNED, text, step)
            is_older = other.state is RunState.QUEUED and other_id < run_id
            text = f"{job}/{run_id}: it catches up before {job}/{other_id}, which is older"
            self.expect(not is_older, text, step)

    # --- one outage

    def _judge(self, job: Job, outage: _Outage, step: Step) -> None:
        if outage.redefined or not self._knows_the_time(step.at_ms):
            return
        if self.court.definitions.unknown(job.name):
            return
        chosen = sorted(outage.chosen)
        may_run = outage.could_start and self._can_start(job, step.at_ms)
        match job.recovery:
            case Recovery.LAST:
                for count in outage.counts():
                    text = f"{job.name}: recovery last, and {count} missed ticks run"
                    self.expect(count <= len(outage.terms), text, step)
                if may_run:
                    self._judge_last(job, outage, step)
            case Recovery.ALL:
                limit = job.catch_up_limit
                for count in outage.counts():
                    text = f"{job.name}: {count} missed ticks run, the limit is {limit}"
                    self.expect(count <= limit * len(outage.terms), text, step)
                if may_run:
                    self._judge_all(job, outage, step)
            case mode:
                text = f"{job.name}: recovery {mode.value}, and {len(chosen)} missed ticks run"
                self.expect(not chosen, text, step)
        oldest_ms = outage.began_ms - int(job.recover_within_s * 1000) - self.bounds.recovery_ms
        for tick_ms in chosen[:1]:
            text = f"{job.name}, due {utc_of(tick_ms)}: it runs, older than recover_within"
            self.expect(tick_ms >= oldest_ms, text, step)

    def _judge_last(self, job: Job, outage: _Outage, step: Step) -> None:
        """The latest tick of the outage has a run, whether late or chosen, and no other missed
        one has."""
        if not outage.missed:
            return
        last_missed_ms = max(last for _, last, _ in outage.missed)
        is_recent = last_missed_ms >= step.at_ms - int(job.recover_within_s * 1000)
        latest_run_ms = self._latest_run_ms.get(job.name, 0)
        if is_recent:
            text = f"{job.name}, due {utc_of(last_missed_ms)}: the last one missed, and none runs"
            self.expect(latest_run_ms > last_missed_ms, text, step)

    def _judge_all(self, job: Job, outage: _Outage, step: Step) -> None:
        """Missed for good are only those beyond the limit, the oldest, and the too old ones. What
        an earlier leader chose, before it died, stays chosen."""
        recent_ms = step.at_ms - int(job.recover_within_s * 1000)
        recent = [last for _, last, _ in outage.missed if last >= recent_ms]
        if not recent:
            return
        newest_ms = max(recent)
        text = (
            f"{job.name}, due {utc_of(newest_ms)}: recovery all, and it doesn't run, though "
            f"{len(outage.chosen)} of at most {job.catch_up_limit} do"
        )
        self.expect(len(outage.chosen) >= job.catch_up_limit, text, step)
        for tick_ms in sorted(outage.chosen)[-job.catch_up_limit :][:1]:
            text = f"{job.name}, due {utc_of(newest_ms)}: it doesn't run, and an older one does"
            self.expect(tick_ms > newest_ms, text, step)

    def _can_start(self, job: Job, at_ms: int) -> bool:
        """For sure: no window of it opens or closes about now."""
        span_ms, version = self.bounds.recovery_ms, job.current
        edges = (edge for each in version.windows for edge in (each.since, each.until))
        is_sure = all(abs(ms_of(edge) - at_ms) > span_ms for edge in edges)
        return is_sure and version.at(at_ms).state is JobState.ENABLED

    def _knows_the_time(self, at_ms: int) -> bool:
        """... and the leader knew it too."""
        span_ms = self.bounds.recovery_ms
        return at_ms > 0 and not self.court.faults.overlapping(at_ms - span_ms, at_ms, _CLOCKS)

    def not_judged(self) -> list[str]:
        return ["ticks at the edges of pickup_buffer and recover_within may go either way"]


def _begins(write: Write) -> bool:
    """Not a step in what was open already."""
    gap = write.old
    return not isinstance(gap, Gap) or gap.closed


def _decides(step: Step, job: str) -> bool:
    """Whether ticks of an outage are decided in this step, so that its gap accounts for them."""
    return any(w.is_new and w.ids[:1] == (job,) and _is_of_an_outage(w) for w in step.writes)


def _is_of_an_outage(write: Write) -> bool:
    record = write.new
    if write.place is ARCHIVE:
        return isinstance(record, Run) and record.state is RunState.MISSED
    return isinstance(record, Run | FanOut) and record.origin is Origin.RECOVERY


def _is_other_mode(write: Write) -> bool:
    before = write.old
    after = write.new
    return (
        isinstance(before, Job)
        and isinstance(after, Job)
        and any(getattr(before, field) != getattr(after, field) for field in _DECIDES)
    )
