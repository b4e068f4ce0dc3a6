"""What nodes say: in their logs, and on their pages of metrics."""

from __future__ import annotations

import asyncio
import urllib.request

from tests.support.local_world import LocalWorld

PATIENCE_S = 60.0
HEALTH_AT = "health and metrics at http://"


async def said(world: LocalWorld, node: str, words: str) -> str:
    """What follows these words in the node's log, once they are there."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for name, line in world.log:
                if name == node and words in line:
                    return line.partition(words)[2]
            await asyncio.sleep(0.05)


async def address_of(world: LocalWorld, node: str) -> str:
    """As its log says, be it for people or JSON."""
    return (await said(world, node, HEALTH_AT)).partition('"')[0]


async def metrics(world: LocalWorld, node: str) -> dict[str, float]:
    """By name and labels, as its page has them."""
    url = f"http://{await address_of(world, node)}/metrics"
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())
    lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def measured(world: LocalWorld, node: str, what: str, least: float = 1) -> dict[str, float]:
    """All metrics, once one of them has come to at least so much."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await metrics(world, node)
            if found.get(what, -1) >= least:
                return found
            await asyncio.sleep(0.1)
