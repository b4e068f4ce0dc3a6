"""A cluster under random faults and edits, judged by what is in etcd and by its whole history.

The ticks that are due are found by looking at every second (``tests.support.due``), not by the
code under test. A failure names its seed, which replays it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from etcsched.core.records import CLUSTER, Join, Keep, Kind, Link, Retry, Run, Watermark
from etcsched.core.states import FINAL, JobState, Origin, Outcome, Overlap, Recovery, RunState
from etcsched.core.times import ms_of
from etcsched.keyspace.codec import decode
from etcsched.keyspace.ops import EventType, range_end_of
from etcsched.testing.simulated_agent import Span
from etcsched.testing.world import SimulatedAgent, SimulatedScheduler, World
from tests.support.due import DueTicks
from tests.support.jobs import job, resubmit

SEEDS = [*range(60), 88, 188, 408, 417]
STEPS = 30
RETRY_INTERVAL_S = 3.0
SCHEDULES: list[dict[str, object]] = [
    {"every_s": 1},
    {"every_s": 7},
    {"every_s": 30},
    {"cron": "*/20 * * * * *"},
    {"cron": "*/1 * * * *"},
    {"every_s": 9, "cron": "*/3 * * * * *"},
]


class Storm:
    """One random history. ``due`` is told of every acknowledged edit."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World(chance=random.Random(seed + 1))
        self.due = DueTicks()
        self.names = [f"j{n}" for n in range(self.chance.randint(1, 3))]
        self.paused: set[str] = set()
        self.drained: set[str] = set()
        self.retired: list[SimulatedAgent] = []
        self._numbers = 0
        self.start_scheduler()
        for name in self.names:
            self.edit(name)
        self.start_agent()

    # --- what happens

    def step(self) -> None:
        chance = self.chance
        acts = [
            self.pass_time, self.pass_time, self.pass_time, self.start_scheduler,
            self.kill_scheduler, self.leader_dies_soon, self.cut_scheduler, self.start_agent,
            self.kill_agent, self.cut_agent, self.heal, self.elect, self.delete_presence,
            self.edit_any, self.pause_any, self.resume_any, self.drain_any, self.undrain_all,
            self.resubmit_some, self.resubmit_some,
        ]  # fmt: skip
        chance.choice(acts)()
        # Edits fall between ticks: at a tick's very instant either answer would be right.
        self.world.advance(chance.choice([0.25, 0.5, 1.0, 3.0, 8.0, 20.0]))

    def pass_time(self) -> None:
        self.world.advance(self.chance.choice([0.1, 1.0, 5.0, 40.0, 150.0]))

    def _name(self, kind: str) -> str:
        self._numbers += 1
        return f"{kind}{self._numbers}"

    def _schedulers(self) -> list[SimulatedScheduler]:
        return [node for node in self.world.nodes.values() if node.is_alive]

    def _agents(self) -> list[SimulatedAgent]:
        return [agent for agent in self.world.agents.values() if agent.is_alive]

    def start_scheduler(self) -> None:
        if len(self._schedulers()) < 3:
            self.world.scheduler(self._name("s"))

    def kill_scheduler(self) -> None:
        if nodes := self._schedulers():
            self.chance.choice(nodes).kill()

    def leader_dies_soon(self) -> None:
        self.world.leader_dies_after = self.world.leader_writes + self.chance.randint(1, 12)

    def cut_scheduler(self) -> None:
        if nodes := self._schedulers():
            self.chance.choice(nodes).is_cut_off = True

    def start_agent(self) -> None:
        if len(self._agents()) < 3:
            takes_s = self.chance.choice([0.4, 2.0, 6.0])
            ends_as = self.chance.choice([Outcome.COMPLETED] * 2 + [Outcome.FAILED])
            slots = self.chance.randint(1, 3)
            self.world.agent(self._name("a"), slots=slots, takes_s=takes_s, ends_as=ends_as)

    def kill_agent(self) -> None:
        if agents := self._agents():
            self.chance.choice(agents).kill()

    def cut_agent(self) -> None:
        if agents := self._agents():
            self.chance.choice(agents).is_cut_off = True

    def heal(self) -> None:
        for node in self._schedulers():
            node.is_cut_off = False
        for agent in self._agents():
            agent.is_cut_off = False

    def elect(self) -> None:
        self.world.store.elect()
        self.world.raft_term_since_s = self.world.now_s

    def delete_presence(self) -> None:
        agents = [agent for agent in self._agents() if not agent.is_cut_off]
        if agents:
            agent = self.chance.choice(agents)
            if (agent.name,) in self.world.records(Kind.PRESENCE):
                self.world.remove(Kind.PRESENCE, agent.name)
                self.world.advance(self.chance.choice([0.0, 0.5]))
                agent.put_presence_again()

    def edit_any(self) -> None:
        name = self.chance.choice(self.names)
        self._between_ticks()
        if self.chance.random() < 0.2 and (name,) in self.world.records(Kind.JOB):
            self.world.delete(name)
            self.due.deleted(name, self.world)
        else:
            self.edit(name)

    def edit(self, name: str) -> None:
        self._between_ticks()
        chance = self.chance
        if (name,) not in self.world.records(Kind.JOB) and name in self.paused:
            self.due.resumed(name, self.world)  # A deleted job takes its pause with it.
            self.paused.discard(name)
        revised = self.world.apply(
            job(
                name,
                **chance.choice(SCHEDULES),  # type: ignore[arg-type]
                state=chance.choice([JobState.ENABLED] * 4 + [JobState.DISABLED]),
                recovery=chance.choice(list(Recovery)),
                overlap=chance.choice(list(Overlap)),
                pickup_buffer_s=chance.choice([0.0, 5.0, 60.0]),
                catch_up_limit=chance.choice([2, 100]),
                max_reassigns=chance.choice([0, 3]),
                retry=Retry(max=chance.choice([0, 0, 2]), interval_s=RETRY_INTERVAL_S),
                chain=self._chain_of(name),
                keep=Keep(runs=1_000_000),
            )
        )
        self.due.applied(revised)

    def _chain_of(self, name: str) -> tuple[Link, ...]:
        """To jobs behind it, so that there is no cycle."""
        later = [other for other in self.names if other > name]
        return tuple(
            Link(
                to=other,
                on=self.chance.choice([(RunState.COMPLETED,), (RunState.FAILED, RunState.DIED)]),
                joins=self.chance.random() < 0.3,
            )
            for other in later
            if self.chance.random() < 0.5
        )

    def resubmit_some(self) -> None:
        name = self.chance.choice(self.names)
        over = [run for run in self.world.runs(name).values() if run.state in FINAL]
        over = [run for run in over if run.state is not RunState.COMPLETED] or over
        for run in self.chance.sample(over, min(len(over), 8)):
            self.world.request(resubmit(self._name("20261122T120000.000Z-"), run.id, name))

    def _between_ticks(self) -> None:
        self.world.advance(0.5 - self.world.now_s % 1 if self.world.now_s % 1 < 0.5 else 0.0)
        if self.world.now_s % 1 == 0:
            self.world.advance(0.5)

    def pause_any(self) -> None:
        self._between_ticks()
        there = [name for name in self.names if (name,) in self.world.records(Kind.JOB)]
        name = self.chance.choice([*there, CLUSTER])
        self.world.pause(name)
        self.due.paused(name, self.world)
        self.paused.add(name)

    def resume_any(self) -> None:
        self._between_ticks()
        if self.paused:
            name = self.chance.choice(sorted(self.paused))
            if name != CLUSTER and (name,) not in self.world.records(Kind.PAUSE):
                return
            self.world.resume(name)
            self.due.resumed(name, self.world)
            self.paused.discard(name)

    def drain_any(self) -> None:
        if agents := self._agents():
            agent = self.chance.choice(agents)
            self.world.drain(agent.name)
            self.drained.add(agent.name)

    def undrain_all(self) -> None:
        for agent in sorted(self.drained):
            self.world.undrain(agent)
        self.drained.clear()

    # --- the end

    def quiesce(self) -> None:
        """Heal everything, let it catch up, then stop the jobs and let what runs end."""
        world = self.world
        world.leader_dies_after = None
        self.heal()
        world.scheduler(self._name("s"))
        world.agent(self._name("a"), slots=4, takes_s=0.2)
        self.undrain_all()
        for _ in range(20):
            self.resume_any()
        world.advance(60)
        self._between_ticks()
        for name in self.names:
            if (name,) in world.records(Kind.JOB):
                world.delete(name)
                self.due.deleted(name, world)
        for _ in range(60):
            world.advance(10)
            if not world.records(Kind.RUN) and not world.records(Kind.JOB):
                return


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(STEPS):
        storm.step()
    storm.quiesce()
    check_quiet(storm.world)
    check_history(storm.world)
    check_processes(storm)
    for name in storm.names:
        check_ticks(storm, name)
        check_retries(storm, name)
        check_resubmissions(storm, name)
    check_chains(storm)


