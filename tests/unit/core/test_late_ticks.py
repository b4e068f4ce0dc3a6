"""What a late tick becomes beside its job's active runs (docs/adr/0004)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from etcsched.core.leader.outage_records import late_state
from etcsched.core.records import Attempt, Run
from etcsched.core.states import Origin, Outcome, Overlap, RunState
from etcsched.core.times import Utc, ms_of
from etcsched.core.view import View
from tests.support.jobs import NOON, job

TICK_MS = ms_of(NOON)
AT_ONCE = Utc("2026-11-22T11:59:00.005Z")

BEFORE = Run(
    job="backup",
    id="20261122T115900Z",
    state=RunState.ASSIGNED,
    origin=Origin.SCHEDULE,
    created_at=Utc("2026-11-22T11:59:00.004Z"),
    scheduled_at=Utc("2026-11-22T11:59:00.000Z"),
)
WAITS = replace(BEFORE, state=RunState.READY)
LOST = Attempt(number=1, agent="a1", token=1, assigned_at=AT_ONCE, outcome=Outcome.DIED)
BEGUN = replace(BEFORE, attempts=(LOST,))
BEGUN_LATER = replace(BEFORE, attempts=(replace(LOST, claimed_at=Utc("2026-11-22T12:00:01.000Z")),))
BORN_LATE = replace(BEGUN, created_at=Utc("2026-11-22T12:00:10.000Z"))
QUEUED = replace(BORN_LATE, state=RunState.QUEUED)
TRIGGERED = replace(BEGUN, scheduled_at=None, origin=Origin.REQUEST)
RESUBMITTED = replace(BEGUN, origin=Origin.RESUBMISSION)
RECOVERED = replace(BEGUN, origin=Origin.RECOVERY)

SKIP, QUEUE, ALLOW = Overlap.SKIP, Overlap.QUEUE, Overlap.ALLOW


@pytest.mark.parametrize(
    ("overlap", "active", "state"),
    [
        (SKIP, [], RunState.READY),
        (SKIP, [BEFORE], RunState.QUEUED),
        (SKIP, [WAITS], RunState.QUEUED),
        (SKIP, [BEGUN], RunState.OVERLAPPED),
        (SKIP, [BEGUN_LATER], RunState.QUEUED),
        (SKIP, [RESUBMITTED], RunState.QUEUED),
        (SKIP, [TRIGGERED], RunState.OVERLAPPED),
        (SKIP, [BORN_LATE], RunState.QUEUED),
        (SKIP, [BORN_LATE, BEGUN], RunState.OVERLAPPED),
        (SKIP, [QUEUED], RunState.QUEUED),
        (QUEUE, [], RunState.READY),
        (QUEUE, [BEGUN], RunState.QUEUED),
        (ALLOW, [BEGUN], RunState.READY),
        (ALLOW, [RECOVERED], RunState.QUEUED),
        (ALLOW, [QUEUED], RunState.QUEUED),
    ],
)
def test_late_state(overlap: Overlap, active: list[Run], state: RunState) -> None:
    assert late_state(View(), job(overlap=overlap), TICK_MS, active, is_catching_up=False) is state


def test_a_job_that_catches_up_queues_its_late_ticks() -> None:
    assert (
        late_state(View(), job(overlap=SKIP), TICK_MS, [], is_catching_up=True) is RunState.QUEUED
    )
