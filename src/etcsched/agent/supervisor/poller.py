"""What the supervisor waits for: descriptors that are ready, and another try at what the kernel
refuses at present, since no descriptor is left, say."""

from __future__ import annotations

import math
import select
from collections.abc import Callable

from etcsched.agent.supervisor.kernel import boottime_s

__all__ = ["Poller"]

AGAIN_S = 0.1


class Poller:
    """``log`` hears of each refusal once, until all of them are over."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self.epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self.again_at_s = math.inf
        """When what was put off is due."""
        self._refusals: set[str] = set()

    def watch(self, fd: int, handler: Callable[[int], None]) -> None:
        """``handler`` gets epoll's mask whenever there is something to read, or the end."""
        self._handlers[fd] = handler
        self.epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def watches(self, fd: int) -> bool:
        return fd in self._handlers

    def poll(self, timeout_s: float) -> None:
        """Returns after the handlers of what is ready. -1: however long it takes."""
        for fd, mask in self.epoll.poll(timeout_s):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler(mask)

    def put_off(self, what: str, error: OSError) -> None:
        """Nothing is told of that which isn't known or done; it is tried again until it is."""
        self.again_at_s = min(self.again_at_s, boottime_s() + AGAIN_S)
        refusal = f"{what}: {error.strerror}; tried again until it works"
        if refusal not in self._refusals:
            self._refusals.add(refusal)
            self._log(refusal)

    def try_again(self, *tries: Callable[[], None]) -> None:
        """Each of these puts itself off again if it must."""
        if self.again_at_s > boottime_s():
            return
        self.again_at_s = math.inf
        for each in tries:
            each()
        if self.again_at_s == math.inf:
            self._refusals.clear()
