"""Resubmitting runs, one or thousands: choosing them, and asking the leader for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from etcsched.core.errors import NotFound, Refused
from etcsched.core.missed import is_summary, resubmitted_places, tick_in, ticks_of
from etcsched.core.records import Answer, Kind, Request, RequestKind, Run
from etcsched.core.times import Utc, tick_id, utc_of
from etcsched.keyspace.keys import Keys
from etcsched.operator.bulk import Asked, Asker, Progress, ask_all
from etcsched.operator.choosing import Wanted, jobs_of, time_of
from etcsched.operator.params import check_params_of_runs
from etcsched.operator.runs import archived_keys, pages_of_records, record_of_tick, view_of
from etcsched.operator.settings import read_settings
from etcsched.operator.store import read, read_all
from etcsched.ports import Etcd

__all__ = [
    "MOST_TICKS",
    "Chosen",
    "Records",
    "Resubmitted",
    "check",
    "choose",
    "recorded",
    "resubmit",
]


MOST_TICKS: Final = 1000
"""Of those that share a record: each is a run, and a record may stand for thousands."""

Records = dict[tuple[str, str], str]


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest first; ``records`` says of missed ticks (job, id) that share a record which one
    that is. And how many were left out, since they have been resubmitted before (or that was asked
    for), or a later one goes back to the same run; ``more``: since there are more than
    ``MOST_TICKS`` such ticks, of which the newest are left; ``unnamed``: since a record that an
    older version made doesn't say when they were due."""

    runs: list[Run]
    again: int = 0
    more: int = 0
    unnamed: int = 0
    records: Records = {}


class Resubmitted(Asked, frozen=True, kw_only=True):
    """``new_run``: what is made in its place, if that is accepted."""

    new_run: str = ""


async def choose(etcd: Etcd, keys: Keys, wanted: Wanted) -> Chosen:
    """Without states: in any that the settings allow. ``Refused`` for others."""
    allowed = (await read_settings(etcd, keys)).resubmit_states
    for state in wanted.states:
        if state not in allowed:
            names = ", ".join(each.value for each in allowed)
            raise Refused(f"runs that are {state.value}: the settings allow {names}")
    jobs = await jobs_of(etcd, keys, wanted)
    if not allowed:
        return Chosen(runs=[])
    wanted = replace(wanted, states=wanted.states or tuple(allowed))
    asked_for = await _asked_for(etcd, keys)
    active = await read_all(etcd, keys.all_of(Kind.RUN), Run)
    again_roots = {(run.job, run.root) for run in active if run.resubmits}
    sharing = _Sharing(wanted, asked_for | again_roots)
    last_of: dict[tuple[str, str], tuple[Utc, str]] = {}
    runs: list[Run] = []
    again = 0
    async for page in pages_of_records(etcd, await archived_keys(etcd, keys, wanted, jobs)):
        for run in page:
            root = (run.job, run.root)
            if (run.job, run.id) in asked_for:
                again_roots.add(root)
            if is_summary(run):
                sharing.take(run)
                continue
            last_of[root] = max(last_of.get(root, _age(run)), _age(run))
            if not wanted.has(run, run.state, view_of(run).agent):
                continue
            if run.resubmitted_as:
                again += 1
            else:
                runs.append(run)
    # Of those that go back to one run only the last counts, and none while one is under way.
    last = [
        run
        for run in runs
        if (run.job, run.root) not in again_roots and last_of[run.job, run.root] == _age(run)
    ]
    ticks = sharing.oldest()
    return Chosen(
        runs=sorted(
            [*last, *(tick for tick, _ in ticks)], key=lambda run: (time_of(run), run.job, run.id)
        ),
        again=sharing.again + again + len(runs) - len(last),
        more=sharing.count - len(ticks),
        unnamed=sharing.unnamed,
        records={(tick.job, tick.id): record.id for tick, record in ticks},
    )


