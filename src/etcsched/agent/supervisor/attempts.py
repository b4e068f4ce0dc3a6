"""The attempts that the supervisor has in hand, each from its fork until its whole tree is gone.

A process is an attempt from its fork on, with deadline and journal; it is told that it has started
once it has become its command. Where that may take for ever, nothing here waits for it.
"""

from __future__ import annotations

import heapq
import itertools
import math
import signal
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from etcsched.agent.supervisor import descriptors
from etcsched.agent.supervisor.attempt import Attempt, exit_and_signal
from etcsched.agent.supervisor.deadman import Deadman
from etcsched.agent.supervisor.forest import Forest
from etcsched.agent.supervisor.journal import Began
from etcsched.agent.supervisor.kernel import boottime_s, wall_ms
from etcsched.agent.supervisor.messages import (
    Ended,
    EndReason,
    MoveDeadline,
    Outcome,
    Start,
    Started,
    StartFailed,
)
from etcsched.agent.supervisor.output import Output
from etcsched.agent.supervisor.poller import Poller
from etcsched.agent.supervisor.results_file import read_results
from etcsched.agent.supervisor.spawn import (
    Beginning,
    CannotStart,
    Fault,
    NotHere,
    Running,
    Spawner,
)

__all__ = ["HANGING_STARTS_MAX", "Attempts", "Hears"]

HANGING_STARTS_MAX = 64
"""Processes that were killed as they hung in their start, and can't die at present. Beyond it
nothing starts: each takes a number from the host's processes, and some memory."""

DUE_SLACK = 1000
"""Entries of the past that the heap of due times may hold, beyond one for each attempt."""


class Hears(Protocol):
    """Whoever writes the journal, and tells the agent what is in it."""

    def began(self, began: Began) -> None:
        """A process was forked."""

    def started(self, started: Started) -> None:
        """It has become its command."""

    def concluded(self, outcome: Outcome) -> None:
        """It never started, or it and all of its tree have ended. Nothing more comes of it."""


