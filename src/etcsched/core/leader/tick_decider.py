"""What becomes of each tick: a run, a record of why not, or a place in its job's outage.

While a leader leads, ticks come from the index, one by one. What was due before it led, or while
no eligible agent lived, is an outage (``outages``).
"""

from __future__ import annotations

from functools import lru_cache
from typing import assert_never

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context
from etcsched.core.leader.fan_outs import FanOuts
from etcsched.core.leader.matters import job_matter, run_matter
from etcsched.core.leader.open_ticks import OpenTicks
from etcsched.core.leader.outages import Outages, Ruling
from etcsched.core.leader.overlap import state_by_overlap
from etcsched.core.leader.pace import LATE_MS
from etcsched.core.leader.placement import requirement_of
from etcsched.core.leader.run_decider import RunDecider
from etcsched.core.leader.runs import assignment_of, tick_run
from etcsched.core.leader.ticks import TickIndex
from etcsched.core.records import CLUSTER, Job
from etcsched.core.schedule import Pattern, schedule_of
from etcsched.core.splay import delay_ms
from etcsched.core.states import FINAL, JobState, Origin, RunState
from etcsched.core.times import ms_of, tick_id, utc_of
from etcsched.core.view import Entry, revision_of

_MISSED = "missed in an outage"


@lru_cache(maxsize=4096)
def _is_tick(patterns: tuple[Pattern, ...], timezone: str, tick_ms: int) -> bool:
    """Many jobs of one schedule are due at the same instant."""
    return schedule_of(patterns, timezone).next_after(tick_ms - 1) == tick_ms


