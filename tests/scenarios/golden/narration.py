"""What a simulated cluster does, as lines for people: from what is committed, and from what the
jobs' processes do. The watermark, claims and what else is bookkeeping have no line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from etcsched.audit.history import Entry, Revision, Word, WordKind
from etcsched.core.records import (
    Answer,
    Change,
    Gap,
    Kind,
    Order,
    Presence,
    Run,
    Seat,
    Term,
)
from etcsched.core.states import FINAL
from etcsched.core.times import utc_of
from etcsched.keyspace.codec import change_of_event, decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType

__all__ = ["Narration", "short"]

_ID: Final = re.compile(r"20261122T(\d{6}(?:\.\d{3})?)Z")
_MOMENT: Final = re.compile(r"2026-11-22T(\d\d:\d\d:\d\d)\.\d{3}Z")
_WIDTH: Final = 24


def short(run: str) -> str:
    """Runs' ids and moments without what all have in common."""
    return _MOMENT.sub(r"\1", _ID.sub(r"\1", run))


class Narration:
    """``take`` gets all entries of a history; ``lines`` are since they were last taken away."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._lines: list[str] = []
        self._presences: dict[str, Presence] = {}
        self._runs: dict[tuple[str, str], Run] = {}
        self._gaps: dict[str, Gap] = {}
        self._is_quiet = False

    def lines(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines

    def take(self, entry: Entry) -> None:
        match entry:
            case Revision():
                for event in entry.events:
                    if event.kv.key.startswith(self._keys.archive_prefix):
                        if event.type is EventType.PUT:
                            self._run(entry.at_ms, decode(Run, event.kv.value))
                        continue
                    change = change_of_event(self._keys, event)
                    if change is not None:
                        self._change(entry.at_ms, change)
            case Word() if not self._is_quiet:
                self._word(entry)
            case _:
                pass

    @contextmanager
    def quiet_about_processes(self, quiet: bool = True) -> Iterator[None]:
        """A host that is frozen, or thaws, gives a sign of its processes that is no end."""
        self._is_quiet = quiet
        yield
        self._is_quiet = False

    def runs_of(self, job: str) -> list[Run]:
        return [run for (name, _), run in sorted(self._runs.items()) if name == job]

    def list(self, subject: str, text: str) -> None:
        self._lines.append(f"{subject:<{_WIDTH}}  {text}")

    def say(self, at_ms: int, subject: str, text: str) -> None:
        at = utc_of(at_ms)[11:19]
        self._lines.append(f"{at}  {subject:<{_WIDTH}}  {short(text)}")

    def _word(self, word: Word) -> None:
        subject = f"{word.job}/{short(word.run)}"
        match word.kind:
            case WordKind.START:
                which = f", attempt {word.attempt}" if word.attempt > 1 else ""
                self.say(word.at_ms, subject, f"begins on {word.agent}{which}")
            case WordKind.END:
                self.say(word.at_ms, subject, f"ends on {word.agent}")
            case WordKind.BEAT:
                self.say(word.at_ms, subject, f"is ended on {word.agent}")

    def _change(self, at_ms: int, change: Change) -> None:
        name = "/".join(change.ids)
        match change.record:
            case Term() as term:
                self.say(at_ms, term.leader, f"leads, term {term.number}")
            case Presence() as presence:
                before = self._presences.get(name)
                self._presences[name] = presence
                if before is None:
                    self.say(at_ms, name, "is here")
                elif before.incarnation != presence.incarnation:
                    self.say(at_ms, name, "is back, with a new session")
                elif presence.draining and not before.draining:
                    self.say(at_ms, name, "wants to stop")
            case Run() as run:
                self._run(at_ms, run)
            case Order() as order:
                self.say(at_ms, f"{order.job}/{short(order.run)}", f"is to end: {order.reason}")
            case Gap() as gap:
                known = self._gaps.get(name)
                self._gaps[name] = gap
                if known is None:
                    self.say(at_ms, name, f"outage since {gap.since[11:19]}: {gap.reason}")
                elif gap.closed and not known.closed:
                    self.say(at_ms, name, "outage is over")
            case Seat():
                self.say(at_ms, name, "has a seat")
            case Answer() as answer:
                word = "done" if answer.accepted else "refused"
                self.say(at_ms, answer.job or name, f"{word}: {answer.message}")
            case None:
                self._gone(at_ms, change, name)
            case _:
                pass

    def _gone(self, at_ms: int, change: Change, name: str) -> None:
        match change.kind:
            case Kind.PRESENCE:
                self._presences.pop(name, None)
                self.say(at_ms, name, "is gone")
            case Kind.SEAT:
                self.say(at_ms, name, "has no seat any more")
            case Kind.GAP:
                gap = self._gaps.pop(name, None)
                if gap is not None and not gap.closed:
                    self.say(at_ms, name, "outage is over")
            case _:
                pass

    def _run(self, at_ms: int, run: Run) -> None:
        """Each step of its history that hasn't been told."""
        key = (run.job, run.id)
        before = self._runs.get(key)
        told = len(before.history) if before is not None else 0
        self._runs[key] = run
        for step in run.history[told:]:
            state = step.state.value
            to = f" to {run.agent}" if state == "assigned" and run.agent else ""
            many = f" ({run.missed_count} ticks)" if run.missed_count > 1 else ""
            cause = f": {step.cause}" if step.cause != state else ""
            self.say(at_ms, f"{run.job}/{short(run.id)}", f"{state}{to}{many}{cause}")
        if run.state in FINAL:
            for follow in run.followed_by:
                if follow.note:
                    name = f"{run.job}/{short(run.id)}"
                    self.say(at_ms, name, f"{follow.job} {follow.note}")
