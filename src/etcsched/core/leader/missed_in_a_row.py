"""What is asked to follow ticks that an outage took: once for all that were missed in a row, in
however many records, whoever decides them (ADR 21). The gap's account says who was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from etcsched.core.leader.chains import NOBODY_TOLD, Chains
from etcsched.core.records import FanOut, Gap, Job, Run
from etcsched.core.states import JobState, RunState
from etcsched.core.timeline import ticks
from etcsched.core.times import Utc, ms_of
from etcsched.core.view import Entry, View


class MissedInARow:
    def __init__(self, view: View, chains: Chains) -> None:
        self._view = view
        self._chains = chains

    def first_asked(self, job: Job, gap: Entry[Gap] | None, archived: Iterable[Run]) -> Run | None:
        """Of an outage's records the first that is asked what follows, however it is decided: a
        tick that is late only and ends ``overlapped``, as any tick may, or missed ticks, unless all
        were asked for those that they go on with."""
        named = {state for link in job.chain for state in link.on}
        if job.current.state is JobState.DELETED:
            return None
        asked = (
            run for run in archived
            if run.state in named
            and not (run.state is RunState.MISSED and self._all_told(job, gap, run))
        )  # fmt: skip
        return min(asked, key=lambda run: run.due_at, default=None)

    def told(self, job: Job, gap: Entry[Gap] | None, run: Run) -> Mapping[str, Utc]:
        """By target that was asked for the ticks with which this record's go on, the first of the
        record for which it was."""
        if run.state is not RunState.MISSED or gap is None:
            return NOBODY_TOLD
        return gap.record.followed if self._goes_on(job, gap, ms_of(run.due_at)) else NOBODY_TOLD

    def followed(
        self,
        job: Job,
        gap: Entry[Gap] | None,
        created: Iterable[Run],
        archived: Iterable[Run],
        fan_outs: Iterable[FanOut],
        decided: Gap,
    ) -> dict[str, Utc]:
        """Likewise of the missed ticks that ``decided`` ends with."""
        last = max(archived, key=lambda run: run.due_at, default=None)
        made = [*(run.due_at for run in created), *(each.scheduled_at for each in fan_outs)]
        if last is None or any(at > last.due_at for at in made):
            is_kept = not made and self._goes_on(job, gap, ms_of(decided.decided_through) + 1)
            return dict(gap.record.followed) if is_kept and gap is not None else {}
        targets = self._chains.following_missed(job)
        if last.state is not RunState.MISSED or not targets:
            return {}
        return {**dict.fromkeys(targets, last.due_at), **self.told(job, gap, last)}

    def _all_told(self, job: Job, gap: Entry[Gap] | None, run: Run) -> bool:
        told = self.told(job, gap, run)
        return bool(told) and all(to in told for to in self._chains.following_missed(job))

    def _goes_on(self, job: Job, gap: Entry[Gap] | None, tick_ms: int) -> bool:
        """Whether the job was due at no time between the missed ticks that were asked last what
        follows them and this one."""
        if gap is None or gap.record.closed or not gap.record.followed:
            return False
        through_ms = ms_of(gap.record.decided_through)
        due = ticks(job, self._view.limits_of(job), through_ms, tick_ms - 1)
        return next(due, None) is None
