"""etcsched runs resubmit: runs again, one by name, or many by what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from etcsched.core.states import FINAL, RunState
from etcsched.operator import resubmit as operator
from etcsched.operator.bulk import Asker, Progress
from etcsched.operator.choosing import Wanted
from etcsched.operator.params import check_params_of_runs
from etcsched.operator.requests import check_known
from etcsched.operator.runs import parse_run_name
from etcsched_cli.asking import SHOWN, Asking, count, first_rows, report, states_counted
from etcsched_cli.choosing import chosen_or_named, tags_of_jobs, times
from etcsched_cli.completion import complete_runs
from etcsched_cli.options import confirm, read_params, yes_option
from etcsched_cli.output import Column, moment, output_options, print_all, print_json, styled
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.core.records import Run
    from etcsched.keyspace.keys import Keys
    from etcsched.operator.resubmit import Chosen, Records, Resubmitted
    from etcsched.ports import Etcd

_STATES = click.Choice([state.value for state in RunState if state in FINAL])


@click.command(short_help="Run again what is over.")
@click.argument("names", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs)
@click.option("--job", help="Runs of this job.")
@tags_of_jobs
@click.option("--state", "states", type=_STATES, multiple=True, help="That ended so.")
@times
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Change a parameter.")
@click.option("--force", is_flag=True, help="Also where the job is disabled.")
@click.option("--dry-run", is_flag=True, help="Only show which runs these are.")
@yes_option
@output_options()
@click.pass_context
def resubmit(
    ctx: click.Context,
    names: tuple[str, ...],
    job: str | None,
    tags: tuple[str, ...],
    states: tuple[str, ...],
    since: str | None,
    until: str | None,
    params: tuple[str, ...],
    force: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Run RUNs (JOB/ID) again, or all that the options choose, with their times and parameters.

    Each becomes a new run of its job, linked with the one that it resubmits. Those of one job go
    one at a time, the oldest first, unless it may overlap. Chosen by options, runs that were
    resubmitted before are left out. Times without an offset are UTC.

    Ticks that were missed in a row share a record, which stands for "12 ticks", say. Each is named
    by its own time all the same, as JOB/20261122T190000Z; the record's name is its first tick's. By
    options its ticks are chosen one by one, at most 1000 of such at once.

    \b
    etcsched runs resubmit close_books/20261122T190000Z
    etcsched runs resubmit --job report --state missed --since 2026-11-22T19:00
    etcsched runs resubmit --tag finance --state died --since 12h
    """
    settings: Settings = ctx.obj
    now_ms = settings.environment.now_ms()
    changes = read_params(params)
    wanted = chosen_or_named(names, job, tags, states, since, until, now_ms)
    asking = Asking(settings, now_ms)
    records: Records = {}
    chosen: Chosen | None = None
    if wanted is not None:
        chosen = asking.look(lambda etcd, keys: _choose(etcd, keys, wanted, changes))
        if dry_run:
            _show_chosen(chosen, as_json)
            return
        records = chosen.records
        if chosen.runs and not yes:
            confirm(f"Resubmit {_summary(chosen.runs)}?", "nothing was resubmitted")
        runs = [(run.job, run.id) for run in chosen.runs]
    else:
        runs = list(dict.fromkeys(parse_run_name(name) for name in names))
        if dry_run:
            asking.look(lambda etcd, keys: operator.check(etcd, keys, runs, changes))
            _show_named(runs, as_json)
            return

    async def work(etcd: Etcd, keys: Keys, asker: Asker, progress: Progress) -> list[Resubmitted]:
        known = await operator.check(etcd, keys, runs, changes, records)
        return await operator.resubmit(
            etcd, keys, runs, asker, progress, params=changes, force=force, records=known
        )

    asked = asking.ask(work)
    report(ctx, asked, as_json, _done(asked, chosen))


async def _choose(etcd: Etcd, keys: Keys, wanted: Wanted, changes: dict[str, str]) -> Chosen:
    chosen = await operator.choose(etcd, keys, wanted)
    if wanted.job is not None and not chosen.runs:
        await check_known(etcd, keys, wanted.job)
    # Before anybody is asked whether to do it. That they are there was seen just now.
    names = [(run.job, run.id) for run in chosen.runs]
    await check_params_of_runs(etcd, keys, operator.recorded(names, chosen.records), changes)
    return chosen


def _summary(runs: Sequence[Run]) -> str:
    return states_counted(run.state for run in runs)


def _left_out(chosen: Chosen) -> Iterable[str]:
    if chosen.again:
        runs = count(chosen.again, "run")
        yield f"{runs} left out: resubmitted before, or its original was"
    if chosen.unnamed:
        ticks = count(chosen.unnamed, "missed tick")
        yield f"{ticks} left out: their record, of an older version, doesn't name them"
    if chosen.more:
        ticks = count(chosen.more, "missed tick")
        yield (
            f"{ticks} left out: of those that share a record at most {operator.MOST_TICKS} at "
            "once, the oldest; the same command again takes up the rest, unless the runs of these "
            "have driven their record out by then (keep)"
        )


def _show_chosen(chosen: Chosen, as_json: bool) -> None:
    if as_json:
        print_json([f"{run.job}/{run.id}" for run in chosen.runs])
        return
    print_all(_render_chosen(chosen))


def _render_chosen(chosen: Chosen) -> Iterable[RenderableType]:
    if chosen.runs:
        columns = [Column("run", whole=True), Column("state"), Column("scheduled")]
        rows = [
            (f"{run.job}/{run.id}", styled(run.state.value), moment(run.scheduled_at))
            for run in chosen.runs
        ]
        yield from first_rows(columns, rows)
    yield f"would resubmit {_summary(chosen.runs)}" if chosen.runs else "no run to resubmit"
    yield from _left_out(chosen)


def _show_named(runs: Sequence[tuple[str, str]], as_json: bool) -> None:
    names = [f"{job}/{run}" for job, run in runs]
    if as_json:
        print_json(names)
    else:
        click.echo(f"would resubmit {', '.join(names)}")


def _done(asked: Sequence[Resubmitted], chosen: Chosen | None) -> Iterable[str]:
    done = [each for each in asked if each.accepted]
    if chosen is None or len(done) <= SHOWN:
        yield from (f"{each.run}: resubmitted as {each.new_run}; {each.message}" for each in done)
    if chosen is not None:
        yield f"resubmitted {count(len(done), 'run')}" if asked else "no run to resubmit"
        yield from _left_out(chosen)
