"""What didn't get through: writes that etcd refuses or rejects, decisions that raise, and the jobs
that are set aside for that, so that others go on (ADR 36).

A write is *refused* where what it rested on has changed, as happens any day; it is *rejected* where
etcd takes it in no form, which is a defect, as is a decision that raises.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from etcsched.core.leader import effects as fx
from etcsched.core.leader.matters import Matter, aside_matter, request_matter
from etcsched.core.leader.reservation import Reservation
from etcsched.core.records import fan_out_in
from etcsched.core.view import View

ASIDE_S: Final = 60.0
"""So long a job is set aside for a write that was rejected again, unless it gets through; and so
long what a defect keeps from being decided rests."""

ASIDE_REASON: Final = (
    "it is set aside: what comes first can't be written or decided; see the leader's log"
)

DEFECT_WAIT_S: Final = 1.0
"""Then a job whose decision has raised is looked at again, to open its gap."""

WANTED_S: Final = 2 * ASIDE_S
"""What etcd rejected, and nobody has tried again for so long, isn't wanted any more: what is set
aside is tried once it isn't. A tick may be missed in the end, say, or a chain be taken out."""


class _Rejection(msgspec.Struct, frozen=True):
    """``first``: the write's first matter, or its request. ``about``: of all its matters those for
    which no other write has got through since. ``at_s``: the last time."""

    first: Matter
    about: frozenset[Matter]
    at_s: float


class _Rejections:
    """What etcd took in no form, by the write's subject and by what it is about: there may be
    thousands, and each write that gets through asks."""

    def __init__(self) -> None:
        self._by_subject: dict[Matter, _Rejection] = {}
        self._subjects: defaultdict[Matter, set[Matter]] = defaultdict(set)
        """By matter."""
        self._runs: defaultdict[str, set[Matter]] = defaultdict(set)
        """By job, the matters of its runs."""

    def __contains__(self, subject: Matter) -> bool:
        return subject in self._by_subject

    def put(self, subject: Matter, rejection: _Rejection) -> None:
        self._drop(subject)
        self._by_subject[subject] = rejection
        for matter in rejection.about:
            self._subjects[matter].add(subject)
            if matter[0] == "run":
                self._runs[matter[1]].add(matter)

    def _drop(self, subject: Matter) -> None:
        rejection = self._by_subject.pop(subject, None)
        for matter in rejection.about if rejection is not None else ():
            self._subjects[matter].discard(subject)
            if self._subjects[matter]:
                continue
            del self._subjects[matter]
            if matter[0] == "run":
                self._runs[matter[1]].discard(matter)
                if not self._runs[matter[1]]:
                    del self._runs[matter[1]]

    def is_about(self, matter: Matter) -> bool:
        return matter in self._subjects

    def runs_of(self, job: str) -> Iterable[Matter]:
        return self._runs.get(job, ())

    def over(self, matter: Matter) -> None:
        """What was rejected about it counts no more; nor does anything of a write whose first
        matter it is, or whose request: what that was to make is made no more."""
        for subject in list(self._subjects.get(matter, ())):
            rejection = self._by_subject[subject]
            if matter == rejection.first:
                self._drop(subject)
            else:
                self.put(subject, replace(rejection, about=rejection.about - {matter}))

    def forget_before(self, at_s: float) -> None:
        for subject in [s for s, each in self._by_subject.items() if each.at_s <= at_s]:
            self._drop(subject)


