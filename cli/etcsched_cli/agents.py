"""etcsched agents: who runs what, and taking agents out of service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from etcsched.core.agent.users import ANY_BUT_ROOT
from etcsched.core.names import check_node_name
from etcsched.core.times import utc_of
from etcsched.operator.agents import AgentInFull, AgentView, read_agent, read_agents
from etcsched.operator.drains import check_here
from etcsched.operator.drains import drain as drain_agent
from etcsched.operator.drains import undrain as undrain_agent
from etcsched_cli.completion import complete_agents
from etcsched_cli.connect import run
from etcsched_cli.output import (
    Cell,
    Column,
    age,
    facts,
    moment,
    output_options,
    show,
    styled,
    table,
)
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd


@click.group(short_help="List, show, drain, undrain agents.")
def agents() -> None:
    """List, show, drain, undrain agents."""


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


@agents.command("show")
@click.argument("agent", shell_complete=complete_agents)
@output_options(watch=True)
@click.pass_obj
def show_agent(settings: Settings, agent: str, as_json: bool, watch: bool) -> None:
    """Show AGENT: what it takes, what has its slots, where it stands, when it was last seen.

    \b
    etcsched agents show host-a
    """
    now_ms = settings.environment.now_ms

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(
            lambda: read_agent(etcd, keys, agent, now_ms()),
            lambda view: _render(view, now_ms()),
            as_json=as_json,
            watch=watch,
        )

    run(settings, work)


_names = click.argument(
    "names", nargs=-1, required=True, metavar="AGENT...", shell_complete=complete_agents
)


@agents.command()
@_names
@click.option("--absent-too", is_flag=True, help="Also one that isn't here (yet).")
@click.pass_obj
def drain(settings: Settings, names: tuple[str, ...], absent_too: bool) -> None:
    """Give AGENTs nothing new, until undrained; what runs on them ends.

    \b
    etcsched agents drain host-a
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        check_node_name("agent", name)
    if not absent_too:
        run(settings, lambda etcd, keys: check_here(etcd, keys, names))
    for name in names:
        changed = _drain(settings, name, absent_too)
        click.echo(f"{name} is draining" if changed else f"{name} was draining already")


@agents.command()
@_names
@click.pass_obj
def undrain(settings: Settings, names: tuple[str, ...]) -> None:
    """Let AGENTs have runs again.

    \b
    etcsched agents undrain host-a
    """
    for name in dict.fromkeys(names):
        changed = _undrain(settings, name)
        click.echo(f"{name} takes runs again" if changed else f"{name} wasn't draining")


def _drain(settings: Settings, agent: str, absent_too: bool) -> bool:
    async def work(etcd: Etcd, keys: Keys) -> bool:
        now, by = utc_of(settings.environment.now_ms()), settings.operator
        return await drain_agent(
            etcd, keys, agent, now, by, timeout_s=settings.timeout_s, absent_too=absent_too
        )

    return run(settings, work)


def _undrain(settings: Settings, agent: str) -> bool:
    async def work(etcd: Etcd, keys: Keys) -> bool:
        return await undrain_agent(etcd, keys, agent, timeout_s=settings.timeout_s)

    return run(settings, work)


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


def _render(view: AgentInFull, now_ms: int) -> Iterable[RenderableType]:
    yield facts([("agent", view.agent), ("state", styled(view.state.value)), *_facts(view, now_ms)])
    if not view.runs:
        return
    yield ""
    yield table(
        [Column("run", whole=True), Column("state"), Column("try", right=True), Column("runs for")],
        [
            (
                at.name,
                styled(at.state.value),
                str(at.run.attempt),
                age(at.started_at, now_ms) if at.started_at and not at.ended_at else "-",
            )
            for at in view.runs
        ],
    )


def _facts(view: AgentInFull, now_ms: int) -> Iterable[tuple[str, Cell]]:
    """Of one that isn't here there is only what others know of it."""
    is_here = view.since is not None
    yield "slots", f"{view.used} of {view.slots} used, {view.running} running" if is_here else ""
    yield "labels", ", ".join(f"{name}={value}" for name, value in view.labels.items())
    if is_here:
        yield "users", _users(view)
    if view.seated is not None:
        yield "seat", "it has one" if view.seated else ("none", "yellow")
    if view.drained_since is not None:
        by = view.drained_by or "unknown"
        yield "drained", (f"since {moment(view.drained_since)}, by {by}", "yellow")
    if view.stage is not None and view.stage_since is not None:
        yield "stage", f"{view.stage.value} since {moment(view.stage_since)}"
    if view.since is not None:
        yield "host", f"{view.host}, pid {view.pid}, version {view.version}"
        yield "up", f"{age(view.since, now_ms)}, since {moment(view.since)}"
        yield "session", view.incarnation
        yield "output", view.output_address or "not served"
    if view.seen_s_ago is not None:
        yield (
            "seen",
            f"{view.seen_s_ago} s ago at most; its lease runs out in {view.lease_left_s} s",
        )
    if view.clock_ahead_ms:
        yield "clock", (f"ahead by at least {view.clock_ahead_ms / 1000:.1f} s", "yellow")


def _users(view: AgentInFull) -> str:
    may = ["any but root" if user == ANY_BUT_ROOT else user for user in view.users]
    default = f"run as {view.default_user}" if view.default_user else "are declined"
    return f"{', '.join(may) or 'none'}; jobs without one {default}"
