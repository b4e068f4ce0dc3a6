"""A history as JSON lines: each entry one object whose type stands in ``entry``.

Values of keys are texts (JSON themselves, as they stand in etcd); one that isn't UTF-8 is in
``base64`` instead. The format's version stands in the first line, ``begun``; the last is ``ended``.
That says how many there are: a file with fewer, or without it, counts as one with a hole.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final, get_args

import msgspec
from msgspec.structs import replace

from etcsched.audit.history import FORMAT_VERSION, Begun, Ended, Entry, Hole, Revision
from etcsched.core.errors import UsageError
from etcsched.keyspace.ops import EventType, KeyValue, WatchEvent

__all__ = ["MAX_LINE_BYTES", "RecordingWriter", "lines_of", "read_recording"]

MAX_LINE_BYTES: Final = 1 << 30
"""The first holds all that the cluster has."""
_BEGINNING_BYTES: Final = 64 << 10

_TYPES: dict[str, type] = {type_.__struct_config__.tag: type_ for type_ in get_args(Entry)}


class RecordingWriter:
    """Writes entries as they come; ``Ended`` flushes, and so does every thousandth."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._written = 0

    def take(self, entry: Entry) -> None:
        self._written += 1
        self._file.write(_line_of(entry, self._written) + b"\n")
        if self._written % 1000 == 0 or isinstance(entry, Ended):
            self._file.flush()


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """No more than is sensible of each, and of what begins no object only its beginning."""
    while line := file.readline(_BEGINNING_BYTES):
        if line.startswith(b"{") and not line.endswith(b"\n"):
            line += file.readline(MAX_LINE_BYTES - len(line))
        yield line


def read_recording(lines: Iterable[bytes], name: str) -> Iterator[Entry]:
    """``UsageError`` for what is no recording, or one of a newer format."""
    last: Entry | None = None
    for number, line in enumerate(lines, 1):
        if line.startswith(b"{") and not line.endswith(b"\n"):
            if len(line) == MAX_LINE_BYTES:
                raise UsageError(f"{name}:{number}: has more than {MAX_LINE_BYTES >> 30}GiB")
            break  # Its writer was cut off within it.
        try:
            entry = _entry_of(line)
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{name}:{number}: not an entry of a recording: {error}") from None
        if last is None:
            _check_first(entry, name)
        if isinstance(entry, Ended) and _count_of(line) != number:
            reason = f"the recording had {_count_of(line)} lines, {number} are left"
            yield Hole(at_ms=entry.at_ms, reason=reason)
        yield entry
        last = entry
    if last is None:
        raise UsageError(
            f"{name}: is empty; record one with: etcsched audit --live --record {name}"
        )
    if not isinstance(last, Ended):
        yield Hole(at_ms=0, reason="the recording was cut off: it doesn't say that it ended")


def _check_first(entry: Entry, name: str) -> None:
    if not isinstance(entry, Begun):
        raise UsageError(f"{name}:1: a recording begins with its 'begun' entry")
    if entry.format > FORMAT_VERSION:
        raise UsageError(
            f"{name}: has format {entry.format}; this version of etcsched reads up to "
            f"{FORMAT_VERSION}, use the one that recorded it"
        )


# --- one line


def _line_of(entry: Entry, number: int) -> bytes:
    match entry:
        case Begun():
            fields = msgspec.to_builtins(replace(entry, kvs=()))
            fields["format"] = entry.format
            fields["kvs"] = [_kv_fields(kv) for kv in entry.kvs]
        case Revision():
            fields = msgspec.to_builtins(replace(entry, events=()))
            fields["events"] = [_event_fields(event) for event in entry.events]
        case Ended():
            fields = {**msgspec.to_builtins(entry), "lines": number}
        case _:
            return msgspec.json.encode(entry)
    return msgspec.json.encode(fields)


def _count_of(line: bytes) -> int:
    return int(msgspec.json.decode(line).get("lines", 0))


def _entry_of(line: bytes) -> Entry:
    fields = msgspec.json.decode(line)
    if not isinstance(fields, dict) or fields.get("entry") not in _TYPES:
        raise ValueError("its 'entry' is none that this version knows")
    type_ = _TYPES[fields["entry"]]
    more: dict[str, Any] = {}
    if type_ is Begun:
        more["kvs"] = tuple(_kv_of(kv) for kv in fields.pop("kvs", ()))
    elif type_ is Revision:
        more["events"] = tuple(_event_of(event) for event in fields.pop("events", ()))
        fields["events"] = ()
    entry: Entry = msgspec.convert(fields, type_)
    return replace(entry, **more) if more else entry


def _event_fields(event: WatchEvent) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": event.type.value, **_kv_fields(event.kv)}
    if event.prev is not None:
        fields["prev"] = _kv_fields(event.prev)
        del fields["prev"]["key"]
    return fields


def _event_of(fields: dict[str, Any]) -> WatchEvent:
    kv, prev = _kv_of(fields), fields.get("prev")
    return WatchEvent(
        EventType(fields["type"]), kv, _kv_of({**prev, "key": kv.key}) if prev is not None else None
    )


def _kv_fields(kv: KeyValue) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "key": kv.key,
        "create": kv.create_revision,
        "mod": kv.mod_revision,
        "version": kv.version,
    }
    if kv.lease:
        fields["lease"] = kv.lease
    try:
        fields["value"] = kv.value.decode()
    except UnicodeDecodeError:
        fields["base64"] = b64encode(kv.value).decode()
    return fields


def _kv_of(fields: dict[str, Any]) -> KeyValue:
    raw = fields.get("base64")
    value = b64decode(raw) if raw is not None else fields.get("value", "").encode()
    return msgspec.convert(
        KeyValue(
            fields["key"],
            value,
            fields["create"],
            fields["mod"],
            fields["version"],
            fields.get("lease", 0),
        ),
        KeyValue,
    )
