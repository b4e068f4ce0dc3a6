"""What going through the supervisor costs, beside spawning from asyncio directly."""

from __future__ import annotations

import asyncio
import time

from etcsched.agent.supervisor.messages import Ended
from tests.integration.supervisor.host import Agent, Host

IN_FLIGHT = 16
PER_ROUND = 50
ROUNDS = range(9, 30)
RATIO_MIN = 0.8


async def test_attempts_run_nearly_as_fast_as_bare_spawns(host: Host) -> None:
    """The two take turns, short ones, so that whatever else the machine does slows both. What they
    took in all counts, and on a busy machine it may be a while until each had its fair share."""
    async with host.agent() as agent:
        ours_s, bare_s = 0.0, 0.0
        for turn in range(ROUNDS.stop):
            ours_s += await attempts_take_s(agent, turn)
            bare_s += await bare_spawns_take_s()
            if turn >= ROUNDS.start and bare_s / ours_s >= RATIO_MIN:
                break
    print(f"\nattempts took {ours_s:.2f} s, bare spawns {bare_s:.2f} s")
    assert bare_s / ours_s >= RATIO_MIN


async def attempts_take_s(agent: Agent, turn: int) -> float:
    begun_s = time.perf_counter()
    for number in range(IN_FLIGHT):
        agent.start(f"{turn}/{number}", "/bin/true")
    started, ended = IN_FLIGHT, 0
    while ended < PER_ROUND:
        event = await agent.next_event()
        if isinstance(event, Ended):
            assert event.exit_code == 0
            agent.client.acknowledge(event.attempt_id)
            ended += 1
            if started < PER_ROUND:
                agent.start(f"{turn}/{started}", "/bin/true")
                started += 1
    return time.perf_counter() - begun_s


async def bare_spawns_take_s() -> float:
    left = iter(range(PER_ROUND))

    async def spawn_until_done() -> None:
        for _ in left:
            process = await asyncio.create_subprocess_exec(
                "/bin/true",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            assert await process.wait() == 0

    begun_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(spawn_until_done())
    return time.perf_counter() - begun_s
