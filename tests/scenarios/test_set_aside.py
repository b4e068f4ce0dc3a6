"""What etcd takes in no form, and what can't be decided, costs its own job, and no other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from etcsched.core.leader import effects as fx
from etcsched.core.leader.explaining import Explainer
from etcsched.core.leader.fan_outs import FanOuts
from etcsched.core.leader.lifecycle import LiveAgents
from etcsched.core.leader.outages import Outages
from etcsched.core.leader.recovery import Plan
from etcsched.core.leader.request_decider import RequestDecider
from etcsched.core.leader.run_decider import RunDecider
from etcsched.core.leader.setbacks import ASIDE_REASON
from etcsched.core.leader.tick_decider import TickDecider
from etcsched.core.records import Gap, Job, Kind, Link, Live, Request, Retry, Watermark
from etcsched.core.schedule import At, Cron
from etcsched.core.states import (
    JobState,
    OnAgentLoss,
    Outcome,
    Overlap,
    Recovery,
    RunState,
    Stage,
)
from etcsched.core.times import Utc, ms_of
from etcsched.core.view import Entry, View
from etcsched.testing.world import World
from tests.support.jobs import cancel, job, resubmit, trigger

EACH_MINUTE = Cron("* * * * *")
ASKED = "20261122T120001.000Z-aa"
OVER = "20261122T120000.000Z-bb"


def started() -> World:
    world = World()
    world.scheduler("s1")
    world.agent("a1", slots=10, takes_s=1.0)
    world.advance(1)
    world.apply(job("other", EACH_MINUTE))
    return world


def explained(world: World, name: str) -> str:
    view = View()
    for kind in (Kind.GAP, Kind.JOB, Kind.PRESENCE):
        view.apply(world.records(kind).values(), world.store.revision)
    outage = Explainer(view, ms_of(world.now)).outage(view.jobs[name].record)
    assert outage is not None
    return outage.text


def is_about(write: fx.Write, name: str) -> bool:
    match write:
        case fx.CreateRun() | fx.EndRun() | fx.Dispatch() | fx.Requeue():
            return write.run.job == name
        case fx.CreateFanOut():
            return write.fan_out.job == name
        case fx.RecoverTicks():
            return write.job == name
    return False


KINDS = [
    pytest.param(fx.CreateRun, {}, id="a tick's run"),
    pytest.param(fx.CreateFanOut, {"per_host": True}, id="a fan-out"),
    pytest.param(fx.EndRun, {}, id="a run's end"),
]


@pytest.mark.parametrize(("kind", "fields"), KINDS)
def test_what_etcd_rejects_of_one_job(kind: type[fx.Write], fields: dict[str, Any]) -> None:
    world = started()
    world.rejects = lambda write: isinstance(write, kind) and is_about(write, "bad")
    world.apply(job("bad", EACH_MINUTE, recovery=Recovery.ALL, **fields))
    world.advance(600)
    assert world.rejected
    assert list(world.states("other").values()) == ["completed"] * 10
    gap = world.records(Kind.GAP)[("bad",)].record
    assert isinstance(gap, Gap)
    assert (gap.closed, gap.reason) == (False, ASIDE_REASON)
    assert explained(world, "bad").endswith("that is tried again each minute")
    world.rejects = lambda write: False
    world.advance(120)
    assert list(world.states("bad").values()) == ["completed"] * 12
    assert list(world.states("other").values()) == ["completed"] * 12


def test_a_step_of_a_recovery() -> None:
    world = started()
    world.apply(job("bad", EACH_MINUTE, hosts=("a2",), recovery=Recovery.ALL))
    world.advance(130)
    assert explained(world, "bad").endswith("not among the job's hosts (a2)")
    world.rejects = lambda write: isinstance(write, fx.RecoverTicks)
    world.agent("a2", slots=10, takes_s=1.0)
    world.advance(600)
    assert list(world.states("other").values()) == ["completed"] * 12
    assert explained(world, "bad").endswith("that is tried again each minute")
    world.rejects = lambda write: False
    world.advance(120)
    assert list(world.states("bad").values()) == ["completed"] * 14


def test_after_a_time_without_a_leader() -> None:
    world = started()
    world.apply(job("bad", EACH_MINUTE, recovery=Recovery.ALL))
    world.advance(60)
    world.nodes["s1"].kill()
    world.advance(300)
    world.rejects = lambda write: is_about(write, "bad")
    world.scheduler("s2")
    world.advance(300)
    assert len(world.states("other")) > 5
    assert "ready" not in world.states("other").values()
    world.rejects = lambda write: False
    world.advance(120)
    assert list(world.states("bad").values()) == ["completed"] * 13


def test_a_chain_that_etcd_rejects_keeps_its_target_from_nothing() -> None:
    world = started()
    world.apply(job("target", EACH_MINUTE, recovery=Recovery.ALL))
    world.apply(job("source", chain=(Link(to="target"),)))
    world.rejects = lambda write: isinstance(write, fx.EndRun) and write.run.job == "source"
    world.request(trigger(ASKED, "source"))
    world.advance(300)
    assert list(world.states("other").values()) == ["completed"] * 5
    world.rejects = lambda write: False
    world.advance(120)
    assert list(world.states("target").values()) == ["completed"] * 8


ASKS = [
    pytest.param(trigger(ASKED, "bad"), fx.CreateRun, id="a run"),
    pytest.param(resubmit(ASKED, "20261122T120000.000Z-bb", "bad"), fx.Resubmit, id="again"),
    pytest.param(cancel(ASKED, "20261122T120000.000Z-cc", "bad"), fx.EndRun, id="an end"),
]


@pytest.mark.parametrize(("request_", "kind"), ASKS)
def test_a_request_whose_write_etcd_takes_in_no_form_is_answered(
    request_: Request, kind: type[fx.Write]
) -> None:
    """Whoever waits hears it, and nothing starts by itself once etcd takes it, days later."""
    world = started()
    world.apply(job("bad"))
    world.agents["a1"].ends_as = Outcome.FAILED
    world.request(trigger("20261122T120000.000Z-bb", "bad"))
    world.advance(3)
    world.drain("a1")
    world.request(trigger("20261122T120000.000Z-cc", "bad"))
    world.advance(0.1)
    before = world.states("bad")
    world.rejects = lambda write: (
        getattr(write, "consumed", None) is not None and isinstance(write, kind)
    )
    world.request(request_)
    world.advance(4)
    assert world.answer(ASKED) is None
    world.advance(4)
    answer = world.answer(ASKED)
    assert answer is not None
    assert (answer.accepted, answer.run) == (False, request_.run)
    assert answer.message == "etcd takes no write that does it; the leader's log says why"
    world.rejects = lambda write: False
    world.advance(120)
    assert world.states("bad").keys() == before.keys()
    assert not world.records(Kind.REQUEST)


def test_an_answer_that_etcd_rejects_is_tried_again_at_leisure() -> None:
    world = started()
    world.apply(job("bad"))
    world.rejects = lambda write: getattr(write, "consumed", None) is not None
    world.request(trigger(ASKED, "bad"))
    world.advance(60)
    assert 5 < len(world.rejected) < 20
    world.rejects = lambda write: False
    world.advance(10)
    assert world.answer(ASKED) is not None


def test_one_rejection_is_tried_again() -> None:
    world = started()
    world.apply(job("bad", EACH_MINUTE))
    left = [1]

    def rejects(write: fx.Write) -> bool:
        return is_about(write, "bad") and bool(left) and bool(left.pop())

    world.rejects = rejects
    world.advance(70)
    assert list(world.states("bad").values()) == ["completed"]
    assert not world.records(Kind.GAP)


@pytest.mark.parametrize(
    ("decider", "method"),
    [(TickDecider, "_decide_ordinary"), (RunDecider, "_decide"), (RequestDecider, "_trigger")],
)
def test_a_decision_that_raises(
    monkeypatch: pytest.MonkeyPatch, decider: type, method: str
) -> None:
    world = started()
    world.has_defects = True
    world.apply(job("bad", EACH_MINUTE, recovery=Recovery.ALL, overlap=Overlap.QUEUE))
    decide = getattr(decider, method)

    def raises(self: object, *args: object) -> object:
        if "bad" in str(args):
            raise ArithmeticError("a defect")
        return decide(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(decider, method, raises)
        world.request(trigger(ASKED, "bad"))
        world.advance(300)
        assert any("a defect" in defect.trace for defect in world.nodes["s1"].defects)
        assert len(world.nodes["s1"].defects) < 50
        assert list(world.states("other").values()) == ["completed"] * 5
    world.advance(180)
    assert list(world.states("bad").values()) == ["completed"] * 9


def test_a_run_whose_tick_an_earlier_leader_decided() -> None:
    world = started()
    world.apply(job("bad", EACH_MINUTE, recovery=Recovery.ALL))
    world.rejects = lambda write: isinstance(write, fx.EndRun) and is_about(write, "bad")
    world.advance(58)
    while not world.runs("bad"):
        world.advance(0.05)
    world.nodes["s1"].kill()
    world.advance(5)
    world.scheduler("s2")
    world.advance(300)
    assert len(world.states("other")) >= 5


def test_others_come_to_the_join_that_a_rejected_one_comes_to() -> None:
    world = started()
    world.apply(job("target", state=JobState.CHAIN_ACTIVE))
    for name in ("bad", "second"):
        world.apply(job(name, EACH_MINUTE, chain=(Link(to="target", joins=True),)))
    world.rejects = lambda write: isinstance(write, fx.EndRun) and is_about(write, "bad")
    world.advance(600)
    assert list(world.states("second").values()) == ["completed"] * 10
    world.rejects = lambda write: False
    world.advance(30)
    assert "completed" in world.states("target").values()


def test_one_agents_run_of_a_job_that_runs_on_each() -> None:
    world = started()
    world.agent("a2", slots=10, takes_s=1.0)
    world.apply(job("bad", EACH_MINUTE, per_host=True))
    world.rejects = lambda write: (
        isinstance(write, fx.EndRun) and is_about(write, "bad") and write.run.host == "a2"
    )
    world.advance(600)
    ended = [run.host for run in world.runs("bad").values() if run.state is RunState.COMPLETED]
    assert ended == ["a1"] * 10


def test_a_refusal_and_then_one_rejection_lose_no_tick() -> None:
    world = started()
    fields: dict[str, Any] = {"recovery": Recovery.NONE, "pickup_buffer_s": 30.0}
    world.apply(job("bad", EACH_MINUTE, **fields))
    tries = itertools.count(1)

    def rejects(write: fx.Write) -> bool:
        if not (isinstance(write, fx.CreateRun) and is_about(write, "bad")):
            return False
        number = next(tries)
        if number == 1:
            world.apply(job("bad", EACH_MINUTE, priority=1, **fields))  # It is refused for that.
        return number == 2

    world.rejects = rejects
    world.advance(200)
    assert list(world.states("bad").values()) == ["completed"] * 3


@pytest.mark.parametrize(("is_unled", "times"), [(False, 99), (True, 99), (True, 1)])
def test_an_outage_whose_end_cant_be_planned(
    monkeypatch: pytest.MonkeyPatch, is_unled: bool, times: int
) -> None:
    """The watermark is between two seconds, where no tick is."""
    world = started()
    world.has_defects = True
    hosts = () if is_unled else ("a2",)
    world.apply(job("bad", EACH_MINUTE, hosts=hosts, recovery=Recovery.ALL))
    world.apply(job("other", EACH_MINUTE, recovery=Recovery.ALL))
    world.advance(70.137)
    plan, left = Outages._plan, [None] * times

    def raises(self: Outages, definition: Job, *args: int) -> Plan:
        if definition.name == "bad" and left:
            left.pop()
            raise ArithmeticError("a defect")
        return plan(self, definition, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Outages, "_plan", raises)
        if is_unled:
            world.nodes["s1"].kill()
            world.advance(200)
            world.scheduler("s2")
        world.agent("a2", slots=10, takes_s=1.0)
        world.advance(180)
        assert len(world.states("other")) >= 4
    world.advance(130)
    minutes = int(world.now_s // 60)
    assert list(world.states("other").values()) == ["completed"] * minutes
    assert list(world.states("bad").values()) == ["completed"] * minutes


def test_a_run_whose_buffer_ended_with_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outage that it belongs to has no other tick, and can't be decided."""
    world = started()
    world.has_defects = True
    world.agent("a2", slots=1, takes_s=1000.0)
    for name, time in (("hog", "12:00:05"), ("bad", "12:00:30")):
        world.apply(job(name, At(Utc(f"2026-11-22T{time}.000Z")), hosts=("a2",)))
    world.advance(60)
    assert world.states("bad") == {"120030": "ready"}
    world.agents["a2"].kill()
    world.nodes["s1"].kill()
    world.advance(150)
    world.agent("a2", slots=1, takes_s=1.0)
    resolve = Outages._resolve_waiting

    def raises(self: Outages, entry: Entry[Job], *args: Any) -> None:
        if entry.record.name == "bad":
            raise ArithmeticError("a defect")
        resolve(self, entry, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Outages, "_resolve_waiting", raises)
        world.scheduler("s2")
        world.advance(200)
        assert {defect.about for defect in world.nodes["s2"].defects} == {"bad"}
        assert len(world.states("other")) >= 5
        assert world.states("bad") == {"120030": "ready"}
    world.advance(130)
    assert world.states("bad") == {"120030": "completed"}


