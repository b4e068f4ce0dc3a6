"""Records to and from the one-line JSON in etcd."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from etcsched.core.checks import problem_with
from etcsched.core.errors import EtcschedError
from etcsched.core.records import (
    SCHEMA_VERSION,
    Answer,
    Assignment,
    Barred,
    Calendar,
    Candidate,
    Change,
    ClusterSettings,
    ConflictGroup,
    Drain,
    Edited,
    FanOut,
    Gap,
    Job,
    Join,
    Kind,
    Live,
    Order,
    OutputAccess,
    Pause,
    Presence,
    Record,
    Report,
    Request,
    Rotation,
    Run,
    Seat,
    Term,
    Watermark,
)
from etcsched.core.times import Utc
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, KeyValue, WatchEvent

R = TypeVar("R", bound=Record)

RECORD_TYPES: dict[Kind, type[Record]] = {
    Kind.ELECTION: Candidate,
    Kind.PRESENCE: Presence,
    Kind.REPORT: Report,
    Kind.LATE_REPORT: Report,
    Kind.REQUEST: Request,
    Kind.JOB: Job,
    Kind.PAUSE: Pause,
    Kind.DRAIN: Drain,
    Kind.CALENDAR: Calendar,
    Kind.CONFLICT: ConflictGroup,
    Kind.SETTINGS: ClusterSettings,
    Kind.EDITED: Edited,
    Kind.TERM: Term,
    Kind.WATERMARK: Watermark,
    Kind.RUN: Run,
    Kind.ASSIGNMENT: Assignment,
    Kind.ORDER: Order,
    Kind.ANSWER: Answer,
    Kind.GAP: Gap,
    Kind.JOIN: Join,
    Kind.ROTATION: Rotation,
    Kind.FAN_OUT: FanOut,
    Kind.SEAT: Seat,
    Kind.LIVE: Live,
}

_encoder = msgspec.json.Encoder()
_types: set[type[Record]] = {*RECORD_TYPES.values(), Barred, OutputAccess}
_decoders = {type_: msgspec.json.Decoder(type_) for type_ in _types}


class MalformedRecord(EtcschedError):
    """A value that isn't a record of its kind: somebody else's program wrote it."""


def encode(record: Record) -> bytes:
    """One line of JSON, fields in declaration order, ``v`` first, defaults left out."""
    if record.unknown is None:
        return _encoder.encode(record)
    known: dict[str, Any] = msgspec.to_builtins(record)
    unknown = known.pop("unknown")
    return _encoder.encode({**known, **unknown})


def decode(type_: type[R], raw: bytes) -> R:
    """A record of this schema or of a newer one; raises ``MalformedRecord``.

    What a newer schema added at the top level is kept in ``unknown`` and survives a rewrite.
    """
    try:
        return _decoders[type_].decode(raw)  # type: ignore[return-value]
    except (msgspec.MsgspecError, RecursionError) as error:  # The latter: it is nested too deeply.
        newer = _decode_newer(type_, raw)
        if newer is None:
            raise MalformedRecord(f"no valid {type_.__name__} record: {error}") from None
        return newer


def _decode_newer(type_: type[R], raw: bytes) -> R | None:
    try:
        fields = msgspec.json.decode(raw)
        if not (isinstance(fields, dict) and isinstance(fields.get("v"), int)):
            return None
        if fields["v"] <= SCHEMA_VERSION:
            return None
        known = set(type_.__struct_fields__)
        unknown = {name: value for name, value in fields.items() if name not in known}
        mine = {name: value for name, value in fields.items() if name in known}
        record = msgspec.convert({**mine, "v": SCHEMA_VERSION}, type_)
        return msgspec.structs.replace(record, unknown=unknown)
    except (msgspec.MsgspecError, RecursionError):
        return None


def change_of(keys: Keys, kv: KeyValue) -> Change | None:
    """A key's content as the cores see it; None for a key that isn't ours. ``MalformedRecord``
    for a value that isn't a record of its kind, or makes no sense under its key."""
    place = keys.parse(kv.key)
    if place is None:
        return None
    kind, ids = place
    if kind is Kind.EDITED:
        record: Record = Edited()  # Only its revision counts; no value may hold the watermark up.
    else:
        record = decode(RECORD_TYPES[kind], kv.value)
    problem = problem_with(ids, record, is_late_report=kind is Kind.LATE_REPORT)
    if problem is not None:
        raise MalformedRecord(problem)
    return Change(
        kind=kind,
        ids=ids,
        record=record,
        mod_revision=kv.mod_revision,
        create_revision=kv.create_revision,
        lease=kv.lease,
    )


def change_of_event(keys: Keys, event: WatchEvent) -> Change | None:
    """A watch's event as the cores see it; None for a key that isn't ours."""
    if event.type is EventType.PUT:
        return change_of(keys, event.kv)
    place = keys.parse(event.kv.key)
    if place is None:
        return None
    return Change(kind=place[0], ids=place[1], record=None, mod_revision=event.kv.mod_revision)


def watermark_operand(tick: Utc) -> bytes:
    """What a watermark's value is compared with: it is less than this exactly if ``through`` is
    earlier than ``tick`` (the value's text up to the time is constant, and times sort as text)."""
    return b'{"v":%d,"through":"%s"' % (SCHEMA_VERSION, tick.encode())
