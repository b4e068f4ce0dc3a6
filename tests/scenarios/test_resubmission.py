"""Resubmission, told as stories in virtual time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.core.leader.resubmission import MAX_READS
from etcsched.core.missed import ticks_of
from etcsched.core.records import ClusterSettings, Keep, Kind, Retry, Run
from etcsched.core.schedule import At
from etcsched.core.states import HostsFor, JobState, Origin, Outcome, Overlap, Recovery, RunState
from etcsched.core.times import Utc, ms_of, tick_id
from etcsched.keyspace.ops import Put, Range, Txn
from etcsched.testing.world import SimulatedScheduler, World
from tests.support.jobs import cancel, job, resubmit, trigger

ONCE = At(Utc("2026-11-22T12:00:05.000Z"))
RUN = "20261122T120005Z"
AGAIN, THIRD = "20261122T120020.000Z-01", "20261122T120030.000Z-02"


@pytest.fixture
def world() -> World:
    """Its agent fails whatever it gets."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", ends_as=Outcome.FAILED)
    world.advance(0.5)
    return world


def run_of(world: World, run: str = RUN) -> Run:
    return world.runs("backup")[run]


def states(world: World) -> dict[str, str]:
    return {run: record.state.value for run, record in world.runs("backup").items()}


def answer(world: World, request: str = AGAIN) -> tuple[bool, str]:
    found = world.answer(request)
    assert found is not None
    return found.accepted, found.message


def test_it_runs_again_with_its_time_and_parameters(world: World) -> None:
    world.apply(job("backup", ONCE, params={"a": "1", "b": "2"}))
    world.advance(10)
    world.apply(job("backup", ONCE, params={"a": "9", "b": "9", "c": "9"}))
    world.agents["a1"].ends_as = Outcome.COMPLETED
    world.request(resubmit(AGAIN, RUN, params={"b": "7"}))
    world.advance(3)
    again = run_of(world, AGAIN)
    assert (again.state.value, again.origin) == ("completed", Origin.RESUBMISSION)
    assert again.scheduled_at == "2026-11-22T12:00:05.000Z"
    assert again.params == {"a": "1", "b": "7"}
    assert (again.requested_by, again.history[0].cause) == ("ada", "resubmitted by ada")
    original = run_of(world)
    assert original.state.value == "failed"
    assert (again.resubmits, original.resubmitted_as) == (RUN, (AGAIN,))
    assert answer(world) == (True, "waits: its turn comes next")
    assert world.records(Kind.REQUEST) == {}


def test_it_waits_outside_any_buffer(world: World) -> None:
    world.apply(job("backup", ONCE, pickup_buffer_s=1.0))
    world.advance(10)
    world.drain("a1")
    world.request(resubmit(AGAIN, RUN))
    world.advance(600)
    assert states(world)[AGAIN] == "queued"
    assert answer(world) == (True, "waits: no agent may run it: a1 is drained")
    world.undrain("a1")
    world.advance(2)
    assert states(world)[AGAIN] == "failed"


@pytest.mark.parametrize("name", ["backup", "_cluster"])
def test_a_pause_holds_it(world: World, name: str) -> None:
    world.apply(job("backup", ONCE))
    world.advance(10)
    world.pause(name)
    world.request(resubmit(AGAIN, RUN))
    world.advance(10)
    assert states(world)[AGAIN] == "queued"
    assert answer(world)[0]
    assert answer(world)[1].endswith("is paused")
    world.resume(name)
    world.advance(2)
    assert states(world)[AGAIN] == "failed"


# --- refusals


