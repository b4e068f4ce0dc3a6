"""The one place that knows rich: tables for people, JSON for programs, and showing them again.

Without a terminal there is no colour, and nothing is cut to a width unless COLUMNS says so.
Whatever comes from a cluster is shown as text: no markup, no control characters.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from etcsched.core.durations import format_duration
from etcsched.core.times import Utc, ms_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = [
    "Cell",
    "Column",
    "age",
    "clean",
    "facts",
    "moment",
    "output_options",
    "show",
    "styled",
    "table",
    "tree",
]

T = TypeVar("T")
Cell = str | tuple[str, str]
"""Text, or text and its style."""

_WIDTH_OF_PIPES: Final = 10_000
_WATCH_EVERY_S: Final = 1.0
WHOLE_LEAST = 12

_STYLES: Final = {
    "completed": "green",
    "running": "cyan",
    "assigned": "cyan",
    "ready": "yellow",
    "queued": "yellow",
    "conflicted": "yellow",
    "retrying": "yellow",
    "held": "magenta",
    "failed": "red",
    "timed_out": "red",
    "died": "red",
    "abandoned": "red",
    "missed": "magenta",
    "overlapped": "magenta",
    "conflict_missed": "magenta",
    "cancelled": "bright_black",
    "paused": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "standby": "cyan",
    "full": "yellow",
    "absent": "red",
    "outage": "red",
    "disabled": "bright_black",
    "ok": "green",
    "warning": "yellow",
    "bad": "red",
    "create": "green",
    "update": "yellow",
    "delete": "red",
    "unchanged": "bright_black",
}


class Column(msgspec.Struct, frozen=True):
    """``whole``: never cut, since people copy it; it wraps where a line is too short.
    ``optional``: left out, the last one first, where a line is too short for all."""

    title: str
    right: bool = False
    whole: bool = False
    optional: bool = False


class Tree(msgspec.Struct, frozen=True):
    """A line, and what hangs below it."""

    line: Sequence[Cell]
    below: Sequence[Tree]


def output_options(watch: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--json``, and ``--watch`` where looking again is cheap."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        if watch:
            command = click.option(
                "--watch", "-w", is_flag=True, help="Show it again every second, until Ctrl-C."
            )(command)
        return click.option("--json", "as_json", is_flag=True, help="As JSON.")(command)

    return decorate


async def show(
    read: Callable[[], Awaitable[T]],
    render: Callable[[T], Iterable[RenderableType]],
    *,
    as_json: bool,
    watch: bool = False,
) -> T:
    """Read and show once, or for ever; returns what was shown last.

    Watched as JSON, every look is one line.
    """
    if not watch:
        value = await read()
        if as_json:
            print_json(value)
        else:
            _print(render(value))
        return value
    with redrawn() as draw:
        while True:
            value = await read()
            if as_json:
                click.echo(msgspec.json.encode(value).decode())
            else:
                draw(render(value))
            await asyncio.sleep(_WATCH_EVERY_S)


def print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_all(renderables: Iterable[RenderableType]) -> None:
    _print(renderables)


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[Cell]], empty: str = ""
) -> RenderableType:
    """``empty`` is said in place of a table without rows."""
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    shown = _fitting(columns, rows)
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place in shown:
        column = columns[place]
        made.add_column(
            column.title.upper(),
            justify="right" if column.right else "left",
            overflow="fold" if column.whole else "ellipsis",
            no_wrap=not column.whole,
            min_width=_least_width(column, rows, place),
        )
    for row in rows:
        made.add_row(*(_text(row[place]) for place in shown))
    return made if rows or not empty else Text(empty)


def _least_width(column: Column, rows: Sequence[Sequence[Cell]], place: int) -> int | None:
    """What is whole is folded where it must be, but never squeezed out."""
    if column.right:
        return len(column.title)
    if not column.whole:
        return None
    longest = max((len(_text(row[place])) for row in rows), default=0)
    return min(WHOLE_LEAST, max(longest, len(column.title)))


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[int]:
    """The places of the columns that fit into a line, all that aren't optional among them."""
    shown = list(range(len(columns)))
    widths = [
        max([len(column.title), *(len(_text(row[place])) for row in rows)])
        for place, column in enumerate(columns)
    ]
    for place in reversed(range(len(columns))):
        if sum(widths[p] + 2 for p in shown) - 2 <= _console().width:
            break
        if columns[place].optional:
            shown.remove(place)
    return shown


def facts(pairs: Iterable[tuple[str, Cell]]) -> RenderableType:
    """Names and values, one pair a line; empty values are left out."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        text = _text(value)
        if text.plain:
            made.add_row(Text(name), text)
    return made


def tree(root: Tree) -> RenderableType:
    from rich.tree import Tree as RichTree

    def grow(into: RichTree, branches: Sequence[Tree]) -> None:
        for branch in branches:
            grow(into.add(_line(branch.line)), branch.below)

    made = RichTree(_line(root.line), guide_style="bright_black")
    grow(made, root.below)
    return made


def _line(cells: Sequence[Cell]) -> Any:
    from rich.text import Text

    return Text("  ").join(_text(cell) for cell in cells)


def styled(word: str) -> Cell:
    """A state's word in its colour."""
    return (word, _STYLES.get(word, ""))


def moment(utc: Utc | None) -> str:
    """To the second, in UTC."""
    return f"{utc[:10]} {utc[11:19]}Z" if utc is not None else "-"


def age(since: Utc, now_ms: int) -> str:
    """How long ago, or in how long, in its two largest units."""
    seconds = abs(now_ms - ms_of(since)) // 1000
    for unit_s, finer_s in ((86_400, 3600), (3600, 60), (60, 1)):
        if seconds >= unit_s:
            return format_duration(seconds - seconds % finer_s)
    return f"{seconds}s"


def clean(text: str) -> str:
    """Without what a terminal would take for orders."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in text
    )


def _text(cell: Cell) -> Any:
    from rich.text import Text

    plain, style = cell if isinstance(cell, tuple) else (cell, "")
    return Text(clean(plain), style=style)


def _console() -> Console:
    from rich.console import Console

    width = None
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        width = _WIDTH_OF_PIPES
    return Console(
        file=sys.stdout,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        no_color=True if not sys.stdout.isatty() else None,
    )


def _print(renderables: Iterable[RenderableType]) -> None:
    """Lines end where their text does, so that what is copied has no blanks behind it."""
    console = _console()
    with console.capture() as captured:
        for renderable in renderables:
            console.print(renderable)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


@contextlib.contextmanager
def redrawn() -> Any:
    """Draws over what it drew before on a terminal; elsewhere one below the other."""
    if not sys.stdout.isatty():
        yield _print
        return
    from rich.console import Group
    from rich.live import Live

    with Live(console=_console(), auto_refresh=False, screen=True) as live:
        yield lambda renderables: live.update(Group(*renderables), refresh=True)