def test_what_is_said_once_it_waits_for_an_agent() -> None:
    world = started()
    world.rejects = lambda write: isinstance(write, fx.CreateRun) and is_about(write, "bad")
    world.apply(job("bad", EACH_MINUTE, recovery=Recovery.ALL))
    world.advance(90)
    world.rejects = lambda write: False
    world.agents["a1"].kill()
    world.advance(120)
    assert explained(world, "bad").endswith("Z: no agent is here")


def test_what_is_queued_for_a_target_whose_sources_end_is_rejected() -> None:
    world = started()
    world.agent("slow", slots=4, takes_s=100.0)
    world.apply(job("target", EACH_MINUTE, overlap=Overlap.QUEUE, hosts=("slow",)))
    world.apply(job("source", hosts=("a1",), chain=(Link(to="target"),)))
    world.advance(130)
    world.rejects = lambda write: isinstance(write, fx.EndRun) and write.run.job == "source"
    world.request(trigger(ASKED, "source"))
    world.advance(600)
    assert list(world.states("target").values()).count("completed") >= 2


@pytest.mark.parametrize("per_host", [False, True])
def test_those_below_it_in_a_conflict_group(per_host: bool) -> None:
    world = started()
    world.rejects = lambda write: isinstance(write, fx.CreateRun) and is_about(write, "bad")
    world.apply(job("bad", EACH_MINUTE, per_host=per_host))
    world.apply(job("low", EACH_MINUTE))
    world.group("g", "bad", "low")
    world.advance(900)
    assert list(world.states("low").values()).count("completed") >= 10


