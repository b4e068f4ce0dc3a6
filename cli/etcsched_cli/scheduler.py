"""etcsched scheduler: a node that stands for election, and leads if it wins."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import click

from etcsched.serving.address import SCHEDULER_LISTEN, listen_of
from etcsched_cli.daemon import listen_options
from etcsched_cli.daemon_log import log_options, logged
from etcsched_cli.options import option
from etcsched_cli.settings import Settings

_option = partial(option, of="scheduler", show_envvar=True)


@click.command(short_help="Run a scheduler node.")
@_option("--id", "node", metavar="NAME", help="This node's name.  [default: the host's]")
@_option(
    "--ttl",
    "ttl_s",
    type=click.IntRange(2, 300),
    default=10,
    show_default=True,
    help="Seconds until another takes over from a node that has died; 5 or more but for tests.",
)
@_option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where it remembers how far the cluster had come.  [default: "
    "/var/lib/etcsched/scheduler/ID as root, else below ~/.local/state]",
)
@_option(
    "--allow-unfenced-auth",
    is_flag=True,
    help="With an etcd whose permissions don't hold for nested transactions.",
)
@_option(
    "--accept-restored-cluster", is_flag=True, help="Go on with an etcd restored from a backup."
)
@click.option("--demo-etcd", is_flag=True, hidden=True)
@listen_options("scheduler", SCHEDULER_LISTEN)
@log_options("scheduler")
@click.pass_obj
def scheduler(
    settings: Settings,
    node: str | None,
    ttl_s: int,
    state_dir: Path | None,
    allow_unfenced_auth: bool,
    accept_restored_cluster: bool,
    demo_etcd: bool,
    listen: str | None,
    listen_token_file: Path | None,
    log_level: str,
    log_format: str,
) -> None:
    """Run a scheduler node until SIGTERM. Any number can run; one leads, the others stand by.

    \b
    etcsched --endpoints etcd-1:2379,etcd-2:2379,etcd-3:2379 scheduler
    """
    listening = listen_of(listen, SCHEDULER_LISTEN, listen_token_file)
    etcd_config = settings.etcd_config()
    from etcsched.scheduler.config import SchedulerConfig
    from etcsched.scheduler.node import run_scheduler

    config = SchedulerConfig(
        node=node or socket.gethostname(),
        prefix=settings.prefix,
        session_ttl_s=ttl_s,
        allow_unfenced_auth=allow_unfenced_auth,
        accept_restored_cluster=accept_restored_cluster,
        is_demo=demo_etcd,
        listen=listening,
        state_dir=state_dir,
    )
    with logged(log_level, log_format, "scheduler", config.node):
        run_scheduler(config, etcd_config)
