"""Which records there are, by their place in the keyspace, and how a change of one is told."""

from __future__ import annotations

import enum

import msgspec

from etcsched.core.records.base import Record


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
