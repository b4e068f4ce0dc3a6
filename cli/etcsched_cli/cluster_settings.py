"""etcsched settings: what holds for the whole cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from etcsched_cli.connect import run
from etcsched_cli.output import Column, output_options, show, table
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd

_COLUMNS = [Column("setting", whole=True), Column("value", whole=True), Column("default")]


@click.group()
def settings() -> None:
    """What holds for the whole cluster. Job files set it, below the top-level map settings."""


@settings.command("show")
@output_options(watch=True)
@click.pass_obj
def show_settings(settings: Settings, as_json: bool, watch: bool) -> None:
    """Show the cluster's settings.

    \b
    etcsched settings show
    """
    from etcsched.jobfile.writing import settings_of
    from etcsched.operator.settings import read_settings

    async def work(etcd: Etcd, keys: Keys) -> dict[str, Any]:
        async def read() -> dict[str, Any]:
            return settings_of(await read_settings(etcd, keys))

        return await show(read, _render, as_json=as_json, watch=watch)

    run(settings, work)


def _render(found: dict[str, Any]) -> Iterable[RenderableType]:
    from etcsched.core.records import ClusterSettings
    from etcsched.jobfile.writing import settings_of

    usual = settings_of(ClusterSettings())
    yield table(
        _COLUMNS,
        [
            (name, _text(value), "yes" if value == usual[name] else f"no: {_text(usual[name])}")
            for name, value in found.items()
        ],
    )


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
