"""A scheduler's way to leadership and out of it, as a pure state machine (DESIGN 3).

The queue is etcd's own election recipe: the lowest create revision leads. Create revisions only
grow, so once the view shows this node's own key and none below it, nobody can come to stand below
it any more; that the key is still there is compared in the transaction that takes the term.

Guarantee: ``Lead`` is said only after this node's own term record has come by on its watch, so the
view then holds everything that any earlier leader wrote.
"""

from __future__ import annotations

import enum

import msgspec

from etcsched.core.clock import Instant, SkewWatch
from etcsched.core.leader.effects import WinTerm
from etcsched.core.records import SCHEMA_VERSION, Candidate, Change, Kind, Presence, Term
from etcsched.core.times import ms_of, utc_of
from etcsched.core.view import Entry, View, revision_of

RETRY_S = 0.25
"""An answer that refused a step may tell of a revision that the watch hasn't shown yet."""


class Join(msgspec.Struct, frozen=True):
    """Put this node's election key (idempotent: it may be there already)."""

    lease: int


class Leave(msgspec.Struct, frozen=True):
    """Delete this node's election key: the next candidate leads at once."""

    lease: int
    token: int


class TakeTerm(msgspec.Struct, frozen=True):
    write: WinTerm


class Lead(msgspec.Struct, frozen=True):
    """This node leads: its term, the term record's revision for the leader's guard."""

    term: Term
    term_revision: int


class Demote(msgspec.Struct, frozen=True):
    """This node leads no longer; every plan is void."""

    reason: str


CandidateEffect = Join | Leave | TakeTerm | Lead | Demote


class Standing(enum.Enum):
    OUT = "out"
    STANDBY = "standby"
    LEADING = "leading"
    BARRED = "barred"


