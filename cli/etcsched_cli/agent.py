"""etcsched agent: a node that runs what the leader assigns to it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from etcsched.core.durations import parse_duration_s
from etcsched.core.errors import UsageError
from etcsched.serving.address import AGENT_LISTEN, listen_of
from etcsched_cli.daemon import listen_options, log_level_option, start_log
from etcsched_cli.options import option
from etcsched_cli.settings import Settings

_option = partial(option, of="agent", show_envvar=True)


@click.command(short_help="Run an agent.")
@_option("--id", "id_", metavar="NAME", default="", help="Its name.  [default: the host's]")
@_option(
    "--slots",
    type=click.IntRange(0, 100_000),
    default=0,
    help="How much it runs at once.  [default: four a processor]",
)
@_option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="For jobs' require.")
@_option(
    "--allow-user",
    "users",
    metavar="USER",
    multiple=True,
    help="Whom jobs may name as their user (an agent that runs as root).",
)
@_option("--default-user", metavar="USER", default="", help="Whom the other jobs run as.")
@_option(
    "--ttl",
    "ttl_s",
    type=click.IntRange(2, 300),
    default=10,
    show_default=True,
    help="Seconds until an agent that has died counts as lost; 5 or more but for tests.",
)
@_option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="For output, outcomes not yet told, and its session; each agent has its own.",
)
@_option(
    "--stop-timeout",
    metavar="DURATION",
    default="60s",
    show_default=True,
    help="How long what runs may go on after SIGTERM.",
)
@_option("--isolate", is_flag=True, help="A PID namespace around all attempts (root only).")
@_option(
    "--allow-unfenced-auth",
    is_flag=True,
    help="With an etcd whose permissions don't hold for nested transactions.",
)
@_option(
    "--accept-restored-cluster", is_flag=True, help="Go on with an etcd restored from a backup."
)
@click.option("--demo-etcd", is_flag=True, hidden=True)
@listen_options("agent", AGENT_LISTEN)
@log_level_option
@click.pass_obj
def agent(
    settings: Settings,
    id_: str,
    slots: int,
    labels: tuple[str, ...],
    users: tuple[str, ...],
    default_user: str,
    ttl_s: int,
    state_dir: Path | None,
    stop_timeout: str,
    isolate: bool,
    allow_unfenced_auth: bool,
    accept_restored_cluster: bool,
    demo_etcd: bool,
    listen: str | None,
    listen_token_file: Path | None,
    log_level: str,
) -> None:
    """Run an agent until SIGTERM. SIGTERM lets what runs end first, for --stop-timeout at most.

    \b
    etcsched --endpoints etcd-1:2379,etcd-2:2379 agent --label role=erp --slots 8
    """
    try:
        stop_timeout_s = parse_duration_s(stop_timeout)
    except ValueError as error:
        raise UsageError(f"--stop-timeout: {error}") from None
    listening = listen_of(listen, AGENT_LISTEN, listen_token_file)
    etcd_config = settings.etcd_config()
    start_log(log_level)
    # Nothing before this has loaded gRPC: the supervisor is forked before it exists.
    from etcsched.agent.config import AgentConfig
    from etcsched.agent.run import run_agent

    config = AgentConfig(
        id=id_,
        slots=slots,
        labels=dict(_label(text) for text in labels),
        users=users,
        default_user=default_user,
        prefix=settings.prefix,
        state_dir=state_dir,
        session_ttl_s=ttl_s,
        stop_timeout_s=stop_timeout_s,
        isolate=isolate,
        allow_unfenced_auth=allow_unfenced_auth,
        accept_restored_cluster=accept_restored_cluster,
        is_demo=demo_etcd,
        listen=listening,
    )
    run_agent(config, etcd_config)


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--label {text!r}: write NAME=VALUE")
    return name, value
