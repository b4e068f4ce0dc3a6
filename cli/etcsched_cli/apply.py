"""etcsched apply, etcsched validate: job files into the cluster, or just looked through."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from etcsched.core.states import OnDisconnect
from etcsched.core.times import utc_of
from etcsched.jobfile import load, mentions_chains, read_files
from etcsched_cli.connect import run
from etcsched_cli.output import Cell, Column, output_options, print_all, print_json, styled, table
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.core.records import Job
    from etcsched.keyspace.keys import Keys
    from etcsched.operator.apply import JobChange
    from etcsched.operator.calendars import CalendarChange
    from etcsched.operator.conflicts import GroupChange
    from etcsched.operator.settings import SettingsChange
    from etcsched.ports import Etcd

    Change = SettingsChange | JobChange | CalendarChange | GroupChange

_COLUMNS = [
    Column("change"),
    Column("job", whole=True),
    Column("field"),
    Column("before", whole=True),
    Column("after", whole=True),
]
_FILES = click.argument("files", nargs=-1, required=True, metavar="FILE...")


@click.command(short_help="Check job files, without a cluster.")
@_FILES
@output_options()
@click.pass_obj
def validate(settings: Settings, files: tuple[str, ...], as_json: bool) -> None:
    """Check job files, without a cluster. A directory stands for its YAML files, - for stdin.

    \b
    etcsched validate jobs/
    """
    wanted = load(read_files(files), settings.environment.now_ms())
    if as_json:
        print_json([job.name for job in wanted.jobs])
    else:
        counts = [_count(len(wanted.jobs), "job")]
        if wanted.calendars:
            counts.append(_count(len(wanted.calendars), "calendar"))
        if wanted.conflicts:
            counts.append(_count(len(wanted.conflicts), "conflict group"))
        if wanted.settings:
            counts.append(_count(len(wanted.settings), "setting"))
        click.echo(f"{', '.join(counts)}, no problem")


@click.command(short_help="Apply job files.")
@_FILES
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@output_options()
@click.pass_obj
def apply(settings: Settings, files: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Make the cluster's jobs, calendars, conflict groups and settings what FILES say.

    With any problem in any file nothing is applied. Applied again, nothing changes. What no
    file names stays as it is.

    \b
    etcsched apply jobs/ --dry-run
    """
    from etcsched.operator import apply as operator
    from etcsched.operator.calendars import apply_calendars, plan_calendars
    from etcsched.operator.conflicts import apply_groups, plan_groups
    from etcsched.operator.settings import apply_settings, plan_settings

    now_ms = settings.environment.now_ms()
    texts = read_files(files)
    known = load(texts, now_ms) if not mentions_chains(texts) else None

    async def work(etcd: Etcd, keys: Keys) -> list[Change]:
        # What is chained to may be in the cluster only.
        wanted = known or load(texts, now_ms, await operator.all_jobs(etcd, keys))
        now, by, timeout_s = utc_of(now_ms), settings.operator, settings.timeout_s
        changes: list[Change] = []
        if wanted.settings:
            # First, since not everybody may change them: then nothing is half done.
            if dry_run:
                changes.append(await plan_settings(etcd, keys, wanted.settings))
            else:
                changes.append(
                    await apply_settings(etcd, keys, wanted.settings, by, timeout_s=timeout_s)
                )
        # Before the jobs that use them.
        if dry_run:
            changes += await plan_calendars(etcd, keys, wanted.calendars)
        else:
            changes += await apply_calendars(
                etcd, keys, wanted.calendars, now, by, timeout_s=timeout_s
            )
        if dry_run:
            changes += await operator.plan(etcd, keys, wanted.jobs, now)
        else:
            changes += await operator.apply(etcd, keys, wanted.jobs, now, by, timeout_s=timeout_s)
        # Last, since their jobs have to be there.
        if dry_run:
            changes += await plan_groups(etcd, keys, wanted.conflicts)
        else:
            changes += await apply_groups(etcd, keys, wanted.conflicts, by, timeout_s=timeout_s)
        _say_what_is_waived(wanted.jobs, changes)
        return changes

    changes = run(settings, work)
    if as_json:
        print_json(changes)
    else:
        print_all(_render(changes, dry_run))


def _say_what_is_waived(jobs: Iterable[Job], changes: Sequence[Change]) -> None:
    changed = {getattr(c, "job", "") for c in changes if c.kind.value != "unchanged"}
    for job in jobs:
        if job.name in changed and job.on_disconnect is OnDisconnect.CONTINUE:
            click.echo(
                f"note: {job.name}: on_disconnect: continue waives that its attempts, and jobs of "
                "its conflict groups, never overlap",
                err=True,
            )


def _render(changes: Sequence[Change], dry_run: bool) -> Iterable[RenderableType]:
    changed = [change for change in changes if change.kind.value != "unchanged"]
    if changed:
        rows: list[tuple[Cell, ...]] = []
        for change in changed:
            name = _name(change)
            rows.append((styled(change.kind.value), name, "", "", ""))
            rows += [
                ("", "", field.field, (_value(field.before), "red"), (_value(field.after), "green"))
                for field in change.fields
            ]
        yield table(_COLUMNS, rows)
        yield ""
    counts = Counter(change.kind.value for change in changes)
    done = {"create": "created", "update": "updated", "unchanged": "unchanged"}
    text = ", ".join(f"{counts[kind]} {word}" for kind, word in done.items() if counts[kind])
    yield f"would be: {text}" if dry_run else text


def _name(change: Change) -> str:
    from etcsched.operator.apply import JobChange

    return change.job if isinstance(change, JobChange) else f"({change.what})"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