def test_those_below_one_whose_gap_cant_be_opened() -> None:
    """That holds the watermark, and so all ticks; but nobody who is asked for."""
    world = started()
    world.rejects = lambda write: isinstance(write, fx.OpenGap)
    world.apply(job("bad", EACH_MINUTE, hosts=("a2",), recovery=Recovery.ALL))
    world.apply(job("low"))
    world.group("g", "bad", "low")
    world.advance(90)
    assert world.rejected
    world.request(trigger(ASKED, "low"))
    world.advance(10)
    assert list(world.states("low").values()) == ["completed"]
    world.rejects = lambda write: False
    world.agent("a2", slots=10, takes_s=1.0)
    world.advance(150)
    assert list(world.states("bad").values()) == ["completed"] * 4
    assert list(world.states("other").values()) == ["completed"] * 4


def test_an_outage_that_lasts_says_why_it_does_by_now() -> None:
    """At first for want of an agent, then since etcd takes no write about a run, and then again."""
    world = started()
    world.agent("a2", slots=1, takes_s=1000.0)
    fields: dict[str, Any] = {"recovery": Recovery.ALL, "overlap": Overlap.ALLOW}
    world.apply(job("bad", EACH_MINUTE, hosts=("a2",), on_agent_loss=OnAgentLoss.DIED, **fields))
    world.advance(65)
    world.agents["a2"].kill()
    world.rejects = lambda write: isinstance(write, fx.EndRun) and is_about(write, "bad")
    world.advance(65)
    gap = world.records(Kind.GAP)[("bad",)].record
    assert isinstance(gap, Gap)
    assert gap.reason == ASIDE_REASON
    since = gap.since
    world.rejects = lambda write: False
    world.advance(125)
    gap = world.records(Kind.GAP)[("bad",)].record
    assert isinstance(gap, Gap)
    assert (gap.since, gap.closed) == (since, False)
    assert "not among the job's hosts" in gap.reason
    world.agent("a2", slots=4, takes_s=1.0)
    world.advance(65)
    assert list(world.states("bad").values()) == ["died", *["completed"] * 4]


