"""etcsched apply, etcsched validate: job files into the cluster, or just looked through."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeGuard

import click

from etcsched.core.errors import EtcschedError, Refused, UsageError
from etcsched.core.states import OnDisconnect
from etcsched.core.text import some
from etcsched.core.times import utc_of
from etcsched.jobfile import Draft, load, read_files
from etcsched.jobfile.lint import lint
from etcsched_cli.connect import run
from etcsched_cli.options import confirm
from etcsched_cli.output import Cell, Column, output_options, print_all, print_json, styled, table
from etcsched_cli.settings import Settings
from etcsched_cli.signals import signals_raised

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.core.records import Job
    from etcsched.core.times import Utc
    from etcsched.jobfile import JobFiles
    from etcsched.keyspace.keys import Keys
    from etcsched.operator.apply import JobChange
    from etcsched.operator.calendars import CalendarChange
    from etcsched.operator.conflicts import GroupChange
    from etcsched.operator.defined import Defined
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
_LISTED = 20
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
    now_ms = settings.environment.now_ms()
    wanted = load(read_files(files), now_ms)
    _warn(lint(wanted.jobs, {one.name: one for one in wanted.calendars}, now_ms))
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
@click.option(
    "--prune", is_flag=True, help="Remove what came from files, and these don't name any more."
)
@click.option("--yes", "-y", is_flag=True, help="Don't ask before removing.")
@output_options()
@click.pass_obj
def apply(
    settings: Settings,
    files: tuple[str, ...],
    dry_run: bool,
    prune: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Make the cluster's jobs, calendars, conflict groups and settings what FILES say.

    With any problem in any file nothing is applied. Applied again, nothing changes. What no
    file names stays as it is, unless --prune is given: then FILES are all that there are. Settings
    always stay.

    \b
    etcsched apply jobs/ --dry-run
    etcsched apply jobs/ --prune
    """
    from etcsched.operator.defined import read_defined

    now_ms = settings.environment.now_ms()
    draft = Draft(read_files(files), now_ms)
    if not draft.is_sound:
        # Whatever the cluster has; this names every problem.
        draft.resolved(None)

    async def work(etcd: Etcd, keys: Keys) -> list[Change]:
        gone: Defined | None = None
        there: Defined | None = None
        if prune or draft.refers_to_others:
            there = await read_defined(etcd, keys)
            if prune:
                gone = there.unnamed(draft.names)
                _check_not_referred_to(gone, draft.names)
                there = there.without(gone)
        wanted = draft.resolved(there.known() if there is not None else None)
        if dry_run:
            changes = await _plan(etcd, keys, wanted, gone, utc_of(now_ms))
        else:
            if gone is not None and not yes:
                _confirm(gone)
            # Whoever was asked may have taken their time.
            now = utc_of(settings.environment.now_ms())
            changes = await _apply(etcd, keys, wanted, gone, settings, now)
        calendars = dict(there.calendars) if there is not None else {}
        calendars |= {one.name: one for one in wanted.calendars}
        others = there.jobs if there is not None else {}
        with suppress(EtcschedError):  # What is done is done, whatever is said of it.
            await _say_what_is_paused(etcd, keys, changes)
        _warn(lint(wanted.jobs, calendars, now_ms, _changed_jobs(changes), others))
        return changes

    changes = run(settings, work)
    if as_json:
        print_json(changes)
    else:
        print_all(_render(changes, dry_run))


def _check_not_referred_to(gone: Defined, wanted: JobFiles) -> None:
    """What these files refer to isn't removed with what they don't name."""
    for job in wanted.jobs:
        calendars = [f"calendar {name}" for name in job.current.calendars if name in gone.calendars]
        targets = [f"job {link.to}" for link in job.chain if link.to in gone.jobs]
        for what in (*calendars, *targets):
            raise UsageError(
                f"--prune would remove {what}, which job {job.name} refers to; name its file, too"
            )
    for group in wanted.conflicts:
        for name in group.jobs:
            if name in gone.jobs:
                raise UsageError(
                    f"--prune would remove job {name}, which conflict group {group.group} refers "
                    "to; name its file, too"
                )


