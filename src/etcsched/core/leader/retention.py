"""Which runs of the archive go: what their job's ``keep`` doesn't name, and all jobs' part of what
is too much for etcd.

The archive as a whole may take ``max_history_bytes``. Where it takes more, each job keeps the same
share of the runs that its ``keep`` names, and so the job that is due every second gives most. A
share is tried for a round through the archive, a page at a time, before the next is chosen.
"""

from __future__ import annotations

import sys
from itertools import groupby
from typing import Final

from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.core.leader.context import Context
from etcsched.core.leader.matters import Matter
from etcsched.core.records import Keep
from etcsched.core.sizes import size_text
from etcsched.core.times import Utc, ms_of
from etcsched.core.view import RunKey

PAGE_EVERY_S: Final = 10.0
PAGE_EVERY_HURRIED_S: Final = 1.0
"""While history takes too much, and for a new leader, who doesn't know yet."""
LEAST_SHARE: Final = 1e-6
_AIM: Final = 0.9
_LOW: Final = 0.7
_PAGE: Matter = ("history",)

Archived = tuple[str, str, int, int]
"""(job, run, mod revision, size in bytes)."""


def next_share(share: float, fullest: float, size_bytes: float, most_bytes: int) -> float:
    """Of the runs that each job's ``keep`` names, once a round has gone by the earlier one: it
    falls until the archive fits, and is all again where there is room. ``fullest``: the largest
    part of its ``keep`` that a job had. As every job has that much or less, none gives too much."""
    if size_bytes > most_bytes:
        return max(LEAST_SHARE, min(share, fullest) * _AIM * most_bytes / size_bytes)
    if size_bytes < _LOW * most_bytes:
        return 1.0
    return share


