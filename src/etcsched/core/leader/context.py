"""What all of the leader's decisions share: the view, the reservations, who decides and when."""

from __future__ import annotations

import heapq
from collections import defaultdict

import msgspec

from etcsched.core.leader import effects as fx
from etcsched.core.leader.placement import Choice, Requirement, least_loaded, why_not
from etcsched.core.leader.runs import Author
from etcsched.core.records import Job, Presence
from etcsched.core.times import Utc, utc_of
from etcsched.core.view import Entry, RunKey, View

REJECTED_WAIT_S = 5.0
"""A write whose form etcd won't take is a defect; until it is mended, it isn't tried in a loop."""

NEVER = 1 << 62
"""A revision that no store reaches."""

Matter = tuple[str, ...]
"""What a write is about: ("run", job, id), ("job", name), ("request", id), ("watermark",)...
Of each matter at most one write is in flight; what else concerns it waits for the result."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds. ``election_timeout_s`` is etcd's own; ``decide_ahead_s`` bounds how far ticks are
    decided beyond the confirmed watermark, and so what a successor has to look at one by one."""

    election_timeout_s: float = 1.0
    decide_ahead_s: float = 10.0
    watermark_busy_s: float = 1.0
    watermark_idle_s: float = 5.0
    answer_kept_s: float = 86400.0
    stale_wait_s: float = 0.25


class Reservation(msgspec.Struct):
    """A write in flight. Once answered at ``revision``, it holds on until the view has come that
    far (or ``release_at_s`` passed, where the answer names a revision that no event may show)."""

    write: fx.Write
    matters: tuple[Matter, ...]
    agent: str | None
    revision: int | None = None
    release_at_s: float | None = None


class Context:
    """Plans are made on the view plus the reservations; plans in flight are never facts."""

    def __init__(self, view: View, term: int, node: str, options: Options) -> None:
        self.view = view
        self.term = term
        self.node = node
        self.options = options
        self.wall_ms = 0
        self.mono_s = 0.0
        self.effects: list[fx.Effect] = []
        self._seq = 0
        self._reservations: dict[int, Reservation] = {}
        self._busy: dict[Matter, int] = {}
        self._answered: list[int] = []
        self._reserved_slots: defaultdict[str, int] = defaultdict(int)
        self._timers: list[tuple[float, Matter]] = []

    # --- who and when

    @property
    def now(self) -> Utc:
        return utc_of(self.wall_ms)

    @property
    def author(self) -> Author:
        return Author(self.term, self.now)

    # --- what comes out

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def write(self, write: fx.Write, *matters: Matter, agent: str | None = None) -> None:
        """Send a write and reserve what it is about, and a slot of ``agent``."""
        for matter in matters:
            assert matter not in self._busy, (matter, write)
            self._busy[matter] = write.seq
        if agent is not None:
            self._reserved_slots[agent] += 1
        self._reservations[write.seq] = Reservation(write, matters, agent)
        self.effects.append(write)

    def say(
        self, text: str, *, run: RunKey | None = None, agent: str = "", warn: bool = False
    ) -> None:
        job, run_id = run if run is not None else ("", "")
        self.effects.append(fx.Note(text=text, job=job, run=run_id, agent=agent, is_warning=warn))

    def is_busy(self, *matters: Matter) -> bool:
        return any(matter in self._busy for matter in matters)

    # --- what comes back

    def answered(self, seq: int, revision: int | None, is_commit: bool) -> Reservation | None:
        """A write's result is there; None for one that isn't known (an earlier leadership's)."""
        reservation = self._reservations.get(seq)
        if reservation is None:
            return None
        reservation.revision = revision
        if not is_commit:
            wait_s = self.options.stale_wait_s if revision is not None else REJECTED_WAIT_S
            reservation.revision = revision if revision is not None else NEVER
            reservation.release_at_s = self.mono_s + wait_s
            self.wake_at(reservation.release_at_s, ("reservations",))
        self._answered.append(seq)
        return reservation

    def release(self) -> list[Reservation]:
        """The reservations whose results the view shows by now; they hold nothing any more."""
        released: list[Reservation] = []
        waiting: list[int] = []
        for seq in self._answered:
            reservation = self._reservations[seq]
            due_s = reservation.release_at_s
            if (
                reservation.revision is None
                or self.view.revision >= reservation.revision
                or (due_s is not None and self.mono_s >= due_s)
            ):
                del self._reservations[seq]
                for matter in reservation.matters:
                    del self._busy[matter]
                if reservation.agent is not None:
                    self._reserved_slots[reservation.agent] -= 1
                released.append(reservation)
            else:
                waiting.append(seq)
        self._answered = waiting
        return released

    @property
    def in_flight(self) -> int:
        return len(self._reservations)

    # --- timers

    def wake_at(self, mono_s: float, matter: Matter) -> None:
        heapq.heappush(self._timers, (mono_s, matter))

    def due_timers(self) -> list[Matter]:
        due: list[Matter] = []
        while self._timers and self._timers[0][0] <= self.mono_s:
            due.append(heapq.heappop(self._timers)[1])
        return due

    def next_timer_s(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    # --- agents

    def used_slots(self, agent: str) -> int:
        return len(self.view.assigned_to.get(agent, ())) + self._reserved_slots.get(agent, 0)

    def is_eligible(self, requirement: Requirement, presence: Presence) -> bool:
        is_drained = presence.agent in self.view.drains
        return why_not(requirement, presence, is_drained) is None

    def has_eligible(self, requirement: Requirement) -> bool:
        """Whether an eligible agent lives, full or not."""
        return any(self.is_eligible(requirement, e.record) for e in self.view.presences.values())

    def choose(
        self, requirement: Requirement, avoid: frozenset[str] = frozenset()
    ) -> Entry[Presence] | None:
        """The eligible agent that gets the next run; None: there is none with a free slot."""
        choices = [
            Choice(name, self.used_slots(name), entry.record.slots)
            for name, entry in self.view.presences.items()
            if self.is_eligible(requirement, entry.record)
        ]
        agent = least_loaded(choices, avoid)
        return self.view.presences[agent] if agent is not None else None

    # --- jobs

    def can_start(self, job: Job) -> bool:
        """Whether the job's definition lets its ticks run now (pauses aside)."""
        return job.current.state.value == "enabled"
