"""Ending many runs: choosing them among the active ones, and asking the leader for each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from etcsched.core.records import Request, RequestKind
from etcsched.core.states import WORKING
from etcsched.core.times import Utc
from etcsched.keyspace.keys import Keys
from etcsched.operator.bulk import Progress, ask_all, id_for
from etcsched.operator.choosing import Wanted
from etcsched.operator.runs import RunView, list_active
from etcsched.ports import Etcd

__all__ = ["Cancelled", "cancel_all", "choose"]


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    accepted: bool
    message: str


async def choose(etcd: Etcd, keys: Keys, wanted: Wanted) -> list[RunView]:
    """What waits first, the newest first, and then what runs: so that none of them gets its turn
    by the end of another."""
    views = await list_active(etcd, keys, wanted)
    return sorted(views, key=lambda view: view.state in WORKING)


async def cancel_all(
    etcd: Etcd,
    keys: Keys,
    runs: Sequence[tuple[str, str]],
    *,
    request_id: str,
    now: Utc,
    by: str,
    timeout_s: float,
    progress: Progress | None = None,
) -> list[Cancelled]:
    """The leader's word on each, in their order; see ``ask_all``."""
    requests = [
        Request(
            id=id_for(request_id, job, run),
            kind=RequestKind.CANCEL,
            job=job,
            run=run,
            at=now,
            by=by,
        )
        for job, run in runs
    ]
    answers = await ask_all(
        etcd, keys, requests, request_id=request_id, timeout_s=timeout_s, progress=progress
    )
    return [
        Cancelled(run=f"{job}/{run}", accepted=answer.accepted, message=answer.message)
        for (job, run), answer in zip(runs, answers, strict=True)
    ]
