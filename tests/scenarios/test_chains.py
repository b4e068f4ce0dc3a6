"""Chains, told as stories in virtual time: what a run's end begins, once, whoever leads."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.leader import recovery
from etcsched.core.leader.chains import chained_id
from etcsched.core.leader.context import Options
from etcsched.core.leader.explaining import Explainer
from etcsched.core.leader.runs import Author, new_run, tick_run
from etcsched.core.records import (
    Condition,
    Follow,
    Job,
    Join,
    Keep,
    Kind,
    Link,
    Retry,
    Run,
    Window,
)
from etcsched.core.schedule import At
from etcsched.core.states import (
    FINAL,
    ConditionOp,
    JobState,
    Origin,
    Outcome,
    Overlap,
    Recovery,
    RunState,
)
from etcsched.core.times import Utc, ms_of
from etcsched.core.view import View
from etcsched.keyspace.codec import encode
from etcsched.keyspace.ops import Put, Txn
from etcsched.testing.world import SimulatedScheduler, World
from tests.support.jobs import cancel, job, resubmit, trigger

ONCE = At(Utc("2026-11-22T12:00:05.000Z"))
TICK = "20261122T120005Z"
FINAL_STATES = tuple(sorted(FINAL, key=lambda state: state.value))


@pytest.fixture
def world() -> World:
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=1.0, slots=8)
    world.advance(0.5)
    return world


def source(*links: Link, name: str = "load", **fields: object) -> Job:
    fields.setdefault("state", JobState.ENABLED)
    return job(name, ONCE, chain=links, **fields)  # type: ignore[arg-type]


def target(name: str = "report", **fields: object) -> Job:
    fields.setdefault("state", JobState.CHAIN_ACTIVE)
    return job(name, **fields)  # type: ignore[arg-type]


def only_run(world: World, name: str) -> Run:
    (run,) = world.runs(name).values()
    return run


def states(world: World, name: str) -> list[str]:
    return [run.state.value for run in world.runs(name).values()]


def follows(world: World, name: str = "load") -> list[Follow]:
    return list(only_run(world, name).followed_by)


# --- one after the other


def test_what_a_run_hands_on_goes_along(world: World) -> None:
    world.agents["a1"].hands_on = {"load": {"rows": ("5",), "file": ("a", "b")}}
    world.apply(source(Link(to="report"), params={"mode": "full", "rows": "0"}))
    world.apply(target(params={"mode": "quick", "colour": "blue"}))
    world.advance(10)
    first, second = only_run(world, "load"), only_run(world, "report")
    assert (first.state.value, second.state.value) == ("completed", "completed")
    assert second.params == {"mode": "full", "colour": "blue", "rows": "5", "file": "a\nb"}
    assert world.agents["a1"].given[("report", second.id)] == second.params
    assert second.id.startswith(f"{TICK}-")
    assert [(s.job, s.run, s.state) for s in second.chained_from] == [
        ("load", TICK, RunState.COMPLETED)
    ]
    assert first.followed_by == (Follow(job="report", run=second.id),)
    assert (second.chain, second.depth, second.scheduled_at) == (TICK, 1, first.scheduled_at)
    assert second.history[0].cause == f"chained from load/{TICK}, which ended completed"


@pytest.mark.parametrize(
    ("on", "ends_as", "count"),
    [
        ((RunState.COMPLETED,), Outcome.COMPLETED, 1),
        ((RunState.COMPLETED,), Outcome.FAILED, 0),
        ((RunState.FAILED, RunState.TIMED_OUT), Outcome.TIMED_OUT, 1),
        ((RunState.DIED,), Outcome.COMPLETED, 0),
    ],
)
def test_the_state_decides(
    world: World, on: tuple[RunState, ...], ends_as: Outcome, count: int
) -> None:
    world.agents["a1"].ends_as = ends_as
    world.apply(source(Link(to="report", on=on)))
    world.apply(target())
    world.advance(10)
    assert len(world.runs("report")) == count


def test_conditions_windows_and_targets_that_cannot_run_are_said(world: World) -> None:
    world.agents["a1"].hands_on = {"load": {"rows": ("5",)}}
    more = Condition(name="rows", op=ConditionOp.MORE_THAN, values=("10",))
    world.apply(
        source(
            Link(to="report", when=(more,)),
            Link(to="report", within="* 6-11 * * *"),
            Link(to="nowhere"),
            Link(to="disabled"),
            Link(to="ad_hoc"),
            Link(to="report", within="* 12 * * *", when=(replace(more, values=("4.5",)),)),
        )
    )
    for state in (JobState.DISABLED, JobState.AD_HOC_ACTIVE):
        world.apply(target(state.value.removesuffix("_active"), state=state))
    world.apply(target())
    world.advance(10)
    assert [(f.job, f.note) for f in follows(world)] == [
        ("report", "its condition doesn't hold: rows is 5 (wanted: more_than 10)"),
        ("report", "it ended outside of * 6-11 * * *"),
        ("nowhere", "there is no such job"),
        ("disabled", "that job is disabled"),
        ("ad_hoc", "that job is ad_hoc_active"),
        ("report", ""),
    ]
    assert states(world, "report") == ["completed"]


@pytest.mark.parametrize(
    ("how", "ends"),
    [
        ("cancelled", "cancelled"),
        ("lost", "died"),
        ("stopped", "cancelled"),
        ("full", "abandoned"),
        ("alone", "missed"),
    ],
)
def test_every_end_is_asked_what_follows(world: World, how: str, ends: str) -> None:
    link = Link(to="report", on=(RunState(ends),))
    needs = {"role": "erp"} if how in ("stopped", "full", "alone") else {}
    erp = world.agent("erp", labels={"role": "erp"}, slots=0)
    world.agents["a1"].takes_s = 100.0
    world.apply(
        source(link, require=needs, pickup_buffer_s=10.0, max_reassigns=0, recovery=Recovery.NONE)
    )
    world.apply(target())
    world.advance(6)
    match how:
        case "cancelled":
            world.request(cancel("r1", TICK, "load"))
        case "lost":
            world.agents["a1"].kill()
            world.agent("a2", takes_s=1.0)
        case "stopped":
            world.set_state("load", JobState.DISABLED)
        case "alone":
            erp.leave()
            world.advance(20)
            world.agent("erp2", labels=needs)
    world.advance(60)
    assert only_run(world, "load").state.value == ends
    assert len(world.runs("report")) == 1


def test_a_tick_that_ends_overlapped_chains(world: World) -> None:
    world.agents["a1"].takes_s = 8.0
    world.apply(
        job("load", every_s=5, chain=(Link(to="report", on=(RunState.OVERLAPPED,)),))
    )  # fmt: skip
    world.apply(target())
    world.advance(11)
    assert states(world, "load")[1] == "overlapped"
    (run,) = world.runs("report").values()
    assert run.chained_from[0].run == "20261122T120010Z"


@pytest.mark.parametrize("per_host", [False, True])
@pytest.mark.parametrize("away_s", [1, 15, 60])
@pytest.mark.parametrize("how", ["nobody led", "no agent"])
def test_a_late_tick_that_ends_overlapped_chains_however_it_was_decided(
    world: World, how: str, away_s: int, per_host: bool
) -> None:
    """It runs in the ordinary way, and so it ends: one by one, or in a step of a recovery."""
    world.agents["a1"].takes_s = 300.0
    links = (Link(to="report", on=(RunState.OVERLAPPED,)), Link(to="other", on=FINAL_STATES))
    world.apply(
        job("load", every_s=5, chain=links, pickup_buffer_s=20.0, per_host=per_host)
    )  # fmt: skip
    for name in ("report", "other"):
        world.apply(target(name, overlap=Overlap.ALLOW))
    outage(world, how, away_s, after_s=13)
    ended = {run.id for run in world.runs("load").values() if run.state is RunState.OVERLAPPED}
    assert len(ended) >= 4
    missed = [run.id for run in world.runs("load").values() if run.state is RunState.MISSED]
    for name, begun in (("report", ended), ("other", ended | set(missed[:1]))):
        assert {run.chained_from[0].run for run in world.runs(name).values()} == begun


MISSED = Link(to="report", on=(RunState.MISSED,))
TAKEN: dict[str, Any] = {"recovery": Recovery.NONE, "pickup_buffer_s": 1.0}


def outage(world: World, how: str, away_s: float, after_s: float = 3) -> None:
    """Of all jobs."""
    world.advance(after_s)
    if how == "no agent":
        world.drain("a1")
        world.advance(away_s)
        world.undrain("a1")
    else:
        world.nodes["s1"].kill()
        world.advance(away_s)
        world.scheduler("s2")
    world.advance(20)


def records_of_missed(world: World, name: str = "load") -> list[Run]:
    """Not the runs that waited already, and end as any run."""
    return [
        run for run in world.runs(name).values()
        if run.state is RunState.MISSED and len(run.history) == 1
    ]  # fmt: skip


def last_ms_of(record: Run) -> int:
    return ms_of(record.missed_through or record.due_at)


def told(world: World, records: list[Run]) -> list[str]:
    """Of these the ones that runs of the target were chained from."""
    ids = {run.id for run in records}
    sources = [s.run for run in world.runs("report").values() for s in run.chained_from]
    return [source for source in sources if source in ids]


@pytest.mark.parametrize("per_host", [False, True])
@pytest.mark.parametrize("how", ["nobody led", "no agent"])
@pytest.mark.parametrize(("every_s", "away_s"), [(5, 4), (5, 60), (2, 9), (2, 60), (2, 12_000)])
def test_what_an_outage_took_is_followed_once_alone_or_many(
    world: World, how: str, every_s: int, away_s: int, per_host: bool
) -> None:
    """However many records such ticks have is a matter of how the outage was decided."""
    fields = {"every_s": every_s, "keep": Keep(runs=500), "chain": (MISSED,), **TAKEN}
    world.apply(job("load", per_host=per_host, **fields))
    world.apply(target())
    outage(world, how, away_s)
    first, *others = records_of_missed(world)
    assert told(world, [first, *others]) == [first.id]
    (run,) = (r for r in world.runs("report").values() if r.chained_from[0].run == first.id)
    assert first.followed_by == (Follow(job="report", run=run.id),)
    assert run.scheduled_at == first.scheduled_at
    assert run.history[0].cause == f"chained from load/{first.id}, which was missed"
    note = f"once for all ticks missed in a row: see load/{first.id}"
    assert {other.followed_by for other in others} <= {(Follow(job="report", note=note),)}


@pytest.mark.parametrize("how", ["nobody led", "no agent"])
def test_what_an_outage_took_is_followed_once_whoever_decides_it(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps of a few ticks, each by a leader that may die right after it."""
    monkeypatch.setattr(recovery, "MAX_TICKS_PER_STEP", 4)
    for write in range(1, 30):
        world = World()
        world.scheduler("s1")
        world.agent("a1", takes_s=0.1, slots=8)
        world.advance(0.5)
        fields = {**TAKEN, "every_s": 2, "keep": Keep(runs=500), "pickup_buffer_s": 30.0}
        world.apply(job("load", chain=(MISSED,), **fields))
        world.apply(target())
        world.advance(3)
        if how == "no agent":
            world.drain("a1")
        else:
            world.nodes["s1"].kill()
        world.advance(90)
        for name in ("s2", "s3"):
            world.scheduler(name)
        written = world.leader_writes
        world.leader_dies_after = written + write
        if how == "no agent":
            world.undrain("a1")
        world.advance(40)
        records = records_of_missed(world)
        assert len(records) > 4
        # (A tick that was late only for the first of them, and ran, divides them.)
        begin = [
            run for run, before in zip(records, [None, *records], strict=False)
            if before is None or ms_of(run.due_at) - last_ms_of(before) > 2000
        ]  # fmt: skip
        assert len(begin) <= 2
        assert told(world, records) == [run.id for run in begin], write


