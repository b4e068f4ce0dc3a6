"""Waiting that outlasts an etcd that is away, and says so: a watch does the first alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from etcsched.core.errors import ClusterUnreachable, EtcschedError
from etcsched.keyspace.ops import Range
from etcsched.ports import Etcd

__all__ = ["Patience"]

T = TypeVar("T")

_LOOK_EVERY_S: Final = 2.0


class Patience:
    """``say`` hears once that etcd can't be reached, and once that it can be again."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.trouble = ""
        """What was said last, as long as it lasts."""

    async def read(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What ``ask`` returns once etcd answers; it is asked again until then."""
        while True:
            try:
                result = await ask()
            except ClusterUnreachable as error:
                self._is_away(error)
                await asyncio.sleep(_LOOK_EVERY_S)
            else:
                self._is_here()
                return result

    @asynccontextmanager
    async def beside_a_watch(self, etcd: Etcd, key: str) -> AsyncIterator[None]:
        """Looks at ``key`` now and then, since a watch that waits for etcd says nothing."""
        looking = asyncio.create_task(self._look(etcd, key))
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    async def _look(self, etcd: Etcd, key: str) -> None:
        while True:
            try:
                await etcd.range(Range(key, keys_only=True))
            except EtcschedError as error:
                # Whether waiting is no use is for the watch to decide.
                self._is_away(error)
            else:
                self._is_here()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _is_away(self, error: EtcschedError) -> None:
        if not self.trouble:
            self.trouble = f"{error}; still waiting"
            self.say(self.trouble)

    def _is_here(self) -> None:
        if self.trouble:
            self.trouble = ""
            self.say("etcd can be reached again; still waiting")
