"""What is kept in etcd: one frozen record a key, each with one writer (DESIGN 2).

Every record's JSON begins with its schema version ``v``. Times are ``Utc`` texts, which sort as
text; durations are seconds. ``unknown`` carries what a newer schema wrote at the top level, so
that a rewrite by this version keeps it.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

from etcsched.core.schedule.patterns import Pattern
from etcsched.core.states import (
    FINAL,
    ConditionOp,
    HostsFor,
    JobState,
    Lifecycle,
    Occasion,
    OnAgentLoss,
    OnDisconnect,
    Origin,
    Outcome,
    Overlap,
    Placement,
    Recovery,
    RunState,
    Stage,
)
from etcsched.core.times import Time, Utc, ms_of

SCHEMA_VERSION: Final = 1

CLUSTER: Final = "_cluster"
"""The name that a pause of everything has in place of a job's (no job's name begins with _)."""


MAX_PARAMS_BYTES: Final = 16 << 10
"""Of a run's parameters together, names and values."""


def params_bytes(params: dict[str, str]) -> int:
    return sum(len(name.encode()) + len(value.encode()) for name, value in params.items())


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a record."""


class Record(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=SCHEMA_VERSION
):
    unknown: dict[str, Any] | None = None


# --- what operators want -------------------------------------------------------------------


class Exec(msgspec.Struct, frozen=True, tag_field="executor", tag="exec"):
    """``{name}`` in an element stands for a parameter; no shell is involved."""

    argv: tuple[str, ...]


class Shell(msgspec.Struct, frozen=True, tag_field="executor", tag="shell"):
    """Given to ``/bin/sh -c``; parameters are in the environment only."""

    command: str


class Noop(msgspec.Struct, frozen=True, tag_field="executor", tag="noop"):
    """Completes at once in the agent, without a process: it measures the control plane."""


Action = Exec | Shell | Noop


class Window(Part, frozen=True, kw_only=True):
    """What holds instead in [since, until); what it doesn't say stays."""

    since: Time
    until: Time
    state: JobState | None = None
    patterns: tuple[Pattern, ...] | None = None


class ScheduleVersion(Part, frozen=True, kw_only=True):
    """What decides a job's ticks from ``since`` on, until the next version begins."""

    since: Time
    state: JobState = JobState.ENABLED
    patterns: tuple[Pattern, ...] = ()
    timezone: str = "UTC"
    calendars: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()

    def at(self, ms: int) -> ScheduleVersion:
        """As its windows make it at an instant."""
        for window in self.windows:
            if ms_of(window.since) <= ms < ms_of(window.until):
                return self.within(window)
        return self

    def within(self, window: Window) -> ScheduleVersion:
        return msgspec.structs.replace(
            self,
            state=self.state if window.state is None else window.state,
            patterns=self.patterns if window.patterns is None else window.patterns,
            windows=(),
        )


class CalendarVersion(Part, frozen=True, kw_only=True):
    """``2026-12-25`` or ``2026-12-24/2027-01-01`` (both ends included), in the zone of each job
    that uses it. Where ``include`` names any, ticks fall on those days only; exclusion wins."""

    since: Time
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()


class Calendar(Record, frozen=True, kw_only=True):
    """``versions`` is its timeline, oldest first, as a job's: the one in force at a tick's time
    decides about the tick."""

    name: str
    versions: tuple[CalendarVersion, ...]
    from_file: bool = False
    changed_by: str = ""

    @property
    def current(self) -> CalendarVersion:
        return self.versions[-1]


class Keep(Part, frozen=True, kw_only=True):
    """History kept per job: whichever bound is reached first."""

    runs: int = 20
    age_s: float = 30 * 86400.0


class Retry(Part, frozen=True, kw_only=True):
    """At most ``max`` more attempts after outcomes in ``on``: see ``core.retry``."""

    max: int = 0
    interval_s: float = 60.0
    exponential: bool = False
    cap_s: float | None = None
    jitter_s: float = 0.0
    on: tuple[Outcome, ...] = (Outcome.FAILED, Outcome.TIMED_OUT)


class Condition(Part, frozen=True, kw_only=True):
    """Of one result of a chain's source. ``values``: none, one, or for ``in`` several."""

    name: str
    op: ConditionOp
    values: tuple[str, ...] = ()


