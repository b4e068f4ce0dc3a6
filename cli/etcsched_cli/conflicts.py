"""etcsched conflicts: groups of jobs of which no two run at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from etcsched.core.records import Kind
from etcsched_cli.connect import run
from etcsched_cli.options import confirm_delete, yes_option
from etcsched_cli.output import Cell, Column, output_options, show, table
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.operator.conflicts import GroupView, Member
    from etcsched.ports import Etcd


@click.group(short_help="List, show, delete conflict groups.")
def conflicts() -> None:
    """Groups of jobs of which no two are assigned or running at once. Job files say which, below
    the top-level map conflicts, highest priority first."""


@conflicts.command("list")
@output_options(watch=True)
@click.pass_obj
def list_(settings: Settings, as_json: bool, watch: bool) -> None:
    """Show all conflict groups: their jobs, who holds each, how many runs wait.

    \b
    etcsched conflicts list
    """
    from etcsched.operator.conflicts import list_groups

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(lambda: list_groups(etcd, keys), _table, as_json=as_json, watch=watch)

    run(settings, work)


@conflicts.command("show")
@click.argument("group")
@output_options(watch=True)
@click.pass_obj
def show_(settings: Settings, group: str, as_json: bool, watch: bool) -> None:
    """Show GROUP: its jobs, highest priority first, and which runs of each hold it or wait.

    \b
    etcsched conflicts show ledger
    """
    from etcsched.operator.conflicts import read_group

    async def work(etcd: Etcd, keys: Keys) -> Any:
        return await show(
            lambda: read_group(etcd, keys, group), _render, as_json=as_json, watch=watch
        )

    run(settings, work)


@conflicts.command()
@click.argument("groups", nargs=-1, required=True, metavar="GROUP...")
@yes_option
@click.pass_obj
def delete(settings: Settings, groups: tuple[str, ...], yes: bool) -> None:
    """Delete GROUPs: their jobs are in nobody's way any more.

    \b
    etcsched conflicts delete ledger
    """
    from etcsched.operator.conflicts import delete_group, no_such_group
    from etcsched.operator.store import check_there

    groups = tuple(dict.fromkeys(groups))
    if not yes:
        run(settings, lambda e, k: check_there(e, k, Kind.CONFLICT, groups, no_such_group))
        confirm_delete(groups)

    async def work(etcd: Etcd, keys: Keys) -> None:
        for group in groups:
            await delete_group(etcd, keys, group, timeout_s=settings.timeout_s)
            click.echo(f"{group} is deleted")

    run(settings, work)


def _table(groups: Sequence[GroupView]) -> Iterable[RenderableType]:
    yield table(
        [
            Column("group", whole=True),
            Column("jobs, highest priority first", whole=True),
            Column("held by", whole=True),
            Column("waiting", right=True),
        ],
        [
            (
                group.name,
                ", ".join(member.job for member in group.members),
                ", ".join(f"{m.job}/{run}" for m in group.members for run in m.running) or "-",
                str(sum(len(member.waiting) for member in group.members)),
            )
            for group in groups
        ],
        empty="no conflict groups; job files say them, below conflicts",
    )


def _render(group: GroupView) -> Iterable[RenderableType]:
    yield table(
        [Column("job", whole=True), Column("holds it", whole=True), Column("waiting", whole=True)],
        [
            (_job(member), ", ".join(member.running) or "-", ", ".join(member.waiting) or "-")
            for member in group.members
        ],
    )


def _job(member: Member) -> Cell:
    return member.job if member.is_known else (f"{member.job} (no such job)", "yellow")
