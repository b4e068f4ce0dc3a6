"""When the looks at etcd's members end, by members that say what a test lets them say."""

from __future__ import annotations

import asyncio

import pytest

from etcsched.core.outage import POLLS_PER_ELECTION_TIMEOUT, Sight
from etcsched.etcd import outage_watch
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.member_line import MemberLine
from etcsched.etcd.outage_watch import CALM_AFTER, OutageWatch

ELECTION_TIMEOUT_S = 3.0
CALM_POLLS = CALM_AFTER * POLLS_PER_ELECTION_TIMEOUT


class World:
    """The clock moves by one step with each look."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.looks = 0
        self.ends_at_look = 0

    def boottime_s(self) -> float:
        return self.now_s


class LedMember(MemberLine):
    """It always has a leader, and another member's connection may end just after a look at it."""

    world: World

    async def look(self, limit_s: float) -> Sight:
        self.world.now_s += limit_s
        self.world.looks += 1
        if self.world.looks == self.world.ends_at_look:
            self._ended.set()
        return Sight.HAS_LEADER


async def looks_until_calm(monkeypatch: pytest.MonkeyPatch, *, ends_at_look: int = 0) -> int:
    world = World()
    world.ends_at_look = ends_at_look
    monkeypatch.setattr(outage_watch, "boottime_s", world.boottime_s)
    async with EtcdClient(EtcdConfig()) as client:
        watch = OutageWatch(
            client, silent_s=lambda: 0.0, suspicious_s=lambda: 1.0, on_proved=lambda _sent_s: None
        )
        line = LedMember(1, (), client.config, watch._ended)
        line.world = world
        watch._lines[1] = line
        watch._ended.set()
        await watch._poll_while_out(ELECTION_TIMEOUT_S)
    return world.looks


async def test_an_end_during_the_looks_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old leader says for two election timeouts more that it is one."""
    calm = await looks_until_calm(monkeypatch)
    assert calm == CALM_POLLS + 1
    for look in (1, calm - 1, calm):
        assert await looks_until_calm(monkeypatch, ends_at_look=look) == look + CALM_POLLS + 1


async def test_the_members_are_listed_while_looks_go_on_and_see_a_leader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keepalives can stay silent for long though etcd has a leader."""
    listed = asyncio.Event()
    async with EtcdClient(EtcdConfig()) as client:
        watch = OutageWatch(
            client, silent_s=lambda: 100.0, suspicious_s=lambda: 1.0, on_proved=lambda _sent_s: None
        )

        async def refresh() -> bool:
            listed.set()
            return True

        monkeypatch.setattr(watch, "_refresh", refresh)
        watch._is_polling = True
        holding = asyncio.create_task(watch._hold_lines())
        await asyncio.sleep(0)
        watch._saw((Sight.DOWN, Sight.LEADERLESS))
        await asyncio.sleep(0)
        assert not listed.is_set()
        watch._saw((Sight.DOWN, Sight.HAS_LEADER))
        async with asyncio.timeout(1.0):
            await listed.wait()
        holding.cancel()
