"""I6: one leader a term; each leader write carries the key that was live at its revision."""

from __future__ import annotations

from etcsched.audit.rules.base import Rule
from etcsched.audit.state import ARCHIVE, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Assignment, Kind, Run, Term, Watermark
from etcsched.keyspace.keys import Keys

_LEADERS = frozenset(kind for kind in Kind if "/state/" in Keys().of(kind))


class Leaders(Rule):
    """The election's state is that before the revision, since that is what compares see."""

    invariant = Invariant.I6
    places = frozenset({*_LEADERS, ARCHIVE})

    def wrote(self, write: Write, step: Step) -> None:
        record = write.new
        if write.place is Kind.TERM:
            if isinstance(record, Term):
                self._took_term(record, step)
            else:
                self.expect(False, "the term was deleted, or isn't one", step)
            return
        term = self.state.term
        who = f"{term.leader}, term {term.number}" if term is not None else "any term"
        text = f"{write.key}: written while the election key of {who} was gone"
        self.expect(term is not None and self._is_live(term), text, step)
        author = self._author(write)
        if term is not None and author is not None:
            text = f"{write.key}: written by term {author} in term {term.number}"
            self.expect(author == term.number, text, step)

    def _took_term(self, new: Term, step: Step) -> None:
        name = f"term {new.number} of {new.leader}"
        self.expect(self._is_live(new), f"{name}: there is no such candidate", step)
        candidates = self.state.all_of(Kind.ELECTION).values()
        lowest = min((held.create_revision for held in candidates), default=new.token)
        text = f"{name}, token {new.token}: a candidate of revision {lowest} stood before it"
        self.expect(lowest == new.token, text, step)
        old = self.state.term
        if old is not None:
            grows = new.number == old.number + 1 and new.token >= old.token
            text = f"{name}, token {new.token}: came after term {old.number}, token {old.token}"
            self.expect(grows, text, step)

    def _is_live(self, term: Term) -> bool:
        held = self.state.of(Kind.ELECTION, term.election_key)
        return held is not None and held.create_revision == term.token

    def _author(self, write: Write) -> int | None:
        """The term that a record names as its writer's."""
        match write.new:
            case Assignment(term=term) | Watermark(term=term):
                return term
            case Run() as run:
                before = self.state.run(*write.ids)
                known = len(before.history) if before is not None else 0
                return run.history[-1].term if len(run.history) > known else None
            case _:
                return None