class Link(Part, frozen=True, kw_only=True):
    """Where a chain goes on: to a run of ``to``, when one of this job's runs ends in one of the
    states ``on``, every condition of ``when`` holds and it ended ``within`` a cron window.
    ``joins``: not before all jobs that join there have come as far."""

    to: str
    on: tuple[RunState, ...] = (RunState.COMPLETED,)
    when: tuple[Condition, ...] = ()
    within: str = ""
    joins: bool = False


class Job(Record, frozen=True, kw_only=True):
    """``versions`` is the timeline of definitions, oldest first, never empty (DESIGN 3)."""

    name: str
    run: Action
    versions: tuple[ScheduleVersion, ...]
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    recovery: Recovery = Recovery.LAST
    pickup_buffer_s: float = 120.0
    recover_within_s: float = 12 * 3600.0
    catch_up_limit: int = 100
    overlap: Overlap = Overlap.SKIP
    retry: Retry = Retry()
    timeout_s: float | None = None
    kill_grace_s: float = 15.0
    on_agent_loss: OnAgentLoss = OnAgentLoss.REASSIGN
    max_reassigns: int = 3
    disconnect_grace_s: float = 0.0
    on_disconnect: OnDisconnect = OnDisconnect.STOP
    hosts: tuple[str, ...] = ()
    require: dict[str, str] = {}
    prefer: tuple[str, ...] = ()
    placement: Placement = Placement.LEAST_LOADED
    hosts_for: HostsFor = HostsFor.ALL
    per_host: bool = False
    lifecycle: Lifecycle = Lifecycle.NONE
    priority: int = 0
    splay_s: float = 0.0
    params: dict[str, str] = {}
    env: dict[str, str] = {}
    workdir: str = ""
    user: str = ""
    keep: Keep = Keep()
    chain: tuple[Link, ...] = ()
    results: tuple[str, ...] = ()
    from_file: bool = False
    changed_by: str = ""

    @property
    def current(self) -> ScheduleVersion:
        return self.versions[-1]


class PauseInterval(Part, frozen=True, kw_only=True):
    """Ticks in [since, until) were never due; no ``until``: it lasts."""

    since: Time
    until: Time | None = None
    by: str = ""


class Pause(Record, frozen=True, kw_only=True):
    """The pauses of one job or of the cluster since the watermark, oldest first."""

    intervals: tuple[PauseInterval, ...]

    @property
    def active(self) -> bool:
        return bool(self.intervals) and self.intervals[-1].until is None


class Drain(Record, frozen=True, kw_only=True):
    """The agent gets nothing new until this is deleted."""

    agent: str
    since: Time
    by: str = ""


MAX_GROUP_JOBS: Final = 100
"""Whoever puts a job into a group touches all of its jobs, in one transaction."""


class ConflictGroup(Record, frozen=True, kw_only=True):
    """Jobs of which no two are ever assigned or running at once, highest priority first."""

    group: str
    jobs: tuple[str, ...]
    from_file: bool = False
    changed_by: str = ""


MOST_ACTIVE_AGENTS: Final = 100_000

LEAST_RECOVERY_RATE: Final = 0.01
MOST_RECOVERY_RATE: Final = 100_000.0


class ClusterSettings(Record, frozen=True, kw_only=True):
    """What holds for the whole cluster; a default counts as long as nobody has set the field.

    ``resubmit_states``: the final states whose runs may be resubmitted. ``recovery_rate``: starts
    a second of what an outage or a loss of agents has held up. ``max_active_agents``: how many
    agents receive runs, the others stand by; None: all do.
    """

    resubmit_states: tuple[RunState, ...] = tuple(
        state for state in RunState if state in FINAL and state is not RunState.COMPLETED
    )
    recovery_rate: float = 10.0
    max_active_agents: int | None = None
    changed_by: str = ""


class Edited(Record, frozen=True, kw_only=True):
    """Put anew with each change of jobs, calendars and pauses. The watermark's transaction compares
    its mod revision: no tick counts as decided by definitions that the leader hasn't seen yet."""


# --- what operators ask once ---------------------------------------------------------------


class RequestKind(enum.Enum):
    TRIGGER = "trigger"
    CANCEL = "cancel"
    RESUBMIT = "resubmit"
    RELEASE = "release"