@pytest.mark.parametrize("write", range(1, 7))
def test_agents_that_go_between_a_missed_tick_and_the_next(
    write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outage's account has the one. The other, which would run on each of them, and which one
    plan didn't come to any more, waits there, and is decided as they are back."""
    world = World(options=Options(ticks_at_once=1))
    world.scheduler("s1")
    world.agent("a1", takes_s=0.1, slots=8)
    world.advance(0.5)
    fields: dict[str, Any] = {**TAKEN, "recovery": Recovery.ALL, "keep": Keep(runs=500)}
    world.apply(job("load", every_s=2, per_host=True, catch_up_limit=5, chain=(MISSED,), **fields))
    world.apply(job("other", every_s=1, **fields))
    world.apply(target())
    world.advance(1)
    world.nodes["s1"].kill()
    world.advance(12)
    world.scheduler("s2")
    last, wrote = world.leader_writes + write, world.leader_wrote

    def drain_after(node: SimulatedScheduler) -> None:
        wrote(node)
        if world.leader_writes == last:
            world.drain("a1")

    monkeypatch.setattr(world, "leader_wrote", drain_after)
    world.advance(20)
    world.undrain("a1")
    world.advance(20)
    assert ms_of(world.now) - world.through_ms() < 5000


def test_what_follows_missed_ticks_is_held_to_what_its_link_says(world: World) -> None:
    """They have no results, and they end as they are recorded."""
    results = (Condition(name="rows", op=ConditionOp.EXISTS),)
    links = [
        replace(MISSED, when=results), replace(MISSED, within="* 11 * * *"),
        replace(MISSED, within="* 12 * * *"), replace(MISSED, to="end", joins=True),
    ]  # fmt: skip
    for name in ("load", "other"):
        world.apply(job(name, every_s=5, chain=tuple(links[-1:]), **TAKEN))
    world.apply(job("load", every_s=5, chain=tuple(links), params={"of": "load"}, **TAKEN))
    world.apply(target())
    world.apply(target("end"))
    outage(world, "nobody led", 60)
    first = records_of_missed(world)[0]
    notes = [(follow.job, follow.note) for follow in first.followed_by]
    assert notes[:3] == [
        ("report", "its condition doesn't hold: rows isn't there (wanted: exists)"),
        ("report", "it ended outside of * 11 * * *"),
        ("report", ""),
    ]
    (run,) = world.runs("report").values()
    assert (run.params, run.scheduled_at) == ({"of": "load"}, first.scheduled_at)
    (end,) = world.runs("end").values()
    assert sorted(s.job for s in end.chained_from) == ["load", "other"]
    assert {s.run for s in end.chained_from} == {first.id}


def test_each_outage_is_told_of_and_each_stretch_between_what_runs(world: World) -> None:
    world.apply(job("load", cron="*/1 * * * *", chain=(MISSED,), **TAKEN))
    world.apply(target())
    for _ in range(2):
        outage(world, "no agent", 80)
    assert len(told(world, records_of_missed(world))) == 2
    assert len(world.runs("report")) == 2


# --- the target's own matters


@pytest.mark.parametrize("overlap", list(Overlap))
def test_a_chained_run_waits_for_the_run_before_it(world: World, overlap: Overlap) -> None:
    world.agents["a1"].takes_s = 3.0
    world.apply(source(Link(to="report")))
    world.apply(source(Link(to="report"), name="load2"))
    world.apply(target(overlap=overlap))
    world.advance(9)
    waits = "assigned" if overlap is Overlap.ALLOW else "queued"
    assert sorted(states(world, "report")) == sorted(["assigned", waits])
    world.advance(20)
    assert states(world, "report") == ["completed", "completed"]
    first, second = sorted(s.start_s for s in world.agents["a1"].spans if s.job == "report")
    assert (second - first >= 3.0) is (overlap is not Overlap.ALLOW)


def test_a_paused_target_gets_its_run_and_holds_it(world: World) -> None:
    world.apply(source(Link(to="report")))
    world.apply(target(pickup_buffer_s=10.0))
    world.pause("report")
    world.advance(60)
    assert states(world, "report") == ["queued"]
    world.resume("report")
    world.advance(5)
    assert states(world, "report") == ["completed"]


def test_a_full_target_is_abandoned_and_one_without_agents_missed(world: World) -> None:
    world.apply(source(Link(to="full"), Link(to="nobody")))
    world.agent("erp", labels={"role": "erp"}, slots=0)
    world.apply(target("full", require={"role": "erp"}, pickup_buffer_s=10.0))
    world.apply(target("nobody", hosts=("other",), pickup_buffer_s=10.0))
    world.advance(30)
    assert states(world, "full") == ["abandoned"]
    assert states(world, "nobody") == ["missed"]


def test_a_target_that_is_disabled_or_deleted_cancels_what_waits(world: World) -> None:
    for name in ("one", "two"):
        world.apply(target(name, hosts=("other",)))
    world.apply(source(Link(to="one"), Link(to="two")))
    world.advance(8)
    world.set_state("one", JobState.DISABLED)
    world.delete("two")
    world.advance(1)
    assert states(world, "one") == ["cancelled"]
    assert states(world, "two") == ["cancelled"]


def test_the_chain_in_force_at_the_end_counts(world: World) -> None:
    world.agents["a1"].takes_s = 5.0
    world.apply(source(Link(to="old")))
    world.apply(target("old"))
    world.apply(target("new"))
    world.advance(7)
    world.apply(source(Link(to="new")))
    world.advance(10)
    assert (len(world.runs("old")), len(world.runs("new"))) == (0, 1)


def test_a_deleted_source_chains_no_more_a_disabled_one_does(world: World) -> None:
    world.agents["a1"].takes_s = 5.0
    world.apply(source(Link(to="report"), name="deleted"))
    world.apply(source(Link(to="report"), name="disabled"))
    world.apply(target())
    world.advance(7)
    world.delete("deleted")
    world.set_state("disabled", JobState.DISABLED)
    world.advance(10)
    (run,) = world.runs("report").values()
    assert run.chained_from[0].job == "disabled"


def test_chain_active_runs_only_when_chained_to(world: World) -> None:
    world.apply(target())
    world.request(trigger("r1", "report"))
    world.advance(1)
    answer = world.answer("r1")
    assert answer is not None
    assert (answer.accepted, "runs only when" in answer.message) == (False, True)
    world.apply(source(Link(to="report")))
    world.advance(10)
    assert states(world, "report") == ["completed"]


def test_being_chained_to_ends_a_pending_retry(world: World) -> None:
    world.agents["a1"].ends_as = Outcome.FAILED
    failed = (RunState.FAILED,)
    world.apply(job("report", every_s=3600, retry=Retry(max=3, interval_s=600.0)))
    world.request(trigger("r1", "report"))
    world.advance(3)
    assert states(world, "report") == ["retrying"]
    world.apply(source(Link(to="report", on=failed)))
    world.advance(10)
    runs = {run.origin.value: run for run in world.runs("report").values()}
    assert runs["request"].state is RunState.FAILED
    assert "no retry any more" in runs["request"].history[-1].cause
    assert runs["chain"].state is RunState.RETRYING


def test_each_notification_is_retried_whatever_else_is_told_of(world: World) -> None:
    """It tells of one run: the next one doesn't make up for it."""
    notify = target("load.notify", overlap=Overlap.ALLOW, retry=Retry(max=5, interval_s=300.0))
    world.apply(notify)
    failed = (RunState.FAILED,)
    world.apply(job("load", every_s=60, chain=(Link(to="load.notify", on=failed),)))
    world.agents["a1"].ends_as = Outcome.FAILED
    world.advance(190)
    assert states(world, "load.notify") == ["retrying"] * 3
    world.agents["a1"].ends_as = Outcome.COMPLETED
    world.advance(500)
    assert states(world, "load.notify") == ["completed"] * 3
    told = {run.chained_from[0].run for run in world.runs("load.notify").values()}
    assert told == {f"20261122T120{minute}00Z" for minute in (1, 2, 3)}


def test_too_many_parameters_begin_nothing_and_are_said(world: World) -> None:
    world.agents["a1"].hands_on = {"load": {"big": ("x" * 10_000,)}}
    world.apply(source(Link(to="report"), params={"more": "y" * 10_000}))
    world.apply(target())
    world.advance(10)
    assert "bytes, more than" in follows(world)[0].note
    assert world.runs("report") == {}


def test_a_cycle_that_came_about_ends(world: World) -> None:
    world.agents["a1"].takes_s = 0.01
    world.apply(source(Link(to="report")))
    world.apply(target(chain=(Link(to="load"),)))
    world.advance(60)
    runs = [*world.runs("load").values(), *world.runs("report").values()]
    assert max(run.depth for run in runs) == 100
    assert all(run.state is RunState.COMPLETED for run in runs)


# --- joins


def diamond(world: World) -> None:
    world.apply(source(Link(to="left"), Link(to="right"), name="root"))
    for side in ("left", "right"):
        world.apply(target(side, chain=(Link(to="end", joins=True),)))
    world.apply(target("end"))


def test_a_join_waits_for_all_and_takes_everything_along(world: World) -> None:
    world.agents["a1"].hands_on = {"left": {"l": ("1",)}, "right": {"r": ("2",)}}
    diamond(world)
    world.advance(10)
    end = only_run(world, "end")
    assert end.state is RunState.COMPLETED
    assert end.params == {"l": "1", "r": "2"}
    assert {s.job for s in end.chained_from} == {"left", "right"}
    assert world.records(Kind.JOIN) == {}
    notes = {f.note for side in ("left", "right") for f in follows(world, side)}
    assert "" in notes
    assert notes & {"waits for left", "waits for right"}
    assert {f.run for side in ("left", "right") for f in follows(world, side)} == {end.id}


def test_sources_of_one_tick_join_without_a_common_root(world: World) -> None:
    world.apply(source(Link(to="end", joins=True), name="one"))
    world.apply(source(Link(to="end", joins=True), name="two"))
    world.apply(target("end"))
    world.advance(10)
    assert states(world, "end") == ["completed"]


def test_a_join_goes_on_once_what_failed_is_resubmitted(world: World) -> None:
    diamond(world)
    world.apply(target("right", hosts=("a2",), chain=(Link(to="end", joins=True),)))
    world.agent("a2", takes_s=1.0, ends_as=Outcome.FAILED)
    world.advance(10)
    assert world.runs("end") == {}
    assert len(world.records(Kind.JOIN)) == 1
    world.agents["a2"].ends_as = Outcome.COMPLETED
    world.request(resubmit("20261122T120015Z-1", only_run(world, "right").id, "right"))
    world.advance(10)
    assert states(world, "end") == ["completed"]


def test_a_join_that_nobody_completes_goes_in_the_end() -> None:
    world = World(options=Options(join_kept_s=60.0))
    world.scheduler("s1")
    world.agent("a1", takes_s=1.0)
    world.advance(0.5)
    diamond(world)
    world.apply(target("right", hosts=("nobody",), chain=(Link(to="end", joins=True),)))
    world.advance(10)
    assert len(world.records(Kind.JOIN)) == 1
    world.advance(80)
    assert world.records(Kind.JOIN) == {}


def test_a_chained_run_that_a_hand_made_before_holds_nothing_up(world: World) -> None:
    world.agents["a1"].takes_s = 5.0
    world.apply(source(Link(to="report")))
    world.apply(target())
    world.advance(7)
    run = only_run(world, "load")
    id_ = chained_id(run, "report")
    there = Run(
        job="report", id=id_, state=RunState.COMPLETED, origin=Origin.CHAIN, created_at=world.now
    )  # fmt: skip
    world.store.txn(Txn((), (Put(world.keys.archive("report", id_), encode(there)),)))
    world.advance(20)
    assert only_run(world, "load").state is RunState.COMPLETED
    assert "was there already" in follows(world)[0].note
    assert states(world, "report") == ["completed"]


# --- whoever leads


def test_a_leader_may_die_at_any_write_and_nothing_is_lost_or_doubled() -> None:
    for write in range(1, 40):
        world = World()
        world.agent("a1", takes_s=1.0, slots=8)
        world.scheduler("s1")
        world.scheduler("s2")
        world.leader_dies_after = write
        world.advance(0.5)
        diamond(world)
        world.advance(60)
        counts = {name: states(world, name) for name in ("root", "left", "right", "end")}
        assert counts == {name: ["completed"] for name in counts}, write
        if world.leader_writes < write:
            assert write > 20
            return
    pytest.fail("the story has more writes than this looks at")


def test_a_chain_goes_on_after_an_outage_of_everything() -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=1.0)
    world.advance(0.5)
    world.apply(source(Link(to="report")))
    world.apply(target(hosts=("a2",), pickup_buffer_s=30.0))
    world.advance(8)
    assert states(world, "report") == ["ready"]
    world.nodes["s1"].kill()
    world.advance(300)
    world.agent("a2", takes_s=1.0)
    world.scheduler("s2")
    world.advance(30)
    assert states(world, "report") == ["completed"]


