"""A copy of a write that a frozen member of etcd commits as it wakes, long after the write was sent
again and committed, and what it was about is over: it must change nothing."""

from __future__ import annotations

from msgspec.structs import replace

from etcsched.core.agent import effects as agent_fx
from etcsched.core.leader import effects as fx
from etcsched.core.records import (
    Barred,
    Candidate,
    ConflictGroup,
    Drain,
    Kind,
    Presence,
    StartSeen,
)
from etcsched.core.states import RunState
from etcsched.keyspace import transactions as tx
from etcsched.keyspace.codec import decode
from etcsched.keyspace.ops import Delete, KeyValue, Put, Range, Txn
from etcsched.keyspace.presence_steps import PresenceSteps
from etcsched.testing.model_store import ModelStore
from tests.unit.agent.script import presence_of
from tests.unit.keyspace.writing import KEYS, LATER, NOW, PLACES, RUN_ID, run_in

CANDIDATE = Candidate(node="s1", host="h", pid=1, since=NOW, clock=NOW, version="1")


def at(store: ModelStore, key: str) -> KeyValue | None:
    kvs = store.range(Range(key)).kvs
    return kvs[0] if kvs else None


def mod(store: ModelStore, key: str) -> int:
    kv = at(store, key)
    return kv.mod_revision if kv is not None else 0


def test_a_run_of_a_fan_out_that_is_forgotten() -> None:
    store = ModelStore()
    store.txn(Txn((), (Put(PLACES["fan-out"], b"{}"), Put(PLACES["job"], b"{}"))))
    run = replace(run_in(RunState.READY), id=f"{RUN_ID}@a1")
    copy = tx.LeaderTransactions(KEYS).build(
        fx.CreateRun(
            seq=1,
            run=run,
            seen=StartSeen(job=mod(store, PLACES["job"])),
            is_tick=False,
            fan_out_revision=mod(store, PLACES["fan-out"]),
        )
    )
    assert store.txn(copy).succeeded
    at_run = KEYS.of(Kind.RUN, "j", run.id)
    store.txn(Txn((), (Delete(at_run), Delete(PLACES["fan-out"]))))
    assert not store.txn(copy).succeeded
    assert at(store, at_run) is None


def test_a_drain_that_is_over() -> None:
    store = ModelStore()
    copy = tx.write_drain(KEYS, Drain(agent="a1", since=NOW), 0)
    assert store.txn(copy).succeeded
    assert store.txn(tx.end_drain(KEYS, "a1", mod(store, PLACES["drain"]))).succeeded
    assert not store.txn(copy).succeeded
    assert at(store, PLACES["drain"]) is None


def test_the_end_of_an_earlier_drain() -> None:
    store = ModelStore()
    drain, edited = Drain(agent="a1", since=NOW), PLACES["edited"]
    store.txn(tx.write_drain(KEYS, drain, 0))
    copy = tx.end_drain(KEYS, "a1", mod(store, PLACES["drain"]))
    assert store.txn(copy).succeeded
    assert store.txn(tx.write_drain(KEYS, drain, mod(store, edited))).succeeded
    assert not store.txn(copy).succeeded
    assert at(store, PLACES["drain"]) is not None


def test_a_group_that_is_deleted() -> None:
    store = ModelStore()
    place = KEYS.of(Kind.CONFLICT, "g")
    copy = tx.write_group(KEYS, ConflictGroup(group="g", jobs=()), 0, [], 0)
    assert store.txn(copy).succeeded
    assert store.txn(tx.delete_group(KEYS, "g", mod(store, place))).succeeded
    assert not store.txn(copy).succeeded
    assert at(store, place) is None


