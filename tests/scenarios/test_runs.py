"""Agents, requests, stops and history, told as stories in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.leader.context import Options
from etcsched.core.records import CLUSTER, Keep, Kind, Link, Report, Retry, Run, Watermark
from etcsched.core.schedule import At
from etcsched.core.states import (
    JobState,
    OnAgentLoss,
    Origin,
    Outcome,
    Overlap,
    Recovery,
    RunState,
)
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.testing.world import World
from tests.support.jobs import cancel, job, resubmit, trigger

ONCE = At(Utc("2026-11-22T12:00:05.000Z"))
RUN = "20261122T120005Z"


def only_run(world: World) -> Run:
    (run,) = world.runs("backup").values()
    return run


def answer(world: World, request: str) -> tuple[bool, str]:
    found = world.answer(request)
    assert found is not None
    return found.accepted, found.message


# --- loss of agents


def test_an_unclaimed_run_moves_silently(world: World) -> None:
    world.agents["a1"].claims_nothing = True
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.agents["a1"].kill()
    world.agent("a2", takes_s=1.0)
    world.advance(20)
    run = only_run(world)
    assert (run.state.value, run.agent, run.reassigns, run.attempt) == ("completed", "a2", 0, 2)


def test_a_claimed_run_moves_once_its_lease_is_gone(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.agents["a1"].kill()
    world.agent("a2", takes_s=1.0)
    world.advance(8)
    assert world.agents["a2"].spans == []
    world.advance(5)
    run = only_run(world)
    assert (run.state.value, run.agent, run.reassigns) == ("completed", "a2", 1)
    assert [attempt.outcome for attempt in run.attempts] == [Outcome.DIED, Outcome.COMPLETED]
    assert run.attempts[0].token < run.attempts[1].token


def test_a_loss_right_after_an_election_of_etcd_isnt_believed(world: World) -> None:
    """The lease may have died by a frozen leader's revoke; its agent counts on it for a TTL."""
    world.apply(job("backup", ONCE))
    world.agent("a2", takes_s=1.0)
    world.advance(6)
    (holder,) = [agent for agent in world.agents.values() if agent.spans]
    holder.takes_s = 100.0
    world.store.raft_term += 1
    world.store.lease_revoke(holder.lease)
    holder.kill()
    died_s = world.now_s
    world.advance(60)
    run = only_run(world)
    other = world.agents["a2" if holder.name == "a1" else "a1"]
    assert run.agent == other.name
    assert other.spans[0].start_s >= died_s + 10


def test_a_presence_deleted_by_hand_makes_no_second_copy(world: World) -> None:
    world.agent("a2", takes_s=1.0)
    world.apply(job("backup", ONCE, hosts=("a1", "a2")))
    world.advance(6)
    (holder,) = [agent for agent in world.agents.values() if agent.spans]
    other = world.agents["a2" if holder.name == "a1" else "a1"]
    holder.spans[0].end_s = None
    world.remove(Kind.PRESENCE, holder.name)
    world.advance(0.4)
    holder.put_presence_again()
    world.advance(120)
    assert other.spans == []
    assert only_run(world).state.value == "completed"


