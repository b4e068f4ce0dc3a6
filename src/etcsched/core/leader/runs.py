"""How run records come into being and change: each step checked against the table of states."""

from __future__ import annotations

from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from etcsched.core.records import (
    Assignment,
    Attempt,
    FanOut,
    Job,
    Join,
    Presence,
    Report,
    Run,
    StartSeen,
    Transition,
)
from etcsched.core.splay import delay_ms
from etcsched.core.states import (
    FINAL,
    JobState,
    Origin,
    Outcome,
    Overlap,
    RunState,
    check_transition,
)
from etcsched.core.times import Utc, tick_id, utc_of
from etcsched.core.view import Entry

MAX_HISTORY = 64
"""Steps kept of a run; of one that moved more often, the first and the newest."""

MAX_WORDS = 300
"""Characters of a reason or a cause: a command that isn't found may be a whole script."""

MAX_TAILS = 16
"""Of so many attempts, the last ones, a run's record has the output's tail."""

MAX_ATTEMPTS = 500
"""Kept of a run: of one that was retried more often, the first and the newest."""


class Author(msgspec.Struct, frozen=True):
    """Who decides, and when: stands in every step of every run."""

    term: int
    at: Utc


def new_run(
    author: Author,
    job: Job,
    run_id: str,
    state: RunState,
    cause: str,
    *,
    origin: Origin,
    scheduled_at: Utc | None = None,
    **fields: Any,
) -> Run:
    check_transition(None, state, f"run {job.name}/{run_id}", cause)
    return Run(
        job=job.name,
        id=run_id,
        state=state,
        origin=origin,
        created_at=author.at,
        scheduled_at=scheduled_at,
        priority=job.priority,
        history=(Transition(state=state, at=author.at, cause=cause, term=author.term),),
        **fields,
    )


def tick_run(
    author: Author,
    job: Job,
    tick_ms: int,
    state: RunState,
    cause: str,
    origin: Origin = Origin.SCHEDULE,
    *,
    host: str = "",
    **fields: Any,
) -> Run:
    """The run of one tick: its id is the tick, and the host that it is bound to."""
    return new_run(
        author,
        job,
        f"{tick_id(tick_ms)}@{host}" if host else tick_id(tick_ms),
        state,
        cause,
        origin=origin,
        scheduled_at=utc_of(tick_ms),
        params=dict(job.params),
        not_before=_not_before(job, host, tick_ms, state, origin),
        **fields,
    )


def _not_before(job: Job, host: str, tick_ms: int, state: RunState, origin: Origin) -> Utc | None:
    """What catches up on an outage is late as it is, and paced in its own way."""
    delayed_ms = delay_ms(job, host)
    if not delayed_ms or origin is not Origin.SCHEDULE or state in FINAL:
        return None
    return utc_of(tick_ms + delayed_ms)


def step(
    author: Author, run: Run, run_revision: int, state: RunState, cause: str, **changes: Any
) -> Run:
    """The run's next record. ``run_revision`` is that of the record as seen: it is the revision
    of the step before, which is known only now."""
    check_transition(run.state, state, f"run {run.job}/{run.id}", run.history)
    history = (
        *run.history[:-1],
        *(replace(last, revision=run_revision) for last in run.history[-1:]),
        Transition(state=state, at=author.at, cause=_cut(cause), term=author.term),
    )
    if len(history) > MAX_HISTORY:
        history = _shortened(history)
    return _bounded(replace(run, state=state, history=history, **changes))


def _shortened(history: tuple[Transition, ...]) -> tuple[Transition, ...]:
    """Of what is left out, the first step stays that took it out of its buffer (``buffers``)."""
    early = history[1 : 1 - MAX_HISTORY]
    kept = [each for each in early if each.state in (RunState.QUEUED, RunState.HELD)][:1]
    return (history[0], *kept, *history[1 + len(kept) - MAX_HISTORY :])


def _cut(words: str) -> str:
    return words if len(words) <= MAX_WORDS else f"{words[: MAX_WORDS - 1]}…"


def _bounded(run: Run) -> Run:
    """A run may be retried a thousand times, and its record has to fit into one request of etcd."""
    if len(run.attempts) > MAX_ATTEMPTS:
        kept = (run.attempts[0], *run.attempts[1 - MAX_ATTEMPTS :])
        run = replace(run, attempts=kept)
    early = run.attempts[:-MAX_TAILS]
    if not early or not early[-1].tail:
        return run
    untold = (replace(attempt, tail="") for attempt in early)
    return replace(run, attempts=(*untold, *run.attempts[-MAX_TAILS:]))


