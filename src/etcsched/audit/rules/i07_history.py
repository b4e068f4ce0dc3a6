"""I7: what is over is forgotten only where its job's ``keep`` doesn't name it."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict

import msgspec

from etcsched.audit.history import FaultKind
from etcsched.audit.rules.base import Court, Rule
from etcsched.audit.state import ARCHIVE, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import ClusterSettings, Job, Keep, Kind
from etcsched.core.times import ms_of_tick_id

IN_FLIGHT_MS = 60_000
"""So much later a decision by an earlier ``keep`` may still be carried out."""
CLOCKS_MS = 10_000
"""How far the leader's clock may be from the recorder's."""
MOST_OF_A_RUN_BYTES = 8 << 10
NO_JOB = Keep(runs=1 << 62)
"""What a deleted job has left goes by its age."""
SECONDS = len("20261122T120000")
"""Every run's id begins with a time."""


class _Forgotten(msgspec.Struct, frozen=True):
    name: str
    text: str
    at_ms: int


class Histories(Rule):
    """Where the archive may be larger than the settings allow, nothing is judged: how much of each
    job goes then is the leader's choice."""

    invariant = Invariant.I7
    places = frozenset({ARCHIVE, Kind.JOB})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._runs_of: defaultdict[str, list[str]] = defaultdict(list)
        self._earlier: defaultdict[str, list[tuple[int, Keep]]] = defaultdict(list)
        """By job, until when each of its ``keep`` held."""
        self._suspects: list[_Forgotten] = []
        self._was_too_much = False

    def begun(self) -> None:
        for job, run in sorted(self.state.all_of(ARCHIVE)):
            self._runs_of[job].append(run)
        self._look_at_size()

    def wrote(self, write: Write, step: Step) -> None:
        if write.place is Kind.JOB:
            before = write.old
            keep = before.keep if isinstance(before, Job) else NO_JOB
            self._earlier[write.ids[0]].append((step.at_ms, keep))
        elif write.is_new:
            insort(self._runs_of[write.ids[0]], write.ids[1])
        elif write.after is None:
            job, run = write.ids
            self._forgotten(job, run, step)
            self._runs_of[job].remove(run)

    def committed(self, step: Step) -> None:
        self._look_at_size()

    def _look_at_size(self) -> None:
        settings = self.state.record(ClusterSettings, Kind.SETTINGS) or ClusterSettings()
        at_most_bytes = len(self.state.all_of(ARCHIVE)) * MOST_OF_A_RUN_BYTES
        self._was_too_much = self._was_too_much or at_most_bytes > settings.max_history_bytes

    def _forgotten(self, job: str, run: str, step: Step) -> None:
        runs = self._runs_of[job]
        newer = len(runs) - bisect_right(runs, run)
        try:
            age_ms = step.at_ms - ms_of_tick_id(f"{run[:SECONDS]}Z")
        except ValueError:
            return  # A hand named it.
        now = self.state.record(Job, Kind.JOB, job)
        keeps = [now.keep if now is not None else NO_JOB]
        since_ms = step.at_ms - IN_FLIGHT_MS
        keeps += [keep for until_ms, keep in self._earlier[job] if until_ms >= since_ms]
        if self._was_too_much or not step.at_ms:
            return
        if any(newer >= k.runs or age_ms > k.age_s * 1000 - CLOCKS_MS for k in keeps):
            self.court.checked[self.invariant] += 1
            return
        text = (
            f"{job}/{run}: forgotten at an age of {age_ms // 1000} s, with {newer} newer ones; its "
            f"job keeps {keeps[0].runs} runs for {keeps[0].age_s:g} s"
        )
        self._suspects.append(_Forgotten(f"{job}/{run}", text, step.at_ms))

    def finish(self) -> None:
        for suspect in self._suspects:
            excuses = self.court.faults.overlapping(
                suspect.at_ms - IN_FLIGHT_MS,
                suspect.at_ms,
                frozenset({FaultKind.CLOCK, FaultKind.BY_HAND}),
            )
            self.expect(bool(excuses), suspect.text, at_ms=suspect.at_ms)

    def not_judged(self) -> list[str]:
        if self._was_too_much:
            return ["what is forgotten: history may be larger than the settings allow"]
        return []
