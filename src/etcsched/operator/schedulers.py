"""Who leads, and who stands for election, is barred from it, or shares another's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from etcsched.core.records import Barred, Candidate, Kind, Term, Watermark
from etcsched.core.times import Utc, ms_of
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import range_end_of
from etcsched.operator.store import found, listed, read
from etcsched.ports import Etcd

__all__ = ["LeaderView", "SchedulerView", "read_leader"]


class SchedulerView(msgspec.Struct, frozen=True, kw_only=True):
    """``clock_ahead_ms``: how far its clock was ahead of ours at least, where that is provable.
    ``barred``: why it doesn't stand for election, though it is here; empty: it does.
    ``shares_name``: another process of this name is here, too. It is a second scheduler, or one of
    both was killed, and stands until its lease ends."""

    node: str
    leads: bool
    host: str
    pid: int
    since: Utc
    version: str
    clock_ahead_ms: int = 0
    barred: str = ""
    shares_name: bool = False


class LeaderView(msgspec.Struct, frozen=True, kw_only=True):
    """``node`` "": nobody leads. The term's record is the last leader's until the next has won.
    ``silent_s``: for how long it hasn't renewed its lease, if that is longer than one that is well
    takes; then ``lease_left_s`` says when another may lead."""

    node: str
    term: Term | None
    watermark: Utc | None
    schedulers: tuple[SchedulerView, ...]
    silent_s: int = 0
    lease_left_s: int = 0

    @property
    def silence(self) -> str:
        """In words; empty: it answers."""
        if not self.silent_s:
            return ""
        left = f"in {self.lease_left_s} s" if self.lease_left_s else "now"
        return (
            f"hasn't answered for {self.silent_s} s; its lease runs out {left}, then another leads"
        )


async def read_leader(etcd: Etcd, keys: Keys, now_ms: int) -> LeaderView:
    (at_term, at_watermark), _ = await read(etcd, [keys.term, keys.watermark])
    term, watermark = found(Term, at_term), found(Watermark, at_watermark)
    standing = sorted(
        await listed(etcd, keys.all_of(Kind.ELECTION)), key=lambda kv: kv.create_revision
    )
    # The first candidate leads once it has won the term; until then nobody does.
    leads = bool(standing) and term is not None and term.token == standing[0].create_revision
    schedulers = []
    for position, kv in enumerate(standing):
        candidate = found(Candidate, kv)
        if candidate is not None:
            schedulers.append(_view_of(candidate, now_ms, leads=leads and position == 0))
    for kv in await listed(etcd, (keys.barred_prefix, range_end_of(keys.barred_prefix))):
        barred = found(Barred, kv)
        if barred is not None:
            schedulers.append(_view_of(barred, now_ms, barred=barred.reason))
    silent_s, left_s = await _silence(etcd, standing[0].lease) if leads else (0, 0)
    return LeaderView(
        silent_s=silent_s,
        lease_left_s=left_s,
        node=term.leader if leads and term is not None else "",
        term=term,
        watermark=watermark.through if watermark is not None else None,
        schedulers=_by_process(schedulers),
    )


def _by_process(schedulers: Iterable[SchedulerView]) -> tuple[SchedulerView, ...]:
    """One for each process. Its last word counts, unless it leads by a session before, whose lease
    hasn't ended."""
    last: dict[tuple[str, str, int, Utc], SchedulerView] = {}
    for one in schedulers:
        process = (one.node, one.host, one.pid, one.since)
        before = last.get(process)
        if before is None or one.barred or not before.leads:
            last[process] = one
    of_name = Counter(one.node for one in last.values())
    return tuple(
        msgspec.structs.replace(one, shares_name=of_name[one.node] > 1) for one in last.values()
    )


def _view_of(
    node: Candidate | Barred, now_ms: int, *, leads: bool = False, barred: str = ""
) -> SchedulerView:
    return SchedulerView(
        node=node.node,
        leads=leads,
        host=node.host,
        pid=node.pid,
        since=node.since,
        version=node.version,
        clock_ahead_ms=max(ms_of(node.clock) - now_ms, 0),
        barred=barred,
    )


async def _silence(etcd: Etcd, lease: int) -> tuple[int, int]:
    """A keepalive comes every quarter of the lease's time, and etcd tells whole seconds. For how
    long there was none, and what is left."""
    if not lease:
        return 0, 0  # Put by hand.
    info = await etcd.lease_time_to_live(lease)
    if info.ttl_s * 2 >= info.granted_s:
        return 0, 0
    left_s = max(info.ttl_s, 0)
    return info.granted_s - left_s, left_s
