"""Virtual time: what is due happens, in order, and nothing else."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

from etcsched.core.clock import Instant
from etcsched.testing.model_store import ModelStore, next_look_s

MOST_AT_ONCE = 50_000
"""More at one instant are a loop that makes no progress."""


class NoProgress(Exception):
    """Time stands still."""


class Loop:
    """``now_s`` is true time, which no node's clock need agree with."""

    def __init__(self, store: ModelStore, start_ms: int) -> None:
        self.store = store
        self.start_ms = start_ms
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    @property
    def now_s(self) -> float:
        return self.store.now_s

    @property
    def now_ms(self) -> int:
        return self.start_ms + round(self.store.now_s * 1000)

    def at(self, when_s: float, action: Callable[..., None], *arguments: Any) -> None:
        self._order += 1
        heapq.heappush(self._due, (when_s, self._order, action, arguments))

    def after(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        self._order += 1
        heapq.heappush(self._due, (self.store.now_s + delay_s, self._order, action, arguments))

    def run_until(self, end_s: float) -> None:
        due, store = self._due, self.store
        at_once, last_s, look_s = 0, -1.0, 0.0
        while True:
            next_s = due[0][0] if due else math.inf
            if next_s >= look_s:
                # The store looks for leases that have expired at certain times only.
                expiry_s = store.next_expiry_s()
                if expiry_s is not None and expiry_s <= next_s and expiry_s <= end_s:
                    store.advance(expiry_s)
                    continue
                look_s = next_look_s(min(next_s, end_s))
            if next_s > end_s:
                break
            at_once = at_once + 1 if next_s == last_s else 0
            last_s = next_s
            if at_once > MOST_AT_ONCE:
                raise NoProgress(f"no progress at second {next_s}: {due[0][2]}")
            _, _, action, arguments = heapq.heappop(due)
            if next_s > store.now_s:
                store.now_s = next_s
            action(*arguments)
        store.advance(end_s)


class Clock:
    """One host's: a monotonic clock that may run fast or slow, and a wall clock that may be wrong
    besides."""

    def __init__(self, loop: Loop, began_at_s: float) -> None:
        """``began_at_s``: what the monotonic clock shows now; hosts differ in it."""
        self._loop = loop
        self._time = loop.store
        self.rate = 1.0
        self._since_s = loop.now_s
        self._mono_s = began_at_s
        self._wall_less_mono_ms = loop.now_ms - began_at_s * 1000

    def mono_s(self) -> float:
        return self._mono_s + (self._time.now_s - self._since_s) * self.rate

    def now(self) -> Instant:
        mono_s = self._mono_s + (self._time.now_s - self._since_s) * self.rate
        return Instant(round(self._wall_less_mono_ms + mono_s * 1000), mono_s)

    def wrong_s(self) -> float:
        """How far the wall clock is ahead of true time."""
        return (self.now().wall_ms - self._loop.now_ms) / 1000

    def true_s(self, local_s: float) -> float:
        """How much true time passes while this clock counts so much."""
        return local_s / self.rate

    def run_at(self, rate: float) -> None:
        self._mono_s, self._since_s = self.mono_s(), self._loop.now_s
        self.rate = rate

    def step_wall(self, by_s: float) -> None:
        self._wall_less_mono_ms += by_s * 1000

    def set_right(self) -> None:
        self.run_at(1.0)
        self._wall_less_mono_ms = self._loop.now_ms - self.mono_s() * 1000