@pytest.mark.parametrize("is_stopping", [False, True])
def test_a_defect_as_an_agent_comes_or_goes(
    monkeypatch: pytest.MonkeyPatch, is_stopping: bool
) -> None:
    """It is looked at again."""
    world = World()
    world.has_defects = True
    world.scheduler("s1")
    world.advance(1)
    if is_stopping:
        world.agent("a1")
        world.advance(1)
    look = LiveAgents._look
    left = [1]

    def raises_once(self: LiveAgents, *args: Any) -> None:
        if left:
            left.pop()
            raise ArithmeticError("a defect")
        look(self, *args)

    monkeypatch.setattr(LiveAgents, "_look", raises_once)
    if is_stopping:
        world.agents["a1"].stop()
    else:
        world.agent("a1")
    world.advance(200)
    assert not left
    lives = [change.record for change in world.records(Kind.LIVE).values()]
    stages = [live.stage for live in lives if isinstance(live, Live)]
    assert stages == [Stage.DISMISSED if is_stopping else Stage.HERE]


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE])
def test_a_start_that_is_rejected_holds_no_conflict_group(overlap: Overlap) -> None:
    world = started()
    world.rejects = lambda write: isinstance(write, fx.Dispatch) and is_about(write, "bad")
    world.apply(job("bad", EACH_MINUTE, overlap=overlap, priority=5))
    world.apply(job("low", EACH_MINUTE, overlap=overlap))
    world.group("g", "bad", "low")
    world.advance(900)
    assert list(world.states("low").values()).count("completed") >= 10


