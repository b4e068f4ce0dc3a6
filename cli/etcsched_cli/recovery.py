"""etcsched recovery: what the end of an outage would bring."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from etcsched_cli.completion import complete_jobs
from etcsched_cli.connect import run
from etcsched_cli.output import Column, moment, output_options, show, table
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.core.leader.previewing import JobPreview
    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd

_SHOWN = 3


@click.group(short_help="Preview what the end of an outage would bring.")
def recovery() -> None:
    """Outages: times in which no leader decided, or no agent lived that may run a job."""


@recovery.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...", shell_complete=complete_jobs)
@output_options(watch=True)
@click.pass_obj
def preview(settings: Settings, jobs: tuple[str, ...], as_json: bool, watch: bool) -> None:
    """Show what would run if the outage ended now, of JOBs or of all: late, recovered, missed.

    Late ticks are within the job's pickup_buffer and run in any case; of the missed ones, its
    recovery mode says which run. Nothing is changed.

    \b
    etcsched recovery preview
    """
    from etcsched.operator.explain import preview_recovery

    now_ms = settings.environment.now_ms

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(
            lambda: preview_recovery(etcd, keys, jobs, now_ms()),
            _render,
            as_json=as_json,
            watch=watch,
        )

    run(settings, work)


def _render(previews: Sequence[JobPreview]) -> Iterable[RenderableType]:
    from etcsched.core.leader.previewing import runs_that_wait

    yield table(
        [
            Column("job", whole=True),
            Column("outage since"),
            Column("mode"),
            Column("late", right=True),
            Column("recovered", right=True),
            Column("missed", right=True),
            Column("what", whole=True),
        ],
        [
            (
                p.job,
                moment(p.since),
                p.mode.value,
                str(len(p.late)),
                str(len(p.recovered) + sum(runs for _, runs in p.waiting)),
                str(p.missed + sum(not runs for _, runs in p.waiting))
                + ("" if p.is_whole else "+"),
                _what(p),
            )
            for p in previews
        ],
        empty="no outage: nothing is to be recovered",
    )
    if previews:
        yield ""
        yield f"{runs_that_wait(list(previews))} would run, if it ended now"


def _what(preview: JobPreview) -> str:
    texts = [preview.reason]
    if preview.recovered:
        texts.append(f"recovers {_some(preview.recovered)}")
    if preview.late:
        texts.append(f"late {_some(preview.late)}")
    if preview.overlapped:
        texts.append(f"{len(preview.overlapped)} would end overlapped")
    if preview.missed:
        first, last = moment(preview.missed_first), moment(preview.missed_last)
        texts.append(f"missed {first}" + (f" to {last}" if last != first else ""))
    texts += [
        f"{id_} waits, and {'runs' if runs else 'is missed'}" for id_, runs in preview.waiting
    ]
    if preview.per_host:
        texts.append("on each eligible agent")
    return "; ".join([*texts, *([preview.note] if preview.note else [])])


def _some(times: Sequence[Any]) -> str:
    rest = len(times) - _SHOWN
    return ", ".join(moment(t) for t in times[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