class Attempts:
    def __init__(
        self,
        hears: Hears,
        *,
        incarnation: str,
        start_within_s: float,
        poller: Poller,
        deadman: Deadman,
        log: Callable[[str], None],
    ) -> None:
        self._hears = hears
        self._poller = poller
        self._deadman = deadman
        self._log = log
        before = descriptors.limits()
        descriptors.set_limits(descriptors.raised(before))
        self._attempts_most = descriptors.attempts_within(descriptors.limits()[0])
        self._spawner = Spawner(incarnation, start_within_s, before)
        self._attempts: dict[str, Attempt] = {}
        self._outputs: dict[str, Output] = {}
        self._begun: dict[str, Began] = {}
        self._starting: dict[str, Beginning] = {}
        """Forked, not yet their command; the oldest first."""
        self._unsent: dict[str, int] = {}
        """Signals by attempt that some of its processes perhaps didn't get."""
        self._bereaved: list[Attempt] = []
        """Main process ended by itself; whoever is left of the tree is to be told."""
        self._dying: list[Attempt] = []
        """Main process ended, others of the tree are left."""
        self._forest = Forest()
        self._due: list[tuple[float, int, Attempt]] = []
        self._order = itertools.count()
        self.is_closed = False
        """Nothing starts any more."""

    @property
    def all(self) -> Collection[Attempt]:
        return self._attempts.values()

    @property
    def begun(self) -> Iterable[Began]:
        """What the journal has to know of them."""
        return self._begun.values()

    def get(self, attempt_id: str) -> Attempt | None:
        return self._attempts.get(attempt_id)

    def next_due_s(self) -> float:
        """When the next signal is due, in CLOCK_BOOTTIME, or perhaps a little before."""
        return self._due[0][0] if self._due else math.inf

    # Starts

    def start(self, start: Start) -> None:
        """Asked for again, it is told again that it has started, if it has."""
        attempt_id = start.attempt_id
        known = self._attempts.get(attempt_id)
        if known is not None:
            if attempt_id not in self._starting:
                self._tell_started(known)
            return
        try:
            output, process = self._spawn(start)
        except (CannotStart, OSError) as error:
            fault = error.fault if isinstance(error, CannotStart) else Fault.HOST
            self._fail_start(attempt_id, str(error), fault)
            return
        self._adopt(start, output, process)

    def _spawn(self, start: Start) -> tuple[Output, Running | Beginning]:
        if self.is_closed:
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
        self._poller.watch(output.read_fd, lambda _mask: self._pump(output))
        self._schedule(attempt)
        self._hears.began(began)
        if isinstance(process, Running):
            self._tell_started(attempt)
        else:
            self._starting[start.attempt_id] = process
            self._poller.watch(process.report_fd, lambda _mask: self._hear_start(attempt, process))

    def _hear_start(self, attempt: Attempt, beginning: Beginning) -> None:
        if not beginning.look():
            return
        if beginning.failure is None:
            self._forget_start(attempt)
            self._tell_started(attempt)
        else:
            # Told once the process, which is at its end, was waited for.
            self._poller.unwatch(beginning.report_fd)

    def _forget_start(self, attempt: Attempt) -> None:
        beginning = self._starting.pop(attempt.attempt_id, None)
        if beginning is not None:
            self._poller.unwatch(beginning.report_fd)
            beginning.close()

    def give_up_starts(self) -> None:
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
                self._poller.put_off("killing what hangs in its start", error)
                break
            self._log(f"{attempt_id}: {reason}")
            self._forget_start(attempt)
            self._forget(attempt)
            self._fail_start(attempt_id, reason, beginning.fault)

    def _tell_started(self, attempt: Attempt) -> None:
        self._hears.started(
            Started(attempt_id=attempt.attempt_id, pid=attempt.pid, started_ms=attempt.started_ms)
        )

    def _fail_start(self, attempt_id: str, reason: str, fault: Fault) -> None:
        self._hears.concluded(
            StartFailed(
                attempt_id=attempt_id,
                reason=reason,
                failed_ms=wall_ms(),
                died=fault is Fault.HOST,
                declined=fault is Fault.USER,
            )
        )

    def _pump(self, output: Output) -> None:
        if not output.pump():
            self._poller.unwatch(output.read_fd)

    # Signals and ends

    def move_deadlines(self, request: MoveDeadline) -> None:
        now_s = boottime_s()
        for attempt in self._attempts.values():
            deadline_s = request.deadline_of(attempt.attempt_id)
            if deadline_s is not None:
                attempt.move_deadline(deadline_s, now_s)
                self._schedule(attempt)
        self._deadman.recompute(self._attempts.values())

    def kill(self, attempt: Attempt, reason: EndReason, grace_s: float) -> None:
        self._signal(attempt, attempt.kill(reason, grace_s, boottime_s()))
        self._schedule(attempt)

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

    def signal_what_is_due(self) -> None:
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
            self._poller.put_off("signalling", error)
        else:
            self._unsent.pop(attempt.attempt_id, None)

    def send_again(self) -> None:
        """The signals that couldn't be sent to all of a tree."""
        unsent, self._unsent = self._unsent, {}
        for attempt_id, number in unsent.items():
            attempt = self._attempts.get(attempt_id)
            if attempt is not None:
                self._signal(attempt, number)

    def reap(self) -> None:
        for attempt, status in self._forest.reap():
            if attempt.main_ended(status, boottime_s()):
                self._bereaved.append(attempt)
            self._dying.append(attempt)
        try:
            self._forest.find_strays()
        except OSError as error:
            self._poller.put_off("looking for processes that are left", error)
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
            self._poller.put_off("killing what is left", error)

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
            self._fail_start(attempt_id, beginning.failure, beginning.fault)
            return
        results, results_cut = read_results(began.results_path)
        exit_code, signal_number = exit_and_signal(status)
        self._hears.concluded(
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
        self._poller.unwatch(output.read_fd)
        output.finish()
        return self._begun.pop(attempt.attempt_id), output
