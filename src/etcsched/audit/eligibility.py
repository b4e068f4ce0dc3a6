"""Who could take a run, and when it may start: the auditor's own judgement (SEMANTICS, dynamic
assignment)."""

from __future__ import annotations

from collections.abc import Iterator

from etcsched.audit.state import Keyspace
from etcsched.core.records import Assignment, ClusterSettings, Drain, Job, Kind, Presence, Run
from etcsched.core.states import JobState, OnDisconnect, Origin, RunState

__all__ = [
    "ELIGIBILITY",
    "eligible_for",
    "is_free",
    "may_run_on",
    "runs_as",
    "states_to_start",
    "suits",
    "used_slots",
]

ELIGIBILITY = frozenset({Kind.PRESENCE, Kind.DRAIN, Kind.SEAT, Kind.SETTINGS, Kind.JOB})
"""What decides who is eligible."""
_ANYBODY = "*"
"""... but root, and whoever isn't named."""


def runs_as(job: Job, presence: Presence) -> bool:
    """Whether the agent's policy lets the job's user run there."""
    user = job.user or presence.default_user
    return user in presence.users or (_ANYBODY in presence.users and user not in ("", "root"))


def suits(job: Job, presence: Presence) -> bool:
    """By the job's hosts and labels, and its user."""
    if job.hosts and presence.agent not in job.hosts:
        return False
    if any(presence.labels.get(name) != value for name, value in job.require.items()):
        return False
    return runs_as(job, presence)


def is_free(state: Keyspace, presence: Presence) -> bool:
    """It receives runs: it stays, isn't drained, and, where seats are bounded, has one. Where more
    have one than may, who keeps his is the leader's to say: then nobody surely has one."""
    if presence.draining or state.record(Drain, Kind.DRAIN, presence.agent) is not None:
        return False
    settings = state.record(ClusterSettings, Kind.SETTINGS)
    most = settings.max_active_agents if settings is not None else None
    if most is None:
        return True
    seats = state.all_of(Kind.SEAT)
    return (presence.agent,) in seats and len(seats) <= most


def eligible_for(state: Keyspace, job: Job) -> Iterator[Presence]:
    """The agents that may run its ticks, full or not."""
    for held in state.all_of(Kind.PRESENCE).values():
        presence = held.record
        if isinstance(presence, Presence) and suits(job, presence) and is_free(state, presence):
            yield presence


def states_to_start(run: Run) -> frozenset[JobState]:
    """Those of its job in which the run may start, unless it is forced."""
    states = {JobState.ENABLED}
    if run.origin in (Origin.REQUEST, Origin.RESUBMISSION, Origin.LIFECYCLE):
        states.add(JobState.AD_HOC_ACTIVE)
    if run.origin in (Origin.CHAIN, Origin.RESUBMISSION):
        states.add(JobState.CHAIN_ACTIVE)
    return frozenset(states)


def used_slots(state: Keyspace, agent: str) -> int:
    return sum(_takes_slot(state, agent, *place) for place in state.work_of.get(agent, ()))


def _takes_slot(state: Keyspace, agent: str, job: str, run_id: str) -> bool:
    """Not one that is held since the agent was lost, unless its process may run on."""
    run = state.record(Run, Kind.RUN, job, run_id)
    if run is None or run.state is not RunState.HELD:
        return True
    assignment = state.record(Assignment, Kind.ASSIGNMENT, agent, job, run_id)
    return assignment is None or assignment.on_disconnect is OnDisconnect.CONTINUE


def may_run_on(state: Keyspace, job: str, run_id: str) -> bool:
    """Whether the run holds its job's conflict groups: it is assigned, or is held since its agent
    was lost, and its process may run on."""
    run = state.record(Run, Kind.RUN, job, run_id)
    is_held = run is not None and run.state is RunState.HELD
    for agent in state.agents_of.get((job, run_id), ()):
        assignment = state.record(Assignment, Kind.ASSIGNMENT, agent, job, run_id)
        runs_on = assignment is not None and assignment.on_disconnect is OnDisconnect.CONTINUE
        if runs_on or not is_held:
            return True
    return False