@pytest.mark.parametrize("joins", [False, True])
def test_of_two_links_to_one_job_the_first_that_holds_counts(world: World, joins: bool) -> None:
    """An "or" of conditions; a leader that finds both of them true goes on."""
    when = [(Condition(name=n, op=ConditionOp.EQUALS, values=("1",)),) for n in ("no", "rows", "x")]
    world.agents["a1"].hands_on["load"] = {"rows": ("1",), "x": ("1",)}
    world.apply(target())
    world.apply(source(*(Link(to="report", when=each, joins=joins) for each in when)))
    world.advance(20)
    follows = world.runs("load")[TICK].followed_by
    assert [(follow.job, bool(follow.run)) for follow in follows] == [
        ("report", False), ("report", True), ("report", False),
    ]  # fmt: skip
    assert only_run(world, "report").state.value == "completed"


@pytest.mark.parametrize("state", [JobState.DISABLED, JobState.DELETED])
@pytest.mark.parametrize("dies_after", [0, 1, 2])
def test_a_join_begins_as_what_it_lacks_is_stopped(
    world: World, state: JobState, dies_after: int
) -> None:
    world.scheduler("s2")
    link = Link(to="report", joins=True)
    for each in (target(), source(link), source(link, name="never", hosts=("nowhere",))):
        world.apply(each)
    world.advance(30)
    assert world.runs("report") == {}
    if dies_after:
        world.leader_dies_after = world.leader_writes + dies_after
    world.set_state("never", state)
    world.advance(60)
    run = only_run(world, "report")
    assert (run.state.value, [s.job for s in run.chained_from]) == ("completed", ["load"])
    assert world.records(Kind.JOIN) == {}


