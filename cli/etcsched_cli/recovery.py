"""etcsched recovery: what the end of an outage would bring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from etcsched_cli.choosing import named_or_tagged, tags_of_jobs
from etcsched_cli.completion import complete_jobs
from etcsched_cli.connect import run
from etcsched_cli.output import Column, output_options, show, table, time_of_day
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.core.leader.previewing import JobPreview
    from etcsched.core.times import Utc
    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd

_SHOWN = 3


@click.group(short_help="Preview what the end of an outage would bring.")
def recovery() -> None:
    """Outages: times in which no leader decided, or no agent lived that may run a job."""


@recovery.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...", shell_complete=complete_jobs)
@tags_of_jobs
@output_options(watch=True)
@click.pass_obj
def preview(
    settings: Settings, jobs: tuple[str, ...], tags: tuple[str, ...], as_json: bool, watch: bool
) -> None:
    """Show what would run if the outage ended now, of JOBs, of those with a tag, or of all.

    Late ticks are within the job's pickup_buffer and run in any case; of the missed ones, its
    recovery mode says which run. Nothing is changed.

    \b
    etcsched recovery preview
    """
    from etcsched.operator.explain import preview_recovery

    now_ms = settings.environment.now_ms
    if tags:
        jobs = named_or_tagged(settings, jobs, tags)

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(
            lambda: preview_recovery(etcd, keys, jobs, now_ms()),
            lambda previews: _render(previews, now_ms()),
            as_json=as_json,
            watch=watch,
        )

    run(settings, work)


def _render(previews: Sequence[JobPreview], now_ms: int) -> Iterable[RenderableType]:
    """Outages, and notes that several jobs have in common, are said once, below."""
    from etcsched.core.leader.previewing import runs_that_wait

    notes = Counter(p.note for p in previews if p.note)
    shared = [note for note, jobs in notes.items() if jobs > 1]
    yield table(
        [
            Column("job", whole=True),
            Column("mode"),
            Column("late", right=True),
            Column("recovered", right=True),
            Column("missed", right=True),
            Column("what", whole=True, below=True),
        ],
        [
            (
                p.job,
                p.mode.value,
                str(len(p.late)),
                str(len(p.recovered) + sum(runs for _, runs in p.waiting)),
                str(p.missed + sum(not runs for _, runs in p.waiting))
                + ("" if p.is_whole else "+"),
                "; ".join([*_what(p, now_ms), *([p.note] if notes[p.note] == 1 else [])]),
            )
            for p in previews
        ],
        empty="no outage: nothing is to be recovered",
    )
    if not previews:
        return
    yield ""
    for since, reason in dict.fromkeys((p.since, p.reason) for p in previews):
        jobs = [p.job for p in previews if (p.since, p.reason) == (since, reason)]
        whose = "the outage" if len(jobs) == len(previews) else f"outage of {_listed(jobs)}"
        yield f"{whose}, since {time_of_day(since, now_ms)}: {reason}"
    for note in shared:
        jobs = [p.job for p in previews if p.note == note]
        yield note if len(jobs) == len(previews) else f"{_listed(jobs)}: {note}"
    yield f"{runs_that_wait(list(previews))} would run, if it ended now"


def _what(preview: JobPreview, now_ms: int) -> list[str]:
    texts = []
    if preview.recovered:
        texts.append(f"recovers {_some(preview.recovered, now_ms)}")
    if preview.late:
        texts.append(f"late {_some(preview.late, now_ms)}")
    if preview.overlapped:
        texts.append(f"{len(preview.overlapped)} would end overlapped")
    if preview.missed:
        first = time_of_day(preview.missed_first, now_ms)
        last = time_of_day(preview.missed_last, now_ms)
        texts.append(f"missed {first}" + (f" to {last}" if last != first else ""))
    texts += [
        f"{id_} waits, and {'runs' if runs else 'is missed'}" for id_, runs in preview.waiting
    ]
    if preview.per_host:
        texts.append("on each eligible agent")
    return texts


def _some(times: Sequence[Utc], now_ms: int) -> str:
    return _listed([time_of_day(t, now_ms) for t in times])


def _listed(words: Sequence[str]) -> str:
    rest = len(words) - _SHOWN
    return ", ".join(words[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
