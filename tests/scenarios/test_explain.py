"""What ``explain`` and ``recovery preview`` say, against what the leader then does."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection

import pytest

from etcsched.core.leader.context import Context, Options
from etcsched.core.leader.explaining import Explainer
from etcsched.core.leader.previewing import JobPreview, outage_begin_ms, preview
from etcsched.core.leader.reasons import Reason, Why
from etcsched.core.records import ClusterSettings, Job, Kind, Link, Retry
from etcsched.core.schedule import At
from etcsched.core.states import JobState, OnAgentLoss, Outcome, Overlap, Recovery, RunState
from etcsched.core.times import Utc, ms_of, tick_id
from etcsched.testing.world import World
from tests.support.jobs import cancel, job, trigger
from tests.support.views import view_of


@pytest.fixture
def world() -> World:
    world = World()
    world.scheduler("s1")
    world.agent("a1", slots=1, takes_s=30.0)
    world.advance(0.5)
    return world


def explainer(world: World) -> Explainer:
    return Explainer(view_of(world), ms_of(world.now))


def reason(world: World, name: str = "backup") -> Reason:
    """Of the newest run of the job that isn't over."""
    view = view_of(world)
    run = max(view.runs_of_job[name], key=lambda id_: view.runs[(name, id_)].record.created_at)
    return explainer(world).reason((name, run))


def at(second: int) -> At:
    return At(Utc(f"2026-11-22T12:{second // 60:02d}:{second % 60:02d}.000Z"))


def blocker(world: World) -> None:
    world.apply(job("blocker", at(2)))
    world.advance(3)


def no_slot(world: World) -> None:
    blocker(world)
    world.apply(job("backup", at(5)))
    world.advance(5)


def queued(world: World) -> None:
    world.apply(job("backup", every_s=5, overlap=Overlap.QUEUE))
    world.advance(11)


def paused(world: World) -> None:
    no_slot(world)
    world.pause("backup")


def conflict(world: World) -> None:
    world.agent("a2", takes_s=300.0)
    world.apply(job("blocker", at(2)))
    world.apply(job("backup", at(5)))
    world.group("ledger", "backup", "blocker")
    world.advance(8)


def retry_waits(world: World) -> None:
    world.agents["a1"].ends_as = Outcome.FAILED
    world.agents["a1"].takes_s = 1.0
    world.apply(job("backup", at(2), retry=Retry(max=3, interval_s=60.0)))
    world.advance(5)


def runs(world: World) -> None:
    world.apply(job("backup", at(2)))
    world.advance(5)


def unclaimed(world: World) -> None:
    world.agents["a1"].claims_nothing = True
    runs(world)


def told_to_end(world: World) -> None:
    runs(world)
    world.agents["a1"].obeys_as = None
    world.request(cancel("20261122T120005Z-r1", "20261122T120002Z"))
    world.advance(1)


def held(world: World) -> None:
    world.apply(job("backup", at(2), on_agent_loss=OnAgentLoss.HOLD))
    world.advance(5)
    world.agents["a1"].kill()
    world.advance(20)


def lost(world: World) -> None:
    world.apply(job("backup", at(2), disconnect_grace_s=60.0))
    world.advance(5)
    world.agents["a1"].kill()
    world.advance(20)


def splayed(world: World) -> None:
    world.apply(job("backup", at(2), splay_s=600.0))
    world.advance(3)


def paced(world: World) -> None:
    """Lost with others at once; those that are due now have no room."""
    world.put(Kind.SETTINGS, ClusterSettings(recovery_rate=0.1))
    there = {"slots": 4, "takes_s": 300.0, "labels": {"disk": "ssd"}}
    world.agent("a2", **there)
    for name in ("anew", "backup", "cleanup"):
        world.apply(job(name, at(2), require={"disk": "ssd"}))
    world.advance(5)
    world.agents["a2"].kill()
    world.agent("a3", **there)
    world.advance(15)


def nobody_leads(world: World) -> None:
    no_slot(world)
    world.nodes["s1"].stop()


def outage(world: World) -> None:
    """Its buffer ends while no agent is here."""
    blocker(world)
    world.apply(job("backup", at(5), pickup_buffer_s=20.0))
    world.advance(5)
    world.agents["a1"].kill()
    world.advance(60)


