"""Of etcd: its members, its size and history, how fast it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from etcsched.core.errors import Compacted
from etcsched.core.records import (
    ClusterSettings,
    Kind,
)
from etcsched.core.sizes import size_text
from etcsched.etcd.releases import fault_of, weakness_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Range
from etcsched.operator.cluster import UNTOLD
from etcsched.operator.doctor.finding import Finding, Level
from etcsched.operator.store import found, read
from etcsched.ports import Etcd, MemberStatus

__all__ = ["check_compaction", "check_history", "check_latency", "check_members", "check_sizes"]

_DEFAULT_QUOTA_BYTES: Final = 2 << 30
_MUCH_HISTORY: Final = 1_000_000
_SLOW_MS: Final = 100.0
_READS: Final = 5
_SAMPLE: Final = 100
_ANSWER_S: Final = 5.0


def check_members(members: Sequence[MemberStatus]) -> list[Finding]:
    return [*map(_of_member, members), *_of_alarms(members)]


def _of_member(member: MemberStatus) -> Finding:
    topic = f"etcd {member.endpoint}"
    if member.error:
        return Finding(topic, Level.BAD, member.error, "start it, or take the endpoint out")
    if member.version and (fault := fault_of(member.version)) is not None:
        return Finding(topic, Level.BAD, f"is {fault.text}", fault.advice)
    if member.leader_id == 0:
        advice = "bring back a majority of the members"
        return Finding(topic, Level.BAD, "has no leader", advice)
    if not member.version:
        advice = "nor is it served by HTTP; see with etcdctl endpoint status, as root"
        return Finding(topic, Level.WARNING, f"its version is {UNTOLD}", advice)
    if (weakness := weakness_of(member.version)) is not None:
        return Finding(topic, Level.WARNING, f"is {weakness.text}", weakness.advice)
    return Finding(topic, Level.OK, f"version {member.version}")


def _of_alarms(members: Sequence[MemberStatus]) -> list[Finding]:
    """Every member that tells them tells those of all."""
    told = [member.alarms for member in members if not member.error and member.alarms is not None]
    alarms = sorted({alarm for of_member in told for alarm in of_member})
    if alarms:
        advice = "compact, defragment, then etcdctl alarm disarm"
        return [Finding("etcd alarms", Level.BAD, "; ".join(alarms), advice)]
    if not told and any(not member.error for member in members):
        advice = "look at them as root: etcdctl alarm list"
        return [Finding("etcd alarms", Level.WARNING, UNTOLD, advice)]
    return []


def check_sizes(members: Sequence[MemberStatus]) -> list[Finding]:
    """etcd before 3.6 doesn't tell its quota, so the default one is what sizes are held against."""
    up = [member for member in members if not member.error]
    if up and all(member.db_size_bytes is None for member in up):
        advice = "etcd's own metrics tell it: etcd_mvcc_db_total_size_in_bytes"
        return [Finding("etcd size", Level.OK, UNTOLD, advice)]
    largest = max((member.db_size_bytes or 0 for member in members), default=0)
    if not largest:
        return []
    text = f"{largest / (1 << 20):.1f} MiB; the default quota is {_DEFAULT_QUOTA_BYTES >> 20} MiB"
    if largest > _DEFAULT_QUOTA_BYTES * 3 // 4:
        advice = "compact and defragment, or raise --quota-backend-bytes; keep less history"
        return [Finding("etcd size", Level.WARNING, text, advice)]
    return [Finding("etcd size", Level.OK, text)]


async def check_compaction(etcd: Etcd, keys: Keys) -> list[Finding]:
    revision = (await etcd.range(Range(keys.term, keys_only=True))).revision
    try:
        await etcd.range(Range(keys.term, revision=1, keys_only=True))
        oldest = 1
    except Compacted:
        oldest = await _oldest_revision(etcd, keys)
    kept = revision - oldest
    text = f"{kept:,} revisions of history are kept"
    if kept < _MUCH_HISTORY and oldest > 1:
        return [Finding("etcd compaction", Level.OK, text)]
    advice = "start etcd with --auto-compaction-retention, e.g. 5m"
    if kept < _MUCH_HISTORY:
        text += "; nothing was ever compacted"
        if kept < _MUCH_HISTORY // 100:
            return [Finding("etcd compaction", Level.OK, text)]
    return [Finding("etcd compaction", Level.WARNING, text, advice)]


async def check_history(etcd: Etcd, keys: Keys) -> list[Finding]:
    """By the sizes of some of its runs."""
    (at_settings,), _ = await read(etcd, [keys.of(Kind.SETTINGS)])
    settings = found(ClusterSettings, at_settings) or ClusterSettings()
    begin, end = keys.archive_of()
    sample = await etcd.range(Range(begin, end, limit=_SAMPLE))
    if not sample.kvs:
        return [Finding("history", Level.OK, "no run is over yet")]
    mean_bytes = sum(len(kv.key) + len(kv.value) for kv in sample.kvs) / len(sample.kvs)
    most_bytes, size_bytes = settings.max_history_bytes, sample.count * mean_bytes
    text = (
        f"{sample.count:,} runs, about {size_bytes / (1 << 20):.1f} MiB; "
        f"at most {size_text(most_bytes)} are kept"
    )
    if size_bytes <= most_bytes:
        return [Finding("history", Level.OK, text)]
    text += ", and so less of each job's than its keep says"
    advice = "keep less (keep: {runs: 20}), or raise settings: max_history"
    return [Finding("history", Level.WARNING, text, advice)]


async def _oldest_revision(etcd: Etcd, keys: Keys) -> int:
    """Of a history whose beginning is compacted away. etcd tells it only as it ends a watch of
    what is older. 0: it didn't."""
    try:
        async with (
            asyncio.timeout(_ANSWER_S),
            etcd.watch(keys.term, keys.term + "\0", start_revision=1) as updates,
        ):
            await anext(aiter(updates))
    except Compacted as compacted:
        return compacted.compact_revision
    except TimeoutError:
        pass
    return 0


async def check_latency(etcd: Etcd, keys: Keys) -> list[Finding]:
    loop = asyncio.get_running_loop()
    taken_ms = []
    for _ in range(_READS):
        begun_s = loop.time()
        await etcd.range(Range(keys.term, keys_only=True))
        taken_ms.append((loop.time() - begun_s) * 1000)
    median_ms = sorted(taken_ms)[_READS // 2]
    text = f"{median_ms:.1f} ms for a linearizable read (median of {_READS})"
    if median_ms > _SLOW_MS:
        advice = "look at etcd's disk (etcd_disk_wal_fsync_duration_seconds) and network"
        return [Finding("etcd latency", Level.WARNING, text, advice)]
    return [Finding("etcd latency", Level.OK, text)]
