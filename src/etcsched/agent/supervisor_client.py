"""The agent's end of the supervisor's socket, and how the agent gets itself a supervisor.

Requests are written in the order of the calls, without waiting; what becomes of them comes as
events. The client restarts nothing by itself: when the supervisor dies, it makes sure that no
process of its attempts lives, says so with ``SupervisorDied``, and is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Self, cast

import msgspec

from etcsched.agent.supervisor.launch import (
    DIED_CLEANUP_MAX_S,
    EXIT_TAKEN,
    LOCK_FILE,
    START_WITHIN_S,
)
from etcsched.agent.supervisor.messages import (
    PROTOCOL,
    Acknowledge,
    BrokenFrame,
    Closing,
    DeadlineMoved,
    Ended,
    EndReason,
    Hello,
    Inventory,
    Kill,
    MoveDeadline,
    Report,
    Request,
    Shutdown,
    Start,
    Started,
    StartFailed,
    encode_frame,
    report_reader,
)
from etcsched.agent.supervisor.processes import read_stat
from etcsched.agent.supervisor.sweep import sweep
from etcsched.core.errors import EtcschedError

STUCK_AFTER_S = 3.0
"""A supervisor that leaves a greeting or a moved deadline unanswered for so long is killed, and
with it its attempts: nobody else would hold them to their deadlines."""
SECOND_LOOK_S = 0.5
"""... unless the answer comes in so much more: perhaps it was the agent that was frozen."""
GOODBYE_S = 2.0
"""From the end of the connection to the end of the process that it was to."""
RETRY_S = 0.02

_PEER = struct.Struct("3i")


class SupervisorUnavailable(EtcschedError):
    """No supervisor could be started or reached, so this agent can't run anything."""


class SupervisorTaken(EtcschedError):
    """The supervisor lives, but serves another connection: a second agent uses this state
    directory. This one must stop."""


class SupervisorDied(msgspec.Struct, frozen=True, kw_only=True):
    """Last event: the supervisor is gone.

    ``attempts`` are those that ran, or were asked for, and whose outcome isn't known. None of
    their processes lives, unless ``processes_left``: then some could not be killed (stuck in the
    kernel, or another user's and the agent isn't root).
    """

    attempts: tuple[str, ...]
    processes_left: bool


SupervisorEvent = Started | StartFailed | Ended | Closing | SupervisorDied