def drained(world: World) -> None:
    world.drain("a1")
    world.apply(job("backup", state=JobState.AD_HOC_ACTIVE))
    world.request(trigger("20261122T120000Z-r1"))
    world.advance(2)


@pytest.mark.parametrize(
    ("happens", "why", "words"),
    [
        (no_slot, Why.NO_AGENT, "every agent that may run it is full"),
        (queued, Why.QUEUED, "number 1 in its job's queue, behind backup/20261122T120005Z (assign"),
        (paused, Why.PAUSED, "job backup is paused"),
        (conflict, Why.CONFLICT, "blocker/20261122T120002Z on a2 holds ledger"),
        (retry_waits, Why.RETRY, "retry 1 is due at 2026-11-22T12:01:03"),
        (runs, Why.RUNS, "it runs on a1: due"),
        (unclaimed, Why.CLAIM, "assigned to a1, which hasn't claimed it yet"),
        (told_to_end, Why.ENDING, "a1 is told to end it"),
        (held, Why.HELD, "a1 was lost; it waits for an operator"),
        (lost, Why.LOSS, "disconnect_grace of 60 s"),
        (splayed, Why.SPLAY, "by its job's splay"),
        (paced, Why.PACED, "starts after an outage or a loss are paced (0.1/s)"),
        (nobody_leads, Why.NO_LEADER, "nobody leads"),
        (outage, Why.OUTAGE, "recovery: last decides"),
        (drained, Why.NO_AGENT, "a1 is drained"),
    ],
)
def test_why_a_run_waits_or_runs(
    world: World, happens: Callable[[World], None], why: Why, words: str
) -> None:
    happens(world)
    found = reason(world)
    assert (found.why, words in found.text) == (why, True), found


def test_what_is_left_of_a_buffer_and_whose_turn_it_is(world: World) -> None:
    no_slot(world)
    world.apply(job("urgent", at(10), priority=5))
    world.advance(5)
    told = explainer(world)
    run = view_of(world).runs[("backup", "20261122T120005Z")].record
    assert told.buffer_ends(run) == "2026-11-22T12:02:05.000Z"
    assert told.place(("backup", run.id)) == 2
    assert told.place(("urgent", "20261122T120010Z")) == 1


def test_each_agent_and_why_it_was_or_was_not_eligible(world: World) -> None:
    no_slot(world)
    world.agent("a2", labels={"disk": "ssd"})
    world.agent("a3", labels={"disk": "ssd"})
    world.drain("a3")
    world.advance(0)
    wanted = job("ssd", every_s=60, require={"disk": "ssd"}, hosts=("a2", "a3", "a9"))
    words = {w.agent: (w.may_run, w.why) for w in explainer(world).agents(wanted)}
    assert words == {
        "a1": (False, "is not among the job's hosts (a2, a3, a9)"),
        "a2": (True, "is the next, by least_loaded"),
        "a3": (False, "is drained"),
        "a9": (False, "isn't here"),
    }
    full = {w.agent: (w.may_run, w.why) for w in explainer(world).agents(job("any", every_s=60))}
    assert full["a1"] == (False, "is full")


def test_what_isnt_claimed_for_long_is_its_agents_matter(world: World) -> None:
    """etcd takes its claim in no form, say."""
    world.agents["a1"].claims_nothing = True
    world.apply(job("backup", At(Utc("2026-11-22T12:00:05.000Z"))))
    world.advance(20)
    ((key, entry),) = view_of(world).runs.items()
    reason = Explainer(view_of(world), ms_of(world.now)).reason(key)
    assigned_at = entry.record.since
    assert reason.text == (
        "it is assigned to a1, which hasn't claimed it yet, though it was assigned at "
        f"{assigned_at}; see that agent's log"
    )


@pytest.mark.parametrize("name", ["any", "_cluster"])
def test_no_agent_is_the_next_for_what_mustnt_start(world: World, name: str) -> None:
    disabled = job("any", every_s=60, state=JobState.DISABLED)
    assert [w.is_next for w in explainer(world).agents(disabled)] == [False]
    enabled = job("any", every_s=60)
    assert [w.is_next for w in explainer(world).agents(enabled)] == [True]
    world.pause(name)
    assert [w.is_next for w in explainer(world).agents(enabled)] == [False]


