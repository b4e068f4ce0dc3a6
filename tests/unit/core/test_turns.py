"""Who waits while another run of its job is just being assigned."""

from __future__ import annotations

import math

import pytest

from etcsched.core.leader import effects as fx
from etcsched.core.leader.context import Context, Options
from etcsched.core.leader.loss import Losses
from etcsched.core.leader.matters import turn_matter
from etcsched.core.leader.open_ticks import OpenTicks
from etcsched.core.leader.run_decider import RunDecider
from etcsched.core.records import Change, Kind, Run
from etcsched.core.states import Origin, Overlap, RunState
from etcsched.core.times import ms_of
from etcsched.core.view import View
from tests.support.jobs import NOON, job


@pytest.mark.parametrize(
    ("overlap", "origin", "waits"),
    [
        (Overlap.SKIP, Origin.SCHEDULE, True),
        (Overlap.QUEUE, Origin.RECOVERY, True),
        (Overlap.ALLOW, Origin.SCHEDULE, False),
        (Overlap.ALLOW, Origin.RECOVERY, True),
    ],
)
def test_a_due_retry(overlap: Overlap, origin: Origin, waits: bool) -> None:
    view = View()
    record = job("backup", overlap=overlap)
    run = Run(job="backup", id="1", state=RunState.RETRYING, origin=origin, created_at=NOON)
    view.apply(
        [Change(Kind.JOB, ("backup",), record, 1), Change(Kind.RUN, ("backup", "1"), run, 2)], 2
    )
    context = Context(view, 1, "s1", Options())
    context.it_is(ms_of(NOON), 0.0)
    runs = RunDecider(context, Losses(context, 0, -math.inf), OpenTicks(), ms_of(NOON))
    write = fx.ForgetAnswer(seq=context.next_seq(), request="any", revision=1)
    context.write(write, turn_matter("backup"))
    found = runs.retrying.held_up_by(run)
    assert found == ("another run of its job is just being assigned" if waits else None)
