"""A history that a cluster has already when a test begins."""

from __future__ import annotations

import time

from etcsched.core.records import Attempt, Run
from etcsched.core.states import Origin, Outcome, RunState
from etcsched.core.times import utc_of
from etcsched.keyspace.codec import encode
from etcsched.keyspace.ops import Put, Txn
from tests.e2e.scene import Scene

AN_HOUR_AGO_MS = time.time_ns() // 1_000_000 - 3_600_000
PUT_AT_ONCE = 100


async def put_past_runs(scene: Scene, job: str, count: int) -> list[Run]:
    """Runs that died on an agent that is gone, one a second, from an hour ago on: what is too old
    is forgotten while the test looks at it."""
    runs = [_died(job, number) for number in range(count)]
    for start in range(0, count, PUT_AT_ONCE):
        batch = runs[start : start + PUT_AT_ONCE]
        puts = [Put(scene.keys.archive(run.job, run.id), encode(run)) for run in batch]
        await scene.etcd.txn(Txn((), tuple(puts)))
    await scene.history.check_complete()
    return runs


def _died(job: str, number: int) -> Run:
    at = utc_of(AN_HOUR_AGO_MS + 1000 * number)
    attempt = Attempt(number=1, agent="gone", token=1, assigned_at=at, outcome=Outcome.DIED)
    return Run(
        job=job,
        id=f"{at.replace('-', '').replace(':', '')}-{number:04}",
        state=RunState.DIED,
        origin=Origin.REQUEST,
        created_at=at,
        scheduled_at=at,
        attempts=(attempt,),
    )
