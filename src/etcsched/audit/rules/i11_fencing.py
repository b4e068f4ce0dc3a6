"""I11: every self-fence beat its lease's expiry; the least slack is reported."""

from __future__ import annotations

from etcsched.audit.history import FaultKind, Fence, Truth
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import Step, Write
from etcsched.audit.truth import AttemptId, Execution
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Assignment, Kind, Presence
from etcsched.core.states import OnDisconnect

_LONGEST_TTL_MS = 60_000
_EXCUSES = frozenset({FaultKind.ETCD, FaultKind.HOST_FROZEN, FaultKind.BY_HAND})
"""An etcd that changes its leader can end a lease early; a frozen host can't end anything; and a
presence that a hand deleted says nothing of its lease."""


class Fencing(Rule):
    """What an agent tells of its fences, and what processes say after their agent's presence is
    gone. A presence that comes back with the same session had been deleted by hand."""

    invariant = Invariant.I11
    places = frozenset({Kind.ASSIGNMENT, Kind.PRESENCE})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._fences: list[Fence] = []
        self._session_of: dict[AttemptId, str] = {}
        self._gone_ms: dict[str, int] = {}
        """When each session's presence was gone, as it was seen."""
        self._lets_run_on: set[AttemptId] = set()
        self.least_slack_ms: int | None = None

    def begun(self) -> None:
        for held in self.state.all_of(Kind.ASSIGNMENT).values():
            if isinstance(held.record, Assignment):
                its = (held.record.job, held.record.run, held.mod_revision)
                self._session_of[its] = held.record.incarnation

    def wrote(self, write: Write, step: Step) -> None:
        after = write.new
        before = write.old
        if isinstance(after, Assignment):
            self._session_of[after.job, after.run, step.revision] = after.incarnation
            goes_on = after.on_disconnect is OnDisconnect.CONTINUE
            if after.disconnect_grace_s or goes_on:
                self._lets_run_on.add((after.job, after.run, step.revision))
        elif isinstance(after, Presence):
            self._gone_ms.pop(after.incarnation, None)
        elif isinstance(before, Presence) and write.place is Kind.PRESENCE:
            self._gone_ms[before.incarnation] = step.at_ms or self.court.began_ms

    def fenced(self, fence: Fence) -> None:
        self._fences.append(fence)

    def finish(self) -> None:
        told = set()
        for fence in self._fences:
            attempt = (fence.job, fence.run, fence.token)
            if attempt in self._lets_run_on:
                continue  # It may outlive its session, and be ended later by a stop.
            told.add(attempt)
            self._judge(fence)
        for execution in self.court.executions.by_attempt.values():
            gone_ms = self._gone_ms.get(self._session_of.get(execution.attempt, ""))
            if (
                gone_ms is None
                or execution.attempt in told
                or execution.attempt in self._lets_run_on
            ):
                continue
            if execution.start_ms <= gone_ms:
                self._judge_silence(execution, gone_ms)

    def _judge(self, fence: Fence) -> None:
        expires_ms = fence.lease_expires_ms or self._gone_ms.get(fence.incarnation)
        if expires_ms is None:
            return
        slack_ms = expires_ms - fence.at_ms
        text = (
            f"{fence.job}/{fence.run} on {fence.agent}: its processes were gone {-slack_ms} ms "
            "after its lease had expired"
        )
        if slack_ms > 0 or not self._is_excused(expires_ms, fence.at_ms):
            self._slack(slack_ms)
            self.expect(slack_ms > 0, text, at_ms=fence.at_ms)

    def _judge_silence(self, execution: Execution, gone_ms: int) -> None:
        if execution.last_ms <= gone_ms:
            self.court.checked[self.invariant] += 1
            if execution.end_ms is None:
                self._slack(gone_ms - execution.last_ms)
        elif not self._is_excused(gone_ms, execution.last_ms):
            self._slack(gone_ms - execution.last_ms)
            text = (
                f"{execution.job}/{execution.run}, token {execution.token}: it lived for "
                f"{execution.last_ms - gone_ms} ms after its agent's session was gone"
            )
            self.expect(False, text, at_ms=execution.last_ms)

    def _slack(self, slack_ms: int) -> None:
        if self.least_slack_ms is None or slack_ms < self.least_slack_ms:
            self.least_slack_ms = slack_ms

    def _is_excused(self, gone_ms: int, last_ms: int) -> bool:
        faults = self.court.faults
        return bool(faults.overlapping(gone_ms - _LONGEST_TTL_MS, last_ms, _EXCUSES))

    def not_judged(self) -> list[str]:
        holds = self.court.holds
        if Truth.FENCES not in holds and Truth.WORDS not in holds:
            return ["neither fences nor any job's own word are recorded"]
        if Truth.FENCES not in holds:
            return ["fences aren't recorded; what processes said after a session's end is judged"]
        return []