class Setbacks:
    """Nothing of this is in etcd: the next leader finds out by itself. Times are monotonic."""

    def __init__(self, view: View, wake_at: Callable[[float, Matter], None]) -> None:
        self._view = view
        self._wake_at = wake_at
        self._refused: dict[Matter, tuple[int, float]] = {}
        """How often in a row, and when for the last time."""
        self._rejected = _Rejections()
        self.unwritable: set[Matter] = set()
        """Requests of which etcd has rejected twice what would do them."""
        self._aside: defaultdict[str, dict[Matter, float]] = defaultdict(dict)
        """By job: what etcd rejects again and again of it, until when it is set aside."""
        self._resting: dict[Matter, float] = {}
        """What has raised, and until when it isn't decided."""

    # --- writes

    def committed(self, reservation: Reservation, now_s: float) -> None:
        for matter in reservation.matters:
            self._refused.pop(matter, None)
        self.taken(reservation, now_s)

    def refused(self, reservation: Reservation, now_s: float) -> int:
        """How often in a row the same was refused before. Also what is rejected counts."""
        refusals = (self._refused.get(matter, (0, 0.0)) for matter in reservation.matters)
        before = max((count for count, _ in refusals), default=0)
        self._refused |= dict.fromkeys(reservation.matters, (before + 1, now_s))
        return before

    def taken(self, reservation: Reservation, now_s: float) -> None:
        """Etcd has nothing against its form, be it committed or refused."""
        for matter in reservation.matters:
            self._rejected.over(matter)
        if self._aside:
            for job in [job for job, why in self._aside.items() if reservation.subject in why]:
                del self._aside[job][reservation.subject]
                self._wake_at(now_s, aside_matter(job))

    def rejected(self, reservation: Reservation, now_s: float) -> list[str]:
        """The second time what would wait for it is set aside; or what was asked for is given up,
        and nothing waits for it. Answered: the jobs that weren't set aside until now. (Another
        write that shares a matter with it, as a join, counts for itself.)"""
        is_again, request = reservation.subject in self._rejected, reservation.request
        if request is not None and request[1] not in self._view.requests:
            return []  # It is gone, and nobody will try again.
        first = request or reservation.matters[0]
        rejection = _Rejection(first, frozenset(reservation.matters), now_s)
        self._rejected.put(reservation.subject, rejection)
        if not is_again:
            return []
        if request is not None:
            self.unwritable.add(request)
            return []
        return self._set_aside(reservation, now_s)

    def _set_aside(self, reservation: Reservation, now_s: float) -> list[str]:
        """The jobs whose ticks would wait for what etcd rejects: they'd hold up everybody's."""
        until_s = now_s + ASIDE_S
        following = fx.following_of(reservation.write)
        jobs = {run.job for run in following.created} if following is not None else set[str]()
        for matter in reservation.matters:
            if matter[0] == "job" or (matter[0] == "run" and self._do_ticks_wait_for(matter[1:])):
                jobs.add(matter[1])
        new = [job for job in sorted(jobs) if not self.is_set_aside(job, now_s)]
        for job in jobs:
            self._aside[job][reservation.subject] = until_s
            self._wake_at(until_s, aside_matter(job))
        for job in new:
            self._wake_at(now_s, aside_matter(job))
        return new

    def _do_ticks_wait_for(self, run: Matter) -> bool:
        """A job that runs on each agent decides its ticks whatever its runs are about."""
        job = self._view.jobs.get(run[0])
        return run in self._view.runs and not (job is not None and job.record.per_host)

    def forget_run(self, job: str, run: str) -> None:
        """The run is over; or the fan-out is, and its runs are made no more."""
        for matter in list(self._rejected.runs_of(job)):
            if run in (matter[2], fan_out_in(matter[2])) and matter[1:] not in self._view.runs:
                self._rejected.over(matter)

    def forget_request(self, request: str) -> None:
        self.unwritable.discard(request_matter(request))
        self._rejected.over(request_matter(request))

    def is_rejected(self, matter: Matter) -> bool:
        """Whether etcd took the last write about it in no form: the next one rests for long."""
        return self._rejected.is_about(matter)

    def is_run_rejected(self, job: str, now_s: float) -> bool:
        """Whether etcd takes no write about one of the job's runs, or its fan-out's decision has
        raised: it may never be there."""
        return bool(self._rejected.runs_of(job)) or any(
            matter[:2] == ("fan_out", job) and self.rests(matter, now_s) for matter in self._resting
        )

    # --- decisions

    def raised(self, matter: Matter, now_s: float) -> None:
        self._resting[matter] = until_s = now_s + ASIDE_S
        if matter[0] != "job":
            self._wake_at(until_s, matter)
            return
        self._aside[matter[1]][matter] = until_s
        for at_s in (now_s + DEFECT_WAIT_S, until_s):
            self._wake_at(at_s, aside_matter(matter[1]))

    def rests(self, matter: Matter, now_s: float) -> bool:
        """Whether it is left for later, since its decision has raised."""
        return self._resting.get(matter, 0.0) > now_s

    # --- jobs

    def is_set_aside(self, job: str, now_s: float) -> bool:
        """Whether the job's ticks wait in its outage, since etcd rejects a write that would have to
        come first, or since a defect keeps them from being decided."""
        return any(until_s > now_s for until_s in self._aside.get(job, {}).values())

    def sweep(self, now_s: float) -> None:
        """Forget what is over: runs come and go, and a leader may lead for a year."""
        self._rejected.forget_before(now_s - WANTED_S)
        self._refused = {m: each for m, each in self._refused.items() if each[1] + ASIDE_S > now_s}
        self._resting = {m: until_s for m, until_s in self._resting.items() if until_s > now_s}
        for job, subjects in list(self._aside.items()):
            for subject in [each for each, until_s in subjects.items() if until_s <= now_s]:
                del subjects[subject]
            if not subjects:
                del self._aside[job]
