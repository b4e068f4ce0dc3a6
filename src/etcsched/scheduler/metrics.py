"""What a scheduler tells Prometheus: of the cluster as its view shows it, and of its own leading.

What is counted once for the whole cluster (lateness, ends) only the leader counts, so that the sum
over all schedulers is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Counter

from etcsched.core.clock import Instant
from etcsched.core.leader import effects as fx
from etcsched.core.records import Change, Kind, Report, Run, Term
from etcsched.core.running import is_running
from etcsched.core.seats import Seating
from etcsched.core.states import FINAL, Origin, RunState
from etcsched.core.times import ms_of
from etcsched.core.view import View
from etcsched.etcd.writer import Committed, WriteResult
from etcsched.ports import MemberStatus
from etcsched.serving.metrics import Histogram, NodeMetrics

__all__ = ["SchedulerMetrics"]

_LATENESS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class SchedulerMetrics(NodeMetrics):
    def __init__(
        self,
        node: str,
        view: View,
        leading: Callable[[], Term | None],
        clock: Callable[[], Instant],
    ) -> None:
        super().__init__("scheduler", node, mono_s=lambda: clock().mono_s)
        self._view = view
        self._leading = leading
        self._clock = clock
        self._ending: dict[int, tuple[Run, ...]] = {}
        self._lateness_s = Histogram(
            "etcsched_lateness_seconds",
            "From a tick's time (and its splay) to its agent's claim, the first attempt's.",
            _LATENESS_S,
            self.registry,
        )
        self._ended = Counter(
            "etcsched_runs_ended",
            "Runs that are over, and ticks that ended as a record of why not.",
            ["state"],
            registry=self.registry,
        )
        # Shown from the first, so that rates are right.
        self._ended_in = {state: self._ended.labels(state.value) for state in FINAL}
        self._leaderships = Counter(
            "etcsched_leaderships",
            "How often this scheduler came to lead.",
            registry=self.registry,
        )
        self.defects = Counter(
            "etcsched_defects",
            "Decisions that raised; each is left for a minute and tried again.",
            registry=self.registry,
        )
        self._members: tuple[MemberStatus, ...] = ()
        self.add_gauges(
            {
                "etcsched_leader": (
                    "1: this scheduler leads.",
                    "",
                    lambda: float(self._leading() is not None),
                ),
                "etcsched_term": (
                    "The term that this scheduler sees; a new one is a change of leader.",
                    "",
                    lambda: view.term.record.number if view.term is not None else 0,
                ),
                "etcsched_candidates": (
                    "Schedulers that lead or stand by.",
                    "",
                    lambda: len(view.candidates),
                ),
                "etcsched_undecided_seconds": (
                    "Through which time all ticks are decided: how long ago that is.",
                    "",
                    self._undecided_s,
                ),
                "etcsched_jobs": ("Jobs that are defined.", "", lambda: len(view.jobs)),
                "etcsched_runs": ("Runs that aren't over.", "state", self._runs),
                "etcsched_requests": (
                    "Requests that nobody has answered.",
                    "",
                    lambda: len(view.requests),
                ),
                "etcsched_outages": (
                    "Jobs that no agent can run now, or that are set aside.",
                    "",
                    lambda: sum(not entry.record.closed for entry in view.gaps.values()),
                ),
                "etcsched_agents": ("Agents that are here.", "", lambda: len(view.presences)),
                "etcsched_agents_draining": (
                    "Agents that are here and get nothing new.",
                    "",
                    lambda: sum(
                        entry.record.draining or name in view.drains
                        for name, entry in view.presences.items()
                    ),
                ),
                "etcsched_slots": (
                    "Of the agents that may get something new, together.",
                    "",
                    lambda: sum(view.presences[name].record.slots for name in self._takers()),
                ),
                "etcsched_slots_in_use": (
                    "What is assigned to those, together.",
                    "",
                    self._slots_in_use,
                ),
                "etcsched_etcd_up": (
                    "Whether this endpoint of etcd answered.",
                    "endpoint",
                    self._is_up,
                ),
                "etcsched_etcd_db_size_bytes": (
                    "Size of this member's database on disk; absent where it isn't told.",
                    "endpoint",
                    self._size_bytes,
                ),
                "etcsched_etcd_alarms": (
                    "Alarms that this member knows of; absent where they aren't told.",
                    "endpoint",
                    self._alarms,
                ),
            }
        )

    def _takers(self) -> set[str]:
        """Agents that are here and neither drained, nor stopping, nor standing by."""
        view, seating = self._view, Seating(self._view)
        return {
            name
            for name, entry in view.presences.items()
            if not (entry.record.draining or name in view.drains) and seating.has_slots(name)
        }

    def _slots_in_use(self) -> float:
        return sum(self._view.slots_taken(agent) for agent in self._takers())

    def _undecided_s(self) -> float | None:
        watermark = self._view.watermark
        if watermark is None:
            return None
        return (self._clock().wall_ms - ms_of(watermark.record.through)) / 1000

    def _runs(self) -> dict[str, float]:
        counts = self._view.run_counts()
        runs = self._view.runs
        running = sum(
            (run := runs.get((job, id_))) is not None
            and run.record.agent == agent
            and is_running(run.record, claim.record)
            for (agent, job, id_), claim in self._view.reports.items()
        )
        shown = {state.value: float(counts[state]) for state in RunState if state not in FINAL}
        shown[RunState.ASSIGNED.value] = max(counts[RunState.ASSIGNED] - running, 0)
        shown["running"] = running
        return shown

    # --- what the leader does

    def leads(self) -> None:
        self._leaderships.inc()

    def demoted(self) -> None:
        self._ending.clear()

    def seen(self, changes: Iterable[Change]) -> None:
        """Of the leader's watch, once they are in the view."""
        for change in changes:
            report = change.record
            is_claim = change.kind is Kind.REPORT and change.mod_revision == change.create_revision
            if not is_claim or not isinstance(report, Report) or report.attempt != 1:
                continue
            entry = self._view.runs.get((report.job, report.run))
            if entry is not None and entry.record.origin is Origin.SCHEDULE:
                late_ms = ms_of(report.claimed_at) - ms_of(entry.record.starts_at)
                self._lateness_s.observe(max(late_ms, 0) / 1000)

    def sending(self, write: fx.Write) -> None:
        ended = _ended_by(write)
        if ended:
            self._ending[write.seq] = ended

    def answered(self, results: Iterable[WriteResult]) -> None:
        if not self._ending:
            return
        for result in results:
            assert isinstance(result.id, int)
            runs = self._ending.pop(result.id, ())
            if isinstance(result, Committed):
                for run in runs:
                    # One record may stand for many ticks of a long outage.
                    self._ended_in[run.state].inc(max(run.missed_count, 1))

    def etcd_answered(self, members: Sequence[MemberStatus]) -> None:
        self._members = tuple(members)

    def _is_up(self) -> dict[str, float]:
        return {member.endpoint: float(not member.error) for member in self._members}

    def _size_bytes(self) -> dict[str, float]:
        """Of those that tell it to this user."""
        return {
            member.endpoint: member.db_size_bytes
            for member in self._members
            if not member.error and member.db_size_bytes is not None
        }

    def _alarms(self) -> dict[str, float]:
        return {
            member.endpoint: len(member.alarms)
            for member in self._members
            if not member.error and member.alarms is not None
        }


def _ended_by(write: fx.Write) -> tuple[Run, ...]:
    """Runs that go to the archive with this write."""
    match write:
        case fx.EndRun():
            return (write.run,)
        case fx.CreateRun() if write.run.state in FINAL:
            return (write.run,)
        case fx.RecoverTicks():
            return write.archived
        case fx.Resubmit() if write.was_active:
            return (write.original,)
        case _:
            return ()
