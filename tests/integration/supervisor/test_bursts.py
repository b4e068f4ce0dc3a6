"""Starts that come in a burst."""

from __future__ import annotations

import os
import signal

from etcsched.agent.supervisor.kernel import boottime_s
from etcsched.agent.supervisor.messages import Ended, EndReason
from etcsched.agent.supervisor_client import SupervisorEvent
from tests.integration.supervisor.host import Host

BURST = 100
"""Little enough to lie in the socket's buffer while the supervisor is stopped."""


async def test_deadlines_and_kills_do_not_wait_for_starts(host: Host) -> None:
    async with host.agent() as agent:
        agent.shell("running", "exec sleep 1000")
        await agent.started("running")
        supervisor = agent.supervisor_pid()
        os.kill(supervisor, signal.SIGSTOP)
        for number in range(BURST):
            agent.start(f"{number}", "/bin/sleep", "1000")
        deadline_s = boottime_s() + 100.0
        answered_after = -1
        events: list[SupervisorEvent] = []
        wire = agent.client._wire
        heard = wire._deadline_moved

        def note(sequence: int) -> None:
            nonlocal answered_after
            answered_after = len(events) + len(wire._reports)
            heard(sequence)

        wire._deadline_moved = note  # type: ignore[method-assign]
        agent.client.move_deadline(deadline_s)
        agent.client.kill("running", EndReason.CANCELLED, grace_s=5.0)
        assert wire._transport is not None
        assert wire._transport.get_write_buffer_size() == 0
        os.kill(supervisor, signal.SIGCONT)
        while len(events) < BURST + 1:
            events.append(await agent.next_event())
        assert answered_after < BURST // 2
        ended_as = [isinstance(event, Ended) for event in events].index(True)
        assert ended_as < BURST
    async with host.agent() as agent:
        running = agent.client.inventory.running
        assert len(running) == BURST
        assert {attempt.deadline_mono_s for attempt in running} == {deadline_s}
