"""The states of a run, the outcomes of an attempt, and which follow which (SEMANTICS, states)."""

from __future__ import annotations

import enum


class RunState(enum.Enum):
    """``running`` is never written: readers derive it from the claim (DESIGN 2)."""

    READY = "ready"
    QUEUED = "queued"
    CONFLICTED = "conflicted"
    RETRYING = "retrying"
    HELD = "held"
    """Its agent is lost, or its process died: an operator or the agent's return decides."""
    ASSIGNED = "assigned"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    DIED = "died"
    MISSED = "missed"
    ABANDONED = "abandoned"
    OVERLAPPED = "overlapped"
    CONFLICT_MISSED = "conflict_missed"


WAITING = frozenset(
    {
        RunState.READY,
        RunState.QUEUED,
        RunState.CONFLICTED,
        RunState.RETRYING,
        RunState.HELD,
    }
)
WORKING = frozenset({RunState.ASSIGNED, RunState.RUNNING})
FINAL = frozenset(RunState) - WAITING - WORKING

_ENDS_WITHOUT_ATTEMPT = {
    RunState.CANCELLED,
    RunState.MISSED,
    RunState.ABANDONED,
}

TRANSITIONS: dict[RunState | None, frozenset[RunState]] = {
    None: frozenset(
        {
            RunState.READY,
            RunState.QUEUED,
            RunState.CONFLICTED,
            RunState.ASSIGNED,
            RunState.MISSED,
            RunState.OVERLAPPED,
        }
    ),
    # ready -> queued: its buffer ended in an outage, and the recovery mode lets it run; -> died: an
    # attempt was lost with the one agent that may have it, and that didn't come back; -> failed: it
    # ran before, and all that are here declined to run it again.
    RunState.READY: frozenset(
        {
            RunState.ASSIGNED,
            RunState.QUEUED,
            RunState.CONFLICTED,
            RunState.CONFLICT_MISSED,
            RunState.DIED,
            RunState.FAILED,
            *_ENDS_WITHOUT_ATTEMPT,
        }
    ),
    # conflicted -> ready: nothing blocks it any more, but no agent takes it now.
    RunState.CONFLICTED: frozenset(
        {
            RunState.ASSIGNED,
            RunState.READY,
            RunState.QUEUED,
            RunState.CONFLICT_MISSED,
            RunState.DIED,
            RunState.FAILED,
            *_ENDS_WITHOUT_ATTEMPT,
        }
    ),
    # queued -> died: as of ready; it may wait behind a retry that began meanwhile.
    RunState.QUEUED: frozenset(
        {
            RunState.READY,
            RunState.ASSIGNED,
            RunState.DIED,
            RunState.FAILED,
            *_ENDS_WITHOUT_ATTEMPT,
        }
    ),
    # Without another attempt it ends as its last one did.
    RunState.RETRYING: frozenset(
        {RunState.ASSIGNED, RunState.FAILED, RunState.TIMED_OUT, RunState.CANCELLED}
    ),
    # held -> assigned: its agent came back with the process; held -> held: came back without it.
    RunState.HELD: frozenset(
        {
            RunState.HELD,
            RunState.ASSIGNED,
            RunState.READY,
            RunState.RETRYING,
            RunState.COMPLETED,
            RunState.FAILED,
            RunState.TIMED_OUT,
            RunState.CANCELLED,
            RunState.DIED,
            RunState.ABANDONED,
        }
    ),
    # assigned -> assigned: moved to another agent; assigned -> ready: none has a slot now;
    # assigned -> queued: nobody claimed it, and its next start is paced.
    RunState.ASSIGNED: frozenset(
        {
            RunState.ASSIGNED,
            RunState.READY,
            RunState.QUEUED,
            RunState.RETRYING,
            RunState.HELD,
            RunState.COMPLETED,
            RunState.FAILED,
            RunState.TIMED_OUT,
            RunState.CANCELLED,
            RunState.DIED,
            RunState.ABANDONED,
        }
    ),
}


def check_transition(before: RunState | None, after: RunState, entity: str, story: object) -> None:
    """Raise with the entity's whole story where the table has no such step (None: created)."""
    if after not in TRANSITIONS.get(before, frozenset()):
        start = before.value if before else "nothing"
        raise AssertionError(f"{entity}: {start} -> {after.value} is no transition; {story!r}")


