"""I8: a missed tick that shares its record is resubmitted as if it had one of its own."""

from __future__ import annotations

from collections.abc import Iterator

from etcsched.audit.rules.base import Court, Rule, tick_of
from etcsched.audit.state import ARCHIVE, Step, Write
from etcsched.audit.verdict import Invariant
from etcsched.core.records import Kind, Run
from etcsched.core.states import Origin
from etcsched.core.times import ms_of, tick_id

_Ids = tuple[str, ...]


class Resubmissions(Rule):
    """A record's ticks are those that its job was due at as it was made, whatever the record says
    and the job is later. Records from before the history aren't judged."""

    invariant = Invariant.I8
    places = frozenset({Kind.RUN, ARCHIVE})

    def __init__(self, court: Court) -> None:
        super().__init__(court)
        self._ticks: dict[_Ids, list[int]] = {}

    def wrote(self, write: Write, step: Step) -> None:
        run = self.birth(write)
        if run is not None and run.origin is Origin.RESUBMISSION:
            self._resubmitted(run, step)
        elif run is not None and run.missed_through is not None:
            self._recorded(write.ids, run, step)
        elif write.place == ARCHIVE and write.after is None:
            self._ticks.pop(write.ids, None)

    def _recorded(self, ids: _Ids, record: Run, step: Step) -> None:
        tick_ms = tick_of(record)
        if tick_ms is None or record.missed_through is None:
            return
        if self.court.definitions.unknown(record.job):
            return
        through_ms = ms_of(record.missed_through)
        self._ticks[ids] = list(self.court.definitions.due(record.job, tick_ms - 1, through_ms))
        text = f"{record.job}/{record.id}: it doesn't say which missed ticks it stands for"
        if record.missed_steps:  # (A leader of an older version says nothing of it.)
            self.expect(list(_told(record, tick_ms)) == self._ticks[ids], text, step)

    def _resubmitted(self, run: Run, step: Step) -> None:
        ids = (run.job, run.resubmits)
        ticks = self._ticks.get(ids)
        if ticks is None:
            return
        name = f"{run.job}/{run.id}"
        tick_ms = ms_of(run.scheduled_at) if run.scheduled_at is not None else 0
        text = f"{name}: {'/'.join(ids)}, which it resubmits, stands for no tick of that time"
        self.expect(tick_ms in ticks, text, step)
        text = f"{name}: it goes back to {run.root}, and its time is {run.scheduled_at}"
        self.expect(run.root == tick_id(tick_ms), text, step)
        for other_id in self.state.runs_of.get(run.job, set()):
            other = self.state.record(Run, Kind.RUN, run.job, other_id)
            if other is not None and other.resubmits and other.root == run.root:
                text = f"{name}: {run.root} is resubmitted as {other_id} already, which isn't over"
                self.expect(step.of(Kind.RUN, run.job, other_id) is not None, text, step)
        linked = step.of(ARCHIVE, *ids)
        record = linked.new if linked is not None else None
        is_linked = isinstance(record, Run) and run.id in record.resubmitted_as
        self.expect(is_linked, f"{name}: {'/'.join(ids)} has no link to it", step)


def _told(record: Run, tick_ms: int) -> Iterator[int]:
    """By its own account of how far apart they are."""
    yield tick_ms
    for apart_ms, count in record.missed_steps:
        yield from range(tick_ms + apart_ms, tick_ms + apart_ms * count + 1, apart_ms)
        tick_ms += apart_ms * count
