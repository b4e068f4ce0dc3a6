"""What an auditor is told of a simulated cluster, what a person reads of it, and a hash of both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from etcsched.audit.history import Entry, Fence, Revision, Word, WordKind
from etcsched.core.agent.attempt import parse_attempt_id
from etcsched.keyspace.ops import EventType, WatchEvent
from etcsched.testing.sim.loop import Loop

__all__ = ["Chronicle"]


class Chronicle:
    """``tell`` gets every entry of the history. ``lines``: what a person reads, if asked for.
    ``agent_of``: whose host it is."""

    def __init__(
        self,
        loop: Loop,
        prefix: str,
        tell: Callable[[Entry], None],
        agent_of: Callable[[str], str],
        *,
        keeps_lines: bool,
    ) -> None:
        self.lines: list[str] = []
        self.record = tell
        self._loop = loop
        self._prefix = prefix
        self._agent_of = agent_of
        self._keeps_lines = keeps_lines
        self._hash = hashlib.blake2b(digest_size=8)

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()

    def trace(self, who: str, text: str) -> None:
        if self._keeps_lines:
            self.lines.append(f"{self._loop.now_s:10.4f}  {who:8}  {text}")

    def committed(self, revision: int, events: Sequence[WatchEvent]) -> None:
        digest = self._hash
        for event in events:
            digest.update(event.kv.key.encode())
            digest.update(event.kv.value)
        digest.update(b"%d %r" % (revision, self._loop.now_s))
        self.record(Revision(revision=revision, at_ms=self._loop.now_ms, events=tuple(events)))
        if self._keeps_lines:
            for event in events:
                self.trace(f"r{revision}", _text_of(event, self._prefix))

    # --- the words of processes

    def process_started(self, host: str, attempt_id: str) -> None:
        self._word(WordKind.START, host, attempt_id)

    def process_lives(self, host: str, attempt_id: str) -> None:
        self._word(WordKind.BEAT, host, attempt_id)

    def process_ended(self, host: str, attempt_id: str, *, by_itself: bool) -> None:
        self._word(WordKind.END if by_itself else WordKind.BEAT, host, attempt_id)

    def _word(self, kind: WordKind, host: str, attempt_id: str) -> None:
        job, run, number, token = parse_attempt_id(attempt_id)
        self._hash.update(f"{kind.value} {attempt_id} {self._loop.now_s!r}".encode())
        self.trace(host, f"process {kind.value} {attempt_id}")
        self.record(
            Word(
                kind=kind,
                job=job,
                run=run,
                token=token,
                attempt=number,
                agent=self._agent_of(host),
                at_ms=self._loop.now_ms,
            )
        )

    def fenced(
        self, host: str, lease: int, attempt_id: str, *, lease_expires_ms: int | None
    ) -> None:
        job, run, _, token = parse_attempt_id(attempt_id)
        self.record(
            Fence(
                agent=self._agent_of(host),
                incarnation=f"{lease:x}",
                job=job,
                run=run,
                token=token,
                at_ms=self._loop.now_ms,
                lease_expires_ms=lease_expires_ms,
            )
        )


def _text_of(event: WatchEvent, prefix: str) -> str:
    key = event.kv.key.removeprefix(prefix)
    if event.type is EventType.DELETE:
        return f"- {key}"
    return f"+ {key} {event.kv.value.decode(errors='replace')[:300]}"
