"""What all of the leader's decisions share: the view, the reservations, who decides and when."""

from __future__ import annotations

import heapq
import math
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from types import TracebackType

import msgspec

from etcsched.core.leader import effects as fx
from etcsched.core.leader.agents import Agents
from etcsched.core.leader.conflicts import HOLDING, Conflicts
from etcsched.core.leader.matters import Matter, job_matter, lane_matter
from etcsched.core.leader.placement import (
    Requirement,
    requirement_of,
)
from etcsched.core.leader.reasons import Reason, Why
from etcsched.core.leader.reservation import Reservation
from etcsched.core.leader.runs import MAX_WORDS, Author
from etcsched.core.leader.setbacks import ASIDE_REASON, Setbacks
from etcsched.core.records import Job, Presence, Run, lane_of
from etcsched.core.states import JobState
from etcsched.core.text import shortened
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.core.view import Entry, RunKey, View, job_of

REJECTED_WAIT_S = 5.0
"""A write whose form etcd won't take is a defect; until it is mended, it isn't tried in a loop."""

MOST_STALE_WAITS = 8
"""In a row of refusals the rest grows up to so many times the first."""

NEVER = 1 << 62
"""A revision that no store reaches."""


def _unbound_lane(job: str) -> str:
    """No agent has this name."""
    return f"{job}@"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. ``election_timeout_s`` is etcd's own; ``decide_ahead_s`` bounds how far ticks are
    decided beyond the confirmed watermark, and so what a successor has to look at one by one.
    A chain waits ``join_kept_s`` for others that it joins: a resubmission may bring them.
    ``ticks_at_once``: how many ticks are decided before what follows is sent; about a transaction's
    worth, so that the first of many that are due at once don't wait for the last."""

    election_timeout_s: float = 1.0
    decide_ahead_s: float = 10.0
    watermark_busy_s: float = 1.0
    watermark_idle_s: float = 5.0
    answer_kept_s: float = 86400.0
    join_kept_s: float = 7 * 86400.0
    stale_wait_s: float = 0.25
    ticks_at_once: int = 120


class Contained:
    """``with context.contain(matter)``: what raises within is taken down, and goes no further."""

    __slots__ = ("_context", "_matter")

    def __init__(self, context: Context, matter: Matter) -> None:
        self._context = context
        self._matter = matter

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._context.has_raised(self._matter)
        return True