def test_a_presence_that_stays_deleted_while_its_lease_lives(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.agent("a2", takes_s=1.0)
    world.remove(Kind.PRESENCE, "a1")
    world.advance(30)
    assert world.agents["a2"].spans == []


def test_max_reassigns(world: World) -> None:
    world.apply(job("backup", ONCE, max_reassigns=1))
    world.advance(6)
    world.agents["a1"].kill()
    world.agent("a2", takes_s=100.0)
    world.advance(12)
    assert world.agents["a2"].spans
    world.agents["a2"].kill()
    world.agent("a3")
    world.advance(15)
    run = only_run(world)
    assert (run.state.value, run.reassigns, len(run.attempts)) == ("died", 1, 2)


def test_a_job_that_dies_with_its_agent(world: World) -> None:
    world.apply(job("backup", ONCE, on_agent_loss=OnAgentLoss.DIED))
    world.advance(6)
    world.agents["a1"].kill()
    world.agent("a2")
    world.advance(15)
    assert only_run(world).state.value == "died"


def test_a_declined_run_goes_to_another_agent(world: World) -> None:
    world.agents["a1"].takes_s, world.agents["a1"].ends_as = 0.0, Outcome.DECLINED
    world.agents["a1"].claims_nothing = False
    world.agent("a2", slots=1, takes_s=1.0)
    world.apply(job("backup", ONCE, on_agent_loss=OnAgentLoss.DIED))
    world.advance(10)
    run = only_run(world)
    assert (run.state.value, run.agent) == ("completed", "a2")


def declining(count: int, **fields: Any) -> World:
    """So many agents whose hosts don't have the user that a job runs as; they are preferred."""
    world = World()
    world.scheduler("s1")
    for number in range(count):
        world.agent(f"d{number}", takes_s=0.0, ends_as=Outcome.DECLINED, labels={"first": "yes"})
    world.advance(0.5)
    world.apply(job("backup", ONCE, prefer=("first=yes",), **fields))
    return world


def test_each_agent_is_asked_until_one_takes_it() -> None:
    """How many decline says nothing about the next one; nor does it count as a lost agent."""
    world = declining(8, max_reassigns=1)
    world.agent("able", takes_s=1.0)
    world.advance(10)
    run = only_run(world)
    assert (run.state, run.agent, run.reassigns) == (RunState.COMPLETED, "able", 0)
    assert len({attempt.agent for attempt in run.attempts}) == len(run.attempts) == 9


def test_declines_leave_a_lost_agent_its_reassigns() -> None:
    world = declining(4, max_reassigns=1)
    able = world.agent("able", takes_s=100.0)
    world.advance(10)
    world.agent("other", takes_s=1.0)
    able.kill()
    world.advance(20)
    run = only_run(world)
    assert (run.state, run.agent, run.reassigns) == (RunState.COMPLETED, "other", 1)


def filled(world: World, seconds: float) -> None:
    """The one that would take it is full so long."""
    world.agent("able", takes_s=seconds, slots=1)
    world.apply(job("filler", At(Utc("2026-11-22T12:00:03.000Z")), hosts=("able",)))
    world.advance(4)
    world.agents["able"].takes_s = 1.0


def test_one_that_was_declined_waits_for_an_agent_that_is_full() -> None:
    world = declining(2)
    filled(world, 30.0)
    world.advance(20)
    assert (only_run(world).state, len(only_run(world).attempts)) == (RunState.READY, 2)
    world.advance(20)
    run = only_run(world)
    assert (run.state, run.agent, len(run.attempts)) == (RunState.COMPLETED, "able", 3)


def test_what_was_declined_is_abandoned_as_its_buffer_is_over() -> None:
    world = declining(2, pickup_buffer_s=10.0)
    filled(world, 30.0)
    world.advance(20)
    run = only_run(world)
    assert (run.state, len(run.attempts)) == (RunState.ABANDONED, 2)
    assert run.history[-1].cause == (
        "2 agents declined, and no slot was free until its pickup buffer of 10 s was over"
    )


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE])
@pytest.mark.parametrize("recovery", [Recovery.LAST, Recovery.ALL])
def test_what_all_have_declined_is_abandoned_as_its_buffer_is_over(
    recovery: Recovery, overlap: Overlap
) -> None:
    """No outage: somebody is here. Nothing else of its job waits behind it."""
    world = declining(2, recovery=recovery, overlap=overlap, pickup_buffer_s=30.0)
    filled(world, 300.0)
    world.advance(6)
    assert only_run(world).state is RunState.READY
    world.agents["able"].kill()
    world.advance(30)
    run = only_run(world)
    assert (run.state, len(run.attempts)) == (RunState.ABANDONED, 2)
    assert run.history[-1].cause == (
        "2 agents declined, all that were here, until its pickup buffer of 30 s was over"
    )


def away_for_a_moment(world: World, how: str) -> None:
    """The one that would take it."""
    if how == "drained":
        world.drain("able")
        world.advance(3)
        world.undrain("able")
    else:
        world.agents["able"].kill()
        world.advance(15)
        world.agent("able", takes_s=1.0)


@pytest.mark.parametrize("how", ["drained", "begun anew"])
def test_who_could_take_it_may_be_away_for_a_moment(how: str) -> None:
    world = declining(1)
    filled(world, 25.0)
    world.advance(4)
    away_for_a_moment(world, how)
    world.advance(30)
    assert (only_run(world).state, only_run(world).agent) == (RunState.COMPLETED, "able")


def test_what_waits_without_a_buffer_ends_some_time_after_nobody_could_take_it() -> None:
    """It was queued; the next of its job would wait behind it for ever."""
    second = At(Utc("2026-11-22T12:00:07.000Z"))
    world = declining(1, overlap=Overlap.QUEUE, pickup_buffer_s=20.0)
    filled(world, 300.0)
    fields: dict[str, Any] = {"overlap": Overlap.QUEUE, "pickup_buffer_s": 20.0}
    world.apply(job("backup", ONCE, second, prefer=("first=yes",), **fields))
    world.advance(26)
    first, queued = world.runs("backup").values()
    assert (first.state, queued.state, len(queued.attempts)) == (
        RunState.ABANDONED,
        RunState.READY,
        1,
    )
    world.agents["able"].kill()
    world.advance(25)
    assert world.runs("backup")[queued.id].state is RunState.READY
    world.advance(5)
    assert world.runs("backup")[queued.id].state is RunState.ABANDONED


