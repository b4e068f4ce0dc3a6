"""What becomes of each tick: a run, a record of why not, or a place in its job's outage.

A tick is *open* from the moment it is due until its decision is confirmed by etcd; the watermark
never passes an open tick. While a leader leads, ticks come from the index, one by one. What was
due before it led, or while no eligible agent lived, is an outage (``recovery``).
"""

from __future__ import annotations

import heapq

from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.leader import recovery
from etcsched.core.leader.context import Context, Matter
from etcsched.core.leader.placement import requirement_of
from etcsched.core.leader.run_decider import RunDecider, matter_of
from etcsched.core.leader.runs import assignment_of, step, tick_run
from etcsched.core.leader.ticks import TickIndex
from etcsched.core.records import CLUSTER, Gap, Job, Run
from etcsched.core.states import Origin, Overlap, RunState
from etcsched.core.timeline import ticks
from etcsched.core.times import Utc, ms_of, tick_id, utc_of
from etcsched.core.view import Entry, revision_of

_OpenTick = tuple[int, str]


class _Recovering:
    """``alone_ms``: ticks up to it are decided one by one, later ones step by step."""

    __slots__ = ("alone_ms", "has_written", "plan")

    def __init__(self, plan: recovery.Plan, alone_ms: int) -> None:
        self.plan = plan
        self.alone_ms = alone_ms
        self.has_written = False


def _job_matter(job: str) -> Matter:
    return ("job", job)


