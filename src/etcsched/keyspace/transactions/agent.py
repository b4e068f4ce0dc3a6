"""An agent's writes as nested transactions below its guard: claims, outcomes, adoptions."""

from __future__ import annotations

from typing import assert_never

from etcsched.core.agent.effects import Adopt, Claim, ReportOutcome
from etcsched.core.records import Kind
from etcsched.keyspace.codec import encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Compare, Put, Range, Target, Txn


class AgentTransactions:
    """An agent's writes as nested transactions below its ``AgentGuard``."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def build(self, write: Claim | Adopt | ReportOutcome) -> Txn:
        match write:
            case Claim():
                return self._claim(write)
            case Adopt():
                return self._adopt(write)
            case ReportOutcome():
                return self._outcome(write)
            case _:
                assert_never(write)

    def _claim(self, write: Claim) -> Txn:
        keys, assignment = self._keys, write.assignment
        place = (assignment.agent, assignment.job, assignment.run)
        seen = assignment.seen
        report = keys.of(Kind.REPORT, *place)
        return Txn(
            (
                Compare(keys.of(Kind.ASSIGNMENT, *place), Target.MOD, write.token),
                Compare(report, Target.MOD, 0),
                Compare(keys.of(Kind.JOB, assignment.job), Target.MOD, seen.job),
                Compare(keys.of(Kind.PAUSE, assignment.job), Target.MOD, seen.pause),
                Compare(keys.pause_of_cluster(), Target.MOD, seen.cluster_pause),
                Compare(keys.of(Kind.DRAIN, assignment.agent), Target.MOD, seen.drain),
                Compare(keys.of(Kind.SEAT, assignment.agent), Target.MOD, seen.seat),
            ),
            (Put(report, encode(write.report)),),
            # Whose report is there? A claim of this very token and session is mine: the answer
            # to an earlier, identical sending was lost.
            (Range(report),),
        )

    def _adopt(self, write: Adopt) -> Txn:
        """T6. The guard compares the new presence."""
        keys, place = self._keys, (write.agent, write.report.job, write.report.run)
        report = keys.of(Kind.REPORT, *place)
        return Txn(
            (
                Compare(keys.of(Kind.ASSIGNMENT, *place), Target.MOD, write.token),
                Compare(report, Target.MOD, write.report_revision),
            ),
            (Put(report, encode(write.report)),),
            (Range(report),),
        )

    def _outcome(self, write: ReportOutcome) -> Txn:
        keys, report = self._keys, write.report
        place = (write.agent, report.job, report.run)
        value = encode(report)
        return Txn(
            (Compare(keys.of(Kind.ASSIGNMENT, *place), Target.MOD, write.token),),
            (Put(keys.of(Kind.REPORT, *place), value),),
            (Put(keys.of(Kind.LATE_REPORT, *place, str(write.token)), value),),
        )
