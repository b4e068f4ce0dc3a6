"""etcsched agent: a node that runs what the leader assigns to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import click

from etcsched.core.durations import parse_duration_s
from etcsched.core.errors import UsageError
from etcsched.core.names import flaw_of_label
from etcsched.core.sizes import parse_size_bytes
from etcsched.serving.address import AGENT_LISTEN, OFF, OUTPUT_LISTEN, Address, listen_of
from etcsched_cli.daemon import listen_options
from etcsched_cli.daemon_log import log_options, logged
from etcsched_cli.options import option
from etcsched_cli.settings import Settings

T = TypeVar("T")
_option = partial(option, of="agent", show_envvar=True)


@click.command(short_help="Run an agent.")
@_option("--id", "id_", metavar="NAME", default="", help="Its name.  [default: the host's]")
@_option(
    "--slots",
    type=click.IntRange(1, 100_000),
    help="How much it runs at once.  [default: four a processor]",
)
@_option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="For jobs' require.")
@_option(
    "--allow-user",
    "users",
    metavar="USER",
    multiple=True,
    help="Whom jobs may name as their user (an agent that runs as root).  [default: any but root]",
)
@_option(
    "--default-user",
    metavar="USER",
    default="",
    help="Whom jobs without a user run as.  [default: itself; as root nobody]",
)
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
    help="For output, outcomes not yet told, and its session; each agent has its own.  [default: "
    "/var/lib/etcsched/agent/ID as root, else below ~/.local/state]",
)
@_option(
    "--stop-timeout",
    metavar="DURATION",
    default="60s",
    show_default=True,
    help="How long what runs may go on after SIGTERM.",
)
@_option(
    "--shutdown-timeout",
    metavar="DURATION",
    default="60s",
    show_default=True,
    help="How long jobs with a shutdown in their lifecycle may take after that.",
)
@_option(
    "--output-listen",
    metavar="HOST:PORT|off",
    help="Where the output of its runs is served, to whoever has its token from etcd.  "
    f"[default: {OUTPUT_LISTEN}, or any port]",
)
@_option(
    "--output-address",
    metavar="HOST[:PORT]",
    default="",
    help="By which others reach that.  [default: the address that it reaches etcd from]",
)
@_option(
    "--output-keep",
    metavar="DURATION",
    default="7d",
    show_default=True,
    help="How long output is kept.",
)
@_option(
    "--output-keep-size",
    metavar="SIZE",
    default="1GiB",
    show_default=True,
    help="How much output is kept; the oldest goes first.",
)
@_option(
    "--output-cap",
    metavar="SIZE",
    default="16MiB",
    show_default=True,
    help="How much is kept of one attempt's.",
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
@log_options("agent")
@click.pass_obj
def agent(
    settings: Settings,
    id_: str,
    slots: int | None,
    labels: tuple[str, ...],
    users: tuple[str, ...],
    default_user: str,
    ttl_s: int,
    state_dir: Path | None,
    stop_timeout: str,
    shutdown_timeout: str,
    output_listen: str | None,
    output_address: str,
    output_keep: str,
    output_keep_size: str,
    output_cap: str,
    isolate: bool,
    allow_unfenced_auth: bool,
    accept_restored_cluster: bool,
    demo_etcd: bool,
    listen: str | None,
    listen_token_file: Path | None,
    log_level: str,
    log_format: str,
) -> None:
    """Run an agent until SIGTERM. SIGTERM lets what runs end first, for --stop-timeout at most;
    then jobs with a shutdown in their lifecycle run. A second one waits for nothing.

    \b
    etcsched --endpoints etcd-1:2379,etcd-2:2379 agent --label role=erp --slots 8
    """
    stop_timeout_s = _parsed("--stop-timeout", parse_duration_s, stop_timeout)
    shutdown_timeout_s = _parsed("--shutdown-timeout", parse_duration_s, shutdown_timeout)
    output_keep_s = _parsed("--output-keep", parse_duration_s, output_keep)
    if not output_keep_s:
        raise UsageError("--output-keep: must be longer than 0s")
    listening = listen_of(listen, AGENT_LISTEN, listen_token_file)
    etcd_config = settings.etcd_config()
    # Nothing before this has loaded gRPC: the supervisor is forked before it exists.
    from etcsched.agent.config import AgentConfig
    from etcsched.agent.run import run_agent

    config = AgentConfig(
        id=id_,
        slots=slots or 0,
        labels=_labels(labels),
        users=users,
        default_user=default_user,
        prefix=settings.prefix,
        state_dir=state_dir,
        session_ttl_s=ttl_s,
        stop_timeout_s=stop_timeout_s,
        shutdown_timeout_s=shutdown_timeout_s,
        output_listen=_output_listen(output_listen),
        output_port_may_vary=output_listen is None,
        output_address=_output_address(output_address),
        output_keep_s=output_keep_s,
        output_keep_bytes=_parsed("--output-keep-size", parse_size_bytes, output_keep_size),
        output_cap_bytes=_parsed("--output-cap", parse_size_bytes, output_cap),
        isolate=isolate,
        allow_unfenced_auth=allow_unfenced_auth,
        accept_restored_cluster=accept_restored_cluster,
        is_demo=demo_etcd,
        listen=listening,
    )
    with logged(log_level, log_format, "agent", config.agent_id):
        run_agent(config, etcd_config)


def _parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _output_listen(text: str | None) -> Address | None:
    return None if text == OFF else Address.parse(text or OUTPUT_LISTEN, "--output-listen")


def _output_address(text: str) -> str:
    """Checked here: nobody else would before somebody wants output."""
    if text:
        has_port = ":" in text.rpartition("]")[2]
        Address.parse(text if has_port else f"{text}:1", "--output-address")
    return text


def _labels(texts: tuple[str, ...]) -> dict[str, str]:
    """Of ``NAME=VALUE`` each."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"--label {text!r}: write NAME=VALUE")
        flaw = flaw_of_label(name)
        if flaw is not None:
            raise UsageError(f"--label {text!r}: {flaw}")
        if found.setdefault(name, value) != value:
            raise UsageError(f"--label {text!r}: {name} is {found[name]!r} already; give it once")
    return found
