"""The supervisor's loop: one thread, one epoll, no library between it and the kernel.

Each turn handles what happened (messages, ended children, output, due signals), then writes the
journal, then tells the agent: nothing is told that isn't in the journal first.

A process is an attempt from its fork on, with deadline and journal; the agent is told that it has
started once it has become its command. Where that may take for ever, nothing here waits for it.
"""

from __future__ import annotations

import heapq
import itertools
import math
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from etcsched.agent.supervisor import descriptors
from etcsched.agent.supervisor.attempt import Attempt, exit_and_signal
from etcsched.agent.supervisor.connection import Connection
from etcsched.agent.supervisor.deadman import Deadman
from etcsched.agent.supervisor.forest import Forest
from etcsched.agent.supervisor.journal import Began, Forgotten, Journal, Opened, Past, Record
from etcsched.agent.supervisor.kernel import boottime_s, wall_ms
from etcsched.agent.supervisor.messages import (
    PROTOCOL,
    Acknowledge,
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
    StartFailed,
)
from etcsched.agent.supervisor.output import Output, end_of_file
from etcsched.agent.supervisor.results_file import read_results
from etcsched.agent.supervisor.spawn import Beginning, CannotStart, NotHere, Running, Spawner

REQUESTS_PER_TURN = 16
REQUESTS_PER_TURN_S = 0.01
"""A burst of starts must not keep due signals, ended children and moved deadlines waiting."""
HANGING_STARTS_MAX = 64
"""Processes that were killed as they hung in their start, and can't die at present. Beyond it
nothing starts: each takes a number from the host's processes, and some memory."""
POLL_MAX_S = 0.25
"""epoll counts in CLOCK_MONOTONIC, deadlines are in CLOCK_BOOTTIME: after a suspension this is
the longest that a deadline which passed meanwhile goes unseen."""

AGAIN_S = 0.1
"""What the kernel refuses at present, since no descriptor is left, say, is tried again so soon."""