@pytest.mark.parametrize("stopped_at_s", [2.0, 8.0])
@pytest.mark.parametrize(
    ("ends_as", "came"),
    [(Outcome.COMPLETED, ["load", "slow"]), (Outcome.FAILED, ["load"])],
)
def test_a_join_waits_for_the_run_in_progress_of_a_disabled_job(
    world: World, stopped_at_s: float, ends_as: Outcome, came: list[str]
) -> None:
    """Whether it is disabled before the others come, or after."""
    link = Link(to="report", joins=True)
    world.agents["a1"].takes_s = 5.0
    world.agent("a2", takes_s=60.0, ends_as=ends_as)
    for each in (target(), source(link, hosts=("a1",)), source(link, name="slow", hosts=("a2",))):
        world.apply(each)
    world.advance(5 + stopped_at_s)
    world.set_state("slow", JobState.DISABLED)
    world.advance(30)
    assert [follow.note for follow in follows(world)] == ["waits for slow"]
    assert world.runs("report") == {}
    world.advance(90)
    run = only_run(world, "report")
    assert (run.state.value, [s.job for s in run.chained_from]) == ("completed", came)
    assert world.records(Kind.JOIN) == {}


def test_a_run_with_an_id_that_a_hand_chose_chains_as_any(world: World) -> None:
    world.apply(job("source", state=JobState.AD_HOC_ACTIVE, chain=(Link(to="target"),)))
    world.apply(job("target", state=JobState.CHAIN_ACTIVE))
    world.advance(0.3)
    world.request(trigger("r1", "source"))
    world.advance(5)
    assert world.states("source") == {"r1": "completed"}
    assert list(world.states("target").values()) == ["completed"]


