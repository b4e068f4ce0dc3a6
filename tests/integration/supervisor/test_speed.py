"""What going through the supervisor costs, beside spawning from asyncio directly.

In processor time, since other tests run beside this one: how long it takes on a machine of its
own is the benchmark's to say.
"""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

from etcsched.agent.supervisor.messages import Ended
from tests.integration.supervisor.host import Agent, Host

IN_FLIGHT = 16
PER_ROUND = 150
ROUNDS = 3
COST_MAX = 1.25
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


async def test_an_attempt_costs_about_what_a_bare_spawn_does(host: Host) -> None:
    """The two take turns, so that whatever else the machine does falls on both. Where a mount may
    hang, which another test's may, an attempt is forked and costs twice as much."""
    host.start_as_if_mounts(may_hang=False)
    async with host.agent() as agent:
        ours_s, bare_s = 0.0, 0.0
        for turn in range(ROUNDS):
            before_s = _spent_here_s() + _spent_by_supervisor_s(agent)
            await run_attempts(agent, turn)
            between_s = _spent_here_s()
            ours_s += between_s + _spent_by_supervisor_s(agent) - before_s
            await spawn_bare()
            bare_s += _spent_here_s() - between_s
    print(f"\nprocessor time: attempts {ours_s:.2f} s, bare spawns {bare_s:.2f} s")
    assert ours_s <= COST_MAX * bare_s


def _spent_here_s() -> float:
    """By this process and its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _spent_by_supervisor_s(agent: Agent) -> float:
    """By the pair and its children that have ended."""
    pair = (agent.supervisor_pid(), agent.guardian_pid())
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pair)
    # utime, stime, cutime, cstime; proc_pid_stat(5) counts from the first field on.
    return sum(int(field) for stat in stats for field in stat[11:15]) / TICKS_PER_S


async def run_attempts(agent: Agent, turn: int) -> None:
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


async def spawn_bare() -> None:
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

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(spawn_until_done())
