"""etcsched agents: who runs what, and taking agents out of service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from etcsched.core.times import utc_of
from etcsched.operator.cluster import AgentView, read_agents
from etcsched.operator.drains import drain as drain_agent
from etcsched.operator.drains import undrain as undrain_agent
from etcsched_cli.completion import complete_agents
from etcsched_cli.connect import run
from etcsched_cli.output import Column, age, output_options, show, styled, table
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd


@click.group(short_help="List, drain, undrain agents.")
def agents() -> None:
    """List, drain, undrain agents."""


@agents.command("list")
@output_options(watch=True)
@click.pass_obj
def list_agents(settings: Settings, as_json: bool, watch: bool) -> None:
    """Show all agents: their slots, what uses them, their labels.

    \b
    etcsched agents list
    """
    now_ms = settings.environment.now_ms

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(
            lambda: read_agents(etcd, keys, now_ms()),
            lambda views: [agents_table(views, now_ms())],
            as_json=as_json,
            watch=watch,
        )

    run(settings, work)


@agents.command()
@click.argument("agent", shell_complete=complete_agents)
@click.option("--absent-too", is_flag=True, help="Also one that isn't here (yet).")
@click.pass_obj
def drain(settings: Settings, agent: str, absent_too: bool) -> None:
    """Give AGENT nothing new, until undrained; what runs on it ends.

    \b
    etcsched agents drain host-a
    """

    async def work(etcd: Etcd, keys: Keys) -> bool:
        return await drain_agent(
            etcd,
            keys,
            agent,
            utc_of(settings.environment.now_ms()),
            settings.operator,
            timeout_s=settings.timeout_s,
            absent_too=absent_too,
        )

    changed = run(settings, work)
    click.echo(f"{agent} is draining" if changed else f"{agent} was draining already")


@agents.command()
@click.argument("agent", shell_complete=complete_agents)
@click.pass_obj
def undrain(settings: Settings, agent: str) -> None:
    """Let AGENT have runs again.

    \b
    etcsched agents undrain host-a
    """

    async def work(etcd: Etcd, keys: Keys) -> bool:
        return await undrain_agent(etcd, keys, agent, timeout_s=settings.timeout_s)

    changed = run(settings, work)
    click.echo(f"{agent} takes runs again" if changed else f"{agent} wasn't draining")


def agents_table(views: Sequence[AgentView], now_ms: int) -> RenderableType:
    return table(
        [
            Column("agent", whole=True),
            Column("state"),
            Column("used", right=True),
            Column("slots", right=True),
            Column("running", right=True),
            Column("labels", optional=True),
            Column("host", optional=True),
            Column("up"),
            Column("version", optional=True),
        ],
        [
            (
                view.agent,
                styled(view.state.value),
                str(view.used),
                str(view.slots) if view.since else "-",
                str(view.running),
                ",".join(f"{name}={value}" for name, value in view.labels.items()),
                view.host,
                age(view.since, now_ms) if view.since else "-",
                view.version,
            )
            for view in views
        ],
        empty="no agent is here; start one with etcsched agent",
    )
