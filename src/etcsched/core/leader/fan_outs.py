"""Ticks of jobs that run on each agent (``per_host``): from one decision to one run for each agent.

The decision on such a tick is a record, the fan-out, which names the agents that were eligible. So
it is one transaction however many they are, a leader that takes over makes the same runs, and who
joins later gets none. Its runs are then made one by one, each in the order of its agent's ticks.
"""

from __future__ import annotations

from collections import defaultdict

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import Matter, job_matter, lane_matter, run_matter, turn_matter
from etcsched.core.leader.overlap import Away, state_beside
from etcsched.core.leader.placement import requirement_of
from etcsched.core.leader.run_decider import RunDecider
from etcsched.core.leader.runs import is_of_another, tick_run
from etcsched.core.records import FanOut, Job, Run, fan_out_in, host_in, lane_of
from etcsched.core.states import FINAL, Origin, RunState
from etcsched.core.times import ms_of, tick_id, utc_of
from etcsched.core.view import Entry, RunKey

_STOPPED = "the job was stopped before it started"


def fan_out_matter(key: RunKey) -> Matter:
    return ("fan_out", *key)


class FanOuts:
    def __init__(self, context: Context, runs: RunDecider, away: Away) -> None:
        self._context = context
        self._view = context.view
        self._runs = runs
        self.away = away
        self._dirty: dict[str, None] = {}
        self._made: defaultdict[RunKey, set[str]] = defaultdict(set)
        context.fanning_out.update(job for job, _ in context.view.fan_outs)

    def look_at(self, job: str) -> None:
        self._dirty[job] = None

    def look_at_all(self) -> None:
        for job, _ in self._view.fan_outs:
            self._dirty[job] = None

    # --- one decision

    def of(self, job: Job, tick_ms: int, origin: Origin, cause: str) -> FanOut:
        context = self._context
        return FanOut(
            job=job.name,
            run=tick_id(tick_ms),
            scheduled_at=utc_of(tick_ms),
            agents=context.agents.eligible(requirement_of(job)),
            origin=origin,
            cause=cause,
            at=context.now,
            term=context.term,
        )

    def decide_tick(self, entry: Entry[Job], tick_ms: int, origin: Origin, cause: str) -> None:
        context, job = self._context, entry.record
        fan_out = self.of(job, tick_ms, origin, cause)
        context.write(
            fx.CreateFanOut(
                seq=context.next_seq(),
                fan_out=fan_out,
                seen=self._view.start_seen(job.name),
                calendars=self._view.calendars_seen(job),
            ),
            run_matter((job.name, fan_out.run)),
            job_matter(job.name),
        )

    # --- and its runs

    def came(self, job: str) -> None:
        """A fan-out of this job is there: as long as its runs aren't, whoever has to wait for the
        job's ticks waits for them."""
        self._context.fanning_out.add(job)

    def made(self, run: Run) -> None:
        """The run is there, or was: its creation is confirmed."""
        if run.host:
            self._made[(run.job, fan_out_in(run.id))].add(run.host)

    def decide(self) -> None:
        dirty, self._dirty = self._dirty, {}
        if not dirty:
            return
        making: set[str] = set()
        for key in sorted(key for key in self._view.fan_outs if key[0] in dirty):
            entry = self._view.fan_outs[key]
            if not self._make_runs_safely(key, entry):
                making.add(key[0])
                continue
            if self._may_be_decided_again(entry.record):
                continue
            if not self._context.is_busy(fan_out_matter(key)):
                self._forget(key, entry)
        for job in sorted(self._context.fanning_out & dirty.keys() - making):
            self._context.fanning_out.discard(job)
            self._runs.look_at_waiting(job)
            self._runs.look_at_bound(job)

    def _may_be_decided_again(self, fan_out: FanOut) -> bool:
        """Whether its record alone says that the tick is decided: the watermark hasn't come there,
        or an outage began before it, as a leader saw it who didn't know better."""
        watermark, gap = self._view.watermark, self._view.gaps.get(fan_out.job)
        at = fan_out.scheduled_at
        if watermark is None or watermark.record.through < at:
            return True
        return gap is not None and not gap.record.closed and gap.record.decided_through < at

    def _make_runs_safely(self, key: RunKey, entry: Entry[FanOut]) -> bool:
        matter = fan_out_matter(key)
        if not self._context.rests(matter):
            with self._context.contain(matter):
                return self._make_runs(key, entry)
        return False

    def _make_runs(self, key: RunKey, entry: Entry[FanOut]) -> bool:
        """Whether all of them are there, and shown."""
        fan_out = entry.record
        job = self._view.jobs.get(fan_out.job)
        made, is_done = self._made[key], True
        for agent in fan_out.agents:
            run = (fan_out.job, f"{fan_out.run}@{agent}")
            is_there = agent in made or run in self._view.runs
            is_there = is_there and not self._context.is_busy(lane_matter(lane_of(*run)))
            if job is None or is_there:
                continue
            is_done = False
            if not self._is_unsettled(run):
                self._make(job, entry, run)
        return is_done

    def _is_unsettled(self, run: RunKey) -> bool:
        """Whether a write that concerns the run's lane is in flight."""
        context, lane = self._context, lane_of(*run)
        if context.is_busy(run_matter(run), lane_matter(lane), turn_matter(lane)):
            return True
        others = [*self._view.ids_of(lane)]
        others += (other.id for other in self._view.unbound_on(run[0], host_in(run[1])))
        return any(context.is_busy(run_matter((run[0], other))) for other in others)

    def _make(self, defined: Entry[Job], entry: Entry[FanOut], key: RunKey) -> None:
        context, fan_out, lane = self._context, entry.record, lane_of(*key)
        job = defined.record
        state, cause = self._state_of(job, fan_out, lane)
        if is_of_another(defined, entry):
            state, cause = RunState.MISSED, _STOPPED
        run = tick_run(
            context.author, job, ms_of(fan_out.scheduled_at), state, cause, fan_out.origin,
            host=host_in(key[1]),
        )  # fmt: skip
        following = None
        if state in FINAL and fan_out.origin is not Origin.RECOVERY:
            # (A late tick's would be asked once for each agent.)
            run, following = self._runs.chains.after(run)
        if self._runs.chains.is_beginning(following):
            self._runs.chains.wait(following, lane_matter(lane))
            return
        write = fx.CreateRun(
            seq=context.next_seq(),
            run=run,
            seen=self._view.start_seen(job.name),
            is_tick=False,
            fan_out_revision=entry.mod_revision,
            following=following,
        )
        matters = self._runs.chains.matters(following)
        context.write(write, run_matter(key), lane_matter(lane), *matters)
        self._runs.chains.sent(following)
        if state in FINAL:
            context.say(f"{state.value}: {cause}", run=key)

    def _state_of(self, job: Job, fan_out: FanOut, lane: str) -> tuple[RunState, str]:
        if not self._context.can_start(job):
            return RunState.MISSED, _STOPPED
        if fan_out.origin is Origin.RECOVERY:
            return RunState.QUEUED, fan_out.cause
        tick_ms, view = ms_of(fan_out.scheduled_at), self._view
        # What was chained to, say, and this agent has, is in the way here.
        beside = [*view.active_runs(lane), *view.unbound_on(job.name, host_in(lane))]
        state = state_beside(view, job, beside, tick_ms, self.away, self._context.wall_ms)
        if state is RunState.OVERLAPPED:
            return state, "the job's last run on this agent was still active"
        if state is RunState.QUEUED:
            return state, "due behind another run of its job on this agent"
        return state, fan_out.cause

    def _forget(self, key: RunKey, entry: Entry[FanOut]) -> None:
        context = self._context
        write = fx.ForgetFanOut(
            seq=context.next_seq(), job=key[0], run_id=key[1], revision=entry.mod_revision
        )
        context.write(write, fan_out_matter(key))

    def gone(self, key: RunKey) -> None:
        self._made.pop(key, None)