def declined_retry(**fields: Any) -> World:
    """Of an attempt on "able", which is full as the retry is due, for half a minute."""
    world = declining(1, retry=Retry(max=1, interval_s=10.0), **fields)
    able = world.agent("able", takes_s=1.0, slots=1, ends_as=Outcome.FAILED)
    able.hands_on = {"backup": {"rows": ("7",)}}
    world.apply(job("filler", At(Utc("2026-11-22T12:00:10.000Z")), hosts=("able",)))
    world.advance(9)
    able.takes_s, able.ends_as = 30.0, Outcome.COMPLETED
    world.advance(10)
    assert only_run(world).attempts[-1].agent == "d0"
    return world


def test_a_retry_that_is_declined_is_a_retry_still() -> None:
    world = declined_retry()
    assert only_run(world).state is RunState.RETRYING
    assert only_run(world).results == {"rows": ("7",)}, "a declined attempt has none"
    world.agents["able"].takes_s = 1.0
    world.advance(25)
    run = only_run(world)
    assert (run.state, run.retries, len(run.attempts)) == (RunState.COMPLETED, 1, 4)


def test_a_declined_retry_ends_by_the_next_tick() -> None:
    world = declined_retry()
    world.apply(job("backup", every_s=20))
    world.advance(3)
    first, second = world.runs("backup").values()
    assert (first.state, second.state) == (RunState.FAILED, RunState.READY)


@pytest.mark.parametrize("gone", [True, False])
def test_a_declined_retry_waits_for_whoever_could_take_it(gone: bool) -> None:
    world = declined_retry(pickup_buffer_s=15.0)
    world.agents["able"].kill()
    world.advance(12)
    assert only_run(world).state is RunState.RETRYING
    if not gone:
        world.agent("able", takes_s=1.0)
    world.advance(20)
    assert only_run(world).state is (RunState.FAILED if gone else RunState.COMPLETED)


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_retry_that_is_declined_while_whoever_could_take_it_is_away(is_paused: bool) -> None:
    """Long after its tick, and after this leader took over."""
    world = declining(1, retry=Retry(max=1, interval_s=300.0), pickup_buffer_s=20.0)
    able = world.agent("able", takes_s=1.0, ends_as=Outcome.FAILED)
    world.advance(300)
    able.leave()
    world.agents["d0"].takes_s = 3.0
    world.advance(6)
    assert only_run(world).agent == "d0"
    if is_paused:
        world.pause("backup")
        world.advance(60)
        world.resume("backup")
    world.advance(5)
    assert only_run(world).state is RunState.RETRYING
    world.agent("able", takes_s=1.0)
    world.advance(5)
    assert only_run(world).state is RunState.COMPLETED


def test_a_retry_that_nobody_here_takes_ends_though_others_of_its_job_go_beside_it() -> None:
    """What it waits for in between is no hope."""
    world = declining(1, retry=Retry(max=1, interval_s=10.0), pickup_buffer_s=60.0)
    able = world.agent("able", takes_s=1.0, ends_as=Outcome.FAILED)
    world.advance(10)
    able.leave()
    for number in range(4):
        world.advance(25)
        world.request(trigger(f"r{number}", at=world.now))
    assert world.runs("backup")[RUN].state is RunState.FAILED


def test_an_agent_whose_clock_is_set_back_is_not_asked_in_a_loop() -> None:
    """When it was started, it tells by a clock that was ahead."""
    world = declining(0)
    decliner = world.agent("d0", takes_s=0.0, ends_as=Outcome.DECLINED, labels={"first": "yes"})
    decliner.behind_s = -3600.0
    decliner.say_anew()
    decliner.behind_s = 0.0
    filled(world, 30.0)
    world.advance(35)
    run = only_run(world)
    assert (run.state, len(run.attempts)) == (RunState.COMPLETED, 2)


def test_declines_take_no_turns_of_what_a_loss_has_moved() -> None:
    world = declining(10, pickup_buffer_s=20.0)
    world.agent("able", takes_s=1.0, slots=30)
    for number in range(30):
        world.apply(job(f"job{number:02}", ONCE, prefer=("first=yes",), pickup_buffer_s=20.0))
    world.advance(15)
    runs = [run for number in range(30) for run in world.runs(f"job{number:02}").values()]
    assert [run.state for run in runs] == [RunState.COMPLETED] * 30


