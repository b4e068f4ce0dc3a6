"""Leaders that die, freeze, resign: another takes over, and no tick is lost or doubled."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from etcsched.core.records import Kind, Run, Term
from etcsched.keyspace.codec import decode
from etcsched.keyspace.ops import EventType, WatchEvent
from tests.e2e.scene import EVERY_SECOND, Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")
SLACK_S = 5.0
"""For etcd, which ends leases twice a second, and for a busy host; the benchmark measures it."""
"""etcd looks for expired leases every 0.5 s; the rest is this machine's."""


def steady(scene: Scene) -> dict[str, object]:
    """Each second, and over before the next."""
    return {"run": scene.beats("beats=10"), "cron": EVERY_SECOND, "overlap": "queue"}


async def next_event(scene: Scene, is_it: Callable[[WatchEvent], bool], what: str) -> WatchEvent:
    """The first one from now on."""
    seen = len(scene.history.events)

    def look() -> WatchEvent | None:
        return next((event for event in scene.history.events[seen:] if is_it(event)), None)

    return await scene.history.until(look, what)


async def test_leaders_killed_at_any_moment(cluster: Scene) -> None:
    await cluster.apply(pulse=steady(cluster), other=steady(cluster))
    keys = cluster.keys

    def puts(prefix: str) -> Callable[[WatchEvent], bool]:
        return lambda e: e.type is EventType.PUT and e.kv.key.startswith(prefix)

    moments = {
        "a run created": puts(keys.of(Kind.RUN)),
        "an outcome reported": lambda e: puts(keys.of(Kind.REPORT))(e) and e.kv.version == 2,
        "a run archived": puts(keys.archive_prefix),
        "the watermark moved": puts(keys.watermark),
    }
    for what, is_it in moments.items():
        await next_event(cluster, is_it, what)
        leader = cluster.leader()
        assert leader is not None
        await cluster.world.kill(leader)
        await cluster.leads(unlike=leader, within_s=cluster.world.ttl_s + SLACK_S)
        await next_event(cluster, puts(keys.of(Kind.ASSIGNMENT)), "a dispatch by the next leader")
        await cluster.world.start(leader)
    await cluster.settle()
    cluster.check_all_completed("pulse")
    cluster.check_all_completed("other")


async def test_a_leader_killed_as_it_takes_over(cluster: Scene) -> None:
    """A of A, B, C dies, and B with its term just won: C leads, and settles what both left."""
    await cluster.apply(pulse1=steady(cluster))
    first = await cluster.leads()
    await cluster.world.kill(first)
    second = await cluster.leads(unlike=first)
    await cluster.world.kill(second)
    third = await cluster.leads(unlike=second)
    assert third not in (first, second)
    await cluster.world.start()
    await cluster.settle()
    cluster.check_all_completed("pulse1")


async def test_the_middle_candidate_of_three_dies(cluster: Scene) -> None:
    await cluster.apply(pulse2=steady(cluster))
    first, middle, last = cluster.standing()
    assert first == cluster.leader()
    await cluster.world.kill(middle)
    await cluster.history.until(lambda: cluster.standing() == [first, last], "the middle's end")
    assert cluster.leader() == first
    await cluster.world.kill(first)
    assert await cluster.leads(unlike=first) == last
    await cluster.world.start()
    await cluster.settle()
    cluster.check_all_completed("pulse2")


async def test_a_frozen_leader_wakes_up_deposed(cluster: Scene) -> None:
    await cluster.apply(pulse3=steady(cluster))
    frozen = await cluster.leads()
    old = cluster.term
    assert old is not None
    cluster.world.freeze(frozen)
    await cluster.leads(unlike=frozen, within_s=cluster.world.ttl_s + SLACK_S)
    await next_event(
        cluster, lambda e: e.kv.key.startswith(cluster.keys.of(Kind.ASSIGNMENT)), "a dispatch"
    )
    woken_at = cluster.history.revision
    cluster.world.thaw(frozen)
    await cluster.history.until(lambda: frozen in cluster.standing(), "the woken one to stand by")
    assert cluster.leader() != frozen
    await cluster.settle()
    by_old_term = [
        event.kv.key
        for event in cluster.history.events
        if event.kv.mod_revision > woken_at
        and event.type is EventType.PUT
        and _last_term(cluster, event) == old.number
    ]
    assert by_old_term == []
    assert any("leads no longer" in line for node, line in cluster.world.log if node == frozen)


def _last_term(scene: Scene, event: WatchEvent) -> int | None:
    if event.kv.key == scene.keys.term:
        return decode(Term, event.kv.value).number
    if event.kv.key.startswith((scene.keys.of(Kind.RUN), scene.keys.archive_prefix)):
        return decode(Run, event.kv.value).history[-1].term
    return None


async def test_a_leader_that_stops_hands_over_at_once(cluster: Scene) -> None:
    await cluster.apply(pulse4=steady(cluster))
    leader = await cluster.leads()
    cluster.world.nodes[leader].signal(signal.SIGTERM)
    await cluster.leads(unlike=leader, within_s=2.0)
    assert await cluster.world.nodes[leader].wait() == 0
    await cluster.world.start(leader)
    await cluster.runs_ended("pulse4", 2)
    await cluster.settle()
    cluster.check_all_completed("pulse4")
