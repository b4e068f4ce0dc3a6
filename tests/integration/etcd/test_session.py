"""A session is valid only while its lease stands, and says when it ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from etcsched.core.errors import (
    ClusterRefused,
    ClusterUnreachable,
    LeaseGone,
    OutcomeUnknown,
    UsageError,
)
from etcsched.core.session import SessionEnd, margin_of
from etcsched.etcd import session
from etcsched.etcd.client import EtcdClient
from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.session import Session, SessionLoss, boottime_s
from etcsched.ports import LeaseInfo
from tests.conftest import StartEtcd
from tests.support.etcd_cluster import EtcdCluster, SharedEtcd

TTL_S = 4


class Owner:
    """Keeps what the callbacks say; its loop makes progress while ``running``."""

    def __init__(
        self, config: EtcdConfig, *, lease: int = 0, stall_limit_s: float | None = None
    ) -> None:
        self.renewals: asyncio.Queue[float] = asyncio.Queue()
        self.losses: asyncio.Queue[tuple[float, SessionLoss]] = asyncio.Queue()
        self.session = Session(
            config,
            ttl_s=TTL_S,
            lease=lease,
            stall_limit_s=stall_limit_s,
            on_renewed=self._renewed,
            on_lost=lambda loss: self.losses.put_nowait((boottime_s(), loss)),
        )

    def _renewed(self, deadline_s: float) -> None:
        self.renewals.put_nowait(deadline_s)
        self.session.progress()

    async def renewed(self, times: int) -> float:
        async with asyncio.timeout(20):
            for _ in range(times):
                deadline_s = await self.renewals.get()
        return deadline_s

    async def lost(self) -> tuple[float, SessionLoss]:
        async with asyncio.timeout(20):
            return await self.losses.get()


@pytest_asyncio.fixture
async def client(etcd: SharedEtcd) -> AsyncIterator[EtcdClient]:
    async with EtcdClient(EtcdConfig(**etcd.config_kwargs)) as client:
        yield client


async def test_kept_alive_beyond_its_ttl_then_revoked(client: EtcdClient) -> None:
    owner = Owner(client.config)
    await owner.session.start()
    first_deadline_s = owner.session.deadline_mono_s
    while await owner.renewed(1) < first_deadline_s + 2 * TTL_S:
        assert owner.session.valid_at(boottime_s())
    assert owner.session.ttl_s == TTL_S
    assert (await client.lease_time_to_live(owner.session.lease)).ttl_s >= 0
    await owner.session.revoke()
    assert not owner.session.valid_at(boottime_s())
    assert (await client.lease_time_to_live(owner.session.lease)).has_ended
    assert owner.losses.empty()


async def test_resumed_by_the_next_process(client: EtcdClient) -> None:
    first = Owner(client.config)
    await first.session.start()
    await first.session.stop()
    assert not first.session.valid_at(boottime_s())
    second = Owner(client.config, lease=first.session.lease)
    await second.session.start()
    assert second.session.lease == first.session.lease
    await second.renewed(2)
    await second.session.revoke()
    with pytest.raises(LeaseGone):
        await Owner(client.config, lease=first.session.lease).session.start()


async def test_a_revoked_lease_ends_it_at_once(client: EtcdClient) -> None:
    owner = Owner(client.config)
    await owner.session.start()
    await client.lease_revoke(owner.session.lease)
    _, loss = await owner.lost()
    assert loss.end is SessionEnd.LEASE_GONE
    assert not owner.session.valid_at(boottime_s())
    await owner.session.stop()


async def test_expires_before_its_lease_when_etcd_freezes(start_etcd: StartEtcd) -> None:
    cluster = await start_etcd()
    owner = Owner(EtcdConfig(**cluster.config_kwargs))
    await owner.session.start()
    await owner.renewed(1)
    cluster.freeze(0)
    lost_s, loss = await owner.lost()
    assert loss.end is SessionEnd.EXPIRED
    assert "deadline exceeded" in loss.text
    deadline_s = owner.session.deadline_mono_s
    assert deadline_s <= lost_s < deadline_s + margin_of(TTL_S)
    cluster.thaw(0)
    await owner.session.stop()
    assert not owner.session.valid_at(deadline_s - 1)
    assert owner.losses.empty()


@pytest.mark.parametrize("harm", [EtcdCluster.kill, EtcdCluster.freeze])
async def test_outlives_any_one_member(start_etcd: StartEtcd, harm: object) -> None:
    cluster = await start_etcd(members=3)
    leader = await cluster.leader()
    follower = next(index for index in range(3) if index != leader)
    owner = Owner(EtcdConfig(**cluster.config_kwargs))
    await owner.session.start()
    assert callable(harm)
    harm(cluster, follower)
    deadline_s = await owner.renewed(1)
    while await owner.renewed(1) < deadline_s + 2 * TTL_S:
        assert owner.session.valid_at(boottime_s())
    assert owner.losses.empty()
    await owner.session.stop()


async def test_a_busy_loop_keeps_it_but_a_stalled_one_loses_it(client: EtcdClient) -> None:
    owner = Owner(client.config, stall_limit_s=5.0)
    await owner.session.start()
    owner.session.progress()
    blocked_until_s = boottime_s() + 3.5
    while boottime_s() < blocked_until_s:
        time.sleep(0.05)  # noqa: ASYNC251  the loop is meant to stand still
    assert owner.session.valid_at(boottime_s())
    owner.session.progress()
    await owner.renewed(1)
    blocked_until_s = boottime_s() + 6.0
    while boottime_s() < blocked_until_s:
        time.sleep(0.05)  # noqa: ASYNC251  likewise
    assert not owner.session.valid_at(boottime_s())
    _, loss = await owner.lost()
    assert loss.end is SessionEnd.STALLED
    assert "made no progress" in loss.text
    await owner.session.stop()


async def test_an_outage_proof_moves_the_deadline_but_revives_nothing(
    start_etcd: StartEtcd,
) -> None:
    cluster = await start_etcd()
    owner = Owner(EtcdConfig(**cluster.config_kwargs))
    await owner.session.start()
    cluster.kill(0)
    sent_s = boottime_s()
    assert owner.session.outage_proved(sent_s)
    assert owner.session.deadline_mono_s == pytest.approx(sent_s + TTL_S - margin_of(TTL_S))
    _, loss = await owner.lost()
    assert loss.end is SessionEnd.EXPIRED
    assert not owner.session.outage_proved(boottime_s())
    await owner.session.stop()


async def test_authenticates(start_etcd: StartEtcd) -> None:
    """Older servers let anybody renew leases; newer ones ask for a token."""
    cluster = await start_etcd(authentication=True)
    owner = Owner(EtcdConfig(**cluster.config_kwargs))
    await owner.session.start()
    await owner.renewed(2)
    await owner.session.revoke()
    if cluster.binary.version_tuple < (3, 5, 28):
        return
    wrong = EtcdConfig(**cluster.config_kwargs | {"password": "wrong"})
    with pytest.raises(ClusterRefused, match="check the user and the password"):
        await Owner(wrong).session.start()


class HungLine:
    """Of a host that has no thread left for gRPC: a keepalive returns when the test is over."""

    endpoint_count = 1

    def __init__(self, is_hung: threading.Event, is_over: threading.Event) -> None:
        self._is_hung = is_hung
        self._is_over = is_over

    def grant(self, ttl_s: int, *, timeout_s: float) -> LeaseInfo:
        return LeaseInfo(lease=7, ttl_s=ttl_s, raft_term=1)

    def keep_alive(self, lease: int, *, timeout_s: float) -> LeaseInfo:
        self._is_hung.set()
        assert self._is_over.wait(20)
        return LeaseInfo(lease=lease, ttl_s=TTL_S, raft_term=1)

    def revoke(self, lease: int, *, timeout_s: float) -> None:
        pass

    def close(self) -> None:
        pass


async def test_a_thread_that_hangs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    is_hung, is_over = threading.Event(), threading.Event()
    monkeypatch.setattr(session, "LeaseLine", lambda _config: HungLine(is_hung, is_over))
    owner = Owner(EtcdConfig())
    await owner.session.start()
    assert await asyncio.to_thread(is_hung.wait, 20)
    async with asyncio.timeout(10):
        await owner.session.stop()
        assert not owner.session.valid_at(boottime_s())
        with pytest.raises(OutcomeUnknown):
            await owner.session.revoke(timeout_s=0.1)
        is_over.set()
        await owner.session.revoke()


class FailingLine(HungLine):
    """What nobody foresaw, in this call."""

    def __init__(self, fails_in: str) -> None:
        self._fails_in = fails_in

    def grant(self, ttl_s: int, *, timeout_s: float) -> LeaseInfo:
        self._fail("grant")
        return super().grant(ttl_s, timeout_s=timeout_s)

    def keep_alive(self, lease: int, *, timeout_s: float) -> LeaseInfo:
        self._fail("keep_alive")
        raise AssertionError("it was to fail")

    def _fail(self, call: str) -> None:
        if call == self._fails_in:
            raise ZeroDivisionError(call)


async def test_a_thread_that_fails_at_its_first_call_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a node would wait for its next session for ever."""
    monkeypatch.setattr(session, "LeaseLine", lambda _config: FailingLine("grant"))
    async with asyncio.timeout(10):
        with pytest.raises(ZeroDivisionError):
            await Owner(EtcdConfig()).session.start()


