"""A command's work against the cluster: one event loop, one client, always closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from etcsched.keyspace.keys import Keys
from etcsched.ports import Etcd
from etcsched_cli.settings import Settings

__all__ = ["run"]

T = TypeVar("T")


def run(settings: Settings, work: Callable[[Etcd, Keys], Awaitable[T]]) -> T:
    """What ``work`` returns; errors pass through."""
    keys = Keys(settings.prefix)
    config = settings.etcd_config()

    async def connected() -> T:
        etcd = settings.environment.open_etcd(config, settings.timeout_s)
        try:
            return await work(etcd, keys)
        finally:
            await etcd.close()

    return asyncio.run(connected())