class Retention:
    """Nothing here is urgent, and nothing needs all of history at once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._view = context.view
        self._ended: dict[str, int] = {}
        self._listing: set[str] = set()
        self._after = ""
        self._share = 1.0
        self._chosen_for_bytes = 0
        """The limit by which the share was chosen."""
        self._fullest = 0.0
        self._kept_bytes = 0.0
        self._job, self._runs, self._bytes = "", 0, 0
        """The job whose runs are being counted."""
        self._is_too_much = False
        context.wake_at(context.mono_s + PAGE_EVERY_HURRIED_S, _PAGE)

    def archived(self, job: str, records: int = 1) -> None:
        """So many more went to the archive; every few, the job's oldest go."""
        count = self._ended[job] = self._ended.get(job, 0) + records
        if count >= max(4, self._runs_kept(job) // 4):
            self._list(job)

    def next_page(self) -> None:
        """Called when its timer is due."""
        self._context.effects.append(fx.ListArchive(job=None, after=self._after))

    def listed(self, listed: ev.ArchiveListed) -> None:
        if listed.job is not None:
            self._listing.discard(listed.job)
            excess = listed.count - self._runs_kept(listed.job)
            self._forget(listed.found[: max(0, excess)])
            return
        if listed.found or listed.is_last:  # Else etcd didn't answer: the same page again.
            if not self._after:
                self._begin_round(listed)
            self._turn_page(listed)
            if listed.is_last:
                self._end_round()
        wait_s = PAGE_EVERY_HURRIED_S if self._is_too_much else PAGE_EVERY_S
        self._context.wake_at(self._context.mono_s + wait_s, _PAGE)

    def _turn_page(self, page: ev.ArchiveListed) -> None:
        """What is too much of a part of a job's runs is too much of all of them. The last job's may
        go on beyond the page, so it is listed by itself as well."""
        now_ms = self._context.wall_ms
        for job, of_job in groupby(page.found, key=lambda place: place[0]):
            places, age_s = tuple(of_job), self._keep_of(job).age_s
            old = tuple(place for place in places if _age_s(place[1], now_ms) > age_s)
            # Oldest first, so what is too old, or too much, stands at the beginning.
            excess = max(len(old), len(places) - self._runs_kept(job))
            self._count(job, places[len(old) :])
            self._forget(places[:excess])
        if page.is_last:
            self._after = ""
        else:
            job, run, *_ = page.found[-1]
            self._after = f"{job}/{run}"
            self._list(job)

    def _list(self, job: str) -> None:
        if job not in self._listing:
            self._ended[job] = 0
            self._listing.add(job)
            self._context.effects.append(fx.ListArchive(job=job))

    # --- how much is kept

    def _count(self, job: str, runs: tuple[Archived, ...]) -> None:
        """More of a job; a page may end in the middle of one."""
        if job != self._job:
            self._count_job()
            self._job, self._runs, self._bytes = job, 0, 0
        self._runs += len(runs)
        self._bytes += _size_bytes(runs)

    def _count_job(self) -> None:
        """What of the job is left when all that goes is gone."""
        if self._runs:
            self._fullest = max(self._fullest, self._runs / max(1, self._keep_of(self._job).runs))
            self._kept_bytes += self._bytes * min(1.0, self._runs_kept(self._job) / self._runs)
        self._job, self._runs, self._bytes = "", 0, 0

    def _begin_round(self, first: ev.ArchiveListed) -> None:
        """About how much there is, by the first page, says whether to hurry."""
        self._kept_bytes, self._fullest = 0.0, 0.0
        mean_bytes = _size_bytes(first.found) / max(1, len(first.found))
        most_bytes = self._view.settings.max_history_bytes
        self._is_too_much = first.count * mean_bytes > most_bytes

    def _end_round(self) -> None:
        self._count_job()
        size_bytes, most_bytes = self._kept_bytes, self._view.settings.max_history_bytes
        before = self._share_now()
        share = next_share(before, self._fullest, size_bytes, most_bytes)
        is_less, is_all_again = share < before, self._share < share == 1.0
        self._is_too_much = size_bytes > most_bytes
        self._share, self._chosen_for_bytes = share, most_bytes
        if not is_less and not is_all_again:
            return
        part = "all that" if is_all_again else f"{share:.1%} of what"
        self._context.say(
            f"history takes {size_bytes / (1 << 20):.1f} MiB of {size_text(most_bytes)} "
            f"(settings: max_history): each job keeps {part} its keep names",
            warn=is_less,
        )

    def _runs_kept(self, job: str) -> int:
        """What a deleted job has left goes by its age only, as long as there is room."""
        share = self._share_now()
        if job not in self._view.jobs and share == 1.0:
            return sys.maxsize
        return max(1, int(self._keep_of(job).runs * share))

    def _share_now(self) -> float:
        """Who raises the limit finds nothing gone by the lower one any more."""
        is_raised = self._view.settings.max_history_bytes > self._chosen_for_bytes
        return 1.0 if is_raised else self._share

    def _keep_of(self, job: str) -> Keep:
        entry = self._view.jobs.get(job)
        return entry.record.keep if entry is not None else Keep()

    # --- what goes

    def _resubmitted_in(self, jobs: set[str]) -> set[RunKey]:
        """What is being resubmitted: that is asked for, or isn't over."""
        view = self._view
        asked_for = {(each.record.job, each.record.run) for each in view.requests.values()}
        active = (
            view.runs[job, run].record for job in jobs for run in view.runs_of_job.get(job, ())
        )
        return asked_for | {(run.job, run.resubmits) for run in active}

    def _forget(self, places: tuple[Archived, ...]) -> None:
        """Never what is later than the watermark: its absence would say that it never was."""
        watermark = self._view.watermark
        if watermark is None:
            return
        through = watermark.record.through
        fanning_out = {job for job, _ in self._view.fan_outs}
        needed = self._resubmitted_in({job for job, *_ in places})
        for job, run, revision, _ in places:
            if job in fanning_out:
                continue  # Some of its runs may not be made yet: their absence says so.
            if (job, run) in needed:
                continue  # Of a record of missed ticks the others may be resubmitted still.
            gap = self._view.gaps.get(job)
            if gap is not None and not gap.record.closed:
                continue  # An earlier leader may have decided ticks that wait in it.
            matter = ("archived", job, run)
            if _time_of_id(run) <= through and not self._context.is_busy(matter):
                write = fx.Forget(
                    seq=self._context.next_seq(), job=job, run_id=run, revision=revision
                )
                self._context.write(write, matter)


def _size_bytes(places: tuple[Archived, ...]) -> int:
    return sum(place[3] for place in places)


def _time_of_id(run_id: str) -> Utc:
    """Run ids begin with a time, of a tick or of a request; as ``Utc`` text, to the second."""
    digits = run_id[:8] + run_id[9:15]
    if len(digits) != 14 or not digits.isdigit():
        return Utc("")
    date, time = digits[:8], digits[8:]
    text = Utc(f"{date[:4]}-{date[4:6]}-{date[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}.000Z")
    try:
        ms_of(text)
    except ValueError:
        return Utc("")  # Digits of somebody's own, in a request by hand.
    return text


def _age_s(run_id: str, now_ms: int) -> float:
    text = _time_of_id(run_id)
    return (now_ms - ms_of(text)) / 1000 if text else 0.0
