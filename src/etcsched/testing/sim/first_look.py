"""What nobody needs an auditor for: a handful of plain facts about the end and the processes."""

from __future__ import annotations

from etcsched.audit.history import Entry, Fault, FaultKind, Quiet, Revision, Word, WordKind
from etcsched.core.records import Kind, Watermark
from etcsched.keyspace.codec import decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType

_GONE = (
    Kind.RUN, Kind.ASSIGNMENT, Kind.REPORT, Kind.LATE_REPORT, Kind.ORDER, Kind.REQUEST, Kind.JOB,
    Kind.GAP,
)  # fmt: skip


class FirstLook:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._alive: dict[str, int] = {}
        self._mods: dict[str, int] = {}
        self._through = ""
        self._tokens: dict[tuple[str, str], int] = {}
        self._living: dict[tuple[str, str], Word] = {}
        self._frozen: set[str] = set()
        self.found: list[str] = []

    def take(self, entry: Entry) -> None:
        match entry:
            case Revision():
                self._revision(entry)
            case Word():
                self._word(entry)
            case Fault(kind=FaultKind.HOST_FROZEN):
                self._frozen.add(entry.target)
            case Quiet():
                self._quiet(entry)
            case _:
                pass

    def _revision(self, entry: Revision) -> None:
        for event in entry.events:
            key = event.kv.key
            if event.type is EventType.DELETE:
                self._mods.pop(key, None)
                continue
            self._mods[key] = event.kv.mod_revision
            if key == self._keys.watermark:
                through = decode(Watermark, event.kv.value).through
                if through < self._through:
                    self.found.append(f"I1 the watermark fell to {through}")
                self._through = through

    def _word(self, word: Word) -> None:
        run = (word.job, word.run)
        living = self._living.get(run)
        if word.kind is WordKind.START:
            if living is not None and living.agent not in self._frozen:
                self.found.append(f"I3 {run} starts on {word.agent} beside {living.agent}")
            if word.token <= self._tokens.get(run, 0):
                self.found.append(f"I5 {run} starts with {word.token}")
            self._tokens[run] = word.token
            self._living[run] = word
        elif living is not None and living.token == word.token and word.agent not in self._frozen:
            del self._living[run]
        elif word.agent in self._frozen:
            self._living.pop(run, None)

    def _quiet(self, quiet: Quiet) -> None:
        for key in self._mods:
            place = self._keys.parse(key) if not key.startswith(self._keys.archive_prefix) else None
            if place is not None and place[0] in _GONE:
                self.found.append(f"I12 {key} is left")
        if quiet.processes:
            self.found.append(f"I12 {quiet.processes} are left")
        if quiet.leases != quiet.nodes:
            self.found.append(f"I12 {quiet.leases} leases of {quiet.nodes} nodes")
        watched = {
            k: m for k, m in self._mods.items() if not k.startswith(self._keys.archive_prefix)
        }
        for view in quiet.views or ():
            if view.mod_revisions != watched:
                self.found.append(f"I13 {view.node} sees something else")
