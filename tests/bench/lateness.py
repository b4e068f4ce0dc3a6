"""How late processes start.

Ticks are whole seconds, so twenty a second can't be spread over the second: twenty at each second
are a burst, measured as that. What can be due at any instant is a request. So three rows: requests,
evenly spread; one tick a second, alone; twenty at once.
"""

from __future__ import annotations

import asyncio

from etcsched.core.records import Kind, RequestKind, Run
from etcsched.core.schedule import Every
from etcsched.core.times import ms_of, utc_of
from tests.bench import limits
from tests.bench.bed import Bed, job_of, next_second_ms, now_ms, pass_until
from tests.bench.effort import Effort
from tests.bench.results import Limit, Row, at_most, percentile
from tests.bench.throughput import LEAD_S, TRUE

PER_S = 20
WARM_UP_S = 1
P50_MS = 5.0
P99_MS = 25.0


async def lateness(bed: Bed, effort: Effort) -> list[Row]:
    await bed.add_schedulers(1)
    await bed.add_agents(1, slots=100)
    await bed.wait_ready()
    bare = await limits.measure("starts", 100, bed.endpoint)
    spread = await _requests(bed, effort.lateness_s)
    single = await _ticks(bed, "single", 1, effort.single_s)
    together = await _ticks(bed, "together", PER_S, effort.lateness_s)
    bare += await limits.measure("starts", 100, bed.endpoint)
    return [
        *_rows(f"{PER_S} requests/s spread over the second, to process start", spread, bare, True),
        *_rows("one tick each second, due to process start", single, bare, True),
        *_rows(f"{PER_S} ticks at each second, due to process start", together, bare, False),
    ]


def _rows(
    measure: str, samples_ms: list[float], bare_ms: list[float], has_target: bool
) -> list[Row]:
    return [
        Row(
            group="lateness",
            measure=f"{measure}: p{percent}",
            value=percentile(samples_ms, percent),
            unit="ms",
            samples=tuple(samples_ms) if percent == 50 else (),
            limit=Limit(
                text="two bare commits and a spawn",
                value=percentile(bare_ms, percent),
                samples=tuple(bare_ms) if percent == 50 else (),
            ),
            target=at_most(target_ms) if has_target else None,
            note=f"{len(samples_ms)} samples" if percent == 50 else "",
        )
        for percent, target_ms in ((50, P50_MS), (99, P99_MS))
    ]


async def _requests(bed: Bed, seconds: int) -> list[float]:
    """From the time in the request, taken before it is sent, to its run's process."""
    job = "requested"
    await bed.load([job_of(job, TRUE)])
    begin_ms = next_second_ms(LEAD_S)
    count = PER_S * (WARM_UP_S + seconds)
    requests: list[tuple[int, asyncio.Task[str]]] = []
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            await pass_until(begin_ms + number * 1000 // PER_S)
            at_ms = now_ms()
            work = bed.request(RequestKind.TRIGGER, job, at_ms=at_ms)
            requests.append((at_ms, tasks.create_task(work)))
    runs = {run.id: run for run in await _all_over(bed, job, count)}
    measured = requests[PER_S * WARM_UP_S :]
    return [float(_start_ms(runs[task.result()]) - at_ms) for at_ms, task in measured]


async def _ticks(bed: Bed, label: str, jobs: int, seconds: int) -> list[float]:
    """Of ``jobs`` that are all due each second."""
    begin_ms = next_second_ms(LEAD_S)
    every = Every(1, utc_of(begin_ms))
    names = [f"{label}-{number}" for number in range(jobs)]
    await bed.load(job_of(name, TRUE, every) for name in names)
    end_ms = begin_ms + 1000 * (WARM_UP_S + seconds)
    await pass_until(end_ms)
    await bed.load(job_of(name, TRUE) for name in names)
    samples: list[float] = []
    for name in names:
        runs = await _all_over(bed, name, WARM_UP_S + seconds - 1)
        due = ((ms_of(run.scheduled_at), run) for run in runs if run.scheduled_at is not None)
        samples += [
            float(_start_ms(run) - due_ms)
            for due_ms, run in due
            if begin_ms + 1000 * WARM_UP_S < due_ms < end_ms
        ]
    return samples


def _start_ms(run: Run) -> int:
    """By the supervisor's clock, once the spawn has returned."""
    (attempt,) = run.attempts
    assert attempt.started_at is not None
    return ms_of(attempt.started_at)


async def _all_over(bed: Bed, job: str, least: int) -> list[Run]:
    async def are_over() -> bool:
        active = await bed.count(*bed.keys.all_of(Kind.RUN, job))
        return active == 0 and await bed.archived_count(f"{job}/") >= least

    await bed.until(are_over)
    return await bed.archived(f"{job}/")
