"""A cluster in virtual time: the real scheduler cores, simple agents, a model of etcd.

Deterministic: nothing happens but by ``advance`` and by what a test does. Answers and watch events
arrive within the same virtual instant, in an order that ``chance`` draws if it is given; faults are
what a test does to nodes, agents and time.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from etcsched.core import timeline
from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Options
from etcsched.core.records import (
    CLUSTER,
    Answer,
    Calendar,
    CalendarVersion,
    Change,
    ConflictGroup,
    Drain,
    Gap,
    Job,
    Kind,
    Pause,
    Record,
    Request,
    Run,
    Term,
    Watermark,
)
from etcsched.core.states import JobState
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.keyspace.codec import MalformedRecord, change_of, decode, encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Delete, Put, Range, Txn
from etcsched.keyspace.transactions import (
    end_drain,
    submit_request,
    write_calendar,
    write_drain,
    write_group,
    write_jobs,
    write_pause,
)
from etcsched.testing.model_store import ModelStore
from etcsched.testing.simulated_agent import SimulatedAgent
from etcsched.testing.simulated_scheduler import SimulatedScheduler

__all__ = ["SimulatedAgent", "SimulatedScheduler", "World"]

MOST_WAKES_AT_ONCE = 2_000
"""More at one instant are a loop that makes no progress."""


class World:
    """``start`` is the wall clock at virtual second 0.

    ``leader_dies_after``: the leader that commits this many-th write of all leaders is killed
    before it learns of it.

    ``rejects``: the leaders' writes whose form etcd doesn't take. ``has_defects``: a decision that
    raises is a part of the story; else it ends the test.
    """

    def __init__(
        self,
        start: str = "2026-11-22T12:00:00.000Z",
        options: Options | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.store = ModelStore()
        self.keys = Keys()
        self.options = options or Options()
        self.start_ms = ms_of(Utc(start))
        self.chance = chance
        self.nodes: dict[str, SimulatedScheduler] = {}
        self.agents: dict[str, SimulatedAgent] = {}
        self.raft_term_since_s = -1000.0
        self.leader_writes = 0
        self.leader_dies_after: int | None = None
        self.rejects: Callable[[fx.Write], bool] = lambda write: False
        self.rejected: list[fx.Write] = []
        self.has_defects = False
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    # --- time

    @property
    def now_s(self) -> float:
        return self.store.now_s

    @property
    def now(self) -> Utc:
        return utc_of(self.start_ms + round(self.now_s * 1000))

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (when_s, self._order, action))

    def advance(self, seconds: float) -> None:
        """Let this much time pass, with everything that is due on the way, in order."""
        end_s = self.now_s + seconds
        wakes_at_once, last_s = 0, self.now_s
        while True:
            self.settle()
            wakes = [self._due[0][0]] if self._due else []
            wakes += [node.wake_s() for node in self.nodes.values() if node.is_alive]
            expiry_s = self.store.next_expiry_s()
            if expiry_s is not None:
                wakes.append(expiry_s)
            next_s = max(min(wakes, default=math.inf), self.now_s)
            if next_s > end_s:
                break
            wakes_at_once = wakes_at_once + 1 if next_s == last_s else 0
            last_s = next_s
            assert wakes_at_once < MOST_WAKES_AT_ONCE, f"no progress at second {last_s}"
            self.store.advance(next_s)
            while self._due and self._due[0][0] <= self.now_s:
                heapq.heappop(self._due)[2]()
            for node in list(self.nodes.values()):
                node.time_passed()
        self.store.advance(end_s)
        self.settle()

    def settle(self) -> None:
        """Until nobody has anything to say about what everybody sees."""
        while True:
            parties: list[SimulatedScheduler | SimulatedAgent] = []
            parties += [*self.nodes.values(), *self.agents.values()]
            if self.chance is not None:
                self.chance.shuffle(parties)
            if not [party for party in parties if party.see()]:
                return

    def leader_wrote(self, node: SimulatedScheduler) -> None:
        self.leader_writes += 1
        if self.leader_writes == self.leader_dies_after:
            node.kill()

    # --- who is there

    def scheduler(self, name: str, ttl_s: int = 10) -> SimulatedScheduler:
        node = self.nodes[name] = SimulatedScheduler(self, name, ttl_s)
        return node

    def agent(self, name: str, **more: object) -> SimulatedAgent:
        """The next of this name has the disk of the one before, unless ``past`` is given."""
        before = self.agents.get(name)
        if before is not None:
            more.setdefault("past", frozenset(before.incarnations))
        agent = self.agents[name] = SimulatedAgent(self, name, **more)  # type: ignore[arg-type]
        return agent

    # --- what operators do

    def apply(self, job: Job) -> Job:
        """As ``etcsched apply`` does it: the job as it stands in the timeline from now on."""
        old, at_job = self._one(Kind.JOB, job.name)
        assert old is None or isinstance(old, Job)
        through, at_watermark = self._watermark()
        open_from = self._open_from(job.name)
        revised = timeline.revise(old, job, self.now, through, open_from, at_job)
        if revised is not old:
            txn = write_jobs(self.keys, [(revised, at_job)], at_watermark)
            assert self.store.txn(txn).succeeded
        return revised

    def calendar(
        self, name: str, exclude: tuple[str, ...] = (), include: tuple[str, ...] = ()
    ) -> None:
        """As ``etcsched apply`` writes a calendar."""
        old, seen = self._one(Kind.CALENDAR, name)
        assert old is None or isinstance(old, Calendar)
        through, at_watermark = self._watermark()
        version = CalendarVersion(since=self.now, exclude=exclude, include=include)
        new = Calendar(name=name, versions=(version,))
        revised = timeline.revise_calendar(old, new, self.now, through, self._open_from(None))
        if revised is not old:
            gaps_seen = self.store.revision
            txn = write_calendar(self.keys, revised, seen, at_watermark, gaps_seen)
            assert self.store.txn(txn).succeeded

    def group(self, name: str, *jobs: str) -> None:
        """As ``etcsched apply`` writes a conflict group."""
        _, at_group = self._one(Kind.CONFLICT, name)
        members = []
        for job in jobs:
            record, at_job = self._one(Kind.JOB, job)
            assert record is None or isinstance(record, Job)
            members.append((job, record, at_job))
        group = ConflictGroup(group=name, jobs=jobs)
        _, at_edited = self._one(Kind.EDITED)
        txn = write_group(self.keys, group, at_group, members, at_edited)
        assert self.store.txn(txn).succeeded

    def set_state(self, name: str, state: JobState) -> None:
        """Apply the job with another state."""
        job, _ = self._one(Kind.JOB, name)
        assert isinstance(job, Job)
        self.apply(replace(job, versions=(replace(job.current, state=state),)))

    def delete(self, name: str) -> None:
        job, at_job = self._one(Kind.JOB, name)
        assert isinstance(job, Job)
        through, at_watermark = self._watermark()
        gone = timeline.delete(job, self.now, through, self._open_from(name))
        assert self.store.txn(write_jobs(self.keys, [(gone, at_job)], at_watermark)).succeeded

    def pause(self, name: str = CLUSTER) -> None:
        self._write_pause(name, begins=True)

    def resume(self, name: str = CLUSTER) -> None:
        self._write_pause(name, begins=False)

    def _write_pause(self, name: str, *, begins: bool) -> None:
        old, at_pause = self._one(Kind.PAUSE, name)
        assert old is None or isinstance(old, Pause)
        through, at_watermark = self._watermark()
        open_from = self._open_from(None if name == CLUSTER else name)
        if begins:
            new = timeline.begin_pause(old, self.now, through, open_from)
        elif old is not None:
            new = timeline.end_pause(old, self.now, through, open_from)
        else:
            return
        gaps_seen = self.store.revision
        txn = write_pause(self.keys, name, new, at_pause, at_watermark, gaps_revision=gaps_seen)
        assert self.store.txn(txn).succeeded

    def drain(self, agent: str) -> None:
        _, at_edited = self._one(Kind.EDITED)
        drain = Drain(agent=agent, since=self.now)
        self.store.txn(write_drain(self.keys, drain, at_edited))

    def undrain(self, agent: str) -> None:
        _, at_drain = self._one(Kind.DRAIN, agent)
        self.store.txn(end_drain(self.keys, agent, at_drain))

    def request(self, request: Request) -> None:
        self.store.txn(submit_request(self.keys, request))

    def put(self, kind: Kind, record: Record, *ids: str) -> int:
        """By hand."""
        return self.store.txn(Txn((), (Put(self.keys.of(kind, *ids), encode(record)),))).revision

    def remove(self, kind: Kind, *ids: str) -> None:
        """By hand."""
        self.store.txn(Txn((), (Delete(self.keys.of(kind, *ids)),)))

    def _one(self, kind: Kind, *ids: str) -> tuple[Record | None, int]:
        change = self.records(kind).get(ids)
        return (change.record, change.mod_revision) if change is not None else (None, 0)

    def _watermark(self) -> tuple[Utc | None, int]:
        watermark, revision = self._one(Kind.WATERMARK)
        return (watermark.through if isinstance(watermark, Watermark) else None), revision

    def _open_from(self, name: str | None) -> Utc | None:
        """Of one job, or of all."""
        gaps = [
            change.record
            for ids, change in self.records(Kind.GAP).items()
            if name is None or ids == (name,)
        ]
        return min((gap.decided_through for gap in gaps if isinstance(gap, Gap)), default=None)

    # --- what there is

    def records(self, kind: Kind) -> dict[tuple[str, ...], Change]:
        begin, end = self.keys.all_of(kind)
        found = self.store.range(Range(begin, end)).kvs
        changes: dict[tuple[str, ...], Change] = {}
        for kv in found:
            with suppress(MalformedRecord):
                change = change_of(self.keys, kv)
                if change is not None and change.kind is kind:
                    changes[change.ids] = change
        return changes

    def runs(self, job: str) -> dict[str, Run]:
        """All runs of a job, active and over, by id."""
        active = {
            ids[1]: change.record
            for ids, change in self.records(Kind.RUN).items()
            if ids[0] == job and isinstance(change.record, Run)
        }
        begin, end = self.keys.archive_of(job)
        over = {
            place[1]: decode(Run, kv.value)
            for kv in self.store.range(Range(begin, end)).kvs
            if (place := self.keys.parse_archive(kv.key)) is not None
        }
        assert not active.keys() & over.keys(), "a run is active and over"
        return dict(sorted({**active, **over}.items()))

    def states(self, job: str) -> dict[str, str]:
        """By the run's id; a tick's without its date and zone (``120500``)."""
        return {
            run.removeprefix("20261122T").removesuffix("Z"): record.state.value
            for run, record in self.runs(job).items()
        }

    def through_ms(self) -> int:
        through, _ = self._watermark()
        return ms_of(through) if through is not None else 0

    def answer(self, request: str) -> Answer | None:
        change = self.records(Kind.ANSWER).get((request,))
        return change.record if change is not None and isinstance(change.record, Answer) else None

    def term(self) -> Term:
        (change,) = self.records(Kind.TERM).values()
        assert isinstance(change.record, Term)
        return change.record

    def leader(self) -> SimulatedScheduler:
        """The one that leads, of those that aren't cut off."""
        leaders = [node for node in self.nodes.values() if node.leader and not node.is_cut_off]
        (node,) = leaders
        return node
