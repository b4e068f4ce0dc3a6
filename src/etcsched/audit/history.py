"""What a history consists of, entry by entry: what the auditor is told (FAULTS, recorded).

All times are Unix milliseconds of one clock, the recorder's (in simulations: the virtual world's
own), whatever the clocks of the nodes say. Entries come in any order that respects each source's
own: revisions ascending, a process's words in its order, an operation when it is over.

A recording is these entries as JSON lines (``recording``); the type stands in ``entry``.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from etcsched.keyspace.ops import KeyValue, WatchEvent

__all__ = [
    "FORMAT_VERSION",
    "Begun",
    "Ended",
    "Entry",
    "Fault",
    "FaultKind",
    "Fence",
    "Guarded",
    "Hole",
    "NodeView",
    "Operation",
    "OperationKind",
    "OperationOutcome",
    "Quiet",
    "Revision",
    "Truth",
    "Word",
    "WordKind",
]

FORMAT_VERSION: Final = 1


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="entry"):
    """One line of a history."""


class Truth(enum.Enum):
    """What a recording holds besides the keyspace. An invariant that needs what isn't recorded is
    reported as not judgeable, never as kept."""

    WORDS = "words"
    OPERATIONS = "operations"
    FAULTS = "faults"
    FENCES = "fences"
    GUARDED = "guarded"


class Begun(Part, frozen=True, kw_only=True, tag="begun"):
    """The first entry. ``kvs`` is the whole keyspace below ``prefix`` as it stood at ``revision``;
    the next revision that is recorded is the next one that changed it. A history of all there
    ever was has revision 0 and no keys."""

    at_ms: int
    prefix: str
    revision: int = 0
    kvs: tuple[KeyValue, ...] = ()
    holds: tuple[Truth, ...] = ()
    format: int = FORMAT_VERSION


class Revision(Part, frozen=True, kw_only=True, tag="revision"):
    """All that one commit changed below the prefix, as the recorder's own watch told it, with
    previous values. ``at_ms``: when it was seen (in simulations: when it was committed); 0 for what
    had happened before the recorder looked, of which nobody knows when."""

    revision: int
    at_ms: int
    events: tuple[WatchEvent, ...]


class WordKind(enum.Enum):
    """``start`` first, then ``beat``, ``end`` last, if the process came to its own end. One that
    is killed says no ``end``: its last beat is its last sign of life."""

    START = "start"
    BEAT = "beat"
    END = "end"


class Word(Part, frozen=True, kw_only=True, tag="word"):
    """What a job's process itself says, apart from etcd. ``token`` is ``ETCSCHED_TOKEN``."""

    kind: WordKind
    job: str
    run: str
    token: int
    at_ms: int
    attempt: int = 0
    agent: str = ""


class OperationKind(enum.Enum):
    """``apply`` includes enabling, disabling and any other edit of one job."""

    APPLY = "apply"
    DELETE = "delete"
    PAUSE = "pause"
    RESUME = "resume"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    REQUEST = "request"


class OperationOutcome(enum.Enum):
    """``failed`` is certain: refused, or never sent. ``unknown``: no definite answer came."""

    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Operation(Part, frozen=True, kw_only=True, tag="operation"):
    """What an operator asked for, and what was said to it.

    ``target`` is the job, the agent, ``_cluster``, or the request's id. ``revision`` is that of
    the commit, where the caller learned it (0: not). ``mark`` is what the record says in
    ``changed_by`` or ``by``, if it is this operation's alone: by it effects are counted.
    ``changes`` False: it was acknowledged because there was nothing to change.
    """

    kind: OperationKind
    target: str
    sent_ms: int
    done_ms: int
    outcome: OperationOutcome
    revision: int = 0
    mark: str = ""
    changes: bool = True
    detail: str = ""


class FaultKind(enum.Enum):
    """``host_frozen``: agent, supervisor and jobs all stopped at once; the one in which an overlap
    within the stated residual is no violation. ``clock``: a node's wall clock was wrong.
    ``by_hand``: somebody changed a key that isn't theirs."""

    KILLED = "killed"
    FROZEN = "frozen"
    HOST_FROZEN = "host_frozen"
    CUT_OFF = "cut_off"
    SLOW = "slow"
    CLOCK = "clock"
    ETCD = "etcd"
    BY_HAND = "by_hand"
    OTHER = "other"


class Fault(Part, frozen=True, kw_only=True, tag="fault"):
    """One fault of a node, a link or etcd. Told when it begins (``until_ms`` None) and again, with
    the same ``id``, when it is healed; or once, afterwards. A kill lasts until its node is
    started again or, if it never is, is told with ``until_ms`` right away.

    ``proof``: how it is known that the fault took effect ("process 4711 is gone", "keepalive
    refused"). Once it is over, an empty one makes the audit invalid.
    """

    id: str
    kind: FaultKind
    target: str
    from_ms: int
    until_ms: int | None = None
    proof: str = ""
    detail: str = ""


class Fence(Part, frozen=True, kw_only=True, tag="fence"):
    """An agent (or its supervisor for it) ended what ran in a session that it had lost.

    ``at_ms``: all of the attempt's processes are gone. ``lease_expires_ms``: the moment from which
    etcd may count the lease as expired, the last keepalive's arrival there + TTL, where that is
    known; else the deletion of the presence, as it was seen, is taken.
    """

    agent: str
    incarnation: str
    job: str
    run: str
    token: int
    at_ms: int
    lease_expires_ms: int | None = None


class Guarded(Part, frozen=True, kw_only=True, tag="guarded"):
    """One write to a resource that accepts only growing tokens, by an attempt with this one."""

    resource: str
    token: int
    accepted: bool
    at_ms: int


class NodeView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node holds of the watched range: each key's mod revision."""

    node: str
    revision: int
    mod_revisions: dict[str, int]


class Quiet(Part, frozen=True, kw_only=True, tag="quiet"):
    """From here on nothing is due, every fault is healed, and all was given its time: what must be
    gone by then is gone, or a violation. None: nobody looked.

    ``processes``: jobs' processes that live. ``leases``: those that etcd holds; ``nodes``: how
    many nodes live, each with one.
    """

    at_ms: int
    revision: int
    processes: tuple[str, ...] | None = None
    leases: int | None = None
    nodes: int = 0
    views: tuple[NodeView, ...] | None = None


class Hole(Part, frozen=True, kw_only=True, tag="hole"):
    """The recorder missed something: the audit is invalid, whatever else is in it."""

    at_ms: int
    reason: str


class Ended(Part, frozen=True, kw_only=True, tag="ended"):
    """The last entry: everything up to ``revision`` is recorded. ``reason``: why it ends."""

    at_ms: int
    revision: int
    reason: str = ""


Entry = Begun | Revision | Word | Operation | Fault | Fence | Guarded | Quiet | Hole | Ended
