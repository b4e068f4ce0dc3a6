"""etcsched top: the cluster in one screen, live."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from etcsched.core.times import Utc, ms_of
from etcsched.operator.runs import NewestRuns
from etcsched.operator.top import TopView, read_top
from etcsched_cli.agents import agents_table
from etcsched_cli.connect import run
from etcsched_cli.output import Cell, Column, age, facts, output_options, show, styled, table
from etcsched_cli.settings import Settings
from etcsched_cli.status import (
    lateness_text,
    leader_cell,
    not_why_text,
    paused_cell,
    runs_text,
    waiting_name,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd


@click.command(short_help="Watch the cluster in one screen.")
@click.option("--once", is_flag=True, help="Show it once.")
@click.option("--most", type=click.IntRange(1, 100), default=5, show_default=True,
              help="How many of each.")  # fmt: skip
@output_options()
@click.pass_obj
def top(settings: Settings, once: bool, most: int, as_json: bool) -> None:
    """Watch the cluster in one screen until q or Ctrl-C: who leads, agents and their slots, what
    runs, what waits and why, what is next, what failed last, how late starts are.

    \b
    etcsched top
    etcsched top --once --json
    """

    async def work(etcd: Etcd, keys: Keys) -> Any:
        now_ms, newest_runs = settings.environment.now_ms, NewestRuns()
        return await show(
            lambda: read_top(etcd, keys, now_ms(), most, newest_runs),
            lambda view: _render(view, most),
            as_json=as_json,
            watch=not once,
        )

    run(settings, work)


def _render(view: TopView, most: int) -> Iterable[RenderableType]:
    cluster = view.cluster
    now_ms = ms_of(cluster.at)
    yield facts(
        [
            ("leader", leader_cell(cluster)),
            ("paused", paused_cell(cluster)),
            ("runs", runs_text(cluster)),
            ("waiting", not_why_text(cluster)),
            ("late", lateness_text(cluster)),
        ]
    )
    yield ""
    yield agents_table(cluster.agents, now_ms)
    for title, body in (
        ("RUNNING", _running(view, now_ms)),
        ("WAITING", _waiting(view, most)),
        ("NEXT", _next(view, now_ms)),
        ("FAILED LAST", _failed(view, now_ms)),
    ):
        if body is not None:
            yield ""
            yield _heading(title)
            yield body


def _heading(title: str) -> RenderableType:
    from rich.text import Text

    return Text(title, style="bold reverse")


def _running(view: TopView, now_ms: int) -> RenderableType | None:
    if not view.running:
        return None
    return table(
        [Column("run", whole=True), Column("on"), Column("for"), Column("attempt", right=True)],
        [(one.run, one.agent, age(one.since, now_ms), str(one.attempt)) for one in view.running],
    )


def _waiting(view: TopView, most: int) -> RenderableType | None:
    """Outages first: they are why whole jobs wait."""
    lines = [
        *((job, styled("outage"), text) for job, text in view.cluster.outages.items()),
        *((waiting_name(one), styled(one.state.value), one.text) for one in view.cluster.waits),
    ]
    if not lines:
        return None
    columns = [Column("run", whole=True), Column("state"), Column("why", whole=True, below=True)]
    return table(columns, lines[:most])


def _next(view: TopView, now_ms: int) -> RenderableType | None:
    if "next_ticks" in view.not_looked_for:
        return "not looked for among so many jobs; etcsched jobs next JOB does"
    if not view.next_ticks:
        return None
    return table(
        [Column("job", whole=True), Column("in"), Column("at")],
        [(tick.job, _away(tick.at, now_ms), f"{tick.at[:19]}Z") for tick in view.next_ticks],
    )


def _away(at: Utc, now_ms: int) -> Cell:
    overdue = (f"overdue for {age(at, now_ms)}", "red")
    return overdue if ms_of(at) <= now_ms else age(at, now_ms)


def _failed(view: TopView, now_ms: int) -> RenderableType | None:
    if not view.failures:
        return None
    return table(
        [
            Column("run", whole=True),
            Column("state"),
            Column("ago"),
            Column("on", optional=True),
            Column("why", below=True),
        ],
        [
            (one.run, styled(one.state.value), age(one.at, now_ms), one.agent, one.reason)
            for one in view.failures
        ],
    )
