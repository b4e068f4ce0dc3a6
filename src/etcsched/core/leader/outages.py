"""A job's outage: no leader decided, or no eligible agent lived (SEMANTICS, recovery).

While one lasts for want of an agent, the job has an open gap in etcd, and its ticks wait in it.
When it ends, whatever its cause, ``recovery`` plans what becomes of its ticks, and the plan is
carried out in steps. The gap's ``decided_through`` moves with each step, so a leader that takes
over goes on from there.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.leader import recovery
from etcsched.core.leader.context import Context
from etcsched.core.leader.fan_outs import FanOuts
from etcsched.core.leader.matters import Matter, job_matter, run_matter
from etcsched.core.leader.missed_in_a_row import MissedInARow
from etcsched.core.leader.open_ticks import OpenTicks
from etcsched.core.leader.outage_records import belonging_runs, buffer_ms, records_of
from etcsched.core.leader.placement import requirement_of
from etcsched.core.leader.requeue import requeue
from etcsched.core.leader.run_decider import RunDecider
from etcsched.core.leader.setbacks import ASIDE_REASON
from etcsched.core.records import CLUSTER, FanOut, Gap, Job, Kind, Run
from etcsched.core.states import Origin, RunState
from etcsched.core.timeline import ticks
from etcsched.core.times import instant_after, ms_of, utc_of
from etcsched.core.view import Entry


class Ruling(enum.Enum):
    """What a job's outage says of one of its ticks."""

    NONE = "it is a tick like any other"
    DECIDED = "it is decided, or waits in an open gap"
    WAIT = "a step of the recovery will decide it"
    CHOSEN = "missed, and runs"
    LATE = "runs in the ordinary way"
    MISSED = "missed, and doesn't run"


class _Recovery:
    """An outage that is over and whose ticks are being decided.

    ``alone_ms``: ticks up to it are decided one by one, since an earlier leader may have decided
    some of them; later ones step by step. A step that ran into a tick that is decided already is
    followed by *cautious* ones, of one tick each (``single_ms``), which find out which ones are
    (``known``). So does a missed tick that is decided by itself in such a step (``miss_alone``).
    """

    __slots__ = ("after_ms", "alone_ms", "is_cautious", "known", "plan", "single_ms")

    def __init__(self, plan: recovery.Plan, after_ms: int, alone_ms: int) -> None:
        self.plan = plan
        self.after_ms = after_ms
        self.alone_ms = alone_ms
        self.is_cautious = False
        self.single_ms: int | None = None
        self.known: set[int] = set()


