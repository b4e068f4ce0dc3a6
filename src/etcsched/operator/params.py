"""Parameters that somebody names for a run, held to those that its job declares.

A name that is almost one of these is nearly surely a typing error, and a run without it does the
wrong thing in silence. Others are taken: a process sees whatever it is given, a source's results
among it, which nobody declares. So is another number of a name (``host1``, ``host2``), what a run
has already, which a chain may have brought, and what the jobs declare that follow.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Final

from etcsched.core.errors import Refused
from etcsched.core.records import Job, Kind, Run
from etcsched.core.text import some
from etcsched.keyspace.keys import Keys
from etcsched.operator.store import found, read
from etcsched.ports import Etcd

__all__ = ["check_params", "check_params_of_runs"]

_ALIKE: Final = 0.8
"""``mont`` and ``month`` are, by ``difflib``'s measure; ``date`` and ``data`` aren't."""
_NUMBER: Final = re.compile(r"\d+")


async def check_params(etcd: Etcd, keys: Keys, job: Job, given: Collection[str]) -> None:
    """``Refused`` for the first that is almost one that the job declares, unless one that follows
    it declares that."""
    misspelt = _misspelt(job, given)
    if misspelt and (misspelt := await _unknown_to_followers(etcd, keys, job, misspelt)):
        raise _refusal(job, misspelt)


async def check_params_of_runs(
    etcd: Etcd, keys: Keys, runs: Sequence[tuple[str, str]], given: Collection[str]
) -> None:
    """As ``check_params``, but what a run has already may be changed in it. Nothing is read of the
    runs unless there is something that is almost what their jobs declare."""
    if not given:
        return
    for job in await _jobs(etcd, keys, dict.fromkeys(name for name, _ in runs)):
        misspelt = _misspelt(job, given)
        if not misspelt or not (misspelt := await _unknown_to_followers(etcd, keys, job, misspelt)):
            continue
        ids = [id_ for name, id_ in runs if name == job.name]
        for run in await _runs(etcd, keys, job.name, ids):
            if missing := {
                name: meant for name, meant in misspelt.items() if name not in run.params
            }:
                raise _refusal(job, missing)


def _misspelt(job: Job, given: Collection[str]) -> dict[str, str]:
    """Each with the one that is most likely meant."""
    folded = {declared.casefold(): declared for declared in job.params}
    near = {
        name: get_close_matches(name.casefold(), folded, n=1, cutoff=_ALIKE)
        for name in given
        if name not in job.params
    }
    return {
        name: folded[meant[0]]
        for name, meant in near.items()
        if meant and not _are_numbered(name.casefold(), meant[0])
    }


def _are_numbered(one: str, other: str) -> bool:
    """Whether they differ in their numbers alone: each is a name of its own."""
    return one != other and _NUMBER.sub("0", one) == _NUMBER.sub("0", other)


def _refusal(job: Job, misspelt: dict[str, str]) -> Refused:
    name, meant = next(iter(misspelt.items()))
    return Refused(
        f"job {job.name}: has no parameter {name!r}; did you mean {meant}? "
        f"it declares {some(sorted(job.params))}"
    )


async def _unknown_to_followers(
    etcd: Etcd, keys: Keys, job: Job, misspelt: dict[str, str]
) -> dict[str, str]:
    """Of these, those that no job declares which the chain may come to."""
    seen = {job.name}
    nexts = [job]
    while misspelt and nexts:
        targets = {link.to for one in nexts for link in one.chain} - seen
        seen |= targets
        nexts = await _jobs(etcd, keys, sorted(targets))
        known = {name for one in nexts for name in one.params}
        misspelt = {name: meant for name, meant in misspelt.items() if name not in known}
    return misspelt


async def _jobs(etcd: Etcd, keys: Keys, names: Collection[str]) -> list[Job]:
    """Those that are there."""
    kvs, _ = await read(etcd, [keys.of(Kind.JOB, name) for name in names])
    return [job for kv in kvs if (job := found(Job, kv)) is not None]


async def _runs(etcd: Etcd, keys: Keys, job: str, ids: Sequence[str]) -> list[Run]:
    """Those that are there: only what is over can be resubmitted."""
    kvs, _ = await read(etcd, [keys.archive(job, id_) for id_ in ids])
    return [run for kv in kvs if (run := found(Run, kv)) is not None]
