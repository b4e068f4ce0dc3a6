"""Resubmitting runs, one or thousands: choosing them, and asking the leader for each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from etcsched.core.errors import NotFound, Refused
from etcsched.core.records import Answer, Kind, Request, RequestKind, Run
from etcsched.core.times import Utc
from etcsched.keyspace.keys import Keys
from etcsched.operator.bulk import Asked, Asker, Progress, ask_all
from etcsched.operator.choosing import Wanted, jobs_of, time_of
from etcsched.operator.params import check_params_of_runs
from etcsched.operator.runs import archived_keys, pages_of_records, view_of
from etcsched.operator.settings import read_settings
from etcsched.operator.store import read, read_all
from etcsched.ports import Etcd

__all__ = ["Chosen", "Resubmitted", "check", "choose", "resubmit"]


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest first; and how many were left out, since they have been resubmitted before (or
    that was asked for), or a later one goes back to the same run, or since they stand for several
    missed ticks."""

    runs: list[Run]
    again: int = 0
    summaries: int = 0


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
    last_of: dict[tuple[str, str], tuple[Utc, str]] = {}
    runs: list[Run] = []
    again = summaries = 0
    async for page in pages_of_records(etcd, await archived_keys(etcd, keys, wanted, jobs)):
        for run in page:
            root = (run.job, run.root)
            if (run.job, run.id) in asked_for:
                again_roots.add(root)
            last_of[root] = max(last_of.get(root, _age(run)), _age(run))
            if not wanted.has(run, run.state, view_of(run).agent):
                continue
            if run.resubmitted_as:
                again += 1
            elif run.missed_count > 1:
                summaries += 1
            else:
                runs.append(run)
    # Of those that go back to one run only the last counts, and none while one is under way.
    last = [
        run
        for run in runs
        if (run.job, run.root) not in again_roots and last_of[run.job, run.root] == _age(run)
    ]
    last.sort(key=lambda run: (time_of(run), run.job, run.id))
    return Chosen(runs=last, again=again + len(runs) - len(last), summaries=summaries)


def _age(run: Run) -> tuple[Utc, str]:
    return run.created_at, run.id


async def _asked_for(etcd: Etcd, keys: Keys) -> set[tuple[str, str]]:
    """What no leader has come to yet."""
    requests = await read_all(etcd, keys.all_of(Kind.REQUEST), Request)
    return {(r.job, r.run) for r in requests if r.kind is RequestKind.RESUBMIT}


async def check(
    etcd: Etcd, keys: Keys, runs: Sequence[tuple[str, str]], params: dict[str, str]
) -> None:
    """``NotFound`` for the first that isn't there, active or over. ``Refused`` where a parameter is
    almost one that their jobs declare (``check_params_of_runs``)."""
    places = [
        key for job, run in runs for key in (keys.of(Kind.RUN, job, run), keys.archive(job, run))
    ]
    at_keys, _ = await read(etcd, places, keys_only=True)
    for number, (job, run) in enumerate(runs):
        if at_keys[2 * number] is None and at_keys[2 * number + 1] is None:
            raise NotFound(f"run {job}/{run}: there is none; see etcsched runs list {job}")
    await check_params_of_runs(etcd, keys, runs, params)


async def resubmit(
    etcd: Etcd,
    keys: Keys,
    runs: Sequence[tuple[str, str]],
    asker: Asker,
    progress: Progress | None = None,
    *,
    params: dict[str, str],
    force: bool,
) -> list[Resubmitted]:
    """The leader's word on each, in their order; see ``ask_all``, and ``check`` before."""
    requests = [
        replace(asker.request(RequestKind.RESUBMIT, job, run), params=params, force=force)
        for job, run in runs
    ]
    answers = await ask_all(etcd, keys, asker, requests, progress)
    return [_told(request, answer) for request, answer in zip(requests, answers, strict=True)]


def _told(request: Request, answer: Answer) -> Resubmitted:
    return Resubmitted(
        run=f"{request.job}/{request.run}",
        accepted=answer.accepted,
        message=answer.message,
        new_run=f"{request.job}/{answer.run}" if answer.accepted else "",
    )
