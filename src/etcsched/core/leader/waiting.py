"""The runs that wait for an agent, grouped by what they ask of it."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable

from etcsched.core.leader.placement import Requirement
from etcsched.core.records import Run
from etcsched.core.states import RunState
from etcsched.core.view import RunKey

_Place = tuple[int, str, RunKey]

_FIRST = 1 << 40
"""What comes before any priority."""


class Waiting:
    """An agent's own startup and shutdown first, then the highest priority, then the earliest due,
    whatever they ask. A run that was discarded leaves its place behind; the place is dropped when
    its turn comes."""

    def __init__(self) -> None:
        self._queues: dict[Requirement, list[_Place]] = {}
        self._members: dict[RunKey, Requirement] = {}
        self._of_job: defaultdict[str, dict[RunKey, _Place]] = defaultdict(dict)
        self._lanes: dict[RunKey, str] = {}
        """Of those that are queued behind others of their lane."""
        self._queued: Counter[str] = Counter()

    def __contains__(self, key: RunKey) -> bool:
        return key in self._members

    def __len__(self) -> int:
        return len(self._members)

    def put(self, run: Run, requirement: Requirement) -> None:
        key = (run.job, run.id)
        if run.state is RunState.QUEUED and key not in self._lanes:
            self._lanes[key] = run.lane
            self._queued[run.lane] += 1
        if self._members.get(key) == requirement:
            return
        self._members[key] = requirement
        first = _FIRST if run.is_bound_to_incarnation else 0
        place = (-run.priority - first, run.scheduled_at or run.created_at, key)
        self._of_job[run.job][key] = place
        queue = self._queues.setdefault(requirement, [])
        heapq.heappush(queue, place)

    def queued_in(self, lane: str) -> int:
        """How many of the lane's queued runs wait here."""
        return self._queued[lane]

    def discard(self, key: RunKey) -> None:
        self._members.pop(key, None)
        lane = self._lanes.pop(key, None)
        if lane is not None:
            self._queued[lane] -= 1
        places = self._of_job.get(key[0])
        if places is not None:
            places.pop(key, None)
            if not places:
                del self._of_job[key[0]]

    def place_of(self, key: RunKey) -> int | None:
        """How many of all that wait come before this run; its cost grows with them."""
        mine = self._of_job.get(key[0], {}).get(key)
        if mine is None:
            return None
        return sum(place < mine for places in self._of_job.values() for place in places.values())

    def firsts_of(self, job: str) -> list[RunKey]:
        """In their order, the job's runs that come first of those that ask the same: if one gets
        no agent, nor does any other of these."""
        firsts: dict[Requirement, _Place] = {}
        for key, place in self._of_job.get(job, {}).items():
            requirement = self._members[key]
            first = firsts.get(requirement)
            if first is None or place < first:
                firsts[requirement] = place
        return [place[2] for place in sorted(firsts.values())]

    def serve(self, offer: Callable[[Requirement, RunKey], bool]) -> None:
        """Offer each run in its turn. True takes it out of here; False: nobody can take it, nor
        any other that asks the same."""
        turns: list[tuple[_Place, int, Requirement]] = []
        for number, requirement in enumerate(list(self._queues)):
            self._push_first(turns, number, requirement)
        while turns:
            place, number, requirement = heapq.heappop(turns)
            if offer(requirement, place[2]):
                heapq.heappop(self._queues[requirement])
                self.discard(place[2])
                self._push_first(turns, number, requirement)

    def _push_first(
        self, turns: list[tuple[_Place, int, Requirement]], number: int, requirement: Requirement
    ) -> None:
        queue = self._queues[requirement]
        while queue and self._members.get(queue[0][2]) != requirement:
            heapq.heappop(queue)
        if queue:
            heapq.heappush(turns, (queue[0], number, requirement))
        else:
            del self._queues[requirement]
