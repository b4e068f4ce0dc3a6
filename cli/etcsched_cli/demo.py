"""``etcsched demo``: a cluster, kills, and a verdict, in under a minute."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec.structs import replace
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from etcsched.audit.recording import RecordingWriter
from etcsched.audit.verdict import plain
from etcsched.demo.scenario import Demo, Milestone
from etcsched.demo.verdict import Verdict
from etcsched.operator.cluster import ClusterView
from etcsched_cli.audit import open_new, verdict_shown
from etcsched_cli.output import print_all

SHOWN_MILESTONES = 8


@click.command()
@click.option("--seconds", default=45.0, show_default=True, help="About how long it runs.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the verdict as JSON.")
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    help="Keep the history that is judged, for etcsched audit.",
)
@click.option("--verbose", is_flag=True, help="Show every node's log.")
def demo(seconds: float, report: Path | None, record: Path | None, verbose: bool) -> None:
    """Start a cluster in a temporary directory, run jobs, kill the leader and a busy agent, and
    judge from etcd's events and from the jobs' own words whether all was as promised.

    Exits 0 only if it was.
    """
    console = Console()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="etcsched-demo-"))
        writer = None
        if record is not None:
            writer = RecordingWriter(stack.enter_context(open_new(record)))
        verdict = asyncio.run(_run(console, Path(directory), seconds, verbose, writer))
    _print(console, verdict)
    if report is not None:
        report.write_text(json.dumps(_plain(verdict), indent=2) + "\n")
    sys.exit(0 if verdict.is_clean else 1)


async def _run(
    console: Console,
    directory: Path,
    seconds: float,
    verbose: bool,
    writer: RecordingWriter | None,
) -> Verdict:
    if not console.is_terminal:
        return await Demo(
            directory,
            show=lambda view: None,
            tell=lambda milestone: console.print(
                _line_of(milestone), highlight=False, soft_wrap=True
            ),
            log=lambda node, line: _log(console, node, line, verbose),
            record=writer,
        ).run(seconds)
    milestones: list[Milestone] = []
    with Live(console=console, refresh_per_second=4) as live:

        def show(view: ClusterView) -> None:
            live.update(_screen(view, milestones))

        demo = Demo(
            directory,
            show,
            milestones.append,
            lambda node, line: _log(console, node, line, verbose),
            writer,
        )
        return await demo.run(seconds)


def _log(console: Console, node: str, line: str, verbose: bool) -> None:
    if verbose:
        console.print(f"{node}: {line}", markup=False, highlight=False, soft_wrap=True)


def _line_of(milestone: Milestone) -> str:
    return f"{milestone.at_s:5.1f} s  {milestone.text}"


def _screen(view: ClusterView, milestones: list[Milestone]) -> Group:
    """The live table: nodes above, what happened below."""
    nodes = Table(title="etcsched demo", title_justify="left", expand=False)
    for column in ("node", "role", "running", "slots"):
        nodes.add_column(column, justify="right" if column in {"running", "slots"} else "left")
    for node in sorted(view.leader.schedulers, key=lambda s: s.node):
        nodes.add_row(node.node, "[bold green]leader" if node.leads else "standby", "", "")
    for agent in sorted(view.agents, key=lambda a: a.agent):
        nodes.add_row(agent.agent, "agent", str(agent.running), str(agent.slots))
    story = Text("\n".join(_line_of(m) for m in milestones[-SHOWN_MILESTONES:]))
    counts = Text(f"running {view.running}, waiting {view.waiting + view.assigned}", style="dim")
    return Group(nodes, counts, story)


def _print(console: Console, verdict: Verdict) -> None:
    table = Table(title="verdict", title_justify="left")
    table.add_column("of the ticks that were due")
    table.add_column("count", justify="right")
    rows = (
        ("due", verdict.due),
        ("completed", verdict.completed),
        ("attempts reassigned", verdict.reassigned),
        ("lost", len(verdict.lost)),
        ("doubled", len(verdict.doubled)),
    )
    for name, count in rows:
        bad = name in {"lost", "doubled"} and count
        table.add_row(name, f"[bold red]{count}" if bad else str(count))
    table.add_row("worst lateness", f"{verdict.worst_lateness_ms / 1000:.1f} s")
    console.print(table)
    print_all(verdict_shown(verdict.audit))
    for line in (*verdict.lost, *verdict.doubled):
        console.print(line, style="red", highlight=False)
    word = "nothing was lost or doubled" if verdict.is_clean else "NOT as promised"
    console.print(word, style="bold green" if verdict.is_clean else "bold red")


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {**msgspec.to_builtins(replace(verdict, audit=None)), "audit": plain(verdict.audit)}