def start_supervisor(
    state_dir: Path,
    socket_path: Path,
    *,
    idle_exit_s: float = 60.0,
    start_within_s: float = START_WITHIN_S,
    isolate: bool = False,
    use_cgroup: bool = True,
    timeout_s: float = 10.0,
) -> bool:
    """Blocks until a supervisor of that directory listens. False: there was one before.

    To be called before the agent makes any gRPC object: gRPC's threads and fork don't mix.
    ``isolate``: a PID namespace around all attempts (root only), see the supervisor's package.
    """
    command = [sys.executable, "-P", "-m", "etcsched.agent.supervisor"]
    command += ["--dir", str(state_dir), "--socket", str(socket_path)]
    command += ["--idle-exit-s", str(idle_exit_s)]
    command += ["--start-within-s", str(start_within_s)]
    command += ["--isolate"] if isolate else []
    command += [] if use_cgroup else ["--no-cgroup"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=timeout_s,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SupervisorUnavailable(
            f"the supervisor didn't start within {timeout_s:g} s; see its log in {state_dir}"
        ) from None
    except OSError as error:  # The host's limit of processes is reached, say.
        raise SupervisorUnavailable(f"the supervisor can't be started: {error.strerror}") from error
    if done.returncode == EXIT_TAKEN:
        return False
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        raise SupervisorUnavailable(f"the supervisor can't be started: {last}")
    return True


class SupervisorClient:
    """One connection; usable while ``events`` is being read, by one reader."""

    def __init__(
        self, wire: _Wire, inventory: Inventory, process: int, guardian: int, lock_path: Path
    ) -> None:
        """``process`` and ``guardian`` are handles (pidfds) of the pair."""
        self.inventory = inventory
        self._wire = wire
        self._process = process
        self._guardian = guardian
        self._lock_path = lock_path
        self._open_attempts = {running.attempt_id for running in inventory.running}
        self._closed = False
        self._is_dismissed = False

    @classmethod
    async def connect_or_start(
        cls,
        state_dir: Path,
        socket_path: Path,
        *,
        agent_incarnation: str,
        idle_exit_s: float = 60.0,
        start_within_s: float = START_WITHIN_S,
        isolate: bool = False,
        use_cgroup: bool = True,
        timeout_s: float = 10.0,
    ) -> Self:
        """Take over the supervisor that runs for this directory, else start one."""
        give_up_at_s = time.monotonic() + timeout_s
        while True:
            left_s = give_up_at_s - time.monotonic()
            if left_s <= 0:
                raise SupervisorUnavailable(
                    f"the supervisor of {state_dir} doesn't answer at {socket_path}, "
                    "although its lock is held"
                )
            try:
                async with asyncio.timeout(left_s):
                    return await cls._connect(state_dir, socket_path, agent_incarnation)
            except (OSError, TimeoutError):
                pass
            started = await asyncio.to_thread(
                start_supervisor,
                state_dir,
                socket_path,
                idle_exit_s=idle_exit_s,
                start_within_s=start_within_s,
                isolate=isolate,
                use_cgroup=use_cgroup,
                timeout_s=timeout_s,
            )
            if not started:
                # Its guardian still cleans up, or it is about to listen.
                await asyncio.sleep(RETRY_S)

    @classmethod
    async def _connect(cls, state_dir: Path, socket_path: Path, agent_incarnation: str) -> Self:
        loop = asyncio.get_running_loop()
        transport, wire = await loop.create_unix_connection(_Wire, str(socket_path))
        process = -1
        guardian = -1
        try:
            peer: socket.socket = transport.get_extra_info("socket")
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            pid = _PEER.unpack(credentials)[0]
            process = os.pidfd_open(pid)
            guardian = os.pidfd_open(_parent_of(pid))
            inventory = await wire.greet(agent_incarnation, process)
        except BaseException:
            transport.abort()
            _close(process, guardian)
            raise
        return cls(wire, inventory, process, guardian, state_dir / LOCK_FILE)

    # Requests: written in this order, never waited for

    def start(self, start: Start) -> None:
        """Answered by ``Started`` or ``StartFailed``; safe to repeat."""
        self._open_attempts.add(start.attempt_id)
        self._wire.send(start)

    def kill(self, attempt_id: str, reason: EndReason, *, grace_s: float) -> None:
        self._wire.send(Kill(attempt_id=attempt_id, reason=reason, grace_s=grace_s))

    def move_deadline(
        self, deadline_mono_s: float | None, single: Mapping[str, float] | None = None
    ) -> None:
        """Seconds of CLOCK_BOOTTIME. ``single`` overrides for some attempts; None for the rest:
        leave theirs."""
        self._wire.move_deadline(deadline_mono_s, dict(single or {}))

    def acknowledge(self, attempt_id: str) -> None:
        """Only once the outcome is stored where it survives this host."""
        self._wire.send(Acknowledge(attempt_id=attempt_id))

    def shutdown(self, *, kill: bool) -> None:
        """``kill``: at once, with what runs; otherwise once that has ended."""
        self._is_dismissed = kill
        self._wire.send(Shutdown(kill=kill))
        if kill:
            self._wire.move_deadline(None, {})  # Moves none; one that is stuck doesn't answer.

    # Events

    async def events(self) -> AsyncIterator[SupervisorEvent]:
        """Ends after ``SupervisorDied``, or after ``close``."""
        while True:
            report = await self._wire.next_report()
            match report:
                case Started() | Closing():
                    yield report
                case StartFailed() | Ended():
                    self._open_attempts.discard(report.attempt_id)
                    yield report
                case Inventory() | DeadlineMoved():
                    continue
                case None:
                    break
        if self._closed:
            return
        yield await self._died()

    async def _died(self) -> SupervisorDied:
        if not await asyncio.to_thread(_wait_for_end, self._process, GOODBYE_S):
            raise SupervisorTaken(
                "the supervisor serves another connection: is a second agent running with the "
                f"state directory {self._lock_path.parent}?"
            )
        cleaned = await asyncio.to_thread(
            _clean_up, self.inventory, self._guardian, self._lock_path
        )
        return SupervisorDied(
            attempts=tuple(sorted(self._open_attempts)), processes_left=not cleaned
        )

    async def close(self) -> bool:
        """Leave the supervisor and its attempts alone, up to their deadlines; or, after a
        ``shutdown`` that kills, see the pair gone: False if it isn't, since something of it can't
        die at present."""
        if self._closed:
            return True
        self._closed = True
        # The connection outlasts the wait: whoever is stuck is found out, and killed, through it.
        is_gone = not self._is_dismissed or await asyncio.to_thread(
            _wait_for_end, self._guardian, DIED_CLEANUP_MAX_S
        )
        await self._wire.close()
        _close(self._process, self._guardian)
        return is_gone


class _Wire(asyncio.Protocol):
    """Frames to and from the socket. Answers to moved deadlines are seen as they arrive, however
    far behind the reader of events is."""

    def __init__(self) -> None:
        self._process = -1
        self._transport: asyncio.WriteTransport | None = None
        self._socket: socket.socket | None = None
        self._reader = report_reader()
        self._reports: deque[Report] = deque()
        self._news = asyncio.Event()
        self._lost = asyncio.Event()
        self._sequence = 0
        self._answered = 0
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports only look like asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)
        with contextlib.suppress(OSError):  # The last descriptor: then it goes without.
            self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            self._socket.setblocking(False)

    def data_received(self, data: bytes) -> None:
        try:
            for report in self._reader.feed(data):
                if isinstance(report, DeadlineMoved):
                    self._deadline_moved(report.sequence)
                else:
                    self._reports.append(report)
        except BrokenFrame:
            # Whatever it is that answers there, it doesn't keep our attempts to their deadlines.
            self._kill_supervisor()
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._read_the_rest()
        self._stop_watching()
        if self._socket is not None:
            self._socket.close()
        self._lost.set()
        self._news.set()

    def _read_the_rest(self) -> None:
        """A write to a supervisor that has just ended fails, and ends the transport, which leaves
        unread what that one had told before."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):  # There is no more, or no more to be had.
            while data := self._socket.recv(65536):
                self.data_received(data)

    async def greet(self, agent_incarnation: str, process: int) -> Inventory:
        """``process``: handle (pidfd) of the supervisor."""
        self._process = process
        self.send(Hello(agent_incarnation=agent_incarnation))
        try:
            async with asyncio.timeout(STUCK_AFTER_S):
                inventory = await self.next_report()
        except TimeoutError:
            self._kill_supervisor()
            raise
        if not isinstance(inventory, Inventory):
            raise ConnectionResetError("the supervisor closed the connection")
        if inventory.protocol != PROTOCOL:
            raise SupervisorUnavailable(
                f"the running supervisor speaks protocol {inventory.protocol}, this agent "
                f"{PROTOCOL}: stop its jobs, or start the agent's former version again"
            )
        return inventory

    async def next_report(
        self,
    ) -> Report | None:
        """None: the connection is gone, and everything that came over it was returned."""
        while not self._reports:
            if self._lost.is_set():
                return None
            self._news.clear()
            await self._news.wait()
        return self._reports.popleft()

    def send(self, request: Request) -> None:
        """Into the void once the connection is lost: the reader of events hears of that."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame(request))

    def move_deadline(self, deadline_mono_s: float | None, single: dict[str, float]) -> None:
        self._sequence += 1
        self.send(
            MoveDeadline(deadline_mono_s=deadline_mono_s, single=single, sequence=self._sequence)
        )
        if self._watch is None and not self._lost.is_set():
            self._watch_for_answer()

    async def close(self) -> None:
        self._stop_watching()
        if self._transport is not None:
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._lost.wait()
            self._transport.abort()

    def _watch_for_answer(self) -> None:
        loop = asyncio.get_running_loop()
        sequence = self._sequence
        self._watch = loop.call_later(STUCK_AFTER_S, self._unanswered, sequence)

    def _unanswered(self, sequence: int) -> None:
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(SECOND_LOOK_S, self._still_unanswered, sequence)

    def _still_unanswered(self, sequence: int) -> None:
        self._watch = None
        if self._answered < sequence:
            self._kill_supervisor()

    def _deadline_moved(self, sequence: int) -> None:
        self._answered = sequence
        self._stop_watching()
        if sequence < self._sequence:
            self._watch_for_answer()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _kill_supervisor(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)


def _wait_for_end(process: int, within_s: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def _clean_up(inventory: Inventory, guardian: int, lock_path: Path) -> bool:
    """Kill what is left ourselves, in case the guardian died too, and see the guardian done: it
    holds the lock until it has no descendant left."""
    if not sweep(inventory.supervisor_incarnation, inventory.cgroup, DIED_CLEANUP_MAX_S):
        return False
    if _lock_is_free(lock_path, DIED_CLEANUP_MAX_S):
        return True
    # We find nothing, and it doesn't finish: it was stopped. Nothing is left for it to do.
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(guardian, signal.SIGKILL)
    return _lock_is_free(lock_path, DIED_CLEANUP_MAX_S)


def _lock_is_free(path: Path, within_s: float) -> bool:
    give_up_at_s = time.monotonic() + within_s
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= give_up_at_s:
                    return False
                time.sleep(RETRY_S)
            else:
                return True
    finally:
        os.close(lock)


def _parent_of(pid: int) -> int:
    stat = read_stat(pid)
    if stat is None:
        raise ProcessLookupError(f"process {pid} has ended")
    return stat.parent


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
