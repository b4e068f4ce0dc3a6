"""What goes wrong (FAULTS): each kind begins, and is healed by what its beginning returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from etcsched.audit.history import FaultKind
from etcsched.core.records import Kind
from etcsched.keyspace.ops import Delete, Put, Txn
from etcsched.testing.sim.etcd import Outage
from etcsched.testing.sim.scenario import FaultPlan

if TYPE_CHECKING:
    from etcsched.testing.sim.cluster import Cluster
    from etcsched.testing.sim.host import SimHost

Heal = Callable[[], None]


class Begun:
    """``target``: the node that it hit. ``proof``: how it is known that it did."""

    def __init__(self, kind: FaultKind, target: str, proof: str, heal: Heal) -> None:
        self.kind = kind
        self.target = target
        self.proof = proof
        self.heal = heal


def begin(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """None: there is nobody to hit."""
    return KINDS[plan.kind](cluster, plan)


def _nothing() -> None:
    return


# --- schedulers


def _scheduler_killed(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    node = cluster.scheduler_of(plan.target)
    if node is None:
        return None
    node.kill()
    return Begun(
        FaultKind.KILLED,
        node.name,
        "its process is gone",
        lambda: cluster.start_scheduler(node.name),
    )


def _leader_killed_at_write(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """The leader dies right after its ``amount``-th commit from now, before it learns of it."""
    cluster.leader_dies_after = int(plan.amount)
    return Begun(FaultKind.OTHER, "leader", "armed", cluster.revive_schedulers)


def _scheduler_stopped(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    node = cluster.scheduler_of(plan.target)
    if node is None:
        return None
    node.stop()

    def heal() -> None:
        node.kill()
        cluster.start_scheduler(node.name)

    return Begun(FaultKind.KILLED, node.name, "it was stopped", heal)


def _scheduler_frozen(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    node = cluster.scheduler_of(plan.target)
    if node is None or node.process.is_frozen:
        return None
    node.process.freeze()
    return Begun(FaultKind.FROZEN, node.name, "it hears nothing", node.process.thaw)


# --- agents


def _agent_killed(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """Its supervisor lives on."""
    host = cluster.hosts.get(plan.target)
    if host is None or not host.has_agent or host.is_frozen:
        return None
    host.kill_agent()
    return Begun(FaultKind.KILLED, host.plan.agent, "its process is gone", host.start)


def _host_killed(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    host = cluster.hosts.get(plan.target)
    if host is None or not host.has_agent or host.is_frozen:
        return None
    host.kill_all()
    return Begun(FaultKind.KILLED, host.plan.agent, "nothing of it is left", host.start)


def _most_agents_killed(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    hosts = [h for h in cluster.hosts.values() if h.has_agent and not h.is_frozen]
    hit = hosts[: max(1, round(0.8 * len(hosts)))]
    for host in hit:
        host.kill_all()

    def heal() -> None:
        for host in hit:
            host.start()

    return Begun(FaultKind.KILLED, "agents", f"{len(hit)} hosts are gone", heal) if hit else None


def _agents_go_at_write(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """The leader's ``amount``-th write from now finds all agents gone, and their leases ended."""
    hit: list[SimHost] = []

    def go() -> None:
        for host in cluster.hosts.values():
            if host.has_agent and not host.is_frozen and host.agent is not None:
                lease = host.agent.lease
                host.kill_all()
                hit.append(host)
                if lease:
                    cluster.store.lease_revoke(lease)

    def heal() -> None:
        for host in hit:
            host.start()

    cluster.at_write(max(1, int(plan.amount)), go)
    return Begun(FaultKind.KILLED, "agents", "armed", heal)


