"""What an agent learns. Each is a fact that has happened; its time comes beside it.

Order that the shell guarantees: what one source tells comes in the order told. Between sources
(each watched prefix, the writer, the supervisor, the session) there is none.
"""

from __future__ import annotations

import enum

import msgspec

from etcsched.core.records import Change, Kind, Presence, Report


class EndCause(enum.Enum):
    """Why a process is over: by itself, or what the supervisor stopped it for."""

    EXITED = "exited"
    SIGNALED = "signaled"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    FENCED = "fenced"
    VANISHED = "vanished"


# --- the supervisor ------------------------------------------------------------------------


class ProcessStarted(msgspec.Struct, frozen=True, kw_only=True):
    """``deadline_mono_s`` and ``disconnect_grace_s`` are what the supervisor holds it to, told of
    processes that it ran before this agent came."""

    attempt_id: str
    started_ms: int
    deadline_mono_s: float = 0.0
    disconnect_grace_s: float = 0.0


class StartFailed(msgspec.Struct, frozen=True, kw_only=True):
    """``died``: for no reason of its own, it would start elsewhere. ``declined``: nothing runs here
    as its user, so that it is another agent's."""

    attempt_id: str
    reason: str
    failed_ms: int
    died: bool = False
    declined: bool = False


class ProcessEnded(msgspec.Struct, frozen=True, kw_only=True):
    """No process of the attempt is left."""

    attempt_id: str
    cause: EndCause
    started_ms: int
    ended_ms: int
    exit_code: int | None = None
    signal: int | None = None
    cpu_s: float | None = None
    peak_memory_bytes: int | None = None
    output_bytes: int = 0
    tail: str = ""
    results: bytes = b""
    results_cut: bool = False


class SupervisorReady(msgspec.Struct, frozen=True, kw_only=True):
    """Connected, with all that it knows; an attempt in neither list has no process.
    ``is_closing``: as if ``SupervisorClosing`` had followed."""

    incarnation: str
    running: tuple[ProcessStarted, ...] = ()
    ended: tuple[ProcessEnded | StartFailed, ...] = ()
    is_closing: bool = False


class SupervisorClosing(msgspec.Struct, frozen=True):
    """It was told to stop, though its agent goes on: it starts nothing more."""


class SupervisorGone(msgspec.Struct, frozen=True):
    """Its connection ended."""


# --- the session and the presence ----------------------------------------------------------


class SessionOpened(msgspec.Struct, frozen=True, kw_only=True):
    """``resumed``: it is the session of this agent's process before this one. ``ttl_s`` is what
    etcd grants, which may be more than was asked for, or what a resumed lease had before."""

    incarnation: str
    lease: int
    ttl_s: int
    deadline_mono_s: float
    resumed: bool = False


class SessionRenewed(msgspec.Struct, frozen=True):
    deadline_mono_s: float


class SessionLost(msgspec.Struct, frozen=True):
    """The lease is gone (``lease_gone``: before its time, as etcd says), or its deadline passed."""

    lease_gone: bool = False


class PresenceJoined(msgspec.Struct, frozen=True):
    create_revision: int


class PresenceTaken(msgspec.Struct, frozen=True, kw_only=True):
    """The key exists already: by an earlier sending, by an earlier session, or by another."""

    presence: Presence
    lease: int
    create_revision: int
    key: str = ""


class PresenceGone(msgspec.Struct, frozen=True):
    """A transaction that compares this create revision was refused."""

    create_revision: int


class PresenceLeft(msgspec.Struct, frozen=True):
    pass


# --- keys ----------------------------------------------------------------------------------


class Changed(msgspec.Struct, frozen=True):
    """An assignment, order or drain of this agent, or its presence. What can't be read isn't told
    of: it counts as it was before."""

    change: Change


class Listed(msgspec.Struct, frozen=True):
    """All there is of one of these kinds at ``revision``; what isn't in it is gone. Of what can't
    be read the change has no record, and counts as it was before, too."""

    kind: Kind
    changes: tuple[Change, ...]
    revision: int


class ReportsRead(msgspec.Struct, frozen=True):
    """This agent's reports with their mod revisions, read after it joined with this create
    revision."""

    create_revision: int
    reports: tuple[tuple[Report, int], ...]


# --- writes and the spool ------------------------------------------------------------------


class ClaimCommitted(msgspec.Struct, frozen=True):
    attempt_id: str


class ClaimRefused(msgspec.Struct, frozen=True):
    """``found`` is the report that is there."""

    attempt_id: str
    found: Report | None


class ClaimRejected(msgspec.Struct, frozen=True):
    """etcd takes it in no form (it is too large, say); nothing was applied."""

    attempt_id: str


class Adopted(msgspec.Struct, frozen=True):
    """T6 is committed: the attempt's report names this session."""

    attempt_id: str
    incarnation: str


class AdoptionRefused(msgspec.Struct, frozen=True):
    """``found`` is the report that is there. ``is_rejected``: whatever is there, etcd takes the
    adoption in no form."""

    attempt_id: str
    incarnation: str
    found: Report | None
    is_rejected: bool = False


class OutcomeStored(msgspec.Struct, frozen=True):
    """``late``: the run had moved on, so it went to ``late/``."""

    attempt_id: str
    late: bool


class OutcomeRejected(msgspec.Struct, frozen=True):
    """etcd takes it in no form; ``why`` in its words."""

    attempt_id: str
    why: str


class SpoolRead(msgspec.Struct, frozen=True):
    """What the spool holds as the agent starts, oldest first."""

    reports: tuple[Report, ...]


class OutcomeSpooled(msgspec.Struct, frozen=True):
    attempt_id: str


class SpoolFailed(msgspec.Struct, frozen=True):
    attempt_id: str


# --- the operator and time -----------------------------------------------------------------


class StopRequested(msgspec.Struct, frozen=True):
    """``kill``: don't wait for what runs. A second request kills too."""

    kill: bool = False


class RestartRequested(msgspec.Struct, frozen=True):
    """The agent's program begins anew; its processes run on."""


class TimePassed(msgspec.Struct, frozen=True):
    """Comes several times a second."""


Event = (
    ProcessStarted
    | StartFailed
    | ProcessEnded
    | SupervisorReady
    | SupervisorClosing
    | SupervisorGone
    | SessionOpened
    | SessionRenewed
    | SessionLost
    | PresenceJoined
    | PresenceTaken
    | PresenceGone
    | PresenceLeft
    | Changed
    | Listed
    | ReportsRead
    | ClaimCommitted
    | ClaimRefused
    | ClaimRejected
    | Adopted
    | AdoptionRefused
    | OutcomeStored
    | OutcomeRejected
    | SpoolRead
    | OutcomeSpooled
    | SpoolFailed
    | StopRequested
    | RestartRequested
    | TimePassed
)
