"""A history by hand: an orderly cluster, and whatever a test lets go wrong in it."""

from __future__ import annotations

from typing import Any

from etcsched.audit.auditor import Auditor
from etcsched.audit.history import (
    Begun,
    Ended,
    Entry,
    Fault,
    FaultKind,
    Operation,
    OperationKind,
    OperationOutcome,
    Quiet,
    Revision,
    Truth,
    Word,
    WordKind,
)
from etcsched.audit.verdict import Verdict
from etcsched.core.records import (
    Assignment,
    Attempt,
    Candidate,
    ClusterSettings,
    Exec,
    Gap,
    Job,
    Kind,
    Live,
    Presence,
    Record,
    Report,
    Run,
    ScheduleVersion,
    Seat,
    StartSeen,
    Term,
    Transition,
    Watermark,
)
from etcsched.core.schedule import Cron
from etcsched.core.states import Origin, Outcome, RunState, Stage
from etcsched.core.times import Utc, ms_of, ms_of_tick_id, tick_id, utc_of
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import EventType, KeyValue, WatchEvent

KEYS = Keys()
ALL = tuple(Truth)
NOON = ms_of(Utc("2026-11-22T12:00:00.000Z"))
DONE = (RunState.ASSIGNED, RunState.COMPLETED)


def at(seconds: float) -> Utc:
    """So long after noon."""
    return utc_of(NOON + int(seconds * 1000))


def tick(seconds: float) -> str:
    return tick_id(NOON + int(seconds * 1000))


def a_job(name: str = "job", **fields: Any) -> Job:
    """Due every minute from noon on."""
    version = ScheduleVersion(since=at(0.5), patterns=(Cron("* * * * *"),))
    return Job(**{"name": name, "run": Exec(("/bin/true",)), "versions": (version,), **fields})


def a_run(run: str, *states: RunState, job: str = "job", term: int = 1, **fields: Any) -> Run:
    history = tuple(Transition(state=s, at=at(0), cause="", term=term) for s in states)
    scheduled = utc_of(ms_of_tick_id(run)) if run[8:9] == "T" and len(run) == 16 else None
    values = {
        "origin": Origin.SCHEDULE, "created_at": at(0), "scheduled_at": scheduled, **fields
    }  # fmt: skip
    return Run(job=job, id=run, state=states[-1], history=history, **values)


def a_live(agent: str, stage: Stage, **fields: Any) -> Live:
    values = {"incarnation": f"{agent}1", "since": at(0), "term": 1, **fields}
    return Live(agent=agent, stage=stage, **values)


def an_attempt(token: int, outcome: Outcome = Outcome.COMPLETED, number: int = 1) -> Attempt:
    return Attempt(number=number, agent="a", token=token, assigned_at=at(0), outcome=outcome)


