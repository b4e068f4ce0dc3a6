"""A standby's index of ticks: it stands at the watermark, ready to lead from there."""

from __future__ import annotations

from collections.abc import Iterable

from etcsched.core.leader.ticks import TickIndex
from etcsched.core.records import Change, Job, Kind
from etcsched.core.times import ms_of
from etcsched.core.view import View


class Standby:
    """``index`` goes to whoever leads, who moves it on; ``rebuild`` it once that leadership is
    over."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.index = TickIndex(0)

    def follow(self, changes: Iterable[Change]) -> None:
        """The view has taken these in, and nobody here leads."""
        for change in changes:
            if change.kind is Kind.JOB:
                if isinstance(change.record, Job):
                    self.index.put(change.record)
                else:
                    self.index.discard(change.ids[0])
        through_ms = self._through_ms()
        if through_ms < self.index.through_ms:
            self.rebuild()  # Somebody deleted the watermark, or set it back.
        else:
            self.index.skip_to(through_ms)

    def rebuild(self) -> None:
        self.index = TickIndex(self._through_ms())
        for entry in self._view.jobs.values():
            self.index.put(entry.record)

    def _through_ms(self) -> int:
        watermark = self._view.watermark
        return ms_of(watermark.record.through) if watermark is not None else 0
