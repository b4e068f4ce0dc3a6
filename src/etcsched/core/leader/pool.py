"""The agents that are eligible for one requirement, in the order of its policy.

Whoever changes an agent's load says so (``load_changed``); the cost of a choice grows at most
with the logarithm of the number of agents.
"""

from __future__ import annotations

import heapq
import zlib
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable

import msgspec

from etcsched.core.states import Placement


class Member(msgspec.Struct, frozen=True):
    """One eligible agent: how much it takes, and how well it suits (see ``rank_of``)."""

    slots: int
    rank: int = 0


Load = Callable[[str], int]
"""How many of an agent's slots are taken."""

NOBODY: frozenset[str] = frozenset()


class Pool(ABC):
    def __init__(self, members: dict[str, Member], used_slots: Load) -> None:
        self._members = members
        self._used_slots = used_slots

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, agent: str) -> bool:
        return agent in self._members

    @property
    def agents(self) -> list[str]:
        return sorted(self._members)

    @abstractmethod
    def load_changed(self, agent: str) -> None: ...

    @abstractmethod
    def choose(
        self,
        avoid: frozenset[str] = NOBODY,
        after: str | None = None,
        whose: str = "",
        without: frozenset[str] = NOBODY,
    ) -> str | None:
        """None: all are full, but for those ``without`` which it is. Agents to avoid (they failed
        this run before) come last. ``after`` had the last turn of the job ``whose``, where turns
        are taken."""


_Place = tuple[bool, int, float, int, str]
"""(full, rank, taken share of the slots, - free slots, agent): the smallest is chosen."""


class LoadedPool(Pool):
    """By rank, then the least loaded: the one with the smallest share of its slots taken; equals
    go by the larger number of free slots, then by name."""

    def __init__(self, members: dict[str, Member], used_slots: Load) -> None:
        super().__init__(members, used_slots)
        self._build()

    def load_changed(self, agent: str) -> None:
        if agent in self._members:
            heapq.heappush(self._places, self._place(agent))
            if len(self._places) > 4 * len(self._members) + 64:
                self._build()

    def choose(
        self,
        avoid: frozenset[str] = NOBODY,
        after: str | None = None,
        whose: str = "",
        without: frozenset[str] = NOBODY,
    ) -> str | None:
        passed: list[_Place] = []
        chosen: str | None = None
        while self._places:
            place = self._places[0]
            agent = place[-1]
            if place != self._place(agent):
                heapq.heappop(self._places)  # Its load has changed since.
            elif place[0]:
                break  # Full, and so are all behind it.
            elif agent in avoid or agent in without:
                passed.append(heapq.heappop(self._places))
            else:
                chosen = agent
                break
        for place in passed:
            heapq.heappush(self._places, place)
        if chosen is None:
            chosen = next((place[-1] for place in passed if place[-1] not in without), None)
        return chosen

    def _build(self) -> None:
        self._places = [self._place(agent) for agent in self._members]
        heapq.heapify(self._places)

    def _place(self, agent: str) -> _Place:
        member = self._members[agent]
        busy = self._used_slots(agent) - member.slots
        share = busy / member.slots if member.slots else 0.0
        return (busy >= 0, member.rank, share, busy, agent)


class RingPool(Pool):
    """By rank, then in turns: each job goes around all agents of a rank, in the order of their
    names. Where it begins follows from its own name, so that many jobs don't all begin with the
    same agent."""

    def __init__(self, members: dict[str, Member], used_slots: Load) -> None:
        super().__init__(members, used_slots)
        self._free = sorted(
            (member.rank, agent) for agent, member in members.items() if self._has_free(agent)
        )

    def load_changed(self, agent: str) -> None:
        member = self._members.get(agent)
        if member is None:
            return
        place = (member.rank, agent)
        at = bisect_left(self._free, place)
        is_in = at < len(self._free) and self._free[at] == place
        if is_in and not self._has_free(agent):
            del self._free[at]
        elif not is_in and self._has_free(agent):
            insort(self._free, place)

    def choose(
        self,
        avoid: frozenset[str] = NOBODY,
        after: str | None = None,
        whose: str = "",
        without: frozenset[str] = NOBODY,
    ) -> str | None:
        free, begin = self._free, 0
        avoided: str | None = None
        while begin < len(free):
            rank = free[begin][0]
            end = bisect_left(free, (rank + 1, ""))
            if after is not None:
                first = bisect_right(free, (rank, after), begin, end)
            else:
                first = begin + zlib.crc32(whose.encode()) % (end - begin)
            for number in range(end - begin):
                agent = free[begin + (first - begin + number) % (end - begin)][1]
                if agent in without:
                    continue
                if agent not in avoid:
                    return agent
                avoided = avoided or agent
            begin = end
        return avoided

    def _has_free(self, agent: str) -> bool:
        return self._used_slots(agent) < self._members[agent].slots


def pool_of(placement: Placement, members: dict[str, Member], used_slots: Load) -> Pool:
    made = RingPool if placement is Placement.ROUND_ROBIN else LoadedPool
    return made(members, used_slots)
