"""What the leader's decisions would say now of each run and each job (``etcsched explain``).

The decisions are the leader's own, on a view that somebody else has read: the reasons are those
that they note on the way (``reasons``), and what they would write is looked at and never sent. All
ticks that are due count as decided: who explains doesn't know what the leader has in hand, and
what becomes of an outage's ticks is ``previewing``'s matter.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import msgspec

from etcsched.core.leader import effects as fx
from etcsched.core.leader.buffers import buffer_end_ms
from etcsched.core.leader.chains import CHAINABLE, size_of
from etcsched.core.leader.context import ASIDE_REASON, Context, Options
from etcsched.core.leader.loss import Losses
from etcsched.core.leader.open_ticks import OpenTicks
from etcsched.core.leader.overlap import Away, state_by_overlap
from etcsched.core.leader.placement import (
    NEVER_TRIED,
    Requirement,
    Tried,
    requirement_of,
    requirement_of_run,
    tried_by,
)
from etcsched.core.leader.reasons import Reason, Why
from etcsched.core.leader.run_decider import RunDecider
from etcsched.core.leader.runs import lets_start
from etcsched.core.limits import NO_LIMITS, Limits
from etcsched.core.records import CLUSTER, MAX_PARAMS_BYTES, Candidate, Gap, Job, Join, Run
from etcsched.core.states import OCCASIONS, JobState, Occasion, RunState
from etcsched.core.timeline import next_tick
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched.core.view import Entry, RunKey, View

NOBODY_LEADS = "nobody leads: nothing is decided until a scheduler does"

_STATES = {
    JobState.ENABLED: "",
    JobState.DISABLED: "it is disabled: nothing of it runs",
    JobState.CHAIN_ACTIVE: "it is chain_active: it runs only when another job chains to it",
    JobState.AD_HOC_ACTIVE: "it is ad_hoc_active: it runs only on request",
    JobState.DELETED: "it is deleted",
}

_AT = {
    Occasion.HOST_STARTUP: "on each agent, right after that has come",
    Occasion.HOST_SHUTDOWN: "on each agent that is stopped, before that goes",
    Occasion.CLUSTER_STARTUP: "when the first agent has come",
    Occasion.CLUSTER_SHUTDOWN: "on the last agent that is stopped, before that goes",
}
"""By its lifecycle a job runs once..."""

_BY_LIFECYCLE = (JobState.ENABLED, JobState.AD_HOC_ACTIVE)


def outage_begun(gap: Gap) -> str:
    return f"an outage since {gap.since}: {gap.reason}"


class AgentWord(msgspec.Struct, frozen=True, kw_only=True):
    """One agent, as a run would find it now. ``why`` says why it is none for it, or what there is
    to say of one that may have it; ``is_next``: it gets the next one."""

    agent: str
    may_run: bool
    why: str = ""
    used: int = 0
    slots: int = 0
    is_next: bool = False


class Explainer:
    """``now_ms`` by the clock of whoever asks."""

    def __init__(self, view: View, now_ms: int) -> None:
        self._view = view
        self._now_ms = now_ms
        self._context = self._context_at(now_ms)
        self._reasons: dict[RunKey, Reason] = {}
        self._context.reasons = self._reasons
        losses = Losses(self._context, 0, -math.inf)
        led_from_ms = ms_of(view.term.record.since) if view.term is not None else now_ms
        self._runs = RunDecider(self._context, losses, OpenTicks(), led_from_ms)
        self._runs.look_at_all()
        self._runs.decide()
        self._plain = self._context_at(now_ms)
        self._add_what_is_next()

    def _context_at(self, now_ms: int) -> Context:
        term = self._view.term
        number = term.record.number if term is not None else 0
        context = Context(self._view, number, "", Options())
        context.it_is(now_ms, 0.0)
        return context

    def _add_what_is_next(self) -> None:
        """What nothing holds up is in what the leader would write now."""
        for effect in self._context.effects:
            run = getattr(effect, "run", None)
            if isinstance(effect, fx.Write) and isinstance(run, Run):
                last = run.history[-1]
                text = f"the leader makes it {last.state.value} now: {last.cause}"
                self._reasons.setdefault((run.job, run.id), Reason(Why.NEXT, text))

    # --- runs

    @property
    def has_leader(self) -> bool:
        first: Entry[Candidate] | None = min(
            self._view.candidates.values(), key=lambda entry: entry.create_revision, default=None
        )
        term = self._view.term
        return first is not None and term is not None and term.record.token == first.create_revision

    def reason(self, key: RunKey) -> Reason:
        """Of a run in the view."""
        found = self._reasons.get(key)
        is_running = found is not None and found.why in (Why.RUNS, Why.ENDING)
        if not self.has_leader and not is_running:
            rest = f" (then: {found.text})" if found is not None else ""
            return Reason(Why.NO_LEADER, f"{NOBODY_LEADS}{rest}")
        return found or Reason(Why.NEXT, "the leader looks at it now")

    def buffer_ends(self, run: Run) -> Utc | None:
        """When it gives up finding its first agent."""
        entry = self._view.jobs.get(run.job)
        end_ms = buffer_end_ms(run, entry.record) if entry is not None else None
        return utc_of(end_ms) if end_ms is not None else None

    def place(self, key: RunKey) -> int | None:
        """Of one that waits for an agent: the how-many-th it is of all that do."""
        before = self._runs.waiting.place_of(key)
        return before + 1 if before is not None else None

    def joins_of(self, job: str) -> list[tuple[str, Reason]]:
        """Runs to be that wait for other sources of their chain, each with what it waits for."""
        found = []
        for (target, instance), entry in sorted(self._view.joins.items()):
            if target != job:
                continue
            join = entry.record
            missing = self._runs.chains.missing_of(job, instance, join.arrived)
            there = ", ".join(f"{a.job}/{a.run}" for a in join.arrived)
            what = ", ".join(sorted(missing)) or self._what_holds(join)
            text = f"chain {instance} waits for {what}; {there} is there{self._but(join, missing)}"
            found.append((join.run, Reason(Why.JOIN, text)))
        return found

    def _but(self, join: Join, missing: Collection[str]) -> str:
        """What would keep it from beginning if all had come now."""
        state = self._state_of(join.job)
        return f"; {join.job} is {state.value}" if missing and state not in CHAINABLE else ""

    def _what_holds(self, join: Join) -> str:
        """Of one to which all have come."""
        entry, state = self._view.jobs.get(join.job), self._state_of(join.job)
        if entry is None or state not in CHAINABLE:
            return f"nobody: {join.job} is {state.value}, so it goes"
        size = size_of(entry.record, join.arrived)
        if size > MAX_PARAMS_BYTES:
            return f"fewer parameters: they take {size} bytes, more than {MAX_PARAMS_BYTES}"
        return "nothing more" if self.has_leader else "a leader"

    def _state_of(self, job: str) -> JobState:
        entry = self._view.jobs.get(job)
        return self._plain.state_of(entry.record) if entry is not None else JobState.DELETED

    # --- agents

    def agents(self, job: Job, run: Run | None = None) -> list[AgentWord]:
        """Every agent that is here or named by the job, and why it may have the run, or not."""
        requirement = requirement_of_run(job, run) if run is not None else requirement_of(job)
        tried = tried_by(run) if run is not None else NEVER_TRIED
        chosen = self._plain.agents.choose(requirement, job.name, tried)
        next_one = chosen.record.agent if chosen is not None and self._starts(job, run) else ""
        names = sorted({*self._view.presences, *requirement.hosts})
        return [self._agent(name, requirement, tried, next_one) for name in names]

    def _starts(self, job: Job, run: Run | None) -> bool:
        """Whether what the job is by now, and its pauses, let this run, or any, start."""
        if self._view.is_paused(job.name):
            return False
        if run is not None:
            return lets_start(job, run, self._now_ms)
        return self._plain.state_of(job) not in (JobState.DISABLED, JobState.DELETED)

    def _agent(self, name: str, requirement: Requirement, tried: Tried, next_one: str) -> AgentWord:
        entry = self._view.presences.get(name)
        if entry is None:
            return AgentWord(agent=name, may_run=False, why="isn't here")
        used, slots = self._plain.agents.used_slots(name), entry.record.slots
        why = self._plain.agents.why_not(requirement, entry.record)
        if why is not None:
            return AgentWord(agent=name, may_run=False, why=why, used=used, slots=slots)
        words = []
        if used >= slots:
            words.append("is full")
        if name in tried.unable:
            words.append("couldn't start it before: comes last")
        elif name in tried.agents:
            words.append("had it before: comes after others")
        if name == next_one:
            words.append(f"is the next, by {requirement.placement.value}")
        return AgentWord(
            agent=name, may_run=used < slots, why=", ".join(words), used=used, slots=slots,
            is_next=name == next_one,
        )  # fmt: skip

    # --- jobs

    def of_job(self, job: Job) -> list[Reason]:
        """All that holds its ticks up, or says when the next one is."""
        context, view, name = self._plain, self._view, job.name
        found: list[Reason] = []
        if not self.has_leader:
            found.append(Reason(Why.NO_LEADER, NOBODY_LEADS))
        state = context.state_of(job)
        runs_by_lifecycle = bool(OCCASIONS[job.lifecycle]) and state in _BY_LIFECYCLE
        if _STATES[state]:
            text = f"{_STATES[state]}{', and by its lifecycle' if runs_by_lifecycle else ''}"
            found.append(Reason(Why.STATE, text, self._window_until(job)))
        if runs_by_lifecycle:
            when = ", and ".join(_AT[occasion] for occasion in OCCASIONS[job.lifecycle])
            text = f"lifecycle {job.lifecycle.value}: it runs once {when}"
            found.append(Reason(Why.SCHEDULE, text))
        paused = view.what_is_paused(name)
        if paused is not None:
            found.append(Reason(Why.PAUSED, f"{paused} is paused{self._since_and_by(name)}"))
        outage = self.outage(job)
        if outage is not None:
            found.append(outage)
        elif context.waits_for_agent(job):
            why = context.agents.why_none(requirement_of(job))
            is_due = next_tick(job, view.limits_of(job), self._now_ms) is not None
            text = f"{why}; its next tick begins an outage" if is_due else why
            found.append(Reason(Why.NO_AGENT, text))
        holder = context.conflicts.holder(name)
        if holder is not None:
            found.append(Reason(Why.CONFLICT, f"{holder}"))
        found += self._beside_active(job, state)
        found += [reason for _, reason in self.joins_of(name)]
        if state is JobState.ENABLED and not (runs_by_lifecycle and not job.current.patterns):
            found.append(self._schedule(job))
        return found

    def outage(self, job: Job) -> Reason | None:
        """Its open outage, and what it still waits for."""
        gap = self._view.gaps.get(job.name)
        if gap is None or gap.record.closed:
            return None
        begun = outage_begun(gap.record)
        if self._plain.waits_for_agent(job):
            now = self._plain.agents.why_none(requirement_of(job))
            return Reason(Why.OUTAGE, f"{begun}; now: {now}" if now != gap.record.reason else begun)
        if gap.record.reason == ASIDE_REASON:
            return Reason(Why.OUTAGE, f"{begun}; that is tried again each minute")
        if not self.has_leader:
            return Reason(Why.OUTAGE, f"{begun}; it ends once somebody leads")
        return Reason(Why.OUTAGE, f"{begun}; it is over, its ticks are being decided")

    def _window_until(self, job: Job) -> Utc | None:
        for window in job.current.windows:
            if ms_of(window.since) <= self._now_ms < ms_of(window.until):
                return window.until
        return None

    def _since_and_by(self, name: str) -> str:
        for each in (name, CLUSTER):
            pause = self._view.pause_of(each)
            if pause is not None and pause.active:
                last = pause.intervals[-1]
                return f" since {last.since}" + (f", by {last.by}" if last.by else "")
        return ""

    def _beside_active(self, job: Job, state: JobState) -> list[Reason]:
        """What a tick that came now would become beside the job's active runs."""
        if state is not JobState.ENABLED or job.per_host:
            return []
        nobody = Away(self._now_ms, self._now_ms)
        become = state_by_overlap(self._view, job, job.name, self._now_ms + 1, nobody, self._now_ms)
        if become is RunState.READY:
            return []
        active = ", ".join(f"{run.job}/{run.id}" for run in self._view.active_runs(job.name)[:3])
        text = f"a tick now would become {become.value}: {active} is active"
        return [Reason(Why.QUEUED, text)]

    def _schedule(self, job: Job) -> Reason:
        after_ms = max(self._now_ms, ms_of(job.current.since) - 1)
        limits = self._view.limits_of(job)
        unpaused = Limits((), limits.calendars)
        tick_ms, any_ms = next_tick(job, unpaused, after_ms), next_tick(job, NO_LIMITS, after_ms)
        if any_ms is None:
            return Reason(Why.SCHEDULE, "its schedule has no tick any more")
        left_out = ""
        if tick_ms != any_ms:
            names = ", ".join(job.current.calendars)
            left_out = f"calendars ({names}) leave out its ticks from {utc_of(any_ms)} on"
        if tick_ms is None:
            return Reason(Why.SCHEDULE, f"nothing is due: {left_out}")
        paused = next_tick(job, limits, after_ms) is None
        due = "would be" if paused else "is"
        text = f"its next tick {due} due at {utc_of(tick_ms)}" + (left_out and f"; {left_out}")
        return Reason(Why.SCHEDULE, text, utc_of(tick_ms))
