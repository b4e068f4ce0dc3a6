"""A watch from both of its ends: what the member sends, and what the client makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from etcsched.core.errors import Compacted, EtcschedError
from etcsched.etcd.assembly import Assembler
from etcsched.keyspace.ops import Snapshot, WatchEvent, WatchUpdate
from etcsched.testing.sim.network import Link

QUIET_S = 5.0
ANSWER_S = 3.0


class Watch:
    """Follows a range as ``etcd.watch`` does: a snapshot, then whole revisions, each once;
    resumed after any loss, listed again where history is gone.

    ``lag_s``: how far the member that serves it is behind.
    """

    def __init__(
        self, link: Link, start: str, end: str, on_update: Callable[[WatchUpdate], None]
    ) -> None:
        self.link = link
        self.lag_s = 0.0
        self._start = start
        self._end = end
        self._on_update = on_update
        self._assembler: Assembler | None = None
        self._stream = 0
        """Number of the stream that counts; what comes from others is void."""
        self._sent = 0
        self._opened_at = 0
        self._is_open = False
        self._is_scheduled = False
        self._is_stuck = False
        link.watches.append(self)
        link.etcd.watches.append(self)
        self._list(0.05)

    def close(self) -> None:
        self._stream += 1
        self._is_open = False
        if self in self.link.etcd.watches:
            self.link.etcd.watches.remove(self)

    # --- the client's end

    def _list(self, backoff_s: float) -> None:
        store, start, end = self.link.etcd.store, self._start, self._end
        self.link.call(
            lambda: store.snapshot(start, end),
            lambda answer: self._listed(answer, backoff_s),
            10.0,
            is_write=False,
        )

    def _listed(self, answer: Snapshot | EtcschedError, backoff_s: float) -> None:
        if isinstance(answer, EtcschedError):
            self.link.process.after(backoff_s, self._list, min(2 * backoff_s, 2.0))
            return
        self._assembler = Assembler(answer.revision)
        self._on_update(answer)
        self._connect(0.05)

    def _connect(self, backoff_s: float) -> None:
        assert self._assembler is not None
        self._assembler.restart()
        position = self._assembler.position
        self._stream += 1
        stream = self._stream
        self.link.call(
            lambda: self._open(stream, position),
            lambda answer: self._opened(answer, backoff_s),
            3.0,
            is_write=False,
        )

    def _opened(self, answer: EtcschedError | None, backoff_s: float) -> None:
        if isinstance(answer, Compacted):
            self.link.etcd.count("compacted under a watch")
            self._list(0.05)
        elif isinstance(answer, EtcschedError):
            self._is_open = False
            self.link.process.after(backoff_s, self._connect, min(2 * backoff_s, 2.0))

    def break_off(self) -> None:
        """The stream ends, with what was under way in it."""
        if self._is_open:
            self._is_open = False
            self._stream += 1
            self.link.etcd.count("watch broken")
            self.link.process.after(0.05, self._reconnect, self._stream)

    def _reconnect(self, stream: int) -> None:
        if stream == self._stream and not self._is_open and self._assembler is not None:
            self._connect(0.05)

    def _quiet(self, stream: int) -> None:
        """No sign of life: the client goes on at another endpoint."""
        if stream == self._stream and self._is_stuck:
            self.link.member = (self.link.member + 1) % self.link.etcd.members
            self.break_off()

    def _received(self, stream: int, events: Sequence[WatchEvent], raft_term: int) -> None:
        if stream != self._stream or self._assembler is None:
            return
        self.link.saw_raft_term(raft_term)
        chance = self.link.chance
        if len(events) > 1 and chance.random() < 0.1:
            cut = chance.randrange(1, len(events))
            self._take(events[:cut], more=True)
            if chance.random() < 0.1:
                if self._is_open:
                    self.break_off()
                else:
                    self._stream += 1  # Another is being opened already.
                return
            events = events[cut:]
        self._take(events, more=False)

    def _take(self, events: Sequence[WatchEvent], *, more: bool) -> None:
        assert self._assembler is not None
        batch = self._assembler.events(events, more_fragments=more)
        if batch is not None:
            self._on_update(batch.seen_late(self._opened_at))

    # --- the member's end

    def _open(self, stream: int, position: int) -> None:
        etcd = self.link.etcd
        if position < etcd.store.compact_revision:
            raise Compacted("required revision has been compacted", etcd.store.compact_revision)
        if stream != self._stream:
            return
        if self.link.chance.random() < 0.1:
            # A member that lags behind may tell again what the client has.
            position = min(position, max(etcd.store.compact_revision - 1, position - 3))
        self._sent = position
        self._opened_at = etcd.store.revision
        self._is_open, self._is_stuck = True, False
        self._schedule()

    def committed(self, events: list[WatchEvent]) -> None:
        if self._is_open and not self._is_scheduled:
            start, end = self._start, self._end
            for event in events:
                if start <= event.kv.key < end:
                    self._schedule()
                    return

    def _schedule(self) -> None:
        self._is_scheduled = True
        self.link.process.loop.after(self.link.latency_s() + self.lag_s, self._send)

    def kick(self) -> None:
        """What kept the stream silent is over."""
        if self._is_open and not self._is_scheduled:
            self._schedule()

    def _send(self) -> None:
        self._is_scheduled = False
        if not self._is_open:
            return
        link = self.link
        if not link.hears:
            if not self._is_stuck:
                self._is_stuck = True
                process = link.process
                quiet_s = link.chance.uniform(0.0, QUIET_S) + ANSWER_S
                process.after(quiet_s, self._quiet, self._stream)
            return
        self._is_stuck = False
        try:
            events: Sequence[Any] = link.etcd.store.events_since(
                self._sent + 1, self._start, self._end, prev_kv=True
            )
        except Compacted:
            self._is_open = False
            self._stream += 1
            link.process.hear(self._opened, Compacted("compacted", 0), 0.05)
            return
        if events:
            self._sent = events[-1].kv.mod_revision
            link.process.hear(self._received, self._stream, events, link.etcd.raft_term)
