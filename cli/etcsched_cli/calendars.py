"""etcsched calendars: the days on which jobs' schedules hold, or don't."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from etcsched.core.errors import EtcschedError, UsageError
from etcsched.core.records import Kind
from etcsched_cli.connect import run
from etcsched_cli.options import confirm_delete, yes_option
from etcsched_cli.output import Column, facts, moment, output_options, show, table
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.operator.calendars import CalendarView
    from etcsched.ports import Etcd

_SHOWN = 3


@click.group(short_help="List, show, delete, import calendars.")
def calendars() -> None:
    """Days on which ticks are excluded, or to which they are confined. Job files say which, below
    the top-level map calendars, and jobs name them."""


@calendars.command("list")
@output_options(watch=True)
@click.pass_obj
def list_(settings: Settings, as_json: bool, watch: bool) -> None:
    """Show all calendars: their days, and the jobs that use them.

    \b
    etcsched calendars list
    """
    from etcsched.operator.calendars import list_calendars

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(lambda: list_calendars(etcd, keys), _table, as_json=as_json, watch=watch)

    run(settings, work)


@calendars.command("show")
@click.argument("calendar")
@output_options(watch=True)
@click.pass_obj
def show_(settings: Settings, calendar: str, as_json: bool, watch: bool) -> None:
    """Show CALENDAR: all its days, and the jobs that use it.

    \b
    etcsched calendars show bank_holidays
    """
    from etcsched.operator.calendars import read_calendar

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(
            lambda: read_calendar(etcd, keys, calendar), _render, as_json=as_json, watch=watch
        )

    run(settings, work)


@calendars.command()
@click.argument("names", nargs=-1, required=True, metavar="CALENDAR...")
@yes_option
@click.pass_obj
def delete(settings: Settings, names: tuple[str, ...], yes: bool) -> None:
    """Delete CALENDARs that no job uses.

    \b
    etcsched calendars delete bank_holidays
    """
    from etcsched.operator.calendars import delete_calendar, no_such_calendar
    from etcsched.operator.store import check_there

    names = tuple(dict.fromkeys(names))
    if not yes:
        run(settings, lambda e, k: check_there(e, k, Kind.CALENDAR, names, no_such_calendar))
        confirm_delete(names)

    async def work(etcd: Etcd, keys: Keys) -> None:
        for name in names:
            await delete_calendar(etcd, keys, name, timeout_s=settings.timeout_s)
            click.echo(f"{name} is deleted")

    run(settings, work)


@calendars.command("import")
@click.argument("file", metavar="FILE.ics")
@click.option("--name", required=True, help="The calendar's name.")
@click.option("--exclude", "field", flag_value="exclude", default=True, help="Exclude the days.")
@click.option("--include", "field", flag_value="include", help="Confine ticks to the days.")
@click.option(
    "--years",
    type=click.IntRange(1, 20),
    default=2,
    show_default=True,
    help="How far recurring events are followed, from today on.",
)
@click.pass_obj
def import_(settings: Settings, file: str, name: str, field: str, years: int) -> None:
    """Print what a job file says for the days of FILE.ics (iCalendar; - for stdin).

    Every event's days count, as its own zone has them; of recurring ones those from a year ago to
    --years ahead. Nothing is applied: keep what is printed beside the job files.

    \b
    etcsched calendars import holidays.ics --name bank_holidays > jobs/holidays.yaml
    """
    from etcsched.jobfile.fields import flaw_of_name
    from etcsched.jobfile.ics import MAX_ICS_BYTES, days_of_events
    from etcsched.jobfile.reading import read_file

    flaw = flaw_of_name(name, "calendar")
    if flaw is not None:
        raise UsageError(f"--name: {flaw}")
    text = read_file(file, MAX_ICS_BYTES)
    found = days_of_events(text, settings.environment.now_ms(), years)
    if field == "include" and not found.days:
        # Written, it would confine nothing.
        raise EtcschedError(f"{file}: no day between {found.since} and {found.through}")
    click.echo(f"# from {file}; recurring events through {found.through}")
    click.echo("calendars:")
    click.echo(f'  "{name}":' if name.lower() == "null" else f"  {name}:")
    click.echo(f"    {field}:" + ("" if found.days else " []"))
    for day, what in found.days:
        click.echo(f"      - {day}" + (f"  # {what}" if what else ""))


def _table(views: Sequence[CalendarView]) -> Iterable[RenderableType]:
    yield table(
        [
            Column("calendar", whole=True),
            Column("exclude"),
            Column("include"),
            Column("used by"),
        ],
        [(v.name, _some(v.exclude), _some(v.include), _some(v.jobs)) for v in views],
        empty="no calendars; job files say them, below calendars",
    )


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return (", ".join(names[:_SHOWN]) or "-") + (f" and {rest} more" if rest > 0 else "")


def _render(view: CalendarView) -> Iterable[RenderableType]:
    yield facts(
        [
            ("calendar", view.name),
            ("used by", ", ".join(view.jobs) or "no job"),
            ("since", f"{moment(view.since)}, by {view.changed_by or 'unknown'}"),
            ("exclude", ", ".join(view.exclude)),
            ("include", ", ".join(view.include)),
        ]
    )
