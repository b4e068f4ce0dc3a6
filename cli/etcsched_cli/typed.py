"""What somebody types while something is shown again and again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator

__all__ = ["is_set_within", "q_typed"]


@contextlib.contextmanager
def q_typed() -> Iterator[asyncio.Event]:
    """Set once q is typed, where this has a terminal to itself: it runs in the foreground, and no
    pager sits behind it. The terminal is left as it was."""
    typed = asyncio.Event()
    try:
        import termios
        import tty

        handle = sys.stdin.fileno()
        before = termios.tcgetattr(handle)
        is_ours = sys.stdout.isatty() and os.tcgetpgrp(handle) == os.getpgrp()
    except (ImportError, ValueError, OSError, termios.error):
        is_ours = False
    if not is_ours:
        yield typed
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            signs = os.read(handle, 256)
        except OSError:
            signs = b""  # The terminal is gone; SIGHUP comes.
        if b"q" in signs:
            typed.set()
        if not signs:
            loop.remove_reader(handle)

    tty.setcbreak(handle)
    loop.add_reader(handle, read)
    try:
        yield typed
    finally:
        loop.remove_reader(handle)
        # A terminal that is gone needs no mending.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(handle, termios.TCSADRAIN, before)


async def is_set_within(typed: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await typed.wait()
    return False