@pytest.mark.parametrize("how", ["anew", "anew within its lease", "edited"])
def test_who_may_have_the_user_by_now_is_asked_again(how: str) -> None:
    world = declining(1)
    world.advance(6)
    assert only_run(world).state is RunState.READY
    decliner = world.agents["d0"]
    decliner.takes_s, decliner.ends_as = 1.0, Outcome.COMPLETED
    if how == "anew":
        decliner.kill()
        world.advance(15)
        world.agent("d0", takes_s=1.0)
    elif how == "edited":
        world.apply(job("backup", ONCE, hosts=("d0",)))
    else:
        decliner.say_anew()
    world.advance(5)
    run = only_run(world)
    assert (run.state, len(run.attempts)) == (RunState.COMPLETED, 2)


def test_a_declined_run_whose_job_was_stopped_meanwhile_is_cancelled(world: World) -> None:
    world.agents["a1"].takes_s, world.agents["a1"].ends_as = 3.0, Outcome.DECLINED
    world.apply(job("backup", ONCE))
    world.advance(5.5)
    world.apply(job("backup", ONCE, state=JobState.DISABLED))
    world.advance(10)
    run = only_run(world)
    assert (run.state, run.history[-1].cause) == (
        RunState.CANCELLED,
        "the job was stopped before it started",
    )


def test_after_an_attempt_all_are_asked_again() -> None:
    """The user may be there by now. Who has declined before is asked last."""
    world = declining(1, retry=Retry(max=1, interval_s=30.0))
    able = world.agent("able", takes_s=1.0, ends_as=Outcome.FAILED)
    world.advance(20)
    assert [attempt.agent for attempt in only_run(world).attempts] == ["d0", "able"]
    able.kill()
    world.agents["d0"].takes_s, world.agents["d0"].ends_as = 1.0, Outcome.COMPLETED
    world.advance(40)
    run = only_run(world)
    assert (run.state, run.attempts[-1].agent) == (RunState.COMPLETED, "d0")


def test_what_has_run_before_and_is_declined_by_all_has_failed() -> None:
    world = declining(1, retry=Retry(max=1, interval_s=30.0), pickup_buffer_s=20.0)
    able = world.agent("able", takes_s=1.0, ends_as=Outcome.FAILED)
    world.advance(20)
    able.kill()
    world.advance(40)
    run = only_run(world)
    assert run.state is RunState.FAILED
    assert [attempt.agent for attempt in run.attempts] == ["d0", "able", "d0"]


# --- stops


@pytest.mark.parametrize("name", ["backup", CLUSTER])
def test_pause_holds_an_unclaimed_run_and_resume_lets_it_go(world: World, name: str) -> None:
    world.agents["a1"].claims_nothing = True
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.pause(name)
    world.agents["a1"].claims_nothing = False
    world.advance(60)
    assert only_run(world).state.value == "ready"
    world.resume(name)
    world.advance(1)
    assert only_run(world).state.value == "assigned"
    assert world.agents["a1"].spans


@pytest.mark.parametrize("nobody_leads", [True, False])
@pytest.mark.parametrize(
    ("waits_as", "ends_as"), [("ready", "cancelled"), ("retrying", "failed"), ("held", "cancelled")]
)
def test_what_waits_ends_though_its_job_is_made_anew_before_anybody_looks(
    world: World, waits_as: str, ends_as: str, nobody_leads: bool
) -> None:
    definition = job(
        hosts=("a2",),
        pickup_buffer_s=3600.0,
        retry=Retry(max=1, interval_s=60.0),
        on_agent_loss=OnAgentLoss.HOLD,
    )
    world.apply(definition)
    if waits_as != "ready":
        world.agent("a2", takes_s=1.0, ends_as=Outcome.FAILED)
    world.advance(1)
    world.request(trigger(RUN))
    world.advance(0.5)
    if waits_as == "held":
        world.agents["a2"].kill()
    world.advance(20)
    assert only_run(world).state.value == waits_as
    if nobody_leads:
        world.nodes["s1"].kill()
    world.delete("backup")
    world.start_ms += 1000  # (No leader looks between the two.)
    world.apply(definition)
    if nobody_leads:
        world.scheduler("s2")
    world.advance(15)
    world.agent("a2", takes_s=1.0)
    world.advance(100)
    assert only_run(world).state.value == ends_as
    assert [span.job for span in world.agents["a2"].spans] == []


def asked_for_after_it_was_made_anew(world: World, ahead_ms: int) -> None:
    """By a clock that is ahead: by that, the run came before its job was deleted."""
    world.apply(job(hosts=("a2",)))
    world.start_ms += ahead_ms
    world.delete("backup")
    world.start_ms += 1
    world.apply(job(hosts=("a2",)))
    world.start_ms -= ahead_ms + 1
    world.advance(1)
    world.request(trigger(RUN))
    world.advance(1)


