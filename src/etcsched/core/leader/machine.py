"""The leader as a pure state machine: ``handle(event, now) -> effects``.

It exists for one leadership: made when this node's own term record has come by on its watch,
dropped when the leadership ends. Whatever it knows beyond the view and its reservations can be
lost without harm.

Ordering contract with the shell: the view has taken a change in before ``ViewChanged`` tells of
it; every write gets exactly one of ``WriteCommitted`` and ``WriteRefused``, or the leadership ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

from msgspec.structs import replace

from etcsched.core.clock import Instant, TickClock
from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.core.leader.context import Context, Options
from etcsched.core.leader.fan_outs import FanOuts
from etcsched.core.leader.lifecycle import LiveAgents
from etcsched.core.leader.loss import Losses
from etcsched.core.leader.matters import Matter, job_matter
from etcsched.core.leader.open_ticks import OpenTicks
from etcsched.core.leader.outages import Outages
from etcsched.core.leader.overlap import Away
from etcsched.core.leader.request_decider import RequestDecider
from etcsched.core.leader.reservation import Reservation
from etcsched.core.leader.retention import Retention
from etcsched.core.leader.run_decider import RunDecider
from etcsched.core.leader.seats import Seats
from etcsched.core.leader.tick_decider import TickDecider
from etcsched.core.leader.ticks import TickIndex
from etcsched.core.leader.upkeep import Upkeep
from etcsched.core.records import (
    CLUSTER,
    Change,
    Job,
    Kind,
    Presence,
    Run,
    Term,
    Watermark,
    host_in,
    lane_of,
)
from etcsched.core.states import FINAL, JobState, RunState
from etcsched.core.times import ms_of, utc_of
from etcsched.core.view import View, job_of, revision_of

_WATERMARK: Matter = ("watermark",)

_OF_RUN = 2
"""Whether a run is there is asked of two keys; what a tick chains to is asked after it."""

_OF_TICK = 3
"""... and in a recovery whether a fan-out is, too."""

WATERMARK_URGENT_S = 0.05
"""How often the watermark moves while ticks wait for nothing else."""


class LeaderMachine:
    def __init__(
        self,
        view: View,
        index: TickIndex,
        term: Term,
        now: Instant,
        *,
        raft_term: int,
        raft_term_since_s: float,
        options: Options | None = None,
    ) -> None:
        self._view = view
        self._index = index
        self._clock = TickClock(now)
        self._presences = {name: entry.record for name, entry in view.presences.items()}
        """As they were when somebody last looked at them."""
        self._context = context = Context(view, term.number, term.leader, options or Options())
        context.it_is(now.wall_ms, now.mono_s)
        watermark_ms = _watermark_ms(view, now.wall_ms)
        index.skip_to(watermark_ms)
        self._losses = Losses(context, raft_term, raft_term_since_s)
        self._open = OpenTicks()
        self._runs = RunDecider(context, self._losses, self._open, context.wall_ms)
        self._fan_outs = FanOuts(context, self._runs, Away(watermark_ms, context.wall_ms))
        self._outages = Outages(
            context, self._open, self._runs, self._fan_outs, watermark_ms=watermark_ms
        )
        self._ticks = TickDecider(
            context, index, self._open, self._runs, self._outages, self._fan_outs
        )
        self._requests = RequestDecider(context, self._runs)
        self._retention = Retention(context)
        self._upkeep = Upkeep(context)
        self._seats = Seats(context)
        self._live = LiveAgents(context)
        self._next_watermark_s = now.mono_s
        self._watermark_looked_at_s = now.mono_s
        self._stopped = False
        self._are_seats_new = False

    def take_over(self) -> list[fx.Effect]:
        """The first effects of this leadership: everything is looked at once."""
        self._runs.look_at_all()
        self._requests.look_at_all()
        self._fan_outs.look_at_all()
        self._live.look_at_all()
        self._upkeep.look_at_all()
        self._ticks.take_over()
        self._outages.eligibility_changed()
        return self._plan()

    def handle(self, event: ev.LeaderEvent, now: Instant) -> list[fx.Effect]:
        """What follows from an event. Nothing any more, once it has stepped down."""
        return self.handle_all((event,), now)

    def handle_all(self, events: Iterable[ev.LeaderEvent], now: Instant) -> list[fx.Effect]:
        """As ``handle``, for events that came together: they are planned on once."""
        if self._stopped:
            return []
        tick_ms = self._clock.at(now)
        if tick_ms is None:
            self._stopped = True
            return [fx.StepDown(reason="the wall clock jumped by more than 2 s")]
        self._context.it_is(tick_ms, now.mono_s)
        for event in events:
            self._take_in(event)
        return self._plan()

    def next_wake_s(self) -> float:
        """When a ``TimerFired`` is due, in monotonic seconds: ticks go by tick time, which may be
        a little apart from the wall clock."""
        context, wake_s = self._context, self._next_watermark_s
        if self.is_halfway:
            return context.mono_s
        timer_s, due_ms = context.next_timer_s(), self._index.next_due_ms()
        if timer_s is not None:
            wake_s = min(wake_s, timer_s)
        if due_ms is not None:
            wake_s = min(wake_s, context.mono_s + (due_ms - context.wall_ms) / 1000)
        return wake_s

    @property
    def is_halfway(self) -> bool:
        """Whether there is more to decide at once, after what has just been decided is sent."""
        return self._ticks.has_more

    @property
    def in_flight(self) -> int:
        """Writes without a result that the view shows."""
        return self._context.in_flight

    def is_set_aside(self, job: str) -> bool:
        """Whether its ticks wait, since etcd takes no write about it, or a decision raises."""
        return self._context.is_set_aside(job)

    @property
    def open_ticks(self) -> int:
        """Ticks that are due and not decided yet."""
        return len(self._open)

    # --- events

    def _take_in(self, event: ev.LeaderEvent) -> None:
        match event:
            case ev.ViewChanged():
                for change in event.changes:
                    self._changed(change)
            case ev.WriteCommitted():
                self._committed(event)
            case ev.WriteRefused():
                self._refused(event)
            case ev.TimerFired():
                pass
            case ev.RaftTermSeen():
                self._losses.raft_term_seen(event.raft_term, self._context.mono_s)
            case ev.LeaseAnswered():
                self._losses.answered(event.agent, event.lease, event.is_gone, event.raft_term)
                self._runs.look_at_agent(event.agent)
            case ev.ArchiveListed():
                self._retention.listed(event)
            case ev.ArchivedRead():
                self._upkeep.archived_read(event.job, event.run_id, event.run, event.revision)
                self._requests.archived_read(event.job, event.run_id, event.run, event.revision)
            case other:
                assert_never(other)

    def _changed(self, change: Change) -> None:  # noqa: C901 - one case a kind
        """Who has to look again at what, because of one change."""
        match change.kind:
            case Kind.RUN:
                self._runs.look_at((change.ids[0], change.ids[1]))
                if change.record is None:
                    self._retention.archived(change.ids[0])
                    self._context.setbacks.forget_run(change.ids[0], change.ids[1])
                elif isinstance(change.record, Run):
                    self._live.work_changed(change.record.agent)
                    if change.record.state in (RunState.HELD, RunState.ASSIGNED):
                        self._context.agents.load_changed(change.record.agent)
                if host := host_in(change.ids[1]):
                    self._live.work_changed(host)
                self._runs.look_at_waiting(lane_of(change.ids[0], change.ids[1]))
            case Kind.FAN_OUT:
                self._fan_outs.look_at(change.ids[0])
                if change.record is None:
                    self._fan_outs.gone((change.ids[0], change.ids[1]))
                    self._context.setbacks.forget_run(change.ids[0], change.ids[1])
                else:
                    self._fan_outs.came(change.ids[0])
            case Kind.ASSIGNMENT | Kind.REPORT:
                if change.kind is Kind.ASSIGNMENT:
                    self._context.agents.load_changed(change.ids[0])
                    self._live.work_changed(change.ids[0])
                self._runs.look_at((change.ids[1], change.ids[2]))
            case Kind.PRESENCE if self._shows_only_the_time(change):
                pass
            case Kind.PRESENCE | Kind.DRAIN | Kind.SEAT:
                self._context.agents.changed()
                self._runs.look_at_agent(change.ids[0])
                if self._view.settings.max_active_agents is None:
                    self._outages.eligibility_changed(change.ids[0])
                else:
                    self._are_seats_new = True  # Who stands by follows from all of them.
                if change.kind is Kind.PRESENCE:
                    self._live.look_at(change.ids[0])
            case Kind.LIVE:
                self._context.agents.changed()
                self._live.look_at(change.ids[0])
            case Kind.JOB:
                self._runs.chains.job_changed(change.ids[0])
                self._ticks.job_changed(change.ids[0])
                self._outages.job_changed(change.ids[0])
                self._runs.look_at_job(change.ids[0])
                record = change.record
                if isinstance(record, Job):
                    is_deleted = record.current.state is JobState.DELETED
                    since = change.mod_revision if is_deleted else record.made_anew_after
                    self._upkeep.job_deleted(change.ids[0], max(since, change.create_revision))
            case Kind.PAUSE | Kind.CALENDAR:
                self._limits_changed(change.kind, change.ids[0])
            case Kind.CONFLICT:
                self._groups_changed()
            case Kind.REQUEST:
                if change.record is None:
                    self._requests.gone(change.ids[0])
                else:
                    self._requests.came(change.ids[0])
            case Kind.LATE_REPORT:
                if change.record is not None:
                    agent, job, run, token = change.ids
                    self._upkeep.late_report((agent, job, run, token))
            case Kind.GAP:
                self._outages.look_at(change.ids[0])
                self._fan_outs.look_at(change.ids[0])
                self._open.wake(change.ids[0])
                self._runs.look_at_waiting(change.ids[0])
            case Kind.WATERMARK:
                self._fan_outs.look_at_all()
            case Kind.SETTINGS:
                self._context.agents.changed()
                self._outages.eligibility_changed()
                self._runs.look_at_all()  # Who stands by from now on isn't told by any seat.
            case Kind.ELECTION | Kind.TERM | Kind.EDITED:
                pass  # Read whenever something is decided by them.
            case Kind.ORDER | Kind.ANSWER | Kind.JOIN | Kind.ROTATION:
                pass
            case other:
                assert_never(other)

    def _shows_only_the_time(self, change: Change) -> bool:
        """Each agent shows its clock now and then, and of a thousand that is often."""
        agent, record = change.ids[0], change.record
        before = self._presences.pop(agent, None)
        if not isinstance(record, Presence):
            return False
        self._presences[agent] = record
        return before is not None and replace(before, clock=record.clock) == record

    def _groups_changed(self) -> None:
        self._context.conflicts.groups_changed()
        self._runs.look_at_all()

    def _limits_changed(self, kind: Kind, name: str) -> None:
        self._outages.limits_changed()
        if kind is Kind.CALENDAR:
            self._ticks.calendar_changed()
            return
        self._ticks.pause_changed(name)
        if name == CLUSTER:
            self._runs.look_at_all()
        else:
            self._runs.look_at_job(name)

    def _committed(self, event: ev.WriteCommitted) -> None:
        write = self._context.write_of(event.seq)
        is_shown = True
        match write:
            case fx.CreateFanOut(fan_out=fan_out):
                self._ticks.confirm(fan_out.job, ms_of(fan_out.scheduled_at))
            case fx.CreateRun(run=run):
                self._fan_outs.made(run)
                if write.is_tick:
                    assert run.scheduled_at is not None
                    self._ticks.confirm(run.job, ms_of(run.scheduled_at))
                if run.state in FINAL:
                    follows = write.following
                    is_shown = follows is not None and bool(follows.created or follows.joins)
                    self._retention.archived(run.job)
            case fx.Resubmit(original=original, was_active=True):
                self._retention.archived(original.job)
            case fx.RecoverTicks():
                self._outages.step_committed(write.job)
                self._retention.archived(write.job, len(write.archived))
            case fx.Forget():
                is_shown = False
        self._context.committed(event.seq, event.revision, is_shown=is_shown)

    def _refused(self, event: ev.WriteRefused) -> None:
        is_decided, write = False, self._context.write_of(event.seq)
        if event.exists:
            match write:
                case fx.CreateRun(run=run) if not any(event.there[:_OF_RUN]):
                    event = self._is_chained_there(event, run, write.following)
                case fx.RecoverTicks(archived=(run,)) if write.following is not None and not any(
                    event.there[:_OF_TICK]
                ):
                    event = self._is_chained_there(event, run, write.following)
        match write:
            case fx.CreateFanOut(fan_out=fan_out) if event.exists:
                is_decided = True
                self._ticks.confirm(fan_out.job, ms_of(fan_out.scheduled_at))
            case fx.CreateRun(run=run, is_tick=False) if event.exists:
                self._fan_outs.made(run)
            case fx.CreateRun(run=run, is_tick=True) if event.exists:
                assert run.scheduled_at is not None
                is_decided = True
                self._ticks.confirm(run.job, ms_of(run.scheduled_at))
            case fx.RecoverTicks(job=job) if event.exists:
                self._outages.step_refused(job)
        self._context.refused(event.seq, event.revision, exists=event.exists, is_decided=is_decided)
        if event.revision is None:
            self._rejected(write)

    def _is_chained_there(
        self, event: ev.WriteRefused, source: Run, following: fx.Following | None
    ) -> ev.WriteRefused:
        """What exists isn't the source: that is to be decided still, without what it chains to."""
        self._runs.chains.block((source.job, source.id), following)
        return replace(event, exists=False)

    def _rejected(self, write: fx.Write | None) -> None:
        """It rests: what it would begin isn't on its way, and nobody waits for that any more."""
        if isinstance(write, fx.Dispatch | fx.MoveRun):
            self._runs.look_at_waiting(write.run.job)
        elif isinstance(write, fx.CreateRun):
            self._runs.look_at_bound(write.run.job)
        following = fx.following_of(write)
        if following is not None:
            self._runs.chains.settled(following)
            for run in following.created:
                self._runs.look_at_waiting(run.job)

    def _released(self, reservation: Reservation) -> None:
        """A write is settled and seen: whatever waited for its matters is looked at again."""
        match reservation.write:
            case (
                fx.CreateRun(run=run, following=following) | fx.EndRun(run=run, following=following)
            ):
                exists = reservation.exists and isinstance(reservation.write, fx.EndRun)
                if not reservation.is_rejected:
                    self._runs.chains.settled(following)
                if exists:
                    self._runs.chains.block((run.job, run.id), following)
            case fx.EndJoin(following=following) | fx.RecoverTicks(following=following) if (
                not reservation.is_rejected
            ):
                self._runs.chains.settled(following)
            case fx.MoveRun(old=fx.OldAttempt(agent=agent)) if reservation.is_refused:
                # It has claimed the run, say: then others are too many for its slots.
                self._runs.look_at_agent(agent)
        for matter in reservation.matters:
            self._look_at(matter)
        if reservation.agent is not None:
            self._live.work_changed(reservation.agent)
        match reservation.write:
            case fx.CreateRun(run=run, is_tick=True):
                assert run.scheduled_at is not None
                self._ticks.decide_again(run.job, ms_of(run.scheduled_at))
            case fx.CreateFanOut(fan_out=fan_out):
                self._ticks.decide_again(fan_out.job, ms_of(fan_out.scheduled_at))
            case (
                fx.CreateRun(consumed=fx.Consumed(answer=answer))
                | fx.Resubmit(consumed=fx.Consumed(answer=answer))
            ) if reservation.exists:
                self._requests.found_run_of(answer.request)

    def _look_at(self, matter: Matter) -> None:  # noqa: C901 - one case a matter
        match matter:
            case ("run", job, run):
                self._runs.look_at((job, run))
                self._runs.look_at_waiting(lane_of(job, run))
                self._fan_outs.look_at(job)
                self._outages.look_at(job)
                self._open.wake(job)
            case ("turn", lane):
                self._runs.look_at_waiting(lane)
                self._fan_outs.look_at(job_of(lane))
            case ("lane", lane):
                self._runs.look_at_waiting(lane)
                self._fan_outs.look_at(job_of(lane))
            case ("request", request):
                self._requests.look_at(request)
            case ("agent", agent):
                self._runs.look_at_agent(agent)
            case ("job", job):
                self._outages.look_at(job)
                self._open.wake(job)
                self._runs.look_at_waiting(job)
                self._runs.look_at_bound(job)
            case ("aside", job):
                self._look_at(job_matter(job))
                self._runs.look_at_job(job)
            case ("join", _, _):
                behind = self._runs.chains.next_behind(matter)
                if behind is not None:
                    self._look_at(behind)
            case ("late", agent, job, run, token):
                self._upkeep.late_report((agent, job, run, token))
            case ("live", agent):
                self._live.look_at(agent)
            case ("fan_out", job, _):
                self._fan_outs.look_at(job)
            case ("pace",):
                self._runs.look_at_paced()
            case ("history",):
                self._retention.next_page()
            case ("sweep",):
                self._sweep()
            case ("part", "live"):
                self._live.look_at_all()
            case ("part", "upkeep"):
                self._upkeep.look_at_all()
            case _:
                pass

    def _sweep(self) -> None:
        for sweep in (
            self._upkeep.sweep, self._runs.chains.sweep, self._live.sweep, self._losses.sweep,
            self._context.sweep,
        ):  # fmt: skip
            with self._context.contain(("part", "sweep")):
                sweep()

    # --- plans

    def _plan(self) -> list[fx.Effect]:
        context = self._context
        if self._are_seats_new:
            self._are_seats_new = False
            self._runs.look_at_all_bound()
            self._outages.eligibility_changed()
        for matter in context.due_timers():
            self._look_at(matter)
        for reservation in context.release():
            self._released(reservation)
        self._apart("upkeep", self._upkeep.forget_joins_of_deleted)
        self._apart("seats", self._seats.decide)
        self._apart("live", self._live.decide)
        self._ticks.time_passed()
        self._requests.decide()
        self._runs.decide()
        self._decide_ticks()
        self._fan_outs.decide()
        if self._runs.is_due:
            self._runs.decide()
            self._decide_ticks()  # A buffer that has just ended may belong to an outage.
        self._apart("upkeep", self._upkeep.decide)
        self._advance_watermark()
        effects, context.effects = context.effects, []
        return effects

    def _apart(self, part: str, decide: Callable[[], None]) -> None:
        """Should it raise, it rests, and all else goes on. Then it looks at everything: what it was
        about to look at is lost."""
        matter = ("part", part)
        if not self._context.rests(matter):
            with self._context.contain(matter):
                decide()

    def _decide_ticks(self) -> None:
        """Ticks and outages wait for each other: until neither has anything to say."""
        is_moving = True
        while is_moving:
            self._outages.decide()
            self._ticks.decide()
            is_moving = self._outages.is_due

    def _advance_watermark(self) -> None:
        """Once every decision up to it is confirmed, and no more often than it is worth."""
        context, entry = self._context, self._view.watermark
        if self._ticks.waits_for_watermark():
            urgent_s = self._watermark_looked_at_s + WATERMARK_URGENT_S
            self._next_watermark_s = min(self._next_watermark_s, urgent_s)
        if context.mono_s < self._next_watermark_s:
            return
        self._watermark_looked_at_s = context.mono_s
        through_ms = self._ticks.decided_through_ms()
        options = context.options
        has_moved = entry is None or through_ms > ms_of(entry.record.through)
        is_held_back = context.wall_ms - through_ms > 500
        period_s = options.watermark_busy_s if is_held_back else options.watermark_idle_s
        self._next_watermark_s = context.mono_s + period_s
        if context.is_busy(_WATERMARK) or not has_moved:
            return
        write = fx.AdvanceWatermark(
            seq=context.next_seq(),
            watermark=Watermark(through=utc_of(through_ms), term=context.term),
            old_revision=revision_of(entry),
            edited_revision=revision_of(self._view.edited),
        )
        context.write(write, _WATERMARK)
        if entry is not None:
            self._outages.forget_closed_gaps(ms_of(entry.record.through))


def _watermark_ms(view: View, now_ms: int) -> int:
    """Through when all is decided; for the first leader ever, until the first job came."""
    if view.watermark is not None:
        return ms_of(view.watermark.record.through)
    first = min((entry.record.versions[0].since for entry in view.jobs.values()), default=None)
    return now_ms if first is None else min(now_ms, ms_of(first) - 1)
