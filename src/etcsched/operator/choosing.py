"""Choosing runs by what they have in common: job, tag, state, agent, time."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from etcsched.core.records import Job, Kind, Run
from etcsched.core.states import JobState, RunState
from etcsched.core.times import Utc, ms_of_tick_id, utc_of
from etcsched.keyspace.keys import Keys
from etcsched.operator.store import found, pages
from etcsched.ports import Etcd

__all__ = ["Wanted", "is_plain_tick", "jobs_of", "jobs_with", "time_by_id", "time_of"]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Of what job, with which tags (each of them), in what states (none: in any), on which agent
    at last, and scheduled (or asked for) when: since, and before ``until``."""

    job: str | None = None
    tags: tuple[str, ...] = ()
    states: tuple[RunState, ...] = ()
    agent: str | None = None
    since: Utc | None = None
    until: Utc | None = None

    def has(self, run: Run, state: RunState, agent: str) -> bool:
        """Tags aside, which are the job's: see ``jobs_of``."""
        return (
            (self.job is None or run.job == self.job)
            and (not self.states or state in self.states)
            and (self.agent is None or agent == self.agent)
            and self._has_time_of(run)
        )

    def _has_time_of(self, run: Run) -> bool:
        """Of a record of missed ticks: as far as its first and its last say, of any of them."""
        at, last = time_of(run), run.missed_through
        if last is None:
            return self.is_in_time(at)
        return (self.since is None or last >= self.since) and (
            self.until is None or at < self.until
        )

    def may_have(self, run_id: str) -> bool:
        """Without its record."""
        at = time_by_id(run_id)
        return at is None or self.is_in_time(at)

    def is_before(self, run_id: str) -> bool:
        """Whether a tick's id says that it was due before all that is wanted."""
        at = time_by_id(run_id)
        return at is not None and self.since is not None and at < self.since

    def is_in_time(self, at: Utc) -> bool:
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


def time_of(run: Run) -> Utc:
    """What runs are listed and chosen by: when it was due, or asked for."""
    return run.scheduled_at or run.created_at


def time_by_id(run_id: str) -> Utc | None:
    """``time_of`` where the id says that: a tick's (and its host's) does. None: others don't."""
    try:
        return utc_of(ms_of_tick_id(run_id.partition("@")[0]))
    except ValueError:
        return None


def is_plain_tick(run_id: str) -> bool:
    """Whether the id is a tick's alone: a record's of several may be."""
    return "@" not in run_id and time_by_id(run_id) is not None


async def jobs_of(etcd: Etcd, keys: Keys, wanted: Wanted) -> set[str] | None:
    """Those with the wanted tags, deleted ones too, whose history stays. None: any job."""
    return await jobs_with(etcd, keys, wanted.tags, and_deleted=True) if wanted.tags else None


async def jobs_with(
    etcd: Etcd, keys: Keys, tags: Sequence[str], *, and_deleted: bool = False
) -> set[str]:
    names = set()
    async for page in pages(etcd, *keys.all_of(Kind.JOB)):
        for kv in page.kvs:
            job = found(Job, kv)
            if (
                job is not None
                and all(tag in job.tags for tag in tags)
                and (and_deleted or job.current.state is not JobState.DELETED)
            ):
                names.add(job.name)
    return names
