"""What an outage's end would bring now, job by job: the recovery's own plan, looked at."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from etcsched.core.leader import recovery
from etcsched.core.leader.context import Context
from etcsched.core.leader.outage_records import belonging_runs, buffer_ms, records_of
from etcsched.core.leader.overlap import Away, state_beside
from etcsched.core.leader.runs import Author, tick_run
from etcsched.core.limits import Limits
from etcsched.core.records import Job, Run, fan_out_in
from etcsched.core.states import Outcome, Recovery, RunState
from etcsched.core.timeline import ticks
from etcsched.core.times import Utc, ms_of, ms_of_tick_id, utc_of
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
    alone_ms = begin_ms if is_open else _alone_through_ms(view, context, job, begin_ms)
    away = Away(ms_of(view.watermark.record.through) if view.watermark else begin_ms, now_ms)
    late: list[Utc] = []
    overlapped: list[Utc] = []
    recovered: list[Utc] = []
    stretches: list[recovery.Stretch] = []
    active = [run for run in view.active_runs(job.name) if not _has_ended(view, run)]
    author, after_ms, steps = Author(0, context.now), begin_ms, 0
    while after_ms < plan.through_ms and steps < MOST_STEPS:
        is_alone = after_ms < alone_ms
        whole = msgspec.structs.replace(plan, through_ms=alone_ms) if is_alone else plan
        part, steps = recovery.next_step(job, limits, whole, after_ms), steps + 1
        part = _without(part, job, limits, view, decided)
        recovered += [utc_of(ms) for ms in part.chosen]
        stretches += part.missed
        after_ms = part.through_ms
        by_itself = part.late if is_alone and not job.per_host else ()
        rest = msgspec.structs.replace(part, late=() if by_itself else part.late)
        created, archived = records_of(view, author, job, rest, active)
        active += created
        for ms in by_itself:  # As the leader decides any tick that is a little late.
            state = state_beside(view, job, active, ms, away, now_ms)
            run = tick_run(author, job, ms, state, "late")
            if state is RunState.OVERLAPPED:
                archived += (run,)
            else:
                active.append(run)
        dropped = {r.scheduled_at for r in archived if r.state is RunState.OVERLAPPED}
        overlapped += [at for ms in part.late if (at := utc_of(ms)) in dropped]
        late += [at for ms in part.late if (at := utc_of(ms)) not in dropped]
    is_followed = bool(late) or (alone_ms < now_ms and bool(overlapped))
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


def _alone_through_ms(view: View, context: Context, job: Job, begin_ms: int) -> int:
    """Ticks of an outage for want of a leader are decided one by one up to here, as ticks that are
    a little late: all of them if none is missed, else those that an earlier leader may have decided
    ahead of the watermark (``Outages``)."""
    if context.waits_for_agent(job):
        return begin_ms  # It goes on, for want of an agent.
    now_ms, limits = context.wall_ms, view.limits_of(job)
    first_ms = next(ticks(job, limits, begin_ms, now_ms), None)
    if first_ms is None or first_ms >= now_ms - buffer_ms(job):
        return now_ms
    through_ms = ms_of(view.watermark.record.through) if view.watermark is not None else begin_ms
    ahead_ms = int(context.options.decide_ahead_s * 1000)
    return max(begin_ms, min(through_ms + ahead_ms, now_ms))


def _has_ended(view: View, run: Run) -> bool:
    """Whether its agent has said so: a leader takes that in before it decides on any tick."""
    report = view.reports.get((run.agent, run.job, run.id))
    outcome = report.record.outcome if report is not None else None
    return outcome is not None and outcome not in (Outcome.DIED, Outcome.DECLINED)


def _without(
    part: recovery.Step, job: Job, limits: Limits, view: View, decided: Collection[str]
) -> recovery.Step:
    """Of its ticks, those that nobody has decided yet."""
    known = {*decided, *(fan_out_in(run) for run in view.runs_of_job.get(job.name, ()))}
    known |= {run for name, run in view.fan_outs if name == job.name}
    known_ms = set(map(_tick_of, known))

    def left_of(stretch: recovery.Stretch) -> list[recovery.Stretch]:
        first_ms, last_ms = stretch.first_ms, stretch.last_ms
        if not any(ms is not None and first_ms <= ms <= last_ms for ms in known_ms):
            return [stretch]
        left = [ms for ms in ticks(job, limits, first_ms - 1, last_ms) if ms not in known_ms]
        return [recovery.Stretch(left[0], left[-1], len(left))] if left else []

    return msgspec.structs.replace(
        part,
        chosen=tuple(ms for ms in part.chosen if ms not in known_ms),
        late=tuple(ms for ms in part.late if ms not in known_ms),
        missed=tuple(left for stretch in part.missed for left in left_of(stretch)),
    )


def _tick_of(run_id: str) -> int | None:
    """None: it is no tick's."""
    try:
        return ms_of_tick_id(run_id)
    except ValueError:
        return None


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