class TickDecider:
    def __init__(
        self,
        context: Context,
        index: TickIndex,
        open_ticks: OpenTicks,
        runs: RunDecider,
        outages: Outages,
        fan_outs: FanOuts,
    ) -> None:
        self._context = context
        self._view = context.view
        self._index = index
        self._open = open_ticks
        self._runs = runs
        self._outages = outages
        self._fan_outs = fan_outs
        self._begun_ms = context.wall_ms
        self._away = fan_outs.away
        self._left_in_plan = context.options.ticks_at_once
        self._stand_ins: dict[str, int] = {}
        """By job, the open instant that stands for an absence, whether or not it is a tick."""

    # --- events

    def take_over(self) -> None:
        """Decide what was due while no one led: all jobs that had ticks since the watermark."""
        for name in self._index.skip_to(self._begun_ms):
            if not self._outages.has_open_gap(name):
                self._leader_was_away(self._view.jobs[name].record)

    def _leader_was_away(self, job: Job) -> None:
        with self._context.contain(job_matter(job.name)):
            self._outages.leader_was_away(job)
            return
        # A defect: from here on its ticks wait in a gap, which this instant stands for.
        self._stand_ins[job.name] = instant_ms = self._outages.after_ms(job.name) + 1
        self._open.add(job.name, instant_ms, job.priority)

    def job_changed(self, name: str) -> None:
        """A new or changed definition: what it makes due up to the index's place, and after."""
        entry = self._view.jobs.get(name)
        if entry is None:
            self._index.discard(name)
            return
        self._index.put(entry.record)
        self._look_back(entry.record)

    def calendar_changed(self) -> None:
        """Days came or went: ticks on them may be due now."""
        self.pause_changed(CLUSTER)

    def pause_changed(self, name: str) -> None:
        """A pause (of a job, or of the cluster) began or ended: so did ticks' being due."""
        watermark = self._view.watermark
        if name == CLUSTER and watermark is not None:
            since_ms = ms_of(watermark.record.through)
            names = self._index.due_within(since_ms, self._index.through_ms)
        else:
            names = [name]
        for each in names:
            entry = self._view.jobs.get(each)
            if entry is not None:
                self._look_back(entry.record)

    def time_passed(self) -> None:
        """A plan begins: what is due by now is open from now on."""
        self._left_in_plan = self._context.options.ticks_at_once
        for tick_ms, names in self._index.pop_due(self._context.wall_ms):
            for name in names:
                self._open.add(name, tick_ms, self._view.jobs[name].record.priority)

    def decide(self) -> None:
        """Open ticks that may be decided yet, as many as one plan takes."""
        horizon_ms = self._horizon_ms()
        while horizon_ms is not None and self._left_in_plan > 0:
            place = self._open.take(horizon_ms)
            if place is None:
                return
            self._left_in_plan -= 1
            tick_ms, _, name = place
            is_taken = False
            with self._context.contain(job_matter(name)):
                is_taken = self._decide_tick(name, tick_ms)
            if not is_taken:
                self._open.park(place)

    @property
    def has_more(self) -> bool:
        """Whether ticks wait for nothing but the next plan."""
        return self._left_in_plan <= 0

    def confirm(self, job: str, tick_ms: int) -> None:
        """The tick's decision is in etcd."""
        self._open.confirm(job, tick_ms)
        self._outages.look_at(job)
        self._runs.look_at_waiting(job)
        self._runs.look_at_bound(job)

    def decide_again(self, job: str, tick_ms: int) -> None:
        """Unless it is confirmed: the tick's decision rested on something that had changed."""
        entry = self._view.jobs.get(job)
        self._open.add_again(job, tick_ms, entry.record.priority if entry is not None else 0)

    # --- how far it is

    def decided_through_ms(self) -> int:
        """Everything up to this instant is decided and confirmed."""
        first_ms = self._open.first_ms()
        through_ms = self._index.through_ms
        return through_ms if first_ms is None else min(through_ms, first_ms - 1)

    def waits_for_watermark(self) -> bool:
        """Whether ticks wait for nothing but the watermark, so as not to run too far ahead; all do
        as long as there is none."""
        horizon_ms = self._horizon_ms()
        return horizon_ms is None or self._open.is_held_up(horizon_ms)

    def _horizon_ms(self) -> int | None:
        watermark = self._view.watermark
        if watermark is None:
            return None
        ahead_ms = int(self._context.options.decide_ahead_s * 1000)
        return ms_of(watermark.record.through) + ahead_ms

    def _look_back(self, job: Job) -> None:
        """Due by now, under the definitions seen now, and not known to be decided. What was decided
        and isn't known to be, its transaction finds out."""
        if self._outages.waits_in_gap(job.name):
            return
        after_ms = self._outages.after_ms(job.name)
        for tick_ms in self._outages.due_ticks(job, after_ms, self._index.through_ms):
            self._open.add(job.name, tick_ms, job.priority)

    # --- one tick

    def _decide_tick(self, name: str, tick_ms: int) -> bool:
        """False: something that it depends on is unsettled; ask again when that is settled."""
        entry = self._view.jobs.get(name)
        if self._stand_ins.get(name) == tick_ms:
            return self._decide_stand_in(name, tick_ms, entry)
        key = (name, tick_id(tick_ms))
        # An earlier leader decided it.
        is_known = key in self._view.runs or key in self._view.fan_outs
        if is_known:
            self.confirm(name, tick_ms)
            return True
        if entry is not None and self._context.is_set_aside(name):
            is_held = self._outages.holds(entry, tick_ms)
            if is_held:
                self.confirm(name, tick_ms)
            return is_held
        if self._context.is_busy(run_matter(key)) or self._is_unsettled(name, entry):
            return False
        return self._decide_settled(name, tick_ms, entry)

    def _decide_stand_in(self, name: str, instant_ms: int, entry: Entry[Job] | None) -> bool:
        """For the ticks of a job that had some while no one led, which couldn't be planned: once
        its gap is open, they wait in that; or they can be planned by now."""
        is_aside = self._context.is_set_aside(name)
        if entry is not None and is_aside and not self._outages.holds(entry, instant_ms):
            return False
        del self._stand_ins[name]
        self.confirm(name, instant_ms)
        if entry is not None and not is_aside:
            self._leader_was_away(entry.record)
        return True

    def _decide_settled(self, name: str, tick_ms: int, entry: Entry[Job] | None) -> bool:
        """``entry`` None: there is nothing to decide any more."""
        if entry is None or not self._is_due(entry.record, tick_ms):
            self.confirm(name, tick_ms)
            return True
        match self._outages.ruling(name, tick_ms):
            case Ruling.DECIDED:
                self.confirm(name, tick_ms)
            case Ruling.WAIT:
                return False
            case Ruling.CHOSEN | Ruling.LATE if self._is_for_none(entry.record):
                if self._context.waits_for_agent(entry.record):
                    if not self._outages.has_open_gap(name):
                        self._outages.open_gap(entry, tick_ms - 1)  # It goes on.
                    else:
                        self._outages.look_at(name)  # A missed tick opened it: this one waits too.
                    return False
                return self._miss(entry, tick_ms)
            case Ruling.CHOSEN | Ruling.LATE if not self._context.can_start(entry.record):
                return self._miss(entry, tick_ms)
            case Ruling.CHOSEN:
                cause = f"recovered: {_MISSED}"
                if entry.record.per_host:
                    self._fan_outs.decide_tick(entry, tick_ms, Origin.RECOVERY, cause)
                    return True
                self._create(entry, tick_ms, RunState.QUEUED, cause, origin=Origin.RECOVERY)
            case Ruling.LATE:
                self._create_ordinary(entry, tick_ms)
            case Ruling.MISSED:
                return self._miss(entry, tick_ms)
            case Ruling.NONE:
                return self._decide_ordinary(entry, tick_ms)
            case other:
                assert_never(other)
        return True

    def _miss(self, entry: Entry[Job], tick_ms: int) -> bool:
        """An outage took it. Where something follows that, the outage's account has to say so, too:
        once that is seen, the tick is decided."""
        if self._runs.chains.following_missed(entry.record):
            self._outages.miss_alone(entry, tick_ms)
            return False
        self._create(entry, tick_ms, RunState.MISSED, _MISSED)
        return True

    def _is_unsettled(self, name: str, entry: Entry[Job] | None) -> bool:
        """A job that runs on each agent decides its ticks whatever its runs are about."""
        if entry is not None and entry.record.per_host:
            return self._context.is_busy(job_matter(name))
        return self._runs.is_unsettled(name)

    def _is_for_none(self, job: Job) -> bool:
        """Whether a tick for each agent would be for none at all, and leave no trace."""
        return job.per_host and not self._context.agents.has_eligible(requirement_of(job))

    def _decide_ordinary(self, entry: Entry[Job], tick_ms: int) -> bool:
        if not self._context.can_start(entry.record):
            self._create(entry, tick_ms, RunState.MISSED, "the job was stopped before it started")
        elif self._context.agents.has_eligible(requirement_of(entry.record)):
            self._create_ordinary(entry, tick_ms)
        else:
            self._outages.open_gap(entry, tick_ms - 1)
            return False
        return True

    def _is_due(self, job: Job, tick_ms: int) -> bool:
        view, version = self._view, job.current
        is_plain = len(job.versions) == 1 and version.state is JobState.ENABLED
        is_plain = is_plain and not (version.windows or version.calendars)
        if is_plain and not (job.name in view.pauses or CLUSTER in view.pauses):
            is_begun = ms_of(version.since) <= tick_ms
            return is_begun and _is_tick(version.patterns, version.timezone, tick_ms)
        within = self._outages.due_ticks(job, tick_ms - 1, tick_ms)
        return next(within, None) is not None

    def _create_ordinary(self, entry: Entry[Job], tick_ms: int) -> None:
        job = entry.record
        if job.per_host:
            self._fan_outs.decide_tick(entry, tick_ms, Origin.SCHEDULE, "due")
            return
        now_ms = self._context.wall_ms
        state = state_by_overlap(self._view, job, job.name, tick_ms, self._away, now_ms)
        starts_ms = tick_ms + delay_ms(job)
        if state is RunState.READY and starts_ms > self._context.wall_ms:
            cause = f"due, starts at {utc_of(starts_ms)} by its splay"
            self._create(entry, tick_ms, RunState.READY, cause)
            return
        if state is RunState.READY and self._context.conflicts.is_in_group(job.name):
            # Who of its groups goes first is found out once all that is due now is there.
            holder = self._context.conflicts.holder(job.name)
            state = RunState.READY if holder is None else RunState.CONFLICTED
            self._create(entry, tick_ms, state, "due" if holder is None else f"waits: {holder}")
            return
        if state is RunState.READY and not self._view.is_paused(job.name):
            presence = self._context.agents.choose(requirement_of(job), job.name)
            pace, is_late = self._runs.pace, self._context.wall_ms - starts_ms > LATE_MS
            if presence is not None and is_late and not pace.allow():
                cause = f"due, and late: it waits, since {pace.reason}"
                # Outside any buffer: it isn't for want of an agent that it waits.
                self._create(entry, tick_ms, RunState.QUEUED, cause)
                return
            if presence is not None:
                self._create(entry, tick_ms, RunState.ASSIGNED, "due", presence.record.agent)
                return
        paused = self._view.what_is_paused(job.name)
        causes = {
            RunState.OVERLAPPED: "the job's last run was still active",
            RunState.QUEUED: "due behind another run of its job",
            RunState.READY: f"due, but {paused} is paused" if paused else "due, no slot is free",
        }
        self._create(entry, tick_ms, state, causes[state])

    def _create(
        self,
        entry: Entry[Job],
        tick_ms: int,
        state: RunState,
        cause: str,
        agent: str | None = None,
        origin: Origin = Origin.SCHEDULE,
    ) -> None:
        context, job = self._context, entry.record
        presence = self._view.presences[agent] if agent is not None else None
        seen = self._view.start_seen(job.name, agent)
        if presence is None:
            run = tick_run(context.author, job, tick_ms, state, cause, origin)
            assignment = None
        else:
            run = tick_run(
                context.author, job, tick_ms, state, cause, origin, agent=agent, attempt=1
            )
            assignment = assignment_of(context.author, run, job, presence.record, seen)
        following = None
        if state in FINAL:
            run, following = self._runs.chains.after(run)
        if self._runs.chains.is_beginning(following):
            self._open.park((tick_ms, -job.priority, job.name))
            self._runs.chains.wait(following, job_matter(job.name))
            return
        context.write(
            fx.CreateRun(
                seq=context.next_seq(),
                run=run,
                seen=seen,
                is_tick=True,
                calendars=self._view.calendars_seen(job),
                assignment=assignment,
                presence_revision=revision_of(presence),
                following=following,
                rotation=context.agents.rotate(job, agent),
            ),
            run_matter((run.job, run.id)),
            job_matter(job.name),
            *self._runs.chains.matters(following),
            agent=agent,
        )
        self._runs.chains.sent(following)
        if state is not RunState.ASSIGNED:
            context.say(f"{state.value}: {cause}", run=(run.job, run.id))
