"""Signals that are lost to nobody, though their program be replaced by itself.

A signal is taken by any thread that doesn't block it. Those that gRPC starts would take one while
the main thread is on its way into ``execv``, and it would end with them. So every thread blocks
these signals, from before there is a second one: what comes waits in the kernel, over the
replacement too, until a thread of ours asks for it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

HEARD = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_END = signal.SIGUSR1
"""To the thread that listens, by which it ends; it means nothing when others send it."""


def keep_signals() -> None:
    """From here on they wait for ``HeardSignals``. To be called before there are other threads.

    A SIGHUP that waits since before this program replaced itself has got what it asked for.
    """
    for number in (*HEARD, _END):
        # Whoever started us may have had it ignored (nohup); then it wouldn't wait, but be gone.
        signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*HEARD, _END})
    if signal.SIGHUP in signal.sigpending():
        signal.sigwait({signal.SIGHUP})


class HeardSignals:
    """While entered, tells each that comes, and those that wait: ``tell`` is called in a thread of
    its own. Once left, what comes waits again."""

    def __init__(self, tell: Callable[[int], object]) -> None:
        self._tell = tell
        self._is_over = False
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = True
        assert self._thread.ident is not None
        signal.pthread_kill(self._thread.ident, _END)
        self._thread.join()

    def _listen(self) -> None:
        while True:
            number = signal.sigwait({*HEARD, _END})
            if number != _END:
                self._tell(number)
            elif self._is_over:
                return