def test_what_came_after_its_job_was_made_anew_by_a_clock_that_is_ahead(world: World) -> None:
    asked_for_after_it_was_made_anew(world, ahead_ms=5_000)
    world.agent("a2", takes_s=1.0)
    world.advance(10)
    assert only_run(world).state.value == "completed"


@pytest.mark.parametrize("how", ["edit", "group"])
def test_what_came_after_its_job_was_made_anew_outlives_an_edit(world: World, how: str) -> None:
    asked_for_after_it_was_made_anew(world, ahead_ms=60_000)
    if how == "edit":
        world.apply(job(hosts=("a2",), description="as before"))
    else:
        world.group("ledger", "backup")
    world.advance(1)
    world.agent("a2", takes_s=1.0)
    world.advance(10)
    assert only_run(world).state.value == "completed"


def test_what_waits_ends_though_its_job_is_made_anew_by_a_clock_that_is_behind(
    world: World,
) -> None:
    """Both times are that of the watermark, and the deletion lasts for no time at all."""
    definition = job(hosts=("a2",), pickup_buffer_s=3600.0)
    world.apply(definition)
    world.advance(20)
    world.request(trigger(RUN))
    world.advance(20)
    world.nodes["s1"].kill()
    world.start_ms -= 20_000
    world.delete("backup")
    world.start_ms += 1000
    world.apply(definition)
    world.start_ms += 19_000
    world.scheduler("s2")
    world.advance(15)
    world.agent("a2", takes_s=1.0)
    world.advance(10)
    assert only_run(world).state.value == "cancelled"


@pytest.mark.parametrize("how", ["disable", "delete"])
@pytest.mark.parametrize("when", ["ready", "unclaimed", "running"])
def test_stopping_a_job(world: World, how: str, when: str) -> None:
    agent = world.agents["a1"]
    agent.takes_s = 30.0
    if when == "ready":
        agent.leave()
        world.agent("a2", slots=1, takes_s=1000.0)
        world.apply(job("blocker", At(Utc("2026-11-22T12:00:02.000Z"))))
    agent.claims_nothing = when == "unclaimed"
    world.apply(job("backup", ONCE))
    world.advance(6)
    if how == "disable":
        world.set_state("backup", JobState.DISABLED)
    else:
        world.delete("backup")
    agent.claims_nothing = False
    world.advance(60)
    assert only_run(world).state.value == ("completed" if when == "running" else "cancelled")
    assert (("backup",) in world.records(Kind.JOB)) is (how == "disable")


def test_an_unclaimed_run_of_a_stopped_job_moves_nowhere(world: World) -> None:
    """Its agent is gone, and the job was disabled while no one led."""
    world.agents["a1"].claims_nothing = True
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.leader().kill()
    world.agents["a1"].kill()
    world.advance(20)
    world.set_state("backup", JobState.DISABLED)
    world.agent("a2")
    world.scheduler("s2")
    world.advance(20)
    assert only_run(world).state.value == "cancelled"
    assert world.agents["a2"].spans == []


def test_drain(world: World) -> None:
    world.apply(job("backup", every_s=10, overlap=Overlap.ALLOW))
    world.agents["a1"].takes_s = 15.0
    world.advance(11)
    world.drain("a1")
    world.advance(30)
    assert len(world.agents["a1"].spans) == 1
    assert world.states("backup") == {"120010": "completed"}
    world.undrain("a1")
    world.advance(5)
    assert len(world.runs("backup")) > 1


# --- requests


def test_trigger(world: World) -> None:
    world.agents["a1"].takes_s = 1.0
    world.apply(job(state=JobState.AD_HOC_ACTIVE))
    world.request(trigger("r1", params={"day": "monday"}))
    world.advance(5)
    assert answer(world, "r1") == (True, "assigned to a1")
    run = only_run(world)
    assert (run.id, run.state.value, run.params) == ("r1", "completed", {"day": "monday"})


@pytest.mark.parametrize(
    ("state", "word"), [(JobState.DISABLED, "disabled"), (JobState.DELETED, "no job")]
)
def test_a_trigger_that_is_refused(world: World, state: JobState, word: str) -> None:
    world.apply(job(state=state))
    world.request(trigger("r1"))
    world.advance(1)
    accepted, message = answer(world, "r1")
    assert not accepted
    assert word in message
    assert world.records(Kind.REQUEST) == {}


def test_a_trigger_of_a_paused_job_is_refused(world: World) -> None:
    world.apply(job(state=JobState.AD_HOC_ACTIVE))
    world.pause()
    world.request(trigger("r1"))
    world.advance(1)
    assert not answer(world, "r1")[0]


