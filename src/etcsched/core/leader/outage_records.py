"""What the runs and records of an outage are, purely: for who decides it and who previews it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from etcsched.core.leader import recovery
from etcsched.core.leader.buffers import buffer_end_ms
from etcsched.core.leader.overlap import had_begun
from etcsched.core.leader.runs import Author, tick_run
from etcsched.core.records import Job, Run
from etcsched.core.splay import longest_delay_ms
from etcsched.core.states import Origin, Overlap, RunState
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.core.view import Entry, View

BORN_LATE_MS = 1_000
"""A tick's run that was created so long after its time came out of an outage."""


def records_of(
    view: View, author: Author, job: Job, part: recovery.Step, active: Sequence[Run]
) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """The runs to create, and the records of ticks that don't run. ``active`` are the job's."""
    created: list[Run] = []
    archived: list[Run] = []
    if job.per_host:
        part = replace(part, chosen=(), late=())  # They are fan-outs.
    for tick_ms in part.chosen:
        cause = "recovered: missed in an outage"
        created.append(tick_run(author, job, tick_ms, RunState.QUEUED, cause, Origin.RECOVERY))
    for tick_ms in part.late:
        beside = [*active, *created]
        state = late_state(view, job, tick_ms, beside, is_catching_up=bool(part.chosen))
        cause = "late after an outage"
        if state is RunState.OVERLAPPED:
            archived.append(tick_run(author, job, tick_ms, state, cause))
        else:
            created.append(tick_run(author, job, tick_ms, state, cause))
    for stretch in part.missed:
        run = tick_run(
            author, job, stretch.first_ms, RunState.MISSED, "missed in an outage",
            missed_count=stretch.count,
            missed_through=utc_of(stretch.last_ms) if stretch.count > 1 else None,
            missed_steps=stretch.steps,
        )  # fmt: skip
        archived.append(run)
    return tuple(created), tuple(archived)


def belonging_runs(
    view: View, job: Job, now_ms: int, chosen: Collection[int] = (), *, is_followed: bool = False
) -> list[tuple[Entry[Run], bool]]:
    """Runs that were ready as the outage began and whose buffer ended in it are ticks of it, the
    oldest; with each, whether it runs now. ``chosen``: the outage's other ticks that run though
    missed; ``is_followed``: one of them is late only, and runs in the ordinary way."""
    oldest_ms = now_ms - int(job.recover_within_s * 1000)
    belonging: list[tuple[Entry[Run], Utc]] = []
    latest: Utc | None = None
    for run_id in sorted(view.runs_of_job.get(job.name, ())):
        run = view.runs[(job.name, run_id)]
        at = run.record.scheduled_at
        if at is None or not run.record.is_tick or run.record.host:
            continue  # (One that is bound to an agent waits for that alone.)
        latest = at if latest is None else max(latest, at)
        end_ms = buffer_end_ms(run.record, job)
        if end_ms is not None and end_ms <= now_ms:
            belonging.append((run, at))
    run_anyway = set(chosen)
    for run_id in view.recovering_of.get(job.name, ()):
        if (at := view.runs[(job.name, run_id)].record.scheduled_at) is not None:
            run_anyway.add(ms_of(at))
    found = []
    for run, at in sorted(belonging, key=lambda each: each[1], reverse=True):
        newer = sum(tick_ms > ms_of(at) for tick_ms in run_anyway)
        runs = recovery.is_chosen(
            job, newer,
            is_latest=at == latest and not newer and not is_followed,
            is_recent=ms_of(at) >= oldest_ms,
        )  # fmt: skip
        if runs:
            run_anyway.add(ms_of(at))
        found.append((run, runs))
    return found[::-1]


def is_bound_chosen(view: View, job: Job, run: Run, now_ms: int) -> bool:
    """Whether a tick's run that is bound to an agent, whose buffer ended in an outage, runs now. It
    goes by the mode, among the job's ticks on this agent, which are all decided."""
    at, later, newer = run.scheduled_at or run.created_at, False, 0
    for run_id in view.ids_of(run.lane):
        other = view.runs[(run.job, run_id)].record
        if not other.is_tick or other.due_at <= at:
            continue
        end_ms, later = buffer_end_ms(other, job), True
        newer += other.origin is Origin.RECOVERY or (end_ms is not None and end_ms <= now_ms)
    for (name, tick), entry in view.fan_outs.items():
        is_later = name == run.job and entry.record.scheduled_at > at
        if is_later and run.host in entry.record.agents:
            is_made = (name, f"{tick}@{run.host}") in view.runs
            later = True
            newer += entry.record.origin is Origin.RECOVERY and not is_made
    is_recent = ms_of(at) >= now_ms - int(job.recover_within_s * 1000)
    return recovery.is_chosen(job, newer, is_latest=not later, is_recent=is_recent)


def buffer_ms(job: Job) -> int:
    """From a tick on: the buffer begins when its splay is over."""
    return int(job.pickup_buffer_s * 1000) + longest_delay_ms(job)


def late_state(
    view: View, job: Job, tick_ms: int, active: Sequence[Run], *, is_catching_up: bool
) -> RunState:
    """What a late tick becomes beside its job's active runs. Late ticks run one after the other:
    that they came at once is no fault of the job's."""
    is_behind = any(r.state is RunState.QUEUED or r.origin is Origin.RECOVERY for r in active)
    if is_catching_up or is_behind:
        return RunState.QUEUED
    if job.overlap is Overlap.ALLOW or not active:
        return RunState.READY
    others = (run for run in active if run.origin is not Origin.RESUBMISSION)  # They overlap none.
    overlaps = any(had_begun(view, run, tick_ms) for run in others if not was_born_late(run))
    if overlaps and job.overlap is Overlap.SKIP:
        return RunState.OVERLAPPED
    return RunState.QUEUED


def was_born_late(run: Run) -> bool:
    """Whether a run is a late tick's, of this outage or of one just before."""
    if run.scheduled_at is None or not run.is_tick:
        return False
    return ms_of(run.created_at) - ms_of(run.scheduled_at) > BORN_LATE_MS
