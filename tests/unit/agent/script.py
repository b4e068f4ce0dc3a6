"""A machine with its world in a few words: tests say what happens and read what is wanted."""

from __future__ import annotations

from typing import Any, TypeVar

from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.agent.attempt import report_id
from etcsched.core.agent.machine import AgentMachine
from etcsched.core.agent.standing import Settings
from etcsched.core.clock import Instant
from etcsched.core.records import (
    Action,
    Assignment,
    Change,
    Drain,
    Kind,
    Live,
    Order,
    Presence,
    Report,
    Shell,
    StartSeen,
)
from etcsched.core.states import Stage
from etcsched.core.times import utc_of

START_MS = 1_800_000_000_000
LEASE, JOINED, TTL_S = 77, 50, 10
F = TypeVar("F")


def attempt_id(run: str = "r1", token: int = 100, number: int = 1) -> str:
    return f"job/{run}/{number}/{token}"


def report(run: str = "r1", token: int = 100, **changes: Any) -> Report:
    fields: dict[str, Any] = {
        "job": "job",
        "run": run,
        "attempt": 1,
        "token": token,
        "incarnation": "i1",
        "supervisor": "s1",
        "claimed_at": utc_of(START_MS),
        **changes,
    }
    return Report(**fields)


def ended(run: str = "r1", token: int = 100, **changes: Any) -> ev.ProcessEnded:
    fields: dict[str, Any] = {
        "attempt_id": attempt_id(run, token),
        "cause": ev.EndCause.EXITED,
        "started_ms": START_MS,
        "ended_ms": START_MS + 1000,
        "exit_code": 0,
        **changes,
    }
    return ev.ProcessEnded(**fields)


class Script:
    """``effects`` are those of the last event."""

    def __init__(self, **settings: Any) -> None:
        fields: dict[str, Any] = {
            "agent": "a1",
            "slots": 2,
            "host": "h1",
            "pid": 11,
            "version": "1",
            "own_user": "me",
            "users": ("me", "*"),
            "default_user": "me",
            "output_dir": "/out",
            **settings,
        }
        self.machine = AgentMachine(Settings(**fields))
        self.mono_s = 1000.0
        self.effects: list[fx.Effect] = []

    def now(self) -> Instant:
        return Instant(START_MS + int((self.mono_s - 1000.0) * 1000), self.mono_s)

    def tell(self, *events: ev.Event) -> list[fx.Effect]:
        self.effects = []
        for event in events:
            self.effects += self.machine.handle(event, self.now())
        return self.effects

    def passes(self, seconds: float) -> list[fx.Effect]:
        self.mono_s += seconds
        return self.tell(ev.TimePassed())

    def of(self, kind: type[F]) -> list[F]:
        """Those of the last event that are of this kind."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def one(self, kind: type[F]) -> F:
        (effect,) = self.of(kind)
        return effect

    # --- what happens

    def ready(self, *, resumed: bool = False, reports: tuple[Report, ...] = ()) -> Script:
        """With supervisor s1, in session i1 for 8 s, joined."""
        self.tell(ev.SupervisorReady(incarnation="s1"))
        return self.session(resumed=resumed, reports=reports)

    def session(
        self, incarnation: str = "i1", *, resumed: bool = False, reports: tuple[Report, ...] = ()
    ) -> Script:
        self.tell(
            ev.SessionOpened(
                incarnation=incarnation,
                lease=LEASE,
                ttl_s=TTL_S,
                deadline_mono_s=self.mono_s + 8.0,
                resumed=resumed,
            ),
            ev.PresenceJoined(JOINED),
            ev.ReportsRead(JOINED, tuple((report, 500) for report in reports)),
        )
        return self

    def assigned(
        self, run: str = "r1", token: int = 100, action: Action | None = None, **changes: Any
    ) -> ev.Changed:
        return ev.Changed(
            Change(
                kind=Kind.ASSIGNMENT,
                ids=("a1", "job", run),
                record=assignment(run, action, **changes),
                mod_revision=token,
            )
        )

    def assign(
        self, run: str = "r1", token: int = 100, action: Action | None = None, **changes: Any
    ) -> list[fx.Effect]:
        return self.tell(self.assigned(run, token, action, **changes))

    def unassign(self, run: str = "r1", revision: int = 900) -> list[fx.Effect]:
        return self.tell(gone(Kind.ASSIGNMENT, "a1", "job", run, revision=revision))

    def commit_claim(self, run: str = "r1", token: int = 100) -> list[fx.Effect]:
        return self.tell(ev.ClaimCommitted(attempt_id(run, token)))

    def run(self, run: str = "r1", token: int = 100, **changes: Any) -> None:
        """Assigned, claimed and started."""
        self.assign(run, token, **changes)
        self.one(fx.Claim)
        self.commit_claim(run, token)
        self.one(fx.StartProcess)
        self.tell(ev.ProcessStarted(attempt_id=attempt_id(run, token), started_ms=START_MS))

    def outcome(self) -> Report:
        """Of the one report that the last event sent."""
        return self.one(fx.ReportOutcome).report


def assignment(run: str = "r1", action: Action | None = None, **changes: Any) -> Assignment:
    fields: dict[str, Any] = {
        "job": "job",
        "run": run,
        "agent": "a1",
        "incarnation": "i1",
        "attempt": 1,
        "action": action or Shell("true"),
        "seen": StartSeen(job=3),
        "assigned_at": utc_of(START_MS),
        "term": 1,
        **changes,
    }
    return Assignment(**fields)


def order(run: str = "r1", token: int = 100) -> ev.Changed:
    record = Order(job="job", run=run, token=token, at=utc_of(START_MS))
    return ev.Changed(
        Change(kind=Kind.ORDER, ids=("a1", "job", run), record=record, mod_revision=token + 1)
    )


def drain() -> ev.Changed:
    record = Drain(agent="a1", since=utc_of(START_MS))
    return ev.Changed(Change(kind=Kind.DRAIN, ids=("a1",), record=record, mod_revision=60))


def live(stage: Stage, incarnation: str = "i1") -> ev.Changed:
    """What the leader says of its going."""
    record = Live(agent="a1", incarnation=incarnation, stage=stage, since=utc_of(START_MS), term=1)
    return ev.Changed(Change(kind=Kind.LIVE, ids=("a1",), record=record, mod_revision=70))


def gone(kind: Kind, *ids: str, revision: int = 900) -> ev.Changed:
    return ev.Changed(Change(kind=kind, ids=ids, record=None, mod_revision=revision))


def presence_of(
    incarnation: str, *, host: str = "h1", pid: int = 99, supervisor: str = "s"
) -> Presence:
    return Presence(
        agent="a1",
        incarnation=incarnation,
        supervisor=supervisor,
        slots=1,
        host=host,
        pid=pid,
        since=utc_of(START_MS),
        clock=utc_of(START_MS),
        version="1",
    )


def ids(reports: list[fx.ReportOutcome]) -> list[str]:
    return [report_id(effect.report) for effect in reports]
