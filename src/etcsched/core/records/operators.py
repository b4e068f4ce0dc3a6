"""What operators want, and what they ask once."""

from __future__ import annotations

import enum
from collections.abc import Container, Mapping
from typing import Final

import msgspec

from etcsched.core.records.base import Part, Record
from etcsched.core.schedule.patterns import Pattern
from etcsched.core.states import (
    FINAL,
    ConditionOp,
    HostsFor,
    JobState,
    Lifecycle,
    OnAgentLoss,
    OnDisconnect,
    Outcome,
    Overlap,
    Placement,
    Recovery,
    RunState,
)
from etcsched.core.times import Time, ms_of

CLUSTER: Final = "_cluster"
"""The name that a pause of everything has in place of a job's (no job's name begins with _)."""


KILL_GRACE_S: Final = 15.0
"""One object wherever it is the default: by that it is left out of records."""

MAX_PARAMS_BYTES: Final = 16 << 10
"""Of a run's parameters together, names and values."""


def params_bytes(params: dict[str, str]) -> int:
    return sum(len(name.encode()) + len(value.encode()) for name, value in params.items())


def params_clash(params: Mapping[str, str], given: Container[str]) -> str | None:
    """Why one of the given names can't be: another is the same in a process's environment, where
    names are in capitals."""
    names: dict[str, str] = {}
    for name in params:
        other = names.setdefault(name.upper(), name)
        if other != name and (name in given or other in given):
            return f"parameters {other} and {name} differ only in case; rename one"
    return None


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

    runs: int = 100
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
    """``versions`` is the timeline of definitions, oldest first, never empty (DESIGN 3).
    ``made_anew_after``: as of this revision a job of this name was deleted, which this one isn't
    (0: there was none, or the leader had forgotten it): what came up to then was that one's."""

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
    kill_grace_s: float = KILL_GRACE_S
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
    made_anew_after: int = 0

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

LEAST_HISTORY_BYTES: Final = 1 << 10
MOST_HISTORY_BYTES: Final = 1 << 40


class ClusterSettings(Record, frozen=True, kw_only=True):
    """What holds for the whole cluster; a default counts as long as nobody has set the field.

    ``resubmit_states``: the final states whose runs may be resubmitted. ``recovery_rate``: starts
    a second of what an outage or a loss of agents has held up. ``max_active_agents``: how many
    agents receive runs, the others stand by; None: all do. ``max_history_bytes``: about how much
    the archive may take, by default a quarter of etcd's default quota.
    """

    resubmit_states: tuple[RunState, ...] = tuple(
        state for state in RunState if state in FINAL and state is not RunState.COMPLETED
    )
    recovery_rate: float = 10.0
    max_active_agents: int | None = None
    max_history_bytes: int = 512 << 20
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
    tick: str = ""
    """Which of the missed ticks that ``run`` stands for is resubmitted; empty: the first."""


class Answer(Record, frozen=True, kw_only=True):
    """The leader's word on a request, written in the transaction that consumed it."""

    request: str
    accepted: bool
    message: str
    at: Time
    job: str = ""
    run: str = ""
