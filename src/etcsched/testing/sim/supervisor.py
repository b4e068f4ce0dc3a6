"""A host's supervisor and the processes below it. When an attempt is to be signalled, the product's
own state machine says; what a process makes of a signal, its argument list does, unless the cluster
knows otherwise: ``("sim", takes_s, exit code, "stubborn" or "")``.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from etcsched.agent.supervisor.attempt import Attempt, exit_and_signal
from etcsched.agent.supervisor.messages import EndReason, Start
from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.agent.attempt import parse_attempt_id
from etcsched.testing.sim.loop import Clock
from etcsched.testing.sim.process import Process

if TYPE_CHECKING:
    from etcsched.testing.sim.cluster import Cluster

PIPE_S = 0.0005
SPAWN_S = 0.002
TERM_S = 0.05
"""From SIGTERM to the end of a process that obeys it."""


class Behaviour(msgspec.Struct, frozen=True):
    """What a process does: how long it runs, how it ends, and whether it ignores SIGTERM.
    ``results`` is the content of its results file."""

    takes_s: float
    exit_code: int = 0
    is_stubborn: bool = False
    results: bytes = b""


def by_argv(start: fx.StartProcess) -> Behaviour:
    argv = start.argv
    results = f"n={crc32(start.attempt_id.encode()) % 10}\n".encode()
    return Behaviour(float(argv[1]), int(argv[2]), argv[3:4] == ("stubborn",), results)


class Job:
    """One attempt's process. ``lease``: the session under which its agent started it."""

    def __init__(self, attempt: Attempt, behaviour: Behaviour, lease: int) -> None:
        self.attempt = attempt
        self.behaviour = behaviour
        self.lease = lease