def _presences_go_at_write(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """... or all of their presences deleted, which they put back within milliseconds."""

    def go() -> None:
        for host in cluster.hosts.values():
            cluster.by_hand(Txn((), (Delete(cluster.keys.of(Kind.PRESENCE, host.plan.agent)),)))

    cluster.at_write(max(1, int(plan.amount)), go)
    return Begun(FaultKind.BY_HAND, "agents", "armed", _nothing)


def _supervisor_killed(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    host = cluster.hosts.get(plan.target)
    if host is None or not host.supervisor.process.is_alive or host.is_frozen:
        return None
    host.supervisor.die()
    return Begun(FaultKind.KILLED, f"{host.plan.agent}", "its supervisor is gone", _nothing)


def _agent_frozen(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    host = cluster.hosts.get(plan.target)
    if host is None or not host.has_agent or host.is_frozen or host.agent is None:
        return None
    process = host.agent.process
    if process.is_frozen:
        return None
    process.freeze()
    return Begun(FaultKind.FROZEN, host.plan.agent, "it hears nothing", process.thaw)


def _host_frozen(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    host = cluster.hosts.get(plan.target)
    if host is None or host.is_frozen or (host.agent is not None and host.agent.process.is_frozen):
        return None
    host.freeze()
    return Begun(FaultKind.HOST_FROZEN, host.plan.agent, "nothing of it moves", host.thaw)


def _agent_stopped(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    host = cluster.hosts.get(plan.target)
    if host is None or not host.has_agent or host.agent is None:
        return None
    agent = host.agent
    agent.process.hear(lambda: agent.stop(kill=plan.amount > 0.7))
    return Begun(FaultKind.KILLED, host.plan.agent, "it was told to stop", host.start)


def _agent_restarted(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    host = cluster.hosts.get(plan.target)
    if host is None or not host.has_agent or host.agent is None:
        return None
    host.agent.process.hear(host.agent.restart)
    return Begun(FaultKind.KILLED, host.plan.agent, "it was told to restart", host.start)


def _disk_full(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    host = cluster.hosts.get(plan.target)
    if host is None or host.disk.fails:
        return None
    host.disk.fails = True

    def heal() -> None:
        host.disk.fails = False

    return Begun(FaultKind.OTHER, host.plan.agent, "the spool refuses", heal)


def _users_gone(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """The agent declines whatever it is given."""
    host = cluster.hosts.get(plan.target)
    if host is None or not host.has_users:
        return None
    host.has_users = False

    def heal() -> None:
        host.has_users = True

    return Begun(FaultKind.OTHER, host.plan.agent, "no job's user is there", heal)


def _twin(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """Another host has an agent of the same id."""
    host = cluster.hosts.get(plan.target)
    if host is None:
        return None
    twin = cluster.add_twin(host)
    return Begun(FaultKind.OTHER, host.plan.agent, "its twin runs", twin.kill_all)


def _presence_deleted(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    host = cluster.hosts.get(plan.target)
    key = cluster.keys.of(Kind.PRESENCE, host.plan.agent) if host is not None else ""
    if host is None or cluster.by_hand(Txn((), (Delete(key),))) == 0:
        return None
    return Begun(FaultKind.BY_HAND, host.plan.agent, "the key is gone", _nothing)


# --- links and clocks of any node


def _cut(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """``amount`` 0 to 6: out, in or both ways; dropped, or (3 on) rejected."""
    link = cluster.link_of(plan.target)
    if link is None:
        return None
    way = int(plan.amount) % 3
    link.cut(outward=way != 1, inward=way != 0, rejects=int(plan.amount) >= 3)
    return Begun(FaultKind.CUT_OFF, cluster.node_name(plan.target), "packets are lost", link.heal)


def _lossy(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """``amount``: the share of answers that are lost."""
    link = cluster.link_of(plan.target)
    if link is None:
        return None
    link.loses = plan.amount
    return Begun(FaultKind.SLOW, cluster.node_name(plan.target), "answers are lost", link.heal)


def _slow(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """``amount``: up to so many seconds each way, in any order."""
    link = cluster.link_of(plan.target)
    if link is None:
        return None
    link.more_s = plan.amount
    return Begun(FaultKind.SLOW, cluster.node_name(plan.target), "packets are late", link.heal)


def _watch_lags(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    link = cluster.link_of(plan.target)
    if link is None:
        return None
    watches = list(link.watches)
    for watch in watches:
        watch.lag_s = plan.amount * link.chance.random()

    def heal() -> None:
        for watch in watches:
            watch.lag_s = 0.0

    return Begun(FaultKind.SLOW, cluster.node_name(plan.target), "watches lag", heal)


def _watch_broken(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """With ``amount``, history is compacted before it can be resumed."""
    link = cluster.link_of(plan.target)
    if link is None:
        return None
    for watch in link.watches:
        watch.break_off()
    if plan.amount:
        cluster.loop.after(0.01, cluster.compact)
    return Begun(FaultKind.SLOW, cluster.node_name(plan.target), "its streams ended", _nothing)


def _clock_stepped(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    clock = cluster.clock_of(plan.target)
    if clock is None:
        return None
    clock.step_wall(plan.amount)
    return Begun(
        FaultKind.CLOCK, cluster.node_name(plan.target), f"{plan.amount:g} s off", clock.set_right
    )


def _clock_rate(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    clock = cluster.clock_of(plan.target)
    if clock is None:
        return None
    clock.run_at(1.0 + plan.amount)
    return Begun(
        FaultKind.CLOCK,
        cluster.node_name(plan.target),
        f"{100 * plan.amount:+.1f} %",
        clock.set_right,
    )


# --- etcd


def _etcd_elects(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """``amount`` > 0.5: with revocations in the new leader's log, and an old leader that goes on
    acknowledging for a moment."""
    revoked: tuple[int, ...] = ()
    stale: frozenset[int] = frozenset()
    if plan.amount > 0.5:
        chance = cluster.etcd.chance
        leases = [lease for lease in cluster.session_leases() if chance.random() < 0.6]
        revoked = tuple(leases)
        stale = frozenset({chance.randrange(cluster.etcd.members)})
    cluster.etcd.elect(revoked, stale)
    return Begun(FaultKind.ETCD, "etcd", f"term {cluster.etcd.raft_term}", _nothing)


def _etcd_down(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """``amount``: an ``Outage``."""
    if cluster.etcd.is_down:
        return None
    cluster.etcd.go_down(Outage(int(plan.amount)))
    return Begun(FaultKind.ETCD, "etcd", "nothing is answered", cluster.etcd.come_up)


def _member_frozen(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    member = int(plan.amount) % cluster.etcd.members
    if cluster.etcd.frozen:
        return None
    cluster.etcd.freeze(member)
    return Begun(
        FaultKind.ETCD, f"member{member}", "it answers nothing", lambda: cluster.etcd.thaw(member)
    )


def _compacted(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    cluster.compact()
    return Begun(FaultKind.ETCD, "etcd", "history is gone", _nothing)


def _no_space(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    store = cluster.store
    store.no_space = True

    def heal() -> None:
        store.no_space = False

    return Begun(FaultKind.ETCD, "etcd", "alarm NOSPACE", heal)


def _etcd_rejects(cluster: Cluster, plan: FaultPlan) -> Begun | None:
    """Whatever is written of one job's runs is too large for etcd, say, or otherwise faulty."""
    store, keys, job = cluster.store, cluster.keys, plan.target
    if store.rejects is not None:
        return None
    begins = (
        keys.of(Kind.RUN, job, ""),
        keys.of(Kind.FAN_OUT, job, ""),
        keys.archive(job, ""),
    )

    def rejects(txn: Txn) -> bool:
        return any(
            rejects(each) if isinstance(each, Txn) else isinstance(each, Put) and is_about(each)
            for each in txn.then
        )

    def is_about(put: Put) -> bool:
        return put.key.startswith(begins)

    def heal() -> None:
        store.rejects = None

    store.rejects = rejects
    return Begun(FaultKind.OTHER, job, "etcd takes no write of its runs", heal)


KINDS: dict[str, Callable[[Cluster, FaultPlan], Begun | None]] = {
    "scheduler killed": _scheduler_killed,
    "leader killed at write": _leader_killed_at_write,
    "scheduler stopped": _scheduler_stopped,
    "scheduler frozen": _scheduler_frozen,
    "agent killed": _agent_killed,
    "host killed": _host_killed,
    "most agents killed": _most_agents_killed,
    "agents go at write": _agents_go_at_write,
    "presences go at write": _presences_go_at_write,
    "supervisor killed": _supervisor_killed,
    "agent frozen": _agent_frozen,
    "host frozen": _host_frozen,
    "agent stopped": _agent_stopped,
    "agent restarted": _agent_restarted,
    "disk full": _disk_full,
    "users gone": _users_gone,
    "twin": _twin,
    "presence deleted": _presence_deleted,
    "cut": _cut,
    "lossy": _lossy,
    "slow": _slow,
    "watch lags": _watch_lags,
    "watch broken": _watch_broken,
    "clock stepped": _clock_stepped,
    "clock rate": _clock_rate,
    "etcd elects": _etcd_elects,
    "etcd down": _etcd_down,
    "member frozen": _member_frozen,
    "compacted": _compacted,
    "no space": _no_space,
    "etcd rejects": _etcd_rejects,
}

__all__ = ["KINDS", "Begun", "begin"]