@pytest.mark.parametrize(
    ("sources", "size", "apart_s", "runs"), [(40, 1, 0, True), (120, 15_000, 1, False)]
)
def test_a_join_of_many(sources: int, size: int, apart_s: int, runs: bool) -> None:
    """All end soon, whether they come at once, or hand on more than one request takes; then the
    target doesn't run."""
    world = World()
    world.scheduler("s1")
    agent = world.agent("a1", takes_s=1.0, slots=1000)
    world.advance(0.5)
    world.apply(job("report", state=JobState.CHAIN_ACTIVE))
    names = [f"s{number:03}" for number in range(sources)]
    for name in names:
        agent.hands_on[name] = {"found": ("x" * size,)}
        world.apply(job(name, ONCE, chain=(Link(to="report", joins=True),)))
    if apart_s:
        takes_s = itertools.count(1)
        agent.on_claim = lambda _: setattr(agent, "takes_s", float(next(takes_s)))
    world.advance(20 + sources * apart_s)
    assert {state for name in names for state in states(world, name)} == {"completed"}
    assert states(world, "report") == ["completed"] * runs


@pytest.mark.parametrize(("per_host", "is_late"), [(False, False), (True, False), (False, True)])
def test_an_overlapped_tick_whose_chained_run_is_there_already(
    per_host: bool, is_late: bool
) -> None:
    """By a hand, or half of a backup: it ends without, and holds up no other job's ticks."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=300.0)
    world.advance(0.5)
    report = world.apply(job("report", state=JobState.CHAIN_ACTIVE))
    link = Link(to="report", on=(RunState.OVERLAPPED,))
    load = world.apply(job("load", every_s=60, per_host=per_host, chain=(link,)))
    world.apply(job("other", every_s=30))
    due_ms = ms_of(Utc("2026-11-22T12:02:00.000Z"))
    author, host = Author(1, world.now), "a1" if per_host else ""
    tick = tick_run(author, load, due_ms, RunState.OVERLAPPED, "", host=host)
    chained = new_run(
        author, report, chained_id(tick, "report"), RunState.OVERLAPPED, "", origin=Origin.CHAIN
    )
    there = Put(world.keys.archive("report", chained.id), encode(chained))
    world.store.txn(Txn((), (there,)))
    world.advance(100)
    if is_late:
        world.drain("a1")
    world.advance(60)
    world.undrain("a1")
    world.advance(80)
    assert world.states("load")["120200Z@a1" if per_host else "120200"] == "overlapped"
    assert "120330" in world.states("other")


def test_a_join_of_many_that_end_at_once_doesnt_take_long() -> None:
    """One comes to it after the other, as fast as etcd goes."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=1.0, slots=400)
    world.advance(0.5)
    first = tuple(Link(to=f"m{number}") for number in range(16))
    world.apply(job("start", ONCE, chain=first))
    for number in range(16):
        names = [f"s{number}x{each}" for each in range(14)]
        world.apply(job(f"m{number}", chain=tuple(Link(to=name) for name in names)))
        for name in names:
            world.apply(job(name, chain=(Link(to="end", joins=True),)))
    world.apply(job("end"))
    world.advance(15)
    spans = {span.job: span for span in world.agents["a1"].spans}
    last_s = max(span.end_s or 0.0 for name, span in spans.items() if name.startswith("s"))
    assert spans["end"].start_s - last_s < 3.0


