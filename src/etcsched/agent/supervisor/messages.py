"""What the agent and its supervisor say to each other, and how it is framed.

One message is four bytes of length (big-endian) and that many bytes of msgpack, a map whose
``type`` names the struct. Unknown fields are ignored and new fields have defaults, so that an agent
of the next version can take over the supervisor of this one; ``PROTOCOL`` changes when that is
no longer true.

Messages of one connection arrive in the order sent, and are served so, but for ``MoveDeadline``
and the ``Kill`` of what runs: those go before starts that wait. ``Started`` precedes ``Ended`` of
the same attempt. All deadlines are in seconds of CLOCK_BOOTTIME, which runs on while the machine
sleeps; ``*_ms`` are Unix time in milliseconds.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

PROTOCOL = 1
FRAME_MAX_BYTES = 256 * 1024 * 1024
"""Far above any honest frame: an inventory of 50,000 unacknowledged outcomes. More is a bug, or
not our peer."""

TAIL_MAX_BYTES = 4096
RESULTS_MAX_BYTES = 32 * 1024
"""Read of a results file: more than any run may hand on, which is for the agent to judge."""

_HEADER = struct.Struct(">I")
_ANY = TypeVar("_ANY")


class EndReason(enum.Enum):
    """Why an attempt is over. The first two are the process's own doing; of the others the one
    that first made the supervisor signal the attempt stands, however the process then ended."""

    EXITED = "exited"
    SIGNALED = "signaled"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    FENCED = "fenced"
    """Its deadline came near and nobody had moved it on."""
    VANISHED = "vanished"
    """It died with its supervisor: no exit status is known."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """First message of a connection. It ends every older connection."""

    agent_incarnation: str
    protocol: int = PROTOCOL


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """Run one attempt; answered by ``Started`` once it has become its command, or ``StartFailed``.

    Safe to repeat: a known ``attempt_id`` is answered with what became of it, never started twice.
    ``env`` is the whole environment; only the supervisor's two markers are added to it, and where
    ``user`` is given HOME, USER, LOGNAME and SHELL if absent. A relative ``argv[0]`` without a
    slash is looked up in the PATH of ``env``. Standard output and error go to ``output_path`` in
    the order written, at most ``output_cap_bytes`` of them; the file is made with the first byte.
    ``results_path`` is made empty, owned by ``user``, if ``user`` is given; its directories are
    the caller's affair.
    """

    attempt_id: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    output_path: str
    output_cap_bytes: int
    kill_grace_s: float
    deadline_mono_s: float
    timeout_s: float | None = None
    user: str | None = None
    results_path: str | None = None
    disconnect_grace_s: float = 0.0
    """The agent's own note, handed back in the inventory."""


class Kill(msgspec.Struct, frozen=True, kw_only=True, tag="kill"):
    """SIGTERM to the whole tree now, SIGKILL ``grace_s`` later. An unknown or ended attempt is
    left alone; of two kills the earlier SIGKILL counts, and the first reason."""

    attempt_id: str
    reason: EndReason
    grace_s: float


class MoveDeadline(msgspec.Struct, frozen=True, kw_only=True, tag="move_deadline"):
    """The newest word on how long attempts may live, answered by ``DeadlineMoved``.

    ``single`` overrides for the attempts it names; all others get ``deadline_mono_s`` (None:
    they keep theirs), also those whose ``Start`` was sent before and still waits. An attempt that
    its deadline has begun to stop isn't saved by this.
    """

    deadline_mono_s: float | None
    single: dict[str, float] = {}
    sequence: int = 0

    def deadline_of(self, attempt_id: str) -> float | None:
        return self.single.get(attempt_id, self.deadline_mono_s)


class Acknowledge(msgspec.Struct, frozen=True, kw_only=True, tag="acknowledge"):
    """The outcome is stored where it survives: forget the attempt."""

    attempt_id: str


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag="shutdown"):
    """Exit: with ``kill`` after killing what runs at once, else when the last attempt has ended
    (nothing new is started meanwhile). Outcomes not acknowledged stay on disk for the next
    supervisor."""

    kill: bool


