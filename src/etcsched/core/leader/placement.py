"""Which agents may run a job, and which of them does (SEMANTICS, dynamic assignment)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from etcsched.core.agent.users import allows
from etcsched.core.records import Job, Presence


class Requirement(msgspec.Struct, frozen=True):
    """What a job asks of an agent; jobs that ask the same share their waiting queue."""

    hosts: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    user: str


def requirement_of(job: Job) -> Requirement:
    return Requirement(job.hosts, tuple(sorted(job.require.items())), job.user)


def why_not(requirement: Requirement, presence: Presence, is_drained: bool) -> str | None:
    """Why this agent isn't eligible, in words; None: it is. Slots are another matter: an agent
    that is full still counts as there."""
    if presence.draining:
        return "is stopping"
    if is_drained:
        return "is drained"
    if requirement.hosts and presence.agent not in requirement.hosts:
        return f"is not among the job's hosts ({', '.join(requirement.hosts)})"
    for name, value in requirement.labels:
        if presence.labels.get(name) != value:
            found = presence.labels.get(name)
            has = f"has {name}={found}" if found is not None else f"has no label {name}"
            return f"{has}, the job requires {name}={value}"
    user = requirement.user or presence.default_user
    if not allows(presence.users, user):
        return f"doesn't run jobs as {user or 'root'} (see its --allow-user and --default-user)"
    return None


def least_loaded(
    agents: Iterable[tuple[str, int]],
    used_slots: Callable[[str], int],
    avoid: frozenset[str] = frozenset(),
) -> str | None:
    """Of these agents (and their slots) the one with the smallest share of its slots taken; None:
    all are full.

    Agents to avoid (they failed this run before) come last. Equals go by the larger number of
    free slots, then by name.
    """
    best: tuple[bool, float, int, str] | None = None
    for agent, slots in agents:
        free = slots - used_slots(agent)
        if free > 0:
            place = (agent in avoid, -free / slots, -free, agent)
            if best is None or place < best:
                best = place
    return best[3] if best is not None else None
