"""etcsched export: what the cluster has, as a job file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from etcsched_cli.completion import complete_jobs
from etcsched_cli.connect import run
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from etcsched.jobfile.exporting import Export
    from etcsched.keyspace.keys import Keys
    from etcsched.operator.defined import Defined
    from etcsched.ports import Etcd


@click.command(short_help="Write job files of what the cluster has.")
@click.argument("names", nargs=-1, metavar="[JOB...]", shell_complete=complete_jobs)
@click.option("--tag", "tags", multiple=True, help="Only jobs with this tag (with all of several).")
@click.pass_context
def export(ctx: click.Context, names: tuple[str, ...], tags: tuple[str, ...]) -> None:
    """Print a job file that says what the cluster has: jobs, calendars, conflict groups, settings.

    Applied again it changes nothing. Of JOBs, or those with a tag, it has these and the calendars
    that they use. Pauses and drains are no part of job files. What the file can't bring back is
    said on standard error; exit code 1 if something couldn't even be read.

    \b
    etcsched export > jobs.yaml
    """
    from etcsched.jobfile.exporting import to_yaml
    from etcsched.operator.defined import read_defined

    settings: Settings = ctx.obj

    async def work(etcd: Etcd, keys: Keys) -> Defined:
        return await read_defined(etcd, keys)

    defined = run(settings, work)
    found = _export(defined, names, tags, settings.environment.now_ms())
    click.echo(to_yaml(found.document) if found.document else "# nothing to write\n", nl=False)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    for key in defined.unreadable:
        click.echo(f"etcsched: {key} can't be read, so it is left out; see doctor", err=True)
    ctx.exit(1 if defined.unreadable else 0)


def _export(defined: Defined, names: tuple[str, ...], tags: tuple[str, ...], now_ms: int) -> Export:
    from etcsched.core.errors import NotFound
    from etcsched.core.records import ClusterSettings
    from etcsched.core.states import JobState
    from etcsched.jobfile.exporting import export as exported
    from etcsched.jobfile.notify import notifications_of

    jobs = {n: job for n, job in defined.jobs.items() if job.current.state is not JobState.DELETED}
    for name in names:
        if name not in jobs:
            raise NotFound(f"job {name}: there is none; see etcsched jobs list")
    if not names and not tags:
        return exported(
            jobs.values(),
            defined.calendars.values(),
            defined.conflicts.values(),
            defined.settings,
            now_ms,
        )
    chosen = [
        job for job in jobs.values() if (not names or job.name in names) and {*tags} <= {*job.tags}
    ]
    told = {name for job in chosen for name in notifications_of(job, jobs)}
    chosen += [jobs[name] for name in sorted(told - {job.name for job in chosen})]
    used = {name for job in chosen for name in job.current.calendars}
    calendars = [one for name, one in defined.calendars.items() if name in used]
    return exported(chosen, calendars, (), ClusterSettings(), now_ms)
