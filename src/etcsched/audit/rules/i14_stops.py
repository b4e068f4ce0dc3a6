"""I14: no start after the acknowledged disable, pause or drain that forbids it."""

from __future__ import annotations

from etcsched.audit.eligibility import states_to_start
from etcsched.audit.history import Truth
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import Step, Write
from etcsched.audit.truth import AttemptId
from etcsched.audit.verdict import Invariant
from etcsched.core.records import CLUSTER, Assignment, Drain, Job, Kind, Pause, Report, Run
from etcsched.core.times import ms_of


class Stops(Rule):
    """A claim is the decision to start, so it must not be committed after a stop was; and no
    process starts without its claim."""

    invariant = Invariant.I14
    places = frozenset({Kind.REPORT})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._claimed: set[AttemptId] = set()

    def begun(self) -> None:
        for held in self.state.all_of(Kind.REPORT).values():
            if isinstance(held.record, Report):
                self._claimed.add(_attempt_of(held.record))

    def wrote(self, write: Write, step: Step) -> None:
        report = write.new
        if not isinstance(report, Report):
            return
        self._claimed.add(_attempt_of(report))
        if write.is_new and report.outcome is None:
            self._judge_claim(write, step)

    def _judge_claim(self, write: Write, step: Step) -> None:
        agent, job, run_id = write.ids
        name = f"{job}/{run_id} on {agent}"
        for paused in (job, CLUSTER):
            pause = self.state.record(Pause, Kind.PAUSE, paused)
            what = "the cluster" if paused == CLUSTER else "its job"
            text = f"{name}: claimed while {what} was paused"
            self.expect(pause is None or not pause.active, text, step)
        is_drained = self.state.record(Drain, Kind.DRAIN, agent) is not None
        self.expect(not is_drained, f"{name}: claimed while its agent was drained", step)
        run = self.state.record(Run, Kind.RUN, job, run_id)
        definition = self.state.record(Job, Kind.JOB, job)
        if run is None or run.forced:
            return
        state = None
        assignment = self.state.record(Assignment, Kind.ASSIGNMENT, *write.ids)
        if definition is not None and assignment is not None:
            # A window of it opens or closes by the clock of the leader, who assigned it.
            state = definition.current.at(ms_of(assignment.assigned_at)).state
        word = state.value if state is not None else "gone"
        self.expect(
            state in states_to_start(run), f"{name}: claimed while its job was {word}", step
        )

    def finish(self) -> None:
        for execution in self.court.executions.by_attempt.values():
            if execution.token > self.court.began_at_revision:
                text = f"{execution.job}/{execution.run}: started without a committed claim"
                is_claimed = execution.attempt in self._claimed
                self.expect(is_claimed, text, at_ms=execution.start_ms)

    def not_judged(self) -> list[str]:
        if Truth.WORDS not in self.court.holds:
            return ["claims are judged; no job's own word on its start is recorded"]
        return []


def _attempt_of(report: Report) -> AttemptId:
    return report.job, report.run, report.token