def test_a_fan_out_whose_runs_cant_be_decided_holds_nobody_up_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def raises(*_: object) -> None:
        raise ArithmeticError("a defect")

    world = started()
    world.has_defects = True
    monkeypatch.setattr(FanOuts, "_make", raises)
    world.apply(job("bad", EACH_MINUTE, per_host=True, priority=5))
    world.apply(job("low", every_s=10))
    world.group("g", "bad", "low")
    world.advance(300)
    assert list(world.states("low").values()).count("completed") >= 20


def test_a_fan_outs_run_on_one_agent_holds_up_no_queue_on_others() -> None:
    world = World()
    world.scheduler("s1")
    for name in ("a1", "a2"):
        world.agent(name, slots=4, takes_s=8.0)
    world.advance(0.5)
    world.rejects = lambda write: (
        isinstance(write, fx.CreateRun) and write.run.host == "a2" and world.now_s > 12
    )
    world.apply(job("bad", every_s=5, per_host=True, overlap=Overlap.QUEUE))
    world.advance(60)
    ended = [run.host for run in world.runs("bad").values() if run.state is RunState.COMPLETED]
    assert ended.count("a1") >= 5


def test_an_end_on_one_agent_forgets_nothing_of_what_is_rejected_on_another() -> None:
    world = World()
    world.scheduler("s1")
    for name in ("a1", "a2"):
        world.agent(name, slots=4, takes_s=8.0)
    world.advance(0.5)
    world.rejects = lambda write: (
        isinstance(write, fx.CreateRun) and write.run.host == "a2" and world.now_s > 12
    )
    ticks = [At(Utc(f"2026-11-22T12:00:{second}.000Z")) for second in (10, 15, 20)]
    world.apply(job("bad", *ticks, per_host=True, overlap=Overlap.QUEUE))
    world.advance(45)
    ended = [run.host for run in world.runs("bad").values() if run.state is RunState.COMPLETED]
    assert ended.count("a1") == 3


