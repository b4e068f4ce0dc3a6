"""What an outage's end would bring now, job by job: the recovery's own plan, looked at."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from etcsched.core.leader import recovery
from etcsched.core.leader.context import Context
from etcsched.core.leader.outage_records import belonging_runs, records_of
from etcsched.core.leader.runs import Author
from etcsched.core.records import Job, fan_out_in
from etcsched.core.states import Recovery, RunState
from etcsched.core.times import Utc, ms_of, tick_id, utc_of
from etcsched.core.view import View

MOST_STEPS = 40
"""Of a plan that are looked at; each is up to 5,000 ticks."""


class JobPreview(msgspec.Struct, frozen=True, kw_only=True):
    """``late`` ticks run in the ordinary way (``overlapped`` ones don't, beside what is active),
    ``recovered`` ones by the mode, oldest first; ``missed`` counts the others. ``waiting`` are runs
    that were there as the outage began: each with whether it runs. ``is_whole`` False: the
    outage has more ticks than were looked at."""

    job: str
    mode: Recovery
    since: Utc
    reason: str
    per_host: bool = False
    late: tuple[Utc, ...] = ()
    overlapped: tuple[Utc, ...] = ()
    recovered: tuple[Utc, ...] = ()
    missed: int = 0
    missed_first: Utc | None = None
    missed_last: Utc | None = None
    waiting: tuple[tuple[str, bool], ...] = ()
    note: str = ""
    is_whole: bool = True


def outage_begin_ms(view: View, job: Job, has_leader: bool) -> int | None:
    """Through when the job's ticks are decided, if it has an outage now; None: it has none."""
    gap = view.gaps.get(job.name)
    if gap is not None and not gap.record.closed:
        return ms_of(gap.record.decided_through)
    if has_leader:
        return None
    through_ms = ms_of(view.watermark.record.through) if view.watermark is not None else 0
    if view.watermark is None:
        through_ms = ms_of(job.versions[0].since) - 1
    return max(through_ms, ms_of(gap.record.decided_through) if gap is not None else 0)


def preview(
    view: View, context: Context, job: Job, begin_ms: int, decided: Collection[str]
) -> JobPreview:
    """If the outage ended at the context's time. ``decided`` are ids of ticks that somebody has
    decided beyond ``begin_ms`` (those with runs in the view needn't be among them)."""
    now_ms, gap = context.wall_ms, view.gaps.get(job.name)
    limits, can_start = view.limits_of(job), context.can_start(job)
    plan = recovery.plan(job, limits, begin_ms, now_ms, can_start)
    is_open = gap is not None and not gap.record.closed
    late: list[Utc] = []
    overlapped: list[Utc] = []
    recovered: list[Utc] = []
    stretches: list[recovery.Stretch] = []
    active = list(view.active_runs(job.name))
    author, after_ms, steps = Author(0, context.now), begin_ms, 0
    while after_ms < plan.through_ms and steps < MOST_STEPS:
        part, steps = recovery.next_step(job, limits, plan, after_ms), steps + 1
        part = _without(part, job, view, decided)
        created, archived = records_of(view, author, job, part, active)
        active += created
        recovered += [utc_of(ms) for ms in part.chosen]
        dropped = {r.scheduled_at for r in archived if r.state is RunState.OVERLAPPED}
        overlapped += [at for ms in part.late if (at := utc_of(ms)) in dropped]
        late += [at for ms in part.late if (at := utc_of(ms)) not in dropped]
        stretches += part.missed
        after_ms = part.through_ms
    is_followed = bool(late or overlapped)
    belonging = belonging_runs(view, job, now_ms, plan.chosen, is_followed=is_followed)
    return JobPreview(
        job=job.name,
        mode=job.recovery,
        since=gap.record.since if gap is not None and is_open else utc_of(begin_ms),
        reason=gap.record.reason if gap is not None and is_open else "nobody leads",
        per_host=job.per_host,
        late=tuple(late),
        overlapped=tuple(overlapped),
        recovered=tuple(recovered),
        missed=sum(stretch.count for stretch in stretches),
        missed_first=utc_of(stretches[0].first_ms) if stretches else None,
        missed_last=utc_of(stretches[-1].last_ms) if stretches else None,
        waiting=tuple((run.record.id, runs) for run, runs in belonging),
        note=_note(view, context, job, can_start),
        is_whole=after_ms >= plan.through_ms,
    )


def _without(part: recovery.Step, job: Job, view: View, decided: Collection[str]) -> recovery.Step:
    """Of what runs, that which nobody has decided yet."""
    known = {*decided, *(fan_out_in(run) for run in view.runs_of_job.get(job.name, ()))}
    known |= {run for name, run in view.fan_outs if name == job.name}

    def is_new(ms: int) -> bool:
        return tick_id(ms) not in known

    return msgspec.structs.replace(
        part,
        chosen=tuple(ms for ms in part.chosen if is_new(ms)),
        late=tuple(ms for ms in part.late if is_new(ms)),
        missed=tuple(s for s in part.missed if s.count > 1 or is_new(s.first_ms)),
    )


def _note(view: View, context: Context, job: Job, can_start: bool) -> str:
    if not can_start:
        return f"it is {context.state_of(job).value}: nothing of it is recovered"
    paused = view.what_is_paused(job.name)
    if paused is not None:
        return f"{paused} is paused: what is to run waits until it is resumed"
    holder = context.conflicts.holder(job.name)
    return f"{holder}: what is to run waits for that" if holder is not None else ""


def runs_that_wait(previews: list[JobPreview]) -> int:
    """How many starts the end of these outages brings."""
    return sum(
        len(p.late) + len(p.recovered) + sum(runs for _, runs in p.waiting) for p in previews
    )
