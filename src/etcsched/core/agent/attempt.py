"""One attempt as its agent knows it, and the report on it."""

from __future__ import annotations

import enum
import math

import msgspec

from etcsched.core.agent.events import EndCause, ProcessEnded
from etcsched.core.records import Assignment, Report
from etcsched.core.results import parse_results
from etcsched.core.states import Outcome
from etcsched.core.times import Utc, utc_of


def attempt_id_of(job: str, run: str, number: int, token: int) -> str:
    return f"{job}/{run}/{number}/{token}"


def parse_attempt_id(attempt_id: str) -> tuple[str, str, int, int]:
    """(job, run, number, token)."""
    job, run, number, token = attempt_id.split("/")
    return job, run, int(number), int(token)


def report_id(report: Report) -> str:
    return attempt_id_of(report.job, report.run, report.attempt, report.token)


class Phase(enum.Enum):
    WAITING = "waiting"
    """Assigned; the claim isn't sent."""
    CLAIMING = "claiming"
    """The claim is sent, and may or may not be committed."""
    STARTING = "starting"
    RUNNING = "running"
    REPORTING = "reporting"
    """Over, and etcd's answer to the outcome is outstanding."""
    DONE = "done"
    """Nothing more to do; kept while its assignment is still in etcd."""


OCCUPYING = frozenset({Phase.CLAIMING, Phase.STARTING, Phase.RUNNING})
WITH_PROCESS = frozenset({Phase.STARTING, Phase.RUNNING})
CLAIMED = frozenset({Phase.CLAIMING, Phase.STARTING, Phase.RUNNING, Phase.REPORTING})


class Spool(enum.Enum):
    NONE = "none"
    WRITING = "writing"
    STORED = "stored"


class Attempt:
    """Changed by the machine only.

    ``assignment`` is None for one that was found in the supervisor or the spool. ``listed``: the
    assignment is in etcd, as far as known.
    ``claim`` is the report sent with T2, or read from etcd.
    ``report_after_s``: when a report that etcd takes in no form is sent again.
    ``held``: the supervisor keeps the outcome until it is acknowledged.

    ``session`` is the incarnation that the claim names in etcd ("": not known yet), and whose
    renewals move ``deadline_mono_s``. ``grace_s`` is the job's ``disconnect_grace``.
    """

    __slots__ = (
        "assignment",
        "cancelled",
        "claim",
        "claim_after_s",
        "deadline_mono_s",
        "grace_s",
        "held",
        "id",
        "job",
        "listed",
        "number",
        "phase",
        "report",
        "report_after_s",
        "run",
        "sent",
        "session",
        "spool",
        "spool_after_s",
        "stopped_because",
        "token",
    )

    def __init__(self, attempt_id: str, phase: Phase, assignment: Assignment | None = None) -> None:
        self.id = attempt_id
        self.job, self.run, self.number, self.token = parse_attempt_id(attempt_id)
        self.phase = phase
        self.assignment = assignment
        self.listed = False
        self.claim: Report | None = None
        self.claim_after_s = 0.0
        self.report: Report | None = None
        self.report_after_s = 0.0
        self.cancelled = False
        self.stopped_because = ""
        self.held = False
        self.sent = False
        self.spool = Spool.NONE
        self.spool_after_s = 0.0
        self.session = ""
        self.deadline_mono_s = 0.0
        self.grace_s = 0.0

    def __repr__(self) -> str:
        return f"<{self.id} {self.phase.value}>"

    @property
    def runs_on(self) -> bool:
        """``on_disconnect: continue``: the end of no session ends it."""
        return self.deadline_mono_s == math.inf

    @property
    def outlives_session(self) -> bool:
        return self.runs_on or self.grace_s > 0

    def claim_or(self, incarnation: str, supervisor: str, since: Utc) -> Report:
        """The claim as far as known: that of an attempt of an earlier process is in etcd only."""
        if self.claim is not None:
            return self.claim
        return Report(
            job=self.job,
            run=self.run,
            attempt=self.number,
            token=self.token,
            incarnation=incarnation,
            supervisor=supervisor,
            claimed_at=since,
        )


_OF_CAUSE = {
    EndCause.SIGNALED: Outcome.FAILED,
    EndCause.CANCELLED: Outcome.CANCELLED,
    EndCause.TIMED_OUT: Outcome.TIMED_OUT,
    EndCause.FENCED: Outcome.DIED,
    EndCause.VANISHED: Outcome.DIED,
}

_REASON_OF_CAUSE = {
    EndCause.CANCELLED: "cancelled",
    EndCause.TIMED_OUT: "ran longer than its timeout",
    EndCause.FENCED: "stopped, since the agent's session was lost",
    EndCause.VANISHED: "its supervisor was gone, so it was ended",
}


def without_process(claim: Report, outcome: Outcome, reason: str, at: Utc) -> Report:
    """The final report of an attempt that has, or is known to have, no process."""
    return msgspec.structs.replace(claim, outcome=outcome, reason=reason, ended_at=at)


def of_process(claim: Report, ended: ProcessEnded, stopped_because: str) -> Report:
    """``stopped_because`` is the agent's own reason where it had the process stopped."""
    outcome = _OF_CAUSE.get(ended.cause)
    if outcome is None:
        outcome = Outcome.COMPLETED if ended.exit_code == 0 else Outcome.FAILED
    reason = _REASON_OF_CAUSE.get(ended.cause, "")
    if ended.cause is EndCause.SIGNALED:
        reason = f"ended by signal {ended.signal}"
    elif ended.cause is EndCause.FENCED and stopped_because:
        reason = stopped_because
    elif outcome is Outcome.FAILED:
        reason = f"exit code {ended.exit_code}"
    results, problem = parse_results(ended.results, is_cut=ended.results_cut)
    return msgspec.structs.replace(
        claim,
        outcome=outcome,
        reason=reason,
        started_at=utc_of(ended.started_ms),
        ended_at=utc_of(ended.ended_ms),
        exit_code=ended.exit_code,
        signal=ended.signal,
        cpu_s=ended.cpu_s,
        peak_memory_bytes=ended.peak_memory_bytes,
        output_bytes=ended.output_bytes,
        tail=ended.tail,
        results=results,
        results_problem=problem,
    )
