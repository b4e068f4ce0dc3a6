"""What the commands of both daemons have in common: where they listen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from etcsched_cli.options import option

__all__ = ["listen_options"]

F = TypeVar("F", bound=Callable[..., Any])


def listen_options(of: str, default: str) -> Callable[[F], F]:
    """``--listen`` and ``--listen-token-file``, for ``listen_of``."""

    def decorate(command: F) -> F:
        command = option(
            "--listen-token-file",
            of=of,
            show_envvar=True,
            type=click.Path(path_type=Path, dir_okay=False),
            help="A token that whoever asks there must bring (Authorization: Bearer).",
        )(command)
        return option(
            "--listen",
            of=of,
            show_envvar=True,
            metavar="HOST:PORT|off",
            help=f"Where health and metrics are served, over HTTP.  [default: {default}]",
        )(command)

    return decorate
