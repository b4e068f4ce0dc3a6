"""``etcsched up``: a whole cluster on this machine, in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from etcsched.core.errors import EtcschedError, UsageError
from etcsched.local.cluster import LocalCluster, LocalOptions
from etcsched_cli.own_etcd import refuse_other_cluster, way_in
from etcsched_cli.signals import Signalled, on_signals

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green")


def default_directory() -> Path:
    """Where the XDG rules put a user's data."""
    if base := os.environ.get("XDG_DATA_HOME"):
        return Path(base, "etcsched/up")
    try:
        return Path.home() / ".local/share/etcsched/up"
    except RuntimeError:  # Of a user without a name, say.
        raise UsageError(
            "this user has no home directory; say with --data where to keep it"
        ) from None


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

    cluster = LocalCluster(options, say)
    user = _User(cluster)
    with on_signals((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), user.take):
        try:
            if not await user.lets(cluster.start()):
                raise Signalled(user.came)
            say("up", f"ready, data in {options.directory}; Ctrl-C stops everything")
            if way := way_to(cluster.endpoints):
                say("up", f"in the other terminal: {way}")
            await user.lets(cluster.watch_over())
        finally:
            user.hurries_from_now_on()
            if cluster.nodes:
                say(
                    "up",
                    "stopping agents (what runs gets 10 s to end, then shutdown jobs run), "
                    "schedulers, etcd",
                )
            await cluster.stop()
            if cluster.nodes:
                say("up", "stopped")


class _User:
    """Stops what is done, at whatever moment; asked a second time, doesn't wait for its end."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.came = 0
        """The signal that asked to stop."""
        self._cluster = cluster
        self._is_asked = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    def take(self, number: int) -> None:
        if not self._is_asked.is_set():
            self.came = number
            self._is_asked.set()
        elif number != signal.SIGHUP:  # A terminal that is closed meanwhile is in no hurry.
            self._hurry()

    def hurries_from_now_on(self) -> None:
        """Everything is being stopped, whoever asked for it."""
        self._is_asked.set()

    async def lets(self, work: Coroutine[Any, Any, None]) -> bool:
        """False: it was stopped, and has ended. Raises what it raises."""
        self._work = asyncio.create_task(work)
        asked = asyncio.create_task(self._is_asked.wait())
        await asyncio.wait((self._work, asked), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        self._work.cancel()
        try:
            await self._work
        except asyncio.CancelledError:
            return False
        except BaseExceptionGroup as errors:
            found = errors.exceptions[0]
            raise (found if isinstance(found, EtcschedError) else errors) from None
        return True

    def _hurry(self) -> None:
        """Don't wait for running jobs, nor for an installation."""
        if self._work is not None:
            self._work.cancel()
        running = [node for node in self._cluster.nodes.values() if node.pid]
        for node in running:
            node.signal(signal.SIGTERM)
            node.signal(signal.SIGKILL)
        if running:
            sys.stderr.write("agents are killed; their supervisors end what runs within the TTL\n")
