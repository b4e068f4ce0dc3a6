"""The view's indexes say what its runs say, whatever came and went."""

from __future__ import annotations

import random

import msgspec
import pytest

from etcsched.core.records import Assignment, Change, Kind, Noop, Run, StartSeen
from etcsched.core.states import OnDisconnect, Origin, RunState
from etcsched.core.times import utc_of
from etcsched.core.view import View, job_of, queue_place

STATES = [RunState.READY, RunState.QUEUED, RunState.RETRYING, RunState.ASSIGNED]


def a_run(chance: random.Random, job: str, run: str) -> Run:
    number = int(run.partition("@")[0])
    origin = list(Origin)[number % len(Origin)]
    return Run(
        job=job,
        id=run,
        state=chance.choice(STATES),
        origin=origin,
        created_at=utc_of(0),
        # A run's tick and its original stay what they are.
        scheduled_at=None if origin is Origin.REQUEST else utc_of(1000 * (number % 4)),
        resubmits="0" if origin is Origin.RESUBMISSION else "",
        resubmits_first=str(number % 2) if origin is Origin.RESUBMISSION else "",
    )


@pytest.mark.parametrize("seed", range(20))
def test_indexes(seed: int) -> None:
    chance = random.Random(seed)
    view = View()
    for revision in range(1, 200):
        job, run = chance.choice("ab"), str(chance.randrange(10))
        run += chance.choice(["", "", "@h1", "@h2"])
        record = a_run(chance, job, run) if chance.random() < 0.7 else None
        view.apply([Change(Kind.RUN, (job, run), record, revision)], revision)
        for name in "ab":
            check(view, name)


def check(view: View, job: str) -> None:
    runs = [entry.record for key, entry in view.runs.items() if key[0] == job]
    for lane in (job, f"{job}@h1", f"{job}@h2"):
        check_lane(view, lane, runs)
    assert set(view.bound_of.get(job, ())) == {run.id for run in runs if run.host}
    for host in ("h1", "h2"):
        bound = {key for key in view.bound_to.get(host, ()) if key[0] == job}
        assert bound == {(job, run.id) for run in runs if run.host == host}
    for root in ("0", "1"):
        assert set(view.resubmissions_of.get((job, root), ())) == {
            run.id for run in runs if run.resubmits and run.root == root
        }


@pytest.mark.parametrize("seed", range(5))
def test_slots_taken(seed: int) -> None:
    """Run and assignment come in any order."""
    chance, view = random.Random(seed), View()
    for revision in range(1, 200):
        agent, run = chance.choice(["a1", "a2"]), str(chance.randrange(4))
        record: Run | Assignment | None
        if chance.random() < 0.5:
            state = chance.choice([RunState.HELD, RunState.ASSIGNED])
            record = msgspec.structs.replace(a_run(chance, "a", run), state=state, agent=agent)
            change = Change(Kind.RUN, ("a", run), record, revision)
        else:
            record = Assignment(
                job="a", run=run, agent=agent, incarnation="i", attempt=1, action=Noop(),
                seen=StartSeen(job=1), assigned_at=utc_of(0), term=1,
                on_disconnect=chance.choice(list(OnDisconnect)),
            )  # fmt: skip
            change = Change(Kind.ASSIGNMENT, (agent, "a", run), record, revision)
        if chance.random() < 0.3:
            change = msgspec.structs.replace(change, record=None)
        view.apply([change], revision)
        for name in ("a1", "a2"):
            assert view.slots_taken(name) == sum(
                agent == name and takes_slot(view, entry.record)
                for (agent, _, _), entry in view.assignments.items()
            )


def takes_slot(view: View, assignment: Assignment) -> bool:
    entry, agent = view.runs.get(("a", assignment.run)), assignment.agent
    is_held = entry is not None and (entry.record.state, entry.record.agent) == (
        RunState.HELD,
        agent,
    )
    return not is_held or assignment.on_disconnect is OnDisconnect.CONTINUE


def test_ticks_go_before_resubmissions() -> None:
    def place(origin: Origin, second: int) -> tuple[bool, str, str]:
        return queue_place(
            Run(
                job="j",
                id="r",
                state=RunState.QUEUED,
                origin=origin,
                created_at=utc_of(0),
                scheduled_at=utc_of(1000 * second),
            )
        )

    assert place(Origin.SCHEDULE, 9) < place(Origin.RESUBMISSION, 1)
    assert place(Origin.RECOVERY, 1) < place(Origin.SCHEDULE, 9)


def check_lane(view: View, lane: str, of_job: list[Run]) -> None:
    runs = [run for run in of_job if run.lane == lane]
    queued = [run for run in runs if run.state is RunState.QUEUED]
    assert view.queued_of.get(lane, []) == sorted(map(queue_place, queued))
    assert set(view.retrying_of.get(lane, ())) == {
        run.id for run in runs if run.state is RunState.RETRYING
    }
    assert set(view.recovering_of.get(lane, ())) == {
        run.id for run in runs if run.origin is Origin.RECOVERY
    }
    # What isn't bound waits for what is, too.
    active = of_job if lane == job_of(lane) else runs
    waiting = (RunState.QUEUED, RunState.RETRYING)
    assert view.has_unqueued(lane) is any(run.state not in waiting for run in active)
