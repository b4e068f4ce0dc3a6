"""What ends a leadership: whatever goes wrong in it, nobody leads and does nothing."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from etcsched.core.clock import Instant
from etcsched.core.errors import PermissionDenied
from etcsched.core.leader import effects as fx
from etcsched.core.leader import events as ev
from etcsched.core.leader.machine import LeaderMachine
from etcsched.core.records import Term
from etcsched.core.times import Utc
from etcsched.core.view import View
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.transactions import LeaderGuard
from etcsched.ports import LeaseInfo
from etcsched.scheduler.leadership import Leadership
from etcsched.scheduler.metrics import SchedulerMetrics
from etcsched.scheduler.node import instant_now
from etcsched.testing.model_etcd import ModelEtcd
from etcsched.testing.model_store import ModelStore

NOW = Utc("2026-11-22T12:00:00.000Z")
TERM = Term(number=1, leader="s1", election_key="5", token=3, since=NOW)


class Machine:
    """Begins with these effects; fails at the first event."""

    is_halfway = False

    def __init__(self, *effects: fx.Effect, wakes_in_s: float = 1000.0) -> None:
        self._effects = list(effects)
        self._wakes_in_s = wakes_in_s

    def take_over(self) -> list[fx.Effect]:
        return self._effects

    def next_wake_s(self) -> float:
        return instant_now().mono_s + self._wakes_in_s

    def handle_all(self, events: tuple[ev.LeaderEvent, ...], now: Instant) -> list[fx.Effect]:
        raise ZeroDivisionError(f"{len(events)} at {now}")


class Forbidding(ModelEtcd):
    async def lease_time_to_live(self, lease: int, *, timeout_s: float = 5.0) -> LeaseInfo:
        raise PermissionDenied(f"lease {lease}, {timeout_s}")


def leadership_of(machine: Machine) -> Leadership:
    keys = Keys()
    return Leadership(
        Forbidding(ModelStore()),
        keys,
        cast(LeaderMachine, machine),
        LeaderGuard(keys, TERM, 4),
        instant_now,
        pytest.fail,
        SchedulerMetrics("s1", View(), lambda: None, instant_now),
    )


async def lead(machine: Machine) -> None:
    async with asyncio.timeout(10):
        await leadership_of(machine).run()


@pytest.mark.parametrize("is_halfway", [False, True])
async def test_a_fault_in_what_is_due_by_time(is_halfway: bool) -> None:
    """Only logged, it would leave a leader that decides nothing, for as long as it lives."""
    machine = Machine(wakes_in_s=0.01)
    machine.is_halfway = is_halfway
    with pytest.raises(ZeroDivisionError):
        await lead(machine)


async def test_a_refusal_is_told_as_etcd_told_it() -> None:
    with pytest.raises(PermissionDenied):
        await lead(Machine(fx.ConfirmLoss(agent="a1", lease=7)))


async def test_what_is_told_before_its_first_turn_counts() -> None:
    """The standby doesn't follow any more by then: of a job that comes just there, no tick would
    ever be due."""
    leadership = leadership_of(Machine())
    leadership.tell(ev.RaftTermSeen(7), ev.TimerFired())
    with pytest.raises(ZeroDivisionError, match="2 at"):
        async with asyncio.timeout(10):
            await leadership.run()
