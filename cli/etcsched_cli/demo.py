"""``etcsched demo``: a cluster, faults, and a verdict."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import tempfile
from collections.abc import Iterator
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
from etcsched.demo.compose import ComposeDemo
from etcsched.demo.local import LocalDemo
from etcsched.demo.soak import Soak
from etcsched.demo.stage import Audience, Milestone
from etcsched.demo.verdict import Verdict
from etcsched.operator.cluster import ClusterView
from etcsched_cli.audit import open_new, verdict_shown
from etcsched_cli.output import print_all
from etcsched_cli.own_etcd import refuse_other_cluster

SHOWN_MILESTONES = 12


@click.command(short_help="A cluster, faults, and a verdict.")
@click.option("--seconds", default=45.0, show_default=True, help="About how long it runs.")
@click.option(
    "--compose",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIRECTORY",
    help="Build and start the Compose cluster of this directory, hurt it more, and remove it with "
    "all that it kept. Needs a Docker Engine.",
)
@click.option(
    "--soak",
    type=click.FloatRange(min=0.1),
    metavar="MINUTES",
    help="Hurt the cluster at random for so long: kill and freeze nodes and etcd, several at once.",
)
@click.option("--seed", type=int, help="Of --soak: which faults there are; told at its beginning.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the verdict as JSON.")
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    help="Keep the history that is judged, for etcsched audit.",
)
@click.option("--verbose", is_flag=True, help="Show every node's log.")
@click.pass_context
def demo(
    ctx: click.Context,
    seconds: float,
    compose: Path | None,
    soak: float | None,
    seed: int | None,
    report: Path | None,
    record: Path | None,
    verbose: bool,
) -> None:
    """Start a cluster in a temporary directory, run jobs, kill the leader and a busy agent, and
    judge from etcd's events and from the jobs' own words whether all was as promised.

    With --compose it is a cluster of containers, of which some are killed, frozen and cut off. With
    --soak random faults go on for as long as you like.

    Exits 0 only if all was as promised.
    """
    refuse_other_cluster(ctx)
    if soak is not None and compose is not None:
        raise click.UsageError("--soak is for a cluster on this machine: leave --compose out")
    if seed is not None and soak is None:
        raise click.UsageError("--seed is for --soak: add it, or leave --seed out")
    console = Console()
    with contextlib.ExitStack() as stack:
        writer = None
        if record is not None:
            writer = RecordingWriter(stack.enter_context(open_new(record)))
        audience = stack.enter_context(_audience(console, verbose, writer))
        if compose is not None:
            verdict = asyncio.run(ComposeDemo(compose, audience).run())
        else:
            directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="etcsched-demo-"))
            )
            if soak is None:
                verdict = asyncio.run(LocalDemo(directory, audience, seconds).run())
            else:
                chosen = secrets.randbelow(1_000_000) if seed is None else seed
                console.print(f"seed {chosen}", highlight=False)
                verdict = asyncio.run(Soak(directory, audience, soak, chosen).run())
    _print(console, verdict)
    if report is not None:
        report.write_text(json.dumps(_plain(verdict), indent=2) + "\n")
    sys.exit(0 if verdict.is_clean else 1)


@contextlib.contextmanager
def _audience(
    console: Console, verbose: bool, writer: RecordingWriter | None
) -> Iterator[Audience]:
    """A live table on a terminal, else one line a milestone."""

    def log(node: str, line: str) -> None:
        if verbose:
            console.print(f"{node}: {line}", markup=False, highlight=False, soft_wrap=True)

    if not console.is_terminal:
        yield Audience(
            show=lambda view: None,
            tell=lambda milestone: console.print(
                _line_of(milestone), highlight=False, soft_wrap=True
            ),
            log=log,
            record=writer,
        )
        return
    milestones: list[Milestone] = []
    with Live(console=console, refresh_per_second=4) as live:
        yield Audience(
            show=lambda view: live.update(_screen(view, milestones)),
            tell=milestones.append,
            log=log,
            record=writer,
        )


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
    table.add_column("runs")
    table.add_column("count", justify="right")
    rows = (
        ("ticks that were due", verdict.due),
        ("of these completed", verdict.completed),
        ("moved from an agent that was lost", verdict.reassigned),
        ("missed while nobody led, and recovered", verdict.recovered),
        ("retried", verdict.retried),
        ("held back by a conflict", verdict.conflicted),
        ("chained to another run", verdict.chained),
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