async def test_a_thread_that_fails_later_is_a_session_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "LeaseLine", lambda _config: FailingLine("keep_alive"))
    owner = Owner(EtcdConfig())
    await owner.session.start()
    _, loss = await owner.lost()
    assert loss.end is SessionEnd.FAILED
    assert "ZeroDivisionError" in loss.text
    assert not owner.session.valid_at(boottime_s())


async def test_certificate_files_that_cannot_be_read_are_waited_for(tmp_path: Path) -> None:
    """A renewal may leave them unreadable for a moment: that mends itself, and is tried again."""
    ca_cert = tmp_path / "ca.pem"
    ca_cert.write_text("-----BEGIN CERTIFICATE-----")
    config = EtcdConfig(endpoints=("https://127.0.0.1:1",), ca_cert=ca_cert)
    ca_cert.unlink()
    async with asyncio.timeout(10):
        with pytest.raises(ClusterUnreachable, match=r"can't be read"):
            await Owner(config).session.start()


async def test_a_thread_that_hangs_from_the_first_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_over = threading.Event()

    def hang(_config: EtcdConfig) -> HungLine:
        assert is_over.wait(20)
        return HungLine(threading.Event(), is_over)

    monkeypatch.setattr(session, "LeaseLine", hang)
    owner = Owner(EtcdConfig())
    async with asyncio.timeout(10):
        with pytest.raises(ClusterUnreachable, match="doesn't answer"):
            await owner.session.start(timeout_s=0.2)
        is_over.set()
        await owner.session.stop()


async def test_starts_only_if_etcd_answers() -> None:
    owner = Owner(EtcdConfig(endpoints=("127.0.0.1:1",)))
    with pytest.raises(ClusterUnreachable):
        await owner.session.start(timeout_s=0.5)
    assert not owner.session.valid_at(boottime_s())
    await owner.session.stop()
    with pytest.raises(UsageError):
        Session(EtcdConfig(), ttl_s=1)