def test_a_trigger_without_agents_is_missed_when_its_buffer_ends(world: World) -> None:
    world.agents["a1"].leave()
    world.apply(job(state=JobState.AD_HOC_ACTIVE, pickup_buffer_s=20.0))
    world.request(trigger("r1"))
    world.advance(5)
    assert only_run(world).state.value == "ready"
    world.advance(20)
    assert only_run(world).state.value == "missed"


def test_cancel_of_a_waiting_run(world: World) -> None:
    world.agents["a1"].leave()
    world.agent("a2", slots=1, takes_s=100.0)
    world.apply(job("blocker", At(Utc("2026-11-22T12:00:02.000Z"))))
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.request(cancel("r1", RUN))
    world.advance(1)
    assert answer(world, "r1") == (True, "cancelled")
    assert only_run(world).state.value == "cancelled"


def test_cancel_before_the_claim(world: World) -> None:
    world.agents["a1"].claims_nothing = True
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.request(cancel("r1", RUN))
    world.advance(1)
    assert answer(world, "r1") == (True, "cancelled before it started")
    assert only_run(world).state.value == "cancelled"


def test_cancel_while_it_runs(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.request(cancel("r1", RUN))
    world.advance(1)
    assert answer(world, "r1") == (True, "a1 is told to end it")
    assert only_run(world).state.value == "cancelled"
    assert world.records(Kind.ORDER) == {}


def test_cancel_when_it_is_over(world: World) -> None:
    world.agents["a1"].takes_s = 1.0
    world.apply(job("backup", ONCE))
    world.advance(10)
    world.request(cancel("r1", RUN))
    world.advance(1)
    assert not answer(world, "r1")[0]
    assert only_run(world).state.value == "completed"


def test_a_cancelled_run_isnt_started_again_when_its_agent_is_lost(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.agents["a1"].is_cut_off = True
    world.request(cancel("r1", RUN))
    world.agent("a2")
    world.advance(1)
    assert answer(world, "r1")[0]
    world.advance(30)
    assert only_run(world).state.value == "cancelled"
    assert world.agents["a2"].spans == []


def test_a_run_whose_assignment_was_removed_by_hand_ends(world: World) -> None:
    """It can't be fenced, so it doesn't move; but it must not block its job for ever either."""
    world.apply(job("backup", ONCE))
    world.agent("a2")
    world.advance(6)
    (holder,) = [agent.name for agent in world.agents.values() if agent.spans]
    world.remove(Kind.ASSIGNMENT, holder, "backup", RUN)
    world.advance(1)
    run = only_run(world)
    assert (run.state.value, run.history[-1].cause) == (
        "died",
        "its assignment was deleted by hand",
    )
    assert world.records(Kind.REPORT) == {}


def test_cancel_of_a_run_whose_assignment_was_removed_by_hand(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.remove(Kind.ASSIGNMENT, "a1", "backup", RUN)
    world.request(cancel("r1", RUN))
    world.advance(1)
    assert answer(world, "r1") == (True, "its assignment was gone")
    assert only_run(world).state.value == "died"


def test_what_is_left_of_a_run_removed_by_hand_goes(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.remove(Kind.RUN, "backup", RUN)
    world.advance(15)
    assert world.records(Kind.ASSIGNMENT) == {}
    assert world.records(Kind.REPORT) == {}


def test_a_trigger_with_too_many_parameters_is_refused(world: World) -> None:
    world.apply(job(state=JobState.AD_HOC_ACTIVE))
    world.request(replace(trigger("r1"), params={"p": "x" * 17_000}))
    world.advance(1)
    assert answer(world, "r1") == (False, "its parameters take more than 16384 bytes")


def test_a_parameter_that_its_process_couldnt_tell_from_another_is_refused(world: World) -> None:
    world.apply(job(state=JobState.AD_HOC_ACTIVE, params={"a_b": "3"}))
    world.request(replace(trigger("r1"), params={"A_B": "4"}))
    world.advance(1)
    text = "parameters a_b and A_B differ only in case; rename one"
    assert answer(world, "r1") == (False, text)


def test_a_trigger_says_why_no_agent_takes_it(world: World) -> None:
    world.apply(job(state=JobState.AD_HOC_ACTIVE, require={"role": "erp"}))
    world.request(trigger("r1"))
    world.advance(1)
    assert answer(world, "r1") == (
        True,
        "waits: no agent may run it: a1 has no label role, the job requires role=erp",
    )


# --- upkeep


def test_answers_are_forgotten() -> None:
    world = World(options=Options(answer_kept_s=30.0))
    world.scheduler("s1")
    world.request(trigger("r1"))
    world.advance(20)
    assert world.answer("r1") is not None
    world.advance(40)
    assert world.answer("r1") is None


def test_late_reports_are_folded_into_the_active_run(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(6)
    world.agents["a1"].late_report("backup", RUN, 3)
    world.agents["a1"].late_report("backup", RUN, 4)
    world.advance(1)
    assert [late.token for late in only_run(world).late_reports] == [3, 4]
    assert world.records(Kind.LATE_REPORT) == {}


def test_late_reports_are_folded_into_the_archived_run(world: World) -> None:
    world.agents["a1"].takes_s = 1.0
    world.apply(job("backup", ONCE))
    world.advance(10)
    before = only_run(world)
    world.agents["a1"].late_report("backup", RUN, 3)
    world.agents["a1"].late_report("backup", RUN, 4)
    world.advance(1)
    after = only_run(world)
    assert sorted(late.token for late in after.late_reports) == [3, 4]
    assert replace(after, late_reports=()) == before
    assert world.records(Kind.LATE_REPORT) == {}


def test_an_outcome_that_was_folded_already_is_no_late_report(world: World) -> None:
    """Its agent hadn't heard of the commit, and sent it again after the run was over."""
    world.agents["a1"].takes_s = 1.0
    world.apply(job("backup", ONCE))
    world.advance(10)
    before = only_run(world)
    (attempt,) = before.attempts
    assert attempt.ended_at is not None
    assert attempt.claimed_at is not None
    again = Report(
        job="backup",
        run=RUN,
        attempt=1,
        token=attempt.token,
        incarnation="1",
        supervisor="s",
        claimed_at=attempt.claimed_at,
        outcome=attempt.outcome,
        ended_at=attempt.ended_at,
    )
    world.put(Kind.LATE_REPORT, again, "a1", "backup", RUN, str(attempt.token))
    world.advance(1)
    assert only_run(world) == before
    assert world.records(Kind.LATE_REPORT) == {}


def test_a_late_report_of_a_pruned_run_just_goes(world: World) -> None:
    world.agents["a1"].late_report("backup", RUN, 3)
    world.advance(1)
    assert world.records(Kind.LATE_REPORT) == {}
    assert world.runs("backup") == {}


# --- fencing


def test_a_leader_that_was_frozen_writes_nothing(world: World) -> None:
    world.apply(job("backup", every_s=5))
    world.scheduler("s2")
    old = world.leader()
    old.is_cut_off = True
    world.advance(20)
    assert world.leader() is not old
    revision = world.store.revision
    old.time_passed()
    old.send_all()
    assert world.store.revision == revision
    assert old.demotions


def test_a_stop_hands_over_at_once(world: World) -> None:
    world.scheduler("s2")
    world.advance(1)
    first = world.leader()
    first.stop()
    world.advance(0)
    assert world.leader() is not first


def test_the_middle_candidate_dies() -> None:
    world = World()
    a, b, c = (world.scheduler(name) for name in "abc")
    world.advance(1)
    b.kill()
    world.advance(15)
    assert world.leader() is a
    a.kill()
    world.advance(15)
    assert world.leader() is c
    assert world.term().number == 2


def test_a_run_that_nobody_starts_is_abandoned(world: World) -> None:
    world.agents["a1"].takes_s, world.agents["a1"].ends_as = 0.0, Outcome.DECLINED
    world.apply(job("backup", ONCE, max_reassigns=2, pickup_buffer_s=5.0))
    world.advance(10.5)
    run = only_run(world)
    assert (run.state.value, len(run.attempts)) == ("abandoned", 1)


def test_a_run_by_hand_that_says_nothing_of_its_past() -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=1.0)
    world.advance(0.5)
    world.apply(job("backup", state=JobState.AD_HOC_ACTIVE))
    run = Run(
        job="backup", id="x", state=RunState.READY, origin=Origin.REQUEST, created_at=world.now
    )
    world.put(Kind.RUN, run, "backup", "x")
    world.advance(5)
    assert world.runs("backup")["x"].state is RunState.COMPLETED


# --- what would end one leader after the other


def test_a_zone_that_the_schedulers_host_doesnt_know() -> None:
    """Of a job without a schedule, whose chain goes by it: the job counts as absent."""
    world = World()
    world.scheduler("s1")
    world.agent("a1")
    world.advance(0.5)
    world.apply(job("next", state=JobState.CHAIN_ACTIVE))
    world.apply(job("other", every_s=5))
    chain = (Link(to="next", within="* 9-17 * * *"),)
    first = job("first", state=JobState.AD_HOC_ACTIVE, chain=chain)
    away = replace(first, versions=(replace(first.current, timezone="America/Newtown"),))
    world.put(Kind.JOB, away, "first")
    world.request(trigger("20261122T120001-t", "first"))
    world.advance(32)
    assert set(world.states("other").values()) == {"completed"}
    assert len(world.states("other")) == 6


@pytest.mark.parametrize("retries", [0, 3])
def test_a_resubmission_that_has_the_id_of_its_run(retries: int) -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", ends_as=Outcome.FAILED)
    world.advance(0.5)
    retry = Retry(max=retries, interval_s=60.0)
    world.apply(job("backup", state=JobState.AD_HOC_ACTIVE, retry=retry))
    asked = "20261122T120001Z-t"
    world.request(trigger(asked))
    world.advance(10)
    world.remove(Kind.ANSWER, asked)
    world.put(Kind.REQUEST, resubmit(asked, asked), asked)
    world.advance(30)
    answer = world.answer(asked)
    assert answer is not None
    assert not answer.accepted


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.RUNNING])
@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.REPLACE])
def test_a_run_by_hand_in_a_state_that_no_active_run_has(state: RunState, overlap: Overlap) -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1")
    world.advance(0.5)
    world.apply(job("backup", every_s=60, overlap=overlap))
    there = Run(
        job="backup", id="20261122T115900Z", state=state, origin=Origin.SCHEDULE,
        created_at=world.now, scheduled_at=Utc("2026-11-22T11:59:00.000Z"),
    )  # fmt: skip
    world.put(Kind.RUN, there, "backup", there.id)
    world.advance(1)
    world.request(cancel("20261122T120002Z-c", there.id))
    world.advance(130)
    answer = world.answer("20261122T120002Z-c")
    assert answer is not None
    assert not answer.accepted