async def _plan(
    etcd: Etcd, keys: Keys, wanted: JobFiles, gone: Defined | None, now: Utc
) -> list[Change]:
    from etcsched.operator import apply as operator
    from etcsched.operator.calendars import plan_calendars
    from etcsched.operator.conflicts import plan_groups
    from etcsched.operator.pruning import plan_removal
    from etcsched.operator.settings import plan_settings

    changes: list[Change] = []
    if wanted.settings:
        changes.append(await plan_settings(etcd, keys, wanted.settings))
    changes += await plan_calendars(etcd, keys, wanted.calendars)
    changes += await operator.plan(etcd, keys, wanted.jobs, now)
    changes += await plan_groups(etcd, keys, wanted.conflicts)
    if gone is not None:
        changes += plan_removal(gone)
    _say_what_is_waived(wanted.jobs, changes)
    return changes


async def _apply(
    etcd: Etcd,
    keys: Keys,
    wanted: JobFiles,
    gone: Defined | None,
    settings: Settings,
    now: Utc,
) -> list[Change]:
    from etcsched.operator import apply as operator
    from etcsched.operator.calendars import apply_calendars
    from etcsched.operator.conflicts import apply_groups, check_groups
    from etcsched.operator.decided import check_clock
    from etcsched.operator.pruning import remove
    from etcsched.operator.settings import apply_settings

    by, timeout_s = settings.operator, settings.timeout_s
    changes: list[Change] = []
    jobs_done = 0

    def progress(number: int) -> None:
        nonlocal jobs_done
        jobs_done = number

    try:
        with signals_raised():
            # What would be refused later on is, before anything is written.
            if wanted.calendars or wanted.jobs or gone is not None:
                await check_clock(etcd, keys, now)
            await check_groups(etcd, keys, wanted.conflicts)
            if wanted.settings:
                # First, since not everybody may change them: then nothing is half done.
                changes.append(
                    await apply_settings(etcd, keys, wanted.settings, by, timeout_s=timeout_s)
                )
            # Before the jobs that use them, and those that are in them: none is due without.
            for calendar in wanted.calendars:
                changes += await apply_calendars(
                    etcd, keys, [calendar], now, by, timeout_s=timeout_s
                )
            for group in wanted.conflicts:
                changes += await apply_groups(etcd, keys, [group], by, timeout_s=timeout_s)
            changes += await operator.apply(
                etcd, keys, wanted.jobs, now, by, timeout_s=timeout_s, progress=progress
            )
            if gone is not None:
                # Last: what is kept may have referred to it.
                removed, stay = await remove(etcd, keys, gone, now, by, timeout_s=timeout_s)
                changes += removed
                for why in stay:
                    click.echo(f"note: {why}; apply again with --prune", err=True)
    except BaseException as error:
        # Who refuses to remove something says what stays.
        is_said = isinstance(error, Refused) and jobs_done == len(wanted.jobs)
        if (changes or jobs_done) and not is_said:
            text = f"{jobs_done} of {_count(len(wanted.jobs), 'job')} are applied"
            click.echo(f"note: not all is done: {text}; apply again", err=True)
        raise
    _say_what_is_waived(wanted.jobs, changes)
    return changes


async def _say_what_is_paused(etcd: Etcd, keys: Keys, changes: Sequence[Change]) -> None:
    from etcsched.operator.jobs import paused_among

    created = [change.job for change in changes if _is_new_job(change)]
    paused = await paused_among(etcd, keys, created)
    if paused:
        click.echo(
            f"note: paused before, and so still: {some(paused)}; etcsched jobs resume lets them go "
            "on",
            err=True,
        )


def _is_new_job(change: Change) -> TypeGuard[JobChange]:
    from etcsched.operator.apply import ChangeKind, JobChange

    return isinstance(change, JobChange) and change.kind is ChangeKind.CREATE


def _confirm(gone: Defined) -> None:
    found: dict[str, Iterable[str]] = {
        "job": gone.jobs,
        "calendar": gone.calendars,
        "conflict group": gone.conflicts,
    }
    lines = [f"{kind} {name}" for kind, names in found.items() for name in names]
    if not lines:
        return
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    click.echo("\n".join([*lines[:_LISTED], *more]), err=True)
    confirm(f"Remove {_count(len(lines), 'item')}?", "nothing was applied or removed")


def _changed_jobs(changes: Sequence[Change]) -> set[str]:
    return {getattr(c, "job", "") for c in changes if c.kind.value != "unchanged"}


def _warn(texts: Iterable[str]) -> None:
    for text in texts:
        click.echo(f"warning: {text}", err=True)


def _say_what_is_waived(jobs: Iterable[Job], changes: Sequence[Change]) -> None:
    changed = _changed_jobs(changes)
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
    done = {"create": "created", "update": "updated", "delete": "removed", "unchanged": "unchanged"}
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