@pytest.mark.parametrize(("until", "waits_s"), [("12:00:05", 0), ("12:02:00", 60)])
def test_a_join_waits_for_a_disabled_source_until_its_windows_are_over(
    world: World, until: str, waits_s: int
) -> None:
    on = Window(
        since=Utc("2026-11-22T12:00:02.000Z"),
        until=Utc(f"2026-11-22T{until}.000Z"),
        state=JobState.ENABLED,
    )
    link = Link(to="report", joins=True)
    world.apply(job("report", state=JobState.CHAIN_ACTIVE))
    world.apply(job("one", At(Utc("2026-11-22T12:01:00.000Z")), chain=(link,)))
    stopped: dict[str, Any] = {"state": JobState.DISABLED, "windows": (on,)}
    world.apply(job("two", At(Utc("2026-11-22T12:00:03.000Z")), chain=(link,), **stopped))
    world.advance(80)
    assert bool(world.runs("report")) == (waits_s == 0)
    world.advance(waits_s)
    assert world.runs("report")


# --- what is handed on, and when it counts


def test_a_chained_run_gets_what_its_source_ran_with(world: World) -> None:
    """Also parameters that the job has had for less long than the run."""
    world.agents["a1"].ends_as = Outcome.FAILED
    world.apply(job("load", ONCE))
    world.advance(10)
    link = Link(to="report", on=(RunState.FAILED,))
    world.apply(job("load", ONCE, params={"site": "berlin"}, chain=(link,)))
    world.apply(target())
    world.advance(1)
    again = "20261122T120012.000Z-bb"
    world.request(resubmit(again, TICK, name="load"))
    world.advance(5)
    given = world.agents["a1"].given[("load", again)]
    assert only_run(world, "report").params == given == {"site": "berlin"}


def test_a_window_of_a_link_meets_the_runs_end_not_its_last_attempts(world: World) -> None:
    world.agents["a1"].ends_as = Outcome.FAILED
    link = Link(to="report", on=(RunState.CANCELLED,), within="0-1 12 * * *")
    world.apply(source(link, retry=Retry(max=3, interval_s=3600)))
    world.apply(target())
    world.advance(600)
    world.request(cancel("r1", TICK, name="load"))
    world.advance(5)
    assert world.runs("report") == {}


def test_a_window_of_a_link_and_a_run_that_was_lost_and_cancelled_later(world: World) -> None:
    world.agents["a1"].takes_s = 1000.0
    link = Link(to="report", on=(RunState.CANCELLED,), within="* 13 * * *")
    world.apply(source(link))
    world.apply(target())
    world.advance(60)
    world.agents["a1"].kill()
    world.advance(3700)
    world.request(cancel("r1", TICK, name="load"))
    world.advance(5)
    assert len(world.runs("report")) == 1


