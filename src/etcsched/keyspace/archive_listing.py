"""How a leader looks at the archive: keys, a page at a time, and the sizes of a few runs."""

from __future__ import annotations

from typing import Final

from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range, RangeResult

__all__ = ["listed", "ranges"]

_OF_A_JOB: Final = 5_000
_A_PAGE: Final = 500
_A_SAMPLE: Final = 20


def ranges(keys: Keys, effect: fx.ListArchive) -> tuple[Range, Range | None]:
    """What to list, and of a page a few with their values."""
    begin, end = keys.archive_of(effect.job)
    if effect.job is not None:
        return Range(begin, end, limit=_OF_A_JOB, keys_only=True), None
    if effect.after:
        begin = f"{keys.archive_prefix}{effect.after}\0"
    return Range(begin, end, limit=_A_PAGE, keys_only=True), Range(begin, end, limit=_A_SAMPLE)


def listed(
    keys: Keys, effect: fx.ListArchive, found: RangeResult | None, sampled: RangeResult | None
) -> ev.ArchiveListed:
    """``found`` None: etcd didn't answer."""
    if found is None:
        return ev.ArchiveListed(effect.job, (), is_last=False)
    return ev.ArchiveListed(
        effect.job,
        tuple((*keys.parse_archive(kv.key), kv.mod_revision) for kv in found.kvs),
        is_last=not found.more,
        count=found.count,
        sample_bytes=tuple(
            len(kv.key) + len(kv.value) for kv in (sampled.kvs if sampled is not None else ())
        ),
    )