def check_quiet(world: World) -> None:
    leftovers = (
        Kind.RUN, Kind.ASSIGNMENT, Kind.REPORT, Kind.ORDER, Kind.GAP, Kind.LATE_REPORT,
        Kind.REQUEST, Kind.JOB,
    )  # fmt: skip
    for kind in leftovers:
        assert world.records(kind) == {}, kind
    machine = world.leader().leader
    assert machine is not None
    assert (machine.in_flight, machine.open_ticks) == (0, 0)
    assert world.start_ms + world.now_s * 1000 - world.through_ms() <= 6_000


def check_history(world: World) -> None:
    """The watermark only grows; what is in the archive stays as it ended."""
    keys, store = world.keys, world.store
    through = [
        decode(Watermark, event.kv.value).through
        for event in store.events_since(1, keys.watermark, None)
    ]
    assert through == sorted(set(through))
    ended: dict[str, Run] = {}
    prefix = keys.archive_prefix
    for event in store.events_since(1, prefix, range_end_of(prefix)):
        assert event.type is EventType.PUT, "nothing is pruned here"
        run = decode(Run, event.kv.value)
        assert run.state in FINAL
        assert ended.setdefault(event.kv.key, run).state is run.state


def over_s(span: Span) -> float:
    assert span.end_s is not None
    return span.end_s


