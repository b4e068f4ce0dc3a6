"""I16: startup and shutdown jobs run once, when they should, and nobody is let go before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from etcsched.audit.eligibility import suits
from etcsched.audit.history import Quiet
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import ARCHIVE, Held, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Due, Job, Kind, Live, Presence, Run
from etcsched.core.states import JobState, Lifecycle, Occasion, Origin, RunState, Stage

_AT: dict[Occasion, tuple[Lifecycle, ...]] = {
    Occasion.HOST_STARTUP: (Lifecycle.HOST_STARTUP, Lifecycle.HOST_BOTH),
    Occasion.HOST_SHUTDOWN: (Lifecycle.HOST_SHUTDOWN, Lifecycle.HOST_BOTH),
    Occasion.CLUSTER_STARTUP: (Lifecycle.CLUSTER_STARTUP, Lifecycle.CLUSTER_BOTH),
    Occasion.CLUSTER_SHUTDOWN: (Lifecycle.CLUSTER_SHUTDOWN, Lifecycle.CLUSTER_BOTH),
}

_Made = tuple[str, Occasion, str]
"""Job, occasion, incarnation."""

_Wanted = dict[tuple[Occasion, str], int]
"""Which job (at which revision) one incarnation's coming or going calls for."""


class Lifecycles(Rule):
    """Who is here is judged by presences and by what the leader says of them (``state/live``);
    which jobs their coming and going calls for, by the jobs as they stood before."""

    invariant = Invariant.I16
    places = frozenset({Kind.RUN, ARCHIVE, Kind.LIVE})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._made: set[_Made] = set()
        self._wanted: dict[str, _Wanted] = {}

    def begun(self) -> None:
        for place in (Kind.RUN, ARCHIVE):
            for held in self.state.all_of(place).values():
                if isinstance(held.record, Run) and held.record.occasion is not None:
                    self._made.add(_made(held.record, held.record.occasion))

    def wrote(self, write: Write, step: Step) -> None:
        if write.place is Kind.LIVE:
            live = _live(write.after)
            if live is not None:
                self._moved(_live(write.before), live, step)
            return
        run = self.birth(write)
        if run is None:
            return
        text = f"{run.job}/{run.id}: made by {run.origin.value}, for {run.occasion}"
        self.expect((run.origin is Origin.LIFECYCLE) == (run.occasion is not None), text, step)
        if run.occasion is not None:
            self._born(run, run.occasion, step)
        if run.origin is Origin.RESUBMISSION:
            self._judge_stand_in(run, step)

    # --- a run

    def _born(self, run: Run, occasion: Occasion, step: Step) -> None:
        name, made = f"{run.job}/{run.id}", _made(run, occasion)
        text = f"{name}: a second {occasion.value} of {run.incarnation}"
        self.expect(made not in self._made, text, step)
        self._made.add(made)
        job = self.state.record(Job, Kind.JOB, run.job)
        if job is not None:
            text = f"{name}: its job's lifecycle is {job.lifecycle.value}"
            self.expect(job.lifecycle in _AT[occasion], text, step)
        if self._is_left(run, occasion, step):
            return  # Its first agent may be gone, or have come anew.
        held = self._presence_of(run.incarnation)
        presence = held.record if held is not None else None
        is_here = isinstance(presence, Presence)
        self.expect(is_here, f"{name}: session {run.incarnation} isn't there", step)
        if not isinstance(presence, Presence):
            return
        host = "" if occasion is Occasion.CLUSTER_STARTUP else presence.agent
        text = f"{name}: bound to {run.host or 'no agent'}, made for {presence.agent}"
        self.expect(run.host == host, text, step)
        if occasion.is_shutdown:
            text = f"{name}: made, and {presence.agent} wasn't told to stop"
            self.expect(presence.draining, text, step)
        self._judge_first_and_last(run, occasion, presence.agent, step)

    def _judge_stand_in(self, run: Run, step: Step) -> None:
        """It is told what its original was for."""
        original = self.state.run(run.job, run.resubmits)
        if original is None:
            return
        meant = original.occasion if original.occasion is not None else original.stands_for
        text = f"{run.job}/{run.id}: resubmitted for {meant}, and says {run.stands_for}"
        self.expect(run.stands_for is meant, text, step)

    def _is_left(self, run: Run, occasion: Occasion, step: Step) -> bool:
        """Whether a record said that this start of the cluster was still to be made."""
        if occasion is not Occasion.CLUSTER_STARTUP:
            return False
        for write in step.writes:
            live = _live(write.before) if write.place is Kind.LIVE else None
            if live is None or Due(occasion=occasion, job=run.job) not in live.due:
                continue
            after = _live(write.after)
            return after is None or run.incarnation in (live.incarnation, after.incarnation)
        return False

    def _judge_first_and_last(self, run: Run, occasion: Occasion, agent: str, step: Step) -> None:
        """When it was decided; more of its runs may be made later."""
        live = self.state.record(Live, Kind.LIVE, agent)
        was_known = live is not None and live.incarnation == run.incarnation
        if occasion is Occasion.CLUSTER_STARTUP and not was_known:
            others = self._in_force(self.state.all_of(Kind.LIVE).items(), run.incarnation)
            text = f"{run.job}/{run.id}: {agent} isn't the first: {', '.join(others)} were here"
            self.expect(not others, text, step)
        elif occasion is Occasion.CLUSTER_SHUTDOWN and (
            live is None or live.stage is not Stage.LAST
        ):
            others = self._in_force(self._live_after(step), run.incarnation)
            text = f"{run.job}/{run.id}: {agent} isn't the last: {', '.join(others)} stay"
            self.expect(not others, text, step)

    # --- an agent

    def _moved(self, before: Live | None, live: Live, step: Step) -> None:
        is_new = before is None or before.incarnation != live.incarnation
        name, held = f"{live.agent} ({live.incarnation})", self._presence_of(live.incarnation)
        if is_new:
            self.expect(held is not None, f"{name}: has come, and isn't there", step)
            self._wanted.pop(live.agent, None)
        has_returned = not is_new and before is not None and before.stage is Stage.GONE
        if has_returned or (live.stage is Stage.HERE and not is_new):
            # It stays after all, or a hand had deleted its presence; when it goes another time,
            # what is to be done is to be done again.
            self._made -= {m for m in self._made if m[1].is_shutdown and m[2] == live.incarnation}
        if is_new or (before is not None and before.stage is not live.stage):
            self._entered(live, held, is_new, step)
        if not live.due:
            self._check_made(live, step)

    def _entered(self, live: Live, held: Held | None, is_new: bool, step: Step) -> None:
        """A stage: what had to be over before, and what it calls for."""
        name = f"{live.agent} ({live.incarnation})"
        presence = held.record if held is not None else None
        stops = isinstance(presence, Presence) and presence.draining
        if live.stage in (Stage.LEAVING, Stage.LAST, Stage.DISMISSED):
            self.expect(stops, f"{name}: {live.stage.value}, and wasn't told to stop", step)
        if live.stage is Stage.LEAVING:
            for run in self._work_of(live.agent):
                self.expect(False, f"{name}: leaving before {run.job}/{run.id} was over", step)
        if live.stage in (Stage.LAST, Stage.DISMISSED):
            for run in self._shutdowns_of(live):
                text = f"{name}: {live.stage.value} before {run.job}/{run.id} was over"
                self.expect(False, text, step)
        if held is None:
            return
        if is_new and not stops:
            self._want(live, Occasion.HOST_STARTUP, held)
        if is_new and self._is_first(live, held, step):
            self._want(live, Occasion.CLUSTER_STARTUP, held)
        if live.stage in (Stage.LEAVING, Stage.DISMISSED):
            self._want(live, Occasion.HOST_SHUTDOWN, held)
        if live.stage is Stage.LAST:
            self._want(live, Occasion.CLUSTER_SHUTDOWN, held)

    def _is_first(self, live: Live, held: Held, step: Step) -> bool:
        if self._in_force(self.state.all_of(Kind.LIVE).items(), live.incarnation):
            return False
        for write in step.writes:
            other = _live(write.after) if write.place is Kind.LIVE else None
            if other is None or other.incarnation == live.incarnation:
                continue
            beside = self._presence_of(other.incarnation)
            if beside is not None and beside.create_revision < held.create_revision:
                return False
        return True

    def _want(self, live: Live, occasion: Occasion, held: Held) -> None:
        wanted = self._wanted.setdefault(live.agent, {})
        for job, revision in self._jobs_for(occasion, held).items():
            wanted[occasion, job] = revision

    def _check_made(self, live: Live, step: Step) -> None:
        """All that was called for is there, but for what operators have changed since."""
        made = self._made | self._made_in(step)
        for (occasion, job), revision in self._wanted.pop(live.agent, {}).items():
            held = self.state.of(Kind.JOB, job)
            if held is not None and held.mod_revision == revision:
                text = f"{live.agent} ({live.incarnation}): no {occasion.value} of {job}"
                self.expect((job, occasion, live.incarnation) in made, text, step)

    def committed(self, step: Step) -> None:
        """Nobody is left: the last one must have been the last."""
        gone = []
        for write in step.writes:
            if write.place is Kind.LIVE and (live := _live(write.after)) is not None:
                before = _live(write.before)
                was_last = before is not None and before.stage is Stage.LAST
                if live.stage is Stage.LAST or (live.stage is Stage.DISMISSED and was_last):
                    return
                if live.stage is Stage.DISMISSED:
                    gone.append(live)
        if not gone or self._in_force(self.state.all_of(Kind.LIVE).items(), ""):
            return
        jobs: set[str] | None = None
        for live in gone:
            held = self._presence_of(live.incarnation)
            suited = self._jobs_for(Occasion.CLUSTER_SHUTDOWN, held) if held is not None else {}
            jobs = set(suited) if jobs is None else jobs & set(suited)
        names = ", ".join(live.agent for live in gone)
        text = f"{names}: the last to go, without cluster_shutdown of {', '.join(jobs or ())}"
        self.expect(not jobs, text, step)

    def quieted(self, quiet: Quiet) -> None:
        for (agent,), held in self.state.all_of(Kind.PRESENCE).items():
            live = self.state.record(Live, Kind.LIVE, agent)
            if isinstance(held.record, Presence):
                is_known = live is not None and live.incarnation == held.record.incarnation
                is_known = is_known and live is not None and live.stage is not Stage.GONE
                text = f"{agent} ({held.record.incarnation}): nobody has seen it come"
                self.expect(is_known, text, at_ms=quiet.at_ms)
        for (agent,), held in self.state.all_of(Kind.LIVE).items():
            live = _live(held)
            is_here = self.state.of(Kind.PRESENCE, agent) is not None
            was_seen = live is not None and live.stage in (Stage.GONE, Stage.DISMISSED)
            self.expect(is_here or was_seen, f"{agent}: nobody has seen it go", at_ms=quiet.at_ms)

    # --- what there is

    def _presence_of(self, incarnation: str) -> Held | None:
        for held in self.state.all_of(Kind.PRESENCE).values():
            if isinstance(held.record, Presence) and held.record.incarnation == incarnation:
                return held
        return None

    def _live_after(self, step: Step) -> Iterable[tuple[tuple[str, ...], Held]]:
        found = dict(self.state.all_of(Kind.LIVE))
        for write in step.writes:
            if write.place is Kind.LIVE and write.after is not None:
                found[write.ids] = write.after
        return found.items()

    def _in_force(self, held: Iterable[tuple[tuple[str, ...], Held]], but: str) -> list[str]:
        """The agents that have come and aren't let go, of sessions other than this one. A presence
        that can't be read says that somebody is there."""
        found = []
        for (agent,), each in held:
            live, there = _live(each), self.state.of(Kind.PRESENCE, agent)
            if live is None or there is None or live.incarnation == but:
                continue
            is_in_force = live.stage in (Stage.HERE, Stage.LEAVING)
            presence = there.record
            if is_in_force and (
                not isinstance(presence, Presence) or presence.incarnation == live.incarnation
            ):
                found.append(agent)
        return sorted(found)

    def _shutdowns_of(self, live: Live) -> Iterator[Run]:
        """Those that aren't over; one that is held waits for an operator, not for its agent."""
        for held in self.state.all_of(Kind.RUN).values():
            run = held.record
            if not isinstance(run, Run) or run.incarnation != live.incarnation:
                continue
            is_shutdown = run.is_for_shutdown
            if is_shutdown and run.state is not RunState.HELD:
                yield run

    def _work_of(self, agent: str) -> Iterator[Run]:
        for place in self.state.work_of.get(agent, ()):
            run = self.state.record(Run, Kind.RUN, *place)
            if run is not None and run.state is not RunState.HELD:
                yield run

    def _made_in(self, step: Step) -> set[_Made]:
        births = (self.birth(write) for write in step.writes if write.place in (Kind.RUN, ARCHIVE))
        return {_made(run, run.occasion) for run in births if run is not None and run.occasion}

    def _jobs_for(self, occasion: Occasion, held: Held) -> dict[str, int]:
        """Those that whoever has seen this presence has seen, too."""
        presence, found = held.record, {}
        assert isinstance(presence, Presence)
        for (name,), each in self.state.all_of(Kind.JOB).items():
            job = each.record
            if not isinstance(job, Job) or each.mod_revision > held.mod_revision:
                continue
            is_on = job.current.state in (JobState.ENABLED, JobState.AD_HOC_ACTIVE)
            if job.lifecycle not in _AT[occasion] or not is_on or job.current.windows:
                continue  # Where a window begins or ends is a matter of the leader's clock.
            if occasion is Occasion.CLUSTER_STARTUP or suits(job, presence):
                found[name] = each.mod_revision
        return found


def _live(held: Held | None) -> Live | None:
    return held.record if held is not None and isinstance(held.record, Live) else None


def _made(run: Run, occasion: Occasion) -> _Made:
    return run.job, occasion, run.incarnation
