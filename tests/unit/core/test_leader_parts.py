"""The leader's small parts: placement, waiting runs, open ticks, and the view."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import pytest

from etcsched.core.leader.agents import Agents
from etcsched.core.leader.context import Context, Options
from etcsched.core.leader.effects import ForgetGap
from etcsched.core.leader.loss import Losses
from etcsched.core.leader.matters import run_matter
from etcsched.core.leader.open_ticks import OpenTicks
from etcsched.core.leader.placement import Requirement, Tried, requirement_of, why_not
from etcsched.core.leader.runs import Author, new_run
from etcsched.core.leader.waiting import Waiting
from etcsched.core.records import Change, Kind, Presence, Report, Run
from etcsched.core.states import Origin, RunState
from etcsched.core.times import Utc
from etcsched.core.view import RunKey, View
from tests.support.jobs import NOON, job


def presence(name: str = "a1", **fields: object) -> Presence:
    fields = {"users": ("app",), "default_user": "app", "slots": 2, **fields}
    return Presence(
        agent=name, incarnation="5", supervisor="s", host="h", pid=1, since=NOON, clock=NOON,
        version="0", **fields,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "said", "is_drained", "word"),
    [
        ({}, {}, False, None),
        ({}, {"draining": True}, False, "stopping"),
        ({}, {}, True, "drained"),
        ({"hosts": ("a2",)}, {}, False, "not among"),
        ({"require": {"disk": "ssd"}}, {}, False, "no label disk"),
        ({"require": {"disk": "ssd"}}, {"labels": {"disk": "hdd"}}, False, "disk=hdd"),
        ({"require": {"disk": "ssd"}}, {"labels": {"disk": "ssd"}}, False, None),
        ({"user": "root"}, {}, False, "doesn't run jobs as root"),
    ],
)
def test_why_an_agent_is_not_eligible(
    asked: dict[str, Any], said: dict[str, Any], is_drained: bool, word: str | None
) -> None:
    requirement = requirement_of(job(**asked))
    found = why_not(requirement, presence(**said), is_drained)
    assert found is None if word is None else found is not None and word in found


def waiting_run(name: str, tick: str, priority: int = 0) -> Run:
    definition = job(name, priority=priority)
    return new_run(
        Author(1, NOON), definition, tick, RunState.READY, "due", origin=Origin.SCHEDULE,
        scheduled_at=Utc(tick),
    )  # fmt: skip


def test_waiting_runs_are_served_by_priority_then_age_across_what_they_ask() -> None:
    any_agent, ssd = Requirement((), (), ""), Requirement((), (("disk", "ssd"),), "")
    waiting = Waiting()
    waiting.put(waiting_run("old", "1"), any_agent)
    waiting.put(waiting_run("new", "3"), any_agent)
    waiting.put(waiting_run("fast", "2"), ssd)
    waiting.put(waiting_run("urgent", "4", priority=9), ssd)
    waiting.put(waiting_run("gone", "0"), ssd)
    waiting.discard(("gone", "0"))
    served: list[str] = []

    def offer(requirement: Requirement, key: RunKey) -> bool:
        served.append(key[0])
        return not (requirement == any_agent and key[0] == "new")

    waiting.serve(offer, lambda _: False)
    assert served == ["urgent", "old", "fast", "new"]
    assert len(waiting) == 1


def test_a_later_tick_waits_behind_a_parked_one_of_its_job() -> None:
    ticks = OpenTicks()
    ticks.add("a", 1000, 0)
    parked = ticks.take(9000)
    assert parked == (1000, 0, "a")
    ticks.park(parked)
    ticks.add("a", 2000, 0)
    ticks.add("b", 3000, 0)
    assert ticks.take(9000) == (3000, 0, "b")
    assert ticks.take(9000) is None
    ticks.wake("a")
    assert [ticks.take(9000), ticks.take(9000)] == [(1000, 0, "a"), (2000, 0, "a")]


def test_open_ticks() -> None:
    ticks = OpenTicks()
    ticks.add("a", 10, 0)
    ticks.add("b", 10, 5)
    ticks.add("a", 20, 0)
    ticks.add("a", 10, 0)
    assert len(ticks) == 3
    taken = [ticks.take(15), ticks.take(15), ticks.take(15)]
    assert taken == [(10, -5, "b"), (10, 0, "a"), None]
    assert ticks.is_held_up(15)
    assert ticks.first_ms() == 10
    ticks.confirm("b", 10)
    ticks.park((10, 0, "a"))
    assert ticks.take(15) is None
    ticks.wake("a")
    assert ticks.take(15) == (10, 0, "a")
    ticks.add_again("a", 10, 0)
    ticks.confirm("a", 10)
    ticks.add_again("a", 10, 0)
    assert ticks.take(25) == (20, 0, "a")
    assert ticks.first_ms() == 20
    ticks.hold("c", 5)
    assert ticks.first_ms() == 5
    ticks.release("c")
    ticks.confirm("a", 20)
    assert ticks.first_ms() is None


def test_a_tick_at_the_instant_that_is_held_stays_a_tick() -> None:
    ticks = OpenTicks()
    ticks.hold("a", 10)
    ticks.add("a", 10, 0)
    assert ticks.take(10) == (10, 0, "a")
    ticks.confirm("a", 10)
    assert ticks.first_ms() == ticks.first_of("a") == 10
    ticks.add("a", 10, 0)
    ticks.release("a")
    assert ticks.first_ms() == 10


def change(kind: Kind, ids: tuple[str, ...], record: object, revision: int) -> Change:
    return Change(kind=kind, ids=ids, record=record, mod_revision=revision)  # type: ignore[arg-type]


def test_differences_lead_from_a_view_to_a_snapshot() -> None:
    one, two, three = job("one"), job("two"), job("three")
    run = waiting_run("one", "1")
    view = View()
    before = [
        change(Kind.JOB, ("one",), one, 2),
        change(Kind.JOB, ("two",), two, 3),
        change(Kind.RUN, ("one", "1"), run, 4),
    ]
    view.apply(before, 4)
    edited = job("two", priority=3)
    snapshot = [
        change(Kind.JOB, ("one",), one, 2),
        change(Kind.JOB, ("two",), edited, 8),
        change(Kind.JOB, ("three",), three, 9),
    ]
    changes = view.differences(snapshot, 10)
    assert [(c.kind, c.ids, c.record) for c in changes] == [
        (Kind.JOB, ("two",), edited),
        (Kind.JOB, ("three",), three),
        (Kind.RUN, ("one", "1"), None),
    ]
    view.apply(changes, 10)
    assert view.revision == 10
    assert view.jobs.keys() == {"one", "two", "three"}
    assert not view.runs
    assert not view.runs_of_job
    assert view.differences(snapshot, 11) == []


def test_what_is_refused_again_and_again_is_tried_ever_more_seldom() -> None:
    """Until it is taken once."""
    context = Context(View(), 1, "s1", Options(stale_wait_s=0.25))
    at_s = 100.0

    def rest_s(*, refused: bool = True) -> float:
        nonlocal at_s
        context.it_is(0, at_s)
        seq = context.next_seq()
        context.write(ForgetGap(seq=seq, job="a", revision=1), ("job", "a"))
        if not refused:
            context.committed(seq, 0, is_shown=True)
            assert context.release()
            return 0.0
        context.refused(seq, 1 << 40, exists=False)
        due_s = context.next_timer_s()
        assert due_s is not None
        context.it_is(0, due_s - 0.01)
        assert not context.release()
        context.it_is(0, due_s)
        assert context.release()
        assert context.due_timers()
        rested_s, at_s = due_s - at_s, due_s
        return rested_s

    rests = [rest_s() for _ in range(8)]
    assert rests == pytest.approx([0.25, 0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0])
    rest_s(refused=False)
    assert rest_s() == pytest.approx(0.25)


def test_what_was_refused_or_set_aside_is_forgotten_once_it_is_over() -> None:
    """Runs come and go, and a leader leads for long."""
    context = Context(View(), 1, "s1", Options())
    empty = [sizes_of(context), sizes_of(context.setbacks)]

    def is_answered(name: str, revision: int | None) -> None:
        seq = context.next_seq()
        write = ForgetGap(seq=seq, job=name, revision=1)
        context.write(write, ("job", name), ("run", name, "1"), ("turn", name))
        if revision is None or revision:
            context.refused(seq, revision, exists=False)
        else:
            context.committed(seq, 0, is_shown=True)

    for number in range(20):
        context.it_is(0, 10.0 * number)
        context.release()
        is_answered(f"refused-{number}", 1 << 40)
        is_answered("rejected", None)
        with context.contain(("run", f"raises-{number}", "1")):
            raise ArithmeticError("a defect")
    context.it_is(0, 200.0)
    context.release()
    is_answered("rejected", 0)
    context.it_is(0, 300.0)
    context.release()
    assert context.due_timers()
    context.sweep()
    assert [sizes_of(context), sizes_of(context.setbacks)] == empty
    assert not context.is_set_aside("rejected")


def sizes_of(part: object) -> dict[str, int]:
    """Of what it remembers."""
    kept = {name: each for name, each in vars(part).items() if isinstance(each, Sized)}
    return {name: len(each) for name, each in kept.items() if name != "effects"}


def test_a_session_that_is_surely_over_is_forgotten_with_its_last_claim() -> None:
    view = View()
    losses = Losses(Context(view, 1, "s1", Options()), 1, -100.0)
    empty = sizes_of(losses)
    claim = Report(
        job="backup", run="1", attempt=1, token=7, incarnation="5", supervisor="s", claimed_at=NOON
    )
    place = ("a1", "backup", "1")
    view.apply([change(Kind.REPORT, place, claim, 8)], 8)
    for lease in (5, 6):
        losses.answered("a1", lease, is_gone=True, raft_term=1)
        losses.answered("a1", lease + 2, is_gone=False, raft_term=1)
    losses.sweep()
    assert sum(sizes_of(losses).values()) == sum(empty.values()) + 1
    view.apply([change(Kind.REPORT, place, None, 9)], 9)
    losses.sweep()
    assert sizes_of(losses) == empty


def test_of_what_asks_again_the_first_timer_is_enough() -> None:
    context = Context(View(), 1, "s1", Options())
    run = run_matter(("backup", "r1"))
    for at_s in (20.0, 30.0, 20.0, 10.0, 20.0):
        context.wake_again_at(at_s, run)
    context.it_is(0, 10.0)
    assert context.due_timers() == [run]
    context.wake_again_at(20.0, run)
    context.it_is(0, 15.0)
    context.wake_again_at(30.0, run)
    context.it_is(0, 25.0)
    assert set(context.due_timers()) == {run}
    context.wake_again_at(30.0, run)
    context.it_is(0, 30.0)
    assert context.due_timers() == [run]


def test_a_retry_goes_to_another_than_the_last_though_one_couldnt_start_it() -> None:
    """a1 is the least loaded, and couldn't start it; a2 had it last."""
    view = View()
    agents = [presence("a1", slots=8), presence("a2", slots=4), presence("a3", slots=2)]
    view.apply(
        [
            Change(
                kind=Kind.PRESENCE, ids=(each.agent,), record=each, mod_revision=5,
                create_revision=5, lease=5,
            )
            for each in agents
        ],
        5,
    )  # fmt: skip
    context = Context(view, 1, "s1", Options())

    def chosen(tried: Tried) -> str:
        entry = context.agents.choose(requirement_of(job()), "backup", tried)
        assert entry is not None
        return entry.record.agent

    everywhere = frozenset({"a1", "a2", "a3"})
    assert chosen(Tried(everywhere, frozenset({"a1"}), "a2")) == "a3"
    assert chosen(Tried(everywhere, frozenset({"a1", "a3"}), "a2")) == "a2"
    assert chosen(Tried(everywhere, everywhere, "a2")) == "a1"


def test_what_keeps_few_agents_is_said_first() -> None:
    """The others aren't meant for it."""
    view = View()
    agents = [presence(f"a{number}") for number in range(4)]
    agents += [presence("b", labels={"disk": "ssd"}, users=(), default_user="")]
    for each in agents:
        change = Change(kind=Kind.PRESENCE, ids=(each.agent,), record=each, mod_revision=5)
        view.apply([change], 5)
    words = Agents(view).why_none(requirement_of(job(require={"disk": "ssd"})))
    assert words == (
        "no agent may run it: b has no --default-user, and the job names no user; "
        "a0 (and 3 more) has no label disk, the job requires disk=ssd"
    )