class Release(enum.Enum):
    """What becomes of a held run."""

    REASSIGN = "reassign"
    DIED = "died"


class Request(Record, frozen=True, kw_only=True):
    id: str
    kind: RequestKind
    job: str
    at: Time
    by: str = ""
    run: str = ""
    params: dict[str, str] = {}
    force: bool = False
    release: Release | None = None


class Answer(Record, frozen=True, kw_only=True):
    """The leader's word on a request, written in the transaction that consumed it."""

    request: str
    accepted: bool
    message: str
    at: Time
    job: str = ""
    run: str = ""


# --- what nodes say of themselves ----------------------------------------------------------


class Candidate(Record, frozen=True, kw_only=True):
    """Value of an election key. ``clock`` is the node's wall clock as it wrote this."""

    node: str
    host: str
    pid: int
    since: Time
    clock: Time
    version: str
    least_schema: int = SCHEMA_VERSION


class Presence(Record, frozen=True, kw_only=True):
    """An agent that is here. ``incarnation`` is its session: the lease, in hexadecimal.

    ``users`` are those whose jobs it runs, ``default_user`` is whom a job without a user runs as.
    ``output_address`` is where it serves what its runs wrote (``OutputAccess``); empty: nowhere.
    """

    agent: str
    incarnation: str
    supervisor: str
    slots: int
    host: str
    pid: int
    since: Time
    clock: Time
    version: str
    labels: dict[str, str] = {}
    session_ttl_s: int = 10
    users: tuple[str, ...] = ()
    default_user: str = ""
    draining: bool = False
    output_address: str = ""


class OutputAccess(Record, frozen=True, kw_only=True):
    """How to get at what an agent's runs wrote, at its presence's ``output_address``: the token
    that it wants, and the SHA-256 of the certificate that it shows. Leased as its presence is, in
    a place of its own, so that who may see the cluster needn't be let see output."""

    agent: str
    token: str
    certificate_sha256: str


class Report(Record, frozen=True, kw_only=True):
    """An agent's word on one attempt: a claim while ``outcome`` is None, then how it ended.

    ``token`` is the assignment's mod revision. ``tail`` is at most 4 KiB of output.
    ``results_problem``: what of the results file couldn't be taken. ``session_ttl_s`` is that of
    the session that adopted the attempt (T6); 0: its assignment's.
    """

    job: str
    run: str
    attempt: int
    token: int
    incarnation: str
    supervisor: str
    claimed_at: Time
    session_ttl_s: int = 0
    started_at: Time | None = None
    outcome: Outcome | None = None
    ended_at: Time | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    cpu_s: float | None = None
    peak_memory_bytes: int | None = None
    output_bytes: int = 0
    tail: str = ""
    results: dict[str, tuple[str, ...]] = {}
    results_problem: str = ""


# --- what the leader decided ---------------------------------------------------------------


class Term(Record, frozen=True, kw_only=True):
    """``election_key`` is the last part of the leader's key below ``election/``: its lease in
    hexadecimal. ``token`` is that key's create revision: the fencing token."""

    number: int
    leader: str
    election_key: str
    token: int
    since: Utc
    least_schema: int = SCHEMA_VERSION


class Watermark(Record, frozen=True, kw_only=True):
    """All ticks of all jobs up to and including ``through`` are decided.

    ``through`` stands right behind ``v``: transactions compare it as text.
    """

    through: Utc
    term: int


class Transition(Part, frozen=True, kw_only=True):
    """One step of a run. ``revision`` is that of the step's commit; the newest step's is the
    record's own mod revision, known only once it is written, and filled in by the step after."""

    state: RunState
    at: Utc
    cause: str
    term: int
    revision: int = 0


class Attempt(Part, frozen=True, kw_only=True):
    """One try on one agent, over or moved away from."""

    number: int
    agent: str
    token: int
    assigned_at: Utc
    outcome: Outcome
    claimed_at: Utc | None = None
    started_at: Utc | None = None
    ended_at: Utc | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    cpu_s: float | None = None
    peak_memory_bytes: int | None = None
    output_bytes: int = 0
    tail: str = ""


class Source(Part, frozen=True, kw_only=True):
    """A run that a chain came from, and how it ended."""

    job: str
    run: str
    state: RunState


