"""Why a run waits or runs where it does, why a job doesn't run, and what an outage's end brings.

The decisions are the leader's (``core.leader.explaining`` and ``previewing``), on a view that is
read here, all of one revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from etcsched.core.leader.context import Context, Options
from etcsched.core.leader.explaining import AgentWord, Explainer, outage_begun
from etcsched.core.leader.held_runs import why_held
from etcsched.core.leader.previewing import JobPreview, outage_begin_ms, preview
from etcsched.core.leader.reasons import Reason, Why
from etcsched.core.records import Gap, Job, Kind, Run, fan_out_in
from etcsched.core.states import JobState, RunState
from etcsched.core.times import Utc, tick_id, utc_of
from etcsched.core.view import View
from etcsched.keyspace.feed import Feed
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, Snapshot
from etcsched.operator.requests import no_such_job
from etcsched.operator.runs import read_run, view_of
from etcsched.operator.store import listed, pages, read_all
from etcsched.ports import Etcd

__all__ = [
    "JobExplanation",
    "RunExplanation",
    "RunReason",
    "Waits",
    "explain_job",
    "explain_run",
    "preview_recovery",
    "read_view",
    "told_waits",
    "view_at",
    "waits_of",
]

_RUNS_SHOWN: Final = 50


class RunReason(msgspec.Struct, frozen=True, kw_only=True):
    """``until`` is when that is over by itself; ``buffer_ends`` when it gives up finding an agent;
    ``place`` the how-many-th it is of all that wait for one. Where one stands for its job:
    ``others`` of that wait, too."""

    run: str
    state: RunState
    why: Why
    text: str
    until: Utc | None = None
    buffer_ends: Utc | None = None
    place: int | None = None
    others: int = 0


class RunExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """``agents`` as the run would find them now, also where it has one. ``requests`` wait for
    the leader's answer; ``outage`` is its job's."""

    at: Utc
    reason: RunReason
    agent: str = ""
    outage: str = ""
    requests: tuple[str, ...] = ()
    agents: tuple[AgentWord, ...] = ()


class JobExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """``runs`` are those that aren't over, at most 50 of them, and ``more`` others."""

    at: Utc
    job: str
    state: JobState
    reasons: tuple[Reason, ...]
    runs: tuple[RunReason, ...]
    more: int
    agents: tuple[AgentWord, ...]


class Waits(msgspec.Struct, frozen=True):
    """By job: why its first waiting run waits, and its open outage. ``unexplained``: how many more
    runs wait, for what wasn't looked for."""

    runs: dict[str, RunReason]
    outages: dict[str, str]
    unexplained: int = 0


async def read_view(etcd: Etcd, keys: Keys) -> View:
    """As it stands now."""
    kvs: list[KeyValue] = []
    revision = 0
    async for page in pages(etcd, keys.watched, keys.watched_end):
        kvs += page.kvs
        revision = revision or page.revision
    return view_at(keys, kvs, revision)


def view_at(keys: Keys, kvs: Sequence[KeyValue], revision: int) -> View:
    """Of all that the leader knows; what can't be read counts as absent."""
    view = View()
    Feed(keys, view, lambda *_: None).take(Snapshot(tuple(kvs), revision))
    return view


async def explain_run(etcd: Etcd, keys: Keys, job: str, run_id: str, now_ms: int) -> RunExplanation:
    """``NotFound`` where there is no such run, and none to be."""
    view = await read_view(etcd, keys)
    explainer = Explainer(view, now_ms)
    at_job = view.jobs.get(job)
    for to_be, reason in explainer.joins_of(job):
        if to_be == run_id:
            waits = RunReason(
                run=f"{job}/{run_id}", state=RunState.QUEUED, why=reason.why, text=reason.text
            )
            return RunExplanation(at=utc_of(now_ms), reason=waits)
    entry = view.runs.get((job, run_id))
    if entry is None:
        return await _of_archived(etcd, keys, job, run_id, now_ms)
    outage = explainer.outage(at_job.record) if at_job is not None else None
    return RunExplanation(
        at=utc_of(now_ms),
        reason=_reason(view, explainer, entry.record),
        agent=entry.record.agent,
        outage=outage.text if outage is not None else "",
        requests=tuple(
            f"{request.record.kind.value} of {request.record.by or 'unknown'} ({id_})"
            for id_, request in sorted(view.requests.items())
            if (request.record.job, request.record.run) == (job, run_id)
        ),
        agents=tuple(explainer.agents(at_job.record, entry.record)) if at_job is not None else (),
    )


async def _of_archived(
    etcd: Etcd, keys: Keys, job: str, run_id: str, now_ms: int
) -> RunExplanation:
    """What is over says itself why it ended so, and why nothing followed."""
    run = (await read_run(etcd, keys, job, run_id)).run
    last = run.history[-1] if run.history else None
    text = f"it ended {run.state.value}" + (f" at {last.at}: {last.cause}" if last else "")
    notes = [f"{f.job}: {f.note}" for f in run.followed_by if f.note]
    if notes:
        text += f"; what might have followed: {'; '.join(notes)}"
    over = RunReason(run=f"{job}/{run_id}", state=run.state, why=Why.OVER, text=text)
    return RunExplanation(at=utc_of(now_ms), reason=over, agent=run.agent)


