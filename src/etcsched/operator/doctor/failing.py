"""Of what is over: jobs that have failed again and again.

The history may be long, so only its keys are listed: they say which runs of a job were over last.
Of these few records are read, and none of what succeeded last but one each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from etcsched.core.records import Run
from etcsched.core.states import JobState, RunState
from etcsched.core.text import some
from etcsched.core.view import View
from etcsched.keyspace.keys import Keys
from etcsched.operator.doctor.finding import Finding, Level
from etcsched.operator.store import found, pages, read
from etcsched.ports import Etcd

__all__ = ["check_failing"]

_FAILED: Final = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.DIED})
_RAN: Final = _FAILED | {RunState.COMPLETED}
_IN_A_ROW: Final = 3
_LOOKED_THROUGH: Final = 10
"""Of a job's newest runs: among them are some that never ran."""
_JOBS: Final = 2000
"""Those of which a run was over last are looked at, so that ten thousands don't take seconds."""
_SUSPECTS: Final = 500
"""At most so many are looked into: where more fail, it is no single job that fails."""


async def check_failing(etcd: Etcd, keys: Keys, view: View, now_ms: int) -> list[Finding]:
    """Of jobs that may run: those whose last three runs or more, of those that ran, all failed."""
    histories = await _histories(etcd, keys, view, now_ms)
    last = await _runs(etcd, [history[0] for history in histories])
    suspects = [
        history
        for history, run in zip(histories, last, strict=True)
        if len(history) >= _IN_A_ROW and run is not None and run.state is not RunState.COMPLETED
    ]
    looked_into = suspects[:_SUSPECTS]
    runs = await _runs(etcd, [key for history in looked_into for key in history])
    ran: dict[str, list[Run]] = {}
    for run in runs:
        if run is not None and run.state in _RAN:
            ran.setdefault(run.job, []).append(run)
    in_a_row = {
        job: list(takewhile(lambda run: run.state in _FAILED, its)) for job, its in ran.items()
    }
    failing = [
        f"{job} ({_ends(failed)})"
        for job, failed in sorted(in_a_row.items())
        if len(failed) >= _IN_A_ROW
    ]
    if not failing:
        return []
    others = ", and perhaps others" if len(suspects) > len(looked_into) else ""
    text = f"the last runs of each all failed: {some(failing)}{others}"
    advice = "etcsched runs list JOB, and etcsched runs logs JOB/ID of one; mend it, or disable it"
    return [Finding("failing jobs", Level.WARNING, text, advice)]


def _ends(failed: Sequence[Run]) -> str:
    counted = Counter(run.state.value for run in failed)
    text = ", ".join(f"{number} {state}" for state, number in counted.most_common())
    return text if len(failed) < _LOOKED_THROUGH else f"{text} or more"


async def _histories(etcd: Etcd, keys: Keys, view: View, now_ms: int) -> list[list[str]]:
    """Of each job its newest keys, what was over last first, jobs likewise."""
    over: dict[str, list[tuple[int, str]]] = {}
    async for page in pages(etcd, *keys.archive_of(), keys_only=True):
        for kv in page.kvs:
            place = keys.parse_archive(kv.key)
            if place is not None:
                over.setdefault(place[0], []).append((kv.create_revision, kv.key))
    newest = [
        sorted(its, reverse=True)[:_LOOKED_THROUGH]
        for job, its in over.items()
        if (entry := view.jobs.get(job)) is not None
        and entry.record.current.at(now_ms).state not in (JobState.DELETED, JobState.DISABLED)
    ]
    newest.sort(reverse=True)
    return [[key for _, key in its] for its in newest[:_JOBS]]


async def _runs(etcd: Etcd, places: Sequence[str]) -> list[Run | None]:
    kvs, _ = await read(etcd, places)
    return [found(Run, kv) for kv in kvs]
