"""Coroutines in virtual time, for what operators do: as much of asyncio's loop as they use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from etcsched.testing.sim.loop import Loop


class VirtualLoop:
    """Nothing happens but by the simulator's loop. To asyncio it is an event loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._self: Any = self

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Until its end; what it raises goes to whoever runs the simulator."""
        task = asyncio.Task(work, loop=self._self)
        task.add_done_callback(lambda done: done.result())

    def time(self) -> float:
        return self._loop.now_s

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_at(self._loop.now_s, callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._loop.now_s + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._self, context)
        self._loop.at(max(when, self._loop.now_s), self._run, handle)
        return handle

    def _run(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        # As BaseEventLoop does around what it runs.
        asyncio.events._set_running_loop(self._self)
        try:
            handle._run()
        finally:
            asyncio.events._set_running_loop(None)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._self)

    def create_task(self, coro: Any, **_more: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self._self)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        raise error if isinstance(error, BaseException) else AssertionError(context["message"])

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        return