async def explain_job(etcd: Etcd, keys: Keys, name: str, now_ms: int) -> JobExplanation:
    view = await read_view(etcd, keys)
    entry = view.jobs.get(name)
    if entry is None or entry.record.current.state is JobState.DELETED:
        raise await no_such_job(etcd, keys, name)
    explainer, job = Explainer(view, now_ms), entry.record
    ids = sorted(view.runs_of_job.get(name, ()))
    return JobExplanation(
        at=utc_of(now_ms),
        job=name,
        state=job.current.at(now_ms).state,
        reasons=tuple(explainer.of_job(job)),
        runs=tuple(
            _reason(view, explainer, view.runs[(name, id_)].record) for id_ in ids[:_RUNS_SHOWN]
        ),
        more=max(0, len(ids) - _RUNS_SHOWN),
        agents=tuple(explainer.agents(job)),
    )


def waits_of(view: View, now_ms: int) -> Waits:
    """For lists: of each job with waiting runs the one that came first, and of each with an open
    outage that."""
    explainer = Explainer(view, now_ms)
    waiting: dict[str, list[Run]] = {}
    for job, id_ in sorted(view.runs):
        run = view.runs[(job, id_)].record
        if run.state is not RunState.ASSIGNED:
            waiting.setdefault(job, []).append(run)
    runs = {
        job: msgspec.structs.replace(_reason(view, explainer, first), others=len(rest))
        for job, (first, *rest) in waiting.items()
    }
    outages = {
        name: outage.text
        for name in sorted(view.gaps)
        if (entry := view.jobs.get(name)) is not None
        and (outage := explainer.outage(entry.record)) is not None
    }
    return Waits(runs, outages)


async def told_waits(etcd: Etcd, keys: Keys) -> Waits:
    """What the records themselves tell, where there are too many jobs to read: held runs, and of
    outages how they began."""
    held: dict[str, list[Run]] = {}
    unexplained = 0
    for run in await read_all(etcd, keys.all_of(Kind.RUN), Run):
        if run.state is RunState.HELD:
            held.setdefault(run.job, []).append(run)
        unexplained += run.state not in (RunState.HELD, RunState.ASSIGNED)
    runs = {
        job: RunReason(
            run=f"{job}/{first.id}",
            state=first.state,
            why=Why.HELD,
            text=why_held(first),
            others=len(rest),
        )
        for job, (first, *rest) in held.items()
    }
    gaps = await read_all(etcd, keys.all_of(Kind.GAP), Gap)
    outages = {gap.job: outage_begun(gap) for gap in gaps if not gap.closed}
    return Waits(runs, outages, unexplained)


def _reason(view: View, explainer: Explainer, run: Run) -> RunReason:
    key = (run.job, run.id)
    reason = explainer.reason(key)
    report = view.reports.get((run.agent, *key))
    return RunReason(
        run=f"{run.job}/{run.id}",
        state=view_of(run, report.record if report is not None else None).state,
        why=reason.why,
        text=reason.text,
        until=reason.until,
        buffer_ends=explainer.buffer_ends(run),
        place=explainer.place(key),
    )


async def preview_recovery(
    etcd: Etcd, keys: Keys, names: Sequence[str], now_ms: int
) -> list[JobPreview]:
    """Of these jobs (none: of all) those that have an outage now, by name."""
    view = await read_view(etcd, keys)
    for name in names:
        entry = view.jobs.get(name)
        if entry is None or entry.record.current.state is JobState.DELETED:
            raise await no_such_job(etcd, keys, name)
    context = Context(view, 0, "", Options())
    context.it_is(now_ms, 0.0)
    has_leader = Explainer(view, now_ms).has_leader
    previews = []
    for name in sorted(set(names) or view.jobs):
        job = view.jobs[name].record
        begin_ms = outage_begin_ms(view, job, has_leader)
        if begin_ms is None or begin_ms >= now_ms:
            continue
        decided = await _decided(etcd, keys, job, begin_ms, context.options.decide_ahead_s)
        made = preview(view, context, job, begin_ms, decided)
        if made.late or made.overlapped or made.recovered or made.missed or made.waiting:
            previews.append(made)
    return previews


async def _decided(
    etcd: Etcd, keys: Keys, job: Job, begin_ms: int, ahead_s: float
) -> frozenset[str]:
    """Ids of ticks that were decided one by one beyond the watermark, and are over."""
    _, archive = keys.runs_from(job.name, tick_id((begin_ms // 1000 + 1) * 1000))
    kvs = await listed(etcd, archive, keys_only=True)
    end = tick_id((begin_ms + int(ahead_s * 1000)) // 1000 * 1000)
    places = (keys.parse_archive(kv.key) for kv in kvs)
    ids = (fan_out_in(place[1]) for place in places if place is not None)
    return frozenset(id_ for id_ in ids if id_ <= end)