def test_a_standby_says_so(world: World) -> None:
    world.put(Kind.SETTINGS, ClusterSettings(max_active_agents=1))
    world.agent("a2")
    world.advance(1)
    words = {w.agent: (w.may_run, w.why) for w in explainer(world).agents(job("any", every_s=60))}
    assert words == {
        "a1": (True, "is the next, by least_loaded"),
        "a2": (False, "stands by: all seats are taken (settings: max_active_agents)"),
    }


@pytest.mark.parametrize(
    ("definition", "happens", "whys"),
    [
        ({"every_s": 60}, None, {Why.SCHEDULE: "its next tick is due at 2026-11-22T12:01:00"}),
        ({"state": JobState.DISABLED}, None, {Why.STATE: "it is disabled"}),
        ({"state": JobState.CHAIN_ACTIVE}, None, {Why.STATE: "only when another job chains to it"}),
        (
            {"every_s": 60},
            "pause",
            {Why.PAUSED: "the cluster is paused", Why.SCHEDULE: "would be due at 2026-11-22T12:01"},
        ),
        (
            {"every_s": 60, "require": {"disk": "ssd"}},
            None,
            {Why.NO_AGENT: "a1 has no label disk", Why.SCHEDULE: "next tick"},
        ),
        (
            {"cron": "0 13 * * *", "calendars": ("days",)},
            "advance",
            {Why.SCHEDULE: "calendars (days) leave out its ticks from 2026-11-22T13:00"},
        ),
        (
            {"every_s": 5},
            "advance",
            {Why.QUEUED: "a tick now would become overlapped: backup/", Why.SCHEDULE: "next"},
        ),
        (
            {"every_s": 5, "require": {"disk": "ssd"}},
            "advance",
            {Why.OUTAGE: "an outage since 2026-11-22T12:00:05", Why.SCHEDULE: "next tick"},
        ),
        ({"at_s": 1}, "advance", {Why.SCHEDULE: "its schedule has no tick any more"}),
    ],
)
def test_why_a_job_does_not_run(
    world: World, definition: dict[str, object], happens: str | None, whys: dict[Why, str]
) -> None:
    definition = dict(definition)
    once = definition.pop("at_s", None)
    if once is not None:
        world.agents["a1"].takes_s = 1.0
    patterns = () if once is None else (at(1),)
    world.calendar("days", exclude=("2026-11-22/2026-11-24",))
    world.apply(job("backup", *patterns, **definition))  # type: ignore[arg-type]
    if happens == "pause":
        world.pause()
    elif happens == "advance":
        world.advance(7)
    found = explainer(world).of_job(view_of(world).jobs["backup"].record)
    assert [r.why for r in found] == list(whys), found
    for told, words in zip(found, whys.values(), strict=True):
        assert words in told.text


def test_a_join_says_whom_it_waits_for(world: World) -> None:
    world.agents["a1"].takes_s = 0.5
    both = (Link(to="report", joins=True),)
    world.apply(job("report", state=JobState.CHAIN_ACTIVE))
    world.apply(job("one", at(2), chain=both))
    world.apply(job("two", at(600), chain=both))
    world.advance(5)
    ((_, found),) = explainer(world).joins_of("report")
    assert found.why is Why.JOIN
    assert "waits for two; one/20261122T120002Z is there" in found.text


def test_a_join_whose_parameters_are_too_many_says_so(world: World) -> None:
    """All that it waited for are there, since the last of them was deleted; and yet it never
    begins."""
    world.agents["a1"].takes_s = 1.0
    world.agents["a1"].hands_on = {name: {name: ("x" * 9000,)} for name in ("one", "two")}
    link = Link(to="report", joins=True)
    world.apply(job("report", state=JobState.CHAIN_ACTIVE))
    for name, second in (("one", 2), ("two", 2)):
        world.apply(job(name, at(second), chain=(link,)))
    world.apply(job("three", chain=(link,)))
    world.advance(10)
    world.delete("three")
    world.advance(30)
    assert world.runs("report") == {}
    ((_, found),) = explainer(world).joins_of("report")
    assert "waits for fewer parameters: they take 18006 bytes, more than 16384;" in found.text


