"""Which agents may run a job, and what decides which of them does (SEMANTICS, dynamic assignment).

Whoever tried a run before and failed comes last, whatever the policy says; whoever declined it
isn't asked again before it has run elsewhere, its job was edited, or that agent has begun anew.
Then comes the job's preference, and then its placement policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile

import msgspec

from etcsched.core.agent.users import allows
from etcsched.core.records import Attempt, Job, Presence, Run
from etcsched.core.states import HostsFor, Origin, Outcome, Placement
from etcsched.core.view import Entry

_UNSCHEDULED = frozenset({Origin.REQUEST, Origin.CHAIN})
"""A resubmission stands for its original, which a job's hosts are for."""


class Requirement(msgspec.Struct, frozen=True):
    """What a run asks of an agent; runs that ask the same share their waiting queue."""

    hosts: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    user: str
    prefer: tuple[str, ...] = ()
    placement: Placement = Placement.LEAST_LOADED
    incarnation: str = ""
    is_leaving: bool = False
    """It is for an agent that stops, before it goes."""
    without: frozenset[str] = frozenset()
    """Agents that have declined the run (see ``Agents.wanted``)."""


def requirement_of(job: Job, origin: Origin = Origin.SCHEDULE) -> Requirement:
    """What a run of this job asks, by where the run comes from."""
    is_free = job.hosts_for is HostsFor.SCHEDULED and origin in _UNSCHEDULED
    return Requirement(
        () if is_free else job.hosts,
        () if is_free else tuple(sorted(job.require.items())),
        job.user,
        job.prefer,
        job.placement,
    )


def declines_of(run: Run) -> list[Attempt]:
    """Those since it last ran, the last first."""
    return list(takewhile(lambda a: a.outcome is Outcome.DECLINED, reversed(run.attempts)))


def decliners_of(
    run: Run, job_revision: int, presences: Mapping[str, Entry[Presence]]
) -> frozenset[str]:
    """The agents that have declined it since it last ran, and would again: their hosts lack its
    user, say. Not so once its job was edited, or the agent has begun anew."""
    return frozenset(
        each.agent
        for each in declines_of(run)
        if each.token > job_revision
        and (entry := presences.get(each.agent)) is not None
        and entry.record.since == each.agent_since
    )


def requirement_of_run(job: Job, run: Run) -> Requirement:
    """A run that is bound to an agent asks for that one, whatever the job's hosts are by now."""
    labels = tuple(sorted(job.require.items()))
    if run.occasion is not None and run.host:
        return Requirement(
            (run.host,), labels, job.user, incarnation=run.incarnation,
            is_leaving=run.occasion.is_shutdown,
        )  # fmt: skip
    if run.host:
        return Requirement((run.host,), labels, job.user)
    if run.told_occasion is not None:
        return requirement_of(job)
    origin = run.origin
    if origin is Origin.RESUBMISSION and (run.chained_from or run.scheduled_at is None):
        origin = Origin.CHAIN if run.chained_from else Origin.REQUEST
    return requirement_of(job, origin)


def why_not(
    requirement: Requirement, presence: Presence, is_drained: bool, *, is_standby: bool = False
) -> str | None:
    """Why this agent isn't eligible, in words; None: it is. Slots are another matter: an agent
    that is full still counts as there. So is whether it has declined the run (see ``Agents``)."""
    if requirement.incarnation and presence.incarnation != requirement.incarnation:
        return "has begun anew since"
    if presence.draining and not requirement.is_leaving:
        return "is stopping"
    if requirement.is_leaving and not presence.draining:
        return "stays"
    if is_drained:
        return "is drained"
    if is_standby:
        return "stands by: all seats are taken (settings: max_active_agents)"
    if requirement.hosts and presence.agent not in requirement.hosts:
        return f"is not among the job's hosts ({', '.join(requirement.hosts)})"
    for name, value in requirement.labels:
        if presence.labels.get(name) != value:
            found = presence.labels.get(name)
            has = f"has {name}={found}" if found is not None else f"has no label {name}"
            return f"{has}, the job requires {name}={value}"
    user = requirement.user or presence.default_user
    if not allows(presence.users, user):
        if not user:
            return "has no --default-user, and the job names no user"
        return f"doesn't run jobs as {user} (see its --allow-user and --default-user)"
    return None


def rank_of(requirement: Requirement, presence: Presence) -> int:
    """The smaller, the better: an agent is chosen among those of the best rank that have a free
    slot. A preference is an agent's name or ``label=value``."""
    prefer, hosts = requirement.prefer, requirement.hosts
    preferred = next(
        (place for place, wanted in enumerate(prefer) if _is_meant(wanted, presence)), len(prefer)
    )
    if requirement.placement is not Placement.FIXED_PRIORITY:
        return preferred
    place = hosts.index(presence.agent) if presence.agent in hosts else len(hosts)
    return preferred * (len(hosts) + 1) + place


def _is_meant(wanted: str, presence: Presence) -> bool:
    name, is_label, value = wanted.partition("=")
    return presence.labels.get(name) == value if is_label else presence.agent == name


class Tried(msgspec.Struct, frozen=True):
    """Agents that have had a run before: ``unable`` are those of them that didn't start it,
    ``last`` had it last."""

    agents: frozenset[str] = frozenset()
    unable: frozenset[str] = frozenset()
    last: str = ""


NEVER_TRIED = Tried()


def tried_by(run: Run) -> Tried:
    """Told by the run's own attempts, so that every leader knows the same."""
    if not run.attempts:
        return NEVER_TRIED
    agents = frozenset(attempt.agent for attempt in run.attempts)
    return Tried(agents, frozenset(_unable(run)), run.attempts[-1].agent)


def _unable(run: Run) -> Iterable[str]:
    for attempt in run.attempts:
        is_over = attempt.outcome in (Outcome.DECLINED, Outcome.FAILED)
        if is_over and attempt.started_at is None:
            yield attempt.agent
