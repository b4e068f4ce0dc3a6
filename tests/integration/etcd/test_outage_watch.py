"""The outage proof against real members that are killed, frozen, and left without a leader."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from etcsched.core.outage import Sight
from etcsched.etcd import outage_watch
from etcsched.etcd.binaries import EtcdBinary
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.outage_watch import OutageWatch, measure_election_timeout
from etcsched.etcd.session import boottime_s
from tests.support.etcd_cluster import TEST_OPTIONS, EtcdCluster, Security

PROOF_S = 4.0
"""A proof takes two election timeouts of 0.67 s (the bound by the least TTL) and a poll."""
WITHIN_S = 15.0
STEP_S = 0.02


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(round(WITHIN_S / STEP_S)):
        if is_so():
            return
        await asyncio.sleep(STEP_S)
    raise TimeoutError


class Witness:
    """An ``OutageWatch`` that has held all members. ``silent`` is what its session would say."""

    def __init__(self, client: EtcdClient) -> None:
        self.proofs: list[float] = []
        self.silent_s = 0.0
        self.watch = OutageWatch(
            client,
            silent_s=lambda: self.silent_s,
            suspicious_s=lambda: 1.0,
            on_proved=self.proofs.append,
        )

    async def holds(self, members: int) -> None:
        await until(lambda: self.watch.held == members)

    async def proves(self) -> None:
        begun_s = boottime_s()
        try:
            await until(lambda: bool(self.proofs))
        except TimeoutError:
            seen = ", ".join(sight.value for sight in self.watch.last_sights)
            raise AssertionError(f"last seen: {seen}; {self.watch._why_unknown()}") from None
        assert begun_s < self.proofs[-1] < boottime_s()

    async def proves_nothing(self) -> None:
        """For as long as a proof would take."""
        before = len(self.proofs)
        await asyncio.sleep(PROOF_S)
        assert len(self.proofs) == before


@contextlib.asynccontextmanager
async def witness_of(etcd: EtcdCluster, members: int) -> AsyncIterator[Witness]:
    async with EtcdClient(EtcdConfig(**etcd.config_kwargs)) as client:
        witness = Witness(client)
        watching = asyncio.create_task(witness.watch.run())
        try:
            await witness.holds(members)
            yield witness
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


@pytest.mark.parametrize("election_timeout_ms", [500, 1000, 2000])
async def test_the_measured_election_timeout_is_no_shorter(
    etcd_binary: EtcdBinary, tmp_path: Path, election_timeout_ms: int
) -> None:
    options = msgspec.structs.replace(
        TEST_OPTIONS,
        election_timeout_ms=election_timeout_ms,
        heartbeat_ms=election_timeout_ms // 10,
    )
    etcd = EtcdCluster(etcd_binary, tmp_path, options=options)
    await etcd.start()
    try:
        async with EtcdClient(EtcdConfig(**etcd.config_kwargs)) as client:
            measured_s = await measure_election_timeout(client)
    finally:
        await etcd.stop()
    assert election_timeout_ms / 1000 <= measured_s < election_timeout_ms / 1000 + 0.7


@pytest.mark.parametrize(
    ("security", "authentication"),
    [
        (Security.PLAIN, False),
        (Security.MUTUAL_TLS, False),
        (Security.TLS, True),
    ],
)
async def test_a_killed_etcd_is_proven_down_until_it_is_back(
    etcd_binary: EtcdBinary, tmp_path: Path, security: Security, authentication: bool
) -> None:
    etcd = EtcdCluster(etcd_binary, tmp_path, security=security, authentication=authentication)
    await etcd.start()
    try:
        async with witness_of(etcd, 1) as witness:
            etcd.kill(0)
            await witness.proves()
            await etcd.restart(0)
            await witness.proves_nothing()
            await witness.holds(1)
            witness.proofs.clear()
            etcd.kill(0)
            await witness.proves()
    finally:
        await etcd.stop()


async def test_the_members_are_listed_anew_as_soon_as_etcd_is_back(
    etcd_binary: EtcdBinary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list grows old in a long outage; the next one may follow before it is due again."""
    monkeypatch.setattr(outage_watch, "REFRESH_S", 600.0)
    monkeypatch.setattr(outage_watch, "STALE_S", 6.0)
    etcd = EtcdCluster(etcd_binary, tmp_path)
    await etcd.start()
    try:
        async with witness_of(etcd, 1) as witness:
            etcd.kill(0)
            await witness.proves()
            await until(witness.watch._is_stale)
            await etcd.restart(0)
            await until(lambda: not witness.watch._is_polling)
            witness.proofs.clear()
            etcd.kill(0)
            await witness.proves()
    finally:
        await etcd.stop()