class Context:
    """Plans are made on the view plus the reservations; plans in flight are never facts."""

    def __init__(self, view: View, term: int, node: str, options: Options) -> None:
        self.view = view
        self.term = term
        self.node = node
        self.options = options
        self.wall_ms = 0
        self.mono_s = 0.0
        self.author = Author(term, utc_of(0))
        self.effects: list[fx.Effect] = []
        self._seq = 0
        self._reservations: dict[int, Reservation] = {}
        self._busy: dict[Matter, int] = {}
        self._runs_in_motion: defaultdict[str, set[str]] = defaultdict(set)
        self._turns_taken: defaultdict[str, set[str]] = defaultdict(set)
        """Of these matters those about runs and about lanes' turns, by job."""
        self._answered: list[int] = []
        self._starting: Counter[str] = Counter()
        """Assignments in flight, by job and by lane (of what is bound to no agent, too)."""
        self._requeued: Counter[str] = Counter()
        """Runs in flight that wait on in their queue, by job."""
        self.setbacks = Setbacks(view, self.wake_at)
        self.conflicts = Conflicts(view, self.is_starting)
        self.agents = Agents(view)
        self._coming: Counter[str] = Counter()
        self.fanning_out: set[str] = set()
        """Jobs with a fan-out of which not every run is shown yet (``fan_outs``)."""
        self._timers: list[tuple[float, Matter]] = []
        self._first_wakes_s: dict[Matter, float] = {}
        """Of what ``wake_again_at`` wakes."""
        self.reasons: dict[RunKey, Reason] | None = None
        """What ``because`` takes down, for whoever explains; a leader keeps nothing."""

    # --- who and when

    def it_is(self, wall_ms: int, mono_s: float) -> None:
        """All that is decided from now on is decided at this instant."""
        self.wall_ms, self.mono_s = wall_ms, mono_s
        self.author = Author(self.term, utc_of(wall_ms))

    @property
    def now(self) -> Utc:
        return self.author.at

    # --- what comes out

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def write(self, write: fx.Write, *matters: Matter, agent: str | None = None) -> None:
        """Send a write and reserve what it is about, and a slot of ``agent``."""
        assert not self.is_busy(*matters), (matters, write)
        for matter in matters:
            self._busy[matter] = write.seq
            if (of_job := self._of_job(matter)) is not None:
                of_job.add(matter[-1])
        if agent is not None:
            self.agents.reserve(agent)
        reservation = self._reservations[write.seq] = Reservation(write, matters, agent)
        self._count_in_flight(reservation, 1)
        self.effects.append(write)

    def say(
        self, text: str, *, run: RunKey | None = None, agent: str = "", warn: bool = False
    ) -> None:
        job, run_id = run if run is not None else ("", "")
        self.effects.append(fx.Note(text=text, job=job, run=run_id, agent=agent, is_warning=warn))

    def because(
        self, run: RunKey, why: Why, text: Callable[[], str], until_ms: int | None = None
    ) -> None:
        """Why a decision leaves this run where it is."""
        if self.reasons is not None:
            until = utc_of(until_ms) if until_ms is not None else None
            self.reasons[run] = Reason(why, text(), until)

    def comes(self, job: str, runs: int) -> None:
        """So many more (or less) runs of this job come with a write that is about another one."""
        self._coming[job] += runs
        if not self._coming[job]:
            del self._coming[job]

    def is_coming(self, job: str) -> bool:
        """Whether a write in flight may make a run of this job that the view doesn't show yet: who
        waits for its turn beside the others waits for that, too."""
        return job in self._coming or job_matter(job) in self._busy

    def is_coming_beside(self, run: Run) -> bool:
        """Likewise, of the run's own lane."""
        if run.host:
            is_being_made = self.is_busy(lane_matter(run.lane), job_matter(run.job))
            is_fanning_out = run.job in self.fanning_out and not self.is_run_rejected(run.job)
            return is_being_made or is_fanning_out
        return self.is_coming(run.job)

    def is_starting(self, lane: str) -> bool:
        """Whether an assignment in this lane is in flight; of a job's own lane, any of its runs."""
        return self._starting[lane] > 0

    def is_unbound_starting(self, job: str) -> bool:
        """... or of one of its runs that are bound to no agent, and to whichever agent."""
        return self._starting[_unbound_lane(job)] > 0

    def _count_in_flight(self, reservation: Reservation, change: int) -> None:
        if (run := reservation.starts) is not None:
            job, lane = run[0], lane_of(*run)
            for each in {job, lane if lane != job else _unbound_lane(job)}:
                self._starting[each] += change
        if (job := reservation.requeues) != "":
            self._requeued[job] += change

    def is_requeued(self, job: str) -> bool:
        """Whether a run of the job is just being requeued: it may go once that is shown."""
        return self._requeued[job] > 0

    def is_turn_taken(self, run: Run) -> bool:
        """Whether another run that it has to wait for is just being assigned: what isn't bound to
        an agent waits for those of its job that are, and the other way round, since it may be
        coming to that very agent."""
        taken = self._turns_taken.get(run.job, ())
        if not run.host:
            return bool(taken)
        if not run.is_for_shutdown and self.is_unbound_starting(run.job):
            return True
        return run.lane in taken

    def runs_in_motion(self, job: str) -> Collection[str]:
        """Its runs that writes in flight are about, also those that aren't there yet."""
        return self._runs_in_motion.get(job, ())

    def _of_job(self, matter: Matter) -> set[str] | None:
        match matter:
            case ("run", job, _):
                return self._runs_in_motion[job]
            case ("turn", lane):
                return self._turns_taken[job_of(lane)]
        return None

    def _free(self, matter: Matter) -> None:
        del self._busy[matter]
        if (of_job := self._of_job(matter)) is not None:
            of_job.discard(matter[-1])

    def is_in_use(self, job: str, agent: str) -> bool:
        """Whether this agent has a run of the job that is bound to it, or is just getting one:
        another one that takes turns doesn't come beside it."""
        lane = lane_of(job, f"@{agent}")
        if self.is_starting(lane):
            return True
        return any(run.state in HOLDING for run in self.view.runs_of(lane))

    def is_busy(self, *matters: Matter) -> bool:
        return any(matter in self._busy for matter in matters)

    # --- what comes back

    def committed(self, seq: int, revision: int, *, is_shown: bool) -> Reservation | None:
        """``is_shown``: the view will show it. None: no write of this leadership's."""
        reservation = self._reservations.get(seq)
        if reservation is not None:
            reservation.revision = revision if is_shown else 0
            self.setbacks.committed(reservation, self.mono_s)
            self._answered.append(seq)
        return reservation

    def refused(
        self, seq: int, revision: int | None, *, exists: bool, is_decided: bool = False
    ) -> Reservation | None:
        """What it rested on had changed: the view soon shows that. What is refused again and again
        rests on something that the view doesn't show (a record that can't be read, say), and is
        tried at leisure, ever more so. ``is_decided``: an earlier write of the same was committed;
        it isn't tried again."""
        reservation = self._reservations.get(seq)
        if reservation is None:
            return None
        before = 0 if is_decided else self.setbacks.refused(reservation, self.mono_s)
        if revision is not None:
            self.setbacks.taken(reservation, self.mono_s)
        else:
            self._rejected(reservation)
        rests = min(2 ** max(0, before - 1), MOST_STALE_WAITS)
        wait_s = rests * self.options.stale_wait_s if revision is not None else REJECTED_WAIT_S
        reservation.revision = NEVER if revision is None or before else revision
        reservation.release_at_s = self.mono_s + wait_s
        reservation.exists = exists
        reservation.is_rejected = revision is None
        self.wake_at(reservation.release_at_s, ("reservations",))
        self._answered.append(seq)
        return reservation

    def _rejected(self, reservation: Reservation) -> None:
        """It rests, and holds no conflict group meanwhile. Others come to its joins; where somebody
        asked for it, the request alone rests: its runs' ticks and outcomes don't wait for that."""
        for job in self.setbacks.rejected(reservation, self.mono_s):
            text = f"etcd takes no write about {'/'.join(reservation.matters[0][1:])}: "
            self.say(f"{text}{job} is set aside, so that others go on", warn=True)
        request, matters = reservation.request, reservation.matters
        if request is None:
            resting = [matter for matter in matters if matter[0] != "join"]
        else:
            resting = [request] if request not in self.setbacks.unwritable else []
        for matter in matters:
            if matter not in resting:
                self._free(matter)
                self.wake_at(self.mono_s, matter)
        reservation.matters = tuple(resting)
        self._count_in_flight(reservation, -1)

    def is_run_rejected(self, job: str) -> bool:
        return self.setbacks.is_run_rejected(job, self.mono_s)

    def contain(self, matter: Matter) -> Contained:
        """If what is decided about this raises, it alone is left for later: one run's, request's or
        job's defect mustn't stop all others."""
        return Contained(self, matter)

    def has_raised(self, matter: Matter) -> None:
        about = "/".join(matter[1:])
        self.effects.append(fx.Defect(about=about, trace=traceback.format_exc()))
        self.setbacks.raised(matter, self.mono_s)

    def rests(self, matter: Matter) -> bool:
        return self.setbacks.rests(matter, self.mono_s)

    def is_set_aside(self, job: str) -> bool:
        return self.setbacks.is_set_aside(job, self.mono_s)

    def sweep(self) -> None:
        self.setbacks.sweep(self.mono_s)
        for of_job in (self._runs_in_motion, self._turns_taken):
            for job in [job for job, found in of_job.items() if not found]:
                del of_job[job]
        self._starting, self._requeued = +self._starting, +self._requeued

    def release(self) -> list[Reservation]:
        """The reservations whose results the view shows by now; they hold nothing any more."""
        released: list[Reservation] = []
        waiting: list[int] = []
        for seq in self._answered:
            reservation = self._reservations[seq]
            due_s = reservation.release_at_s
            assert reservation.revision is not None
            if self.view.revision >= reservation.revision or (
                due_s is not None and self.mono_s >= due_s
            ):
                del self._reservations[seq]
                for matter in reservation.matters:
                    self._free(matter)
                if not reservation.is_rejected:
                    self._count_in_flight(reservation, -1)
                if reservation.agent is not None:
                    self.agents.release(reservation.agent)
                released.append(reservation)
            else:
                waiting.append(seq)
        self._answered = waiting
        return released

    def write_of(self, seq: int) -> fx.Write | None:
        reservation = self._reservations.get(seq)
        return reservation.write if reservation is not None else None

    @property
    def in_flight(self) -> int:
        return len(self._reservations)

    # --- timers

    def wake_at(self, mono_s: float, matter: Matter) -> None:
        heapq.heappush(self._timers, (mono_s, matter))

    def wake_again_at(self, mono_s: float, matter: Matter) -> None:
        """For what asks for this at every look, as long as it waits: the first of its timers is
        enough. A run is looked at whenever another one of its conflict groups changes, say."""
        if mono_s < self._first_wakes_s.get(matter, math.inf):
            self._first_wakes_s[matter] = mono_s
            self.wake_at(mono_s, matter)

    def wake_at_window(self, job: Job, matter: Matter) -> None:
        """A window that opens or closes may stop what waits."""
        edge_ms = self.next_window_ms(job)
        if edge_ms is not None:
            self.wake_again_at(self.mono_s + (edge_ms - self.wall_ms) / 1000, matter)

    def next_window_ms(self, job: Job) -> int | None:
        """When the next of its windows opens or closes."""
        for window in job.current.windows:
            for edge_ms in (ms_of(window.since), ms_of(window.until)):
                if edge_ms > self.wall_ms:
                    return edge_ms
        return None

    def due_timers(self) -> list[Matter]:
        due: list[Matter] = []
        while self._timers and self._timers[0][0] <= self.mono_s:
            at_s, matter = heapq.heappop(self._timers)
            if self._first_wakes_s.get(matter) == at_s:
                del self._first_wakes_s[matter]
            due.append(matter)
        return due

    def next_timer_s(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    # --- jobs

    def state_of(self, job: Job) -> JobState:
        """As its windows make it now."""
        return job.current.at(self.wall_ms).state

    def can_start(self, job: Job) -> bool:
        """Whether the job's definition lets its ticks run now (pauses aside)."""
        return self.state_of(job) is JobState.ENABLED

    def may_ever_start(self, job: Job) -> bool:
        """... or will let them run after a window, or in one."""
        return JobState.ENABLED in self.states_ahead(job)

    def states_ahead(self, job: Job) -> set[JobState]:
        """The definition's own, and those of its windows that aren't over."""
        version = job.current
        left = (w.state for w in version.windows if ms_of(w.until) > self.wall_ms)
        return {version.state, *(state for state in left if state is not None)}

    def waits_for_agent(self, job: Job) -> bool:
        """A job that will start no more waits for nobody: its ticks are missed."""
        return self.may_ever_start(job) and not self.agents.has_eligible(requirement_of(job))

    def why_outage(self, job: Job) -> str:
        """What its outage that begins now is for, in words."""
        if self.is_set_aside(job.name):
            return ASIDE_REASON
        return shortened(self.agents.why_none(requirement_of(job)), MAX_WORDS)

    def choose_now(self, job: str, requirement: Requirement) -> tuple[Entry[Presence] | None, str]:
        """The agent for a run of the job whose turn it is; if there is none now, why, in words."""
        if (holder := self.conflicts.holder(job)) is not None:
            return None, f"{holder}"
        presence = self.agents.choose(requirement, job)
        if presence is None:
            return None, self.agents.why_none(requirement)
        if self.agents.has_to_start(presence.record):
            return None, f"the startup jobs of {presence.record.agent} go first"
        return presence, ""
