"""The runs that wait for an agent, grouped by what they ask of it."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable

from etcsched.core.leader.placement import Requirement
from etcsched.core.records import Run
from etcsched.core.states import RunState
from etcsched.core.view import RunKey

_Place = tuple[int, str, RunKey]

_Queues = dict[Requirement, list[_Place]]
"""In the order of their turns; none is empty."""

_FIRST = 1 << 40
"""What comes before any priority."""


class Waiting:
    """An agent's own startup and shutdown first, then the highest priority, then the earliest due,
    whatever they ask."""

    def __init__(self) -> None:
        self._places: dict[RunKey, tuple[_Place, Requirement]] = {}
        self._queues: _Queues = {}
        self._of_job: dict[str, _Queues] = {}
        self._lanes: dict[RunKey, str] = {}
        """Of those that are queued behind others of their lane."""
        self._queued: Counter[str] = Counter()
        self._declined: dict[RunKey, None] = {}

    def __contains__(self, key: RunKey) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def put(self, run: Run, requirement: Requirement) -> None:
        key = (run.job, run.id)
        if run.state is RunState.QUEUED and key not in self._lanes:
            self._lanes[key] = run.lane
            self._queued[run.lane] += 1
        first = _FIRST if run.is_bound_to_incarnation else 0
        place = (-run.priority - first, run.scheduled_at or run.created_at, key)
        before = self._places.get(key)
        if before == (place, requirement):
            return
        if before is not None:
            self._leave_queues(*before)
        self._places[key] = (place, requirement)
        if requirement.without:
            self._declined[key] = None
        for queues in (self._queues, self._of_job.setdefault(run.job, {})):
            insort(queues.setdefault(requirement, []), place)

    def queued_in(self, lane: str) -> int:
        """How many of the lane's queued runs wait here."""
        return self._queued[lane]

    def declined(self) -> list[RunKey]:
        """Those that agents have declined."""
        return list(self._declined)

    def discard(self, key: RunKey) -> None:
        before = self._places.pop(key, None)
        if before is not None:
            self._leave_queues(*before)
            self._declined.pop(key, None)
        lane = self._lanes.pop(key, None)
        if lane is not None:
            self._queued[lane] -= 1
            if not self._queued[lane]:
                del self._queued[lane]

    def _leave_queues(self, place: _Place, requirement: Requirement) -> None:
        job = place[2][0]
        for queues in (self._queues, self._of_job[job]):
            queue = queues[requirement]
            del queue[bisect_left(queue, place)]
            if not queue:
                del queues[requirement]
        if not self._of_job[job]:
            del self._of_job[job]

    def place_of(self, key: RunKey) -> int | None:
        """How many of all that wait come before this run."""
        mine = self._places.get(key)
        if mine is None:
            return None
        return sum(bisect_left(queue, mine[0]) for queue in self._queues.values())

    @property
    def jobs(self) -> list[str]:
        """Those of which a run waits."""
        return list(self._of_job)

    def asked_of(self, job: str) -> Collection[Requirement]:
        """What the job's runs ask."""
        return self._of_job.get(job, {}).keys()

    def firsts_of(self, job: str, but: Collection[Requirement] = ()) -> list[RunKey]:
        """In their order, the job's runs that come first of those that ask the same: if one gets
        no agent, nor does any other of these. ``but``: left out."""
        queues = self._of_job.get(job, {}).items()
        firsts = sorted(queue[0] for requirement, queue in queues if requirement not in but)
        return [place[2] for place in firsts]

    def all_of(self, job: str) -> Iterable[RunKey]:
        """The job's runs, those that ask the same in their order."""
        for queue in self._of_job.get(job, {}).values():
            yield from (place[2] for place in queue)

    def serve(
        self,
        offer: Callable[[Requirement, RunKey], bool],
        is_pointless: Callable[[Requirement], bool],
    ) -> None:
        """Offer each run in its turn. True takes it out of here; False: nobody can take it, nor
        any other that asks the same. ``is_pointless``: that is known."""
        turns: list[tuple[_Place, int, Requirement]] = []
        asked = (each for each in list(self._queues) if not is_pointless(each))
        for number, requirement in enumerate(asked):
            self._push_first(turns, number, requirement)
        while turns:
            place, number, requirement = heapq.heappop(turns)
            is_there = place[2] in self._places  # Another's turn may have taken it out.
            if is_there and not offer(requirement, place[2]):
                continue
            self.discard(place[2])
            self._push_first(turns, number, requirement)

    def _push_first(
        self, turns: list[tuple[_Place, int, Requirement]], number: int, requirement: Requirement
    ) -> None:
        queue = self._queues.get(requirement)
        if queue:
            heapq.heappush(turns, (queue[0], number, requirement))