def test_a_word_on_what_bars_a_scheduler_that_stands_again() -> None:
    store = ModelStore()
    lease = store.lease_grant(10).lease
    barred = Barred(
        node="s1", host="h", pid=1, since=NOW, clock=NOW, version="1", reason="its clock is wrong"
    )
    place = KEYS.barred("s1")
    copy = tx.say_barred(KEYS, lease, barred)
    assert store.txn(copy).succeeded
    assert at(store, place) is not None
    assert store.txn(tx.join_election(KEYS, lease, CANDIDATE)).succeeded
    assert at(store, place) is None
    assert not store.txn(copy).succeeded
    assert at(store, place) is None


def test_a_clock_that_a_scheduler_showed_before() -> None:
    """Taken for its clock of now, it would be barred for a wrong one."""
    store = ModelStore()
    lease = store.lease_grant(10).lease
    joined = store.txn(tx.join_election(KEYS, lease, CANDIDATE)).revision
    copy = tx.update_candidate(KEYS, lease, joined, CANDIDATE)
    renewed = store.txn(copy)
    assert renewed.succeeded
    now = replace(CANDIDATE, clock=LATER)
    assert store.txn(tx.update_candidate(KEYS, lease, renewed.revision, now)).succeeded
    assert not store.txn(copy).succeeded
    kv = at(store, KEYS.election(lease))
    assert kv is not None
    assert decode(Candidate, kv.value).clock == LATER
    assert kv.create_revision == joined


class Agent:
    """One that says things of itself."""

    def __init__(self) -> None:
        self.store = ModelStore()
        self.steps = PresenceSteps(KEYS)
        self.presence = presence_of("i1")
        self.lease = self.store.lease_grant(10).lease
        join = agent_fx.JoinPresence(self.presence, self.lease)
        self.joined = self.store.txn(self.steps.txn_of(join, NOW)).revision

    def update(self, *, draining: bool) -> agent_fx.UpdatePresence:
        presence = replace(self.presence, draining=draining)
        return agent_fx.UpdatePresence(presence, self.lease, self.joined)

    def says(self, step: agent_fx.UpdatePresence) -> Txn:
        """... until that is answered; gives the first of what it sent."""
        first = self.steps.txn_of(step, NOW)
        assert self.steps.answered(step, self.store.txn(first)) is None
        self.go_on()
        return first

    def go_on(self) -> None:
        for _ in range(2):
            if not self.steps:
                return
            step = self.steps.next()
            assert isinstance(step, agent_fx.UpdatePresence)
            sent = self.steps.txn_of(step, NOW)
            assert self.steps.answered(step, self.store.txn(sent)) is None
        assert not self.steps, "it says it again and again"

    @property
    def is_draining(self) -> bool:
        kv = at(self.store, PLACES["presence"])
        assert kv is not None
        return decode(Presence, kv.value).draining


def test_what_an_agent_said_before_it_stopped() -> None:
    """Taken for its newest word, it would be let go a second time, with its shutdown jobs."""
    agent = Agent()
    copy = agent.says(agent.update(draining=False))
    agent.says(agent.update(draining=True))
    assert agent.is_draining
    assert not agent.store.txn(copy).succeeded
    assert agent.is_draining


def test_an_agent_whose_answer_was_lost_says_it_again() -> None:
    agent = Agent()
    lost = agent.steps.txn_of(agent.update(draining=False), NOW)
    assert agent.store.txn(lost).succeeded
    agent.says(agent.update(draining=True))
    assert agent.is_draining


def test_what_is_newer_is_said_instead() -> None:
    agent = Agent()
    lost, old, new = (agent.update(draining=draining) for draining in (False, False, True))
    agent.store.txn(agent.steps.txn_of(lost, NOW))
    refused = agent.store.txn(agent.steps.txn_of(old, NOW))
    agent.steps.submit(new)
    assert agent.steps.answered(old, refused) is None
    assert agent.steps.next() is new
    assert not agent.steps


def test_an_agent_that_was_started_again_goes_on_from_what_it_had_said() -> None:
    agent = Agent()
    agent.says(agent.update(draining=True))
    agent.steps = PresenceSteps(KEYS)
    agent.says(agent.update(draining=False))
    assert not agent.is_draining
