"""What a member's status lacks is unknown; it ends nobody."""

from __future__ import annotations

import asyncio

import pytest

from etcsched.etcd.config import EtcdConfig
from etcsched.etcd.member_status import version_by_http


async def test_a_host_without_a_thread_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(asyncio, "to_thread", no_thread)
    config = EtcdConfig(endpoints=("http://127.0.0.1:1",))
    (endpoint,) = config.parsed_endpoints
    assert await version_by_http(config, endpoint, 1.0) == ""
