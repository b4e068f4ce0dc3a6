"""The keyspace as the history tells it, indexed so that judging one revision costs what it
changes."""

from __future__ import annotations

from collections import defaultdict
from typing import Final, Literal, TypeVar

import msgspec

from etcsched.core.records import Assignment, Join, Kind, Record, Run, Term, Watermark
from etcsched.core.times import ms_of
from etcsched.keyspace.codec import MalformedRecord, change_of, decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, KeyValue, WatchEvent

__all__ = ["ARCHIVE", "Held", "Keyspace", "Place", "Step", "Write"]

ARCHIVE: Final = "archive"
ACCESS: Final = "access"
BARRED: Final = "barred"
"""Nothing is decided by what stands in these two."""
Place = Kind | Literal["archive", "access", "barred"]
R = TypeVar("R", bound=Record)

_TIMES: Final[dict[type[Record], tuple[str, ...]]] = {
    Run: ("created_at", "scheduled_at", "not_before", "missed_through"),
    Assignment: ("assigned_at",),
    Join: ("since",),
}
"""What is judged by, and may be no time where a hand has written it: for the leader it costs that
one run."""


class Held(msgspec.Struct, frozen=True):
    """A key's content. ``record`` None: the value is none of its kind, or makes no sense there, so
    that it counts as absent for everybody."""

    record: Record | None
    mod_revision: int
    create_revision: int
    lease: int


class Write(msgspec.Struct, frozen=True):
    """One key's change. ``place`` None: a key of no kind."""

    place: Place | None
    ids: tuple[str, ...]
    key: str
    before: Held | None
    after: Held | None

    @property
    def old(self) -> Record | None:
        """What stood there, as far as anybody takes it for a record."""
        return self.before.record if self.before is not None else None

    @property
    def new(self) -> Record | None:
        """What stands there from now on."""
        return self.after.record if self.after is not None else None

    @property
    def is_new(self) -> bool:
        return self.before is None and self.after is not None


class Step(msgspec.Struct, frozen=True):
    """One revision: all that one commit changed."""

    revision: int
    at_ms: int
    writes: tuple[Write, ...]

    def of(self, place: Place, *ids: str) -> Write | None:
        for write in self.writes:
            if write.place == place and write.ids == ids:
                return write
        return None