def test_one_rejection_at_a_join_to_which_one_comes_that_is_always_rejected() -> None:
    """Each is counted for itself: of the other nothing is set aside, and no tick is lost."""
    world = started()
    world.apply(job("target", state=JobState.CHAIN_ACTIVE))
    joins = (Link(to="target", joins=True),)
    world.apply(job("bad", EACH_MINUTE, chain=joins))
    ticks = (EACH_MINUTE, At(Utc("2026-11-22T12:01:03.000Z")))
    fields: dict[str, Any] = {"recovery": Recovery.NONE, "pickup_buffer_s": 1.0}
    world.apply(job("second", *ticks, overlap=Overlap.ALLOW, chain=joins, **fields))
    once = [1]

    def rejects(write: fx.Write) -> bool:
        is_end = isinstance(write, fx.EndRun)
        is_first_end = is_end and is_about(write, "second") and bool(once) and bool(once.pop())
        return is_first_end or (is_end and is_about(write, "bad"))

    world.rejects = rejects
    world.advance(80)
    assert len(world.rejected) > 3
    assert world.states("second") == {"120100": "completed", "120103": "completed"}


def test_one_rejection_of_a_resubmission_after_another_of_the_run_that_cant_be_written() -> None:
    world = started()
    world.apply(job("bad"))
    world.agents["a1"].ends_as = Outcome.FAILED
    world.request(trigger(OVER, "bad"))
    world.advance(3)
    second, once = "20261122T120001.000Z-dd", [1]

    def rejects(write: fx.Write) -> bool:
        if not isinstance(write, fx.Resubmit):
            return False
        return write.run.id == ASKED or (bool(once) and bool(once.pop()))

    world.rejects = rejects
    for request in (ASKED, second):
        world.request(resubmit(request, OVER, "bad"))
        world.advance(12)
    assert not once
    answers = [world.answer(request) for request in (ASKED, second)]
    assert [answer is not None and answer.accepted for answer in answers] == [False, True]


def is_refused_for_its_write(world: World) -> None:
    world.advance(11)
    answer = world.answer(ASKED)
    assert answer is not None
    assert answer.message.startswith("etcd takes no write that does it")


def is_deleted_by_hand(world: World) -> None:
    world.advance(1)
    world.remove(Kind.REQUEST, ASKED)
    world.advance(10)


@pytest.mark.parametrize("ends", [is_refused_for_its_write, is_deleted_by_hand])
@pytest.mark.parametrize(
    "request_", [trigger(ASKED, "high"), resubmit(ASKED, OVER, "high")], ids=["a run", "again"]
)
def test_a_request_that_is_over_leaves_its_job_first_in_its_conflict_group(
    request_: Request, ends: Callable[[World], None]
) -> None:
    """The run that it asked for never was: nobody below goes ahead because of that."""
    world = started()
    world.agents["a1"].ends_as = Outcome.FAILED
    world.apply(job("high", EACH_MINUTE, per_host=True, priority=5))
    world.apply(job("low", EACH_MINUTE))
    world.group("g", "high", "low")
    world.request(trigger(OVER, "high"))
    world.advance(3)
    world.rejects = lambda write: (
        isinstance(write, fx.CreateRun | fx.Resubmit) and write.run.id == ASKED
    )
    world.request(request_)
    ends(world)
    assert world.rejected
    world.advance(60)
    began = {
        name: [run.attempts[0].assigned_at for run in world.runs(name).values() if run.is_tick]
        for name in ("high", "low")
    }
    assert began["high"] < began["low"]


def test_a_tick_that_is_missed_in_the_end_leaves_its_job_first_in_its_conflict_group() -> None:
    world = started()
    fields: dict[str, Any] = {"recovery": Recovery.NONE, "pickup_buffer_s": 10.0}
    world.apply(job("high", EACH_MINUTE, per_host=True, priority=5, **fields))
    world.apply(job("low", EACH_MINUTE))
    world.group("g", "high", "low")
    world.rejects = lambda write: isinstance(write, fx.CreateFanOut)
    world.advance(100)
    world.rejects = lambda write: False
    world.advance(310)
    assert world.states("high")["120100"] == "missed"
    began = {
        name: [
            run.attempts[0].assigned_at
            for id_, run in world.runs(name).items()
            if id_ > "20261122T1205"
        ]
        for name in ("high", "low")
    }
    assert len(began["high"]) == 2
    assert all(high < low for high, low in zip(*began.values(), strict=True))


