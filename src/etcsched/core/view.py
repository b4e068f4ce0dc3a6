"""What a scheduler knows of the keyspace, and nothing else.

The view changes only by etcd's revisions, in their order (DESIGN 7). It holds every record of the
watched range with its revisions, and a few indexes that follow from them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import Any, Generic, TypeVar

import msgspec

from etcsched.core.limits import Limits, calendars_of
from etcsched.core.records import (
    CLUSTER,
    Answer,
    Assignment,
    Calendar,
    Candidate,
    Change,
    ClusterSettings,
    ConflictGroup,
    Drain,
    Edited,
    FanOut,
    Gap,
    Job,
    Join,
    Kind,
    Live,
    Order,
    Pause,
    Presence,
    Record,
    Report,
    Request,
    Rotation,
    Run,
    Seat,
    StartSeen,
    Term,
    Watermark,
    lane_of,
)
from etcsched.core.running import shown_state
from etcsched.core.states import OCCASIONS, Lifecycle, Occasion, OnDisconnect, Origin, RunState

R = TypeVar("R", bound=Record)
M = TypeVar("M")
N = TypeVar("N")

Members = dict[M, None]
"""A set that keeps the order in which its members came, so that the same events lead to the same
decisions in every process."""

RunKey = tuple[str, str]
"""(job, run id)."""


_DEFAULT_SETTINGS = ClusterSettings()


_HOLD_UP = tuple(s for s in RunState if s not in (RunState.QUEUED, RunState.RETRYING))

QueuePlace = tuple[bool, str, str]
"""(is a resubmission, scheduled, id): ticks go before resubmissions that still wait."""


class Entry(msgspec.Struct, Generic[R], frozen=True, gc=False):
    record: R
    mod_revision: int
    create_revision: int
    lease: int


class View:
    """Entries by kind and ids. ``revision``: everything up to it is in, nothing after it."""

    def __init__(self) -> None:
        self.revision = 0
        self.jobs: dict[str, Entry[Job]] = {}
        self.pauses: dict[str, Entry[Pause]] = {}
        self.drains: dict[str, Entry[Drain]] = {}
        self.calendars: dict[str, Entry[Calendar]] = {}
        self.conflicts: dict[str, Entry[ConflictGroup]] = {}
        self.requests: dict[str, Entry[Request]] = {}
        self.answers: dict[str, Entry[Answer]] = {}
        self.candidates: dict[str, Entry[Candidate]] = {}
        self.presences: dict[str, Entry[Presence]] = {}
        self.gaps: dict[str, Entry[Gap]] = {}
        self.joins: dict[RunKey, Entry[Join]] = {}
        self.rotations: dict[str, Entry[Rotation]] = {}
        self.fan_outs: dict[RunKey, Entry[FanOut]] = {}
        self.seats: dict[str, Entry[Seat]] = {}
        self.live: dict[str, Entry[Live]] = {}
        self.runs: dict[RunKey, Entry[Run]] = {}
        self.assignments: dict[tuple[str, str, str], Entry[Assignment]] = {}
        self.reports: dict[tuple[str, str, str], Entry[Report]] = {}
        self.orders: dict[tuple[str, str, str], Entry[Order]] = {}
        self.late_reports: dict[tuple[str, str, str, str], Entry[Report]] = {}
        self._unreadable: dict[tuple[Kind, tuple[str, ...]], int] = {}
        """Revisions of what counts as absent: transactions compare what stands there."""
        self._settings: dict[tuple[()], Entry[ClusterSettings]] = {}
        self._edits: dict[tuple[()], Entry[Edited]] = {}
        self._terms: dict[tuple[()], Entry[Term]] = {}
        self._watermarks: dict[tuple[()], Entry[Watermark]] = {}
        self.runs_of_job: defaultdict[str, Members[str]] = defaultdict(dict)
        self._runs_of_lane: defaultdict[str, Members[str]] = defaultdict(dict)
        """A job's own lane has those that are bound to no agent."""
        self.queued_of: defaultdict[str, list[QueuePlace]] = defaultdict(list)
        """By lane, in the order of their turns."""
        self.retrying_of: defaultdict[str, Members[str]] = defaultdict(dict)
        self._in_state: defaultdict[tuple[str, RunState], Members[str]] = defaultdict(dict)
        self.recovering_of: defaultdict[str, Members[str]] = defaultdict(dict)
        """Those that catch up on an outage."""
        self._recovering_in: defaultdict[tuple[str, RunState], Members[str]] = defaultdict(dict)
        self.chained_of: defaultdict[str, Members[str]] = defaultdict(dict)
        """Those that another job's run chained to, by job."""
        self.ticks_of: defaultdict[str, Members[str]] = defaultdict(dict)
        """By lane; a job's own lane has those that are bound to an agent in it as well."""
        self.resubmissions_of: defaultdict[RunKey, Members[str]] = defaultdict(dict)
        """Those that aren't over, by the run that they go back to."""
        self.assigned_to: defaultdict[str, Members[RunKey]] = defaultdict(dict)
        self._slotless_of: defaultdict[str, Members[RunKey]] = defaultdict(dict)
        """Of those that are assigned to an agent, the ones that take none of its slots."""
        self.jobs_at: dict[Occasion, Members[str]] = {occasion: {} for occasion in Occasion}
        """By their lifecycle, whatever their state."""
        self.bound_to: defaultdict[str, Members[RunKey]] = defaultdict(dict)
        """By the agent that alone may have them."""
        self.bound_of: defaultdict[str, Members[str]] = defaultdict(dict)
        """The same by job."""
        # One map a kind, each of its own types.
        self._maps: dict[Kind, dict[Any, Any]] = {
            Kind.JOB: self.jobs,
            Kind.PAUSE: self.pauses,
            Kind.DRAIN: self.drains,
            Kind.CALENDAR: self.calendars,
            Kind.CONFLICT: self.conflicts,
            Kind.SETTINGS: self._settings,
            Kind.EDITED: self._edits,
            Kind.REQUEST: self.requests,
            Kind.ANSWER: self.answers,
            Kind.ELECTION: self.candidates,
            Kind.PRESENCE: self.presences,
            Kind.GAP: self.gaps,
            Kind.JOIN: self.joins,
            Kind.ROTATION: self.rotations,
            Kind.FAN_OUT: self.fan_outs,
            Kind.SEAT: self.seats,
            Kind.LIVE: self.live,
            Kind.RUN: self.runs,
            Kind.ASSIGNMENT: self.assignments,
            Kind.REPORT: self.reports,
            Kind.ORDER: self.orders,
            Kind.LATE_REPORT: self.late_reports,
            Kind.TERM: self._terms,
            Kind.WATERMARK: self._watermarks,
        }

    @property
    def term(self) -> Entry[Term] | None:
        return self._terms.get(())

    @property
    def watermark(self) -> Entry[Watermark] | None:
        return self._watermarks.get(())

    @property
    def settings(self) -> ClusterSettings:
        entry = self._settings.get(())
        return entry.record if entry is not None else _DEFAULT_SETTINGS

    @property
    def settings_revision(self) -> int:
        return self.seen(Kind.SETTINGS)

    @property
    def edited(self) -> Entry[Edited] | None:
        return self._edits.get(())

    def pause_of(self, name: str) -> Pause | None:
        entry = self.pauses.get(name)
        return entry.record if entry is not None else None

    def limits_of(self, job: Job) -> Limits:
        """What keeps ticks of its schedule from being due."""
        pauses = (self.pause_of(job.name), self.pause_of(CLUSTER))
        names = calendars_of(job)
        if not names:
            return Limits(pauses)
        entries = {name: self.calendars.get(name) for name in names}
        return Limits(pauses, {n: e.record for n, e in entries.items() if e is not None})

    def calendars_seen(self, job: Job) -> tuple[tuple[str, int], ...]:
        """The revisions of the calendars that a decision on its ticks rests on."""
        return tuple((name, self.seen(Kind.CALENDAR, name)) for name in calendars_of(job))

    def is_paused(self, job: str) -> bool:
        return self.what_is_paused(job) is not None

    def what_is_paused(self, job: str) -> str | None:
        """What keeps the job from starting, in words: itself, or everything."""
        for name, words in ((job, f"job {job}"), (CLUSTER, "the cluster")):
            pause = self.pause_of(name)
            if pause is not None and pause.active:
                return words
        return None

    def start_seen(self, job: str, agent: str | None = None) -> StartSeen:
        """The revisions that a start of this job (on this agent) rests on."""
        return StartSeen(
            job=self.seen(Kind.JOB, job),
            pause=self.seen(Kind.PAUSE, job),
            cluster_pause=self.seen(Kind.PAUSE, CLUSTER),
            drain=self.seen(Kind.DRAIN, agent) if agent is not None else 0,
            seat=self.seen(Kind.SEAT, agent) if agent is not None else 0,
        )

    def runs_of(self, lane: str) -> list[Run]:
        """Those of a job, or of a lane of it, that aren't over."""
        job = job_of(lane)
        return [self.runs[(job, run)].record for run in self.ids_of(lane)]

    def ids_of(self, lane: str) -> Collection[str]:
        of_lane = self.runs_of_job if job_of(lane) == lane else self._runs_of_lane
        return of_lane.get(lane, ())

    def runs_in(self, job: str, *states: RunState) -> list[Run]:
        """Those in these states (not ``queued``); the cost is theirs alone."""
        return [
            self.runs[(job, run)].record
            for state in states
            for run in self._in_state.get((job, state), ())
        ]

    def run_counts(self) -> Counter[RunState]:
        """How many runs aren't over, by state; the cost is in how many jobs have any."""
        counts: Counter[RunState] = Counter()
        for (_, state), runs in self._in_state.items():
            counts[state] += len(runs)
        counts[RunState.QUEUED] += sum(len(queue) for queue in self.queued_of.values())
        return counts

    def has_unqueued(self, lane: str) -> bool:
        """Whether any active run of the lane isn't queued. A job's own lane has those that are
        bound to an agent in it as well."""
        if job_of(lane) == lane:
            return any((lane, state) in self._in_state for state in _HOLD_UP)
        waiting = len(self.queued_of.get(lane, ())) + len(self.retrying_of.get(lane, ()))
        return len(self.ids_of(lane)) > waiting

    def active_runs(self, lane: str) -> list[Run]:
        """Those that others of the lane may have to wait for: one between two attempts holds
        nothing up."""
        return [run for run in self.runs_of(lane) if run.state is not RunState.RETRYING]

    def unqueued_runs(self, lane: str) -> list[Run]:
        """Those of them that aren't queued."""
        if job_of(lane) == lane:
            return self.runs_in(lane, *_HOLD_UP)
        return [run for run in self.active_runs(lane) if run.state is not RunState.QUEUED]

    def one_recovering_in(self, lane: str, *states: RunState) -> Run | None:
        """A run in one of these states that catches up on an outage."""
        for state in states:
            for run in self._recovering_in.get((lane, state), ()):
                return self.runs[(job_of(lane), run)].record
        return None

    def slots_taken(self, agent: str) -> int:
        """A run is held for a lost agent once its process must be over: it takes no slot then,
        unless that process may run on."""
        return len(self.assigned_to.get(agent, ())) - len(self._slotless_of.get(agent, ()))

    def shown_state(self, run: Run) -> RunState:
        """As a user is told it."""
        claim = self.reports.get((run.agent, run.job, run.id))
        return shown_state(run, claim.record if claim is not None else None)

    def unbound_beside(self, run: Run) -> list[Run]:
        """For one that is bound to an agent: those of its job that are bound to none and that it
        may have to wait for. Where its job runs on each agent, or it is about its agent's coming,
        what runs elsewhere is in nobody's way here; else (it was made as its job still did) all."""
        if not run.host or run.is_for_shutdown:
            return []  # (That one's agent waits for it to go.)
        job = self.jobs.get(run.job)
        if run.is_bound_to_incarnation or (job is not None and job.record.per_host):
            return self.unbound_on(run.job, run.host)
        return self.unbound_of(run.job)

    def unbound_of(self, job: str) -> list[Run]:
        """Those of its active runs that are bound to no agent."""
        unbound = (self.runs[(job, id_)].record for id_ in self._runs_of_lane.get(job, ()))
        return [other for other in unbound if other.state is not RunState.RETRYING]

    def unbound_on(self, job: str, agent: str) -> list[Run]:
        """Those of them that this agent has; the cost is in what it has."""
        keys = [key for key in self.assigned_to.get(agent, ()) if key[0] == job]
        runs = [self.runs[key].record for key in keys if key in self.runs]
        return [run for run in runs if not run.host and run.agent == agent]

    def by_kind(self) -> dict[Kind, dict[Any, Entry[Any]]]:
        """All entries; ids of one part aren't tuples."""
        return self._maps

    def apply(self, changes: Iterable[Change], revision: int) -> None:
        """Take in all changes up to ``revision``."""
        for change in changes:
            ids = change.ids[0] if len(change.ids) == 1 else change.ids
            entries = self._maps[change.kind]
            before = entries.get(ids)
            if change.record is None:
                entries.pop(ids, None)
            else:
                entries[ids] = Entry(
                    change.record, change.mod_revision, change.create_revision, change.lease
                )
            self._index(change, before.record if before is not None else None)
            if change.record is None and change.create_revision:
                self._unreadable[change.kind, change.ids] = change.mod_revision
            elif self._unreadable:
                self._unreadable.pop((change.kind, change.ids), None)
        self.revision = revision

    def seen(self, kind: Kind, *ids: str) -> int:
        """The revision of a record as transactions compare it (0: absent). One that can't be read
        counts as absent, but its key is there."""
        entry = self._maps[kind].get(ids[0] if len(ids) == 1 else ids)
        return entry.mod_revision if entry is not None else self._unreadable.get((kind, ids), 0)

    def is_unreadable(self, kind: Kind, *ids: str) -> bool:
        """Whether there is one that counts as absent, since it can't be read."""
        return (kind, ids) in self._unreadable

    def differences(self, snapshot: Iterable[Change], revision: int) -> list[Change]:
        """The changes that lead from this view to a snapshot: also the deletions that history no
        longer tells (compaction). A record of the same revision is the same record."""
        changes: list[Change] = []
        seen: dict[Kind, set[tuple[str, ...]]] = {kind: set() for kind in self._maps}
        for change in snapshot:
            seen[change.kind].add(change.ids)
            ids = change.ids[0] if len(change.ids) == 1 else change.ids
            known = self._maps[change.kind].get(ids)
            if known is None or known.mod_revision != change.mod_revision:
                changes.append(change)
        for kind, place in self._unreadable:
            if place not in seen[kind]:
                changes.append(Change(kind=kind, ids=place, record=None, mod_revision=revision))
        for kind, entries in self._maps.items():
            for ids in entries:
                place = ids if isinstance(ids, tuple) else (ids,)
                if place not in seen[kind]:
                    gone = Change(kind=kind, ids=place, record=None, mod_revision=revision)
                    changes.append(gone)
        return changes

    def _index(self, change: Change, before: Record | None) -> None:
        match change.kind:
            case Kind.RUN:
                job, run = change.ids
                self._member(self.runs_of_job, job, run, change.record is not None)
                lane = lane_of(job, run)
                self._member(self._runs_of_lane, lane, run, change.record is not None)
                if isinstance(before, Run):
                    self._index_run(before, is_in=False)
                if isinstance(change.record, Run):
                    self._index_run(change.record, is_in=True)
                for run_record in (before, change.record):
                    if isinstance(run_record, Run) and run_record.state is RunState.HELD:
                        self._index_slot(run_record.agent, (job, run))
            case Kind.ASSIGNMENT:
                agent, job, run = change.ids
                self._member(self.assigned_to, agent, (job, run), change.record is not None)
                self._index_slot(agent, (job, run))
            case Kind.JOB:
                self._index_lifecycle(change.ids[0], before, change.record)
            case _:
                pass

    def _index_slot(self, agent: str, key: RunKey) -> None:
        run, assignment = self.runs.get(key), self.assignments.get((agent, *key))
        is_slotless = (
            run is not None
            and assignment is not None
            and (run.record.state, run.record.agent) == (RunState.HELD, agent)
            and assignment.record.on_disconnect is OnDisconnect.STOP
        )
        self._member(self._slotless_of, agent, key, is_slotless)

    def _index_lifecycle(self, job: str, before: Record | None, after: Record | None) -> None:
        was = before.lifecycle if isinstance(before, Job) else Lifecycle.NONE
        now = after.lifecycle if isinstance(after, Job) else Lifecycle.NONE
        if was is not now:
            for occasion in OCCASIONS[was]:
                self.jobs_at[occasion].pop(job, None)
            for occasion in OCCASIONS[now]:
                self.jobs_at[occasion][job] = None

    def _index_run(self, run: Run, *, is_in: bool) -> None:
        if run.host:
            self._member(self.bound_to, run.host, (run.job, run.id), is_in)
            self._member(self.bound_of, run.job, run.id, is_in)
        if run.resubmits:
            self._member(self.resubmissions_of, (run.job, run.root), run.id, is_in)
        if run.origin is Origin.RECOVERY:
            self._member(self.recovering_of, run.lane, run.id, is_in)
            self._member(self._recovering_in, (run.lane, run.state), run.id, is_in)
        if run.origin is Origin.CHAIN:
            self._member(self.chained_of, run.job, run.id, is_in)
        if run.is_tick:
            for lane in dict.fromkeys((run.lane, run.job)):
                self._member(self.ticks_of, lane, run.id, is_in)
        if run.state is RunState.RETRYING:
            self._member(self.retrying_of, run.lane, run.id, is_in)
        if run.state is not RunState.QUEUED:
            self._member(self._in_state, (run.job, run.state), run.id, is_in)
            return
        queue, place = self.queued_of[run.lane], queue_place(run)
        if is_in:
            insort(queue, place)
            return
        del queue[bisect_left(queue, place)]
        if not queue:
            del self.queued_of[run.lane]

    @staticmethod
    def _member(index: defaultdict[N, Members[M]], name: N, item: M, is_in: bool) -> None:
        if is_in:
            index[name][item] = None
        elif name in index:
            index[name].pop(item, None)
            if not index[name]:
                del index[name]


def job_of(lane: str) -> str:
    return lane.partition("@")[0]


def queue_place(run: Run) -> QueuePlace:
    return (
        run.origin is Origin.RESUBMISSION,
        run.due_at if run.origin is Origin.CHAIN else run.scheduled_at or "",
        run.id,
    )


def revision_of(entry: Entry[R] | None) -> int:
    """As transactions compare it: 0 is absent."""
    return entry.mod_revision if entry is not None else 0
