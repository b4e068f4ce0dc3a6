"""The agent's supervisor as the machine sees it: kept running, its reports as events."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable

from etcsched.agent.state_dir import StateDir
from etcsched.agent.supervisor import descriptors, messages
from etcsched.agent.supervisor_client import (
    SupervisorClient,
    SupervisorDied,
    SupervisorUnavailable,
)
from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev

log = logging.getLogger(__name__)

_RETRY_S = 2.0
GIVE_UP_AFTER_S = 30.0
"""An agent that can't run anything for so long ends: until it does, it is given runs."""

_CLOSING = (
    "the supervisor was told to stop: what runs here is ended, and nothing is claimed until then"
)


class Supervised:
    """Orders given while there is no supervisor go nowhere: the inventory of the next one says
    what became of the attempts."""

    def __init__(
        self,
        state: StateDir,
        agent: str,
        report: Callable[[ev.Event], None],
        *,
        slots: int,
        output_cap_bytes: int,
        isolate: bool,
        use_cgroup: bool,
    ) -> None:
        self._state = state
        self._agent = agent
        self._report = report
        self._slots = slots
        self._output_cap_bytes = output_cap_bytes
        self._isolate = isolate
        self._use_cgroup = use_cgroup
        self._client: SupervisorClient | None = None
        self._connecting: asyncio.Future[SupervisorClient] | None = None
        self._is_dismissed = False
        self._is_clean = True
        """Whether no process of the last supervisor lives; counts while there is no client, and
        for one that came only as its agent went."""
        self._wanted = asyncio.Event()

    async def connect(self) -> None:
        """Take over the supervisor that runs, or start one. Raises ``SupervisorUnavailable``."""
        # A start that has begun can't be taken back: ``close`` sees to what comes of it.
        self._connecting = asyncio.ensure_future(
            SupervisorClient.connect_or_start(
                self._state.supervisor,
                self._state.socket,
                agent_incarnation=f"{self._agent}/{os.getpid()}",
                isolate=self._isolate,
                use_cgroup=self._use_cgroup,
            )
        )
        self._client = client = await asyncio.shield(self._connecting)
        self._connecting = None
        enough_for = descriptors.attempts_within(descriptors.raised(descriptors.limits())[0])
        if self._slots > enough_for:
            log.warning(
                "%d slots, but the limit of open files (ulimit -Hn) is enough for %d attempts at "
                "once: more fail as they start", self._slots, enough_for,
            )  # fmt: skip
        inventory = client.inventory
        log.info(
            "supervisor %s: %d attempts run, %d ended",
            inventory.supervisor_incarnation, len(inventory.running), len(inventory.outcomes),
        )  # fmt: skip
        if inventory.is_closing:
            log.error(_CLOSING)
        self._report(
            ev.SupervisorReady(
                incarnation=inventory.supervisor_incarnation,
                running=tuple(
                    ev.ProcessStarted(
                        attempt_id=r.attempt_id,
                        started_ms=r.started_ms,
                        deadline_mono_s=r.deadline_mono_s,
                        disconnect_grace_s=r.disconnect_grace_s,
                    )
                    for r in inventory.running
                ),
                ended=tuple(_event_of(outcome) for outcome in inventory.outcomes),
                is_closing=inventory.is_closing,
            )
        )

    async def run(self) -> None:
        """After ``connect``. Raises ``SupervisorTaken``, and ``SupervisorUnavailable`` where one
        that died has no successor within ``GIVE_UP_AFTER_S``."""
        while self._client is not None:
            async for event in self._client.events():
                match event:
                    case messages.Started():
                        self._report(
                            ev.ProcessStarted(
                                attempt_id=event.attempt_id, started_ms=event.started_ms
                            )
                        )
                    case messages.StartFailed() | messages.Ended():
                        self._report(_event_of(event))
                    case messages.Closing():
                        log.error(_CLOSING)
                        self._report(ev.SupervisorClosing())
                    case SupervisorDied():
                        self._is_clean = not event.processes_left
                        left = "; some of its processes could not be killed"
                        log.error("the supervisor died%s", "" if self._is_clean else left)
            died, self._client = self._client, None
            await died.close()
            self._wanted.clear()
            self._report(ev.SupervisorGone())
            await self._wanted.wait()
            await self._reconnect()

    async def _reconnect(self) -> None:
        give_up_s = time.monotonic() + GIVE_UP_AFTER_S
        while True:
            try:
                await self.connect()
            except SupervisorUnavailable as error:
                if time.monotonic() >= give_up_s:
                    raise
                log.error("nothing can run here for now: %s", error)  # noqa: TRY400
                await asyncio.sleep(random.uniform(0.5, 1.0) * _RETRY_S)
            else:
                return

    def restart(self) -> None:
        self._wanted.set()

    def start(self, effect: fx.StartProcess) -> None:
        if self._client is not None:
            self._client.start(
                messages.Start(
                    attempt_id=effect.attempt_id,
                    argv=effect.argv,
                    env=effect.env,
                    cwd=effect.workdir,
                    output_path=effect.output_path,
                    output_cap_bytes=self._output_cap_bytes,
                    kill_grace_s=effect.kill_grace_s,
                    deadline_mono_s=effect.deadline_mono_s,
                    timeout_s=effect.timeout_s,
                    user=effect.user,
                    results_path=effect.results_path,
                    disconnect_grace_s=effect.disconnect_grace_s,
                )
            )

    def kill(self, effect: fx.KillProcess) -> None:
        if self._client is not None:
            reason = messages.EndReason(effect.cause.value)
            self._client.kill(effect.attempt_id, reason, grace_s=effect.grace_s)

    def move_deadlines(self, effect: fx.MoveDeadlines) -> None:
        if self._client is not None:
            self._client.move_deadline(effect.deadline_mono_s, effect.single)

    def acknowledge(self, attempt_id: str) -> None:
        if self._client is not None:
            self._client.acknowledge(attempt_id)

    def shutdown(self) -> None:
        """Nothing of it is needed any more: it kills what is left, and exits; ``close`` waits."""
        self._is_dismissed = True
        if self._client is not None:
            self._client.shutdown(kill=True)

    async def close(self) -> bool:
        """Leave the supervisor and its processes to the agent that comes next, unless it was shut
        down: then whoever stops the agent finds nothing of it left in its directory. False: some
        of its processes live, though they were to end."""
        was_clean = self._client is not None or self._is_clean
        await self._finish_connecting()
        if self._client is not None:
            is_gone = await self._client.close()
            if not is_gone:
                log.warning("the supervisor goes on: some of its processes can't be killed yet")
            self._is_clean = is_gone and was_clean
            self._client = None
        return self._is_clean

    async def _finish_connecting(self) -> None:
        """Whoever came in the place of one that died as the agent went would stay for a minute."""
        connecting, self._connecting = self._connecting, None
        if connecting is None or self._client is not None:
            return
        await asyncio.wait((connecting,))
        if connecting.cancelled() or connecting.exception() is not None:
            return  # There is none. Whoever asked for it and is still there has heard why.
        self._client = connecting.result()
        if self._is_dismissed:
            self._client.shutdown(kill=True)


def _event_of(outcome: messages.Outcome) -> ev.ProcessEnded | ev.StartFailed:
    if isinstance(outcome, messages.StartFailed):
        return ev.StartFailed(
            attempt_id=outcome.attempt_id,
            reason=outcome.reason,
            failed_ms=outcome.failed_ms,
            died=outcome.died,
            declined=outcome.declined,
        )
    return ev.ProcessEnded(
        attempt_id=outcome.attempt_id,
        cause=ev.EndCause(outcome.reason.value),
        started_ms=outcome.started_ms,
        ended_ms=outcome.ended_ms,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        cpu_s=outcome.cpu_s,
        peak_memory_bytes=outcome.peak_memory_bytes,
        output_bytes=outcome.output_bytes,
        tail=outcome.tail,
        results=outcome.results,
        results_cut=outcome.results_cut,
    )
