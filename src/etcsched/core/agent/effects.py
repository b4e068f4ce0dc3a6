"""What an agent wants done: writes to its keys, and things to do with processes.

The shell carries effects out in the order given. An attempt is known everywhere by its
``attempt_id``, ``<job>/<run>/<attempt>/<token>``: a token alone isn't unique, since assignments of
one batch share their revision.
"""

from __future__ import annotations

import enum

import msgspec

from etcsched.core.records import Assignment, Presence, Report


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """T2: assignment as seen, no report yet, and everything that the leader's decision rested on
    still as seen. Only a committed claim starts the process.

    ``report`` has an outcome already where no process is wanted: the agent declines, the run is
    cancelled, or its command makes no sense.
    """

    token: int
    assignment: Assignment
    report: Report


class ReportOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """T3: assignment as seen; the report becomes final. Refused: the run moved on, so the same
    report goes to ``late/`` (its branch if the compare fails)."""

    agent: str
    token: int
    report: Report


class Adopt(msgspec.Struct, frozen=True, kw_only=True):
    """T6: assignment as seen, report as seen; ``report`` is the claim under the new session."""

    agent: str
    token: int
    report: Report
    report_revision: int


class StartProcess(msgspec.Struct, frozen=True, kw_only=True):
    """``user`` None: the agent's own. ``env`` is whole but for what a user's login adds."""

    attempt_id: str
    job: str
    run: str
    attempt: int
    argv: tuple[str, ...]
    env: dict[str, str]
    workdir: str
    user: str | None
    timeout_s: float | None
    kill_grace_s: float
    deadline_mono_s: float
    disconnect_grace_s: float
    output_path: str
    results_path: str


class KillCause(enum.Enum):
    CANCELLED = "cancelled"
    FENCED = "fenced"


class KillProcess(msgspec.Struct, frozen=True, kw_only=True):
    """SIGTERM to the whole tree now, SIGKILL ``grace_s`` later."""

    attempt_id: str
    cause: KillCause
    grace_s: float


class MoveDeadlines(msgspec.Struct, frozen=True):
    """All processes may live until then (None: as before), but those that ``single`` names; the
    supervisor stops them by itself if no later word comes."""

    deadline_mono_s: float | None
    single: dict[str, float] = {}


class Acknowledge(msgspec.Struct, frozen=True):
    """The outcome is in etcd or in the spool: the supervisor may forget it."""

    attempt_id: str


class SpoolOutcome(msgspec.Struct, frozen=True):
    """Write it to disk; answered by ``OutcomeSpooled`` or ``SpoolFailed``."""

    attempt_id: str
    report: Report


class ForgetSpooled(msgspec.Struct, frozen=True):
    attempt_id: str


class StartSupervisor(msgspec.Struct, frozen=True):
    """The old one is gone; answered by ``SupervisorReady``."""


class OpenSession(msgspec.Struct, frozen=True):
    """Grant a lease, with backoff, for ever; answered by ``SessionOpened``."""


class JoinPresence(msgspec.Struct, frozen=True):
    """Answered by ``PresenceJoined`` or ``PresenceTaken``. ``after_s``: not earlier."""

    presence: Presence
    lease: int
    after_s: float = 0.0


class UpdatePresence(msgspec.Struct, frozen=True):
    """Only the newest of several counts. Refused: ``PresenceGone``."""

    presence: Presence
    lease: int
    create_revision: int


class LeavePresence(msgspec.Struct, frozen=True):
    """Delete it and revoke the lease, if etcd can be reached; answered by ``PresenceLeft``."""

    agent: str
    create_revision: int


class RevokeLease(msgspec.Struct, frozen=True):
    """A lease of an earlier session of this very agent."""

    lease: int


class ReadReports(msgspec.Struct, frozen=True):
    """List this agent's reports; answered by ``ReportsRead``."""

    create_revision: int


class Quit(msgspec.Struct, frozen=True):
    """The agent is done. Processes are over, unless ``id_in_use`` says why it can't go on."""

    id_in_use: str = ""


class Reexec(msgspec.Struct, frozen=True):
    """Begin anew, leaving supervisor, processes and lease for the one that comes."""


Effect = (
    Claim
    | Adopt
    | ReportOutcome
    | StartProcess
    | KillProcess
    | MoveDeadlines
    | Acknowledge
    | SpoolOutcome
    | ForgetSpooled
    | StartSupervisor
    | OpenSession
    | JoinPresence
    | UpdatePresence
    | LeavePresence
    | RevokeLease
    | ReadReports
    | Quit
    | Reexec
)
