"""Where output goes: a terminal, or a pipe or a file.

Without a terminal there is no colour, and nothing is cut to a width unless COLUMNS says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["WIDTH_OF_PIPES", "clean", "console", "print_all", "print_json", "say"]

WIDTH_OF_PIPES: Final = 10_000


def console() -> Console:
    from rich.console import Console

    # A terminal without a size says 0, which would leave no room at all.
    environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES") or _is_size(v)}
    is_said = "COLUMNS" in environ
    return Console(
        file=sys.stdout,
        width=None if is_said or sys.stdout.isatty() else WIDTH_OF_PIPES,
        _environ=environ,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        no_color=True if not sys.stdout.isatty() else None,
    )


def _is_size(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def print_all(renderables: Iterable[RenderableType]) -> None:
    """Lines end where their text does, so that what is copied has no blanks behind it."""
    made = console()
    with made.capture() as captured:
        for renderable in renderables:
            made.print(renderable)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def say(trouble: str) -> None:
    """Beside what is shown: what keeps it from coming."""
    click.echo(f"etcsched: {trouble}", err=True)


def print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def clean(text: str) -> str:
    """Without what a terminal would take for orders."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in text
    )
