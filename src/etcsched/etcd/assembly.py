"""From watch responses to batches, purely: whole revisions only, each once, in order."""

from __future__ import annotations

from collections.abc import Sequence

from etcsched.keyspace.ops import WatchBatch, WatchEvent

__all__ = ["Assembler"]


class Assembler:
    """Knows up to which revision everything has been delivered (``position``).

    etcd never spreads one revision over two responses, but may split a large response into
    fragments anywhere, and may repeat old events on a member that lags behind. After the loss of a
    stream, go on from ``position`` with ``restart``: what was held back comes again, and what is
    known is dropped.
    """

    def __init__(self, position: int) -> None:
        self.position = position
        self._held: list[WatchEvent] = []

    def restart(self) -> None:
        self._held.clear()

    def events(self, events: Sequence[WatchEvent], *, more_fragments: bool) -> WatchBatch | None:
        """The batch that is complete now, if any."""
        self._held.extend(event for event in events if event.kv.mod_revision > self.position)
        if not self._held:
            return None
        last_revision = self._held[-1].kv.mod_revision
        if not more_fragments:
            whole, self._held = self._held, []
            self.position = last_revision
            return WatchBatch(tuple(whole), last_revision)
        # The next fragment may hold more of the last revision.
        whole = [event for event in self._held if event.kv.mod_revision < last_revision]
        if not whole:
            return None
        self._held = self._held[len(whole) :]
        self.position = whole[-1].kv.mod_revision
        return WatchBatch(tuple(whole), self.position)

    def progress(self, revision: int) -> WatchBatch | None:
        """etcd said by itself that everything up to ``revision`` has been sent."""
        if revision <= self.position or self._held:
            return None
        self.position = revision
        return WatchBatch((), revision)
