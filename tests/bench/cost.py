"""What a run costs in processor time, and that this depends on nothing but the run."""

from __future__ import annotations

from tests.bench.bed import Bed
from tests.bench.effort import Effort
from tests.bench.processes import cpu_s
from tests.bench.results import Limit, Row
from tests.bench.scale import idle_jobs
from tests.bench.throughput import TRUE, run_all
from tests.support.command_lines import processes_naming

TIMES = 10


async def cost(bed: Bed, effort: Effort) -> list[Row]:
    """Of all daemons and etcd together. Jobs, history and agents become many times as many, one
    after another; each time the same number of runs is measured."""
    count = effort.cost_runs
    await bed.add_schedulers(1)
    await bed.add_agents(1, slots=count)
    await bed.wait_ready()
    await run_all(bed, "warm-up", TRUE, count // TIMES)
    small = await _ms_a_run(bed, "small", count)
    beside = Limit(text="in the small cluster", value=small)
    rows = [_row("a small cluster: 1 agent, little history", small, None)]

    jobs = TIMES * count
    await bed.load(idle_jobs(jobs))
    rows.append(_row(f"with {jobs:,} other jobs", await _ms_a_run(bed, "jobs", count), beside))

    for turn in range(effort.cost_turns):
        await run_all(bed, f"filling-{turn}", TRUE, count)
    archived = await bed.archived_count("")
    cost_ms = await _ms_a_run(bed, "long", count)
    rows.append(_row(f"with {archived:,} runs in the archive, too", cost_ms, beside))

    await bed.add_agents(TIMES, slots=count, first=2)
    await bed.wait_ready()
    cost_ms = await _ms_a_run(bed, "agents", count)
    rows.append(_row(f"with {TIMES} more agents, too", cost_ms, beside))
    return rows


def _row(where: str, cost_ms: float, limit: Limit | None) -> Row:
    return Row(
        group="cost",
        measure=f"processor time of a run of /bin/true, {where}",
        value=cost_ms,
        unit="ms",
        limit=limit,
        note="scheduler, agents, supervisors and etcd together",
    )


async def _ms_a_run(bed: Bed, label: str, count: int) -> float:
    daemons = processes_naming(bed.directory)
    before_s = {pid: cpu_s(pid) for pid in daemons}
    await run_all(bed, label, TRUE, count)
    return 1000 * sum(cpu_s(pid) - before_s[pid] for pid in daemons) / count
