"""Signals that end a command, or stop it for a while, by way of its ``finally`` blocks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Final

__all__ = ["HUNG_UP", "STOPS", "Signalled", "on_signals", "signals_raised", "stop_as_asked"]


def _those_there(*names: str) -> tuple[signal.Signals, ...]:
    """Windows has few of them."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


_ENDS: Final = _those_there("SIGTERM", "SIGHUP")
STOPS: Final = _those_there("SIGTSTP")
"""Ctrl-Z."""
HUNG_UP: Final = 1
"""SIGHUP: the terminal is gone."""


class Signalled(SystemExit):
    """A signal came. Unless somebody takes it, the process ends as shells expect it to."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


@contextlib.contextmanager
def on_signals(numbers: Iterable[int], action: Callable[[int], None]) -> Iterator[None]:
    """``action`` is called in the running event loop with the number of each that comes."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        for number in numbers:
            try:
                loop.add_signal_handler(number, action, number)
                stack.callback(loop.remove_signal_handler, number)
            except NotImplementedError:  # Windows.
                before = signal.signal(
                    number, lambda came, _: loop.call_soon_threadsafe(action, came)
                )
                stack.callback(signal.signal, number, before)
        yield


@contextlib.contextmanager
def signals_raised(*more: signal.Signals) -> Iterator[None]:
    """What is inside is cancelled by SIGTERM, SIGHUP and ``more``, and leaves as ``Signalled``.
    What is ignored already (nohup) stays so."""
    task = asyncio.current_task()
    assert task is not None
    came: list[int] = []

    def take(number: int) -> None:
        came.append(number)
        task.cancel()

    taken = [n for n in (*_ENDS, *more) if signal.getsignal(n) is signal.SIG_DFL]
    with on_signals(taken, take):
        try:
            yield
        except asyncio.CancelledError:
            if not came:
                raise
            task.uncancel()
            raise Signalled(came[0]) from None


def stop_as_asked() -> None:
    """Returns once it goes on; at once where there is no shell to say so."""
    for number in STOPS:
        signal.raise_signal(number)