class SimSupervisor:
    """Lives apart from its agent; ``listener`` is the agent's ear (None: no agent is connected).
    ``ended`` survives it on the host's disk, until acknowledged."""

    def __init__(
        self,
        cluster: Cluster,
        host: str,
        clock: Clock,
        incarnation: str,
        ended: dict[str, ev.ProcessEnded | ev.StartFailed],
    ) -> None:
        self.cluster = cluster
        self.host = host
        self.incarnation = incarnation
        self.process = Process(cluster.loop, clock)
        self.listener: Callable[[ev.Event], None] | None = None
        self.jobs: dict[str, Job] = {}
        self.ended = ended
        self._pids = itertools.count(100)

    # --- the agent's side

    def inventory(self) -> ev.SupervisorReady:
        return ev.SupervisorReady(
            incarnation=self.incarnation,
            running=tuple(
                ev.ProcessStarted(
                    attempt_id=name,
                    started_ms=job.attempt.started_ms,
                    deadline_mono_s=job.attempt.deadline_s,
                    disconnect_grace_s=job.attempt.disconnect_grace_s,
                )
                for name, job in self.jobs.items()
            ),
            ended=tuple(self.ended.values()),
        )

    def ask(self, action: Callable[[], None]) -> None:
        """Through the socket: in order, a moment later."""
        self.cluster.loop.after(PIPE_S, self.process.hear, action)

    def _tell(self, event: ev.Event) -> None:
        if self.listener is not None:
            self.cluster.loop.after(PIPE_S, self.listener, event)

    def _now_s(self) -> float:
        return self.process.clock.mono_s()

    def _wall_ms(self) -> int:
        return self.process.clock.now().wall_ms

    def begin(self, start: fx.StartProcess, lease: int) -> None:
        known = self.jobs.get(start.attempt_id)
        if known is not None:
            self._tell(
                ev.ProcessStarted(attempt_id=start.attempt_id, started_ms=known.attempt.started_ms)
            )
        elif start.attempt_id in self.ended:
            self._tell(self.ended[start.attempt_id])
        elif not self.cluster.hosts[self.host].has_users:
            self._conclude(
                ev.StartFailed(
                    attempt_id=start.attempt_id,
                    reason="no such user on this host",
                    failed_ms=self._wall_ms(),
                    declined=True,
                )
            )
        elif start.deadline_mono_s <= self._now_s():
            self._conclude(
                ev.StartFailed(
                    attempt_id=start.attempt_id,
                    reason="its deadline had passed before it could start",
                    failed_ms=self._wall_ms(),
                    died=True,
                )
            )
        else:
            self._spawn(start, lease)

    def _spawn(self, start: fx.StartProcess, lease: int) -> None:
        asked = Start(
            attempt_id=start.attempt_id,
            argv=start.argv,
            env={},
            cwd="/",
            output_path="",
            output_cap_bytes=0,
            kill_grace_s=start.kill_grace_s,
            deadline_mono_s=start.deadline_mono_s,
            timeout_s=start.timeout_s,
            disconnect_grace_s=start.disconnect_grace_s,
        )
        attempt = self.cluster.parts.supervised(
            asked, pid=next(self._pids), started_ms=self._wall_ms(), now_s=self._now_s()
        )
        behaviour = self.cluster.behaves(start)
        job = self.jobs[start.attempt_id] = Job(attempt, behaviour, lease)
        self.cluster.process_started(self.host, start.attempt_id)
        self._tell(ev.ProcessStarted(attempt_id=start.attempt_id, started_ms=attempt.started_ms))
        status = behaviour.exit_code << 8
        self.process.loop.after(
            behaviour.takes_s, self.process.hear, self._over, start.attempt_id, status
        )
        self._schedule(job)

    def kill(self, effect: fx.KillProcess) -> None:
        job = self.jobs.get(effect.attempt_id)
        if job is not None:
            reason = EndReason(effect.cause.value)
            self._signal(job, job.attempt.kill(reason, effect.grace_s, self._now_s()))
            self._schedule(job)

    def move_deadlines(self, effect: fx.MoveDeadlines) -> None:
        for attempt_id, job in self.jobs.items():
            deadline_s = effect.single.get(attempt_id, effect.deadline_mono_s)
            if deadline_s is not None:
                job.attempt.move_deadline(deadline_s, self._now_s())
                self._schedule(job)

    def acknowledge(self, attempt_id: str) -> None:
        self.ended.pop(attempt_id, None)

    # --- signals and ends

    def _schedule(self, job: Job) -> None:
        attempt = job.attempt
        due_s = attempt.next_due_s()
        if due_s < attempt.scheduled_s:
            attempt.scheduled_s = due_s
            self.process.after(due_s - self._now_s(), self._step, job, due_s)

    def _step(self, job: Job, due_s: float) -> None:
        attempt = job.attempt
        if attempt.attempt_id not in self.jobs or attempt.scheduled_s != due_s:
            return
        attempt.scheduled_s = float("inf")
        self._signal(job, attempt.step(self._now_s()))
        if attempt.attempt_id in self.jobs:
            self._schedule(job)

    def _signal(self, job: Job, number: int | None) -> None:
        if number == signal.SIGTERM and not job.behaviour.is_stubborn:
            self.process.after(TERM_S, self._over, job.attempt.attempt_id, int(signal.SIGTERM))
        elif number == signal.SIGKILL:
            self._over(job.attempt.attempt_id, int(signal.SIGKILL))

    def _over(self, attempt_id: str, status: int) -> None:
        job = self.jobs.pop(attempt_id, None)
        if job is None:
            return
        attempt = job.attempt
        attempt.main_ended(status, self._now_s())
        assert attempt.ending is not None
        exit_code, number = exit_and_signal(status)
        self.cluster.chronicle.process_ended(self.host, attempt_id, by_itself=number is None)
        if attempt.ending is EndReason.FENCED and not attempt.disconnect_grace_s:
            self.cluster.fenced(self.host, job.lease, attempt_id)
        self._conclude(
            ev.ProcessEnded(
                attempt_id=attempt_id,
                cause=ev.EndCause(attempt.ending.value),
                started_ms=attempt.started_ms,
                ended_ms=self._wall_ms(),
                exit_code=exit_code,
                signal=number,
                results=job.behaviour.results,
            )
        )

    def _conclude(self, ended: ev.ProcessEnded | ev.StartFailed) -> None:
        self.ended[ended.attempt_id] = ended
        self._tell(ended)

    # --- faults

    def shutdown(self) -> None:
        """As at the end of its agent: what is left is killed."""
        self.die()

    def die(self) -> None:
        """Its guardian kills what ran below it; the journal says what that was."""
        self.process.die()
        for attempt_id, job in self.jobs.items():
            self.cluster.chronicle.process_ended(self.host, attempt_id, by_itself=False)
            self.ended[attempt_id] = ev.ProcessEnded(
                attempt_id=attempt_id,
                cause=ev.EndCause.VANISHED,
                started_ms=job.attempt.started_ms,
                ended_ms=self._wall_ms(),
            )
        self.jobs.clear()
        self._tell(ev.SupervisorGone())
        self.listener = None


def run_of(attempt_id: str) -> tuple[str, str, int, int]:
    return parse_attempt_id(attempt_id)
