"""The supervisor's loop: one thread, one epoll, no library between it and the kernel.

Each turn handles what happened (messages, ended children, output, due signals), then writes the
journal, then tells the agent: nothing is told that isn't in the journal first.
"""

from __future__ import annotations

import math
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from etcsched.agent.supervisor.attempts import Attempts
from etcsched.agent.supervisor.connection import Connection
from etcsched.agent.supervisor.deadman import Deadman
from etcsched.agent.supervisor.journal import Began, Forgotten, Journal, Opened, Past, Record
from etcsched.agent.supervisor.kernel import boottime_s, wall_ms
from etcsched.agent.supervisor.messages import (
    PROTOCOL,
    Acknowledge,
    Closing,
    DeadlineMoved,
    Ended,
    EndReason,
    Hello,
    Inventory,
    Kill,
    MoveDeadline,
    Outcome,
    Request,
    Shutdown,
    Start,
    Started,
)
from etcsched.agent.supervisor.output import end_of_file
from etcsched.agent.supervisor.poller import Poller
from etcsched.agent.supervisor.results_file import read_results

REQUESTS_PER_TURN = 16
REQUESTS_PER_TURN_S = 0.01
"""A burst of starts must not keep due signals, ended children and moved deadlines waiting."""
POLL_MAX_S = 0.25
"""epoll counts in CLOCK_MONOTONIC, deadlines are in CLOCK_BOOTTIME: after a suspension this is
the longest that a deadline which passed meanwhile goes unseen."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    directory: Path
    incarnation: str
    cgroup: Path | None
    idle_exit_s: float
    start_within_s: float


class Supervisor:
    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        past: Past,
        deadman: Deadman,
        log: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._deadman = deadman
        self._log = log
        self._poller = Poller(log)
        self._attempts = Attempts(
            self,
            incarnation=settings.incarnation,
            start_within_s=settings.start_within_s,
            poller=self._poller,
            deadman=deadman,
            log=log,
        )
        self._outcomes: dict[str, Outcome] = {o.attempt_id: o for o in past.outcomes}
        for began in past.unfinished:
            self._outcomes[began.attempt_id] = _vanished(began)
        self._requests: deque[Request] = deque()
        self._agent: Connection | None = None
        self._strangers: set[Connection] = set()
        self._children_changed = False
        self._idle_since_s = boottime_s()
        self._journal_failure: str | None = None
        opened = Opened(
            supervisor_incarnation=settings.incarnation,
            cgroup=None if settings.cgroup is None else str(settings.cgroup),
        )
        self._journal = Journal(settings.directory, opened, self._worth_keeping)
        self._poller.watch(listener.fileno(), self._accept)

    def _worth_keeping(self) -> Iterator[Record]:
        yield from self._attempts.begun
        yield from self._outcomes.values()

    # The loop

    def run(self, guardian: int) -> None:
        """Until told to stop, left alone for ``idle_exit_s``, or ``guardian`` (a descriptor that
        becomes readable when the guardian dies) says that nobody would clean up after us."""
        woken, wakes = socket.socketpair()
        woken.setblocking(False)
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        self._poller.watch(woken.fileno(), lambda _mask: self._signalled(woken))
        self._poller.watch(guardian, lambda _mask: self._guardian_died(guardian))
        while not self._finished():
            self._poller.poll(self._poll_timeout_s())
            self._poller.try_again(self._accept, self._attempts.send_again, self._attempts.reap)
            self._serve_requests()
            if self._children_changed:
                self._children_changed = False
                self._attempts.reap()
            self._attempts.signal_what_is_due()
            self._attempts.give_up_starts()
            self._deadman.beat(self._attempts.all)
            self._publish()
        if self._agent is not None:
            self._agent.flush_before_exit()

    def _poll_timeout_s(self) -> float:
        if self._requests:
            return 0.0
        now_s = boottime_s()
        until_s = self._poller.again_at_s
        if self._attempts.all:
            until_s = min(until_s, now_s + POLL_MAX_S, self._attempts.next_due_s())
        elif self._agent is None:
            until_s = min(until_s, self._idle_since_s + self._settings.idle_exit_s)
        return -1 if until_s == math.inf else max(0.0, until_s - now_s)

    def _finished(self) -> bool:
        if self._attempts.all or self._requests:
            self._idle_since_s = boottime_s()
            return False
        if self._agent is not None:
            self._idle_since_s = boottime_s()
        return (
            self._attempts.is_closed
            or boottime_s() - self._idle_since_s >= self._settings.idle_exit_s
        )

    def _publish(self) -> None:
        failure = self._journal.flush()
        if failure != self._journal_failure:
            self._log(f"journal: {failure or 'can be written again'}")
            self._journal_failure = failure
        for connection in (*self._strangers, self._agent):
            if connection is not None and not connection.flush():
                self._disconnect(connection)

    def _signalled(self, woken: socket.socket) -> None:
        for number in woken.recv(4096):
            if number == signal.SIGCHLD:
                self._children_changed = True
            else:
                self._log(f"stopping on signal {number}")
                self._stop()
                self._tell(Closing())
                for attempt in self._attempts.all:
                    self._attempts.kill(attempt, EndReason.VANISHED, attempt.kill_grace_s)

    def _guardian_died(self, fd: int) -> None:
        self._poller.unwatch(fd)
        self._log("the guardian process died: stopping, since nobody would clean up after us")
        self._stop_now()
        self._tell(Closing())

    # Connections

    def _accept(self, _mask: int = 0) -> None:
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            accepted = None
        except OSError as error:
            # It stays readable: watched, it would have us turn without a pause.
            self._poller.unwatch(self._listener.fileno())
            self._poller.put_off("accept", error)
            return
        if not self._poller.watches(self._listener.fileno()):
            self._poller.watch(self._listener.fileno(), self._accept)
        if accepted is None:
            return
        connection = Connection(accepted, self._poller.epoll)
        if not connection.peer_may_command():
            self._log(f"refused a connection of uid {connection.peer_uid}")
            connection.close()
            return
        self._strangers.add(connection)
        self._poller.watch(accepted.fileno(), lambda _mask: self._hear(connection))

    def _hear(self, connection: Connection) -> None:
        if connection.closed:
            return
        for message in connection.receive():
            if isinstance(message, Hello):
                self._greet(connection, message)
            elif connection is self._agent:
                self._take(message)
        if connection.ended:
            self._disconnect(connection)

    def _take(self, request: Request) -> None:
        """A word on deadlines, or to stop what runs, doesn't wait for starts asked for before."""
        match request:
            case MoveDeadline():
                self._move_deadlines(request)
            case Kill() if self._attempts.get(request.attempt_id) is not None:
                self._serve(request)
            case _:
                self._requests.append(request)

    def _greet(self, connection: Connection, hello: Hello) -> None:
        """What the agent before it asked for and wasn't yet done is done first: it was sent."""
        while self._requests:
            self._serve(self._requests.popleft())
        if self._agent is not None and self._agent is not connection:
            self._log("a newer connection of the agent replaces the one before")
            self._disconnect(self._agent)
        self._strangers.discard(connection)
        self._agent = connection
        if hello.protocol != PROTOCOL:
            self._log(f"agent speaks protocol {hello.protocol}, this supervisor {PROTOCOL}")
        connection.send(
            Inventory(
                supervisor_incarnation=self._settings.incarnation,
                running=tuple(attempt.running() for attempt in self._attempts.all),
                outcomes=tuple(self._outcomes.values()),
                cgroup=None if self._settings.cgroup is None else str(self._settings.cgroup),
                is_closing=self._attempts.is_closed,
            )
        )

    def _disconnect(self, connection: Connection) -> None:
        self._poller.unwatch(connection.fileno())
        connection.close()
        self._strangers.discard(connection)
        if connection is self._agent:
            self._agent = None
            self._idle_since_s = boottime_s()

    def _tell(self, message: Outcome | Started | DeadlineMoved | Closing) -> None:
        if self._agent is not None:
            self._agent.send(message)

    # Requests

    def _serve_requests(self) -> None:
        until_s = time.monotonic() + REQUESTS_PER_TURN_S
        for _ in range(min(REQUESTS_PER_TURN, len(self._requests))):
            self._serve(self._requests.popleft())
            if time.monotonic() >= until_s:
                break

    def _serve(self, request: Request) -> None:
        match request:
            case Start():
                self._start(request)
            case Kill():
                attempt = self._attempts.get(request.attempt_id)
                if attempt is not None:
                    self._attempts.kill(attempt, request.reason, request.grace_s)
            case MoveDeadline():
                self._move_deadlines(request)
            case Acknowledge():
                if self._outcomes.pop(request.attempt_id, None) is not None:
                    self._journal.add(Forgotten(attempt_id=request.attempt_id))
            case Shutdown():
                self._stop_now() if request.kill else self._stop()
            case Hello():
                pass  # Answered when it came in.

    def _move_deadlines(self, request: MoveDeadline) -> None:
        self._attempts.move_deadlines(request)
        # Starts that it has overtaken were asked for with an older word.
        self._requests = deque(_with_deadline_of(request, waiting) for waiting in self._requests)
        self._tell(DeadlineMoved(sequence=request.sequence))

    def _stop(self) -> None:
        """Start nothing more, and exit with the last attempt."""
        self._attempts.is_closed = True

    def _stop_now(self) -> None:
        self._stop()
        for attempt in self._attempts.all:
            self._attempts.kill(attempt, EndReason.VANISHED, 0.0)

    def _start(self, start: Start) -> None:
        is_over = self._outcomes.get(start.attempt_id)
        if is_over is None:
            self._attempts.start(start)
        else:
            self._tell(is_over)

    # What comes of the attempts

    def began(self, began: Began) -> None:
        self._journal.add(began)

    def started(self, started: Started) -> None:
        self._tell(started)

    def concluded(self, outcome: Outcome) -> None:
        self._outcomes[outcome.attempt_id] = outcome
        self._journal.add(outcome)
        self._tell(outcome)


def _with_deadline_of(moved: MoveDeadline, request: Request) -> Request:
    if not isinstance(request, Start):
        return request
    deadline_s = moved.deadline_of(request.attempt_id)
    if deadline_s is None:
        return request
    return msgspec.structs.replace(request, deadline_mono_s=deadline_s)


def _vanished(began: Began) -> Ended:
    results, results_cut = read_results(began.results_path)
    return Ended(
        attempt_id=began.attempt_id,
        reason=EndReason.VANISHED,
        started_ms=began.started_ms,
        ended_ms=wall_ms(),
        tail=end_of_file(began.output_path),
        results=results,
        results_cut=results_cut,
    )
