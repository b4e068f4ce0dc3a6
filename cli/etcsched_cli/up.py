"""``etcsched up``: a whole cluster on this machine, in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from etcsched.core.errors import EtcschedError
from etcsched.local.cluster import LocalCluster, LocalOptions
from etcsched_cli.own_etcd import refuse_other_cluster, way_in

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green")


def default_directory() -> Path:
    """Where the XDG rules put a user's data."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "etcsched" / "up"


@click.command()
@click.option("--schedulers", default=3, show_default=True, type=click.IntRange(1, 9))
@click.option("--agents", default=3, show_default=True, type=click.IntRange(0, 50))
@click.option("--slots", default=8, show_default=True, type=click.IntRange(1), help="Per agent.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Where everything is kept; remove it to begin anew.  [default: etcsched/up in "
    "XDG_DATA_HOME, or else ~/.local/share/etcsched/up]",
)
@click.option(
    "--etcd-port",
    type=click.IntRange(0, 65535),
    help="etcd's port; 2379 where it is free. 0: any free one.",
)
@click.option("--ttl", "ttl_s", default=10, show_default=True, type=click.IntRange(2, 600),
              help="Seconds after which a silent node counts as gone.")  # fmt: skip
@click.pass_context
def up(
    ctx: click.Context,
    schedulers: int,
    agents: int,
    slots: int,
    data: Path | None,
    etcd_port: int | None,
    ttl_s: int,
) -> None:
    """Run etcd, schedulers and agents on this machine until Ctrl-C.

    Jobs, history and etcd's data are kept and found again by the next `up`. Whatever dies is
    started again, etcd too, so kill one and watch what happens. What ends at each start is started
    later each time; what can't run at all ends the cluster.

    \b
    Example:
      etcsched up
      etcsched status          (in another terminal)
    """
    refuse_other_cluster(ctx)
    options = LocalOptions(
        directory=data or default_directory(),
        schedulers=schedulers,
        agents=agents,
        slots=slots,
        ttl_s=ttl_s,
        etcd_port=etcd_port,
    )
    asyncio.run(_run(options, lambda endpoints: way_in(ctx, endpoints)))


async def _run(options: LocalOptions, way_to: Callable[[tuple[str, ...]], str]) -> None:
    width = len("scheduler-9")
    names: dict[str, str] = {}

    def say(node: str, line: str) -> None:
        colour = names.setdefault(node, COLOURS[len(names) % len(COLOURS)])
        with contextlib.suppress(OSError):
            click.echo(f"{click.style(node.ljust(width), fg=colour)}  {line}")

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    cluster = LocalCluster(options, say)
    try:
        await cluster.start()
        say("up", f"ready, data in {options.directory}; Ctrl-C stops everything")
        if way := way_to(cluster.endpoints):
            say("up", f"in the other terminal: {way}")
        await _until(stopped, cluster)
    finally:
        if cluster.nodes:
            say(
                "up",
                "stopping agents (what runs gets 10 s to end, then shutdown jobs run), "
                "schedulers, etcd",
            )
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _second_signal, cluster)
        await cluster.stop()
        if cluster.nodes:
            say("up", "stopped")


async def _until(stopped: asyncio.Event, cluster: LocalCluster) -> None:
    """Watch over the nodes until the user stops the cluster; raises when etcd is gone for good."""
    watching = asyncio.create_task(cluster.watch_over())
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((watching, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if watching.done():
        try:
            watching.result()
        except BaseExceptionGroup as errors:
            found = errors.exceptions[0]
            raise (found if isinstance(found, EtcschedError) else errors) from None
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


def _second_signal(cluster: LocalCluster) -> None:
    """A second Ctrl-C: don't wait for running jobs."""
    for node in cluster.nodes.values():
        node.signal(signal.SIGTERM)
        node.signal(signal.SIGKILL)
    sys.stderr.write("agents are killed; their supervisors end what runs within the TTL\n")
