"""etcsched runs cancel: ends runs, by name, or many by what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from etcsched.core.states import FINAL, RunState
from etcsched.operator import cancel as operator
from etcsched.operator.bulk import Asked, Asker, Progress
from etcsched.operator.choosing import Wanted
from etcsched.operator.requests import check_active, check_known
from etcsched.operator.runs import parse_run_name
from etcsched_cli.asking import SHOWN, Asking, count, first_rows, report, states_counted
from etcsched_cli.choosing import chosen_or_named, tags_of_jobs, times
from etcsched_cli.completion import complete_jobs, complete_runs
from etcsched_cli.options import confirm, yes_option
from etcsched_cli.output import Column, moment, output_options, print_all, print_json, styled
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.operator.runs import RunView
    from etcsched.ports import Etcd

_ACTIVE = [state.value for state in RunState if state not in FINAL]
_CANCELLABLE = f"{', '.join(_ACTIVE[:-1])} or {_ACTIVE[-1]}"
_STATES = click.Choice(_ACTIVE)


@click.command(short_help="End what waits or runs.")
@click.argument("names", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs)
@click.option("--job", help="Runs of this job.", shell_complete=complete_jobs)
@tags_of_jobs
@click.option("--state", "states", type=_STATES, multiple=True, help="That are in this state.")
@times
@click.option("--dry-run", is_flag=True, help="Only show which runs these are.")
@yes_option
@output_options()
@click.pass_context
def cancel(
    ctx: click.Context,
    names: tuple[str, ...],
    job: str | None,
    tags: tuple[str, ...],
    states: tuple[str, ...],
    since: str | None,
    until: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """End RUNs (JOB/ID), or all that the options choose: at once what waits, with its kill_grace
    what runs.

    What waits goes first, the newest first, so that none of these starts because another ended.
    Times without an offset are UTC.

    \b
    etcsched runs cancel close_books/20261122T190000Z
    etcsched runs cancel --job close_books --state queued
    """
    settings: Settings = ctx.obj
    now_ms = settings.environment.now_ms()
    wanted = chosen_or_named(names, job, tags, states, since, until, now_ms)
    chosen: list[RunView] = []
    asking = Asking(settings, now_ms)
    if wanted is not None:
        chosen = asking.look(lambda etcd, keys: _choose(etcd, keys, wanted))
        runs = [(view.run.job, view.run.id) for view in chosen]
    else:
        runs = list(dict.fromkeys(parse_run_name(name) for name in names))
        asking.look(lambda etcd, keys: _check(etcd, keys, runs))
    if dry_run:
        _show(runs, chosen, as_json)
        return
    if chosen and not yes:
        confirm(f"Cancel {_summary(chosen)}?", "nothing was cancelled")

    async def work(etcd: Etcd, keys: Keys, asker: Asker, progress: Progress) -> list[Asked]:
        return await operator.cancel_all(etcd, keys, runs, asker, progress)

    asked = asking.ask(work)
    report(ctx, asked, as_json, _done(asked, wanted is not None))


async def _choose(etcd: Etcd, keys: Keys, wanted: Wanted) -> list[RunView]:
    chosen = await operator.choose(etcd, keys, wanted)
    if wanted.job is not None and not chosen:
        await check_known(etcd, keys, wanted.job)
    return chosen


async def _check(etcd: Etcd, keys: Keys, runs: Sequence[tuple[str, str]]) -> None:
    for job, run in runs:
        await check_active(etcd, keys, job, run, _CANCELLABLE, "cancelled")


def _summary(chosen: Sequence[RunView]) -> str:
    return states_counted(view.state for view in chosen)


def _show(runs: Sequence[tuple[str, str]], chosen: Sequence[RunView], as_json: bool) -> None:
    names = [f"{job}/{run}" for job, run in runs]
    if as_json:
        print_json(names)
    elif chosen:
        print_all(_render(chosen))
    else:
        click.echo(f"would cancel {', '.join(names)}" if names else "no run to cancel")


def _render(chosen: Sequence[RunView]) -> Iterable[RenderableType]:
    yield from first_rows(
        [Column("run", whole=True), Column("state"), Column("scheduled"), Column("agent")],
        [
            (view.name, styled(view.state.value), moment(view.at), view.agent or "-")
            for view in chosen
        ],
    )
    yield f"would cancel {_summary(chosen)}"


def _done(asked: Sequence[Asked], is_choice: bool) -> Iterable[str]:
    done = [each for each in asked if each.accepted]
    if not is_choice or len(done) <= SHOWN:
        yield from (f"{each.run}: {each.message}" for each in done)
    if is_choice:
        yield f"cancelled {count(len(done), 'run')}" if asked else "no run to cancel"
