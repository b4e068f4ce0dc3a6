"""Who this agent is, and where it stands: what all its decisions depend on."""

from __future__ import annotations

import math

import msgspec

from etcsched.core.agent.events import SessionOpened
from etcsched.core.clock import Instant
from etcsched.core.records import Assignment, Live, Presence
from etcsched.core.states import Stage
from etcsched.core.times import Utc, utc_of


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """``users`` may be named by jobs (see ``core.agent.users``); ``own_user`` is the agent's own.
    ``base_env`` is what every process gets. ``past_incarnations`` are this agent's own earlier
    sessions, as far as its disk knows (which may be a copy of another's).

    ``leader_wait_s``: one that wants to go, and has ended its work, waits so long for a leader to
    say what is to be done first; ``shutdown_timeout_s``: what that is may take so long.
    ``spool_after_s``: an outcome that waits for so long goes to disk, if etcd has answered nothing
    for so long.
    """

    agent: str
    slots: int
    host: str
    pid: int
    version: str
    own_user: str
    output_dir: str
    labels: dict[str, str] = {}
    users: tuple[str, ...] = ()
    default_user: str = ""
    base_env: dict[str, str] = {}
    past_incarnations: tuple[str, ...] = ()
    output_address: str = ""
    stop_timeout_s: float = 60.0
    leader_wait_s: float = 13.0
    shutdown_timeout_s: float = 60.0
    spool_after_s: float = 1.0
    spool_retry_s: float = 5.0
    restart_within_s: float = 5.0


class Standing:
    """Changed by the machine only. ``incarnations`` are this agent's own sessions, as far as known;
    ``held`` those that this process has held: only they surely are.
    ``session_ttl_s`` is that of the session that there is, or was last.
    ``joined`` is the create revision of our presence. ``stopping``: it wants to go; ``leaving``: so
    does one that only restarts. ``stage`` is what the leader says of this very session.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.session: SessionOpened | None = None
        self.session_ttl_s = 0
        self.incarnations = set(settings.past_incarnations)
        self.held: set[str] = set()
        self.deadline_mono_s = 0.0
        self.joined: int | None = None
        self.reports_read = False
        self.supervisor: str | None = None
        self.is_supervisor_closing = False
        self.drained = False
        self.clock_shown_s = -math.inf
        """When the presence was last put, or put again."""
        self.slots_shown = 0
        """What it said then."""
        self.leaving = False
        self.stopping = False
        self.takes_shutdown_jobs = False
        self._live: Live | None = None
        self.since: Utc | None = None

    def has_session(self, now: Instant) -> bool:
        return self.session is not None and now.mono_s < self.deadline_mono_s

    @property
    def claim_least_s(self) -> float:
        """A claim is sent only while the session is good for so long. Keepalives come every quarter
        of the TTL. What begins with less than that left of a session would be told to end before it
        could do anything, and count as an attempt that died."""
        return self.session_ttl_s / 4

    @property
    def may_write(self) -> bool:
        """Whether a writer stands ready; what is concluded meanwhile is sent once it does."""
        return self.joined is not None and self.reports_read

    @property
    def slots(self) -> int:
        """As the presence says. While the supervisor is closing there are none, so that the leader
        takes back what isn't claimed, and gives it to others: how long that lasts is up to what
        still runs, and one that hangs in the kernel may never end."""
        return 0 if self.is_supervisor_closing else self.settings.slots

    @property
    def stage(self) -> Stage | None:
        live, session = self._live, self.session
        if live is None or session is None or live.incarnation != session.incarnation:
            return None
        return live.stage

    def is_told(self, live: Live | None) -> None:
        self._live = live

    def may_claim(self, now: Instant, assignment: Assignment) -> bool:
        """One that leaves takes nothing but what is to be done before it goes, and nobody else
        takes that."""
        occasion = assignment.occasion
        is_shutdown = occasion is not None and occasion.is_shutdown
        return (
            self.may_write
            and self.session is not None
            and self.supervisor is not None
            and not self.is_supervisor_closing
            and not self.drained
            and (self.takes_shutdown_jobs if is_shutdown else not self.leaving)
            and now.mono_s + self.claim_least_s < self.deadline_mono_s
        )

    def lacking(self, now: Instant) -> str:
        """What keeps it from running anything though it should; empty: nothing."""
        if self.supervisor is None:
            return "it has no supervisor"
        if self.is_supervisor_closing:
            return "its supervisor was told to stop, and waits for what runs to end"
        if not self.has_session(now):
            return "it has no session with etcd"
        return "" if self.may_write else "it hasn't joined yet"

    def presence(self, now: Instant) -> Presence:
        assert self.session is not None
        settings = self.settings
        if self.since is None:
            self.since = utc_of(now.wall_ms)
        self.clock_shown_s = now.mono_s
        self.slots_shown = self.slots
        return Presence(
            agent=settings.agent,
            incarnation=self.session.incarnation,
            supervisor=self.supervisor or "",
            slots=self.slots,
            host=settings.host,
            pid=settings.pid,
            since=self.since,
            clock=utc_of(now.wall_ms),
            version=settings.version,
            labels=settings.labels,
            session_ttl_s=self.session_ttl_s,
            users=settings.users,
            default_user=settings.default_user,
            draining=self.stopping,
            output_address=settings.output_address,
        )