class Keyspace:
    """``step_of`` reads a revision against what is held; ``apply`` makes it so."""

    def __init__(self, prefix: str) -> None:
        self.keys = Keys(prefix)
        self.revision = 0
        self.at_ms = 0
        self._held: dict[str, Held] = {}
        self._by_place: dict[Place, dict[tuple[str, ...], Held]] = defaultdict(dict)
        self.strays: set[str] = set()
        """Keys of no kind."""
        self.agents_of: dict[tuple[str, str], set[str]] = defaultdict(set)
        """Of each run, those with an assignment of it."""
        self.work_of: dict[str, set[tuple[str, str]]] = defaultdict(set)
        """Of each agent, the runs that are assigned to it."""
        self.runs_of: dict[str, set[str]] = defaultdict(set)
        """Of each job, the active runs."""
        self.term_since_ms = 0
        """When the term began, as it was seen."""

    def of(self, place: Place, *ids: str) -> Held | None:
        return self._by_place[place].get(ids)

    def all_of(self, place: Place) -> dict[tuple[str, ...], Held]:
        return self._by_place[place]

    def record(self, type_: type[R], place: Place, *ids: str) -> R | None:
        held = self._by_place[place].get(ids)
        return held.record if held is not None and isinstance(held.record, type_) else None

    def run(self, job: str, run: str) -> Run | None:
        """Active or over."""
        return self.record(Run, Kind.RUN, job, run) or self.record(Run, ARCHIVE, job, run)

    @property
    def through_ms(self) -> int:
        """The watermark."""
        watermark = self.record(Watermark, Kind.WATERMARK)
        return ms_of(watermark.through) if watermark is not None else 0

    @property
    def term(self) -> Term | None:
        return self.record(Term, Kind.TERM)

    def mod_revisions(self) -> dict[str, int]:
        """Of every key of the watched range."""
        begin, end = self.keys.watched, self.keys.watched_end
        return {k: held.mod_revision for k, held in self._held.items() if begin <= k < end}

    # --- change

    def begin(self, kvs: tuple[KeyValue, ...], revision: int, at_ms: int) -> None:
        for kv in kvs:
            place, ids = self._place(kv.key)
            self._apply(Write(place, ids, kv.key, None, self._read(place, kv)))
        self.revision, self.at_ms = revision, at_ms

    def step_of(self, revision: int, at_ms: int, events: tuple[WatchEvent, ...]) -> Step:
        """``ValueError``: an event doesn't follow from what is held: one before it is missing."""
        writes = []
        for event in events:
            key = event.kv.key
            before = self._held.get(key)
            prev_mod = event.prev.mod_revision if event.prev is not None else 0
            held_mod = before.mod_revision if before is not None else 0
            if prev_mod != held_mod:
                raise ValueError(
                    f"{key} at revision {revision}: before it stood revision {prev_mod}, and "
                    f"{held_mod or 'nothing'} was recorded"
                )
            place, ids = self._place(key)
            after = self._read(place, event.kv) if event.type is EventType.PUT else None
            writes.append(Write(place, ids, key, before, after))
        return Step(revision, at_ms, tuple(writes))

    def apply(self, step: Step) -> None:
        for write in step.writes:
            self._apply(write)
        self.revision, self.at_ms = step.revision, step.at_ms
        if step.of(Kind.TERM) is not None:
            self.term_since_ms = step.at_ms

    def _place(self, key: str) -> tuple[Place | None, tuple[str, ...]]:
        if key.startswith(self.keys.archive_prefix):
            job, slash, run = key[len(self.keys.archive_prefix) :].partition("/")
            return (ARCHIVE, (job, run)) if slash else (None, ())
        if key.startswith(self.keys.access_prefix):
            return ACCESS, (key[len(self.keys.access_prefix) :],)
        if key.startswith(self.keys.barred_prefix):
            return BARRED, (key[len(self.keys.barred_prefix) :],)
        return self.keys.parse(key) or (None, ())

    def _read(self, place: Place | None, kv: KeyValue) -> Held:
        record: Record | None = None
        try:
            if place == ARCHIVE:
                record = decode(Run, kv.value)
            elif (change := change_of(self.keys, kv)) is not None:
                record = change.record
        except MalformedRecord:
            pass
        if record is not None and not _has_times(record):
            record = None
        return Held(record, kv.mod_revision, kv.create_revision, kv.lease)

    def _apply(self, write: Write) -> None:
        place, ids, after = write.place, write.ids, write.after
        if after is None:
            self._held.pop(write.key, None)
        else:
            self._held[write.key] = after
        if place is None:
            (self.strays.discard if after is None else self.strays.add)(write.key)
            return
        if after is None:
            self._by_place[place].pop(ids, None)
        else:
            self._by_place[place][ids] = after
        if place is Kind.ASSIGNMENT:
            agent, job, run = ids
            _mark(self.agents_of, (job, run), agent, after is not None)
            _mark(self.work_of, agent, (job, run), after is not None)
        elif place is Kind.RUN:
            _mark(self.runs_of, ids[0], ids[1], after is not None)


K = TypeVar("K")
V = TypeVar("V")


def _mark(index: dict[K, set[V]], key: K, value: V, is_there: bool) -> None:
    if is_there:
        index[key].add(value)
    elif key in index:
        index[key].discard(value)
        if not index[key]:
            del index[key]


def _has_times(record: Record) -> bool:
    try:
        for name in _TIMES.get(type(record), ()):
            if (time := getattr(record, name)) is not None:
                ms_of(time)
    except ValueError:
        return False
    return True
