"""Runs that wait for an agent: how long, and behind whom.

They are ``ready``, ``queued`` behind another run of their job, or ``conflicted``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import takewhile

from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.leader.bound_runs import BoundRuns
from etcsched.core.leader.buffers import buffer_end_ms
from etcsched.core.leader.conflicts import HOLDING
from etcsched.core.leader.context import Context
from etcsched.core.leader.declines import Declines, words_of
from etcsched.core.leader.group_turns import GroupTurns
from etcsched.core.leader.matters import Matter, job_matter, run_matter, turn_matter
from etcsched.core.leader.open_ticks import OpenTicks
from etcsched.core.leader.outage_records import is_bound_chosen, was_born_late
from etcsched.core.leader.pace import Pace, is_paced
from etcsched.core.leader.placement import Requirement, tried_by
from etcsched.core.leader.reasons import Why
from etcsched.core.leader.replacing import Replacing
from etcsched.core.leader.requeue import requeue
from etcsched.core.leader.retrying_runs import RetryingRuns
from etcsched.core.leader.run_ends import RunEnds
from etcsched.core.leader.runs import (
    assigned,
    assignment_of,
    may_start,
    takes_turns,
)
from etcsched.core.leader.waiting import Waiting
from etcsched.core.records import Job, Run
from etcsched.core.states import Origin, Overlap, Recovery, RunState
from etcsched.core.times import ms_of
from etcsched.core.view import Entry, QueuePlace, RunKey, job_of, queue_place

_BESIDE_OTHERS = frozenset({Origin.REQUEST, Origin.LIFECYCLE})
"""What somebody asks for, and what agents' coming and going does, begins beside other runs."""

_CATCHING_UP = (RunState.READY, RunState.CONFLICTED, RunState.ASSIGNED)
"""States in which a run that catches up on an outage keeps back others of its lane."""

_NAMED = 3
"""Of those that a run is behind."""