class TickDecider:
    def __init__(
        self, context: Context, index: TickIndex, runs: RunDecider, watermark_ms: int
    ) -> None:
        self._context = context
        self._view = context.view
        self._index = index
        self._runs = runs
        self._taken_over_at_ms = watermark_ms
        self._begun_ms = context.wall_ms
        self._backlog: list[_OpenTick] = []
        self._open: dict[str, set[int]] = {}
        self._open_queue: list[_OpenTick] = []
        self._recovering: dict[str, _Recovering] = {}

    # --- what is open

    def decided_through_ms(self) -> int:
        """Everything up to this instant is decided and confirmed."""
        while self._open_queue and not self._is_open(*self._open_queue[0]):
            heapq.heappop(self._open_queue)
        through_ms = self._index.through_ms
        if self._open_queue:
            through_ms = min(through_ms, self._open_queue[0][0] - 1)
        return through_ms

    def next_due_ms(self) -> int | None:
        return self._index.next_due_ms()

    @property
    def open_count(self) -> int:
        return sum(map(len, self._open.values()))

    def _is_open(self, tick_ms: int, job: str) -> bool:
        return tick_ms in self._open.get(job, ())

    def _make_open(self, tick_ms: int, job: str) -> bool:
        if self._is_open(tick_ms, job):
            return False
        self._open.setdefault(job, set()).add(tick_ms)
        heapq.heappush(self._open_queue, (tick_ms, job))
        return True

    def _queue(self, tick_ms: int, job: str) -> None:
        if self._make_open(tick_ms, job):
            heapq.heappush(self._backlog, (tick_ms, job))

    def confirm(self, job: str, tick_ms: int) -> None:
        """The tick's decision is in etcd."""
        open_ticks = self._open.get(job)
        if open_ticks is not None:
            open_ticks.discard(tick_ms)
            if not open_ticks:
                del self._open[job]

    def decide_again(self, job: str, tick_ms: int) -> None:
        """The tick's decision rested on something that had changed."""
        if self._is_open(tick_ms, job):
            heapq.heappush(self._backlog, (tick_ms, job))

    # --- events

    def take_over(self) -> None:
        """Decide what was due while no one led: all jobs that had ticks since the watermark."""
        for name in self._index.skip_to(self._begun_ms):
            entry = self._view.jobs[name].record
            if not self._has_open_gap(name):
                self._catch_up(entry, self._after_ms(name))

    def job_changed(self, name: str) -> None:
        """A new or changed definition: what it makes due up to the index's place, and after."""
        entry = self._view.jobs.get(name)
        if entry is None:
            self._index.discard(name)
            return
        job = entry.record
        self._index.put(job)
        since_ms = ms_of(job.current.since) - 1
        after_ms = max(self._after_ms(name), since_ms)
        if self._has_open_gap(name):
            return
        for tick_ms in ticks(job, *self._pauses(name), after_ms, self._index.through_ms):
            self._queue(tick_ms, name)

    def eligibility_changed(self) -> None:
        """An agent came, or changed: outages of jobs that it may run are over."""
        for name, entry in self._view.gaps.items():
            if not entry.record.closed:
                self._end_outage_if_over(name)

    def look_at_outage(self, name: str) -> None:
        """The job's gap, or what it waits for, has changed."""
        gap = self._view.gaps.get(name)
        if gap is not None and not gap.record.closed:
            self._end_outage_if_over(name)

    def decide(self) -> None:
        """Everything that is due by now and may be decided yet."""
        context = self._context
        for tick_ms, names in self._index.pop_due(context.wall_ms):
            for name in names:
                self._queue(tick_ms, name)
        for name in list(self._runs.outage_jobs):
            self._begin_or_end_outage_of_waiting(name)
        self._runs.outage_jobs.clear()
        watermark = self._view.watermark
        if watermark is None:
            return
        window_s = context.options.decide_ahead_s
        horizon_ms = ms_of(watermark.record.through) + int(window_s * 1000)
        postponed: list[_OpenTick] = []
        while self._backlog and self._backlog[0][0] <= horizon_ms:
            tick_ms, name = heapq.heappop(self._backlog)
            if self._is_open(tick_ms, name) and not self._decide_tick(name, tick_ms):
                postponed.append((tick_ms, name))
        for tick in postponed:
            heapq.heappush(self._backlog, tick)
        for name in list(self._recovering):
            self._go_on_recovering(name)

    # --- one tick

    def _decide_tick(self, name: str, tick_ms: int) -> bool:
        """False: something that it depends on is unsettled; ask again when that is settled."""
        context = self._context
        if context.is_busy(_job_matter(name)) or self._has_unsettled_run(name):
            return False
        entry = self._view.jobs.get(name)
        is_known = (name, tick_id(tick_ms)) in self._view.runs  # An earlier leader decided it.
        if entry is None or is_known or not self._is_due(entry.record, tick_ms):
            self.confirm(name, tick_ms)
            return True
        recovering = self._recovering.get(name)
        gap = self._view.gaps.get(name)
        if gap is not None:
            is_decided = tick_ms <= ms_of(gap.record.decided_through)
            if (gap.record.closed and is_decided) or not (gap.record.closed or recovering):
                self.confirm(name, tick_ms)  # It belongs to the outage.
                return True
        if recovering is not None:
            if tick_ms > recovering.alone_ms:
                return self._is_decided_by_gap(name, tick_ms)
            self._decide_planned(entry, tick_ms, recovering.plan)
        elif not context.can_start(entry.record):
            self._create(entry, tick_ms, RunState.MISSED, "the job was stopped before it started")
        elif context.has_eligible(requirement_of(entry.record)):
            self._create_ordinary(entry, tick_ms)
        else:
            self._open_gap(entry, tick_ms - 1)
            return False
        return True

    def _is_decided_by_gap(self, name: str, tick_ms: int) -> bool:
        gap = self._view.gaps.get(name)
        if gap is None or tick_ms > ms_of(gap.record.decided_through):
            return False
        self.confirm(name, tick_ms)
        return True

    def _has_unsettled_run(self, name: str) -> bool:
        return any(
            self._context.is_busy(matter_of((name, run)))
            for run in self._view.runs_of_job.get(name, ())
        )

    def _create_ordinary(self, entry: Entry[Job], tick_ms: int) -> None:
        job = entry.record
        state = self._state_by_overlap(job, tick_ms)
        if state is RunState.READY and not self._view.is_paused(job.name):
            presence = self._context.choose(requirement_of(job))
            if presence is not None:
                self._create(entry, tick_ms, RunState.ASSIGNED, "due", presence.record.agent)
                return
        causes = {
            RunState.OVERLAPPED: "the job's last run was still active",
            RunState.QUEUED: "due behind another run of its job",
        }
        self._create(entry, tick_ms, state, causes.get(state, "due, no slot is free"))

    def _active_states(self, name: str) -> list[RunState]:
        active = self._view.runs_of_job.get(name, ())
        return [self._view.runs[(name, run)].record.state for run in active]

    def _state_by_overlap(self, job: Job, tick_ms: int) -> RunState:
        """What a new tick becomes beside the job's active runs. A job that catches up on an
        outage queues its new ticks, whatever ``overlap`` says."""
        states = self._active_states(job.name)
        if RunState.QUEUED in states:
            return RunState.QUEUED
        if not states:
            return RunState.READY
        match job.overlap:
            case Overlap.ALLOW:
                return RunState.READY
            case Overlap.QUEUE:
                return RunState.QUEUED
            case Overlap.SKIP:
                if tick_ms <= self._begun_ms and self._are_all_late(job.name):
                    return RunState.QUEUED
                return RunState.OVERLAPPED

    def _are_all_late(self, name: str) -> bool:
        """Whether the job's active runs all came due, as this tick did, while no one led. They
        run one after the other then: that they came at once is no fault of the job's."""
        for run_id in self._view.runs_of_job.get(name, ()):
            run = self._view.runs[(name, run_id)].record
            at_ms = ms_of(run.scheduled_at or run.created_at)
            if not self._taken_over_at_ms < at_ms <= self._begun_ms:
                return False
        return True

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
        context.write(
            fx.CreateRun(
                seq=context.next_seq(),
                run=run,
                seen=seen,
                is_tick=True,
                assignment=assignment,
                presence_revision=revision_of(presence),
            ),
            matter_of((run.job, run.id)),
            _job_matter(job.name),
            agent=agent,
        )
        if state is not RunState.ASSIGNED:
            context.say(f"{state.value}: {cause}", run=(run.job, run.id))

    # --- outages

    def _open_gap(self, entry: Entry[Job], decided_through_ms: int) -> None:
        """From this tick on, the job's ticks wait for an eligible agent."""
        context, name = self._context, entry.record.name
        old = self._view.gaps.get(name)
        if old is not None and not old.record.closed:
            return
        if old is not None:
            self._forget_gap(name, old)
            return
        through = utc_of(decided_through_ms)
        gap = Gap(
            job=name,
            since=context.now,
            decided_through=through,
            reason="no eligible agent lives",
        )
        context.write(
            fx.OpenGap(seq=context.next_seq(), gap=gap, job_revision=entry.mod_revision),
            _job_matter(name),
        )
        context.say(f"outage of {name} begins: {gap.reason}", warn=True)

    def _begin_or_end_outage_of_waiting(self, name: str) -> None:
        """A run waited until its buffer ended, with no eligible agent or no leader there."""
        entry = self._view.jobs.get(name)
        if entry is None or name in self._recovering:
            return
        if self._context.is_busy(_job_matter(name)) or self._has_unsettled_run(name):
            self._runs.look_at_job(name)
        elif self._context.has_eligible(requirement_of(entry.record)):
            self._resolve_waiting(entry)
        elif not self._has_open_gap(name):
            first_open_ms = min(self._open.get(name, ()), default=self._index.through_ms + 1)
            self._open_gap(entry, first_open_ms - 1)

    def _end_outage_if_over(self, name: str) -> None:
        entry = self._view.jobs.get(name)
        if entry is None or name in self._recovering:
            return
        job = entry.record
        stopped = not self._context.can_start(job)
        if not stopped and not self._context.has_eligible(requirement_of(job)):
            return
        gap = self._view.gaps[name].record
        self._begin_recovery(job, ms_of(gap.decided_through), self._context.wall_ms)

    def _catch_up(self, job: Job, after_ms: int) -> None:
        """A leader's outage: late ticks run in the ordinary way, missed ones by the mode."""
        name, through_ms = job.name, self._begun_ms
        first = next(ticks(job, *self._pauses(name), after_ms, through_ms), None)
        if first is None:
            return
        late_from_ms = through_ms - int(job.pickup_buffer_s * 1000)
        if first >= late_from_ms or not self._context.can_start(job):
            within = ticks(job, *self._pauses(name), after_ms, through_ms)
            if self._context.can_start(job):
                for tick_ms in within:
                    self._queue(tick_ms, name)
                return
        self._begin_recovery(job, after_ms, through_ms)

    def _begin_recovery(self, job: Job, after_ms: int, through_ms: int) -> None:
        name = job.name
        can_start = self._context.can_start(job)
        plan = recovery.plan(job, self._pauses(name), after_ms, through_ms, can_start)
        self._context.say(f"outage of {name} is over: {len(plan.chosen)} missed ticks will run")
        alone_ms = after_ms
        if not self._has_open_gap(name):
            # What an earlier leader may have decided one by one is decided one by one again:
            # each such tick's transaction finds out whether it was.
            ahead_ms = int(self._context.options.decide_ahead_s * 1000)
            alone_ms = max(after_ms, min(self._taken_over_at_ms + ahead_ms, through_ms))
            for tick_ms in ticks(job, *self._pauses(name), after_ms, alone_ms):
                self._queue(tick_ms, name)
        self._recovering[name] = _Recovering(plan, alone_ms)
        self._make_open(alone_ms + 1, name)

    def _go_on_recovering(self, name: str) -> None:
        """The next step, once all before it is settled."""
        context, recovering = self._context, self._recovering[name]
        if context.is_busy(_job_matter(name)) or self._has_unsettled_run(name):
            return
        if min(self._open.get(name, ()), default=recovering.alone_ms + 1) <= recovering.alone_ms:
            return  # The ticks that are decided one by one come first.
        entry = self._view.jobs.get(name)
        gap = self._view.gaps.get(name)
        after_ms = recovering.alone_ms
        if gap is not None:
            after_ms = max(after_ms, ms_of(gap.record.decided_through))
        through_ms = max(recovering.plan.through_ms, self._index.through_ms)
        if entry is None or (gap is not None and gap.record.closed and recovering.has_written):
            self._recovered(name)
            return
        plan = replace(recovering.plan, through_ms=through_ms)
        part = recovery.next_step(entry.record, self._pauses(name), plan, after_ms)
        recovering.has_written = True
        self._write_step(entry, gap, part, after_ms, through_ms)

    def _write_step(
        self,
        entry: Entry[Job],
        gap: Entry[Gap] | None,
        part: recovery.Step,
        after_ms: int,
        through_ms: int,
    ) -> None:
        context, name = self._context, entry.record.name
        created, archived = self._records_of(entry.record, part)
        is_open = gap is not None and not gap.record.closed
        decided = Gap(
            job=name,
            since=gap.record.since if gap is not None and is_open else utc_of(after_ms),
            decided_through=utc_of(part.through_ms),
            reason=gap.record.reason if gap is not None and is_open else "no leader decided",
            closed=part.through_ms >= through_ms,
        )
        context.write(
            fx.RecoverTicks(
                seq=context.next_seq(),
                job=name,
                job_revision=entry.mod_revision,
                pause_revision=revision_of(self._view.pauses.get(name)),
                cluster_pause_revision=revision_of(self._view.pauses.get(CLUSTER)),
                gap_revision=revision_of(gap),
                gap=decided,
                created=created,
                archived=archived,
                first_tick=None if is_open else utc_of(after_ms + 1),
            ),
            _job_matter(name),
            *(matter_of((run.job, run.id)) for run in created),
        )

    def _recovered(self, name: str) -> None:
        """Every tick of the outage is decided; waiting runs that belonged to it follow the mode."""
        recovering = self._recovering.pop(name)
        self.confirm(name, recovering.alone_ms + 1)
        entry = self._view.jobs.get(name)
        if entry is not None:
            self._resolve_waiting(entry)
        self._runs.look_at_job(name)

    def _records_of(self, job: Job, part: recovery.Step) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
        """The runs to create, and the records of ticks that don't run."""
        author = self._context.author
        created: list[Run] = []
        archived: list[Run] = []
        states = self._active_states(job.name)
        catches_up = bool(part.chosen) or RunState.QUEUED in states
        for tick_ms in part.chosen:
            cause = "recovered: missed in an outage"
            created.append(tick_run(author, job, tick_ms, RunState.QUEUED, cause, Origin.RECOVERY))
        for tick_ms in part.late:
            state = self._late_state(job, catches_up, bool(states), not created)
            cause = "late after an outage"
            if state is RunState.OVERLAPPED:
                archived.append(tick_run(author, job, tick_ms, state, cause))
            else:
                created.append(tick_run(author, job, tick_ms, state, cause))
        for stretch in part.missed:
            run = tick_run(
                author, job, stretch.first_ms, RunState.MISSED, "missed in an outage",
                missed_count=stretch.count,
                missed_through=utc_of(stretch.last_ms) if stretch.count > 1 else None,
            )  # fmt: skip
            archived.append(run)
        return tuple(created), tuple(archived)

    @staticmethod
    def _late_state(job: Job, catches_up: bool, is_active: bool, is_first: bool) -> RunState:
        """Late ticks run one after the other: that they came at once is no fault of the job's."""
        if catches_up:
            return RunState.QUEUED
        if job.overlap is Overlap.ALLOW:
            return RunState.READY
        if is_active and job.overlap is Overlap.SKIP:
            return RunState.OVERLAPPED
        return RunState.READY if is_first and not is_active else RunState.QUEUED

    def _decide_planned(self, entry: Entry[Job], tick_ms: int, plan: recovery.Plan) -> None:
        """A tick of a leader's outage that the leader before may have decided already."""
        if tick_ms in plan.chosen:
            cause = "recovered: missed in an outage"
            self._create(entry, tick_ms, RunState.QUEUED, cause, origin=Origin.RECOVERY)
        elif tick_ms >= plan.late_from_ms:
            self._create_ordinary(entry, tick_ms)
        else:
            self._create(entry, tick_ms, RunState.MISSED, "missed in an outage")

    def _resolve_waiting(self, entry: Entry[Job]) -> None:
        """Runs that were ready as the outage began and whose buffer ended in it are ticks of it."""
        job, context = entry.record, self._context
        oldest_ms = context.wall_ms - int(job.recover_within_s * 1000)
        over_ms = context.wall_ms - int(job.pickup_buffer_s * 1000)
        belonging: list[Entry[Run]] = []
        latest: Utc | None = None
        for run_id in sorted(self._view.runs_of_job.get(job.name, ())):
            run = self._view.runs[(job.name, run_id)]
            at = run.record.scheduled_at
            if at is None or run.record.origin is Origin.REQUEST:
                continue
            latest = at if latest is None else max(latest, at)
            if run.record.state is RunState.READY and ms_of(at) < over_ms:
                belonging.append(run)
        for run in belonging:
            key = (run.record.job, run.record.id)
            if context.is_busy(matter_of(key)):
                self._runs.look_at(key)
                continue
            at = run.record.scheduled_at or run.record.created_at
            chosen = recovery.is_chosen(job, at == latest, ms_of(at) >= oldest_ms)
            if chosen:
                self._make_queued(run)
            else:
                self._runs.end_waiting(run, RunState.MISSED, "missed in an outage", None)

    def _make_queued(self, entry: Entry[Run]) -> None:
        context, run = self._context, entry.record
        cause = "recovered: its buffer ended in an outage"
        context.write(
            fx.Requeue(
                seq=context.next_seq(),
                run=step(context.author, run, entry.mod_revision, RunState.QUEUED, cause),
                run_revision=entry.mod_revision,
            ),
            matter_of((run.job, run.id)),
        )

    def _forget_gap(self, name: str, gap: Entry[Gap]) -> None:
        context = self._context
        context.write(
            fx.ForgetGap(seq=context.next_seq(), job=name, revision=gap.mod_revision),
            _job_matter(name),
        )

    def forget_closed_gaps(self, watermark_ms: int) -> None:
        for name, gap in self._view.gaps.items():
            if (
                gap.record.closed
                and ms_of(gap.record.decided_through) <= watermark_ms
                and name not in self._recovering
                and not self._context.is_busy(_job_matter(name))
            ):
                self._forget_gap(name, gap)

    # --- the job's side

    def _pauses(self, name: str) -> recovery.Pauses:
        return (self._view.pause_of(name), self._view.pause_of(CLUSTER))

    def _has_open_gap(self, name: str) -> bool:
        gap = self._view.gaps.get(name)
        return gap is not None and not gap.record.closed

    def _after_ms(self, name: str) -> int:
        """Ticks up to here are decided: by the watermark, or by a closed outage."""
        watermark = self._view.watermark
        through_ms = ms_of(watermark.record.through) if watermark is not None else 0
        gap = self._view.gaps.get(name)
        if gap is not None:
            through_ms = max(through_ms, ms_of(gap.record.decided_through))
        return through_ms

    def _is_due(self, job: Job, tick_ms: int) -> bool:
        within = ticks(job, *self._pauses(job.name), tick_ms - 1, tick_ms)
        return next(within, None) is not None
