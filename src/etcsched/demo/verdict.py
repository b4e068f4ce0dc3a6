"""What became of every tick: judged from etcd's events and from what the jobs themselves wrote.

Shares no decision code with the scheduler: due times come from croniter alone, applied to the job
files' expressions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec
from croniter import croniter

from etcsched.core.records import Run
from etcsched.demo.witness import Execution, overlaps


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """``lost``: due ticks that no execution completed. ``doubled``: runs of which more than one
    execution completed, or two overlapped, or that etcd saw created or ended twice."""

    due: int
    completed: int
    reassigned: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    worst_lateness_s: float
    complaints: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.complaints) and self.due > 0


def due_ticks(expression: str, after_s: float, through_s: float) -> list[str]:
    """Run ids of the due times in (after, through]; six fields, seconds first, UTC."""
    fields = expression.split()
    moved = " ".join((*fields[1:], fields[0])) if len(fields) == 6 else expression
    ticks: list[str] = []
    base = datetime.fromtimestamp(int(after_s), UTC)
    for moment in croniter(moved, base, ret_type=datetime):
        if moment.timestamp() > through_s:
            return ticks
        ticks.append(moment.strftime("%Y%m%dT%H%M%SZ"))
    return ticks


def judge(
    schedules: Mapping[str, str],
    after_s: float,
    through_s: float,
    stopped_s: float,
    archived: Iterable[tuple[Run, int]],
    done: list[Execution],
) -> Verdict:
    """Ticks in (after, through] are due. Those in (through, stopped] may have become runs before
    the schedules were stopped; after that, none may.

    ``archived`` is every run that etcd's events showed entering the archive, with how often it
    did so; ``done`` what the jobs wrote.
    """
    due = {
        (job, tick)
        for job, cron in schedules.items()
        for tick in due_ticks(cron, after_s, through_s)
    }
    runs: dict[tuple[str, str], Run] = {}
    entries: Counter[tuple[str, str]] = Counter()
    for run, times in archived:
        runs[(run.job, run.id)] = run
        entries[(run.job, run.id)] += times
    completions = Counter((e.job, e.run) for e in done if e.end_s is not None)
    complaints: list[str] = []
    for key in sorted(due):
        record = runs.get(key)
        if record is None:
            complaints.append(f"{'/'.join(key)}: due, but etcd has no record of it")
        elif (record.state.value == "completed") != (completions[key] > 0):
            complaints.append(
                f"{'/'.join(key)}: etcd says {record.state.value}, "
                f"its processes completed {completions[key]} times"
            )
    late = {
        (job, tick)
        for job, cron in schedules.items()
        for tick in due_ticks(cron, through_s, stopped_s)
    }
    complaints += [f"{'/'.join(key)}: wasn't due" for key in sorted(runs.keys() - due - late)]
    doubled = {key for key, times in completions.items() if times > 1}
    doubled |= {key for key, times in entries.items() if times > 1}
    doubled |= {(first.job, first.run) for first, _ in overlaps(done)}
    return Verdict(
        due=len(due),
        completed=sum(1 for key in due if completions[key]),
        reassigned=sum(run.reassigns for run in runs.values()),
        lost=tuple("/".join(key) for key in sorted(due) if not completions[key]),
        doubled=tuple("/".join(key) for key in sorted(doubled)),
        worst_lateness_s=_worst_lateness_s(done, due),
        complaints=tuple(complaints),
    )


def _worst_lateness_s(done: list[Execution], due: set[tuple[str, str]]) -> float:
    first: dict[tuple[str, str], float] = {}
    for execution in done:
        key = (execution.job, execution.run)
        if key in due:
            first[key] = min(execution.start_s, first.get(key, execution.start_s))
    return max((at_s - _tick_s(run) for (_, run), at_s in first.items()), default=0.0)


def _tick_s(run: str) -> float:
    return datetime.strptime(run, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
