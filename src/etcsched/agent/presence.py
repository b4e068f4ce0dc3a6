"""The agent's presence key, and what is read behind it: one step after another, each until it has
a definite answer or a newer session has made it pointless."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, assert_never

from etcsched.core.agent import effects as fx
from etcsched.core.agent import events as ev
from etcsched.core.errors import (
    ClusterUnreachable,
    Compacted,
    EtcschedError,
    LeaseGone,
    NoSpace,
    OutcomeUnknown,
)
from etcsched.core.records import Kind, OutputAccess, Report
from etcsched.core.times import utc_of
from etcsched.keyspace.codec import MalformedRecord, decode
from etcsched.keyspace.keys import Keys
from etcsched.keyspace.ops import KeyValue, Range
from etcsched.keyspace.presence_steps import PresenceSteps, PresenceWrite, Step
from etcsched.ports import Etcd

log = logging.getLogger(__name__)

_BACKOFF_FIRST_S = 0.1
_BACKOFF_MOST_S = 3.0
_FAREWELL_S = 3.0
_PAGE_KEYS = 500
_R = TypeVar("_R")


class _Superseded(Exception):
    """A later step made this one pointless."""


class PresenceKeeper:
    """``report`` gets the answers, in the order of the steps."""

    def __init__(
        self,
        etcd: Etcd,
        keys: Keys,
        agent: str,
        report: Callable[[ev.Event], None],
        access: OutputAccess | None = None,
    ) -> None:
        self._etcd = etcd
        self._keys = keys
        self._agent = agent
        self._report = report
        self._steps = PresenceSteps(keys, access)
        self._more = asyncio.Event()

    def submit(self, step: Step) -> None:
        self._steps.submit(step)
        self._more.set()

    async def run(self) -> None:
        """Raises what no waiting can mend."""
        while True:
            while not self._steps:
                self._more.clear()
                await self._more.wait()
            try:
                await self._take(self._steps.next())
            except _Superseded:
                continue
            except LeaseGone as error:
                log.info("presence: %s", error)  # Its session hears of that by itself.

    async def _take(self, step: Step) -> None:
        match step:
            case fx.JoinPresence():
                await asyncio.sleep(step.after_s)
                await self._write(step)
            case fx.UpdatePresence():
                await self._write(step)
            case fx.LeavePresence():
                await self._leave(step)
            case fx.RevokeLease():
                await self._until_definite(lambda: self._etcd.lease_revoke(step.lease))
            case fx.ReadReports():
                reports = await self._until_definite(self._read_reports)
                self._report(ev.ReportsRead(step.create_revision, reports))
            case _:
                assert_never(step)

    async def _write(self, step: PresenceWrite) -> None:
        result = await self._until_definite(
            lambda: self._etcd.txn(self._steps.txn_of(step, utc_of(time.time_ns() // 1_000_000)))
        )
        event = self._steps.answered(step, result)
        if event is not None:
            self._report(event)

    async def _leave(self, step: fx.LeavePresence) -> None:
        """Bounded: the lease expires by itself where etcd can't be reached."""
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._write(step)
        except (EtcschedError, TimeoutError) as error:
            log.warning("the presence lasts for its lease's time: %s", error)
            self._report(ev.PresenceLeft())

    async def _read_reports(self) -> tuple[tuple[Report, int], ...]:
        """Of one revision, with their mod revisions; those in ``late/`` aren't ours any more."""
        start, end = self._keys.all_of(Kind.REPORT, self._agent)
        reports: list[tuple[Report, int]] = []
        revision = 0
        while True:
            page = await self._etcd.range(Range(start, end, limit=_PAGE_KEYS, revision=revision))
            reports += [
                (report, kv.mod_revision) for kv in page.kvs if (report := self._report_of(kv))
            ]
            if not page.more:
                return tuple(reports)
            start = page.kvs[-1].key + "\0"
            revision = revision or page.revision

    def _report_of(self, kv: KeyValue) -> Report | None:
        place = self._keys.parse(kv.key)
        if place is None or place[0] is not Kind.REPORT:
            return None
        try:
            return decode(Report, kv.value)
        except MalformedRecord as error:
            log.warning("ignored %s: %s", kv.key, error)
            return None

    async def _until_definite(self, call: Callable[[], Awaitable[_R]]) -> _R:
        backoff_s = _BACKOFF_FIRST_S
        while True:
            try:
                return await call()
            except (OutcomeUnknown, ClusterUnreachable, NoSpace, Compacted) as error:
                log.warning("presence: tried again: %s", error)
            if self._steps.superseded:
                raise _Superseded
            await asyncio.sleep(random.uniform(0.5, 1.0) * backoff_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MOST_S)