# --- a copy of a request that a frozen member of etcd commits as it wakes

ASKED = "20261122T120001.000Z-aa"
KEPT_S = 600.0


@pytest.fixture
def forgetful() -> World:
    """It forgets its answers, and the runs that are over, soon."""
    world = World(options=Options(answer_kept_s=KEPT_S))
    world.scheduler("s1")
    world.agent("a1", takes_s=1.0)
    world.advance(0.5)
    world.apply(job("backup", keep=Keep(runs=1)))
    return world


@pytest.mark.parametrize("leads", [True, False])
def test_a_copy_of_a_request_that_comes_after_its_answer_is_forgotten(
    forgetful: World, leads: bool
) -> None:
    """Nothing else tells that it was done."""
    world, asked = forgetful, trigger(ASKED)
    world.request(asked)
    world.advance(100)
    world.request(trigger("20261122T120141.000Z-bb", at=world.now))
    world.advance(KEPT_S + 100)
    assert world.answer(ASKED) is None
    assert ASKED not in world.runs("backup")
    if not leads:
        world.nodes["s1"].kill()
        world.advance(30)
    world.request(asked)
    if not leads:
        world.advance(2 * KEPT_S)
        world.scheduler("s2")
    world.advance(60)
    assert ASKED not in world.runs("backup")
    is_accepted, message = answer(world, ASKED)
    assert not is_accepted
    assert message.startswith(f"it is of {asked.at}, and came ")
    assert not world.records(Kind.REQUEST)


