"""``notify``: a command on chosen final states, as a chained job of its own.

So a notification is a run like any other: it is made in the transaction that ends what it tells
of, tried again where it fails, and seen. Its job is ``<job>.notify``.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from etcsched.core.records import Action, Job, Link, Retry
from etcsched.core.states import JobState, Overlap, RunState
from etcsched.jobfile.chains import MAX_LINKS, read_final_states
from etcsched.jobfile.fields import check_known, duration, read_job_name
from etcsched.jobfile.nodes import FieldError, Value
from etcsched.jobfile.placeholders import BUILTINS
from etcsched.jobfile.schedules import check_placeholders, read_action

__all__ = ["Notice", "notified", "read_notify"]

_DEFAULT_ON: Final = (
    RunState.FAILED,
    RunState.TIMED_OUT,
    RunState.DIED,
    RunState.ABANDONED,
    RunState.MISSED,
)
_RETRY: Final = Retry(max=5, interval_s=30.0, exponential=True, cap_s=600.0)
_BUFFER_S: Final = 3600.0


class Notice(msgspec.Struct, frozen=True):
    """One notification as written; ``value`` is its place, ``run`` that of its command."""

    value: Value
    run: Value
    action: Action
    on: tuple[RunState, ...]
    timeout_s: float


def read_notify(value: Value) -> tuple[Notice, ...]:
    """One notification or a list of them."""
    items = value.items("[{run: {exec: [/usr/bin/alert]}}]") if value.is_list() else [value]
    return tuple(_read(item) for item in items)


def _read(value: Value) -> Notice:
    entries = value.entries("{on: [failed], run: {exec: [/usr/bin/alert]}}")
    if "webhook" in entries:
        raise FieldError(
            entries["webhook"],
            "isn't there yet; write run: {exec: [curl, -fsS, -d, "
            "'{source_job}/{source_run} {source_state}', URL]}",
        )
    check_known(entries, ["on", "run", "timeout"])
    if "run" not in entries:
        raise FieldError(value, "has no run; write e.g. run: {exec: [/usr/bin/alert]}")
    return Notice(
        value,
        entries["run"],
        read_action(entries["run"]),
        read_final_states(entries["on"]) if "on" in entries else _DEFAULT_ON,
        duration(0.001, 3600.0)(entries["timeout"]) if "timeout" in entries else 60.0,
    )


def notified(job: Job, notices: tuple[Notice, ...]) -> list[Job]:
    """The job with links to its notifications, and these. ``FieldError`` where that can't be."""
    made: list[Job] = []
    links: list[Link] = []
    for number, notice in enumerate(notices, start=1):
        name = f"{job.name}.notify" + (f"{number}" if number > 1 else "")
        read_job_name(notice.value, name)
        check_placeholders(notice.run, notice.action, [*job.params, *job.results, *BUILTINS])
        links.append(Link(to=name, on=notice.on))
        made.append(
            Job(
                name=name,
                run=notice.action,
                versions=(replace(job.current, state=JobState.CHAIN_ACTIVE, patterns=()),),
                description=f"tells how runs of {job.name} ended",
                owner=job.owner,
                tags=job.tags,
                overlap=Overlap.ALLOW,
                pickup_buffer_s=_BUFFER_S,
                timeout_s=notice.timeout_s,
                retry=_RETRY,
                params=dict.fromkeys(job.results, ""),
                env=job.env,
                workdir=job.workdir,
                user=job.user,
                keep=job.keep,
                from_file=True,
            )
        )
    chain = (*job.chain, *links)
    if len(chain) > MAX_LINKS:
        text = f"makes {len(chain)} links with the chain; {MAX_LINKS} are allowed"
        raise FieldError(notices[0].value, text)
    return [replace(job, chain=chain), *made]
