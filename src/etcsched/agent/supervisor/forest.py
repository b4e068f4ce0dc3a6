"""The processes of all attempts: which is whose, signalling one attempt's, and knowing when none
of them is left.

The supervisor is a subreaper, so whatever loses its parent below it becomes its child: a *stray*.
A stray is recognized by its session, else by the marker in its environment. One that left its
session, cleared its environment and outlived its parent may belong to any attempt that ran when
it appeared: it is killed when the last of those has ended, and doesn't delay the others' end.
"""

from __future__ import annotations

import contextlib
import os
import resource  # noqa: F401  os.wait4 would import it when first called
import signal
from typing import NamedTuple

from etcsched.agent.supervisor import processes
from etcsched.agent.supervisor.attempt import Attempt
from etcsched.agent.supervisor.spawn import ATTEMPT_MARKER


class MainEnded(NamedTuple):
    attempt: Attempt
    status: int


class Forest:
    def __init__(self) -> None:
        self._attempts: dict[str, Attempt] = {}
        self._sessions: dict[int, Attempt] = {}
        """By pid of the main process, kept until the attempt is over: as long as a process is in
        that session, the kernel gives its number to no other. Of a session that is empty it may
        be another attempt's already."""
        self._mains: dict[int, Attempt] = {}
        """By pid, the main processes not yet waited for."""
        self._given_up: set[int] = set()
        self._strays: dict[int, frozenset[str]] = {}

    def plant(self, attempt: Attempt) -> None:
        self._attempts[attempt.attempt_id] = attempt
        self._sessions[attempt.pid] = attempt
        self._mains[attempt.pid] = attempt

    def fell(self, attempt: Attempt) -> None:
        """The attempt is over."""
        del self._attempts[attempt.attempt_id]
        if self._sessions.get(attempt.pid) is attempt:
            del self._sessions[attempt.pid]
        for pid, owners in self._strays.items():
            if attempt.attempt_id in owners:
                self._strays[pid] = owners - {attempt.attempt_id}

    def give_up(self, attempt: Attempt) -> None:
        """Kill the attempt's process, which isn't its command yet, and have it over: not even a
        process that can't die at present goes on from there."""
        self.signal(attempt, signal.SIGKILL)
        del self._mains[attempt.pid]
        self._given_up.add(attempt.pid)
        self.fell(attempt)

    def given_up(self) -> int:
        """Processes that were given up and haven't died yet."""
        return len(self._given_up)

    def reap(self) -> list[MainEnded]:
        """Wait for every child that has ended."""
        ended: list[MainEnded] = []
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            attempt = self._mains.pop(pid, None)
            if attempt is not None:
                ended.append(MainEnded(attempt, status))
            elif pid in self._given_up:
                self._given_up.remove(pid)
                continue
            else:
                attempt = self._owner(self._strays.pop(pid, frozenset()))
            if attempt is not None:
                attempt.cpu_s += usage.ru_utime + usage.ru_stime
                attempt.peak_memory_bytes = max(attempt.peak_memory_bytes, usage.ru_maxrss * 1024)
        return ended

    def strays_of(self, attempt: Attempt) -> list[int]:
        """Children of ours that are certainly the attempt's."""
        owners = {attempt.attempt_id}
        return [pid for pid, stray_of in self._strays.items() if stray_of == owners]

    def signal(self, attempt: Attempt, number: int) -> None:
        """Send a signal to every process of the attempt, each once. ``OSError``: perhaps some
        didn't get it."""
        main_left = self._mains.get(attempt.pid) is attempt
        if main_left and number == signal.SIGKILL:
            # The group at one blow; its number is ours until its leader is waited for.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(attempt.pid, signal.SIGKILL)
        self.find_strays()
        roots = self.strays_of(attempt)
        if main_left:
            roots.append(attempt.pid)
        if number != signal.SIGKILL:
            targets = processes.trees_of(roots)
            processes.signal_processes(targets, number)
            # One that is stopped would sleep through its grace period.
            processes.signal_processes(targets, signal.SIGCONT)
            return
        processes.kill_trees(roots)

    def kill_ownerless(self) -> None:
        """Strays whose every possible attempt is over."""
        roots = [pid for pid, owners in self._strays.items() if not owners]
        if roots:
            processes.kill_trees(roots)

    def _owner(self, owners: frozenset[str]) -> Attempt | None:
        return self._attempts.get(next(iter(owners))) if len(owners) == 1 else None

    def find_strays(self) -> None:
        """``OSError``: there may be more than are known."""
        for pid in processes.own_children():
            if not (pid in self._mains or pid in self._strays or pid in self._given_up):
                self._strays[pid] = self._possible_owners(pid)

    def _possible_owners(self, pid: int) -> frozenset[str]:
        stat = processes.read_stat(pid)
        if stat is not None and stat.session in self._sessions:
            return frozenset((self._sessions[stat.session].attempt_id,))
        marker = processes.environment_value(pid, ATTEMPT_MARKER.encode())
        if marker is None:
            return frozenset(self._attempts)
        return frozenset((os.fsdecode(marker),)) & self._attempts.keys()
