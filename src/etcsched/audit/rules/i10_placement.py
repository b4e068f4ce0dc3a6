"""I10: assignments only to agents live at that revision, within slots, labels, hosts, conflicts,
and seats."""

from __future__ import annotations

from etcsched.audit.eligibility import may_run_on, runs_as, used_slots
from etcsched.audit.history import Quiet
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import (
    Assignment,
    ClusterSettings,
    ConflictGroup,
    Drain,
    Job,
    Kind,
    Presence,
    Run,
    Seat,
    host_in,
)
from etcsched.core.states import HostsFor, Origin


class Placement(Rule):
    """Judged on the state before the revision, which is what the leader's compares saw; slots on
    the state after it."""

    invariant = Invariant.I10
    places = frozenset({Kind.ASSIGNMENT, Kind.SEAT, Kind.SETTINGS})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._bounded_ms: int | None = None
        """Since when settings bound the number of active agents; what was decided before may still
        come in."""

    @property
    def _most_agents(self) -> int | None:
        settings = self.state.record(ClusterSettings, Kind.SETTINGS)
        return settings.max_active_agents if settings is not None else None

    def begun(self) -> None:
        self._bounded_ms = 0 if self._most_agents is not None else None

    def wrote(self, write: Write, step: Step) -> None:
        new = write.new
        if isinstance(new, ClusterSettings):
            if new.max_active_agents is None:
                self._bounded_ms = None
            elif self._bounded_ms is None:
                self._bounded_ms = step.at_ms
        if isinstance(new, Seat):
            text = f"{new.agent}: it gets a seat, and isn't here"
            is_here = self.state.of(Kind.PRESENCE, new.agent) is not None
            self.expect(is_here, text, step)
        if not isinstance(new, Assignment):
            return
        name = f"{new.job}/{new.run} to {new.agent}"
        presence = self.state.record(Presence, Kind.PRESENCE, new.agent)
        is_here = presence is not None and presence.incarnation == new.incarnation
        self.expect(is_here, f"{name}: assigned, but that session of the agent isn't there", step)
        if presence is None:
            return
        is_drained = self.state.record(Drain, Kind.DRAIN, new.agent) is not None
        text = f"{name}: assigned, but the agent drains"
        # What is to be done before it goes is given to one that stops, and to no other.
        is_farewell = new.occasion is not None and new.occasion.is_shutdown
        self.expect(not is_drained and presence.draining is is_farewell, text, step)
        if self._bounded_ms is not None:
            seat = self.state.of(Kind.SEAT, new.agent)
            is_early = (
                not new.seen.seat and step.at_ms - self._bounded_ms <= self.bounds.recovery_ms
            )
            is_seated = seat is not None and seat.mod_revision == new.seen.seat
            self.expect(is_seated or is_early, f"{name}: assigned, but it has no seat", step)
        job = self.state.record(Job, Kind.JOB, new.job)
        if job is None:
            return
        if self._is_bound(job, new, step):
            for label, value in job.require.items():
                text = f"{name}: the job requires {label}={value}, the agent has {presence.labels}"
                self.expect(presence.labels.get(label) == value, text, step)
            # A run that is bound to one agent stays so, whatever the job's hosts are by now.
            hosts = (host,) if (host := host_in(new.run)) else job.hosts
            text = f"{name}: the agent is not among the job's hosts {', '.join(hosts)}"
            self.expect(not hosts or new.agent in hosts, text, step)
        user = job.user or presence.default_user
        text = f"{name}: the agent runs nothing as {user or 'nobody'}"
        self.expect(runs_as(job, presence), text, step)

    def _is_bound(self, job: Job, new: Assignment, step: Step) -> bool:
        """A job can choose that its hosts and labels bind no requested and no chained runs; what
        takes the place of such a run isn't bound either."""
        written = step.of(Kind.RUN, new.job, new.run)
        run = written.new if written is not None else None
        if job.hosts_for is HostsFor.ALL or not isinstance(run, Run):
            return job.hosts_for is HostsFor.ALL
        stands_for_tick = run.scheduled_at is not None and not run.chained_from
        is_bound = stands_for_tick or run.stands_for is not None
        is_free = run.origin in (Origin.REQUEST, Origin.CHAIN)
        return not is_free and (run.origin is not Origin.RESUBMISSION or is_bound)

    def quieted(self, quiet: Quiet) -> None:
        """All seats that may be are given, as far as agents are there, and no more."""
        most, seats = self._most_agents, self.state.all_of(Kind.SEAT)
        if most is None:
            self.expect(
                not seats, f"{len(seats)} seats, and settings ask for none", at_ms=quiet.at_ms
            )
            return
        self.expect(len(seats) <= most, f"{len(seats)} seats, {most} may be", at_ms=quiet.at_ms)
        drained = self.state.all_of(Kind.DRAIN)
        standbys = {ids for ids in self.state.all_of(Kind.PRESENCE) if ids not in seats} - {
            *drained
        }
        kept = [ids for ids in seats if ids not in self.state.all_of(Kind.PRESENCE)]
        for (agent,) in sorted(standbys):
            text = f"{agent}: stands by, with {len(seats)} of {most} seats given, {len(kept)} kept"
            self.expect(len(seats) == most and not kept, text, at_ms=quiet.at_ms)

    def committed(self, step: Step) -> None:
        if any(write.place is Kind.SEAT and write.after is not None for write in step.writes):
            most, seats = self._most_agents, len(self.state.all_of(Kind.SEAT))
            text = f"{seats} seats given, {most or 'none'} may be"
            self.expect(most is not None and seats <= most, text, step)
        agents = {
            write.ids[0] for write in step.writes if write.place is Kind.ASSIGNMENT and write.is_new
        }
        for agent in agents:
            presence = self.state.record(Presence, Kind.PRESENCE, agent)
            if presence is not None:
                used = used_slots(self.state, agent)
                text = f"{agent}: {used} assignments are more than its {presence.slots} slots"
                self.expect(used <= presence.slots, text, step)
        for write in step.writes:
            if write.place is Kind.ASSIGNMENT and write.after is not None:
                self._judge_groups(write, step)

    def _judge_groups(self, write: Write, step: Step) -> None:
        """No other job of one of its conflict groups is assigned, on any agent; one whose agent is
        lost and that is held, only if its process may run on."""
        _, job, run = write.ids
        for (group,), held in self.state.all_of(Kind.CONFLICT).items():
            if not isinstance(held.record, ConflictGroup) or job not in held.record.jobs:
                continue
            for other in held.record.jobs:
                if other == job:
                    continue
                for other_run in self.state.runs_of.get(other, ()):
                    text = f"{job}/{run}: assigned beside {other}/{other_run}, both in {group}"
                    is_beside = may_run_on(self.state, other, other_run)
                    self.expect(not is_beside, text, step)
