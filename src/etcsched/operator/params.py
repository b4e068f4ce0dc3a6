"""Parameters that somebody names for a run, held to those that its job declares.

One that nobody reads is nearly surely a typing error, and a run without it does the wrong thing in
silence. A job that declares none takes any, as its processes see them all; so does a run its own,
which a chain may have brought; and what the jobs declare that follow is meant for them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from etcsched.core.errors import Refused
from etcsched.core.records import Job, Kind, Run
from etcsched.core.text import some
from etcsched.keyspace.keys import Keys
from etcsched.operator.store import found, read
from etcsched.ports import Etcd

__all__ = ["check_params", "check_params_of_runs"]


async def check_params(etcd: Etcd, keys: Keys, job: Job, given: Collection[str]) -> None:
    """``Refused`` for the first that neither the job declares nor one that follows it."""
    unknown = _undeclared(job, given)
    if unknown and (unknown := await _unknown_to_followers(etcd, keys, job, unknown)):
        raise _refusal(job, unknown[0])


async def check_params_of_runs(
    etcd: Etcd, keys: Keys, runs: Sequence[tuple[str, str]], given: Collection[str]
) -> None:
    """As ``check_params``, but what a run has already may be changed in it. Nothing is read of the
    runs unless there is something that their jobs don't declare."""
    if not given:
        return
    for job in await _jobs(etcd, keys, dict.fromkeys(name for name, _ in runs)):
        unknown = _undeclared(job, given)
        if not unknown:
            continue
        unknown = await _unknown_to_followers(etcd, keys, job, unknown)
        if not unknown:
            continue
        for run in await _runs(
            etcd, keys, job.name, [id_ for name, id_ in runs if name == job.name]
        ):
            missing = [name for name in unknown if name not in run.params]
            if missing:
                raise _refusal(job, missing[0])


def _undeclared(job: Job, given: Collection[str]) -> list[str]:
    return [name for name in given if name not in job.params] if job.params else []


def _refusal(job: Job, name: str) -> Refused:
    folded = {declared.casefold(): declared for declared in job.params}
    near = get_close_matches(name.casefold(), folded, n=1)
    hint = f"did you mean {folded[near[0]]}? " if near else ""
    return Refused(
        f"job {job.name}: has no parameter {name!r}; {hint}it declares {some(sorted(job.params))}"
    )


async def _unknown_to_followers(etcd: Etcd, keys: Keys, job: Job, unknown: list[str]) -> list[str]:
    """Of these names, those that no job declares which the chain may come to."""
    seen = {job.name}
    nexts = [job]
    while unknown and nexts:
        targets = {link.to for one in nexts for link in one.chain} - seen
        seen |= targets
        nexts = await _jobs(etcd, keys, sorted(targets))
        unknown = [name for name in unknown if not any(name in one.params for one in nexts)]
    return unknown


async def _jobs(etcd: Etcd, keys: Keys, names: Collection[str]) -> list[Job]:
    """Those that are there."""
    kvs, _ = await read(etcd, [keys.of(Kind.JOB, name) for name in names])
    return [job for kv in kvs if (job := found(Job, kv)) is not None]


async def _runs(etcd: Etcd, keys: Keys, job: str, ids: Sequence[str]) -> list[Run]:
    """Those that are there: only what is over can be resubmitted."""
    kvs, _ = await read(etcd, [keys.archive(job, id_) for id_ in ids])
    return [run for kv in kvs if (run := found(Run, kv)) is not None]