class Outcome(enum.Enum):
    """How one attempt ended. ``died``: its agent was lost, or its process vanished.
    ``declined``: the agent didn't start it, against what the leader knew."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    DIED = "died"
    DECLINED = "declined"


class JobState(enum.Enum):
    ENABLED = "enabled"
    DISABLED = "disabled"
    CHAIN_ACTIVE = "chain_active"
    AD_HOC_ACTIVE = "ad_hoc_active"
    DELETED = "deleted"


class Recovery(enum.Enum):
    ALL = "all"
    LAST = "last"
    NONE = "none"
    CONFLICTED = "conflicted"


class Overlap(enum.Enum):
    SKIP = "skip"
    QUEUE = "queue"
    ALLOW = "allow"
    REPLACE = "replace"


class OnAgentLoss(enum.Enum):
    REASSIGN = "reassign"
    DIED = "died"
    HOLD = "hold"


class OnDisconnect(enum.Enum):
    """What becomes of the processes of an agent that has lost its session."""

    STOP = "stop"
    CONTINUE = "continue"


class Placement(enum.Enum):
    """Which of the eligible agents gets a run."""

    __hash__ = object.__hash__  # Part of what jobs' queues and pools are found by.

    LEAST_LOADED = "least_loaded"
    ROUND_ROBIN = "round_robin"
    FIXED_PRIORITY = "fixed_priority"


class HostsFor(enum.Enum):
    """Which of a job's runs its ``hosts`` and ``require`` bind."""

    ALL = "all"
    SCHEDULED = "scheduled"


class Origin(enum.Enum):
    """Why a run exists."""

    SCHEDULE = "schedule"
    RECOVERY = "recovery"
    REQUEST = "request"
    RESUBMISSION = "resubmission"
    CHAIN = "chain"
    LIFECYCLE = "lifecycle"


class Lifecycle(enum.Enum):
    """At which startups and shutdowns a job runs."""

    NONE = "none"
    HOST_STARTUP = "host_startup"
    HOST_SHUTDOWN = "host_shutdown"
    HOST_BOTH = "host_both"
    CLUSTER_STARTUP = "cluster_startup"
    CLUSTER_SHUTDOWN = "cluster_shutdown"
    CLUSTER_BOTH = "cluster_both"


class Occasion(enum.Enum):
    """What a lifecycle run is about: one agent that comes or goes, the first or the last."""

    __hash__ = object.__hash__

    HOST_STARTUP = "host_startup"
    HOST_SHUTDOWN = "host_shutdown"
    CLUSTER_STARTUP = "cluster_startup"
    CLUSTER_SHUTDOWN = "cluster_shutdown"

    @property
    def is_shutdown(self) -> bool:
        return self in (Occasion.HOST_SHUTDOWN, Occasion.CLUSTER_SHUTDOWN)


OCCASIONS: dict[Lifecycle, tuple[Occasion, ...]] = {
    Lifecycle.NONE: (),
    Lifecycle.HOST_STARTUP: (Occasion.HOST_STARTUP,),
    Lifecycle.HOST_SHUTDOWN: (Occasion.HOST_SHUTDOWN,),
    Lifecycle.HOST_BOTH: (Occasion.HOST_STARTUP, Occasion.HOST_SHUTDOWN),
    Lifecycle.CLUSTER_STARTUP: (Occasion.CLUSTER_STARTUP,),
    Lifecycle.CLUSTER_SHUTDOWN: (Occasion.CLUSTER_SHUTDOWN,),
    Lifecycle.CLUSTER_BOTH: (Occasion.CLUSTER_STARTUP, Occasion.CLUSTER_SHUTDOWN),
}


class Stage(enum.Enum):
    """Where one incarnation of an agent stands between its coming and its going.

    ``leaving``: its work is over, its host's shutdown jobs run. ``last``: nobody else is left, the
    cluster's shutdown jobs run. ``dismissed``: it may go. ``gone``: it went without a word.
    """

    HERE = "here"
    LEAVING = "leaving"
    LAST = "last"
    DISMISSED = "dismissed"
    GONE = "gone"


class ConditionOp(enum.Enum):
    """What a chain asks of a result of its source; the words of job files."""

    EXISTS = "exists"
    MISSING = "missing"
    EQUALS = "equals"
    NOT_EQUALS = "not_equals"
    IN = "in"
    NOT_IN = "not_in"
    LESS_THAN = "less_than"
    AT_MOST = "at_most"
    MORE_THAN = "more_than"
    AT_LEAST = "at_least"


NUMERIC = frozenset(
    {ConditionOp.LESS_THAN, ConditionOp.AT_MOST, ConditionOp.MORE_THAN, ConditionOp.AT_LEAST}
)
