"""Which ticks are due and not decided yet, and which of them is to be looked at next."""

from __future__ import annotations

import heapq

_Place = tuple[int, int, str]
"""(tick, -priority, job): of ticks of one instant, those of the highest priority first."""


class OpenTicks:
    """A tick is *open* from the moment it is due until its decision is confirmed by etcd; the
    watermark never passes an open one.

    An open tick waits to be taken (``take``), is in somebody's hands, or is parked until its job
    is woken. Ticks of one job are taken in their order.
    """

    def __init__(self) -> None:
        self._open: dict[str, set[int]] = {}
        self._held: dict[str, int] = {}
        self._by_time: list[tuple[int, str]] = []
        self._untaken: list[_Place] = []
        self._parked: dict[str, list[_Place]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def is_open(self, job: str, tick_ms: int) -> bool:
        return tick_ms in self._open.get(job, ())

    def first_of(self, job: str) -> int | None:
        """The earliest instant of the job that is open or held."""
        return min((*self._open.get(job, ()), *self._held_of(job)), default=None)

    def first_ms(self) -> int | None:
        """The earliest of all jobs."""
        while self._by_time:
            at_ms, job = self._by_time[0]
            if self.is_open(job, at_ms) or at_ms in self._held_of(job):
                return at_ms
            heapq.heappop(self._by_time)
        return None

    def hold(self, job: str, at_ms: int) -> None:
        """Keep the watermark before ``at_ms``, whether or not that is a tick of the job's, until
        the job is released. One instant a job."""
        self._held[job] = at_ms
        heapq.heappush(self._by_time, (at_ms, job))

    def release(self, job: str) -> None:
        self._held.pop(job, None)

    def _held_of(self, job: str) -> tuple[int, ...]:
        return (self._held[job],) if job in self._held else ()

    def add(self, job: str, tick_ms: int, priority: int) -> None:
        """A tick that is due; of one that is open already, nothing changes."""
        if not self.is_open(job, tick_ms):
            self._open.setdefault(job, set()).add(tick_ms)
            heapq.heappush(self._by_time, (tick_ms, job))
            heapq.heappush(self._untaken, (tick_ms, -priority, job))

    def add_again(self, job: str, tick_ms: int, priority: int) -> None:
        """The decision of a tick that was taken didn't hold."""
        if self.is_open(job, tick_ms):
            heapq.heappush(self._untaken, (tick_ms, -priority, job))

    def confirm(self, job: str, tick_ms: int) -> None:
        """The tick's decision is in etcd."""
        open_ticks = self._open.get(job)
        if open_ticks is not None:
            open_ticks.discard(tick_ms)
            if not open_ticks:
                del self._open[job]

    def take(self, horizon_ms: int) -> _Place | None:
        """The next open tick up to the horizon; None: there is none to look at now."""
        while self._untaken and self._untaken[0][0] <= horizon_ms:
            place = heapq.heappop(self._untaken)
            if not self.is_open(place[2], place[0]):
                continue
            if place[2] not in self._parked:
                return place
            self.park(place)  # Behind an earlier one of its job, whatever has changed since.
        return None

    def is_held_up(self, horizon_ms: int) -> bool:
        """Whether ticks wait for nothing but the horizon."""
        return bool(self._untaken) and self._untaken[0][0] > horizon_ms

    def park(self, place: _Place) -> None:
        """It can't be decided before something of its job is settled."""
        self._parked.setdefault(place[2], []).append(place)

    def wake(self, job: str) -> None:
        """Something of this job is settled."""
        for place in self._parked.pop(job, ()):
            heapq.heappush(self._untaken, place)
