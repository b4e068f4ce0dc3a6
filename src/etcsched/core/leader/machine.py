"""The leader as a pure state machine: ``handle(event, now) -> effects``.

It exists for one leadership: made when this node's own term record has come by on its watch,
dropped when the leadership ends. Whatever it knows beyond the view and its reservations can be
lost without harm.

Ordering contract with the shell: the view has taken a change in before ``ViewChanged`` tells of
it; every write gets exactly one of ``WriteCommitted`` and ``WriteRefused``, or the leadership ends.
"""

from __future__ import annotations

from typing import assert_never

from etcsched.core.clock import Instant, TickClock
from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.core.leader.context import Context, Matter, Options, Reservation
from etcsched.core.leader.loss import Losses
from etcsched.core.leader.request_decider import RequestDecider
from etcsched.core.leader.run_decider import RunDecider
from etcsched.core.leader.tick_decider import TickDecider
from etcsched.core.leader.ticks import TickIndex
from etcsched.core.leader.upkeep import Upkeep
from etcsched.core.records import CLUSTER, Change, Kind, Term, Watermark
from etcsched.core.times import ms_of, utc_of
from etcsched.core.view import View, revision_of

_WATERMARK: Matter = ("watermark",)


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
        self._context = context = Context(view, term.number, term.leader, options or Options())
        context.wall_ms, context.mono_s = now.wall_ms, now.mono_s
        began_ms = ms_of(view.watermark.record.through) if view.watermark else now.wall_ms
        self._losses = Losses(context, raft_term, raft_term_since_s)
        self._runs = RunDecider(context, self._losses, began_ms)
        self._ticks = TickDecider(context, index, self._runs, began_ms)
        self._requests = RequestDecider(context, self._runs)
        self._upkeep = Upkeep(context)
        self._next_watermark_s = now.mono_s
        self._stopped = False

    def take_over(self) -> list[fx.Effect]:
        """The first effects of this leadership: everything is looked at once."""
        self._runs.look_at_all()
        self._requests.look_at_all()
        for place in self._view.late_reports:
            self._upkeep.late_report(place)
        self._ticks.take_over()
        self._ticks.eligibility_changed()
        return self._plan()

    def handle(self, event: ev.LeaderEvent, now: Instant) -> list[fx.Effect]:
        """What follows from an event. Nothing any more, once it has stepped down."""
        if self._stopped:
            return []
        tick_ms = self._clock.at(now)
        if tick_ms is None:
            self._stopped = True
            return [fx.StepDown(reason="the wall clock jumped by more than 2 s")]
        self._context.wall_ms, self._context.mono_s = tick_ms, now.mono_s
        self._take_in(event)
        return self._plan()

    def next_wake(self) -> tuple[int | None, float]:
        """When a ``TimerFired`` is due: Unix milliseconds of the next tick (None: there is none),
        and monotonic seconds of the next timer."""
        timer_s = self._context.next_timer_s()
        watermark_s = self._next_watermark_s
        return (
            self._ticks.next_due_ms(),
            watermark_s if timer_s is None else min(timer_s, watermark_s),
        )

    @property
    def in_flight(self) -> int:
        """Writes without a result that the view shows."""
        return self._context.in_flight

    @property
    def open_ticks(self) -> int:
        """Ticks that are due and not decided yet."""
        return self._ticks.open_count

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
                self._upkeep.archive_listed(event.job, event.found, event.is_last)
            case ev.ArchivedRead():
                self._upkeep.archived_read(event.job, event.run_id, event.run, event.revision)
            case other:
                assert_never(other)

    def _changed(self, change: Change) -> None:
        """Who has to look again at what, because of one change."""
        match change.kind:
            case Kind.RUN:
                self._runs.look_at((change.ids[0], change.ids[1]))
                if change.record is None:
                    self._upkeep.run_ended(change.ids[0])
                self._runs.look_at_queued(change.ids[0])
            case Kind.ASSIGNMENT | Kind.REPORT:
                self._runs.look_at((change.ids[1], change.ids[2]))
            case Kind.PRESENCE | Kind.DRAIN:
                self._runs.look_at_agent(change.ids[0])
                if change.kind is Kind.PRESENCE or change.record is None:
                    self._ticks.eligibility_changed()
            case Kind.JOB:
                self._ticks.job_changed(change.ids[0])
                self._ticks.look_at_outage(change.ids[0])
                self._runs.look_at_job(change.ids[0])
            case Kind.PAUSE:
                if change.ids[0] == CLUSTER:
                    self._runs.look_at_all()
                else:
                    self._runs.look_at_job(change.ids[0])
            case Kind.REQUEST:
                self._requests.look_at(change.ids[0])
            case Kind.LATE_REPORT:
                if change.record is not None:
                    agent, job, run, token = change.ids
                    self._upkeep.late_report((agent, job, run, token))
            case Kind.GAP:
                self._ticks.look_at_outage(change.ids[0])
            case Kind.ELECTION | Kind.TERM | Kind.WATERMARK | Kind.ORDER | Kind.ANSWER:
                pass
            case other:
                assert_never(other)

    def _committed(self, event: ev.WriteCommitted) -> None:
        reservation = self._context.answered(event.seq, event.revision, is_commit=True)
        if reservation is None:
            return
        match reservation.write:
            case fx.CreateRun(run=run, is_tick=True):
                assert run.scheduled_at is not None
                self._ticks.confirm(run.job, ms_of(run.scheduled_at))
            case fx.Forget() | fx.ForgetAnswer():
                # Nothing that the view waits for.
                reservation.revision = None

    def _refused(self, event: ev.WriteRefused) -> None:
        reservation = self._context.answered(event.seq, event.revision, is_commit=False)
        if reservation is None:
            return
        match reservation.write:
            case fx.CreateRun(run=run, is_tick=True) if event.exists:
                assert run.scheduled_at is not None
                self._ticks.confirm(run.job, ms_of(run.scheduled_at))
            case _:
                pass

    def _released(self, reservation: Reservation) -> None:
        """A write is settled and seen: whatever waited for its matters is looked at again."""
        for matter in reservation.matters:
            self._look_at(matter)
        match reservation.write:
            case fx.CreateRun(run=run, is_tick=True):
                assert run.scheduled_at is not None
                self._ticks.decide_again(run.job, ms_of(run.scheduled_at))

    def _look_at(self, matter: Matter) -> None:
        match matter:
            case ("run", job, run):
                self._runs.look_at((job, run))
            case ("request", request):
                self._requests.look_at(request)
            case ("agent", agent):
                self._runs.look_at_agent(agent)
            case ("job", job):
                self._ticks.look_at_outage(job)
                self._runs.look_at_job(job)
            case ("late", agent, job, run, token):
                self._upkeep.late_report((agent, job, run, token))
            case ("sweep",):
                self._upkeep.sweep()
            case _:
                pass

    # --- plans

    def _plan(self) -> list[fx.Effect]:
        context = self._context
        for matter in context.due_timers():
            self._look_at(matter)
        for reservation in context.release():
            self._released(reservation)
        self._requests.decide()
        self._runs.decide()
        self._ticks.decide()
        self._upkeep.decide()
        self._advance_watermark()
        effects, context.effects = context.effects, []
        return effects

    def _advance_watermark(self) -> None:
        """Once every decision up to it is confirmed, and no more often than it is worth."""
        context, entry = self._context, self._view.watermark
        if context.is_busy(_WATERMARK) or context.mono_s < self._next_watermark_s:
            return
        through_ms = self._ticks.decided_through_ms()
        options = context.options
        has_moved = entry is None or through_ms > ms_of(entry.record.through)
        is_held_back = context.wall_ms - through_ms > 500
        period_s = options.watermark_busy_s if is_held_back else options.watermark_idle_s
        self._next_watermark_s = context.mono_s + period_s
        if not has_moved:
            return
        write = fx.AdvanceWatermark(
            seq=context.next_seq(),
            watermark=Watermark(through=utc_of(through_ms), term=context.term),
            old_revision=revision_of(entry),
        )
        context.write(write, _WATERMARK)
        if entry is not None:
            self._ticks.forget_closed_gaps(ms_of(entry.record.through))
