"""The view's indexes say what its runs say, whatever came and went."""

from __future__ import annotations

import random

import pytest

from etcsched.core.records import Change, Kind, Run
from etcsched.core.states import Origin, RunState
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
