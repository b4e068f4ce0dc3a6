"""The runs that wait for an agent, grouped by what they ask of it."""

from __future__ import annotations

import heapq

from etcsched.core.leader.placement import Requirement
from etcsched.core.records import Run
from etcsched.core.view import RunKey

_Place = tuple[int, str, RunKey]


class Waiting:
    """Highest priority first, then the earliest due. A run's place is dropped lazily: whoever
    takes a run looks whether it still waits."""

    def __init__(self) -> None:
        self._queues: dict[Requirement, list[_Place]] = {}
        self._members: dict[RunKey, Requirement] = {}

    def __len__(self) -> int:
        return len(self._members)

    def put(self, run: Run, requirement: Requirement) -> None:
        key = (run.job, run.id)
        if self._members.get(key) == requirement:
            return
        self._members[key] = requirement
        queue = self._queues.setdefault(requirement, [])
        heapq.heappush(queue, (-run.priority, run.scheduled_at or run.created_at, key))

    def discard(self, key: RunKey) -> None:
        self._members.pop(key, None)

    def requirements(self) -> list[Requirement]:
        return list(self._queues)

    def take(self, requirement: Requirement) -> RunKey | None:
        """The first run that asks this, taken out; None: there is none."""
        queue = self._queues.get(requirement, [])
        while queue:
            key = heapq.heappop(queue)[2]
            if self._members.get(key) == requirement:
                del self._members[key]
                return key
        self._queues.pop(requirement, None)
        return None
