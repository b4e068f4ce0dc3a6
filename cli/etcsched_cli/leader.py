"""etcsched leader: who leads, since when, and who stands by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from etcsched.operator.schedulers import LeaderView, SchedulerView, read_leader
from etcsched_cli.connect import run
from etcsched_cli.output import Cell, Column, age, facts, moment, output_options, show, table
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd


@click.command(short_help="Show who leads and who stands by.")
@output_options(watch=True)
@click.pass_obj
def leader(settings: Settings, as_json: bool, watch: bool) -> None:
    """Show who leads, since when, with which fencing token, and who stands by.

    \b
    etcsched leader --json
    """
    now_ms = settings.environment.now_ms

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(
            lambda: read_leader(etcd, keys, now_ms()),
            lambda view: _render(view, now_ms()),
            as_json=as_json,
            watch=watch,
        )

    run(settings, work)


def _render(view: LeaderView, now_ms: int) -> Iterable[RenderableType]:
    term = view.term
    yield facts(
        [
            ("leader", view.node or ("nobody", "red")),
            ("silent", (view.silence, "red")),
            ("term", f"{term.number}, since {moment(term.since)}" if term is not None else "none"),
            ("fencing token", str(term.token) if term is not None and view.node else ""),
            ("decided", f"through {moment(view.watermark)}" if view.watermark else ""),
        ]
    )
    yield ""
    yield table(
        [
            Column("scheduler", whole=True),
            Column("role"),
            Column("host"),
            Column("pid", right=True, optional=True),
            Column("up"),
            Column("version", optional=True),
        ],
        [
            (
                scheduler.node,
                _role(scheduler),
                scheduler.host,
                str(scheduler.pid),
                age(scheduler.since, now_ms),
                scheduler.version,
            )
            for scheduler in view.schedulers
        ],
        empty="no scheduler is here; start one with etcsched scheduler",
    )


def _role(scheduler: SchedulerView) -> Cell:
    shared = ", shares its name" if scheduler.shares_name else ""
    if scheduler.barred:
        return f"barred: {scheduler.barred}{shared}", "red"
    return (f"leads{shared}", "green") if scheduler.leads else f"stands by{shared}"
