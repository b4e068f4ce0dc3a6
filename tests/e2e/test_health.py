"""Both daemons under a health check: well, cut off from etcd, frozen, and gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from msgspec.structs import replace

from etcsched.core.records import Kind, Term
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.keyspace.codec import decode, encode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import Delete, Put, Range, Txn
from tests.conftest import StartEtcd
from tests.e2e.spoken import PATIENCE_S, address_of, measured, said
from tests.support.local_world import Finished, LocalWorld, run_cli


@pytest_asyncio.fixture
async def world(tmp_path: Path, start_etcd: StartEtcd) -> AsyncIterator[LocalWorld]:
    world = LocalWorld(tmp_path / "world", await start_etcd())
    world.add_scheduler("s1", "--listen=127.0.0.1:0")
    world.add_agent("a1", "--listen=127.0.0.1:0", "--log-format=json")
    await world.start()
    yield world
    await world.stop()


async def health(world: LocalWorld, node: str) -> Finished:
    address = await address_of(world, node)
    return await run_cli("--timeout=2s", "health", "--address", address)


async def until(world: LocalWorld, node: str, code: int, words: str) -> None:
    said: Finished | None = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while said is None or said.code != code or words not in said.out + said.err:
                said = await health(world, node)
    except TimeoutError:
        pytest.fail(f"{node} is not {words!r} ({code}), but {said}")
    assert (said.out + said.err).count("\n") == 1
    assert bool(said.out) == (code == 0)


async def test_well_and_cut_off_and_well_again(world: LocalWorld) -> None:
    await until(world, "s1", 0, "scheduler s1: leads, term 1")
    await until(world, "a1", 0, "agent a1: 0 of 16 slots in use")
    world.etcd.kill(0)
    await until(world, "s1", 1, "scheduler s1: it has no session with etcd")
    await world.etcd.restart(0)
    await until(world, "s1", 0, "scheduler s1: leads")
    await until(world, "a1", 0, "slots in use")
    drained = await world.cli("agents", "drain", "a1")
    assert drained.code == 0, drained
    await until(world, "a1", 0, "agent a1: is drained")


async def test_a_candidate_that_a_hand_wrote_keeps_all_from_leading(world: LocalWorld) -> None:
    """Or a copy of another etcd: they have no leases."""
    await until(world, "s1", 0, "scheduler s1: leads, term 1")
    keys, etcd = Keys(), EtcdClient(EtcdConfig(**world.etcd.config_kwargs))
    try:
        (own,) = (await etcd.range(Range(*keys.all_of(Kind.ELECTION)))).kvs
        by_hand = keys.of(Kind.ELECTION, "by-hand")
        await etcd.txn(Txn((), (Put(by_hand, own.value), Put(own.key, own.value))))
        await said(world, "s1", f"etcdctl del {by_hand}")
        await until_leased(etcd, own.key, own.lease)
        await until(world, "s1", 0, "scheduler s1: leads, term 1")
        await world.kill("s1")
        world.log.clear()
        await world.start("s1")
        await until(world, "s1", 1, f"scheduler s1: can't lead: {by_hand} in the election")
        await etcd.txn(Txn((), (Delete(by_hand),)))
        await until(world, "s1", 0, "scheduler s1: leads, term 2")
    finally:
        await etcd.close()


async def test_two_schedulers_of_one_name_lead_one_after_the_other_and_say_so(
    world: LocalWorld,
) -> None:
    await until(world, "s1", 0, "scheduler s1: leads, term 1")
    world.add_scheduler("twin", "--id=s1", "--listen=127.0.0.1:0")
    await world.start("twin")
    for node, other in (("s1", "twin"), ("twin", "s1")):
        there = await said(world, node, "another scheduler of this name runs on host ")
        assert f"as process {world.nodes[other].pid} " in there
    await until(world, "s1", 0, "scheduler s1: leads, term 1; another scheduler has its name")
    await until(world, "twin", 0, "scheduler s1: stands by; another scheduler has its name")
    await world.end("s1")
    await until(world, "twin", 0, "scheduler s1: leads, term 2\n")


async def until_leased(etcd: EtcdClient, key: str, lease: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await etcd.range(Range(key))).kvs[0].lease != lease:  # noqa: ASYNC110 - etcd's
            await asyncio.sleep(0.05)


async def test_frozen_and_gone(world: LocalWorld) -> None:
    for node in ("s1", "a1"):
        await until(world, node, 0, node)
        world.freeze(node)
        await until(world, node, 1, "no answer within 2 s")
        world.thaw(node)
        await until(world, node, 0, node)
        await world.kill(node)
        await until(world, node, 1, "no daemon at")


async def test_every_line_of_the_log_is_json(world: LocalWorld) -> None:
    await until(world, "a1", 0, "agent a1")
    assert await world.end("a1") == 0
    entries = [json.loads(line) for node, line in world.log if node == "a1"]
    assert {(entry["role"], entry["node"]) for entry in entries} == {("agent", "a1")}
    assert entries[-1]["message"] == "agent a1 stopped"
    assert entries[0]["at"] <= entries[-1]["at"]
    # What ends it is such a line, too.
    taken = await address_of(world, "s1")
    refused = await world.cli(
        "agent", "--id=a1", "--log-format=json", f"--listen={taken}", "--output-listen=off",
        f"--state-dir={world.directory / 'other'}",
    )  # fmt: skip
    assert refused.code == 1, refused
    last = json.loads(refused.err.splitlines()[-1])
    assert last["level"] == "error"
    assert f"can't listen on {taken}" in last["message"]


async def test_a_port_that_is_taken(world: LocalWorld) -> None:
    """The one that was asked for ends the daemon."""
    taken = await address_of(world, "s1")
    refused = await world.cli("scheduler", "--id=s2", f"--listen={taken}")
    assert refused.code == 1
    assert (
        f"can't listen on {taken}: Address already in use; choose" in refused.err.splitlines()[-1]
    )


async def test_metrics_of_runs_and_of_a_fence(world: LocalWorld, tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(
        "jobs:\n"
        "  quick: {run: {exec: ['true']}, schedule: {cron: '* * * * * *'}, overlap: skip}\n"
        "  long: {run: {exec: [sleep, '600']}, state: ad_hoc_active, on_agent_loss: hold}\n"
    )
    applied = await world.cli("apply", str(file))
    assert applied.code == 0, applied
    found = await measured(world, "s1", 'etcsched_runs_ended_total{state="completed"}', 2)
    assert found["etcsched_leader"] == 1
    assert found["etcsched_leaderships_total"] == 1
    assert found["etcsched_lateness_seconds_count"] >= 2
    assert 0 < found["etcsched_lateness_seconds_sum"] < 30
    assert found["etcsched_batch_writes_count"] >= 2
    assert found['etcsched_etcd_call_seconds_count{call="Txn"}'] >= 2
    (endpoint,) = (urlsplit(url).netloc for url in world.etcd.endpoints)
    assert found[f'etcsched_etcd_db_size_bytes{{endpoint="{endpoint}"}}'] > 10_000
    assert found["etcsched_session_slack_seconds_count"] >= 1
    for steering in (("pause", "quick"), ("trigger", "long")):
        done = await world.cli("jobs", *steering)
        assert done.code == 0, done
    await said(world, "a1", '"message":"claimed long/')
    await measured(world, "s1", 'etcsched_runs{state="running"}')
    found = await measured(world, "a1", "etcsched_agent_slots_in_use")
    assert found["etcsched_process_start_seconds_count"] >= 2
    # Frozen, etcd proves no outage: what runs has to stop before its lease could end.
    world.etcd.freeze(0)
    found = await measured(world, "a1", "etcsched_fence_slack_seconds_count")
    assert found['etcsched_processes_ended_total{cause="fenced"}'] == 1
    assert found["etcsched_fence_slack_seconds_sum"] > 0
    await measured(world, "a1", "etcsched_sessions_lost_total")
    await measured(world, "s1", "etcsched_sessions_lost_total")
    world.etcd.thaw(0)


async def test_a_scheduler_that_must_not_lead_is_named(world: LocalWorld) -> None:
    """A newer program has written records that this one doesn't know; then that is taken back."""
    keys = Keys()
    async with EtcdClient(EtcdConfig(**world.etcd.config_kwargs)) as etcd:

        async def term() -> Term:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    if found := (await etcd.range(Range(keys.term))).kvs:
                        return decode(Term, found[0].value)
                    await asyncio.sleep(0.05)

        async def schedulers(wanted: Callable[[list[dict[str, Any]]], bool]) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    listed = await world.cli("leader", "--json")
                    if wanted(json.loads(listed.out)["schedulers"]):
                        return

        now = await term()
        await etcd.txn(Txn((), (Put(keys.term, encode(replace(now, least_schema=99))),)))
        await schedulers(lambda all_: len(all_) == 1 and "upgrade etcsched" in all_[0]["barred"])
        shown = await world.cli("status")
        assert "leader     nobody leads: nothing is decided; mend what bars them\n" in shown.out
        assert "barred     s1: the cluster's records are of schema 99" in shown.out
        await etcd.txn(Txn((), (Put(keys.term, encode(now)),)))
        await schedulers(lambda all_: len(all_) == 1 and all_[0]["leads"])
        assert (await etcd.range(Range(keys.barred("s1")))).kvs == ()
