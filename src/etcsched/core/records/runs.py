"""A run, from its creation to its place in the archive, and what an agent gets of it."""

from __future__ import annotations

from etcsched.core.records.base import Part, Record
from etcsched.core.records.operators import KILL_GRACE_S, Action
from etcsched.core.states import Occasion, OnDisconnect, Origin, Outcome, RunState
from etcsched.core.times import Utc


class Transition(Part, frozen=True, kw_only=True):
    """One step of a run. ``revision`` is that of the step's commit; the newest step's is the
    record's own mod revision, known only once it is written, and filled in by the step after."""

    state: RunState
    at: Utc
    cause: str
    term: int
    revision: int = 0


class Attempt(Part, frozen=True, kw_only=True):
    """One try on one agent, over or moved away from. ``agent_since`` is the assignment's, of one
    that was declined."""

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
    agent_since: Utc | None = None


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


def fan_out_in(run_id: str) -> str:
    """The id of the fan-out that made a run which is bound to an agent."""
    return run_id.partition("@")[0]


def lane_of(job: str, run_id: str) -> str:
    """Runs of one lane wait for each other: a job's, or those that are bound to one agent. No job's
    name has an ``@``."""
    host = host_in(run_id)
    return f"{job}@{host}" if host else job


class Run(Record, frozen=True, kw_only=True):
    """One tick's or request's execution, or why there was none.

    A summary of a long outage is one record: ``missed_count`` ticks from ``scheduled_at`` through
    ``missed_through``, ``missed_steps`` apart (ms, and how often in a row), of which those with
    the places ``resubmitted_ticks`` (from, through) have been resubmitted. Lateness isn't kept: it
    follows from the attempts.
    ``not_before``: its tick and its job's splay; lateness and buffer count from there.
    ``retries`` counts those that have begun or are waited for; ``retry_at``: when the last is due.
    ``resubmits`` is the run whose resubmission this is, and ``resubmits_first`` where a row of
    them began (of a tick that shares its record, that tick's own id, which nothing else has);
    ``resubmitted_as`` are this run's own. ``forced``: though its job is disabled.
    The id of a run that is bound to one agent ends with ``@`` and the agent's name.
    ``results`` are those of the attempt that ended it. ``instance`` is the chain that it belongs
    to: the id of the run where that began (empty: this one); ``depth`` counts from there.
    ``occasion`` is the startup or shutdown that it is there for, of that ``incarnation`` of an
    agent. ``stands_for`` is that of the run that it is resubmitted for: that one's incarnation may
    be long gone, and nobody waits for this run to begin or to go.
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
    missed_steps: tuple[tuple[int, int], ...] = ()
    resubmitted_ticks: tuple[tuple[int, int], ...] = ()
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
    stands_for: Occasion | None = None

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
    def is_for_shutdown(self) -> bool:
        return self.occasion is not None and self.occasion.is_shutdown

    @property
    def has_run(self) -> bool:
        """Whether any attempt of it was more than declined."""
        return self.first_that_ran is not None

    @property
    def first_that_ran(self) -> Attempt | None:
        """Of its attempts: one that was declined hasn't begun."""
        ran = (each for each in self.attempts if each.outcome is not Outcome.DECLINED)
        return next(ran, None)

    @property
    def last_that_ran(self) -> Attempt | None:
        ran = (each for each in reversed(self.attempts) if each.outcome is not Outcome.DECLINED)
        return next(ran, None)

    @property
    def last_attempt(self) -> Attempt | None:
        """The last that ran; of one that was only ever declined, the last."""
        return self.last_that_ran or (self.attempts[-1] if self.attempts else None)

    @property
    def told_occasion(self) -> Occasion | None:
        """What its process, and whoever looks at it, is told."""
        return self.occasion or self.stands_for

    @property
    def since(self) -> Utc:
        """When it came into its state."""
        return self.history[-1].at if self.history else self.created_at

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
    ``{scheduled_date}``. ``source`` is the run that it was chained from, of several the last.
    ``occasion`` and ``stands_for`` are its run's. ``agent_since`` tells which process of the agent
    gets it: the ``since`` of its presence."""

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
    kill_grace_s: float = KILL_GRACE_S
    params: dict[str, str] = {}
    env: dict[str, str] = {}
    workdir: str = ""
    user: str = ""
    source: Source | None = None
    disconnect_grace_s: float = 0.0
    on_disconnect: OnDisconnect = OnDisconnect.STOP
    occasion: Occasion | None = None
    stands_for: Occasion | None = None
    agent_since: Utc | None = None


class Order(Record, frozen=True, kw_only=True):
    """What the leader wants of a running attempt: that it ends."""

    job: str
    run: str
    token: int
    at: Utc
    by: str = ""
    reason: str = "cancelled"
