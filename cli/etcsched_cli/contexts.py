"""etcsched contexts: the clusters that the configuration file names."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
import msgspec

from etcsched_cli.config_file import ConfigFile, read_config
from etcsched_cli.output import Column, output_options, show, table

if TYPE_CHECKING:
    from rich.console import RenderableType


class ContextView(msgspec.Struct, frozen=True):
    name: str
    is_current: bool
    endpoints: str
    prefix: str
    user: str


@click.command(short_help="List the clusters that the configuration file names.")
@output_options()
@click.pass_context
def contexts(ctx: click.Context, as_json: bool) -> None:
    """List the clusters that the configuration file names, and which of them is meant.

    \b
    etcsched contexts
    etcsched --context demo status
    ETCSCHED_CONTEXT=demo etcsched status
    """
    root = ctx.find_root()
    file = read_config(root.params["config"], root.params["context"])

    async def read() -> list[ContextView]:
        return [_view(file, name) for name in file.contexts]

    asyncio.run(show(read, lambda views: [_table(file, views)], as_json=as_json))


def _view(file: ConfigFile, name: str) -> ContextView:
    options = file.options_of(name)
    return ContextView(
        name,
        name == file.current,
        options.get("endpoints", ""),
        options.get("prefix", ""),
        options.get("user", "").partition(":")[0],
    )


def _table(file: ConfigFile, views: list[ContextView]) -> RenderableType:
    return table(
        [
            Column("context", whole=True),
            Column("current"),
            Column("endpoints", whole=True),
            Column("prefix", optional=True),
            Column("user", optional=True),
        ],
        [
            (view.name, "*" if view.is_current else "", view.endpoints, view.prefix, view.user)
            for view in views
        ],
        empty=f"no contexts; {file.path} may have a map contexts:",
    )
