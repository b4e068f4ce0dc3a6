"""An attempt's standard output and error, on their way from a pipe to a file with a cap.

Why a pipe through the supervisor, and not the file itself as the process's descriptor: only so is
the cap exact. With the file itself a flooding process fills the disk between two looks at the
size, RLIMIT_FSIZE would kill it (SIGXFSZ), and a full disk would fail its writes. Here what can't
be kept is counted and thrown away, and the process never notices. It costs one pipe per attempt;
the file is only made when there is something to write, which saves more than the pipe costs for
commands that say nothing.

The file holds the first ``cap`` bytes; of longer output the last few KiB of the file are replaced,
once it ended, by a line that says so and by the last bytes of the output.
"""

from __future__ import annotations

import os

from etcsched.agent.supervisor.messages import TAIL_MAX_BYTES

CHUNK_BYTES = 65536
DRAIN_MAX_BYTES = 1024 * 1024
"""Read at the end without waiting: what a full pipe can hold, whatever its size (by default at
most 1 MiB, /proc/sys/fs/pipe-max-size). A process that isn't ours and holds the pipe open can't
keep an attempt from ending."""


class Output:
    def __init__(self, path: str, cap_bytes: int) -> None:
        """Raises OSError where no pipe is to be had (out of descriptors)."""
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.write_fd, True)
        self.total_bytes = 0
        self._path = path
        self._cap_bytes = max(0, cap_bytes)
        self._kept_bytes = 0
        self._file_fd = -1
        self._given_up = False
        self._tail = b""

    @property
    def truncated(self) -> bool:
        return self.total_bytes > self._kept_bytes

    def tail(self) -> str:
        return self._tail.decode("utf-8", "replace")

    def close_write_end(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def pump(self) -> bool:
        """Take one chunk. False: nobody holds the pipe any more, there will be nothing else."""
        try:
            data = os.read(self.read_fd, CHUNK_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        self._keep(data)
        return True

    def finish(self) -> None:
        """Take what is in the pipe, mark a cut, close everything."""
        self.close_write_end()
        limit = self.total_bytes + DRAIN_MAX_BYTES
        while self.total_bytes < limit:
            before = self.total_bytes
            if not self.pump() or self.total_bytes == before:
                break
        os.close(self.read_fd)
        if self._file_fd >= 0:
            if self.truncated and not self._given_up:
                self._mark_cut()
            os.close(self._file_fd)
            self._file_fd = -1

    def _keep(self, data: bytes) -> None:
        self.total_bytes += len(data)
        self._tail = (self._tail + data)[-TAIL_MAX_BYTES:]
        room = self._cap_bytes - self._kept_bytes
        if room <= 0 or self._given_up:
            return
        try:
            if self._file_fd < 0:
                self._file_fd = self._open()
            view = memoryview(data)[:room]
            while view:
                written = os.write(self._file_fd, view)
                self._kept_bytes += written
                view = view[written:]
        except (OSError, ValueError):
            # Disk full, quota, no such directory, no path at all: the attempt goes on, and its tail
            # is still reported.
            self._given_up = True

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            return os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            return os.open(self._path, flags, 0o600)

    def _mark_cut(self) -> None:
        notice = (
            f"\n[etcsched: output cut here; it had {self.total_bytes} bytes, "
            f"the cap is {self._cap_bytes}; its end follows]\n"
        ).encode()
        end = notice + self._tail
        if len(end) > self._cap_bytes // 2:
            return
        try:
            os.pwrite(self._file_fd, end, self._cap_bytes - len(end))
        except OSError:
            self._given_up = True


def end_of_file(path: str) -> str:
    """The last bytes of an output file whose attempt nobody saw end; empty if there is none."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path, flags), "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_MAX_BYTES))
            return file.read(TAIL_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
