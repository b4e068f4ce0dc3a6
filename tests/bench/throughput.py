"""How many runs go through the whole cluster: of processes, of nothing at all, and in a burst."""

from __future__ import annotations

import asyncio
import statistics
import time

from etcsched.core.records import Action, Exec, Noop
from etcsched.core.schedule import At
from etcsched.core.times import ms_of, utc_of
from tests.bench import limits
from tests.bench.bed import PATIENCE_S, POLL_S, Bed, job_of, next_second_ms, now_ms, pass_until
from tests.bench.effort import BURST, Effort
from tests.bench.results import Row, Subject, at_least, at_most, limit_of

LEAD_S = 1.0
"""Between the last definition's arrival in etcd and the instant at which all are due."""

MOST_POLL_S = 0.25

TRUE = Exec(argv=("/bin/true",))
PROCESS_AGENTS = 1
NOOP_AGENTS = 10


async def processes(bed: Bed, effort: Effort) -> list[Row]:
    await bed.add_schedulers(1)
    await bed.add_agents(PROCESS_AGENTS, slots=effort.process_runs)
    await bed.wait_ready()
    await _runs_per_s(bed, "warm-up", TRUE, 100)
    ours: list[float] = []
    bare = await limits.measure("spawns", effort.process_runs)
    for turn in range(effort.turns):
        ours.append(await _runs_per_s(bed, f"turn-{turn}", TRUE, effort.process_runs))
        bare += await limits.measure("spawns", effort.process_runs)
    return [
        Row(
            group="processes",
            measure="completed runs of /bin/true",
            value=statistics.median(ours),
            unit="/s",
            samples=tuple(ours),
            limit=limit_of("bare asyncio spawns", bare),
            target=at_least(0.6, Subject.RATIO),
            note=f"{effort.process_runs:,} ticks due at once, until all are archived; one agent",
        )
    ]


async def control(bed: Bed, effort: Effort) -> list[Row]:
    await bed.add_schedulers(1)
    await bed.add_agents(NOOP_AGENTS, slots=effort.noop_runs)
    await bed.wait_ready()
    await _runs_per_s(bed, "warm-up", Noop(), 500)
    ours: list[float] = []
    bare = await limits.measure("transactions", effort.noop_runs, bed.endpoint)
    for turn in range(effort.turns):
        ours.append(await _runs_per_s(bed, f"turn-{turn}", Noop(), effort.noop_runs))
        bare += await limits.measure("transactions", effort.noop_runs, bed.endpoint)
    return [
        Row(
            group="control",
            measure="completed runs of a no-op executor",
            value=statistics.median(ours),
            unit="/s",
            samples=tuple(ours),
            limit=limit_of("a bare client with the same four transactions", bare),
            target=at_least(0.5, Subject.RATIO),
            note=f"{NOOP_AGENTS} agents, {effort.noop_runs:,} ticks due at once",
        )
    ]


async def burst(bed: Bed, effort: Effort) -> list[Row]:
    await bed.add_schedulers(1)
    await bed.add_agents(PROCESS_AGENTS, slots=BURST)
    await bed.wait_ready()
    await _runs_per_s(bed, "warm-up", TRUE, BURST)
    ours: list[float] = []
    bare = await limits.measure("burst", BURST)
    for turn in range(effort.burst_turns):
        ours.append(await _last_start_ms(bed, f"turn-{turn}"))
        bare += await limits.measure("burst", BURST)
    return [
        Row(
            group="burst",
            measure=f"{BURST} ticks due at one instant, to the last process started",
            value=statistics.median(ours),
            unit="ms",
            samples=tuple(ours),
            limit=limit_of(f"bare spawning of {BURST}", bare),
            target=at_most(1.5, Subject.RATIO),
            note="one agent; by the supervisor's times in the archive",
        )
    ]


async def run_all(bed: Bed, label: str, action: Action, count: int) -> int:
    """So many jobs, all due once at the same second, until all are archived; that second."""
    due_ms = next_second_ms(LEAD_S + count / 10_000)
    at = At(utc_of(due_ms))
    await bed.load(job_of(f"{label}-{number}", action, at) for number in range(count))
    if due_ms - now_ms() < 1000 * LEAD_S / 2:
        raise RuntimeError(f"loading {count} jobs took until shortly before they were due")
    await pass_until(due_ms)
    async with asyncio.timeout(PATIENCE_S):
        while (done := await bed.archived_count(f"{label}-")) < count:
            # Counting costs etcd time that it needs for the runs: it is asked seldom while most
            # are still to come, and every 10 ms towards the end.
            passed_s = now_ms() / 1000 - due_ms / 1000
            left_s = passed_s * (count - done) / done if done else 0.0
            await asyncio.sleep(min(max(left_s / 2, POLL_S), MOST_POLL_S))
    return due_ms


async def _runs_per_s(bed: Bed, label: str, action: Action, count: int) -> float:
    due_ms = await run_all(bed, label, action, count)
    return count / (time.time() - due_ms / 1000)


async def _last_start_ms(bed: Bed, label: str) -> float:
    due_ms = await run_all(bed, label, TRUE, BURST)
    started = [
        attempt.started_at for run in await bed.archived(f"{label}-") for attempt in run.attempts
    ]
    assert len(started) == BURST, f"{len(started)} attempts of {BURST} runs"
    return float(max(ms_of(at) for at in started if at is not None) - due_ms)
