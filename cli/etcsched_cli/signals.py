"""Signals that end a command, or stop it for a while, by way of its ``finally`` blocks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from typing import Final

__all__ = ["STOPPED", "Signalled", "signals_raised", "stop_as_asked"]

_ENDED: Final = (signal.SIGTERM, signal.SIGHUP)
STOPPED: Final = signal.SIGTSTP
"""Ctrl-Z."""


class Signalled(SystemExit):
    """A signal came. Unless somebody takes it, the process ends as shells expect it to."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


@contextlib.contextmanager
def signals_raised(*more: signal.Signals) -> Iterator[None]:
    """What is inside is cancelled by SIGTERM, SIGHUP and ``more``, and leaves as ``Signalled``.
    What is ignored already (nohup) stays so."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    came: list[int] = []

    def take(number: int) -> None:
        came.append(number)
        task.cancel()

    taken = [n for n in (*_ENDED, *more) if signal.getsignal(n) is signal.SIG_DFL]
    for number in taken:
        loop.add_signal_handler(number, take, number)
    try:
        yield
    except asyncio.CancelledError:
        if not came:
            raise
        task.uncancel()
        raise Signalled(came[0]) from None
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


def stop_as_asked() -> None:
    """Returns once it goes on; at once where there is no shell to say so."""
    signal.raise_signal(STOPPED)