async def test_members_one_by_one(etcd_binary: EtcdBinary, tmp_path: Path) -> None:
    """One down: the others have a leader. Two: the third is leaderless. All: all are down."""
    etcd = EtcdCluster(etcd_binary, tmp_path, members=3)
    await etcd.start()
    try:
        async with witness_of(etcd, 3) as witness:
            etcd.kill(await etcd.leader())
            # Until the two others have one, they could rightly be taken for leaderless.
            leader = await etcd.leader()
            witness.proofs.clear()
            await witness.proves_nothing()
            etcd.kill(leader)
            await witness.proves()
            (left,) = [member for member in etcd.members if member.pid]
            assert Sight.LEADERLESS in witness.watch.last_sights
            left.kill()
            witness.proofs.clear()
            await witness.proves()
            assert set(witness.watch.last_sights) == {Sight.DOWN}
    finally:
        await etcd.stop()


@contextlib.asynccontextmanager
async def three_changing_members(
    etcd_binary: EtcdBinary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EtcdCluster]:
    """Of an etcd that lets members go and come though it has just begun, listed often."""
    monkeypatch.setattr(outage_watch, "REFRESH_S", 0.5)
    monkeypatch.setattr(outage_watch, "RETRY_S", 0.5)
    extra = (*TEST_OPTIONS.extra_arguments, "--strict-reconfig-check=false")
    options = msgspec.structs.replace(TEST_OPTIONS, extra_arguments=extra)
    etcd = EtcdCluster(etcd_binary, tmp_path, members=3, options=options)
    await etcd.start()
    try:
        yield etcd
    finally:
        await etcd.stop()


async def test_a_member_in_place_of_another_is_held(
    etcd_binary: EtcdBinary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        three_changing_members(etcd_binary, tmp_path, monkeypatch) as etcd,
        witness_of(etcd, 3) as witness,
    ):
        before = set(witness.watch._lines)
        replaced = (await etcd.leader() + 1) % 3
        await etcd.replace(replaced)
        await until(lambda: len(set(witness.watch._lines) - before) == 1)
        assert len(witness.watch._lines) == 3
        await witness.holds(3)
        await until(lambda: not witness.watch._is_polling)
        witness.proofs.clear()
        # It is one whose word counts: with a leader, as long as it has one beside it.
        etcd.kill(next(index for index in range(3) if index != replaced))
        await etcd.leader()
        witness.proofs.clear()
        await witness.proves_nothing()
        for index in range(3):
            etcd.kill(index)
        await witness.proves()
        assert witness.watch.last_sights == (Sight.DOWN,) * 3


async def test_a_member_that_was_removed_doesnt_count(
    etcd_binary: EtcdBinary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands still, so of itself nothing could be proven."""
    async with (
        three_changing_members(etcd_binary, tmp_path, monkeypatch) as etcd,
        witness_of(etcd, 3) as witness,
    ):
        removed = (await etcd.leader() + 1) % 3
        etcd.freeze(removed)
        await etcd.remove(removed)
        await until(lambda: len(witness.watch._lines) == 2)
        for index in range(3):
            if index != removed:
                etcd.kill(index)
        await witness.proves()
        assert witness.watch.last_sights == (Sight.DOWN,) * 2
        etcd.thaw(removed)


async def test_members_are_asked_by_new_certificates(
    etcd_binary: EtcdBinary, tmp_path: Path
) -> None:
    """How to ask a member was settled when all was well."""
    etcd = EtcdCluster(etcd_binary, tmp_path, members=3, security=Security.TLS)
    await etcd.start()
    try:
        async with witness_of(etcd, 3) as witness:
            etcd.replace_certificates()
            leader = await etcd.leader()
            for index in range(3):
                if index != leader:
                    etcd.kill(index)
            await witness.proves()
            assert Sight.LEADERLESS in witness.watch.last_sights
    finally:
        await etcd.stop()


async def test_a_frozen_member_proves_nothing(etcd_binary: EtcdBinary, tmp_path: Path) -> None:
    """The old leader, frozen, while the others are down: it would wake up as the leader."""
    etcd = EtcdCluster(etcd_binary, tmp_path, members=3)
    await etcd.start()
    try:
        async with witness_of(etcd, 3) as witness:
            leader = await etcd.leader()
            etcd.freeze(leader)
            for index in range(3):
                if index != leader:
                    etcd.kill(index)
            await witness.proves_nothing()
            etcd.thaw(leader)
            await witness.proves()
    finally:
        await etcd.stop()


async def test_nothing_is_proven_by_who_came_when_it_was_down(
    etcd_binary: EtcdBinary, tmp_path: Path
) -> None:
    """Refusals alone say nothing: it was never seen there."""
    etcd = EtcdCluster(etcd_binary, tmp_path)
    await etcd.start()
    etcd.kill(0)
    try:
        async with witness_of(etcd, 0) as witness:
            witness.silent_s = 100.0
            await witness.proves_nothing()
    finally:
        await etcd.stop()