class Story:
    """Time is seconds after noon (``now_s``); each commit is one revision."""

    def __init__(self, holds: tuple[Truth, ...] = ALL, **bounds: Any) -> None:
        self.entries: list[Entry] = []
        self.auditor = Auditor(**bounds)
        self.revision = 0
        self.now_s = 1.0
        self._now: dict[str, KeyValue] = {}
        self.tell(Begun(at_ms=self.now_ms, prefix=KEYS.prefix, holds=holds))

    def continued(self) -> Story:
        """A history that begins with the keyspace as it stands here."""
        rest = Story()
        rest.auditor, rest.entries = Auditor(), []
        rest.revision, rest.now_s, rest._now = self.revision, self.now_s, dict(self._now)
        begun = Begun(
            at_ms=self.now_ms, prefix=KEYS.prefix, revision=self.revision, holds=ALL,
            kvs=tuple(self._now.values()),
        )  # fmt: skip
        rest.tell(begun)
        return rest

    @property
    def now_ms(self) -> int:
        return NOON + int(self.now_s * 1000)

    def tell(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.auditor.take(entry)

    def put(self, *records: tuple[str, Record]) -> int:
        return self.commit(*((key, encode(record)) for key, record in records))

    def delete(self, *keys: str) -> int:
        return self.commit(*((key, None) for key in keys))

    def commit(self, *changes: tuple[str, bytes | None]) -> int:
        """... of keys, to values or (None) away; the revision."""
        self.revision += 1
        events = []
        for key, value in changes:
            old = self._now.get(key)
            kv = KeyValue(
                key=key,
                value=value or b"",
                create_revision=old.create_revision if old else self.revision,
                mod_revision=self.revision,
                version=old.version + 1 if old else 1,
                lease=0,
            )
            type_ = EventType.DELETE if value is None else EventType.PUT
            events.append(WatchEvent(type=type_, kv=kv, prev=old))
            if value is None:
                del self._now[key]
            else:
                self._now[key] = kv
        self.tell(Revision(revision=self.revision, at_ms=self.now_ms, events=tuple(events)))
        return self.revision

    # --- what happens in an orderly cluster

    def led(self, number: int = 1, node: str = "") -> int:
        node = node or f"s{number}"
        lease = f"{number:x}"
        candidate = Candidate(
            node=node, host="h", pid=1, since=at(0), clock=at(0), version="1"
        )  # fmt: skip
        token = self.put((KEYS.of(Kind.ELECTION, lease), candidate))
        term = Term(number=number, leader=node, election_key=lease, token=token, since=at(0))
        return self.put((KEYS.term, term))

    def staffed(self, agent: str = "a", **fields: Any) -> None:
        values = {
            "incarnation": f"{agent}1", "supervisor": "s", "slots": 4, "host": "h", "pid": 1,
            "since": at(0), "clock": at(0), "version": "1", "users": ("me",), "default_user": "me",
            **fields,
        }  # fmt: skip
        self.put((KEYS.of(Kind.PRESENCE, agent), Presence(agent=agent, **values)))

    def bounded(self, most: int | None, *seated: str) -> int:
        """So many agents receive runs, from now on; the revision of the last seat."""
        self.put((KEYS.of(Kind.SETTINGS), ClusterSettings(max_active_agents=most)))
        return [self.seated(agent) for agent in seated][-1] if seated else 0

    def seated(self, agent: str) -> int:
        return self.put((KEYS.of(Kind.SEAT, agent), Seat(agent=agent, since=at(0), term=1)))

    def defined(self, job: Job | None = None) -> int:
        job = job or a_job()
        return self.put((KEYS.of(Kind.JOB, job.name), job))

    def through(self, seconds: float, term: int = 1) -> int:
        """The watermark."""
        return self.put((KEYS.watermark, Watermark(through=at(seconds), term=term)))

    def created(self, run: str, *, agent: str = "a", attempt: int = 1, **fields: Any) -> int:
        """Assigned at once; the token."""
        job, term = fields.get("job", "job"), fields.get("term", 1)
        of_assignment = ("seen", "assigned_at", "on_disconnect")
        more = {name: fields.pop(name) for name in of_assignment if name in fields}
        record = a_run(run, RunState.ASSIGNED, agent=agent, attempt=attempt, **fields)
        return self.put(
            (KEYS.of(Kind.RUN, job, run), record),
            (
                KEYS.of(Kind.ASSIGNMENT, agent, job, run),
                an_assignment(agent, run, attempt, job=job, term=term, **more),
            ),
        )

    def claimed(
        self, run: str, token: int, *, agent: str = "a", job: str = "job", **of: Any
    ) -> int:
        report = Report(
            job=job, run=run, attempt=1, token=token, incarnation=f"{agent}1", supervisor="s",
            claimed_at=at(self.now_s), **of,
        )  # fmt: skip
        return self.put((KEYS.of(Kind.REPORT, agent, "job", run), report))

    def ran(self, run: str, token: int, *, seconds: float = 1.0, ends: bool = True) -> None:
        """By its own words; time passes."""
        self.word(WordKind.START, run, token)
        self.now_s += seconds
        self.word(WordKind.END if ends else WordKind.BEAT, run, token)

    def word(self, kind: WordKind, run: str, token: int, **more: Any) -> None:
        self.tell(Word(kind=kind, job="job", run=run, token=token, at_ms=self.now_ms, **more))

    def ended(self, run: str, token: int, state: RunState = RunState.COMPLETED) -> int:
        """To the archive, and all that belongs to it away."""
        gone = [KEYS.of(Kind.ASSIGNMENT, "a", "job", run), KEYS.of(Kind.REPORT, "a", "job", run)]
        outcome = Outcome(state.value)
        record = a_run(run, RunState.ASSIGNED, state, attempts=(an_attempt(token, outcome),))
        return self.commit(
            (KEYS.archive("job", run), encode(record)),
            (KEYS.of(Kind.RUN, "job", run), None),
            *((key, None) for key in gone if key in self._now),
        )

    def done(self, seconds: float) -> int:
        """The whole way of the run of this tick; its token."""
        self.now_s = seconds + 0.01
        run = tick(seconds)
        token = self.created(run)
        self.claimed(run, token)
        self.ran(run, token)
        self.claimed(run, token, outcome=Outcome.COMPLETED)
        self.ended(run, token)
        self.through(seconds + 1)
        return token

    def opened(self) -> Story:
        """A leader, an agent, a job that is due every minute."""
        self.led()
        self.staffed()
        self.through(0.5)
        self.defined()
        self.put((KEYS.of(Kind.LIVE, "a"), a_live("a", Stage.HERE)))
        return self

    def gap(self, decided: float, *, closed: bool = False, job: str = "job") -> tuple[str, Gap]:
        gap = Gap(
            job=job, since=at(60), decided_through=at(decided), reason="nobody", closed=closed
        )
        return KEYS.of(Kind.GAP, job), gap

    # --- what else is told

    def fault(self, kind: FaultKind, begin: float, end: float | None, **more: Any) -> None:
        values = {"id": f"{kind.value}{begin}", "target": "a", "proof": "seen", **more}
        until_ms = None if end is None else NOON + int(end * 1000)
        self.tell(Fault(kind=kind, from_ms=NOON + int(begin * 1000), until_ms=until_ms, **values))

    def operation(
        self, kind: OperationKind, target: str, outcome: OperationOutcome, **more: Any
    ) -> None:
        values = {"sent_ms": self.now_ms - 100, "done_ms": self.now_ms, **more}
        self.tell(Operation(kind=kind, target=target, outcome=outcome, **values))

    def quiet(self, **more: Any) -> None:
        self.tell(Quiet(at_ms=self.now_ms, revision=self.revision, **more))

    # --- the verdict

    def verdict(self) -> Verdict:
        self.tell(Ended(at_ms=self.now_ms, revision=self.revision))
        return self.auditor.finish()


def an_assignment(agent: str, run: str, attempt: int = 1, **fields: Any) -> Assignment:
    values = {"job": "job", "term": 1, "seen": StartSeen(job=1), "assigned_at": at(0), **fields}
    return Assignment(
        run=run, agent=agent, incarnation=f"{agent}1", attempt=attempt, action=Exec(("/bin/true",)),
        **values,
    )  # fmt: skip
