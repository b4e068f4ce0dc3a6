"""What must outlive the supervisor: which attempts it had, and the outcomes nobody acknowledged.

One file, appended to before the agent is told, read by the next supervisor of the same directory.
It survives the death of the process, which is what it is for; it isn't synced, since after a
power loss nothing of the attempts is left but what etcd knows. A record that a crash cut short is
ignored. The file is rewritten when it is mostly about attempts long acknowledged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from etcsched.agent.supervisor.messages import (
    BrokenFrame,
    Ended,
    FrameReader,
    Outcome,
    StartFailed,
    encode_frame,
)

FILE_NAME = "attempts.journal"
REWRITE_ABOVE_BYTES = 4 * 1024 * 1024


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """A supervisor began; what it starts carries this incarnation in its environment."""

    supervisor_incarnation: str
    cgroup: str | None = None


class Began(msgspec.Struct, frozen=True, kw_only=True, tag="began"):
    attempt_id: str
    pid: int
    started_ms: int
    output_path: str
    results_path: str | None = None


class Forgotten(msgspec.Struct, frozen=True, kw_only=True, tag="forgotten"):
    attempt_id: str


Record = Opened | Began | StartFailed | Ended | Forgotten


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What former supervisors of this directory left behind."""

    opened: tuple[Opened, ...] = ()
    unfinished: tuple[Began, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


def read_past(directory: Path) -> Past:
    try:
        data = (directory / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return Past()
    opened: list[Opened] = []
    unfinished: dict[str, Began] = {}
    outcomes: dict[str, Outcome] = {}
    reader = FrameReader(msgspec.msgpack.Decoder(Record))
    try:
        for record in reader.feed(data):
            match record:
                case Opened():
                    opened.append(record)
                case Began():
                    unfinished[record.attempt_id] = record
                case StartFailed() | Ended():
                    unfinished.pop(record.attempt_id, None)
                    outcomes[record.attempt_id] = record
                case Forgotten():
                    unfinished.pop(record.attempt_id, None)
                    outcomes.pop(record.attempt_id, None)
    except BrokenFrame:
        # Written by a crash in the middle of a page, or by a hand: what stands before is sound.
        pass
    return Past(
        opened=tuple(opened),
        unfinished=tuple(unfinished.values()),
        outcomes=tuple(outcomes.values()),
    )


class Journal:
    """Collects records; ``flush`` writes them in one go. A full disk costs only the crash safety
    of what couldn't be written: it is written as soon as there is room."""

    def __init__(
        self, directory: Path, opened: Opened, current: Callable[[], Iterable[Record]]
    ) -> None:
        """``current`` says what a file written anew has to hold: the attempts that run and the
        outcomes not acknowledged."""
        self._path = directory / FILE_NAME
        self._opened = opened
        self._current = current
        self._pending = bytearray()
        self._size_bytes = 0
        self._rewrite_at_bytes = REWRITE_ABOVE_BYTES
        self._file_fd = -1
        try:
            # The old file stays until this works; the first flush says what is wrong.
            self._rewrite()
        except OSError:
            self._close()

    def add(self, record: Record) -> None:
        self._pending += encode_frame(record)

    def flush(self) -> str | None:
        """Returns why the file can't be written at present, if so."""
        if not self._pending and self._file_fd >= 0:
            return None
        try:
            if self._file_fd < 0 or self._size_bytes > self._rewrite_at_bytes:
                self._rewrite()
            else:
                self._write(self._pending)
        except OSError as error:
            # Perhaps half of a record was written: the next flush starts a new file.
            self._close()
            return f"{self._path}: {error.strerror}"
        finally:
            self._pending.clear()
        return None

    def _write(self, data: bytearray) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._file_fd, view)
            self._size_bytes += written
            view = view[written:]

    def _rewrite(self) -> None:
        self._close()
        fresh = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file_fd = os.open(fresh, flags, 0o600)
        self._size_bytes = 0
        data = bytearray(encode_frame(self._opened))
        for record in self._current():
            data += encode_frame(record)
        self._write(data)
        os.rename(fresh, self._path)
        self._rewrite_at_bytes = max(REWRITE_ABOVE_BYTES, 4 * self._size_bytes)

    def _close(self) -> None:
        if self._file_fd >= 0:
            os.close(self._file_fd)
            self._file_fd = -1