class CandidateMachine:
    """Told of the session, of the view's changes and of time; says what to do about leadership."""

    def __init__(self, node: str, view: View) -> None:
        self._node = node
        self._view = view
        self._lease: int | None = None
        self._skew = SkewWatch()
        self._asked_until_s = 0.0
        self._given_up = 0
        self._resigned = False
        self._barred_until_s = 0.0
        self._reason = ""
        self.leading: Term | None = None

    # --- events

    def session_opened(self, lease: int, now: Instant) -> list[CandidateEffect]:
        self._lease = lease
        self._asked_until_s = 0.0
        return self._decide(now)

    def session_lost(self, reason: str) -> list[CandidateEffect]:
        self._lease = None
        return self._demote(reason)

    def view_changed(
        self, changes: tuple[Change, ...], is_live: bool, now: Instant, late_through: int = 0
    ) -> list[CandidateEffect]:
        """``is_live``: seen as it was written, so that the clocks in it say something; unless it
        is of a revision up to ``late_through``: a watch that was lost has made up for it."""
        if is_live:
            for change in changes:
                if change.mod_revision <= late_through:
                    continue
                match change.record:
                    case Candidate(node=node, clock=clock) | Presence(agent=node, clock=clock):
                        if node != self._node:
                            self._skew.sample(node, ms_of(clock), now)
                    case _:
                        pass
        if any(change.kind in (Kind.ELECTION, Kind.TERM) for change in changes):
            self._asked_until_s = 0.0
        return self._decide(now)

    def time_passed(self, now: Instant) -> list[CandidateEffect]:
        return self._decide(now)

    def resign(self, reason: str) -> list[CandidateEffect]:
        """Leave for good (the node stops)."""
        self._resigned = True
        return [*self._demote(reason), *self._leave()]

    def step_down(self, reason: str, now: Instant, bar_s: float = 5.0) -> list[CandidateEffect]:
        """Leave for a while: something is wrong with this node, not with the cluster."""
        self._barred_until_s = now.mono_s + bar_s
        self._reason = reason
        self._asked_until_s = now.mono_s + RETRY_S
        return [*self._demote(reason), *self._leave()]

    # --- what follows

    @property
    def standing(self) -> Standing:
        if self.leading is not None:
            return Standing.LEADING
        if self._lease is None:
            return Standing.OUT
        return Standing.STANDBY if self.own_token else Standing.BARRED

    @property
    def barred_because(self) -> str:
        """Why this node doesn't stand for election, as far as it has a reason."""
        return self._reason

    @property
    def unleased(self) -> tuple[str, ...]:
        """Others in the election that never go, since they have no lease, by the last part of their
        key. No scheduler puts one: a hand did, or a copy of another etcd."""
        return tuple(
            name
            for name, entry in self._view.candidates.items()
            if not entry.lease and entry.create_revision != self.own_token
        )

    @property
    def namesakes(self) -> dict[str, Entry[Candidate]]:
        """Others in the election of this node's name, by the last part of their key: this node's
        own earlier session until its lease ends, or a second scheduler."""
        own = f"{self._lease:x}" if self._lease is not None else ""
        return {
            name: entry
            for name, entry in self._view.candidates.items()
            if entry.record.node == self._node and name != own
        }

    @property
    def own_token(self) -> int:
        """0: it doesn't stand for election."""
        own = self._own()
        return own.create_revision if own is not None else 0

    @property
    def stuck_behind(self) -> tuple[str, ...]:
        """Those of them that stand before this node: its turn never comes."""
        token = self.own_token
        of = self._view.candidates
        return tuple(name for name in self.unleased if of[name].create_revision < token)

    @property
    def lacking(self) -> str:
        """What keeps this node from leading if its turn came; empty: nothing."""
        match self.standing:
            case Standing.LEADING | Standing.STANDBY:
                return ""
            case Standing.OUT:
                return "it has no session with etcd"
            case Standing.BARRED:
                return self._reason or "it doesn't stand for election yet"

    def _own(self) -> Entry[Candidate] | None:
        return self._view.candidates.get(f"{self._lease:x}") if self._lease is not None else None

    def _decide(self, now: Instant) -> list[CandidateEffect]:
        if self._lease is None or self._resigned:
            return []
        verdict = self._skew.verdict(now) or self._outdated()
        if verdict is not None:
            self._reason = verdict
            return [*self._demote(verdict), *self._paced(self._leave(), now)]
        if now.mono_s < self._barred_until_s:
            return self._paced(self._leave(), now)
        self._reason = ""
        own = self._own()
        token = own.create_revision if own is not None else 0
        if self.leading is not None and (demoted := self._still_leading(token)):
            return demoted
        if own is None or own.lease != self._lease:
            # The latter: a hand wrote over it. Once this node is gone, it would never go.
            return self._paced([Join(self._lease)], now)
        if self.leading is not None:
            return []
        lowest = min(entry.create_revision for entry in self._view.candidates.values())
        if lowest < token:
            return []
        return self._campaign(self._lease, token, now)

    def _outdated(self) -> str | None:
        """Why this program mustn't lead; None: it may."""
        term = self._view.term
        if term is None or term.record.least_schema <= SCHEMA_VERSION:
            return None
        return (
            f"the cluster's records are of schema {term.record.least_schema}, this program knows "
            f"{SCHEMA_VERSION}: upgrade etcsched on this node"
        )

    def _still_leading(self, token: int) -> list[CandidateEffect]:
        assert self.leading is not None
        term = self._view.term
        if token != self.leading.token:
            return self._demote("its election key is gone")
        if term is None or term.record.token != token:
            return self._demote("another node took the term")
        return []

    def _campaign(self, lease: int, token: int, now: Instant) -> list[CandidateEffect]:
        term = self._view.term
        # A term given up isn't taken up again: what was in flight in it may still be committed.
        if term is not None and term.record.token == token and term.record.number > self._given_up:
            self.leading = term.record
            return [Lead(term.record, term.mod_revision)]
        new = Term(
            # Also where somebody deleted the record: the terms begin anew above those given up.
            number=max(term.record.number if term is not None else 0, self._given_up) + 1,
            leader=self._node,
            election_key=f"{lease:x}",
            token=token,
            since=utc_of(now.wall_ms),
            least_schema=term.record.least_schema if term is not None else SCHEMA_VERSION,
        )
        take = TakeTerm(WinTerm(seq=0, term=new, old_revision=revision_of(term)))
        return self._paced([take], now)

    def _demote(self, reason: str) -> list[CandidateEffect]:
        if self.leading is None:
            return []
        self._given_up = self.leading.number
        self.leading = None
        return [Demote(reason)]

    def _leave(self) -> list[CandidateEffect]:
        token = self.own_token
        return [Leave(self._lease, token)] if self._lease is not None and token else []

    def _paced(self, effects: list[CandidateEffect], now: Instant) -> list[CandidateEffect]:
        """Steps whose success shows in the view; until then, they are taken again now and then."""
        if not effects or now.mono_s < self._asked_until_s:
            return []
        self._asked_until_s = now.mono_s + RETRY_S
        return effects