@pytest.mark.parametrize("after_s", [1, 3, 10, 40])
def test_a_job_that_is_made_anew_takes_up_no_join_of_the_deleted_one(
    world: World, after_s: int
) -> None:
    link = Link(to="report", joins=True)
    world.apply(source(link, name="one"))
    world.apply(job("two", chain=(link,)))
    world.apply(target())
    world.advance(10)
    for name in ("one", "two", "report"):
        world.delete(name)
    world.advance(after_s)
    world.apply(target())
    world.advance(80)
    assert world.runs("report") == {}


STOPPED = [JobState.DISABLED, JobState.AD_HOC_ACTIVE]


def join_of_two(world: World) -> None:
    """``load`` has come, ``late`` comes half a minute later."""
    link = Link(to="report", joins=True)
    world.agents["a1"].takes_s = 3.0
    world.agent("a2", takes_s=30.0)
    for each in (target(), source(link, hosts=("a1",)), source(link, name="late", hosts=("a2",))):
        world.apply(each)
    world.advance(10)
    assert [follow.note for follow in follows(world)] == ["waits for late"]


@pytest.mark.parametrize("state", STOPPED)
def test_a_join_goes_on_whatever_its_target_was_while_it_waited(
    world: World, state: JobState
) -> None:
    """Whether that runs is asked once all have come, as of a plain link."""
    join_of_two(world)
    world.set_state("report", state)
    world.advance(15)
    (reason,) = explained(world)
    assert reason == f"chain {TICK} waits for late; load/{TICK} is there; report is {state.value}"
    world.set_state("report", JobState.CHAIN_ACTIVE)
    world.advance(30)
    run = only_run(world, "report")
    assert (run.state.value, [s.job for s in run.chained_from]) == ("completed", ["load", "late"])


@pytest.mark.parametrize("state", STOPPED)
def test_what_comes_while_the_target_of_a_join_is_stopped_has_come(
    world: World, state: JobState
) -> None:
    join_of_two(world)
    link = Link(to="report", joins=True)
    world.apply(job("last", At(Utc("2026-11-22T12:10:00.000Z")), chain=(link,)))
    world.set_state("report", state)
    world.advance(60)
    assert [follow.note for follow in follows(world, "late")] == ["waits for last"]
    world.set_state("report", JobState.CHAIN_ACTIVE)
    world.delete("last")
    world.advance(30)
    assert [s.job for s in only_run(world, "report").chained_from] == ["load", "late"]


def test_a_tick_that_comes_alone_to_a_stopped_join_holds_up_no_other(world: World) -> None:
    """Nothing is there to delete, so no event would ever show that it is gone."""
    link = Link(to="report", on=(RunState.OVERLAPPED,), joins=True)
    world.apply(job("report", state=JobState.DISABLED))
    world.apply(job("load", every_s=2, overlap=Overlap.SKIP, chain=(link,)))
    world.agents["a1"].takes_s = 60.0
    world.advance(20)
    late_ms = [
        ms_of(run.created_at) - ms_of(run.due_at)
        for run in world.runs("load").values()
        if run.state is RunState.OVERLAPPED
    ]
    assert len(late_ms) >= 5
    assert max(late_ms) < 500


@pytest.mark.parametrize("state", STOPPED)
def test_a_join_to_which_all_have_come_while_its_target_is_stopped_is_over(
    world: World, state: JobState
) -> None:
    """Not a week later: nobody it waits for will come any more."""
    join_of_two(world)
    world.set_state("report", state)
    world.advance(60)
    assert [follow.note for follow in follows(world, "late")] == [f"that job is {state.value}"]
    assert world.records(Kind.JOIN) == {}
    world.set_state("report", JobState.CHAIN_ACTIVE)
    world.advance(30)
    assert world.runs("report") == {}


@pytest.mark.parametrize("state", STOPPED)
def test_a_join_that_waits_for_nobody_more_while_its_target_is_stopped_is_over(
    world: World, state: JobState
) -> None:
    join_of_two(world)
    world.set_state("report", state)
    world.advance(1)
    world.delete("late")
    world.request(cancel("r1", TICK, "late"))
    world.advance(30)
    assert world.records(Kind.JOIN) == {}
    world.set_state("report", JobState.CHAIN_ACTIVE)
    world.advance(30)
    assert world.runs("report") == {}


@pytest.mark.parametrize("count", [1, 2])
def test_two_links_that_join_a_target_that_is_stopped(world: World, count: int) -> None:
    """One of them is said, and the write has each join once."""
    link = Link(to="report", joins=True)
    for each in (target(), source(*[link] * count), source(link, name="late", hosts=("a2",))):
        world.apply(each)
    world.agent("a2", takes_s=30.0)
    world.advance(10)
    world.set_state("report", JobState.DISABLED)
    world.apply(source(*[link] * count, name="late", hosts=("a2",)))
    world.advance(60)
    notes = [follow.note for follow in follows(world, "late")]
    assert notes == ["that job is disabled"] * count
    assert world.records(Kind.JOIN) == {}
    assert not world.rejected


def test_of_two_links_to_one_job_the_first_counts_though_it_waits(world: World) -> None:
    """Else it ran twice: at once, and again when the others have come."""
    link = Link(to="report", joins=True)
    for each in (target(), source(link, Link(to="report")), source(link, name="late")):
        world.apply(each)
    world.agent("a2", takes_s=30.0)
    world.apply(source(link, name="late", hosts=("a2",)))
    world.advance(15)
    notes = [follow.note for follow in follows(world)]
    assert notes == ["waits for late", "a link before this one counts, and waits for others"]
    world.advance(40)
    assert [s.job for s in only_run(world, "report").chained_from] == ["load", "late"]


def explained(world: World) -> list[str]:
    view = View()
    for kind in (Kind.JOB, Kind.JOIN, Kind.RUN):
        view.apply(world.records(kind).values(), world.store.revision)
    return [reason.text for _, reason in Explainer(view, ms_of(world.now)).joins_of("report")]


