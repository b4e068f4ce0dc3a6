"""I7: a chain with several sources goes on when all of them have come, and knows of each."""

from __future__ import annotations

from collections import defaultdict

from etcsched.audit.history import Quiet
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import ARCHIVE, Held, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Arrival, Job, Join, Kind, Run, params_bytes
from etcsched.core.states import JobState, Origin
from etcsched.core.times import ms_of

KEPT_MS = 7 * 86_400_000
"""So long it waits for others: a resubmission may bring them."""
CLOCKS_MS = 10_000
"""How far the leader's clock may be from the recorder's."""
SURELY_FITS_BYTES = 8 << 10
"""Parameters beyond what a run may have keep it from beginning."""
_STOPPED = (JobState.DELETED, JobState.DISABLED)
_ON = (JobState.ENABLED, JobState.CHAIN_ACTIVE)


class Joins(Rule):
    """Who a join waits for is judged by the jobs as they stood before the revision; those that were
    edited within the recovery bound may not have been seen yet."""

    invariant = Invariant.I7
    places = frozenset({Kind.RUN, ARCHIVE, Kind.JOIN, Kind.JOB})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._sources: defaultdict[str, set[str]] = defaultdict(set)
        """By target, the jobs with a link that joins there, whatever their state."""
        self._edited_ms: dict[str, int] = {}
        self._deleted_at: dict[str, int] = {}
        """By job, the last revision at which it was deleted, or gone."""
        self._come: list[tuple[Join, Arrival]] = []
        """What this revision says has come."""

    def begun(self) -> None:
        for (name,), held in self.state.all_of(Kind.JOB).items():
            self._edited(name, None, held, self.court.began_at_revision, self.court.began_ms)

    def wrote(self, write: Write, step: Step) -> None:
        if write.place is Kind.JOB:
            self._edited(write.ids[0], write.before, write.after, step.revision, step.at_ms)
        elif write.place is Kind.JOIN:
            self._moved(write, step)
        elif (run := self.birth(write)) is not None and run.origin is Origin.CHAIN:
            self._began(run, step)

    def _edited(
        self, name: str, before: Held | None, after: Held | None, revision: int, at_ms: int
    ) -> None:
        for target in _joined_by(before):
            self._sources[target].discard(name)
        for target in _joined_by(after):
            self._sources[target].add(name)
        self._edited_ms[name] = at_ms
        job = after.record if after is not None else None
        if (
            after is None
            or not isinstance(job, Job)
            or any(v.state is JobState.DELETED for v in job.versions)
        ):
            self._deleted_at[name] = revision
        else:  # A history that begins in the middle has only what the job says of that.
            known = self._deleted_at.get(name, 0)
            self._deleted_at[name] = max(known, after.create_revision, job.made_anew_after)

    # --- one join

    def _moved(self, write: Write, step: Step) -> None:
        before = write.old
        after = write.new
        if isinstance(after, Join):
            known = before.arrived if isinstance(before, Join) else ()
            self._come += [(after, each) for each in after.arrived if each not in known]
        if not isinstance(before, Join):
            return
        name = f"{before.job}/{before.run}"
        if isinstance(after, Join):
            text = f"{name}: a join that becomes one of {after.job}/{after.run}"
            self.expect((after.job, after.run) == (before.job, before.run), text, step)
            self._keeps(name, before, {each.job for each in after.arrived}, step)
            return
        begun = step.of(Kind.RUN, before.job, before.run)
        run = begun.new if begun is not None else None
        if isinstance(run, Run):
            self._keeps(name, before, {source.job for source in run.chained_from}, step)
        else:
            self._forgotten(name, write, before, step)

    def _keeps(self, name: str, join: Join, jobs: set[str], step: Step) -> None:
        """Each that had come, or a later run of its job."""
        for each in join.arrived:
            text = f"{name}: {each.job}/{each.run} had come to it, and is forgotten"
            self.expect(each.job in jobs, text, step)

    def _forgotten(self, name: str, write: Write, join: Join, step: Step) -> None:
        """Nothing begins: only where too much time has passed, or its job was deleted meanwhile, or
        is stopped as all have come."""
        since = write.before.create_revision if write.before is not None else 0
        is_old = ms_of(join.since) <= step.at_ms - KEPT_MS + CLOCKS_MS
        was_deleted = self._deleted_at.get(join.job, 0) >= since
        job = self.state.record(Job, Kind.JOB, join.job)
        is_there = self.state.of(Kind.JOB, join.job) is not None
        is_stopped = job is not None and (job.current.state not in _ON or bool(job.current.windows))
        is_stopped = is_stopped and self._have_all_come(join, step)
        came = ", ".join(f"{each.job}/{each.run}" for each in join.arrived)
        text = f"{name}: {came} had come to it, and it is gone, and nothing began"
        is_right = not step.at_ms or is_old or was_deleted or not is_there or is_stopped
        self.expect(is_right, text, step)

    def _have_all_come(self, join: Join, step: Step) -> bool:
        """With whoever ends in this revision; who was edited just now may not have been seen so."""
        come = {each.job for each in join.arrived}
        come |= {write.ids[0] for write in step.writes if write.place == ARCHIVE}
        late = (n for n in self._sources_of(join.job) if n not in come)
        edited_ms = (step.at_ms - self._edited_ms.get(name, 0) for name in late)
        return all(ago_ms <= self.bounds.recovery_ms for ago_ms in edited_ms)

    def committed(self, step: Step) -> None:
        come, self._come = self._come, []
        for join, each in come:
            ended = self.state.record(Run, ARCHIVE, each.job, each.run)
            name = f"{join.job}/{join.run}"
            text = f"{name}: {each.job}/{each.run} counts as come, and hasn't ended so"
            self.expect(ended is not None and ended.state is each.state, text, step)

    # --- what it begins

    def _began(self, run: Run, step: Step) -> None:
        if not self._is_joined(run, step):
            return
        come = {source.job for source in run.chained_from}
        for name in self._sources_of(run.job):
            if name in come or step.at_ms - self._edited_ms.get(name, 0) <= self.bounds.recovery_ms:
                continue
            text = f"{run.job}/{run.id}: it began, and {name}, which it joins, hasn't come"
            self.expect(False, text, step)
        self.court.checked[self.invariant] += 1

    def _is_joined(self, run: Run, step: Step) -> bool:
        """Whether all that ends with it goes on to its job by a join only."""
        for write in step.writes:
            join = write.old if write.place is Kind.JOIN else None
            if isinstance(join, Join) and (join.job, join.run) == (run.job, run.id):
                return True
        sources = {source.job for source in run.chained_from}
        jobs = [self.state.record(Job, Kind.JOB, name) for name in sources]
        links = [link for job in jobs if job is not None for link in job.chain]
        return None not in jobs and all(link.joins for link in links if link.to == run.job)

    def _sources_of(self, target: str) -> list[str]:
        """The jobs whose runs may come still."""
        jobs = (self.state.record(Job, Kind.JOB, name) for name in self._sources[target])
        return sorted(j.name for j in jobs if j is not None and j.current.state not in _STOPPED)

    def quieted(self, quiet: Quiet) -> None:
        """What waits then waits for somebody."""
        for held in self.state.all_of(Kind.JOIN).values():
            join = held.record
            if not isinstance(join, Join) or not self._could_end(join, quiet.at_ms):
                continue
            come = {each.job for each in join.arrived}
            text = f"{join.job}/{join.run}: all have come that it joins, and it waits still"
            self.expect(not come.issuperset(self._may_come(join)), text, at_ms=quiet.at_ms)

    def _could_end(self, join: Join, at_ms: int) -> bool:
        job = self.state.record(Job, Kind.JOB, join.job)
        about = {join.job, *self._sources[join.job]}
        edited_ms = max(self._edited_ms.get(name, 0) for name in about)
        if job is None or at_ms - edited_ms <= self.bounds.recovery_ms:
            return False
        fits = sum(params_bytes(each.params) for each in join.arrived) <= SURELY_FITS_BYTES
        return not job.current.windows and (fits or job.current.state not in _ON)

    def _may_come(self, join: Join) -> set[str]:
        """At a quiet end no run is in progress any more; a window may let a disabled job go on."""
        found = set(self._sources_of(join.job))
        for name in self._sources[join.job]:
            job = self.state.record(Job, Kind.JOB, name)
            if job is not None and job.current.windows:
                found.add(name)
        return found


def _joined_by(held: Held | None) -> set[str]:
    job = held.record if held is not None else None
    return {link.to for link in job.chain if link.joins} if isinstance(job, Job) else set()