class Outages:
    def __init__(
        self,
        context: Context,
        open_ticks: OpenTicks,
        runs: RunDecider,
        fan_outs: FanOuts,
        *,
        watermark_ms: int,
    ) -> None:
        """``watermark_ms`` is where this leader found the watermark. No one decided from then on
        until now, but for single ticks of the next ``decide_ahead_s``."""
        self._context = context
        self._view = context.view
        self._open = open_ticks
        self._runs = runs
        self._fan_outs = fan_outs
        self._maybe_decided_ms = watermark_ms + int(context.options.decide_ahead_s * 1000)
        self._begun_ms = context.wall_ms
        self._missed = MissedInARow(context.view, runs.chains)
        self._recoveries: dict[str, _Recovery] = {}
        self._due: dict[str, None] = {}
        self._windows: dict[str, tuple[int, float]] = {}
        """Of jobs whose outage is open: the edge of a window at which they are looked at again, and
        when that is."""

    # --- what others ask

    def ruling(self, name: str, tick_ms: int) -> Ruling:
        recovering = self._recoveries.get(name)
        gap = self._view.gaps.get(name)
        if gap is not None:
            waits = not gap.record.closed and recovering is None
            if waits or tick_ms <= ms_of(gap.record.decided_through):
                return Ruling.DECIDED
        if recovering is None:
            return Ruling.NONE
        if tick_ms > recovering.alone_ms:
            return Ruling.WAIT
        if tick_ms in recovering.known:
            return Ruling.DECIDED
        if tick_ms in recovering.plan.chosen:
            return Ruling.CHOSEN
        return Ruling.LATE if tick_ms >= recovering.plan.late_from_ms else Ruling.MISSED

    def after_ms(self, name: str) -> int:
        """The job's ticks up to here are decided: by the watermark, or by its gap's account."""
        watermark = self._view.watermark
        through_ms = ms_of(watermark.record.through) if watermark is not None else 0
        gap = self._view.gaps.get(name)
        if gap is not None:
            through_ms = max(through_ms, ms_of(gap.record.decided_through))
        return through_ms

    def has_open_gap(self, name: str) -> bool:
        gap = self._view.gaps.get(name)
        return gap is not None and not gap.record.closed

    def waits_in_gap(self, name: str) -> bool:
        """Whether what the job's open gap doesn't account for is decided from there. Not so while
        ticks that an earlier leader may have decided are decided one by one."""
        recovering = self._recoveries.get(name)
        is_alone = recovering is not None and self.after_ms(name) < recovering.alone_ms
        return self.has_open_gap(name) and not is_alone

    def due_ticks(self, job: Job, after_ms: int, through_ms: int) -> Iterator[int]:
        return ticks(job, self._view.limits_of(job), after_ms, through_ms)

    def holds(self, entry: Entry[Job], tick_ms: int) -> bool:
        """Of a job that is set aside: whether its open gap has this tick by now. If not, it is
        opened, and the tick is asked about again."""
        name = entry.record.name
        recovering, gap = self._recoveries.get(name), self._view.gaps.get(name)
        if self._context.is_busy(job_matter(name)):
            return False
        if recovering is not None:
            self._due[name] = None
        if gap is not None and (not gap.record.closed or tick_ms <= self.after_ms(name)):
            return True
        if recovering is None or tick_ms <= recovering.alone_ms:
            self.open_gap(entry, tick_ms - 1)
        return False

    # --- events

    def leader_was_away(self, job: Job) -> None:
        """Take up the ticks of a job that came due while no one led."""
        name, after_ms, through_ms = job.name, self.after_ms(job.name), self._begun_ms
        first_ms = next(self.due_ticks(job, after_ms, through_ms), None)
        if first_ms is None:
            return
        if first_ms >= through_ms - buffer_ms(job):
            for tick_ms in self.due_ticks(job, after_ms, through_ms):
                self._open.add(name, tick_ms, job.priority)
        else:
            self._begin_recovery(job, after_ms, through_ms)

    def eligibility_changed(self, agent: str | None = None) -> None:
        """This agent (None: any) came, or changed: outages of jobs that it may run are over."""
        for name, gap in self._view.gaps.items():
            if not gap.record.closed and self._may_run(agent, name):
                self._end_if_over(name)

    def job_changed(self, name: str) -> None:
        """What isn't decided yet goes by the job as it is now."""
        recovering, entry = self._recoveries.get(name), self._view.jobs.get(name)
        if recovering is not None and entry is not None:
            through_ms = recovering.plan.through_ms
            with self._context.contain(job_matter(name)):
                recovering.plan = self._plan(entry.record, recovering.after_ms, through_ms)
        self.look_at(name)

    def limits_changed(self) -> None:
        """A pause or a calendar: other ticks of an outage may be due than when it was planned."""
        for name in self._recoveries:
            self.job_changed(name)

    def look_at(self, name: str) -> None:
        """Something that the job's outage waits for may have changed."""
        if name in self._recoveries:
            self._due[name] = None
        elif self.has_open_gap(name):
            self._end_if_over(name)

    def step_committed(self, name: str) -> None:
        recovering = self._recoveries.get(name)
        if recovering is not None and recovering.single_ms not in recovering.known:
            recovering.is_cautious = False

    def step_refused(self, name: str) -> None:
        """One of the records that a step would have created is there already."""
        recovering = self._recoveries.get(name)
        if recovering is None:
            return
        if recovering.single_ms is not None:
            recovering.known.add(recovering.single_ms)
        recovering.is_cautious = True

    @property
    def is_due(self) -> bool:
        return bool(self._due)

    def decide(self) -> None:
        """The next step of each recovery that may take one."""
        outage_jobs, self._runs.waiting.outage_jobs = self._runs.waiting.outage_jobs, {}
        for name in outage_jobs:
            with self._context.contain(job_matter(name)):
                self._take_in_waiting(name)
        due, self._due = self._due, {}
        for name in due:
            if name not in self._recoveries:
                continue
            with self._context.contain(job_matter(name)):
                self._go_on(name)

    # --- gaps

    def open_gap(self, entry: Entry[Job], decided_through_ms: int) -> None:
        """From now on the job's later ticks wait for an eligible agent."""
        context, name = self._context, entry.record.name
        recovering = self._recoveries.get(name)
        is_alone = recovering is not None and recovering.alone_ms > decided_through_ms
        gap = Gap(
            job=name,
            since=context.now,
            decided_through=utc_of(decided_through_ms),
            reason=context.why_outage(entry.record),
            alone_through=utc_of(recovering.alone_ms) if recovering and is_alone else None,
        )
        write = fx.OpenGap(
            seq=context.next_seq(),
            gap=gap,
            gap_revision=self._view.seen(Kind.GAP, name),
            job_revision=entry.mod_revision,
            pause_revision=self._view.seen(Kind.PAUSE, name),
            cluster_pause_revision=self._view.seen(Kind.PAUSE, CLUSTER),
            calendars=self._view.calendars_seen(entry.record),
        )
        context.write(write, job_matter(name))
        context.say(f"outage of {name} begins: {gap.reason}", warn=True)

    def forget_closed_gaps(self, watermark_ms: int) -> None:
        """What a closed gap says, the watermark says as well once it has passed it."""
        context = self._context
        for name, gap in self._view.gaps.items():
            is_passed = gap.record.closed and ms_of(gap.record.decided_through) <= watermark_ms
            # (Its job's matter may be busy whenever the watermark moves. The revision tells.)
            matter = ("closed_gap", name)
            if is_passed and name not in self._recoveries and not context.is_busy(matter):
                write = fx.ForgetGap(seq=context.next_seq(), job=name, revision=gap.mod_revision)
                context.write(write, matter)

    def _end_if_over(self, name: str) -> None:
        entry = self._view.jobs.get(name)
        if entry is None or name in self._recoveries:
            return
        with self._context.contain(job_matter(name)):
            if not self._lasts(entry.record):
                after_ms = ms_of(self._view.gaps[name].record.decided_through)
                self._begin_recovery(entry.record, after_ms, self._context.wall_ms)
            else:
                self._keep_reason(entry.record)
                self._wake_at_window(entry.record)

    def _keep_reason(self, job: Job) -> None:
        """Whether it is set aside: who looks for what to mend has to know. Which agents there are
        is seen elsewhere."""
        context, gap = self._context, self._view.gaps[job.name]
        is_said = gap.record.reason == ASIDE_REASON
        if is_said is context.is_set_aside(job.name) or context.is_busy(job_matter(job.name)):
            return
        kept = replace(gap.record, reason=context.why_outage(job))
        write = fx.KeepGap(seq=context.next_seq(), gap=kept, gap_revision=gap.mod_revision)
        context.write(write, job_matter(job.name))
        context.say(f"outage of {job.name} goes on: {kept.reason}", warn=True)

    def _lasts(self, job: Job) -> bool:
        """Whether an outage of the job can't end now."""
        return self._context.waits_for_agent(job) or self._context.is_set_aside(job.name)

    def _is_unsettled(self, name: str) -> bool:
        """What a job that is set aside has in flight may never get through."""
        entry = self._view.jobs.get(name)
        is_per_host = entry is not None and entry.record.per_host
        if is_per_host or self._context.is_set_aside(name):
            return self._context.is_busy(job_matter(name))
        return self._runs.is_unsettled(name)

    def _wake_at_window(self, job: Job) -> None:
        """With its last window a job may start no more, and then its outage is over."""
        context, name = self._context, job.name
        edge_ms = context.next_window_ms(job)
        known_ms, wakes_s = self._windows.get(name, (None, 0.0))
        # A timer is early if the clock went back.
        if edge_ms is not None and (edge_ms != known_ms or wakes_s <= context.mono_s):
            wakes_s = context.mono_s + (edge_ms - context.wall_ms) / 1000
            self._windows[name] = (edge_ms, wakes_s)
            context.wake_at(wakes_s, job_matter(name))

    def _may_run(self, agent: str | None, name: str) -> bool:
        job, presence = self._view.jobs.get(name), self._view.presences.get(agent or "")
        if agent is None or job is None:
            return job is not None
        requirement, agents = requirement_of(job.record), self._context.agents
        return presence is not None and agents.is_eligible(requirement, presence.record)

    # --- recoveries

    def _begin_recovery(self, job: Job, after_ms: int, through_ms: int) -> None:
        name = job.name
        plan = self._plan(job, after_ms, through_ms)
        alone_ms = after_ms
        if not self.has_open_gap(name):
            if not self._lasts(job):
                alone_ms = max(after_ms, min(self._maybe_decided_ms, through_ms))
                for tick_ms in self.due_ticks(job, after_ms, alone_ms):
                    self._open.add(name, tick_ms, job.priority)
            self._open.hold(name, alone_ms + 1)
        self._recoveries[name] = _Recovery(plan, after_ms, alone_ms)
        self._runs.waiting.recovering.add(name)
        self._due[name] = None

    def _plan(self, job: Job, after_ms: int, through_ms: int) -> recovery.Plan:
        can_start = self._context.can_start(job)
        return recovery.plan(job, self._view.limits_of(job), after_ms, through_ms, can_start)

    def _go_on(self, name: str) -> None:
        """One step, once all before it is settled (else whatever settles wakes the job again)."""
        recovering = self._recoveries[name]
        entry = self._view.jobs.get(name)
        if self._is_unsettled(name):
            return
        if entry is not None and not self._lasts(entry.record):
            self._resolve_waiting(entry, recovering)
            if self._is_unsettled(name):
                return  # The oldest of all: they go first.
        elif entry is not None and self.has_open_gap(name):
            self._drop(name)
            self._end_if_over(name)
            return
        first_ms = self._open.first_of(name)
        if first_ms is not None and first_ms <= recovering.alone_ms:
            return
        gap = self._view.gaps.get(name)
        after_ms = max(recovering.alone_ms, ms_of(gap.record.decided_through) if gap else 0)
        is_done = gap is not None and gap.record.closed and after_ms >= recovering.plan.through_ms
        if entry is None or is_done:
            self._recovered(name)
        elif not self._lasts(entry.record):
            if self.has_open_gap(name):
                # From here on the gap holds what is undecided; the watermark needn't.
                self._open.release(name)
            self._write_step(entry, gap, recovering, after_ms)
        else:
            self.open_gap(entry, after_ms)

    def _write_step(
        self, entry: Entry[Job], gap: Entry[Gap] | None, recovering: _Recovery, after_ms: int
    ) -> None:
        context, job = self._context, entry.record
        name = job.name
        now_ms = max(recovering.plan.through_ms, context.wall_ms)
        # A leader whose clock was ahead took the watermark there: nobody but the gap knows of the
        # ticks up to it, so it isn't closed before they are decided.
        watermark = self._view.watermark
        through_ms = max(now_ms, ms_of(watermark.record.through) if watermark is not None else 0)
        # So may the gap be; and its account never goes back.
        through_ms = max(through_ms, after_ms)
        plan = replace(recovering.plan, now_ms=now_ms, through_ms=through_ms)
        if not context.can_start(job):  # Its last window may have closed since it was planned.
            plan = replace(plan, chosen=frozenset(), late_from_ms=now_ms + 1)
        alone_through = gap.record.alone_through if gap is not None else None
        is_single = recovering.is_cautious or utc_of(after_ms) < (alone_through or "")
        most = 1 if is_single else recovery.MAX_TICKS_PER_STEP
        agents = context.agents.eligible(requirement_of(job)) if job.per_host else ()
        most_runs = recovery.most_runs(agents)
        limits = self._view.limits_of(job)
        part = recovery.next_step(job, limits, plan, after_ms, most, most_runs)
        created, archived = self._records_of(job, part)
        asked = self._missed.first_asked(job, gap, archived)
        if asked is not None and (created or len(archived) > 1 or part.chosen or part.late):
            # What follows it goes into the same transaction, which then is about this record alone.
            first_ms, last_ms = ms_of(asked.due_at), ms_of(asked.missed_through or asked.due_at)
            is_first = first_ms == part.first_ms
            plan = replace(plan, through_ms=last_ms if is_first else first_ms - 1)
            part = recovery.next_step(job, limits, plan, after_ms, most, most_runs)
            created, archived = self._records_of(job, part)
        fan_outs = self._fan_outs_of(job, part) if job.per_host else ()
        if context.is_busy(*_made(created, fan_outs)):
            return  # An earlier leader decided one, which is being resubmitted; that goes first.
        recovering.single_ms = part.first_ms if is_single else None
        if recovering.single_ms in recovering.known:
            created, archived, fan_outs = (), (), ()
        decided = Gap(
            job=name,
            since=utc_of(after_ms),
            decided_through=utc_of(part.through_ms),
            reason="no leader decided",
            closed=part.through_ms >= through_ms,
        )
        self._write_decided(entry, gap, decided, after_ms, created, archived, fan_outs)

    def miss_alone(self, entry: Entry[Job], tick_ms: int) -> None:
        """Of a job whose missed ticks are followed: a missed tick that is decided by itself. The
        gap accounts for it from then on, so that the next one is known to go on with it, whoever
        decides that."""
        name = entry.record.name
        recovering, gap = self._recoveries[name], self._view.gaps.get(name)
        recovering.single_ms = tick_ms
        stretch = recovery.Stretch(tick_ms, tick_ms, 1)
        part = recovery.Step(tick_ms, (), (), (stretch,), tick_ms)
        _, archived = self._records_of(entry.record, part)
        decided = Gap(
            job=name,
            since=utc_of(recovering.after_ms),
            decided_through=utc_of(tick_ms),
            reason="no leader decided",
            alone_through=utc_of(recovering.alone_ms),
        )
        self._write_decided(entry, gap, decided, tick_ms - 1, (), archived)

    def _write_decided(
        self,
        entry: Entry[Job],
        gap: Entry[Gap] | None,
        decided: Gap,
        after_ms: int,
        created: tuple[Run, ...],
        archived: tuple[Run, ...],
        fan_outs: tuple[FanOut, ...] = (),
    ) -> None:
        """``decided`` is the gap's next account, if none is open yet."""
        context, job, chains = self._context, entry.record, self._runs.chains
        name, following = job.name, None
        is_open = gap is not None and not gap.record.closed
        if gap is not None and is_open:
            alone_through = decided.alone_through or gap.record.alone_through
            decided = replace(
                decided, since=gap.record.since, reason=gap.record.reason,
                alone_through=alone_through,
            )  # fmt: skip
        if (decided.alone_through or "") <= decided.decided_through:
            decided = replace(decided, alone_through=None)
        followed = self._missed.followed(job, gap, created, archived, fan_outs, decided)
        if self._missed.first_asked(job, gap, archived) is not None:
            told = self._missed.told(job, gap, archived[0])
            over, following = chains.after(archived[0], told=told)
            if chains.is_beginning(following):
                chains.wait(following, job_matter(name))
                return
            archived = (over,)
        else:
            told_of = ((run, self._missed.told(job, gap, run)) for run in archived)
            archived = tuple(
                chains.after(run, told=told)[0] if told else run for run, told in told_of
            )
        if not decided.closed:
            decided = replace(decided, followed=followed)
        context.write(
            fx.RecoverTicks(
                seq=context.next_seq(),
                job=name,
                job_revision=entry.mod_revision,
                pause_revision=self._view.seen(Kind.PAUSE, name),
                cluster_pause_revision=self._view.seen(Kind.PAUSE, CLUSTER),
                calendars=self._view.calendars_seen(job),
                gap_revision=self._view.seen(Kind.GAP, name),
                gap=decided,
                created=created,
                archived=archived,
                fan_outs=fan_outs,
                first_tick=None if is_open else instant_after(utc_of(after_ms)),
                following=following,
            ),
            job_matter(name),
            *_made(created, fan_outs),
            *chains.matters(following),
        )
        chains.sent(following)
        if created or fan_outs or archived:
            follow, left = len(created) + len(fan_outs), len(archived)
            text = f"outage of {name}: {follow} ticks follow, {left} records of ticks that don't"
            context.say(text, warn=bool(archived))

    def _records_of(self, job: Job, part: recovery.Step) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
        active = self._view.active_runs(job.name)
        return records_of(self._view, self._context.author, job, part, active)

    def _recovered(self, name: str) -> None:
        """Every tick of the outage is decided."""
        self._drop(name)
        self._runs.look_at_job(name)

    def _drop(self, name: str) -> None:
        del self._recoveries[name]
        self._runs.waiting.recovering.discard(name)
        self._open.release(name)
        self._open.wake(name)
        self._runs.look_at_waiting(name)  # Those below it in a conflict group waited for it,
        self._runs.look_at_bound(name)  # and runs that are bound to an agent for its later ticks.

    def _fan_outs_of(self, job: Job, part: recovery.Step) -> tuple[FanOut, ...]:
        """For the agents that are here as the outage ends."""
        missed = (Origin.RECOVERY, "recovered: missed in an outage")
        late = (Origin.SCHEDULE, "late after an outage")
        return (
            *(self._fan_outs.of(job, tick_ms, *missed) for tick_ms in part.chosen),
            *(self._fan_outs.of(job, tick_ms, *late) for tick_ms in part.late),
        )

    # --- runs that waited when the outage began

    def _take_in_waiting(self, name: str) -> None:
        """A run waited until its buffer ended, and no eligible agent or no leader was there."""
        entry = self._view.jobs.get(name)
        if entry is None or name in self._recoveries:
            return
        if self._runs.is_unsettled(name):
            self._runs.look_at_job(name)
        elif not self._lasts(entry.record):
            if self._open.first_of(name) is not None:
                self._runs.look_at_job(name)  # A later tick is a run first, if it becomes one.
            else:
                self._resolve_waiting(entry, None)
        elif not self.has_open_gap(name):
            first_ms = self._open.first_of(name)
            decided_ms = self._context.wall_ms if first_ms is None else first_ms - 1
            self.open_gap(entry, max(decided_ms, self.after_ms(name)))

    def _resolve_waiting(self, entry: Entry[Job], recovering: _Recovery | None) -> None:
        """Runs that were ready as the outage began and whose buffer ended in it are ticks of it,
        and follow its mode. None: it had no other ticks."""
        context, job, chosen, is_followed = self._context, entry.record, frozenset[int](), False
        if recovering is not None:
            chosen = recovering.plan.chosen
            late_ms = max(recovering.after_ms, recovering.plan.late_from_ms - 1)
            is_followed = any(True for _ in self.due_ticks(job, late_ms, context.wall_ms))
        belonging = belonging_runs(
            self._view, job, context.wall_ms, chosen, is_followed=is_followed
        )
        for run, is_chosen in belonging:
            key = (run.record.job, run.record.id)
            if context.is_busy(run_matter(key)):
                self._runs.look_at(key)
            elif is_chosen:
                cause = "recovered: its buffer ended in an outage"
                requeue(context, run, RunState.QUEUED, cause, origin=Origin.RECOVERY)
            else:
                self._runs.ends.end_waiting(run, RunState.MISSED, "missed in an outage")


def _made(created: Iterable[Run], fan_outs: Iterable[FanOut]) -> list[Matter]:
    made = [(run.job, run.id) for run in created]
    return [run_matter(key) for key in (*made, *((each.job, each.run) for each in fan_outs))]
