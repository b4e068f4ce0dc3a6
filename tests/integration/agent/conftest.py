from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.integration.agent.fleet import Fleet
from tests.support.etcd_cluster import SharedEtcd


@pytest_asyncio.fixture
async def fleet(etcd: SharedEtcd, tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path, etcd.endpoints, etcd.prefix)
    yield fleet
    await fleet.close()
