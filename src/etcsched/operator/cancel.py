"""Ending many runs: choosing them among the active ones, and asking the leader for each."""

from __future__ import annotations

from collections.abc import Sequence

from etcsched.core.records import RequestKind
from etcsched.core.states import WORKING
from etcsched.keyspace.keys import Keys
from etcsched.operator.bulk import Asked, Asker, Progress, ask_all
from etcsched.operator.choosing import Wanted
from etcsched.operator.runs import RunView, list_active
from etcsched.ports import Etcd

__all__ = ["cancel_all", "choose"]


async def choose(etcd: Etcd, keys: Keys, wanted: Wanted) -> list[RunView]:
    """What waits first, the newest first, and then what runs: so that none of them gets its turn
    by the end of another."""
    views = await list_active(etcd, keys, wanted)
    return sorted(views, key=lambda view: view.state in WORKING)


async def cancel_all(
    etcd: Etcd,
    keys: Keys,
    runs: Sequence[tuple[str, str]],
    asker: Asker,
    progress: Progress | None = None,
) -> list[Asked]:
    """The leader's word on each, in their order; see ``ask_all``."""
    requests = [asker.request(RequestKind.CANCEL, job, run) for job, run in runs]
    answers = await ask_all(etcd, keys, asker, requests, progress)
    return [
        Asked(run=f"{job}/{run}", accepted=answer.accepted, message=answer.message)
        for (job, run), answer in zip(runs, answers, strict=True)
    ]
