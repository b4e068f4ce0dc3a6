"""What a late tick becomes beside its job's active runs (docs/adr/0004)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from etcsched.core.leader.outage_records import late_state
from etcsched.core.records import Run
from etcsched.core.states import Origin, Overlap, RunState
from etcsched.core.times import Utc
from tests.support.jobs import job

BEFORE = Run(
    job="backup",
    id="20261122T115900Z",
    state=RunState.ASSIGNED,
    origin=Origin.SCHEDULE,
    created_at=Utc("2026-11-22T11:59:00.004Z"),
    scheduled_at=Utc("2026-11-22T11:59:00.000Z"),
)
BORN_LATE = replace(BEFORE, created_at=Utc("2026-11-22T12:00:10.000Z"))
QUEUED = replace(BORN_LATE, state=RunState.QUEUED)
TRIGGERED = replace(BEFORE, scheduled_at=None, origin=Origin.REQUEST)

SKIP, QUEUE, ALLOW = Overlap.SKIP, Overlap.QUEUE, Overlap.ALLOW


@pytest.mark.parametrize(
    ("overlap", "active", "state"),
    [
        (SKIP, [], RunState.READY),
        (SKIP, [BEFORE], RunState.OVERLAPPED),
        (SKIP, [TRIGGERED], RunState.OVERLAPPED),
        (SKIP, [BORN_LATE], RunState.QUEUED),
        (SKIP, [BORN_LATE, BEFORE], RunState.OVERLAPPED),
        (SKIP, [QUEUED], RunState.QUEUED),
        (QUEUE, [], RunState.READY),
        (QUEUE, [BEFORE], RunState.QUEUED),
        (ALLOW, [BEFORE], RunState.READY),
        (ALLOW, [QUEUED], RunState.QUEUED),
    ],
)
def test_late_state(overlap: Overlap, active: list[Run], state: RunState) -> None:
    assert late_state(job(overlap=overlap), active, is_catching_up=False) is state


def test_a_job_that_catches_up_queues_its_late_ticks() -> None:
    assert late_state(job(overlap=SKIP), [], is_catching_up=True) is RunState.QUEUED
