"""Which agents may run a job, and which of them does (SEMANTICS, dynamic assignment)."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import msgspec

from etcsched.core.agent.users import allows
from etcsched.core.records import Job, Presence

_Place = tuple[float, int, str]
"""(taken share of the slots - 1, - free slots, agent): the smallest is the least loaded."""


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


class Pool:
    """The agents that are eligible for one requirement, the least loaded first.

    That is the one with the smallest share of its slots taken; equals go by the larger number of
    free slots, then by name. Whoever changes an agent's load says so (``load_changed``); the cost
    of a choice doesn't grow with the number of agents.
    """

    def __init__(self, slots: dict[str, int], used_slots: Callable[[str], int]) -> None:
        self._slots = slots
        self._used_slots = used_slots
        self._build()

    def __len__(self) -> int:
        return len(self._slots)

    def load_changed(self, agent: str) -> None:
        if agent in self._slots:
            heapq.heappush(self._places, self._place(agent))
            if len(self._places) > 4 * len(self._slots) + 64:
                self._build()

    def choose(self, avoid: frozenset[str] = frozenset()) -> str | None:
        """None: all are full. Agents to avoid (they failed this run before) come last."""
        avoided: list[_Place] = []
        chosen: str | None = None
        while self._places:
            place = self._places[0]
            agent = place[2]
            if place != self._place(agent):
                heapq.heappop(self._places)  # Its load has changed since.
            elif place[1] >= 0:
                break  # Full, and so are all behind it.
            elif agent in avoid:
                avoided.append(heapq.heappop(self._places))
            else:
                chosen = agent
                break
        for place in avoided:
            heapq.heappush(self._places, place)
        return avoided[0][2] if chosen is None and avoided else chosen

    def _build(self) -> None:
        self._places = [self._place(agent) for agent in self._slots]
        heapq.heapify(self._places)

    def _place(self, agent: str) -> _Place:
        slots = self._slots[agent]
        busy = self._used_slots(agent) - slots
        return (busy / slots if slots else 0.0, busy, agent)
