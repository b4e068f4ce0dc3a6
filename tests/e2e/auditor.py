"""Judges each revision of a cluster's keys by what was there before it (FAULTS, invariants).

It reads records, and shares no decision with the product: only what is written counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import TypeVar

from etcsched.core.records import (
    Assignment,
    ConflictGroup,
    Drain,
    Job,
    Kind,
    Pause,
    Presence,
    Record,
    Report,
    Run,
    Term,
    Watermark,
)
from etcsched.core.states import FINAL, JobState, Origin
from etcsched.keyspace.codec import decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, KeyValue, WatchEvent

R = TypeVar("R", bound=Record)


class Auditor:
    """``complaints`` grows; nobody but the tests empties it."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._born: set[tuple[str, str]] = set()
        self._ended: dict[tuple[str, str], Run] = {}
        self._before: Mapping[str, KeyValue] = {}
        self._revision = 0
        self.complaints: list[str] = []

    def judge(
        self, revision: int, events: list[WatchEvent], before: Mapping[str, KeyValue]
    ) -> None:
        self._before, self._revision = before, revision
        puts = {e.kv.key: e.kv for e in events if e.type is EventType.PUT}
        gone = {e.kv.key for e in events if e.type is EventType.DELETE}
        for event in events:
            if event.kv.key.startswith((self._keys.prefix + "state/", self._keys.archive_prefix)):
                self._leader_write(event)
        for key, kv in puts.items():
            if key.startswith(self._keys.archive_prefix):
                self._archived(self._keys.parse_archive(key), decode(Run, kv.value))
                continue
            place = self._keys.parse(key)
            if place is None:
                self._expect("keys", False, f"{key}: a key of no kind")
                continue
            match place:
                case (Kind.RUN, (job, run)) if kv.version == 1:
                    self._created((job, run))
                case (Kind.ASSIGNMENT, ids):
                    self._assigned(ids, decode(Assignment, kv.value))
                    self._slots(ids[0], puts.keys(), gone)
                    self._apart(ids, (self._before.keys() | puts.keys()) - gone)
                case (Kind.REPORT, ids):
                    self._reported(ids, decode(Report, kv.value), kv.version == 1)
                case (Kind.WATERMARK, _):
                    self._watermark(decode(Watermark, kv.value))
                case _:
                    pass

    # --- I6: one leader a term, each of its writes while its key lives

    def _leader_write(self, event: WatchEvent) -> None:
        key = event.kv.key
        if key == self._keys.term:
            if event.type is EventType.PUT:
                self._took_term(decode(Term, event.kv.value))
            else:
                self._expect("I6", False, "the term was deleted")
            return
        term = self._of(Term, Kind.TERM)
        alive = term is not None and self._candidate_token(term) == term.token
        who = f"of {term.leader}, term {term.number}," if term is not None else ""
        self._expect("I6", alive, f"{key}: written while the election key {who} was gone")
        author = self._author(event)
        if term is not None and author is not None:
            self._expect("I6", author == term.number, f"{key}: by term {author} in {term.number}")

    def _took_term(self, new: Term) -> None:
        old = self._of(Term, Kind.TERM)
        self._expect(
            "I6", self._candidate_token(new) == new.token, f"term {new}: no such candidate"
        )
        lowest = min(kv.create_revision for kv, _ in self._all(Kind.ELECTION))
        self._expect("I6", lowest == new.token, f"term {new}: another stood before it")
        if old is not None:
            grows = new.number == old.number + 1 and new.token >= old.token
            self._expect("I6", grows, f"term {new} after {old}")

    def _candidate_token(self, term: Term) -> int:
        kv = self._before.get(self._keys.of(Kind.ELECTION, term.election_key))
        return kv.create_revision if kv is not None else 0

    def _author(self, event: WatchEvent) -> int | None:
        """The term that a record names as its writer's."""
        if event.type is not EventType.PUT:
            return None
        key, value = event.kv.key, event.kv.value
        place = self._keys.parse(key)
        kind = place[0] if place is not None else None
        if kind is Kind.ASSIGNMENT:
            return decode(Assignment, value).term
        if kind is Kind.WATERMARK:
            return decode(Watermark, value).term
        if kind is Kind.RUN or key.startswith(self._keys.archive_prefix):
            run = decode(Run, value)
            before = event.prev or self._before.get(self._keys.of(Kind.RUN, run.job, run.id))
            known = len(decode(Run, before.value).history) if before is not None else 0
            return run.history[-1].term if len(run.history) > known else None
        return None

    # --- I1, I7: a run begins once and ends once

    def _created(self, run: tuple[str, str]) -> None:
        self._expect("I1", run not in self._born, f"{'/'.join(run)}: created twice")
        self._born.add(run)

    def _archived(self, place: tuple[str, str], run: Run) -> None:
        name, ended = "/".join(place), self._ended.get(place)
        if self._keys.archive(*place) in self._before:
            assert ended is not None
            same = (run.state, run.attempts) == (ended.state, ended.attempts)
            self._expect("I7", same, f"{name}: ended {ended.state.value}, then {run.state.value}")
        else:
            self._expect("I7", ended is None, f"{name}: ended twice")
            self._expect("I7", run.state in FINAL, f"{name}: archived as {run.state.value}")
            if self._keys.of(Kind.RUN, *place) not in self._before:
                self._created(place)
        self._ended[place] = run

    def _watermark(self, new: Watermark) -> None:
        old = self._of(Watermark, Kind.WATERMARK)
        if old is not None:
            self._expect("I1", new.through > old.through, f"watermark: {new} after {old}")

    # --- I4, I10: assignments

    def _assigned(self, ids: tuple[str, ...], assignment: Assignment) -> None:
        agent, job, run = ids
        name = f"{job}/{run} to {agent}"
        presence = self._of(Presence, Kind.PRESENCE, agent)
        is_here = presence is not None and presence.incarnation == assignment.incarnation
        self._expect("I10", is_here, f"{name}: assigned, but the agent isn't there")
        if presence is None:
            return
        is_drained = presence.draining or self._of(Drain, Kind.DRAIN, agent) is not None
        self._expect("I10", not is_drained, f"{name}: assigned, but the agent drains")
        for name_, value in self._requirements(job):
            self._expect("I10", presence.labels.get(name_) == value, f"{name}: lacks {name_}")
        self._no_attempt_before(assignment, name)

    def _slots(self, agent: str, put: Set[str], gone: Set[str]) -> None:
        presence = self._of(Presence, Kind.PRESENCE, agent)
        prefix = self._keys.all_of(Kind.ASSIGNMENT, agent)[0]
        used = sum(key.startswith(prefix) for key in (self._before.keys() | put) - gone)
        fits = presence is None or used <= presence.slots
        self._expect("I10", fits, f"{agent}: {used} assignments are more than its slots")

    def _apart(self, ids: tuple[str, ...], after: Set[str]) -> None:
        """No other job of one of its conflict groups is assigned, on any agent."""
        assigned = {
            place[1][1]
            for key in after
            if (place := self._keys.parse(key)) is not None and place[0] is Kind.ASSIGNMENT
        }
        for kv, (name,) in self._all(Kind.CONFLICT):
            jobs = decode(ConflictGroup, kv.value).jobs
            others = assigned.intersection(jobs) - {ids[1]} if ids[1] in jobs else ()
            self._expect("I10", not others, f"{'/'.join(ids[1:])}: beside {others} in {name}")

    def _requirements(self, job: str) -> list[tuple[str, str]]:
        record = self._of(Job, Kind.JOB, job)
        return list(record.require.items()) if record is not None else []

    def _no_attempt_before(self, assignment: Assignment, name: str) -> None:
        """The attempt before is over: reported so, never claimed, or its session is gone."""
        for kv, (agent, job, run) in self._all(Kind.ASSIGNMENT):
            if (job, run) != (assignment.job, assignment.run):
                continue
            before = decode(Assignment, kv.value)
            report = self._of(Report, Kind.REPORT, agent, job, run)
            presence = self._of(Presence, Kind.PRESENCE, agent)
            is_gone = presence is None or presence.incarnation != before.incarnation
            is_running = report is not None and report.outcome is None and not is_gone
            self._expect("I4", not is_running, f"{name}: while attempt {before.attempt} ran")

    # --- I14: claims, and what forbids them

    def _reported(self, ids: tuple[str, ...], report: Report, is_new: bool) -> None:
        agent, job, run = ids
        name = f"{job}/{run} on {agent}"
        assignment = self._before.get(self._keys.of(Kind.ASSIGNMENT, *ids))
        is_current = assignment is not None and assignment.mod_revision == report.token
        self._expect("I7", is_current, f"{name}: reported with the token {report.token} of none")
        if not is_new or report.outcome is not None:
            return
        self._expect("I14", not self._is_paused(job), f"{name}: started while paused")
        drained = self._of(Drain, Kind.DRAIN, agent) is not None
        self._expect("I14", not drained, f"{name}: started while its agent was drained")
        its_run = self._of(Run, Kind.RUN, job, run)
        state = definition.current.state if (definition := self._of(Job, Kind.JOB, job)) else None
        allowed = [JobState.ENABLED]
        if its_run is not None and its_run.origin in (Origin.REQUEST, Origin.RESUBMISSION):
            allowed.append(JobState.AD_HOC_ACTIVE)
        if its_run is not None and its_run.origin in (Origin.CHAIN, Origin.RESUBMISSION):
            allowed.append(JobState.CHAIN_ACTIVE)
        if its_run is not None and not its_run.forced:
            self._expect("I14", state in allowed, f"{name}: started while {state}")

    def _is_paused(self, job: str) -> bool:
        pauses = (
            self._of(Pause, Kind.PAUSE, job),
            decode(Pause, kv.value)
            if (kv := self._before.get(self._keys.pause_of_cluster())) is not None
            else None,
        )
        return any(pause is not None and pause.active for pause in pauses)

    # --- the keyspace before

    def _of(self, type_: type[R], kind: Kind, *ids: str) -> R | None:
        kv = self._before.get(self._keys.of(kind, *ids))
        return decode(type_, kv.value) if kv is not None else None

    def _all(self, kind: Kind) -> Iterator[tuple[KeyValue, tuple[str, ...]]]:
        for key, kv in self._before.items():
            place = self._keys.parse(key)
            if place is not None and place[0] is kind:
                yield kv, place[1]

    def _expect(self, invariant: str, holds: bool, complaint: str) -> None:
        if not holds:
            self.complaints.append(f"{invariant} at revision {self._revision}: {complaint}")
