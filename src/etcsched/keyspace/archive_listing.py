"""How a leader looks at the archive: a job's keys, or a page of all jobs' runs."""

from __future__ import annotations

from typing import Final

from etcsched.core.checks import problem_with
from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.core.records import Run
from etcsched.keyspace.codec import MalformedRecord, decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, Range, RangeResult

__all__ = ["listed", "listing", "record_at"]

_OF_A_JOB: Final = 5_000
_A_PAGE: Final = 500


def record_at(effect: fx.ReadArchived, kv: KeyValue) -> Run:
    """``MalformedRecord`` also for one that is another run's: a hand has copied it."""
    run = decode(Run, kv.value)
    problem = problem_with((effect.job, effect.run_id), run)
    if problem is not None:
        raise MalformedRecord(problem)
    return run


def listing(keys: Keys, effect: fx.ListArchive) -> Range:
    """A page with its values, which say how much the archive takes."""
    begin, end = keys.archive_of(effect.job)
    if effect.job is not None:
        return Range(begin, end, limit=_OF_A_JOB, keys_only=True)
    if effect.after:
        begin = f"{keys.archive_prefix}{effect.after}\0"
    return Range(begin, end, limit=_A_PAGE)


def listed(keys: Keys, effect: fx.ListArchive, found: RangeResult | None) -> ev.ArchiveListed:
    """``found`` None: etcd didn't answer."""
    if found is None:
        return ev.ArchiveListed(effect.job, (), is_last=False)
    return ev.ArchiveListed(
        effect.job,
        tuple(
            (*place, kv.mod_revision, len(kv.key) + len(kv.value))
            for kv in found.kvs
            if (place := keys.parse_archive(kv.key)) is not None
        ),
        is_last=not found.more,
        count=found.count,
    )
