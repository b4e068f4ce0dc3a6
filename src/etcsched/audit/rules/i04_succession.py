"""I4: attempt n+1 is created only after attempt n is final or fenced."""

from __future__ import annotations

from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Assignment, Kind, Presence, Report


class Succession(Rule):
    """An attempt is over once it is reported so, was never claimed, or its session is gone. A
    session that comes back after its attempt was moved had not been gone."""

    invariant = Invariant.I4
    places = frozenset({Kind.ASSIGNMENT, Kind.PRESENCE})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._moved_from: dict[str, list[str]] = {}
        """Attempts that were claimed and moved, by the session that was taken for lost."""

    def wrote(self, write: Write, step: Step) -> None:
        record = write.new
        if isinstance(record, Assignment):
            self._assigned(write, record, step)
        elif write.place is Kind.ASSIGNMENT and write.after is None:
            self._withdrawn(write, step)
        elif isinstance(record, Presence) and write.is_new:
            for attempt in self._moved_from.pop(record.incarnation, []):
                text = f"{attempt} was moved, and the session {record.incarnation} still lives"
                self.expect(False, text, step)

    def _assigned(self, write: Write, new: Assignment, step: Step) -> None:
        name = f"{new.job}/{new.run} to {new.agent}"
        self.court.checked[self.invariant] += 1
        for agent in self.state.agents_of.get((new.job, new.run), set()):
            place = (agent, new.job, new.run)
            old = self.state.record(Assignment, Kind.ASSIGNMENT, *place)
            if old is None:
                continue
            is_running = self._is_claimed(place) and self._is_here(place, old)
            text = f"{name}: attempt {new.attempt} began while attempt {old.attempt} ran on {agent}"
            self.expect(not is_running, text, step)
            replaced = step.of(Kind.ASSIGNMENT, *place)
            text = f"{name}: attempt {new.attempt} stands beside attempt {old.attempt} on {agent}"
            self.expect(replaced is not None, text, step)
            text = f"{name}: attempt {new.attempt} follows attempt {old.attempt}"
            self.expect(new.attempt == old.attempt + 1, text, step)

    def _withdrawn(self, write: Write, step: Step) -> None:
        """Its claimed attempt had no outcome: it was taken for lost."""
        old = write.old
        if not isinstance(old, Assignment) or not self._is_claimed(write.ids):
            return
        is_here = self._is_here(write.ids, old)
        if step.of(Kind.RUN, *write.ids[1:]) is not None and not is_here:
            name = f"{old.job}/{old.run} on {old.agent}"
            session = self._session(write.ids, old)
            self._moved_from.setdefault(session, []).append(name)

    def _is_claimed(self, place: tuple[str, ...]) -> bool:
        report = self.state.record(Report, Kind.REPORT, *place)
        return report is not None and report.outcome is None

    def _is_here(self, place: tuple[str, ...], assignment: Assignment) -> bool:
        presence = self.state.record(Presence, Kind.PRESENCE, assignment.agent)
        return presence is not None and presence.incarnation == self._session(place, assignment)

    def _session(self, place: tuple[str, ...], assignment: Assignment) -> str:
        """That of its assignment, or the one that took it up again later."""
        report = self.state.record(Report, Kind.REPORT, *place)
        return report.incarnation if report is not None else assignment.incarnation