class WaitingRuns:
    def __init__(
        self,
        context: Context,
        waiting: Waiting,
        ends: RunEnds,
        retrying: RetryingRuns,
        pace: Pace,
        open_ticks: OpenTicks,
        recovering: set[str],
        declines: Declines,
        led_from_ms: int,
    ) -> None:
        """``led_from_ms``: when this leader took over. A run that waits and whose buffer ended
        before was decided by nobody: that belongs to an outage."""
        self._context = context
        self._view = context.view
        self._ends = ends
        self._retrying = retrying
        self._pace = pace
        self._open = open_ticks
        self.turns = GroupTurns(
            context, waiting, pace, open_ticks, self._is_recovering, self._dispatch
        )
        self._replacing = Replacing(context, ends)
        self._bound = BoundRuns(context, ends)
        self._cleared: dict[RunKey, None] = {}
        self._declines = declines
        self._led_from_ms = led_from_ms
        self._waiting = waiting
        self.outage_jobs: dict[str, None] = {}
        """Jobs of which a run's buffer ended while nobody was there: their outage's matter."""
        self.recovering = recovering
        """Jobs whose outage is over and being recovered from: their runs that waited in it are
        the recovery's matter."""

    def discard(self, key: RunKey) -> None:
        """The run waits no more."""
        self._waiting.discard(key)

    def forget(self, key: RunKey) -> None:
        """The run is over."""
        self.turns.is_looked_at(key)
        self.discard(key)
        self._pace.forget(key)
        self._bound.forget(key)

    def why_pointless(self, run: Run, job: Job) -> str | None:
        """Of one about an agent's coming or going: why it can't start any more, if so."""
        return self._bound.why_pointless(run, job)

    def does_any_wait(self, job: str) -> bool:
        """Whether a run of the job goes as soon as an agent takes it."""
        return bool(self._waiting.firsts_of(job))

    def waits_of(self, job: str) -> list[RunKey]:
        """All such runs."""
        return list(self._waiting.all_of(job))

    def place_of(self, key: RunKey) -> int | None:
        """Of one that waits for an agent: how many get one before it."""
        return self._waiting.place_of(key)

    def decide(self, key: RunKey, entry: Entry[Run]) -> None:
        run = entry.record
        job = self._view.jobs.get(run.job)
        if job is None or not may_start(job, entry, self._context.wall_ms):
            self._stop(entry)
            return
        if self._bound.end_if_pointless(entry, job.record):
            return
        self._context.wake_at_window(job.record, run_matter(key))
        if not self._has_begun(key, run):
            self.discard(key)
            return
        requirement = self._context.agents.wanted(job, run)
        is_here = self._bound.is_agent_here(run, job.record)
        was_unled = self._ended_unled(run, job.record)
        if not (is_here or was_unled) and self._bound.end_if_given_up(entry, job.record):
            self.discard(key)
            return
        is_buffered = run.state in (RunState.READY, RunState.CONFLICTED)
        can_be_over = is_buffered and (is_here or was_unled)
        if can_be_over and self._is_buffer_over(key, entry, job.record, requirement):
            self.discard(key)
            return
        if self._view.is_paused(run.job):
            paused = f"{self._view.what_is_paused(run.job)} is paused"
            self._context.because(key, Why.PAUSED, lambda: paused)
            self.discard(key)
            return
        in_front = self._what_is_in_front(run)
        if in_front is not None:
            self.discard(key)
            self._wait_behind(entry, in_front)
            if run.state is RunState.QUEUED:
                self._replacing.clear_the_way(job.record, run)
            return
        holder = self._context.conflicts.holder(run.job)
        if holder is not None:
            self.turns.block(entry, f"{holder}")
            return
        if self._declines.end_if_given_up(entry, job.record, requirement):
            self.discard(key)
            return
        self._context.because(key, Why.NO_AGENT, lambda: self._context.agents.why_none(requirement))
        self._waiting.put(run, requirement)
        if run.state is RunState.CONFLICTED:
            self._cleared[key] = None

    def _stop(self, entry: Entry[Run]) -> None:
        """Its job's state forbids that it starts, for the first time or again."""
        if entry.record.state is RunState.RETRYING:
            self._retrying.give_up(entry, "the job was stopped")
        else:
            self._ends.end_waiting(
                entry, RunState.CANCELLED, "the job was stopped before it started"
            )

    def _is_recovering(self, job: str) -> bool:
        is_taken_in = job in self.outage_jobs and not self._context.is_run_rejected(job)
        return job in self.recovering or is_taken_in

    def _has_begun(self, key: RunKey, run: Run) -> bool:
        """Whether its job's splay is over."""
        wait_ms = ms_of(run.not_before) - self._context.wall_ms if run.not_before else 0
        if wait_ms > 0:
            self._context.wake_again_at(self._context.mono_s + wait_ms / 1000, run_matter(key))
            words = f"it starts at {run.not_before}, by its job's splay"
            self._context.because(key, Why.SPLAY, lambda: words, self._context.wall_ms + wait_ms)
        return wait_ms <= 0

    def to_look_at(self, lane: str) -> list[RunKey]:
        """The queued runs for which something may have changed because another one of the lane
        has: the first, ticks that replace others, and where runs needn't wait for each other, all
        that don't wait for an agent yet."""
        places, job = self._view.queued_of.get(lane, []), job_of(lane)
        entry = self._view.jobs.get(job)
        overlap = entry.record.overlap if entry is not None else Overlap.SKIP
        if overlap is Overlap.REPLACE:
            ticks = takewhile(lambda place: not place[0], places)
            return [(job, run) for _, _, run in (*ticks, *places[:1])]
        if overlap is Overlap.ALLOW:
            if self._waiting.queued_in(lane) >= len(places):
                return []
            keys = [(job, run) for _, _, run in self._beside_recovering(lane, places)]
            return [k for k in keys if not (k in self._waiting or self.turns.is_blocked(k))]
        return [(job, run) for _, _, run in places[:1]]

    def _beside_recovering(self, lane: str, places: list[QueuePlace]) -> list[QueuePlace]:
        """Of those that are queued though runs may overlap, the ones that nothing keeps back which
        catches up on an outage."""
        view, job = self._view, job_of(lane)
        if view.one_recovering_in(lane, *_CATCHING_UP) is not None:
            return []
        if view.one_recovering_in(lane, RunState.QUEUED) is None:
            return places
        is_recovering = (view.runs[(job, p[2])].record.origin is Origin.RECOVERY for p in places)
        return places[: 1 + next(number for number, is_it in enumerate(is_recovering) if is_it)]

    def _what_is_in_front(self, run: Run) -> Callable[[], str] | None:
        """Queued runs go one at a time, when no other run of the job is active. Where runs may
        overlap, they wait only for those that catch up on an outage. None: it is its turn."""
        view, lane = self._view, run.lane
        if _is_beside_others(run):
            return None  # It was queued for its pace only.
        job = view.jobs.get(run.job)
        if run.state is not RunState.QUEUED:
            return self._what_began_meanwhile(run, job.record) if job is not None else None
        if self._context.is_turn_taken(run):
            return lambda: "another run of its job is just being assigned"
        if job is None or job.record.overlap is not Overlap.ALLOW:
            if self._context.is_coming_beside(run):
                return lambda: "another run of its job is just being made"
            behind = _behind(view.unbound_beside(run))
            if behind is not None:
                return behind
            places = view.queued_of.get(lane, [])
            if places and places[0][2] == run.id and not view.has_unqueued(lane):
                return None
            return lambda: self._words_of_queue(run)
        ahead = view.one_recovering_in(lane, *_CATCHING_UP)
        return _behind_catching_up(ahead) if ahead is not None else self._what_catches_up_first(run)

    def _what_catches_up_first(self, run: Run) -> Callable[[], str] | None:
        """A run of its lane that catches up on an outage, too, and has begun, or is queued and
        older; or one for which its job's mode is still to decide that."""
        view, mine = self._view, queue_place(run)
        if (ahead := view.one_recovering_in(run.lane, RunState.ASSIGNED)) is not None:
            return _behind_catching_up(ahead)
        if view.one_recovering_in(run.lane, RunState.QUEUED) is not None:
            for place in takewhile(lambda place: place < mine, view.queued_of[run.lane]):
                other = view.runs[(run.job, place[2])].record
                if other.origin is Origin.RECOVERY:
                    return _behind_catching_up(other)
        if (
            run.host
            and run.origin is Origin.RECOVERY
            and not self._context.is_run_rejected(run.job)
        ):
            return self._what_is_undecided_before(run)
        return None

    def _what_is_undecided_before(self, run: Run) -> Callable[[], str] | None:
        """An older tick's run of its lane, whose buffer ended while nobody led."""
        view, job = self._view, self._view.jobs.get(run.job)
        for other_id in view.ids_of(run.lane) if job is not None else ():
            other = view.runs[(run.job, other_id)].record
            is_buffered = other.state in (RunState.READY, RunState.CONFLICTED)
            if job is None or not (is_buffered and other.is_tick and other.due_at < run.due_at):
                continue
            if self._context.rests(run_matter((run.job, other_id))):
                continue
            end_ms = buffer_end_ms(other, job.record)
            if end_ms is not None and self._has_nobody_led(other, end_ms):
                return lambda: f"{other.job}/{other.id} is older, and still to be decided"
        return None

    def _what_began_meanwhile(self, run: Run, job: Job) -> Callable[[], str] | None:
        """It had its turn as it came, and lost its agent, say. A retry may have begun since."""
        if not takes_turns(run, job):
            return None
        if self._context.is_turn_taken(run):
            return lambda: "another run of its job is just being assigned"
        if job.overlap is Overlap.ALLOW:
            return self._what_catches_up_first(run)
        is_beside = bool(run.host) and not (job.per_host or run.is_for_shutdown)
        if is_beside and self._context.is_busy(job_matter(run.job)):
            return lambda: "another run of its job is just being made"
        view = self._view
        others = view.runs_in(run.job, *HOLDING)
        if run.host:
            others = [*view.active_runs(run.lane), *view.unbound_beside(run)]
        return _behind(other for other in others if not _is_beside_others(other))

    def _wait_behind(self, entry: Entry[Run], in_front: Callable[[], str]) -> None:
        """In a queue, and so outside any buffer."""
        run = entry.record
        self._context.because((run.job, run.id), Why.QUEUED, in_front)
        if run.state is not RunState.QUEUED:
            requeue(self._context, entry, RunState.QUEUED, in_front())

    def _words_of_queue(self, run: Run) -> str:
        view, lane = self._view, run.lane
        places = view.queued_of.get(lane, [])
        before = bisect_left(places, queue_place(run))
        active = view.unqueued_runs(lane)
        ahead = [f"{r.job}/{r.id} ({r.state.value})" for r in active[:_NAMED]]
        ahead += [f"{run.job}/{id_} (queued)" for _, _, id_ in places[: min(before, _NAMED)]]
        left = len(active) + before - _NAMED
        more = f" and {left} more" if left > 0 else ""
        return f"number {before + 1} in its job's queue, behind {', '.join(ahead[:_NAMED])}{more}"

    def _is_buffer_over(
        self, key: RunKey, entry: Entry[Run], job: Job, requirement: Requirement
    ) -> bool:
        """End a run that found no agent in its time, or leave it to the outage it belongs to."""
        run = entry.record
        end_ms = buffer_end_ms(run, job)
        if end_ms is None:
            return False
        if self._context.wall_ms < end_ms:
            wait_s = (end_ms - self._context.wall_ms) / 1000
            self._context.wake_again_at(self._context.mono_s + wait_s, run_matter(key))
            return False
        is_tick = run.is_tick
        gap = self._view.gaps.get(run.job)
        is_gap_open = gap is not None and not gap.record.closed
        if is_tick and not run.host and (is_gap_open or run.job in self.recovering):
            mode = f"its buffer ended in an outage; recovery: {job.recovery.value} decides after it"
            self._context.because(key, Why.OUTAGE, lambda: mode)
            return True
        nobody_led = self._has_nobody_led(run, end_ms)
        if nobody_led and is_tick and run.host and job.recovery is not Recovery.CONFLICTED:
            self._recover_bound(key, entry, job)
            return True
        is_kept = run.origin in (Origin.CHAIN, Origin.LIFECYCLE)
        is_kept = is_kept and (nobody_led or self._view.is_paused(run.job))
        if is_kept:
            # A chain goes on where it was, and a cluster starts once: neither may be missed.
            why = "no scheduler led" if nobody_led else "it was paused"
            requeue(
                self._context, entry, RunState.QUEUED, f"its buffer ended while {why}: it waits on"
            )
            return True
        holder = self._context.conflicts.holder(run.job)
        is_paused = self._view.is_paused(run.job)  # Then the group may have been free for long.
        was_blocked = run.state is RunState.CONFLICTED and not is_paused
        is_blocked = holder is not None or was_blocked
        if holder is not None and job.recovery is Recovery.CONFLICTED:
            self.turns.block(entry, f"{holder}")  # However late.
        elif is_blocked and not nobody_led:
            why = f"{holder}" if holder is not None else "its conflict group was held"
            cause = f"{why}, as its pickup buffer of {job.pickup_buffer_s:g} s was over"
            self._ends.end_waiting(entry, RunState.CONFLICT_MISSED, cause)
        elif not nobody_led and (given_up := self._why_not_taken(run, requirement)) is not None:
            cause = f"{given_up} until its pickup buffer of {job.pickup_buffer_s:g} s was over"
            self._ends.end_waiting(entry, RunState.ABANDONED, cause)
        elif is_tick and not run.host:
            # Nobody was there as the buffer ended: the run is its job's outage's matter.
            mode = f"its buffer ended with nobody there; recovery: {job.recovery.value} decides"
            self._context.because(key, Why.OUTAGE, lambda: mode)
            self.outage_jobs[run.job] = None
        else:
            why = self._context.agents.why_none(requirement)
            why = "no scheduler led" if nobody_led else why
            self._ends.end_waiting(
                entry, RunState.MISSED, f"{why}, as long as its pickup buffer lasted"
            )
        return True

    def _why_not_taken(self, run: Run, requirement: Requirement) -> str | None:
        """Why no agent took it though some are here; None: nobody is."""
        if self._declines.have_all(requirement):
            return f"{words_of(run)}, all that were here,"
        if not self._context.agents.has_eligible(requirement):
            return None
        why = "the job was paused" if self._view.is_paused(run.job) else "no slot was free"
        return f"{words_of(run)}, and {why}" if requirement.without else why

    def _has_nobody_led(self, run: Run, end_ms: int) -> bool:
        """As its buffer ended, or as good as: its tick was late only by other agents' longer
        splay."""
        was_over = bool(run.host) and was_born_late(run) and end_ms <= ms_of(run.created_at)
        return was_over or end_ms <= self._led_from_ms

    def _ended_unled(self, run: Run, job: Job) -> bool:
        """Of a tick's run that is bound to an agent, which may come back a little later than the
        leader: whether its buffer ended while nobody led, so that the job's mode decides."""
        end_ms = buffer_end_ms(run, job) if run.host and run.is_tick else None
        return end_ms is not None and end_ms <= self._led_from_ms

    def _recover_bound(self, key: RunKey, entry: Entry[Run], job: Job) -> None:
        """A tick's run that is bound to an agent, and whose buffer ended in an outage, goes by the
        mode, among the ticks of its lane."""
        context, run = self._context, entry.record
        is_coming = self._open.first_of(job.name) is not None or job.name in self.recovering
        if is_coming or context.is_busy(job_matter(job.name)):
            words = "its buffer ended in an outage; its job's later ticks are decided first"
            context.because(key, Why.OUTAGE, lambda: words)
        elif is_bound_chosen(self._view, job, run, context.wall_ms):
            cause = "recovered: its buffer ended in an outage"
            requeue(self._context, entry, RunState.QUEUED, cause, origin=Origin.RECOVERY)
        else:
            self._ends.end_waiting(entry, RunState.MISSED, "missed in an outage")

    def fill_slots(self) -> None:
        self._waiting.serve(self._offer_safely, self._context.agents.is_known_full)
        cleared, self._cleared = self._cleared, {}
        for key in cleared:
            if key in self._waiting:
                with self._context.contain(run_matter(key)):
                    self._wait_as_ready(key)

    def _wait_as_ready(self, key: RunKey) -> None:
        """Nothing blocks it any more, and yet no agent takes it. One whose buffer is over stays
        what it is: nothing but the conflict let it wait so long."""
        entry, job = self._view.runs[key], self._view.jobs.get(key[0])
        if job is None or self._context.is_busy(run_matter(key)):
            return
        run = entry.record
        end_ms = buffer_end_ms(replace(run, state=RunState.READY), job.record)
        if end_ms is None or self._context.wall_ms < end_ms:
            why = self._context.agents.why_none(self._context.agents.wanted(job, run))
            requeue(self._context, entry, RunState.READY, f"its conflict group is free; {why}")

    def _offer_safely(self, requirement: Requirement, key: RunKey) -> bool:
        with self._context.contain(run_matter(key)):
            return self._offer(requirement, key)
        return True  # One whose decision has raised waits no more.

    def _offer(self, requirement: Requirement, key: RunKey) -> bool:
        entry = self._view.runs.get(key)
        if entry is None:
            return True
        presence = self._context.agents.choose(requirement, key[0], tried_by(entry.record))
        if presence is None:
            return False
        if self._context.conflicts.is_in_group(key[0]) and self.turns.is_left(key):
            return True
        self._dispatch(key, presence.record.agent)
        return True

    def _dispatch(self, key: RunKey, agent: str) -> None:
        context = self._context
        entry = self._view.runs.get(key)
        job = self._view.jobs.get(key[0])
        if entry is None or job is None or context.is_busy(run_matter(key)):
            return  # It is looked at again when its write is settled.
        if not may_start(job, entry, context.wall_ms):
            # A window's edge has come, and not yet the timer that was set for it: tick time has
            # since been slewed to a clock that is ahead.
            self._stop(entry)
            return
        state = entry.record.state
        if state is RunState.RETRYING:
            held_up = self._retrying.held_up_by(entry.record)
            if held_up is not None:
                context.because(key, Why.RETRY, lambda: held_up)
                return
        elif (in_front := self._what_is_in_front(entry.record)) is not None:
            self._wait_behind(entry, in_front)
            return
        cause = _why_now(entry.record)
        if is_paced(entry.record):
            if not self._pace.allow(key):
                self._hold_back(entry)
                return
            cause = f"its turn has come: {self._pace.reason}"
        presence = self._view.presences[agent]
        run = assigned(context.author, entry.record, entry.mod_revision, agent, cause)
        why = Why.PACED if is_paced(entry.record) else Why.NEXT
        context.because(key, why, lambda: f"it is assigned to {agent} now: {cause}")
        seen = self._view.start_seen(run.job, agent)
        context.write(
            fx.Dispatch(
                seq=context.next_seq(),
                run=run,
                run_revision=entry.mod_revision,
                assignment=assignment_of(context.author, run, job.record, presence.record, seen),
                presence_revision=presence.mod_revision,
                rotation=context.agents.rotate(job.record, agent),
            ),
            run_matter(key),
            *self._turn_of(entry.record, job.record),
            agent=agent,
        )

    def _hold_back(self, entry: Entry[Run]) -> None:
        """Until its turn in the pace after an outage or a loss, and outside any buffer: it isn't
        for want of an agent that it waits."""
        run = entry.record
        self._context.because((run.job, run.id), Why.PACED, lambda: self._pace.reason)
        if run.state in (RunState.READY, RunState.CONFLICTED) and not run.has_run:
            requeue(self._context, entry, RunState.QUEUED, f"it waits, since {self._pace.reason}")
        else:
            self._pace.hold(run)

    def _turn_of(self, run: Run, job: Job) -> tuple[Matter, ...]:
        """Whoever asks for its turn takes it, until the view shows that."""
        asks = not _is_beside_others(run) and takes_turns(run, job)
        return (turn_matter(run.lane),) if asks else ()


def _behind(others: Iterable[Run]) -> Callable[[], str] | None:
    """None: none of them is assigned or held."""
    for other in others:
        if other.state in HOLDING:
            name = f"{other.job}/{other.id}"
            return lambda: f"behind {name}"
    return None


def _behind_catching_up(other: Run) -> Callable[[], str]:
    name = f"{other.job}/{other.id}"
    return lambda: f"behind {name}, which catches up on an outage"


def _is_beside_others(run: Run) -> bool:
    """For its first attempt, that is: a retry is nobody's wish, also once it has begun or moved."""
    return run.origin in _BESIDE_OTHERS and not run.retries


def _why_now(run: Run) -> str:
    """What it waited for has come."""
    match run.state:
        case RunState.RETRYING:
            return f"retry {run.retries} is due"
        case RunState.CONFLICTED:
            return "its conflict groups are free"
        case RunState.QUEUED:
            return "its turn has come"
        case _:
            return "a slot is free"