def test_not_while_an_earlier_one_is_active(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(10)
    world.agents["a1"].takes_s = 20.0
    world.request(resubmit(AGAIN, RUN))
    world.advance(5)
    world.request(resubmit(THIRD, RUN))
    world.advance(1)
    text = f"run backup/{RUN} is resubmitted as backup/{AGAIN}, which isn't over"
    assert answer(world, THIRD) == (False, text)
    world.advance(20)
    world.request(resubmit("x4", RUN))
    world.advance(1)
    assert answer(world, "x4")[0]
    assert run_of(world).resubmitted_as == (AGAIN, "x4")


def test_not_while_a_resubmission_of_its_resubmission_is_active(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(10)
    world.request(resubmit(AGAIN, RUN))
    world.advance(5)
    world.agents["a1"].takes_s = 20.0
    world.request(resubmit(THIRD, AGAIN))
    world.advance(1)
    assert (run_of(world, THIRD).resubmits, run_of(world, THIRD).root) == (AGAIN, RUN)
    world.request(resubmit("x4", RUN))
    world.advance(1)
    assert answer(world, "x4") == (
        False,
        f"run backup/{RUN} is resubmitted as backup/{THIRD}, which isn't over",
    )


def test_two_requests_at_once_make_one_run(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(10)
    world.agents["a1"].takes_s = 20.0
    world.request(resubmit(AGAIN, RUN))
    world.request(resubmit(THIRD, RUN))
    world.advance(3)
    assert sorted(answer(world, each)[0] for each in (AGAIN, THIRD)) == [False, True]
    assert len(states(world)) == 2


def test_only_states_that_the_settings_name(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.put(Kind.SETTINGS, ClusterSettings(resubmit_states=(RunState.DIED, RunState.MISSED)))
    world.advance(10)
    world.request(resubmit(AGAIN, RUN))
    world.advance(1)
    assert answer(world) == (False, f"run backup/{RUN} is failed; the settings allow died, missed")


def test_not_what_completed_by_default(world: World) -> None:
    world.agents["a1"].ends_as = Outcome.COMPLETED
    world.apply(job("backup", ONCE))
    world.advance(10)
    world.request(resubmit(AGAIN, RUN))
    world.advance(1)
    accepted, message = answer(world)
    assert not accepted
    assert message.startswith(f"run backup/{RUN} is completed; the settings allow failed, ")


def test_a_disabled_job_only_by_force(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(10)
    world.set_state("backup", JobState.DISABLED)
    world.request(resubmit(AGAIN, RUN))
    world.advance(1)
    assert answer(world) == (
        False,
        "job backup is disabled; apply its file with state: enabled first, or resubmit with "
        "--force",
    )
    world.request(resubmit(THIRD, RUN, force=True))
    world.advance(3)
    assert states(world)[THIRD] == "failed"


@pytest.mark.parametrize("state", [JobState.AD_HOC_ACTIVE, JobState.ENABLED])
def test_jobs_that_start_on_request(world: World, state: JobState) -> None:
    world.apply(job("backup", ONCE))
    world.advance(10)
    world.set_state("backup", state)
    world.request(resubmit(AGAIN, RUN))
    world.advance(3)
    assert states(world)[AGAIN] == "failed"


def test_what_cant_be_resubmitted(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.agents["a1"].takes_s = 30.0
    world.advance(10)
    world.request(resubmit("x1", RUN))
    world.request(resubmit("x2", "never"))
    world.request(resubmit("x3", RUN, "nothing"))
    world.advance(1)
    assert answer(world, "x1") == (
        False,
        f"run backup/{RUN} is running; only one that is over, or retrying, can be resubmitted",
    )
    assert answer(world, "x2") == (False, "there is no run backup/never")
    assert answer(world, "x3") == (False, "there is no job nothing; apply its file again first")
    world.advance(30)
    world.request(resubmit("x4", RUN, params={"a": "x" * 20_000}))
    world.advance(1)
    assert answer(world, "x4") == (False, "its parameters take more than 16384 bytes")
    world.request(resubmit("x5", RUN, params={"a": "1", "A": "2"}))
    world.advance(1)
    text = "parameters a and A differ only in case; rename one"
    assert answer(world, "x5") == (False, text)


@pytest.fixture
def summary(world: World) -> Run:
    """The record of ticks that were missed in a row, five seconds apart."""
    fields: dict[str, Any] = {"recovery": Recovery.NONE, "keep": Keep(runs=500)}
    world.apply(job("backup", every_s=5, pickup_buffer_s=1.0, **fields))
    world.advance(2)
    world.nodes["s1"].kill()
    world.advance(60)
    world.scheduler("s2")
    world.advance(2)
    (missed,) = [run for run in world.runs("backup").values() if run.missed_count > 1]
    return missed


def ids_in(record: Run) -> list[str]:
    return [tick_id(tick_ms) for tick_ms in ticks_of(record)]


def test_a_tick_that_shares_its_record_can_be(world: World, summary: Run) -> None:
    tick = ids_in(summary)[3]
    world.request(resubmit(AGAIN, summary.id, tick=tick))
    world.advance(4)
    accepted, message = answer(world)
    assert accepted
    assert "stands for" not in message
    run = world.runs("backup")[AGAIN]
    assert run.state is RunState.FAILED
    assert run.scheduled_at is not None
    assert tick_id(ms_of(run.scheduled_at)) == tick
    assert (run.resubmits, run.root, run.chain, run.depth) == (summary.id, tick, tick, 0)
    record = world.runs("backup")[summary.id]
    assert (record.resubmitted_as, record.resubmitted_ticks) == ((AGAIN,), ((3, 3),))
    assert (record.missed_count, record.state) == (summary.missed_count, RunState.MISSED)


def test_the_record_itself_is_its_first_tick(world: World, summary: Run) -> None:
    world.request(resubmit(AGAIN, summary.id))
    world.advance(1)
    accepted, message = answer(world)
    assert accepted
    assert f"stands for {summary.missed_count} missed ticks, and this is the first" in message
    run = world.runs("backup")[AGAIN]
    assert (run.scheduled_at, run.root) == (summary.scheduled_at, summary.id)
    assert world.runs("backup")[summary.id].resubmitted_ticks == ((0, 0),)


def test_each_tick_of_a_record_is_resubmitted_for_itself(world: World, summary: Run) -> None:
    """While one is under way it isn't again, but the others are, at the same time."""
    world.agents["a1"].takes_s = 30.0
    first, second, *_ = ids_in(summary)
    world.advance(1)
    for request, tick in (("x1", first), ("x2", second), ("x3", first), ("x4", second)):
        world.request(resubmit(request, summary.id, tick=tick))
        world.advance(0.1)
    assert [answer(world, f"x{number}")[0] for number in range(1, 5)] == [True, True, False, False]
    assert f"run backup/{second} is resubmitted as backup/x2" in answer(world, "x4")[1]
    assert world.runs("backup")[summary.id].resubmitted_ticks == ((0, 1),)


@pytest.mark.parametrize("how", ["between", "before", "after", "no tick"])
def test_a_time_that_a_record_doesnt_stand_for(world: World, summary: Run, how: str) -> None:
    assert summary.missed_through is not None
    ticks = {
        "between": tick_id(ms_of(summary.due_at) + 1000),
        "before": tick_id(ms_of(summary.due_at) - 5000),
        "after": tick_id(ms_of(summary.missed_through) + 5000),
        "no tick": "yesterday",
    }
    world.request(resubmit(AGAIN, summary.id, tick=ticks[how]))
    world.advance(1)
    text = f"{ticks[how]} is no tick of backup/{summary.id}, which stands for "
    assert answer(world) == (False, f"{text}{summary.missed_count} missed ticks")


def test_a_tick_of_what_is_no_record_of_several(world: World) -> None:
    """Else it would be linked as if it were one, or go to any agent though its run was bound."""
    world.apply(job("backup", ONCE, per_host=True))
    world.advance(10)
    world.request(resubmit(AGAIN, f"{RUN}@a1", tick=RUN))
    world.advance(1)
    assert not answer(world)[0]
    assert run_of(world, f"{RUN}@a1").resubmitted_as == ()


def test_what_was_due_then_counts_whatever_the_job_is_by_now(world: World, summary: Run) -> None:
    world.apply(job("backup", cron="0 3 * * *", since=world.now, keep=Keep(runs=500)))
    world.advance(20)
    world.request(resubmit(AGAIN, summary.id, tick=ids_in(summary)[-1]))
    world.advance(1)
    assert answer(world)[0]
    assert world.runs("backup")[AGAIN].scheduled_at == summary.missed_through


def test_a_record_stays_while_its_ticks_run(world: World, summary: Run) -> None:
    """However few runs its job keeps: who asks for many may be slower than the leader answers."""
    world.apply(job("backup", cron="0 3 * * *", since=world.now, keep=Keep(runs=2)))
    world.advance(20)
    world.agents["a1"].takes_s = 1.0
    ticks = ids_in(summary)
    for number, tick in enumerate(ticks):
        world.request(resubmit(f"r{number}", summary.id, tick=tick))
        world.advance(0.8)
    assert all(answer(world, f"r{number}")[0] for number in range(len(ticks)))
    world.advance(120)
    assert summary.id not in world.runs("backup")


@pytest.mark.parametrize("writes", range(1, 7))
def test_all_of_a_record_though_a_leader_dies_after_any_write(
    world: World, summary: Run, writes: int
) -> None:
    """None is made twice or forgotten, also where the request is sent again."""
    ticks = ids_in(summary)[:4]
    world.leader_dies_after = world.leader_writes + writes
    for number, tick in enumerate(ticks):
        world.request(resubmit(f"r{number}", summary.id, tick=tick))
    world.scheduler("s3")
    world.advance(40)
    found = [run for run in world.runs("backup").values() if run.origin is Origin.RESUBMISSION]
    assert [(run.id, run.root) for run in found] == [(f"r{n}", t) for n, t in enumerate(ticks)]
    assert all(answer(world, f"r{number}")[0] for number in range(4))
    record = world.runs("backup")[summary.id]
    assert record.resubmitted_ticks == ((0, 3),)
    assert sorted(record.resubmitted_as) == ["r0", "r1", "r2", "r3"]


def test_a_single_missed_tick_can_be(world: World) -> None:
    world.apply(job("backup", ONCE, recovery=Recovery.NONE, pickup_buffer_s=1.0))
    world.nodes["s1"].kill()
    world.advance(30)
    world.scheduler("s2")
    world.advance(1)
    assert states(world) == {RUN: "missed"}
    world.request(resubmit(AGAIN, RUN))
    world.advance(3)
    assert states(world)[AGAIN] == "failed"


# --- beside its job's other runs


def test_a_pending_retry_ends_with_its_resubmission(world: World) -> None:
    world.apply(job("backup", ONCE, retry=Retry(max=3, interval_s=30.0)))
    world.advance(10)
    assert states(world) == {RUN: "retrying"}
    world.request(resubmit(AGAIN, RUN))
    world.advance(3)
    assert states(world) == {RUN: "failed", AGAIN: "retrying"}
    assert run_of(world).history[-1].cause == f"no retry any more: resubmitted as {AGAIN}"
    world.advance(60)
    assert (run_of(world).attempt, run_of(world, AGAIN).attempt) == (1, 3)


def test_the_pending_retry_of_a_resubmission_ends_likewise(world: World) -> None:
    world.apply(job("backup", ONCE, retry=Retry(max=1, interval_s=60.0)))
    world.advance(10)
    world.request(resubmit(AGAIN, RUN))
    world.advance(3)
    assert states(world) == {RUN: "failed", AGAIN: "retrying"}
    world.agents["a1"].takes_s = 20.0
    world.request(resubmit(THIRD, AGAIN))
    world.advance(3)
    assert answer(world, THIRD)[0]
    assert states(world) == {RUN: "failed", AGAIN: "failed", THIRD: "assigned"}
    assert run_of(world, AGAIN).history[-1].cause == f"no retry any more: resubmitted as {THIRD}"
    assert (run_of(world, THIRD).resubmits, run_of(world, THIRD).root) == (AGAIN, RUN)
    # Of all that go back to the first run, one at a time, as ever.
    world.request(resubmit("x4", AGAIN))
    world.advance(1)
    text = f"run backup/{AGAIN} is resubmitted as backup/{THIRD}, which isn't over"
    assert answer(world, "x4") == (False, text)


def test_a_retry_ends_as_the_settings_count_it(world: World) -> None:
    world.put(Kind.SETTINGS, ClusterSettings(resubmit_states=(RunState.DIED,)))
    world.apply(job("backup", ONCE, retry=Retry(max=3, interval_s=30.0)))
    world.advance(10)
    world.request(resubmit(AGAIN, RUN))
    world.advance(1)
    assert answer(world) == (False, f"run backup/{RUN} is failed; the settings allow died")
    assert states(world) == {RUN: "retrying"}


def failed_ticks(world: World, count: int) -> list[str]:
    """The ids of runs of 12:00:01 and so on, all failed within a tenth of a second."""
    world.agents["a1"].takes_s = 0.1
    ticks = [At(Utc(f"2026-11-22T12:00:{second:02}.000Z")) for second in range(1, count + 1)]
    world.apply(job("backup", *ticks, keep=Keep(runs=1000)))
    world.advance(count + 2)
    return list(world.runs("backup"))


def test_many_go_one_at_a_time_the_oldest_first(world: World) -> None:
    runs = failed_ticks(world, 5)
    world.agents["a1"].takes_s = 1.0
    for number, run in enumerate(reversed(runs)):
        world.request(resubmit(f"r{number}", run))
    world.advance(10)
    spans = [span for span in world.agents["a1"].spans if span.run.startswith("r")]
    # The first to come found nothing in its way.
    assert [span.run for span in spans] == ["r0", "r4", "r3", "r2", "r1"]
    assert all(one.end_s <= two.start_s for one, two in pairwise(spans) if one.end_s)


def test_a_retry_and_a_resubmission_dont_overlap(world: World) -> None:
    runs = failed_ticks(world, 2)
    retry = Retry(max=1, interval_s=4.0)
    world.apply(job("backup", At(Utc("2026-11-22T12:00:05.000Z")), retry=retry))
    world.advance(1)
    world.agents["a1"].takes_s = 2.0
    world.pause("backup")  # Both can go in the same instant.
    world.request(resubmit("r0", runs[0]))
    world.advance(10)
    world.resume("backup")
    world.advance(10)
    spans = sorted(world.agents["a1"].spans, key=lambda span: span.start_s)
    assert len(spans) == 6  # the resubmission has a retry of its own
    assert all(one.end_s <= two.start_s for one, two in pairwise(spans) if one.end_s)


def test_where_runs_may_overlap_they_go_side_by_side(world: World) -> None:
    runs = failed_ticks(world, 4)
    world.apply(job("backup", ONCE, overlap=Overlap.ALLOW))
    world.agents["a1"].takes_s = 5.0
    for number, run in enumerate(runs):
        world.request(resubmit(f"r{number}", run))
    world.advance(1)
    assert len({span.start_s for span in world.agents["a1"].spans if span.run[0] == "r"}) == 1


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.QUEUE, Overlap.REPLACE])
def test_a_tick_goes_before_those_that_wait(world: World, overlap: Overlap) -> None:
    """It waits for the one that runs; no tick is skipped for a resubmission, none replaces one."""
    runs = failed_ticks(world, 3)
    world.agents["a1"].takes_s = 4.0
    world.apply(job("backup", At(Utc("2026-11-22T12:00:08.000Z")), overlap=overlap))
    for number, run in enumerate(runs):
        world.request(resubmit(f"r{number}", run))
    world.advance(20)
    spans = [span for span in world.agents["a1"].spans if span.start_s > 4]
    assert [span.run for span in spans] == ["r0", "20261122T120008Z", "r1", "r2"]
    assert all(one.end_s <= two.start_s for one, two in pairwise(spans) if one.end_s)


def test_a_waiting_one_can_be_cancelled(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(10)
    world.agents["a1"].takes_s = 20.0
    world.request(trigger("x1"))
    world.advance(1)
    world.request(resubmit(AGAIN, RUN))
    world.advance(1)
    assert answer(world) == (True, "waits: behind 1 of its job")
    world.request(cancel("c1", AGAIN))
    world.advance(1)
    assert states(world)[AGAIN] == "cancelled"


# --- leaders


@pytest.mark.parametrize("writes", range(1, 14))
def test_a_bulk_survives_a_leader_that_dies_after_any_write(writes: int) -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", ends_as=Outcome.FAILED)
    world.advance(0.5)
    runs = failed_ticks(world, 4)
    world.leader_dies_after = world.leader_writes + writes
    for number, run in enumerate(runs):
        world.request(resubmit(f"r{number}", run))
    world.scheduler("s2")
    world.advance(60)
    assert all(answer(world, f"r{number}")[0] for number in range(4))
    found = world.runs("backup")
    assert [found[f"r{number}"].resubmits for number in range(4)] == runs
    assert [found[run].resubmitted_as for run in runs] == [(f"r{n}",) for n in range(4)]
    assert len(found) == 8
    assert world.records(Kind.REQUEST) == {}


def test_originals_are_read_a_few_at_a_time(world: World) -> None:
    runs = failed_ticks(world, 55)
    for number, run in enumerate(runs):
        world.request(resubmit(f"r{number:02}", run))
    world.advance(30)
    assert len(runs) > MAX_READS
    assert all(answer(world, f"r{number:02}")[0] for number in range(len(runs)))
    assert len(world.runs("backup")) == 2 * len(runs)


def test_a_request_sent_again_long_after_its_answer_is_gone(world: World) -> None:
    world.apply(job("backup", ONCE))
    world.advance(10)
    world.request(resubmit(AGAIN, RUN))
    world.advance(5)
    world.remove(Kind.ANSWER, AGAIN)
    world.request(resubmit(AGAIN, RUN))
    world.advance(5)
    assert answer(world) == (True, "it was resubmitted before")
    assert list(states(world)) == [RUN, AGAIN]


@pytest.mark.parametrize("seed", range(10))
def test_of_one_run_and_its_resubmission_only_one_is_resubmitted_at_once(seed: int) -> None:
    world = World(chance=random.Random(seed))
    world.scheduler("s1")
    world.agent("a1", slots=2, ends_as=Outcome.FAILED)
    world.advance(0.5)
    world.apply(job("backup", ONCE, overlap=Overlap.ALLOW))
    world.advance(20)
    world.request(resubmit(AGAIN, RUN))
    world.advance(10)
    world.agents["a1"].takes_s = 100.0
    requests = {THIRD: RUN, "20261122T120040.000Z-03": AGAIN}
    for request, run in requests.items():
        world.request(resubmit(request, run))
    world.advance(5)
    assert sorted(answer(world, request)[0] for request in requests) == [False, True]
    assert list(states(world).values()).count("assigned") == 1


def test_what_was_asked_for_isnt_bound_to_hosts_when_it_is_resubmitted() -> None:
    """The hosts are for ticks, and for what stands for one."""
    world = World()
    world.scheduler("s1")
    agent = world.agent("a2", ends_as=Outcome.FAILED)
    world.advance(0.5)
    world.apply(job("backup", hosts=("a1",), hosts_for=HostsFor.SCHEDULED))
    asked = "20261122T120001.000Z-1"
    world.request(trigger(asked))
    world.advance(5)
    agent.ends_as = Outcome.COMPLETED
    world.request(resubmit("20261122T120010.000Z-r", asked))
    world.advance(20)
    assert world.runs("backup")["20261122T120010.000Z-r"].state is RunState.COMPLETED


def test_a_record_that_a_hand_copied_from_another_job_is_answered() -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", ends_as=Outcome.FAILED)
    world.advance(0.5)
    world.apply(job("backup", At(Utc("2026-11-22T12:00:05.000Z"))))
    world.apply(job("other"))
    world.advance(10)
    run = "20261122T120005Z"
    (kv,) = world.store.range(Range(world.keys.archive("backup", run))).kvs
    world.store.txn(Txn((), (Put(world.keys.archive("other", run), kv.value),)))
    again = "20261122T120020.000Z-01"
    world.request(resubmit(again, run, name="other"))
    world.advance(5)
    answer = world.answer(again)
    assert answer is not None
    assert not answer.accepted


def test_what_was_read_for_a_request_that_was_refused_answers_no_later_one() -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", ends_as=Outcome.FAILED)
    world.advance(0.5)
    run = "20261122T120005Z"
    world.apply(job("backup", At(Utc("2026-11-22T12:00:05.000Z"))))
    world.advance(1)
    leader = world.nodes["s1"]
    with slow_reads(leader):
        world.request(resubmit("20261122T120002.000Z-aa", run))
        world.advance(0.5)
        world.set_state("backup", JobState.DISABLED)
        world.advance(0.5)
    world.advance(0.5)
    first = world.answer("20261122T120002.000Z-aa")
    assert first is not None
    assert "disabled" in first.message
    world.set_state("backup", JobState.ENABLED)
    world.advance(10)
    world.request(resubmit("20261122T120012.000Z-bb", run))
    world.advance(5)
    second = world.answer("20261122T120012.000Z-bb")
    assert second is not None
    assert second.accepted, second.message


@contextmanager
def slow_reads(node: SimulatedScheduler) -> Iterator[None]:
    """What it reads of the archive comes at the end."""
    asked, held = node._asked, []

    def hold(effect: fx.ConfirmLoss | fx.ListArchive | fx.ReadArchived) -> ev.LeaderEvent:
        answer = asked(effect)
        if isinstance(answer, ev.ArchivedRead):
            held.append(answer)
            return ev.TimerFired()
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "_asked", hold)
        yield
    assert held
    node._answers.extend(held)
