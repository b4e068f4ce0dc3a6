"""Looking for what is wrong, or soon will be, and saying what to do about it."""

from __future__ import annotations

from collections.abc import Callable

from etcsched.keyspace.keys import Keys
from etcsched.operator.agents import read_agents
from etcsched.operator.doctor.cluster import (
    check_agents,
    check_clocks,
    check_held,
    check_leader,
    check_leases,
    check_namesakes,
    check_records,
    check_ticks,
    held_runs,
)
from etcsched.operator.doctor.etcd import (
    check_compaction,
    check_history,
    check_latency,
    check_members,
    check_sizes,
)
from etcsched.operator.doctor.failing import check_failing
from etcsched.operator.doctor.finding import Finding, Level
from etcsched.operator.doctor.jobs import check_chains, check_eligible, check_waiting
from etcsched.operator.explain import view_at
from etcsched.operator.schedulers import read_leader
from etcsched.operator.store import listed
from etcsched.ports import Etcd

__all__ = ["Finding", "Level", "examine"]


async def examine(etcd: Etcd, keys: Keys, now_ms: Callable[[], int]) -> list[Finding]:
    """Every check's finding, in a fixed order. Raises only where etcd itself can't be reached."""
    members = await etcd.status()
    findings = [*check_members(members), *check_sizes(members)]
    findings += await check_compaction(etcd, keys)
    findings += await check_history(etcd, keys)
    findings += await check_latency(etcd, keys)
    leader = await read_leader(etcd, keys, now_ms())
    agents = await read_agents(etcd, keys, now_ms())
    kvs = await listed(etcd, (keys.watched, keys.watched_end))
    findings += check_records(keys, kvs)
    findings += check_leases(keys, kvs)
    findings += [check_leader(leader), *check_namesakes(leader)]
    findings += await check_ticks(etcd, keys, kvs, now_ms())
    view = view_at(keys, kvs, max((kv.mod_revision for kv in kvs), default=0))
    findings += check_chains(view)
    held = held_runs(keys, kvs)
    of_agents = check_agents(agents, held)
    findings += of_agents
    if not any(finding.level is Level.BAD for finding in of_agents):
        findings += check_eligible(view, now_ms())
        findings += check_waiting(view, now_ms())
    findings += await check_failing(etcd, keys, view, now_ms())
    findings += check_held(held)
    findings += check_clocks(leader, agents)
    return findings