def assigned(
    author: Author, run: Run, run_revision: int, agent: str, cause: str, **more: Any
) -> Run:
    return step(
        author,
        run,
        run_revision,
        RunState.ASSIGNED,
        cause,
        agent=agent,
        attempt=run.attempt + 1,
        **more,
    )


def assignment_of(
    author: Author, run: Run, job: Job, presence: Presence, seen: StartSeen
) -> Assignment:
    """What the agent needs to run the attempt, and what its claim has to compare."""
    return Assignment(
        job=run.job,
        run=run.id,
        agent=presence.agent,
        incarnation=presence.incarnation,
        session_ttl_s=presence.session_ttl_s,
        attempt=run.attempt,
        action=job.run,
        seen=seen,
        assigned_at=author.at,
        term=author.term,
        scheduled_at=run.scheduled_at,
        timezone=job.current.timezone,
        timeout_s=job.timeout_s,
        kill_grace_s=job.kill_grace_s,
        params={**job.params, **run.params},
        env=job.env,
        workdir=job.workdir,
        user=job.user,
        source=run.chained_from[-1] if run.chained_from else None,
        disconnect_grace_s=job.disconnect_grace_s,
        on_disconnect=job.on_disconnect,
        occasion=run.occasion,
        stands_for=run.stands_for,
        agent_since=presence.since,
    )


def attempt_of(
    assignment: Assignment,
    token: int,
    report: Report | None,
    outcome: Outcome,
    reason: str,
    ended_at: Utc | None,
) -> Attempt:
    """An attempt that is over, as its run keeps it. ``report`` None: it was never claimed."""
    if report is None:
        return Attempt(
            number=assignment.attempt,
            agent=assignment.agent,
            token=token,
            assigned_at=assignment.assigned_at,
            outcome=outcome,
            reason=reason,
            ended_at=ended_at,
        )
    return Attempt(
        number=assignment.attempt,
        agent=assignment.agent,
        token=token,
        assigned_at=assignment.assigned_at,
        outcome=outcome,
        claimed_at=report.claimed_at,
        started_at=report.started_at,
        ended_at=report.ended_at or ended_at,
        exit_code=report.exit_code,
        signal=report.signal,
        reason=_cut(report.reason or reason),
        cpu_s=report.cpu_s,
        peak_memory_bytes=report.peak_memory_bytes,
        output_bytes=report.output_bytes,
        tail=report.tail,
        agent_since=assignment.agent_since if outcome is Outcome.DECLINED else None,
    )


def late_attempt_of(agent: str, report: Report) -> Attempt:
    """A late report as an event in its run's record."""
    assert report.outcome is not None
    return Attempt(
        number=report.attempt,
        agent=agent,
        token=report.token,
        assigned_at=report.claimed_at,
        outcome=report.outcome,
        claimed_at=report.claimed_at,
        started_at=report.started_at,
        ended_at=report.ended_at,
        exit_code=report.exit_code,
        signal=report.signal,
        reason=_cut(report.reason),
        tail=report.tail,
    )


def takes_turns(run: Run, job: Job) -> bool:
    """Whether it goes one at a time with others of its lane that wait: unless its job may overlap,
    and then too while it catches up on an outage."""
    return job.overlap is not Overlap.ALLOW or run.origin is Origin.RECOVERY


def how_to_enable(job: Job, at_ms: int) -> str:
    """What to do where the job's state then forbids a start. No command changes a state."""
    if job.current.at(at_ms).state is job.current.state:
        return "apply its file with state: enabled first"
    return "wait until its window is over, or apply its file without that window first"


def may_start(job: Entry[Job], entry: Entry[Run], at_ms: int) -> bool:
    """Whether its job lets this run start then, for the first time or again."""
    return not is_of_another(job, entry) and lets_start(job.record, entry.record, at_ms)


def lets_start(job: Job, run: Run, at_ms: int) -> bool:
    """Whether the job's definition does."""
    match job.current.at(at_ms).state:
        case JobState.ENABLED:
            return True
        case JobState.AD_HOC_ACTIVE:
            return run.origin in (Origin.REQUEST, Origin.RESUBMISSION, Origin.LIFECYCLE)
        case JobState.CHAIN_ACTIVE:
            return run.origin in (Origin.CHAIN, Origin.RESUBMISSION)
        case JobState.DISABLED:
            return run.forced
        case JobState.DELETED:
            return False
        case other:
            assert_never(other)


def is_of_another(job: Entry[Job], entry: Entry[Run] | Entry[Join] | Entry[FanOut]) -> bool:
    """Whether this came to an earlier job of this name, which was deleted since, also where nobody
    looked in between. Revisions tell, whatever the clocks of who wrote what said."""
    return entry.create_revision < max(job.create_revision, job.record.made_anew_after)
