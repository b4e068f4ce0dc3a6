"""One etcd process: started, watched, signalled, and its log read when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from etcsched.core.errors import EtcschedError
from etcsched.etcd.binaries import EtcdBinary
from etcsched.etcd.ports import HOST

__all__ = [
    "EXEC_BOUND_TO_PARENT",
    "STOP_GRACE_S",
    "EtcdMember",
    "wait_healthy",
]

# A cluster stopped whole can't hand over its leadership, and some versions try for 7 s.
STOP_GRACE_S = 3.0
HEALTH_TIMEOUT_S = 2.0
HEALTH_POLL_S = 0.02
LOG_TAIL_BYTES = 16_384
EXEC_BOUND_TO_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class _LogEntry(msgspec.Struct, frozen=True):
    level: str
    msg: str
    error: str = ""


class EtcdMember:
    """One etcd process, its directory ``<directory>/<name>`` and its log beside it. It answers
    health checks in plain text at ``health_port``, whatever its clients have to show."""

    def __init__(
        self,
        binary: EtcdBinary,
        name: str,
        directory: Path,
        arguments: Iterable[str],
        health_port: int,
    ) -> None:
        self.name = name
        self.data_dir = directory / name
        self.log_path = directory / f"{name}.log"
        self._binary = binary
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._health_port = health_port

    @property
    def pid(self) -> int:
        """Of the running process; 0 without one."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def exit_code(self) -> int | None:
        """None before the first start and while it runs."""
        return self._process.poll() if self._process else None

    def spawn(self) -> None:
        """Start the process and don't wait for it. Keeps the log of the start before as
        ``.log.1``."""
        if self.pid:
            raise RuntimeError(f"etcd member {self.name} runs already")
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                (
                    *(sys.executable, "-I", "-S", "-c", EXEC_BOUND_TO_PARENT, str(os.getpid())),
                    *(str(self._binary.path), f"--name={self.name}", f"--data-dir={self.data_dir}"),
                    *("--logger=zap", "--log-outputs=stderr"),
                    f"--listen-metrics-urls=http://{HOST}:{self._health_port}",
                    *self._arguments,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )

    async def is_healthy(self) -> bool:
        """Whether it serves linearizable reads now: it has a leader and a quorum."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(HOST, self._health_port)
                try:
                    request = f"GET /health HTTP/1.0\r\nHost: {HOST}\r\n\r\n"
                    writer.write(request.encode())
                    status_line = await reader.readline()
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
        return status_line.split()[1:2] == [b"200"]

    def signal(self, number: signal.Signals) -> None:
        """Nothing happens where it doesn't run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and reaped on return."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ask it to end, and kill it where it hasn't within ``grace_s``."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(grace_s):
                await self.wait_exited()
        except TimeoutError:
            pass
        finally:
            self.kill()

    async def wait_exited(self) -> None:
        pid = self.pid
        if not pid:
            return
        exited = asyncio.Event()
        loop = asyncio.get_running_loop()
        descriptor = os.pidfd_open(pid)
        loop.add_reader(descriptor, exited.set)
        try:
            await exited.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    def explain(self) -> str:
        """One line: how it stands, and what it said last."""
        code = self.exit_code
        if code is not None and code < 0:
            return f"etcd {self.name} was ended by {_describe_exit(code)} (log: {self.log_path})"
        state = "isn't ready" if code is None else f"ended with {_describe_exit(code)}"
        return f"etcd {self.name} {state}: {_last_complaint(self.log_path)} (log: {self.log_path})"


async def wait_healthy(members: Iterable[EtcdMember], timeout_s: float) -> None:
    """Return when all are healthy; raise as soon as one has ended, or after ``timeout_s``."""
    waiting = list(members)
    deadline_s = time.monotonic() + timeout_s
    while True:
        for member in waiting:
            if member.exit_code is not None:
                raise EtcschedError(member.explain())
        waiting = [member for member in waiting if not await member.is_healthy()]
        if not waiting:
            return
        if time.monotonic() > deadline_s:
            raise EtcschedError(f"{waiting[0].explain()}; waited {timeout_s:.0f} s")
        await asyncio.sleep(HEALTH_POLL_S)


def _environment() -> dict[str, str]:
    """Without ETCD_ variables: etcd reads each as a flag. etcd below 3.5 starts on 64-bit ARM
    only where it is told so."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD_")}
    if platform.machine() == "aarch64":
        environment["ETCD_UNSUPPORTED_ARCH"] = "arm64"
    return environment


def _describe_exit(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _last_complaint(log_path: Path) -> str:
    """What the last serious entry of etcd's log says, else its last line."""
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, log_path.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError as error:
        return str(error)
    last = "its log is empty"
    for line in lines:
        try:
            entry = msgspec.json.decode(line, type=_LogEntry)
        except (msgspec.DecodeError, msgspec.ValidationError):
            last = line.strip() or last
            continue
        last = entry.error or entry.msg
        if entry.level in {"fatal", "panic"}:
            break
    if "downgrade" in last:
        return f"{last}; its data was written by a newer etcd: use that version"
    return last
