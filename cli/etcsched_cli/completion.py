"""Completion for shells: the script that a shell reads, and the names that a cluster has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from etcsched.core.errors import EtcschedError
from etcsched.core.records import Kind, Run
from etcsched.core.states import RunState
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd

__all__ = [
    "complete_agents",
    "complete_held_runs",
    "complete_jobs",
    "complete_jobs_and_runs",
    "complete_runs",
    "completion",
]

_WITHIN_S: Final = 2.0
"""Whoever has pressed a key doesn't wait longer."""
_MOST: Final = 200
_MOST_READ: Final = 2000
_VARIABLE: Final = "_ETCSCHED_COMPLETE"

Look = Callable[["Etcd", "Keys", str], Awaitable[list[str]]]
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL, which completes commands, options, and the names of
    jobs, runs and agents.

    \b
    eval "$(etcsched completion bash)"                          # in ~/.bashrc
    eval "$(etcsched completion zsh)"                           # in ~/.zshrc
    etcsched completion fish > ~/.config/fish/completions/etcsched.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    root = ctx.find_root().command
    # click's own check of bash's version starts bash, which needn't be here.
    script = made(root, {}, "etcsched", _VARIABLE)
    click.echo(script.source_template % script.source_vars())


async def _jobs(etcd: Etcd, keys: Keys, begun: str) -> list[str]:
    return await _names(etcd, *keys.all_of(Kind.JOB), begun)


async def _agents(etcd: Etcd, keys: Keys, begun: str) -> list[str]:
    return await _names(etcd, *keys.all_of(Kind.PRESENCE), begun)


async def _runs(etcd: Etcd, keys: Keys, begun: str) -> list[str]:
    """Jobs until one is named, then its runs: those that aren't over, then the others, newest
    first."""
    job, slash, run = begun.partition("/")
    if not slash:
        return [f"{name}/" for name in await _jobs(etcd, keys, begun)]
    active = await _names(etcd, *keys.all_of(Kind.RUN, job), run)
    over = await _names(etcd, *keys.archive_of(job), run)
    return [f"{job}/{id_}" for id_ in [*active, *reversed(over)]]


async def _jobs_and_runs(etcd: Etcd, keys: Keys, begun: str) -> list[str]:
    """Jobs as they are, and with the slash that their runs come after."""
    if "/" in begun:
        return await _runs(etcd, keys, begun)
    return [text for name in await _jobs(etcd, keys, begun) for text in (name, f"{name}/")]


async def _held_runs(etcd: Etcd, keys: Keys, begun: str) -> list[str]:
    """At once, since they are few."""
    from etcsched.keyspace.ops import range_end_of
    from etcsched.operator.store import read_all

    start, end = keys.all_of(Kind.RUN)
    span = (start + begun, range_end_of(start + begun) if begun else end)
    runs = await read_all(etcd, span, Run, limit=_MOST_READ)
    return [f"{run.job}/{run.id}" for run in runs if run.state is RunState.HELD]


async def _names(etcd: Etcd, start: str, end: str, begun: str) -> list[str]:
    from etcsched.keyspace.ops import Range, range_end_of

    first = start + begun
    until = range_end_of(first) if begun else end
    found = await etcd.range(Range(first, until, limit=_MOST, keys_only=True), timeout_s=_WITHIN_S)
    return [kv.key[len(start) :] for kv in found.kvs]


def _completer(look: Look) -> Completer:
    def complete(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
        try:
            return [CompletionItem(name) for name in _ask(ctx.find_root(), look, begun)]
        except (EtcschedError, OSError):
            return []  # A cluster that doesn't answer completes nothing, and says nothing.

    return complete


def _ask(root: click.Context, look: Look, begun: str) -> list[str]:
    from etcsched.keyspace.keys import Keys

    settings = Settings.of(root, root.params)
    if settings.user and settings.password is None:
        return []  # Nobody is asked for a password in the middle of a line.

    async def work() -> list[str]:
        etcd = settings.environment.open_etcd(settings.etcd_config(), _WITHIN_S)
        try:
            async with asyncio.timeout(_WITHIN_S):
                return await look(etcd, Keys(settings.prefix), begun)
        except TimeoutError:
            return []
        finally:
            await etcd.close()

    return asyncio.run(work())


complete_jobs = _completer(_jobs)
complete_runs = _completer(_runs)
complete_jobs_and_runs = _completer(_jobs_and_runs)
complete_held_runs = _completer(_held_runs)
complete_agents = _completer(_agents)
