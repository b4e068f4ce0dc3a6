"""I10: a run that finds no agent is given up only in its time, and if there was none for it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

import msgspec

from etcsched.audit.eligibility import is_free, states_to_start, suits
from etcsched.audit.history import Fault, FaultKind
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.standing import SETTLED_MS, is_clock_only
from etcsched.audit.state import ARCHIVE, Held, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Attempt, ConflictGroup, Job, Kind, Presence, Run
from etcsched.core.states import JobState, Outcome, RunState
from etcsched.core.times import ms_of

SEEN_MS = 500
"""A run that is ready for so long was offered to whoever had a slot then."""
MOST_DECLINES = 100
"""So often in a row a run may be declined."""

_GIVEN_UP = (RunState.ABANDONED, RunState.FAILED, RunState.TIMED_OUT)
"""How a run ends that nobody takes; one that has run before, as it did then."""
_CLOCKS = frozenset({FaultKind.CLOCK})
_ANYWHERE = frozenset({FaultKind.CLOCK, FaultKind.ETCD, FaultKind.BY_HAND})
_OF_THE_LEADER = frozenset(
    {FaultKind.FROZEN, FaultKind.HOST_FROZEN, FaultKind.CUT_OFF, FaultKind.SLOW}
)
"""Faults by which it may not have seen what has stood for long, or not have had its writes."""


class _Gone(msgspec.Struct, frozen=True):
    """An agent that received runs for some seconds, and then did no more, as it was then."""

    held: Held
    until_ms: int


class _Suspect(msgspec.Struct, frozen=True):
    """``text``, ``agents`` and ``then`` say it; ``others`` were there, too. No agents: it was too
    early. ``since_ms``: faults excuse it from then on."""

    text: str
    at_ms: int
    since_ms: int
    then: str = ""
    leader: str = ""
    agents: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()

    @property
    def is_early(self) -> bool:
        return not self.agents


class GivenUp(Rule):
    """Judged are runs that are ``ready``, and end for want of an agent. Before its pickup buffer is
    over none does, and beside an agent with a free slot that hasn't declined it none does. One
    without a buffer ends so only once it was declined, and a buffer's time after the last agent
    was there, full or not, that hadn't declined it. What was declined isn't over by that.

    Who was there is judged where for some seconds all that decides it stood as it was, and no
    pause, outage or conflict group of its job may have kept the run."""

    invariant = Invariant.I10
    places = frozenset({ARCHIVE, Kind.PRESENCE, Kind.DRAIN, Kind.SEAT})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._standing = court.standing
        self._gone: dict[str, _Gone] = {}
        self._suspects: list[_Suspect] = []

    def wrote(self, write: Write, step: Step) -> None:
        if write.place != ARCHIVE:
            self._may_go(write, step)
            return
        over = write.new
        if not isinstance(over, Run) or over.state not in _GIVEN_UP:
            return
        held = self.state.of(Kind.RUN, *write.ids)
        run = held.record if held is not None else None
        job = self.state.record(Job, Kind.JOB, write.ids[0])
        if held is None or not isinstance(run, Run) or job is None:
            return
        if run.state is RunState.ASSIGNED:
            self._judge_decline(over, job, held, step)
        elif run.state is RunState.READY and step.at_ms:
            self._judge_wait(run, over, job, step)

    def _may_go(self, write: Write, step: Step) -> None:
        """What is written about an agent may end that it receives runs."""
        (agent,) = write.ids
        held = self.state.of(Kind.PRESENCE, agent)
        presence = held.record if held is not None else None
        if held is None or not isinstance(presence, Presence) or is_clock_only(write):
            return
        stood_ms = step.at_ms - self._standing.agent_since_ms(agent)
        if stood_ms > SETTLED_MS and is_free(self.state, presence):
            self._gone[agent] = _Gone(held, step.at_ms)

    # --- declined

    def _judge_decline(self, over: Run, job: Job, held: Held, step: Step) -> None:
        """... by the agent that it was assigned to. What a window forbids is decided by a clock,
        and what came to an earlier job of that name is cancelled."""
        if not over.attempts or over.attempts[-1].outcome is not Outcome.DECLINED:
            return
        made_at = max(_created_at(self.state.of(Kind.JOB, job.name)), job.made_anew_after)
        version, states = job.current, states_to_start(over)
        if over.forced:
            states |= {JobState.DISABLED}
        may_start = version.state in states and held.create_revision >= made_at
        if over.host or version.windows or not may_start:
            return
        count = len(_declines(over))
        text = (
            f"{over.job}/{over.id}: {over.state.value} as {over.attempts[-1].agent} declined it, "
            f"after {count - 1} others in a row, and it may be offered to {MOST_DECLINES}"
        )
        self.expect(count >= MOST_DECLINES, text, step)

    # --- ready

    def _judge_wait(self, run: Run, over: Run, job: Job, step: Step) -> None:
        name = f"{run.job}/{run.id}: {over.state.value}"
        has_buffer = not (run.has_run or _was_kept(run))
        if has_buffer:
            self._judge_buffer(name, run, job, step)
        else:
            text = f"{name}, and nobody had declined it, nor has it a buffer that could be over"
            self.expect(bool(_declines(run)), text, step)
        if self._could_go(run, job, step, SEEN_MS if has_buffer else 0):
            self._judge_agents(name, run, job, step, has_buffer=has_buffer)

    def _judge_buffer(self, name: str, run: Run, job: Job, step: Step) -> None:
        """What ends it compares its job, so the definition is the one that it was decided by."""
        starts_ms = ms_of(run.starts_at)
        early_ms = starts_ms + _buffer_ms(job) - step.at_ms
        self.court.checked[self.invariant] += 1
        if early_ms > self.bounds.early_ms:
            text = f"{name} {early_ms} ms before its buffer of {job.pickup_buffer_s:g} s was over"
            since_ms = min(starts_ms, step.at_ms) - self.bounds.recovery_ms
            self._suspects.append(_Suspect(text, step.at_ms, since_ms))

    def _could_go(self, run: Run, job: Job, step: Step, ready_for_ms: int) -> bool:
        """But for want of an agent. (Whoever is full counts for one without a buffer, and there was
        before it came to be ready.)"""
        ready_ms = step.at_ms - max(ms_of(run.since), ms_of(run.starts_at))
        if run.occasion is not None or ready_ms < ready_for_ms:
            return False
        is_settled = self._standing.is_job_settled(job.name, step.at_ms)
        if not is_settled or self._standing.is_paused(job.name):
            return False
        if self.state.of(Kind.GAP, job.name) is not None:
            return False
        groups = (held.record for held in self.state.all_of(Kind.CONFLICT).values())
        return not any(isinstance(g, ConflictGroup) and job.name in g.jobs for g in groups)

    def _judge_agents(self, name: str, run: Run, job: Job, step: Step, *, has_buffer: bool) -> None:
        agents = {
            presence.agent
            for presence in self._standing.agents_for(job, run.host, step.at_ms)
            if not _has_declined(run, self.state.of(Kind.PRESENCE, presence.agent))
        }
        text, then, since_ms = f"{name}, and", "could have taken it", step.at_ms - SETTLED_MS
        if has_buffer:
            agents = {a for a in agents if self._standing.had_slot(a, step.at_ms)}
        elif not agents:
            agents = set(self._gone_since(run, job, step))
            text = f"{name} within {job.pickup_buffer_s:g} s after"
            then, since_ms = "had gone, and hadn't declined", since_ms - _buffer_ms(job)
        self.court.checked[self.invariant] += 1
        if agents:
            term, others = self.state.term, self.state.all_of(Kind.PRESENCE)
            suspect = _Suspect(
                text=text,
                then=then,
                at_ms=step.at_ms,
                since_ms=since_ms,
                leader=term.leader if term is not None else "",
                agents=frozenset(agents),
                others=frozenset(agent for (agent,) in others),
            )
            self._suspects.append(suspect)

    def _gone_since(self, run: Run, job: Job, step: Step) -> Iterator[str]:
        """Agents that might have taken it once they had a slot, for some seconds while it was
        ready, and went less than its buffer's time ago."""
        waits_ms = _buffer_ms(job) - self.bounds.early_ms
        ready_ms = max(ms_of(run.since), self._standing.job_since_ms(job.name))
        for agent, gone in self._gone.items():
            presence = gone.held.record
            was_seen = gone.until_ms - ready_ms > SETTLED_MS
            is_late = step.at_ms - gone.until_ms < waits_ms
            if not (was_seen and is_late and run.host in ("", agent)):
                continue
            if _has_declined(run, gone.held) or not isinstance(presence, Presence):
                continue
            if suits(job, presence):
                yield agent

    # --- what excuses it

    def finish(self) -> None:
        for suspect in self._suspects:
            faults = self.court.faults.overlapping(suspect.since_ms, suspect.at_ms)
            if suspect.is_early:
                is_excused = any(fault.kind in _CLOCKS for fault in faults)
                text = suspect.text
            else:
                hit = {fault.target for fault in faults if fault.kind is FaultKind.OTHER}
                agents = suspect.agents - hit
                is_excused = not agents or any(_excuses(fault, suspect) for fault in faults)
                text = f"{suspect.text} {', '.join(sorted(agents))} {suspect.then}"
            if not is_excused:
                self.expect(False, text, at_ms=suspect.at_ms)