DUE_SLACK = 1000
"""Entries of the past that the heap of due times may hold, beyond one for each attempt."""


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
        before = descriptors.limits()
        descriptors.set_limits(descriptors.raised(before))
        self._attempts_most = descriptors.attempts_within(descriptors.limits()[0])
        self._spawner = Spawner(settings.incarnation, settings.start_within_s, before)
        self._attempts: dict[str, Attempt] = {}
        self._outputs: dict[str, Output] = {}
        self._begun: dict[str, Began] = {}
        self._starting: dict[str, Beginning] = {}
        """Forked, not yet their command; the oldest first."""
        self._unsent: dict[str, int] = {}
        """Signals by attempt that some of its processes perhaps didn't get."""
        self._bereaved: list[Attempt] = []
        """Main process ended by itself; whoever is left of the tree is to be told."""
        self._again_at_s = math.inf
        self._refusals: set[str] = set()
        """Said in the log, and not over since."""
        self._dying: list[Attempt] = []
        """Main process ended, others of the tree are left."""
        self._forest = Forest()
        self._outcomes: dict[str, Outcome] = {o.attempt_id: o for o in past.outcomes}
        for began in past.unfinished:
            self._outcomes[began.attempt_id] = _vanished(began)
        self._due: list[tuple[float, int, Attempt]] = []
        self._order = itertools.count()
        self._requests: deque[Request] = deque()
        self._agent: Connection | None = None
        self._strangers: set[Connection] = set()
        self._stopping = False
        self._children_changed = False
        self._idle_since_s = boottime_s()
        self._journal_failure: str | None = None
        opened = Opened(
            supervisor_incarnation=settings.incarnation,
            cgroup=None if settings.cgroup is None else str(settings.cgroup),
        )
        self._journal = Journal(settings.directory, opened, self._worth_keeping)
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._watch(listener.fileno(), self._accept)

    def _worth_keeping(self) -> Iterator[Record]:
        yield from self._begun.values()
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
        self._watch(woken.fileno(), lambda _mask: self._signalled(woken))
        self._watch(guardian, lambda _mask: self._guardian_died(guardian))
        while not self._finished():
            for fd, mask in self._epoll.poll(self._poll_timeout_s()):
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(mask)
            self._try_again()
            self._serve_requests()
            if self._children_changed:
                self._children_changed = False
                self._reap()
            self._signal_what_is_due()
            self._give_up_starts()
            self._deadman.beat(self._attempts.values())
            self._publish()
        if self._agent is not None:
            self._agent.flush_before_exit()

    def _poll_timeout_s(self) -> float:
        if self._requests:
            return 0.0
        now_s = boottime_s()
        until_s = self._again_at_s
        if self._attempts:
            until_s = min(until_s, now_s + POLL_MAX_S)
            if self._due:
                until_s = min(until_s, self._due[0][0])
        elif self._agent is None:
            until_s = min(until_s, self._idle_since_s + self._settings.idle_exit_s)
        return -1 if until_s == math.inf else max(0.0, until_s - now_s)

    def _put_off(self, what: str, error: OSError) -> None:
        """Nothing is told of that which isn't known or done; it is tried again until it is."""
        self._again_at_s = min(self._again_at_s, boottime_s() + AGAIN_S)
        refusal = f"{what}: {error.strerror}; tried again until it works"
        if refusal not in self._refusals:
            self._refusals.add(refusal)
            self._log(refusal)

    def _try_again(self) -> None:
        if self._again_at_s > boottime_s():
            return
        self._again_at_s = math.inf
        self._accept(0)
        unsent, self._unsent = self._unsent, {}
        for attempt_id, number in unsent.items():
            attempt = self._attempts.get(attempt_id)
            if attempt is not None:
                self._signal(attempt, number)
        self._reap()
        if self._again_at_s == math.inf:
            self._refusals.clear()

    def _finished(self) -> bool:
        if self._attempts or self._requests:
            self._idle_since_s = boottime_s()
            return False
        if self._agent is not None:
            self._idle_since_s = boottime_s()
        return self._stopping or boottime_s() - self._idle_since_s >= self._settings.idle_exit_s

    def _publish(self) -> None:
        failure = self._journal.flush()
        if failure != self._journal_failure:
            self._log(f"journal: {failure or 'can be written again'}")
            self._journal_failure = failure
        for connection in (*self._strangers, self._agent):
            if connection is not None and not connection.flush():
                self._disconnect(connection)

    def _watch(self, fd: int, handler: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _signalled(self, woken: socket.socket) -> None:
        for number in woken.recv(4096):
            if number == signal.SIGCHLD:
                self._children_changed = True
            else:
                self._log(f"stopping on signal {number}")
                self._stop()
                for attempt in self._attempts.values():
                    self._kill(attempt, EndReason.VANISHED, attempt.kill_grace_s)

    def _guardian_died(self, fd: int) -> None:
        self._unwatch(fd)
        self._log("the guardian process died: stopping, since nobody would clean up after us")
        self._stop_now()

    # Connections

    def _accept(self, _mask: int) -> None:
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            accepted = None
        except OSError as error:
            # It stays readable: watched, it would have us turn without a pause.
            self._unwatch(self._listener.fileno())
            self._put_off("accept", error)
            return
        if self._listener.fileno() not in self._handlers:
            self._watch(self._listener.fileno(), self._accept)
        if accepted is None:
            return
        connection = Connection(accepted, self._epoll)
        if not connection.peer_may_command():
            self._log(f"refused a connection of uid {connection.peer_uid}")
            connection.close()
            return
        self._strangers.add(connection)
        self._watch(accepted.fileno(), lambda _mask: self._hear(connection))

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
            case Kill() if request.attempt_id in self._attempts:
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
                running=tuple(attempt.running() for attempt in self._attempts.values()),
                outcomes=tuple(self._outcomes.values()),
                cgroup=None if self._settings.cgroup is None else str(self._settings.cgroup),
            )
        )

    def _disconnect(self, connection: Connection) -> None:
        self._unwatch(connection.fileno())
        connection.close()
        self._strangers.discard(connection)
        if connection is self._agent:
            self._agent = None
            self._idle_since_s = boottime_s()

    def _tell(self, message: Outcome | Started | DeadlineMoved) -> None:
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
                    self._kill(attempt, request.reason, request.grace_s)
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
        now_s = boottime_s()
        for attempt in self._attempts.values():
            deadline_s = request.deadline_of(attempt.attempt_id)
            if deadline_s is not None:
                attempt.move_deadline(deadline_s, now_s)
                self._schedule(attempt)
        # Starts that it has overtaken were asked for with an older word.
        self._requests = deque(_with_deadline_of(request, waiting) for waiting in self._requests)
        self._deadman.recompute(self._attempts.values())
        self._tell(DeadlineMoved(sequence=request.sequence))

    def _stop(self) -> None:
        """Start nothing more, and exit with the last attempt."""
        self._stopping = True

    def _stop_now(self) -> None:
        self._stop()
        for attempt in self._attempts.values():
            self._kill(attempt, EndReason.VANISHED, 0.0)

    def _kill(self, attempt: Attempt, reason: EndReason, grace_s: float) -> None:
        self._signal(attempt, attempt.kill(reason, grace_s, boottime_s()))
        self._schedule(attempt)

    def _start(self, start: Start) -> None:
        attempt_id = start.attempt_id
        known = self._attempts.get(attempt_id)
        if known is not None:
            if attempt_id not in self._starting:
                self._tell_started(known)
            return
        if attempt_id in self._outcomes:
            self._tell(self._outcomes[attempt_id])
            return
        try:
            output, process = self._spawn(start)
        except (CannotStart, OSError) as error:
            is_its_fault = isinstance(error, CannotStart) and not isinstance(error, NotHere)
            self._fail_start(attempt_id, str(error), died=not is_its_fault)
            return
        self._adopt(start, output, process)

    def _spawn(self, start: Start) -> tuple[Output, Running | Beginning]:
        if self._stopping:
            raise NotHere("the agent's supervisor is shutting down")
        if start.deadline_mono_s <= boottime_s():
            raise NotHere("its deadline had passed before it could start")
        if len(self._attempts) >= self._attempts_most:
            raise NotHere(
                f"this host's limit of open files (ulimit -n) is enough for {self._attempts_most} "
                "attempts at once"
            )
        hanging = self._forest.given_up()
        if hanging >= HANGING_STARTS_MAX:
            raise NotHere(
                f"{hanging} starts before it hang on file systems that don't answer, and their "
                "processes can't be killed: nothing starts here until some have ended"
            )
        output = Output(start.output_path, start.output_cap_bytes)
        self._deadman.admit(start.deadline_mono_s)
        try:
            process = self._spawner.spawn(start, output.write_fd)
        except BaseException:
            output.finish()
            raise
        output.close_write_end()
        return output, process

    def _adopt(self, start: Start, output: Output, process: Running | Beginning) -> None:
        started_ms = wall_ms()
        attempt = Attempt(start, pid=process.pid, started_ms=started_ms, now_s=boottime_s())
        began = Began(
            attempt_id=start.attempt_id,
            pid=process.pid,
            started_ms=started_ms,
            output_path=start.output_path,
            results_path=start.results_path,
        )
        self._attempts[start.attempt_id] = attempt
        self._outputs[start.attempt_id] = output
        self._begun[start.attempt_id] = began
        self._forest.plant(attempt)
        self._watch(output.read_fd, lambda _mask: self._pump(output))
        self._schedule(attempt)
        self._journal.add(began)
        if isinstance(process, Running):
            self._tell_started(attempt)
        else:
            self._starting[start.attempt_id] = process
            self._watch(process.report_fd, lambda _mask: self._hear_start(attempt, process))

    def _hear_start(self, attempt: Attempt, beginning: Beginning) -> None:
        if not beginning.look():
            return
        if beginning.failure is None:
            self._forget_start(attempt)
            self._tell_started(attempt)
        else:
            # Told once the process, which is at its end, was waited for.
            self._unwatch(beginning.report_fd)

    def _forget_start(self, attempt: Attempt) -> None:
        beginning = self._starting.pop(attempt.attempt_id, None)
        if beginning is not None:
            self._unwatch(beginning.report_fd)
            beginning.close()

    def _give_up_starts(self) -> None:
        now_s = boottime_s()
        while self._starting:
            attempt_id, beginning = next(iter(self._starting.items()))
            if beginning.give_up_at_s > now_s:
                break
            attempt = self._attempts[attempt_id]
            # Perhaps it was we who were frozen.
            self._hear_start(attempt, beginning)
            if attempt_id not in self._starting:
                continue
            reason = beginning.failure or beginning.what_hangs()
            try:
                self._forest.give_up(attempt)
            except OSError as error:
                self._put_off("killing what hangs in its start", error)
                break
            self._log(f"{attempt_id}: {reason}")
            self._forget_start(attempt)
            self._forget(attempt)
            self._fail_start(attempt_id, reason, died=beginning.is_the_hosts)

    def _tell_started(self, attempt: Attempt) -> None:
        self._tell(
            Started(attempt_id=attempt.attempt_id, pid=attempt.pid, started_ms=attempt.started_ms)
        )

    def _fail_start(self, attempt_id: str, reason: str, *, died: bool = False) -> None:
        self._conclude(
            StartFailed(attempt_id=attempt_id, reason=reason, failed_ms=wall_ms(), died=died)
        )

    def _pump(self, output: Output) -> None:
        if not output.pump():
            self._unwatch(output.read_fd)

    # Signals and ends

    def _schedule(self, attempt: Attempt) -> None:
        """An entry of an attempt that is over, or isn't due yet, is dealt with when it comes up:
        a deadline that is moved on costs nothing here."""
        due_s = attempt.next_due_s()
        if due_s < attempt.scheduled_s:
            attempt.scheduled_s = due_s
            heapq.heappush(self._due, (due_s, next(self._order), attempt))
        if len(self._due) > 2 * len(self._attempts) + DUE_SLACK:
            self._due = [
                (left.scheduled_s, next(self._order), left) for left in self._attempts.values()
            ]
            heapq.heapify(self._due)

    def _signal_what_is_due(self) -> None:
        now_s = boottime_s()
        while self._due and self._due[0][0] <= now_s:
            due_s, _, attempt = heapq.heappop(self._due)
            if due_s != attempt.scheduled_s or attempt.attempt_id not in self._attempts:
                continue
            attempt.scheduled_s = math.inf
            self._signal(attempt, attempt.step(now_s))
            self._schedule(attempt)

    def _signal(self, attempt: Attempt, number: int | None) -> None:
        if number is None:
            return
        try:
            self._forest.signal(attempt, number)
        except OSError as error:
            self._unsent[attempt.attempt_id] = number
            self._put_off("signalling", error)
        else:
            self._unsent.pop(attempt.attempt_id, None)

    def _reap(self) -> None:
        for attempt, status in self._forest.reap():
            if attempt.main_ended(status, boottime_s()):
                self._bereaved.append(attempt)
            self._dying.append(attempt)
        try:
            self._forest.find_strays()
        except OSError as error:
            self._put_off("looking for processes that are left", error)
            return
        bereaved, self._bereaved = self._bereaved, []
        for attempt in bereaved:
            if self._forest.strays_of(attempt):
                self._signal(attempt, signal.SIGTERM)
                self._schedule(attempt)
        still_dying = []
        for attempt in self._dying:
            if self._forest.strays_of(attempt):
                still_dying.append(attempt)
            else:
                self._end(attempt, attempt.main_status or 0)
        self._dying = still_dying
        try:
            self._forest.kill_ownerless()
        except OSError as error:
            self._put_off("killing what is left", error)

    def _end(self, attempt: Attempt, status: int) -> None:
        attempt_id = attempt.attempt_id
        self._forest.fell(attempt)
        beginning = self._starting.get(attempt_id)
        if beginning is not None:
            # Its end was seen first.
            self._hear_start(attempt, beginning)
            self._forget_start(attempt)
        began, output = self._forget(attempt)
        if beginning is not None and beginning.failure is not None:
            self._fail_start(attempt_id, beginning.failure, died=beginning.is_the_hosts)
            return
        results, results_cut = read_results(began.results_path)
        exit_code, signal_number = exit_and_signal(status)
        self._conclude(
            Ended(
                attempt_id=attempt_id,
                reason=attempt.ending or EndReason.EXITED,
                started_ms=attempt.started_ms,
                ended_ms=wall_ms(),
                exit_code=exit_code,
                signal=signal_number,
                cpu_s=round(attempt.cpu_s, 6),
                peak_memory_bytes=attempt.peak_memory_bytes,
                output_bytes=output.total_bytes,
                output_truncated=output.truncated,
                tail=output.tail(),
                results=results,
                results_cut=results_cut,
            )
        )

    def _forget(self, attempt: Attempt) -> tuple[Began, Output]:
        del self._attempts[attempt.attempt_id]
        output = self._outputs.pop(attempt.attempt_id)
        self._unwatch(output.read_fd)
        output.finish()
        return self._begun.pop(attempt.attempt_id), output

    def _conclude(self, outcome: Outcome) -> None:
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