def test_an_outage_whose_cause_is_gone_lasts_until_somebody_leads(world: World) -> None:
    world.apply(job(every_s=5))
    world.agents["a1"].leave()
    world.advance(20)
    world.nodes["s1"].kill()
    world.advance(15)
    world.agent("a2")
    world.advance(1)
    found = explainer(world).outage(view_of(world).jobs["backup"].record)
    assert found is not None
    assert found.text.endswith("no agent is here; it ends once somebody leads")


def test_a_job_without_ticks_begins_no_outage(world: World) -> None:
    world.apply(job(hosts=("nobody",)))
    world.advance(1)
    definition = view_of(world).jobs["backup"].record
    texts = [reason.text for reason in explainer(world).of_job(definition)]
    assert texts == [
        "no agent may run it: a1 is not among the job's hosts (nobody)",
        "its schedule has no tick any more",
    ]


@pytest.mark.parametrize("seed", range(12))
def test_nothing_waits_without_a_reason(seed: int) -> None:
    """Whenever the leader has nothing to do, nothing that waits is free to go: a reason that says
    "now" of a run that the leader leaves where it is would be a second guess."""
    chance = random.Random(seed)
    world = World()
    world.scheduler("s1")
    agents = [world.agent(f"a{n}", slots=2, takes_s=chance.uniform(1, 9)) for n in range(3)]
    world.advance(0.5)
    for number in range(8):
        world.apply(
            job(
                f"j{number}",
                every_s=chance.choice([2, 3, 5, 7]),
                overlap=chance.choice(list(Overlap)),
                recovery=chance.choice(list(Recovery)),
                pickup_buffer_s=chance.choice([2.0, 5.0, 60.0]),
                retry=Retry(max=2, interval_s=3.0),
                priority=chance.randrange(3),
                splay_s=chance.choice([0.0, 4.0]),
                on_agent_loss=chance.choice(list(OnAgentLoss)),
            )
        )
    world.group("g", "j0", "j1", "j2")
    world.group("h", "j2", "j3")
    seen: set[Why] = set()
    for step in range(60):
        world.advance(1.037)
        agents[0].ends_as = chance.choice([Outcome.COMPLETED, Outcome.FAILED])
        if step == 20:
            world.pause("j4")
        if step == 30:
            agents[1].kill()
        if step == 40:
            world.resume("j4")
        world.settle()
        told, view = explainer(world), view_of(world)
        for key, entry in view.runs.items():
            if entry.record.state is RunState.ASSIGNED:
                continue
            found = told.reason(key)
            seen.add(found.why)
            assert found.why is not Why.NEXT, (step, key, entry.record.state, found)
    assert len(seen) >= 3, seen


def preview_of(
    world: World, name: str = "backup", decided: Collection[str] = ()
) -> JobPreview | None:
    view, has_leader = view_of(world), explainer(world).has_leader
    context = Context(view, 0, "", Options())
    context.it_is(ms_of(world.now), 0.0)
    definition: Job = view.jobs[name].record
    begin_ms = outage_begin_ms(view, definition, has_leader)
    return None if begin_ms is None else preview(view, context, definition, begin_ms, decided)


@pytest.mark.parametrize("mode", [Recovery.ALL, Recovery.LAST, Recovery.NONE])
@pytest.mark.parametrize("cause", ["no leader", "no agent"])
@pytest.mark.parametrize("buffer_s", [0.5, 25.0])
def test_a_preview_is_what_then_happens(
    world: World, cause: str, mode: Recovery, buffer_s: float
) -> None:
    world.agents["a1"].takes_s = 0.1
    world.apply(job(every_s=10, recovery=mode, pickup_buffer_s=buffer_s))
    world.advance(11)
    assert preview_of(world) is None
    world.advance(5)
    before = set(world.runs("backup"))
    if cause == "no leader":
        world.nodes["s1"].stop()
    else:
        world.agents["a1"].leave()
    world.advance(80)
    told = preview_of(world)
    assert told is not None
    if cause == "no leader":
        world.scheduler("s2")
    else:
        world.agent("a2", takes_s=0.1)
    world.advance(3)
    after = [run for id_, run in world.runs("backup").items() if id_ not in before]
    ran = [run.scheduled_at for run in after if run.state is RunState.COMPLETED]
    assert ran == sorted([*told.late, *told.recovered])
    missed = [run for run in after if run.state is RunState.MISSED]
    assert sum(max(run.missed_count, 1) for run in missed) == told.missed
    assert len(ran) + told.missed == 8


