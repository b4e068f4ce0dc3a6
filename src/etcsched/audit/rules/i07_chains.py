"""I7: what the end of a run began is there, once, and nothing else says that it was begun so."""

from __future__ import annotations

from etcsched.audit.rules.base import Rule
from etcsched.audit.state import ARCHIVE, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Follow, Job, Join, Kind, Run
from etcsched.core.states import JobState, Origin, RunState


class Chains(Rule):
    """A chained run is created in the transaction that ends its source, or one of several
    sources that it waited for, or in one that ends the waiting for others."""

    invariant = Invariant.I7
    places = frozenset({Kind.RUN, ARCHIVE})

    def wrote(self, write: Write, step: Step) -> None:
        run = self.birth(write)
        if run is not None and run.origin is Origin.CHAIN:
            self._began(run, step)
        if run is not None and run.state is RunState.OVERLAPPED:
            self._overlapped(run, step)

    def _overlapped(self, run: Run, step: Step) -> None:
        """Whoever decided it, and however: it says what became of each link that names this end."""
        job = self.state.record(Job, Kind.JOB, run.job)
        links = job.chain if job is not None and job.current.state is not JobState.DELETED else ()
        named = {link.to for link in links if RunState.OVERLAPPED in link.on}
        text = f"{run.job}/{run.id}: overlapped, and nobody asked what follows"
        self.expect(named <= {follow.job for follow in run.followed_by}, text, step)

    def committed(self, step: Step) -> None:
        for write in step.writes:
            record = write.new
            if write.place == ARCHIVE and write.is_new and isinstance(record, Run):
                self._ended(record, step)

    def _ended(self, source: Run, step: Step) -> None:
        name = f"{source.job}/{source.id}"
        for follow in source.followed_by:
            if not follow.run or self._is_awaited(follow):
                continue
            follower = self._run_in(step, follow.job, follow.run)
            text = f"{name} ended, and {follow.job}/{follow.run}, which it says it began, is lost"
            is_there = follower is not None or self.state.run(follow.job, follow.run) is not None
            self.expect(is_there, text, step)
            if follower is not None:
                knows = (source.job, source.id) in {(s.job, s.run) for s in follower.chained_from}
                text = f"{follow.job}/{follow.run} doesn't know of {name}, which began it"
                self.expect(knows, text, step)

    def _is_awaited(self, follow: Follow) -> bool:
        """Whether it waits for other sources, in a record that any leader can go on from."""
        return any(
            isinstance(held.record, Join)
            and (held.record.job, held.record.run) == (follow.job, follow.run)
            for held in self.state.all_of(Kind.JOIN).values()
        )

    def _began(self, run: Run, step: Step) -> None:
        name = f"{run.job}/{run.id}"
        sources = [self._run_in(step, source.job, source.run) for source in run.chained_from]
        begun = any(
            source is not None
            and any((f.job, f.run) == (run.job, run.id) for f in source.followed_by)
            for source in sources
        )
        begun = begun or self._was_joined(step, run)
        self.expect(begun, f"{name}: a chained run, and no run that ended began it", step)

    def _was_joined(self, step: Step, run: Run) -> bool:
        """Whether a join ends with it: what it waited for was taken out of the chain."""
        for write in step.writes:
            join = write.old
            if isinstance(join, Join) and write.after is None:
                came = [(source.job, source.run) for source in run.chained_from]
                names_it = (join.job, join.run) == (run.job, run.id)
                if names_it and came == [(a.job, a.run) for a in join.arrived]:
                    return True
        return False

    def _run_in(self, step: Step, job: str, run: str) -> Run | None:
        for place in (Kind.RUN, ARCHIVE):
            write = step.of(place, job, run)
            if write is not None and write.after is not None:
                record = write.after.record
                return record if isinstance(record, Run) else None
        return None