def _excuses(fault: Fault, suspect: _Suspect) -> bool:
    """A fault of one agent says nothing of another."""
    if fault.kind is FaultKind.OTHER:
        return fault.target not in suspect.agents | suspect.others
    return fault.kind in _ANYWHERE or (
        fault.kind in _OF_THE_LEADER and fault.target == suspect.leader
    )


def _buffer_ms(job: Job) -> int:
    return int(job.pickup_buffer_s * 1000)


def _declines(run: Run) -> list[Attempt]:
    """Since it last ran, the last first."""
    return list(takewhile(lambda a: a.outcome is Outcome.DECLINED, reversed(run.attempts)))


def _has_declined(run: Run, held: Held | None) -> bool:
    """Since it last ran; an agent that has begun anew since hasn't."""
    presence = held.record if held is not None else None
    if held is None or not isinstance(presence, Presence):
        return False
    return any(
        a.agent == presence.agent
        and (a.token > held.create_revision or a.agent_since == presence.since)
        for a in _declines(run)
    )


def _was_kept(run: Run) -> bool:
    """Whether it has waited outside any buffer. (Or for a conflict that cleared late: then its
    buffer's time is over anyhow.)"""
    return any(past.state in (RunState.QUEUED, RunState.HELD) for past in run.history[:-1])


def _created_at(held: Held | None) -> int:
    return held.create_revision if held is not None else 0