def test_a_request_waits_for_a_leader_however_long(forgetful: World) -> None:
    """It came in time, and whoever asked was told that it stays."""
    world = forgetful
    world.nodes["s1"].kill()
    world.advance(100)
    world.request(trigger(ASKED, at=world.now))
    world.advance(10 * KEPT_S)
    world.scheduler("s2")
    world.advance(60)
    assert world.runs("backup")[ASKED].state is RunState.COMPLETED


def test_where_a_watermark_far_ahead_hides_when_a_request_came_it_says_so(
    forgetful: World,
) -> None:
    """A clock put it there that has come back since, or a hand did. What may be done is not done
    twice; while a leader leads, it knows by itself."""
    world = forgetful
    world.nodes["s1"].kill()
    world.advance(30)
    through = utc_of(ms_of(world.now) + 30 * 86_400_000)
    world.put(Kind.WATERMARK, Watermark(through=through, term=1))
    asked = trigger(ASKED, at=world.now)
    world.request(asked)
    world.scheduler("s2")
    world.advance(60)
    assert answer(world, ASKED) == (
        False,
        f"it is of {asked.at}, and came 720 h later, as the schedulers tell: an old copy, which "
        "was done then; or the clock of whoever asked is behind, or the watermark is ahead (see "
        "etcsched doctor): then ask again",
    )
    world.request(trigger("again", at=world.now))
    world.advance(60)
    assert world.runs("backup")["again"].state is RunState.COMPLETED