def test_a_preview_of_a_run_that_waited(world: World) -> None:
    outage(world)
    told = preview_of(world)
    assert told is not None
    assert told.waiting == (("20261122T120005Z", True),)
    world.agent("a2")
    world.advance(5)
    assert world.states("backup") == {"120005": "completed"}


def test_a_preview_knows_what_is_decided_for_each_agent(world: World) -> None:
    """The watermark hasn't come there yet."""
    world.agents["a1"].takes_s = 1000.0
    world.apply(job(every_s=10, per_host=True, recovery=Recovery.ALL, pickup_buffer_s=0.5))
    world.advance(10 - world.now_s + 0.02)
    (tick,) = world.runs("backup").values()
    world.nodes["s1"].kill()
    world.advance(45)
    told = preview_of(world)
    assert told is not None
    assert told.since < (tick.scheduled_at or "")
    assert tick.scheduled_at not in (*told.late, *told.recovered)


def test_the_preview_of_a_late_tick_beside_one_that_waits_for_a_slot() -> None:
    """It had never begun, so the tick overlaps nothing."""
    world = World()
    world.scheduler("s1")
    world.agent("a1", takes_s=60.0, slots=1)
    world.advance(0.5)
    ticks = [At(Utc(f"2026-11-22T12:00:{second}.000Z")) for second in ("03", "10", "40")]
    world.apply(job("hog", ticks[0]))
    world.apply(job("backup", *ticks[1:], pickup_buffer_s=300.0))
    world.advance(15)
    world.nodes["s1"].kill()
    world.advance(40)
    found = preview_of(world, "backup")
    assert found is not None
    assert (len(found.late), len(found.overlapped)) == (1, 0)
    world.scheduler("s2")
    world.advance(300)
    assert world.states("backup")["120040"] == "completed"


def test_a_preview_counts_no_tick_that_was_decided_ahead_of_the_watermark(world: World) -> None:
    """Of a job that is due each second those are several, at the beginning of what was missed."""
    world.agents["a1"].takes_s = 0.1
    world.apply(job(every_s=1, recovery=Recovery.NONE, pickup_buffer_s=0.3))
    world.advance(14)
    world.nodes["s1"].kill()
    world.advance(30)
    before = world.runs("backup")
    told = preview_of(world, decided=before)
    assert told is not None
    assert max(before) > tick_id(ms_of(told.since) // 1000 * 1000)
    world.scheduler("s2")
    world.advance(0.3)
    missed = [run for id_, run in world.runs("backup").items() if id_ not in before]
    assert {run.state for run in missed} == {RunState.MISSED}
    assert told.missed == sum(max(run.missed_count, 1) for run in missed)
    assert told.missed_first == min(run.scheduled_at or "" for run in missed)


def test_a_preview_beside_a_run_that_ended_while_nobody_led(world: World) -> None:
    """Who leads next hears of its end first, so the late tick overlaps nothing."""
    world.apply(job(every_s=20))
    world.advance(25 - world.now_s)
    world.nodes["s1"].kill()
    world.advance(55 - world.now_s)
    told = preview_of(world)
    assert told is not None
    assert (told.late, told.overlapped) == (("2026-11-22T12:00:40.000Z",), ())
    world.scheduler("s2")
    world.advance(1)
    assert world.states("backup") == {"120020": "completed", "120040": "assigned"}


def test_the_preview_of_a_late_tick_beside_one_that_has_begun_and_one_that_waits(
    world: World,
) -> None:
    """All ticks are late only, and so decided one by one, as ticks are."""
    world.agents["a1"].takes_s = 60.0
    world.apply(job(every_s=10))
    world.advance(8 - world.now_s)
    world.nodes["s1"].kill()
    world.advance(25 - world.now_s)
    world.scheduler("s2")
    world.advance(1.5)
    assert world.states("backup") == {"120010": "assigned", "120020": "queued"}
    world.nodes["s2"].kill()
    world.advance(45 - world.now_s)
    told = preview_of(world)
    assert told is not None
    world.scheduler("s3")
    world.advance(1)
    states = world.states("backup")
    assert (states["120030"], states["120040"]) == ("overlapped", "overlapped")
    assert (told.late, told.overlapped) == (
        (),
        ("2026-11-22T12:00:30.000Z", "2026-11-22T12:00:40.000Z"),
    )