def test_an_order_that_etcd_rejects_sets_no_job_aside() -> None:
    """It is given up, and nothing waits for it."""
    world = started()
    world.agents["a1"].takes_s = 100.0
    fields: dict[str, Any] = {"recovery": Recovery.NONE, "pickup_buffer_s": 1.0}
    world.apply(job("bad", EACH_MINUTE, overlap=Overlap.ALLOW, **fields))
    world.request(trigger(OVER, "bad"))
    world.advance(3)
    world.agents["a1"].takes_s = 1.0
    world.rejects = lambda write: isinstance(write, fx.SendOrder)
    world.request(cancel(ASKED, OVER, "bad"))
    world.advance(80)
    answer = world.answer(ASKED)
    assert answer is not None
    assert not answer.accepted
    assert world.states("bad")["120100"] == "completed"


def test_orders_that_etcd_rejects_one_after_the_other_hold_up_no_tick() -> None:
    """A tick waits for what is written about its job's runs; who asked for it rests alone."""
    world = started()
    world.agents["a1"].takes_s = 200.0
    world.apply(job("bad", EACH_MINUTE, overlap=Overlap.ALLOW))
    for number in range(8):
        world.request(trigger(f"r{number}", "bad"))
    world.advance(3)
    world.rejects = lambda write: isinstance(write, fx.SendOrder)
    for number in range(8):
        world.at(56.0 + 3 * number, partial(world.request, _cancel_of(number)))
    lags_s = []
    for _ in range(90):
        world.advance(1)
        (watermark,) = (change.record for change in world.records(Kind.WATERMARK).values())
        assert isinstance(watermark, Watermark)
        lags_s.append((ms_of(world.now) - ms_of(watermark.through)) / 1000)
    assert max(lags_s) < 6, lags_s
    assert world.states("bad")["120100"] == "assigned"


def _cancel_of(number: int) -> Request:
    return cancel(f"20261122T120056.00{number}Z-cc", f"r{number}", "bad")


def test_an_order_that_etcd_rejects_is_given_up_whatever_its_run_does_meanwhile() -> None:
    world = started()
    world.agents["a1"].takes_s, world.agents["a1"].ends_as = 3.0, Outcome.FAILED
    world.apply(job("bad", retry=Retry(max=50, interval_s=1.0)))
    world.request(trigger("r1", "bad"))
    world.advance(2)
    orders = (fx.SendOrder, fx.EndRun)
    world.rejects = lambda write: isinstance(write, orders) and write.consumed is not None
    world.request(cancel(ASKED, "r1", "bad"))
    world.advance(20)
    answer = world.answer(ASKED)
    assert answer is not None
    assert not answer.accepted


def test_a_takeover_that_cant_be_planned_loses_no_tick_at_the_watermarks_edge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its gap is refused, too, as long as the job is set aside."""
    world = started()
    world.has_defects = True
    fields: dict[str, Any] = {"recovery": Recovery.ALL}
    world.apply(job("bad", EACH_MINUTE, **fields))
    world.rejects = lambda write: isinstance(write, fx.CreateRun) and write.run.job == "bad"
    world.advance(62.5)
    world.nodes["s1"].kill()
    (watermark,) = (change.record for change in world.records(Kind.WATERMARK).values())
    assert isinstance(watermark, Watermark)
    assert watermark.through == "2026-11-22T12:00:59.999Z", "the tick is right after it"
    world.advance(30)
    until_s, edits = world.now_s + 75, itertools.count(1)

    def rejects(write: fx.Write) -> bool:
        if isinstance(write, fx.OpenGap) and write.gap.job == "bad" and world.now_s < until_s:
            world.apply(job("bad", EACH_MINUTE, priority=next(edits), **fields))
        return False

    world.rejects = rejects
    away, left = Outages.leader_was_away, [None]

    def raises(self: Outages, definition: Job) -> None:
        if definition.name == "bad" and left:
            left.pop()
            raise ArithmeticError("a defect")
        away(self, definition)

    monkeypatch.setattr(Outages, "leader_was_away", raises)
    world.scheduler("s2")
    world.advance(300)
    minutes = int(world.now_s // 60)
    assert len(world.states("bad")) == minutes