class Running(msgspec.Struct, frozen=True, kw_only=True):
    attempt_id: str
    pid: int
    started_ms: int
    deadline_mono_s: float
    ending: EndReason | None = None
    """Set once the supervisor has begun to stop it."""
    disconnect_grace_s: float = 0.0


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    attempt_id: str
    pid: int
    started_ms: int


class StartFailed(msgspec.Struct, frozen=True, kw_only=True, tag="start_failed"):
    """No process of this attempt ever became its command. ``reason`` is one line for people."""

    attempt_id: str
    reason: str
    failed_ms: int
    died: bool = False
    declined: bool = False


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The attempt is over: no process of it is left.

    ``cpu_s`` sums user and system time of every process of the tree that was waited for;
    ``peak_memory_bytes`` is the largest of any one of them, and never below what the supervisor
    itself uses (the kernel counts the parent's memory until exec). ``output_bytes`` counts all
    that was written, also beyond the cap. ``tail`` is the last 4 KiB, invalid UTF-8 replaced.
    ``results`` is what the results file holds, ``results_cut`` says that it holds more.
    """

    attempt_id: str
    reason: EndReason
    started_ms: int
    ended_ms: int
    exit_code: int | None = None
    signal: int | None = None
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    output_bytes: int = 0
    output_truncated: bool = False
    tail: str = ""
    results: bytes = b""
    results_cut: bool = False


Outcome = StartFailed | Ended


class Inventory(msgspec.Struct, frozen=True, kw_only=True, tag="inventory"):
    """Answer to ``Hello``: everything the supervisor knows. ``outcomes`` are those not yet
    acknowledged, oldest first, those of a supervisor that died before included."""

    supervisor_incarnation: str
    running: tuple[Running, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    cgroup: str | None = None
    """Directory of the control group that holds the supervisor and all its attempts."""
    protocol: int = PROTOCOL
    is_closing: bool = False
    """As if ``Closing`` had been said."""


class Closing(msgspec.Struct, frozen=True, kw_only=True, tag="closing"):
    """Somebody else than the agent has told the supervisor to stop: nothing is started any more,
    and it exits once what runs has ended. An agent of a version that doesn't know this ends it."""


class DeadlineMoved(msgspec.Struct, frozen=True, kw_only=True, tag="deadline_moved"):
    """The supervisor lives and has seen the ``MoveDeadline`` of this ``sequence``."""

    sequence: int


Request = Hello | Start | Kill | MoveDeadline | Acknowledge | Shutdown
Report = Inventory | Started | StartFailed | Ended | DeadlineMoved | Closing


class BrokenFrame(Exception):
    """The peer doesn't speak this protocol; nothing more can be read from it."""


_encoder = msgspec.msgpack.Encoder()


def encode_frame(message: msgspec.Struct) -> bytes:
    body = _encoder.encode(message)
    return _HEADER.pack(len(body)) + body


class FrameReader(Generic[_ANY]):
    """Turns the bytes of a stream, in whatever pieces they come, into messages."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[_ANY]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[_ANY]:
        buffer = self._buffer
        buffer += data
        offset = 0
        try:
            while len(buffer) - offset >= _HEADER.size:
                (length,) = _HEADER.unpack_from(buffer, offset)
                if length > FRAME_MAX_BYTES:
                    raise BrokenFrame(f"a frame of {length} bytes, more than {FRAME_MAX_BYTES}")
                end = offset + _HEADER.size + length
                if len(buffer) < end:
                    break
                body = bytes(buffer[offset + _HEADER.size : end])
                offset = end
                try:
                    message = self._decoder.decode(body)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    raise BrokenFrame(str(error)) from error
                yield message
        finally:
            del buffer[:offset]


def request_reader() -> FrameReader[Request]:
    return FrameReader(msgspec.msgpack.Decoder(Request))


def report_reader() -> FrameReader[Report]:
    return FrameReader(msgspec.msgpack.Decoder(Report))
