"""What one decision on the coming and going of agents holds, and what it rests on."""

from __future__ import annotations

import pytest

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context, Options
from etcsched.core.leader.lifecycle import MOST_AT_ONCE, LiveAgents
from etcsched.core.records import Change, Kind, Live, Presence, Record, Run
from etcsched.core.states import Lifecycle, Origin, RunState, Stage
from etcsched.core.times import ms_of
from etcsched.core.view import View
from tests.support.jobs import NOON, job


class Scene:
    """A view by hand; each record has a revision of its own."""

    def __init__(self) -> None:
        self.view = View()
        self.context = Context(self.view, 1, "s1", Options())
        self.context.it_is(ms_of(NOON), 0.0)
        self.live = LiveAgents(self.context)
        self.revision = 0

    def put(self, kind: Kind, *ids: str, record: Record | None) -> int:
        self.revision += 1
        change = Change(
            kind=kind, ids=ids, record=record, mod_revision=self.revision,
            create_revision=self.revision,
        )  # fmt: skip
        self.view.apply((change,), self.revision)
        return self.revision

    def present(self, agent: str, *, stops: bool = False, incarnation: str = "") -> int:
        presence = Presence(
            agent=agent, incarnation=incarnation or f"{agent}1", supervisor="s", slots=4, host="h",
            pid=1, since=NOON, clock=NOON, version="1", users=("app",), default_user="app",
            draining=stops,
        )  # fmt: skip
        self.live.look_at(agent)
        return self.put(Kind.PRESENCE, agent, record=presence)

    def known(self, agent: str, stage: Stage = Stage.HERE) -> int:
        live = Live(agent=agent, incarnation=f"{agent}1", stage=stage, since=NOON, term=1)
        return self.put(Kind.LIVE, agent, record=live)

    def decide(self) -> fx.ChangeLive:
        self.live.decide()
        (write,) = [e for e in self.context.effects if isinstance(e, fx.ChangeLive)]
        return write


def stages(write: fx.ChangeLive) -> dict[str, Stage | None]:
    return {c.agent: c.live.stage if c.live is not None else None for c in write.changes}


def test_the_first_rests_on_nobody_and_those_after_it_on_it() -> None:
    scene = Scene()
    first, second = scene.present("b"), scene.present("a")
    write = scene.decide()
    assert [(c.agent, c.revision, c.presence_revision) for c in write.changes] == [
        ("b", 0, first), ("a", 0, second),
    ]  # fmt: skip
    assert write.witnesses == ()  # "b" is compared already.


def test_who_comes_to_others_rests_on_one_of_them() -> None:
    scene = Scene()
    there = scene.present("a")
    scene.known("a")
    scene.present("b")
    assert scene.decide().witnesses == (("a", there),)


def test_who_goes_rests_on_one_that_stays() -> None:
    scene = Scene()
    for agent in ("a", "b", "c"):
        scene.known(agent)
    run = Run(job="j", id="r", state=RunState.ASSIGNED, origin=Origin.SCHEDULE, created_at=NOON)
    scene.put(Kind.RUN, "j", "r", record=run)
    scene.put(Kind.ASSIGNMENT, "a", "j", "r", record=run)  # So that "a" isn't done yet.
    scene.present("a", stops=True)
    scene.present("b", stops=True)
    stays = scene.present("c")
    write = scene.decide()
    assert stages(write) == {"b": Stage.DISMISSED}
    assert write.witnesses == (("c", stays),)


def test_of_all_that_go_at_once_one_is_the_last() -> None:
    scene = Scene()
    lights = scene.put(
        Kind.JOB, "lights", record=job("lights", lifecycle=Lifecycle.CLUSTER_SHUTDOWN)
    )
    for agent in ("a", "b", "c"):
        scene.known(agent)
        scene.present(agent, stops=True)
    write = scene.decide()
    assert stages(write) == {"a": Stage.DISMISSED, "b": Stage.DISMISSED, "c": Stage.LAST}
    assert [run.host for run in write.created] == ["c"]
    assert write.jobs == (("lights", lights),)


