"""Looking after etcd itself: what it doesn't make anybody feel is said loudly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from etcsched.core.errors import ClusterUnreachable
from etcsched.etcd.high_water import HighWater
from etcsched.ports import Etcd
from etcsched.scheduler.metrics import SchedulerMetrics

log = logging.getLogger(__name__)

CHECK_EVERY_S = 10.0


async def check_etcd(
    etcd: Etcd,
    high_water: HighWater,
    metrics: SchedulerMetrics,
    check_not_restored: Callable[[], Awaitable[None]],
) -> None:
    """For ever. etcd refuses no nested put for lack of space (docs/adr/0007), so its alarms are
    looked for; and the highest revision seen goes to disk. Raises ``ClusterRestored``: a session
    can outlive the quick restore of a backup that has its lease."""
    said: set[str] = set()
    while True:
        members = await etcd.status()
        metrics.etcd_answered(members)
        raised = {
            f"etcd {member.endpoint} raises the alarm {alarm}"
            for member in members
            for alarm in member.alarms or ()
        }
        for line in sorted(raised - said):
            log.error("%s: compact, defragment and disarm it now (see etcsched doctor)", line)
        said = raised
        try:
            await check_not_restored()
        except ClusterUnreachable as error:
            log.debug("%s", error)
        try:
            await asyncio.to_thread(high_water.write)
        except (OSError, RuntimeError) as error:  # (The host may have no thread left.)
            log.warning("can't write the revision seen: %s", error)
        await asyncio.sleep(CHECK_EVERY_S)
