"""Members that die or freeze under load: nothing acknowledged is lost, nothing unknown hidden."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from etcsched.core.errors import ClusterUnreachable, OutcomeUnknown
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.ops import Compare, Put, Range, Target, Txn
from tests.conftest import StartEtcd
from tests.support.etcd_cluster import EtcdCluster, certainly

WRITERS = 16


class Load:
    """Writers that each create key after key, every key once."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self.acknowledged: set[str] = set()
        self.unknown: set[str] = set()
        self.unreachable = 0
        self._stopping = False
        self._changed = asyncio.Event()

    async def write(self, writer: int) -> None:
        for number in itertools.count():
            if self._stopping:
                return
            key = f"load/{writer}/{number}"
            create = Txn((Compare(key, Target.CREATE, 0),), (Put(key, b""),))
            try:
                assert (await self._client.txn(create, timeout_s=2)).succeeded
                self.acknowledged.add(key)
            except OutcomeUnknown:
                self.unknown.add(key)
            except ClusterUnreachable:
                self.unreachable += 1
                await asyncio.sleep(0.02)
            self._changed.set()

    async def more(self, count: int) -> None:
        """Until so many more keys are acknowledged."""
        target = len(self.acknowledged) + count
        async with asyncio.timeout(30):
            while len(self.acknowledged) < target:
                self._changed.clear()
                await self._changed.wait()

    def stop(self) -> None:
        self._stopping = True


async def prefer_a_follower(client: EtcdClient, cluster: EtcdCluster) -> int:
    """Losing a follower starts no election, during which any write may time out."""
    leader = await cluster.leader()
    while index_of_preferred(client) == leader:
        client.put_behind(client.preferred())
    return index_of_preferred(client)


def index_of_preferred(client: EtcdClient) -> int:
    return client.connections.index(client.preferred())


@pytest.mark.parametrize("leader_first", [False, True])
async def test_a_kill_and_a_freeze_under_load(start_etcd: StartEtcd, leader_first: bool) -> None:
    cluster = await start_etcd(members=3)
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        load = Load(client)
        async with asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(load.write(writer))
            await load.more(200)
            first = await cluster.leader() if leader_first else index_of_preferred(client)
            cluster.kill(first)
            await load.more(200)
            await cluster.restart(first)
            await cluster.wait_healthy()
            frozen = index_of_preferred(client)
            cluster.freeze(frozen)
            await load.more(200)
            load.stop()
        assert load.unknown  # what was in flight through the frozen member
        cluster.thaw(frozen)
        await cluster.wait_healthy()
        await check_all_kept(client, load)


async def check_all_kept(client: EtcdClient, load: Load) -> None:
    stored = {kv.key for kv in (await client.range(Range("load/", "load0", keys_only=True))).kvs}
    assert load.acknowledged <= stored
    assert stored <= load.acknowledged | load.unknown


async def test_a_write_is_sent_elsewhere_only_if_it_was_certainly_not_sent(
    start_etcd: StartEtcd,
) -> None:
    cluster = await start_etcd(members=3)
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        put = Txn((), (Put("a", b""),))
        killed = await prefer_a_follower(client, cluster)
        await certainly(client, put)
        cluster.kill(killed)
        # The connection's end is noticed before anything is sent, or the outcome is unknown.
        await certainly(client, put)
        assert index_of_preferred(client) != killed
        await cluster.restart(killed)
        await cluster.wait_healthy()
        frozen = await prefer_a_follower(client, cluster)
        await certainly(client, put)
        cluster.freeze(frozen)
        with pytest.raises(OutcomeUnknown, match="may or may not have done Txn"):
            await client.txn(put, timeout_s=0.5)
        await certainly(client, put)
        cluster.thaw(frozen)


@pytest.mark.parametrize("in_txn", [False, True], ids=["range", "txn"])
async def test_a_read_finds_the_member_that_answers(start_etcd: StartEtcd, in_txn: bool) -> None:
    cluster = await start_etcd(members=3)
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:

        async def read() -> None:
            if in_txn:
                await client.txn(Txn((), (Range("a"), Txn((), (Range("b"),)))), timeout_s=3)
            else:
                await client.range(Range("a"), timeout_s=3)

        frozen = await prefer_a_follower(client, cluster)
        await read()
        cluster.freeze(frozen)
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await read()
        assert loop.time() - started_s < 3
        assert index_of_preferred(client) != frozen
        cluster.thaw(frozen)


async def test_without_a_quorum_nothing_is_hidden(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd(members=3)
    async with EtcdClient(EtcdConfig(**cluster.config_kwargs)) as client:
        await client.range(Range("a"))
        survivor = await leaderless_survivor(cluster)
        reads = Txn((), (Range("a"),))
        for read in (client.range(Range("a"), timeout_s=1), client.txn(reads, timeout_s=1)):
            with pytest.raises(ClusterUnreachable, match="can't be reached") as refusal:
                await read
            assert not isinstance(refusal.value, OutcomeUnknown)
        with pytest.raises(ClusterUnreachable):
            await client.txn(Txn((), (Put("a", b""),)), timeout_s=1)
        for index in {0, 1, 2} - {survivor}:
            cluster.members[index].spawn()
        await cluster.wait_healthy()
        terms: list[int] = []
        client.on_raft_term = terms.append
        before = client.last_raft_term
        put = await certainly(client, Txn((), (Put("a", b""),)))
        assert put.raft_term > before
        assert terms == [client.last_raft_term]


async def leaderless_survivor(cluster: EtcdCluster) -> int:
    leader = await cluster.leader()
    followers = [index for index in range(3) if index != leader]
    cluster.kill(leader)
    cluster.kill(followers[0])
    return followers[1]