class _Sharing:
    """Of the wanted ticks that share a record the oldest ``MOST_TICKS``, as far as none was asked
    for: an outage of many jobs leaves millions, so no more are held than will be taken."""

    def __init__(self, wanted: Wanted, asked_for: set[tuple[str, str]]) -> None:
        self._wanted = wanted
        self._asked_for = asked_for
        self._oldest: list[tuple[int, str, Run]] = []
        self.count = self.again = self.unnamed = 0

    def take(self, record: Run) -> None:
        wanted = self._wanted
        if not wanted.has(record, record.state, ""):
            return
        known, places = 0, resubmitted_places(record)
        for place, tick_ms in enumerate(ticks_of(record)):
            known += 1
            if not wanted.is_in_time(utc_of(tick_ms)):
                continue
            if place in places or (record.job, tick_id(tick_ms)) in self._asked_for:
                self.again += 1
                continue
            self.count += 1
            self._oldest.append((tick_ms, record.job, record))
        self.unnamed += record.missed_count - known
        self._keep_oldest()

    def oldest(self) -> list[tuple[Run, Run]]:
        """Each with its record."""
        return [(tick_in(record, tick_ms), record) for tick_ms, _, record in self._oldest]

    def _keep_oldest(self) -> None:
        self._oldest.sort(key=lambda each: each[:2])
        del self._oldest[MOST_TICKS:]


def _age(run: Run) -> tuple[Utc, str]:
    return run.created_at, run.id


async def _asked_for(etcd: Etcd, keys: Keys) -> set[tuple[str, str]]:
    """What no leader has come to yet."""
    requests = await read_all(etcd, keys.all_of(Kind.REQUEST), Request)
    return {(r.job, r.tick or r.run) for r in requests if r.kind is RequestKind.RESUBMIT}


async def check(
    etcd: Etcd,
    keys: Keys,
    runs: Sequence[tuple[str, str]],
    params: dict[str, str],
    records: Records | None = None,
) -> Records:
    """Of missed ticks that share a record, which one that is; ``records`` are known already.
    ``NotFound`` for the first that isn't there, active or over. ``Refused`` where a parameter is
    almost one that their jobs declare (``check_params_of_runs``)."""
    records = dict(records or {})
    others = [(job, run) for job, run in runs if (job, run) not in records]
    places = [
        key for job, run in others for key in (keys.of(Kind.RUN, job, run), keys.archive(job, run))
    ]
    at_keys, _ = await read(etcd, places, keys_only=True)
    for number, (job, run) in enumerate(others):
        if at_keys[2 * number] is None and at_keys[2 * number + 1] is None:
            record = await record_of_tick(etcd, keys, job, run)
            if record is None:
                raise NotFound(f"run {job}/{run}: there is none; see etcsched runs list {job}")
            records[job, run] = record.id
    await check_params_of_runs(etcd, keys, recorded(runs, records), params)
    return records


def recorded(runs: Sequence[tuple[str, str]], records: Records) -> list[tuple[str, str]]:
    """The records of these, each once."""
    return list(dict.fromkeys((job, records.get((job, run), run)) for job, run in runs))


async def resubmit(
    etcd: Etcd,
    keys: Keys,
    runs: Sequence[tuple[str, str]],
    asker: Asker,
    progress: Progress | None = None,
    *,
    params: dict[str, str],
    force: bool,
    records: Records | None = None,
) -> list[Resubmitted]:
    """The leader's word on each, in their order; see ``ask_all``, and ``check`` before, which says
    what ``records`` are."""
    requests = []
    for job, run in runs:
        request = asker.request(RequestKind.RESUBMIT, job, run)
        record = (records or {}).get((job, run))
        if record is not None:
            request = replace(request, run=record, tick=run)
        requests.append(replace(request, params=params, force=force))
    answers = await ask_all(etcd, keys, asker, requests, progress)
    return [_told(request, answer) for request, answer in zip(requests, answers, strict=True)]


def _told(request: Request, answer: Answer) -> Resubmitted:
    return Resubmitted(
        run=f"{request.job}/{request.tick or request.run}",
        accepted=answer.accepted,
        message=answer.message,
        new_run=f"{request.job}/{answer.run}" if answer.accepted else "",
    )