@pytest.mark.parametrize("is_in_flight", [False, True])
def test_a_job_that_is_deleted_as_an_end_comes_to_its_join(is_in_flight: bool) -> None:
    world = World()
    world.scheduler("s1")
    for name, takes_s in (("a1", 1.0), ("a2", 2.0), ("a3", 20.0)):
        world.agent(name, takes_s=takes_s)
    world.advance(0.5)
    link = Link(to="report", joins=True)
    for name, agent in (("one", "a1"), ("two", "a2"), ("three", "a3")):
        world.apply(job(name, ONCE, hosts=(agent,), chain=(link,)))
    world.apply(target())
    left = [1] if is_in_flight else []

    def deletes(write: fx.Write) -> bool:
        if left and isinstance(write, fx.EndRun) and write.run.job == "two":
            left.pop()
            world.delete("report")  # So etcd refuses it.
        return False

    world.rejects = deletes
    world.advance(7)
    if not is_in_flight:
        world.delete("report")
    world.advance(1.5)
    world.apply(job("two", ONCE, hosts=("a2",)))
    world.apply(target())
    world.advance(60)
    assert not left
    assert world.runs("report") == {}


def test_a_job_that_is_deleted_and_made_anew_before_anybody_looks(world: World) -> None:
    world.agent("a3", takes_s=20.0)
    link = Link(to="report", joins=True)
    world.apply(source(link, name="one", hosts=("a1",)))
    world.apply(source(link, name="three", hosts=("a3",)))
    world.apply(target())
    world.advance(7)
    world.delete("report")
    world.apply(target())
    world.advance(60)
    assert world.runs("report") == {}


def test_a_job_that_is_made_anew_while_nobody_leads(world: World) -> None:
    """The next leader tells by the job's timeline that it was deleted."""
    link = Link(to="report", joins=True)
    world.apply(source(link, name="one"))
    world.apply(job("two", chain=(link,)))
    world.apply(target())
    world.advance(10)
    world.nodes["s1"].kill()
    world.advance(1)
    for name in ("one", "two", "report"):
        world.delete(name)
    world.advance(1)
    world.apply(target())
    world.advance(15)
    world.scheduler("s2")
    world.advance(30)
    assert world.runs("report") == {}
    assert world.records(Kind.JOIN) == {}


def test_a_join_begun_after_its_target_was_made_anew_by_a_clock_that_is_ahead() -> None:
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=1.0, slots=8)
    world.agent("a3", takes_s=25.0, slots=8)
    world.advance(1)
    link = Link(to="report", joins=True)
    world.apply(source(link, name="one", hosts=("a1",)))
    world.apply(source(link, name="two", hosts=("a3",)))
    world.apply(target())
    world.advance(1)
    world.start_ms += 5_000
    world.delete("report")
    world.start_ms += 1  # (Each version is in force for a while.)
    world.apply(target())
    world.start_ms -= 5_001
    world.advance(60)
    assert len(world.runs("report")) == 1


@pytest.mark.parametrize("kind", [fx.EndRun, fx.EndJoin])
def test_another_that_joins_just_as_a_join_is_completed(
    world: World, kind: type[fx.EndRun | fx.EndJoin]
) -> None:
    """An acknowledged edit counts for all that is decided after it."""
    link = Link(to="report", joins=True)
    world.apply(source(link, name="one"))
    world.apply(source(link, name="two") if kind is fx.EndRun else job("two", chain=(link,)))
    world.apply(target())
    edits = [lambda: world.apply(job("three", chain=(link,)))]

    def edits_before(write: fx.Write) -> bool:
        following = fx.following_of(write)
        if edits and isinstance(write, kind) and following is not None and following.created:
            edits.pop()()
        return False

    world.rejects = edits_before
    world.advance(7)
    if kind is fx.EndJoin:
        world.delete("two")
    world.advance(30)
    assert not edits
    assert world.runs("report") == {}
    assert len(world.records(Kind.JOIN)) == 1


def test_a_chain_that_is_added_just_before_its_source_ends(world: World) -> None:
    world.apply(source())
    world.apply(target())
    edits = [lambda: world.apply(source(Link(to="report")))]

    def edits_before(write: fx.Write) -> bool:
        if edits and isinstance(write, fx.EndRun):
            edits.pop()()
        return False

    world.rejects = edits_before
    world.advance(10)
    assert not edits
    assert states(world, "report") == ["completed"]


@pytest.mark.parametrize("waits_for_more", [False, True])
@pytest.mark.parametrize("is_killed", [False, True])
def test_an_end_that_comes_to_a_join_of_a_job_made_anew_where_no_leader_looked(
    is_killed: bool, waits_for_more: bool
) -> None:
    """What came to the deleted one goes first: this one would go on with it, or go with it."""
    world = World()
    leader = world.scheduler("s1")
    for name, takes_s in (("a1", 1.0), ("a2", 10.0), ("a3", 60.0)):
        world.agent(name, takes_s=takes_s)
    world.advance(0.5)
    link = Link(to="report", joins=True)
    world.apply(source(link, name="one", hosts=("a1",)))
    world.apply(source(link, name="two", hosts=("a2",)))
    if waits_for_more:
        world.apply(source(link, name="three", hosts=("a3",)))
    world.apply(target())
    world.advance(10)
    if is_killed:
        leader.kill()
    else:
        leader.is_cut_off = True
    world.delete("report")
    world.apply(target())
    world.advance(6)
    leader.is_cut_off = False
    world.scheduler("s2")
    world.advance(15)
    assert world.runs("report") == {}
    (join,) = world.records(Kind.JOIN).values()
    assert isinstance(join.record, Join)
    assert [each.job for each in join.record.arrived] == ["two"]
