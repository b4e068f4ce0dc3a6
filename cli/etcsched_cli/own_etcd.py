"""Commands that bring an etcd of their own: what the user says of other clusters isn't for it."""

from __future__ import annotations

import os
from typing import Final

import click
from click.core import ParameterSource

from etcsched.core.errors import UsageError
from etcsched_cli.settings import Settings

__all__ = ["refuse_other_cluster", "way_in"]

_OF_OTHERS: Final = ("context", "prefix", "cacert", "cert", "key", "user")


def refuse_other_cluster(ctx: click.Context) -> None:
    """On the command line it is meant for this command; in a file or the environment it isn't."""
    root = ctx.find_root()
    given = [
        f"--{name}"
        for name in ("endpoints", *_OF_OTHERS)
        if root.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(
            f"{', '.join(given)}: not for {ctx.info_name}, which starts an etcd of its own, "
            "without users or certificates; leave it out"
        )


def way_in(ctx: click.Context, endpoints: tuple[str, ...]) -> str:
    """A shell's line after which commands find that etcd, in a terminal with the same environment
    as this one; empty where they do without."""
    settings: Settings = ctx.obj
    variables = [f"ETCSCHED_{name.upper()}" for name in _OF_OTHERS]
    unset = [variable for variable in variables if os.environ.get(variable)]
    file = ctx.find_root().default_map or {}
    without_file = not file.keys().isdisjoint(_OF_OTHERS)
    if settings.endpoints == endpoints and not unset and not without_file:
        return ""
    before = f"unset {' '.join(unset)}; " if unset else ""
    no_file = f"ETCSCHED_CONFIG={os.devnull} " if without_file else ""
    return f"{before}export {no_file}ETCSCHED_ENDPOINTS={','.join(endpoints)}"
