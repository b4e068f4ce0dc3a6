"""What agents have claimed, each claim with the run that it is on."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from etcsched.core.records import Kind, Report, Run
from etcsched.core.running import is_running
from etcsched.core.states import RunState
from etcsched.keyspace.keys import Keys
from etcsched.operator.store import found, pages, read
from etcsched.ports import Etcd

__all__ = ["Claimed", "read_claims"]


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    agent: str
    claim: Report
    run: Run

    @property
    def is_running(self) -> bool:
        return is_running(self.run, self.claim)

    @property
    def is_held(self) -> bool:
        return self.run.state is RunState.HELD


async def read_claims(etcd: Etcd, keys: Keys, jobs: Collection[str] | None = None) -> list[Claimed]:
    """All of one revision; of these jobs, or of all. The cost is in how many claims there are."""
    reports: list[tuple[str, Report]] = []
    revision = 0
    async for page in pages(etcd, *keys.all_of(Kind.REPORT)):
        revision = revision or page.revision
        for kv in page.kvs:
            place, report = keys.parse(kv.key), found(Report, kv)
            if place is None or place[0] is not Kind.REPORT or report is None:
                continue
            if jobs is None or report.job in jobs:
                reports.append((place[1][0], report))
    places = [keys.of(Kind.RUN, report.job, report.run) for _, report in reports]
    kvs, _ = await read(etcd, places, revision=revision)
    return [
        Claimed(agent=agent, claim=report, run=run)
        for (agent, report), kv in zip(reports, kvs, strict=True)
        if (run := found(Run, kv)) is not None and run.agent == agent
    ]