def check_processes(storm: Storm) -> None:
    world = storm.world
    of_run = defaultdict(list)
    of_job = defaultdict(list)
    for agent in world.agents.values():
        for span in agent.spans:
            of_run[(span.job, span.run)].append(span)
            of_job[span.job].append(span)
    for spans in of_run.values():
        spans.sort(key=lambda span: span.start_s)
        for one, other in pairwise(spans):
            assert over_s(one) <= other.start_s, "two attempts of a run at the same time"
            assert one.token < other.token
    for name, spans in of_job.items():
        spans.sort(key=lambda span: span.start_s)
        for one, other in pairwise(spans):
            if not storm.due.allows_overlap(name):
                assert over_s(one) <= other.start_s, "two runs of a job that doesn't overlap"
        for span in spans:
            assert not storm.due.is_stopped(world, name, span.start_s), (name, span)


def check_retries(storm: Storm, name: str) -> None:
    """Only what failed is tried again, not too often, and never too early."""
    spans = {span.token: span for agent in storm.world.agents.values() for span in agent.spans}
    for run in storm.world.runs(name).values():
        assert run.retries <= 2
        failed = [one for one in run.attempts if one.outcome is Outcome.FAILED]
        assert len(failed) <= run.retries + 1
        for one, other in pairwise(run.attempts):
            if one.outcome is Outcome.FAILED and other.token in spans:
                end_s = spans[one.token].end_s
                assert end_s is not None
                assert spans[other.token].start_s >= end_s + RETRY_INTERVAL_S - 0.001


def check_resubmissions(storm: Storm, name: str) -> None:
    """Each is linked both ways, with its original's time."""
    runs = storm.world.runs(name)
    for run in runs.values():
        if run.resubmits:
            original = runs[run.resubmits]
            assert run.id in original.resubmitted_as
            assert run.scheduled_at == original.scheduled_at
        assert all(runs[link].resubmits == run.id for link in run.resubmitted_as)


def check_chains(storm: Storm) -> None:
    """What an end began is there, once, and linked both ways; but for joins that still wait."""
    world = storm.world
    runs = {(name, id_): run for name in storm.names for id_, run in world.runs(name).items()}
    waited = {
        (join.record.job, join.record.run)
        for join in world.records(Kind.JOIN).values()
        if isinstance(join.record, Join)
    }
    begun: set[tuple[str, str, str, str]] = set()
    for place, run in runs.items():
        for follow in run.followed_by:
            if not follow.run:
                continue
            follower = runs.get((follow.job, follow.run))
            link = (*place, follow.job, follow.run)
            assert link not in begun, "begun twice"
            begun.add(link)
            if follower is None:
                assert follow.note.startswith("waits for"), (place, follow, "is lost")
                assert (follow.job, follow.run) in waited
    for place, run in runs.items():
        assert bool(run.chained_from) is (run.depth > 0)
        if run.origin is Origin.CHAIN:
            assert run.chained_from
            assert all((s.job, s.run, *place) in begun for s in run.chained_from)


def check_ticks(storm: Storm, name: str) -> None:
    """Each due tick is one run, or in one record that says why not."""
    world = storm.world
    expected = storm.due.ticks_ms(world, name)
    found: Counter[int] = Counter()
    for run in world.runs(name).values():
        if run.origin in (Origin.RESUBMISSION, Origin.CHAIN):
            continue
        assert run.scheduled_at is not None
        first_ms = ms_of(run.scheduled_at)
        if run.missed_through is None:
            found[first_ms] += 1
            continue
        within = [ms for ms in expected if first_ms <= ms <= ms_of(run.missed_through)]
        assert len(within) == run.missed_count, run
        found.update(within)
    at = world.start_ms
    lost = [(ms - at) / 1000 for ms in sorted(set(expected) - found.keys())]
    invented = [(ms - at) / 1000 for ms in sorted(found.keys() - set(expected))]
    twice = [(ms - at) / 1000 for ms, count in sorted(found.items()) if count > 1]
    assert (lost, invented, twice) == ([], [], [])
