"""Why a run waits, or where it runs: noted by the decision itself, for whoever asks (``explain``).

Each decision that leaves a run where it is says so in one of these words. A leader keeps none of
them: they are taken down only where somebody explains what a leader would decide.
"""

from __future__ import annotations

import enum

import msgspec

from etcsched.core.times import Utc


class Why(enum.Enum):
    NO_LEADER = "no_leader"
    STATE = "state"
    """What its job's definition says, or its windows."""
    PAUSED = "paused"
    SCHEDULE = "schedule"
    OUTAGE = "outage"
    SPLAY = "splay"
    QUEUED = "queued"
    CONFLICT = "conflict"
    NO_AGENT = "no_agent"
    PACED = "paced"
    RETRY = "retry"
    JOIN = "join"
    CLAIM = "claim"
    """It is assigned, and its agent hasn't claimed it yet."""
    RUNS = "runs"
    ENDING = "ending"
    LOSS = "loss"
    """Its agent is gone, and its loss isn't final yet."""
    HELD = "held"
    NEXT = "next"
    """Nothing holds it up: the leader decides this now."""
    OVER = "over"


class Reason(msgspec.Struct, frozen=True):
    """``until``: when that is over by itself, where it is known."""

    why: Why
    text: str
    until: Utc | None = None