class Follow(Part, frozen=True, kw_only=True):
    """What the end of a run began: a run of ``job`` or, without ``run``, none; ``note`` says why
    not, or what it waits for."""

    job: str
    run: str = ""
    note: str = ""


def host_in(run_id: str) -> str:
    """The agent that a run is bound to, by its id; empty: none."""
    return run_id.partition("@")[2]


def lane_of(job: str, run_id: str) -> str:
    """Runs of one lane wait for each other: a job's, or those that are bound to one agent. No job's
    name has an ``@``."""
    host = host_in(run_id)
    return f"{job}@{host}" if host else job


class Run(Record, frozen=True, kw_only=True):
    """One tick's or request's execution, or why there was none.

    A summary of a long outage is one record: ``missed_count`` ticks from ``scheduled_at`` through
    ``missed_through``. Lateness isn't kept: it follows from the attempts.
    ``not_before``: its tick and its job's splay; lateness and buffer count from there.
    ``retries`` counts those that have begun or are waited for; ``retry_at``: when the last is due.
    ``resubmits`` is the run whose resubmission this is, and ``resubmits_first`` where a row of
    them began; ``resubmitted_as`` are this run's own. ``forced``: though its job is disabled.
    The id of a run that is bound to one agent ends with ``@`` and the agent's name.
    ``results`` are those of the attempt that ended it. ``instance`` is the chain that it belongs
    to: the id of the run where that began (empty: this one); ``depth`` counts from there.
    ``occasion`` is the startup or shutdown that it is there for, of that ``incarnation`` of an
    agent.
    """

    job: str
    id: str
    state: RunState
    origin: Origin
    created_at: Utc
    scheduled_at: Utc | None = None
    not_before: Utc | None = None
    params: dict[str, str] = {}
    priority: int = 0
    agent: str = ""
    attempt: int = 0
    reassigns: int = 0
    retries: int = 0
    retry_at: Utc | None = None
    attempts: tuple[Attempt, ...] = ()
    history: tuple[Transition, ...] = ()
    requested_by: str = ""
    missed_count: int = 0
    missed_through: Utc | None = None
    late_reports: tuple[Attempt, ...] = ()
    results: dict[str, tuple[str, ...]] = {}
    results_problem: str = ""
    resubmits: str = ""
    resubmits_first: str = ""
    resubmitted_as: tuple[str, ...] = ()
    forced: bool = False
    instance: str = ""
    depth: int = 0
    chained_from: tuple[Source, ...] = ()
    followed_by: tuple[Follow, ...] = ()
    occasion: Occasion | None = None
    incarnation: str = ""

    @property
    def host(self) -> str:
        """The agent that the run is bound to; empty: any may have it."""
        return host_in(self.id)

    @property
    def lane(self) -> str:
        return lane_of(self.job, self.id)

    @property
    def is_tick(self) -> bool:
        return self.origin in (Origin.SCHEDULE, Origin.RECOVERY)

    @property
    def is_bound_to_incarnation(self) -> bool:
        """Whether it is about one agent's coming or going, and over once that has gone."""
        return self.occasion is not None and bool(self.host)

    @property
    def due_at(self) -> Utc:
        """Since when it could run. A chained run and a resubmission carry their source's scheduled
        time, which says what they are about, not when they came."""
        if self.is_tick and self.scheduled_at is not None:
            return self.scheduled_at
        return self.created_at

    @property
    def starts_at(self) -> Utc:
        """From when on it may start: lateness and its buffer count from there."""
        return self.not_before or self.due_at

    @property
    def chain(self) -> str:
        """The chain instance that it belongs to; a resubmission takes its original's place."""
        return self.instance or self.root

    @property
    def root(self) -> str:
        """The run that this one and its resubmissions go back to."""
        return self.resubmits_first or self.id


class StartSeen(Part, frozen=True, kw_only=True):
    """Mod revisions (0: absent) of what a decision to start rests on. The leader's T1 and the
    agent's T2 both compare them, so that nothing starts after a stop was acknowledged."""

    job: int
    pause: int = 0
    cluster_pause: int = 0
    drain: int = 0
    seat: int = 0


