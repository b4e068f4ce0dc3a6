"""A program on a host: it hears of things while it lives, and later if it is frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from etcsched.testing.sim.loop import Clock, Loop

BEAT_S = 0.25
"""How often a node that is busy looks at the time."""
_IDLE_BEAT_S = 1.0


def idle_beat_s(ttl_s: float) -> float:
    """... and one that isn't: where sessions are long, more seldom."""
    return max(_IDLE_BEAT_S, ttl_s / 10)


class Process:
    """What is due for it while it is frozen happens when it thaws, in order. Dead is for ever: a
    restart is another process."""

    def __init__(self, loop: Loop, clock: Clock) -> None:
        self.loop = loop
        self.clock = clock
        self.is_alive = True
        self.is_frozen = False
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def hear(self, action: Callable[..., None], *arguments: Any) -> None:
        if not self.is_alive:
            return
        if self.is_frozen:
            self._held.append((action, arguments))
        else:
            action(*arguments)

    def after(self, local_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """By its own host's clock."""
        true_s = local_s / self.clock.rate
        self.loop.after(true_s if true_s > 0.0 else 0.0, self.hear, action, *arguments)

    def freeze(self) -> None:
        self.is_frozen = True

    def thaw(self) -> None:
        self.is_frozen = False
        held, self._held = self._held, []
        for action, arguments in held:
            self.hear(action, *arguments)

    def die(self) -> None:
        self.is_alive = False
        self._held.clear()
