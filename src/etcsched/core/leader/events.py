"""What a leader is told. Each comes with its ``Instant``."""

from __future__ import annotations

import msgspec

from etcsched.core.records import Change, Run


class ViewChanged(msgspec.Struct, frozen=True):
    """The view has taken these changes in."""

    changes: tuple[Change, ...]


class WriteCommitted(msgspec.Struct, frozen=True):
    seq: int
    revision: int


class WriteRefused(msgspec.Struct, frozen=True):
    """A compare of this write failed, on the store as of ``revision``. ``exists``: what it would
    have created is there, since that revision. ``revision`` None: etcd won't take the write's form
    at all."""

    seq: int
    revision: int | None
    exists: bool = False
    there: tuple[bool, ...] = ()
    """Which of the keys that the write asks for then."""


class TimerFired(msgspec.Struct, frozen=True):
    pass


class RaftTermSeen(msgspec.Struct, frozen=True):
    raft_term: int


class LeaseAnswered(msgspec.Struct, frozen=True):
    agent: str
    lease: int
    is_gone: bool
    raft_term: int


class ArchiveListed(msgspec.Struct, frozen=True):
    """(job, run, mod revision, size in bytes), oldest first within a job; of a single job sizes are
    those of the keys alone. ``is_last``: nothing follows. ``count``: how many there are from the
    first of these on, of this job or else of all."""

    job: str | None
    found: tuple[tuple[str, str, int, int], ...]
    is_last: bool
    count: int = 0


class ArchivedRead(msgspec.Struct, frozen=True):
    """``run`` None: it is pruned."""

    job: str
    run_id: str
    run: Run | None
    revision: int


LeaderEvent = (
    ViewChanged
    | WriteCommitted
    | WriteRefused
    | TimerFired
    | RaftTermSeen
    | LeaseAnswered
    | ArchiveListed
    | ArchivedRead
)