class Assignment(Record, frozen=True, kw_only=True):
    """Immutable; its mod revision is the attempt's token. ``timezone`` is its job's, for
    ``{scheduled_date}``. ``source`` is the run that it was chained from, of several the last."""

    job: str
    run: str
    agent: str
    incarnation: str
    attempt: int
    action: Action
    seen: StartSeen
    assigned_at: Utc
    term: int
    session_ttl_s: int = 10
    scheduled_at: Utc | None = None
    timezone: str = "UTC"
    timeout_s: float | None = None
    kill_grace_s: float = 15.0
    params: dict[str, str] = {}
    env: dict[str, str] = {}
    workdir: str = ""
    user: str = ""
    source: Source | None = None
    disconnect_grace_s: float = 0.0
    on_disconnect: OnDisconnect = OnDisconnect.STOP
    occasion: Occasion | None = None


class Order(Record, frozen=True, kw_only=True):
    """What the leader wants of a running attempt: that it ends."""

    job: str
    run: str
    token: int
    at: Utc
    by: str = ""
    reason: str = "cancelled"


class Gap(Record, frozen=True, kw_only=True):
    """An outage of one job. While it is open, ticks later than ``decided_through`` wait for its
    end. Once closed, the record stays until the watermark has passed ``decided_through``, so that
    a leader who takes over decides no tick of it again."""

    job: str
    since: Utc
    decided_through: Utc
    reason: str
    closed: bool = False


class Arrival(Part, frozen=True, kw_only=True):
    """A run that has come to a join, with what it hands on."""

    job: str
    run: str
    state: RunState
    at: Utc
    depth: int = 0
    scheduled_at: Utc | None = None
    params: dict[str, str] = {}


class Join(Record, frozen=True, kw_only=True):
    """Of one chain ``instance``, who has come to where several sources begin one run of ``job``;
    ``run`` will be its id. A job that comes again takes the place of its own earlier run."""

    job: str
    instance: str
    run: str
    since: Utc
    arrived: tuple[Arrival, ...]


class FanOut(Record, frozen=True, kw_only=True):
    """A tick of a job that runs on each agent (``per_host``): decided, and becoming one run for
    each of ``agents``, which are those that were eligible then. ``run`` is the tick; ``origin`` and
    ``cause`` are their runs'. It stays until all of them are there and the watermark has passed."""

    job: str
    run: str
    scheduled_at: Utc
    agents: tuple[str, ...]
    origin: Origin
    cause: str
    at: Utc
    term: int


class Seat(Record, frozen=True, kw_only=True):
    """An agent's right to receive runs, where settings bound how many have it."""

    agent: str
    since: Utc
    term: int


class Due(Part, frozen=True, kw_only=True):
    """A lifecycle run that is decided and not made yet."""

    occasion: Occasion
    job: str


class Live(Record, frozen=True, kw_only=True):
    """What the leader has decided about the coming and going of one ``incarnation`` of an agent:
    that it is in its ``stage`` ``since`` then, and which runs are ``due`` for that."""

    agent: str
    incarnation: str
    stage: Stage
    since: Utc
    term: int
    due: tuple[Due, ...] = ()


class Rotation(Record, frozen=True, kw_only=True):
    """Which agent had the last turn of a job that goes around its agents (``round_robin``)."""

    job: str
    agent: str


class Kind(enum.Enum):
    """What there is in the watched range; ids are what follows the kind's place in a key."""

    __hash__ = object.__hash__  # Members are singletons; enum's own is Python, and slow.

    ELECTION = "election"
    PRESENCE = "presence"
    REPORT = "report"
    LATE_REPORT = "late_report"
    REQUEST = "request"
    JOB = "job"
    PAUSE = "pause"
    DRAIN = "drain"
    CALENDAR = "calendar"
    CONFLICT = "conflict"
    SETTINGS = "settings"
    EDITED = "edited"
    TERM = "term"
    WATERMARK = "watermark"
    RUN = "run"
    ASSIGNMENT = "assignment"
    ORDER = "order"
    ANSWER = "answer"
    GAP = "gap"
    JOIN = "join"
    ROTATION = "rotation"
    FAN_OUT = "fan_out"
    SEAT = "seat"
    LIVE = "live"


class Change(msgspec.Struct, frozen=True):
    """A key's new content, or its deletion (``record`` None; ``mod_revision`` is then the
    deletion's). ``ids`` are the parts of the key behind its kind."""

    kind: Kind
    ids: tuple[str, ...]
    record: Record | None
    mod_revision: int
    create_revision: int = 0
    lease: int = 0
