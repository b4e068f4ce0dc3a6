"""What the recorder has told of a scene so far, for tests to wait for and to look at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from etcsched.audit.history import Begun, Entry, Hole, Revision
from etcsched.audit.recorder import Recorder, discreet
from etcsched.audit.state import Keyspace
from etcsched.core.records import Kind, Record, Run
from etcsched.etcd.client import EtcdClient
from etcsched.keyspace.codec import decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, KeyValue, Range, WatchEvent, range_end_of

T = TypeVar("T")
R = TypeVar("R", bound=Record)
PATIENCE_S = 20.0


class Gap(AssertionError):
    """The recorder missed an event: whatever else the test says means nothing."""


class History:
    """``now`` is the keyspace at ``revision``; each entry goes on to ``tell``."""

    def __init__(self, etcd: EtcdClient, keys: Keys, tell: Callable[[Entry], None]) -> None:
        self._etcd = etcd
        self._keys = keys
        self._tell = tell
        self._recorder = Recorder(etcd, keys, self._take)
        self.state = Keyspace(keys.prefix)
        self.now: dict[str, KeyValue] = {}
        self.archive: dict[tuple[str, str], Run] = {}
        """Every run that ever was in the archive, as it was last, by job and id."""
        self.events: list[WatchEvent] = []
        self.revision = 0
        self._seen_ms: dict[int, int] = {}
        self._changed_at: dict[str, int] = {}
        self._failure: BaseException | None = None
        self._moved = asyncio.Event()

    async def follow(self) -> None:
        """For ever. What goes wrong is raised by whoever waits."""
        try:
            await self._recorder.follow()
        except Exception as failure:
            self._failure = failure
            self._moved.set()

    def _take(self, entry: Entry) -> None:
        match entry:
            case Begun():
                assert entry.revision == 0, "a test's etcd has all its history"
            case Hole():
                raise Gap(entry.reason)
            case Revision():
                self._revise(entry)
            case _:
                pass
        self._tell(entry)
        self._moved.set()

    def _revise(self, entry: Revision) -> None:
        try:
            step = self.state.step_of(entry.revision, entry.at_ms, entry.events)
        except ValueError as hole:
            raise Gap(str(hole)) from None
        self.state.apply(step)
        self._seen_ms[entry.revision] = entry.at_ms
        for event in entry.events:
            key = event.kv.key
            self._changed_at[key] = entry.revision
            if event.type is EventType.DELETE:
                del self.now[key]
                continue
            self.now[key] = event.kv
            if key.startswith(self._keys.archive_prefix):
                place = self._keys.parse_archive(key)
                assert place is not None
                self.archive[place] = decode(Run, event.kv.value)
        self.events += entry.events
        self.revision = entry.revision

    async def until(
        self, look: Callable[[], T | None], what: str, within_s: float = PATIENCE_S
    ) -> T:
        """The first answer that is neither None nor False, asked anew with news; of several changes
        that come together it sees only what they come to."""
        try:
            async with asyncio.timeout(within_s):
                while True:
                    self._moved.clear()
                    if self._failure is not None:
                        raise self._failure
                    found = look()
                    if found is not None and found is not False:
                        return found
                    await self._moved.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within_s:g} s: {what}") from None

    async def reached(self, revision: int) -> None:
        await self.until(lambda: self.revision >= revision, f"revision {revision}")

    async def check_complete(self) -> None:
        """Everything up to now is recorded, and adds up, event by event, to what etcd holds."""
        prefix = self._keys.prefix
        held = await self._etcd.range(Range(prefix, range_end_of(prefix)))
        await self.reached(max((kv.mod_revision for kv in held.kvs), default=0))
        for kv in held.kvs:
            mine = self.now.get(kv.key)
            changed_since = self._changed_at.get(kv.key, 0) > held.revision
            if mine != discreet(self._keys, kv) and not changed_since:
                raise Gap(f"{kv.key}: etcd holds {kv}, recorded was {mine}")
        there = {kv.key for kv in held.kvs}

        def left() -> list[str]:
            gone = self.now.keys() - there
            return [key for key in gone if self._changed_at[key] <= held.revision]

        await self.until(lambda: not left(), "what etcd no longer holds to be deleted")

    def tell(self) -> str:
        """All events with the time at which they were seen, for whoever looks into a failure."""
        lines = []
        for event in self.events:
            at = datetime.fromtimestamp(self._seen_ms[event.kv.mod_revision] / 1000, UTC)
            lines.append(
                f"{at:%H:%M:%S.%f} {event.kv.mod_revision} {event.type.value} {event.kv.key} "
                f"{event.kv.value.decode()}"
            )
        return "\n".join(lines)

    # --- reading

    def records(self, kind: Kind, type_: type[R]) -> dict[tuple[str, ...], R]:
        """The current ones by the ids in their keys."""
        held = self.state.all_of(kind).items()
        return {ids: found.record for ids, found in held if isinstance(found.record, type_)}

    def ids(self, kind: Kind) -> set[tuple[str, ...]]:
        return set(self.state.all_of(kind))

    def record(self, kind: Kind, type_: type[R], *ids: str) -> R | None:
        return self.state.record(type_, kind, *ids)