def test_one_that_returns_is_here_before_another_is_the_last() -> None:
    """A hand deleted a's presence; a put it back as it was told to stop, like b."""
    scene = Scene()
    scene.put(Kind.JOB, "lights", record=job("lights", lifecycle=Lifecycle.CLUSTER_SHUTDOWN))
    scene.known("b")
    scene.present("b", stops=True)
    scene.known("a", Stage.GONE)
    scene.present("a", stops=True)
    write = scene.decide()
    assert stages(write) == {"a": Stage.DISMISSED, "b": Stage.LAST}
    assert [run.host for run in write.created] == ["b"]


@pytest.mark.parametrize(
    ("before", "stops", "after"),
    [
        (Stage.HERE, False, None),
        (Stage.GONE, False, Stage.HERE),
        (Stage.LEAVING, False, Stage.HERE),
        (Stage.DISMISSED, False, Stage.HERE),
        (Stage.HERE, True, Stage.DISMISSED),
        (Stage.GONE, True, Stage.DISMISSED),
        (Stage.LEAVING, True, Stage.DISMISSED),
        (Stage.LAST, True, Stage.DISMISSED),
        (Stage.DISMISSED, True, None),
    ],
)
def test_one_alone_that_is_here(before: Stage, stops: bool, after: Stage | None) -> None:
    scene = Scene()
    scene.known("a", before)
    scene.present("a", stops=stops)
    if after is None:
        scene.live.decide()
        assert scene.context.effects == []
    else:
        assert stages(scene.decide()) == {"a": after}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Stage.HERE, Stage.GONE),
        (Stage.LEAVING, Stage.GONE),
        (Stage.LAST, Stage.GONE),
    ],
)
def test_one_that_isnt_here_any_more(before: Stage, after: Stage) -> None:
    scene = Scene()
    seen = scene.known("a", before)
    scene.live.look_at("a")
    (change,) = scene.decide().changes
    assert (change.revision, change.presence_revision) == (seen, 0)
    assert change.live is not None
    assert change.live.stage is after


def test_one_that_went_as_it_may_isnt_news() -> None:
    scene = Scene()
    scene.known("a", Stage.DISMISSED)
    scene.live.look_at("a")
    scene.live.decide()
    assert scene.context.effects == []


@pytest.mark.parametrize("stage", list(Stage))
def test_a_new_incarnation_has_come_whatever_became_of_the_old_one(stage: Stage) -> None:
    scene = Scene()
    seen = scene.known("a", stage)
    scene.present("a", incarnation="a2")
    (change,) = scene.decide().changes
    assert change.revision == seen
    assert change.live is not None
    assert (change.live.incarnation, change.live.stage) == ("a2", Stage.HERE)


def test_one_decision_at_a_time() -> None:
    scene = Scene()
    scene.present("a")
    scene.decide()
    scene.present("b")
    scene.decide()  # No second write.


def test_one_transaction_holds_so_much_and_no_more() -> None:
    scene = Scene()
    for number in range(2 * MOST_AT_ONCE):
        scene.present(f"a{number:02}")
    assert len(scene.decide().changes) == MOST_AT_ONCE


def test_more_runs_than_one_transaction_holds_stay_due() -> None:
    scene = Scene()
    for number in range(MOST_AT_ONCE + 5):
        name = f"j{number:02}"
        scene.put(Kind.JOB, name, record=job(name, lifecycle=Lifecycle.HOST_STARTUP))
    scene.present("a")
    write = scene.decide()
    assert len(write.created) == MOST_AT_ONCE
    (change,) = write.changes
    assert change.live is not None
    made = {run.job for run in write.created}
    assert {due.job for due in change.live.due} == {*scene.view.jobs} - made
    assert all(isinstance(run, Run) and run.host == "a" for run in write.created)
