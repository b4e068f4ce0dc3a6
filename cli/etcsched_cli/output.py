"""What commands show: tables, facts and trees for people, JSON for programs.

Commands take all from here: what is printed once is in ``console``, what is watched in ``watched``.
Whatever comes from a cluster is shown as text: no markup, no control characters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from etcsched.core.durations import format_duration
from etcsched.core.times import Utc, ms_of, utc_of
from etcsched_cli.console import WIDTH_OF_PIPES, clean, console, print_all, print_json, say
from etcsched_cli.watched import redrawn, show_again

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "Cell",
    "Column",
    "age",
    "clean",
    "facts",
    "moment",
    "output_options",
    "print_all",
    "print_json",
    "redrawn",
    "say",
    "show",
    "styled",
    "table",
    "time_of_day",
    "tree",
]

T = TypeVar("T")
Cell = str | tuple[str, str]
"""Text, or text and its style."""

_GAP: Final = 2
_CUT_LEAST: Final = 16
"""What may be cut keeps so much."""
_WRAPPED_LEAST: Final = 24
"""Sentences aren't squeezed into less."""

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
    """``whole``: never cut, since people copy it; sentences wrap where a line is too short.
    ``optional``: the first to be left out, the last one first, where a line is too short for all.
    ``below``: then on lines of its own, below each row's, rather than left out.
    """

    title: str
    right: bool = False
    whole: bool = False
    optional: bool = False
    below: bool = False


class Tree(msgspec.Struct, frozen=True):
    """A line, and what hangs below it."""

    line: Sequence[Cell]
    below: Sequence[Tree]


def output_options(watch: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--json``, and ``--watch`` where looking again is cheap."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        if watch:
            command = click.option(
                "--watch", "-w", is_flag=True, help="Show it again every second, until q or Ctrl-C."
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
    """Read and show once, or again and again; returns what was shown last."""
    if watch:
        return await show_again(read, render, as_json=as_json)
    value = await read()
    if as_json:
        print_json(value)
    else:
        print_all(render(value))
    return value


def table(
    columns: Sequence[Column], rows: Iterable[Sequence[Cell]], empty: str = ""
) -> RenderableType:
    """``empty`` is said in place of a table without rows. Columns for which a line is too short
    are named below the table."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    rows, places = list(rows), range(len(columns))
    if empty and not rows:
        return Text(empty)
    widths = _widths(columns, rows, places)
    below = [place for place in places if columns[place].below and place not in widths]
    if below:
        widths = _widths(columns, rows, [place for place in places if place not in below])
    parts: list[RenderableType] = []
    if below:
        parts.append(_grid(columns, [], widths))
        for row in rows:
            parts.append(_grid(columns, [row], widths, with_header=False))
            cells = [_text(row[place]) for place in below]
            parts += [Padding(cell, (0, 0, 0, _GAP)) for cell in cells if cell.plain]
    else:
        parts.append(_grid(columns, rows, widths))
    gone = [columns[place].title.upper() for place in places if place not in (*widths, *below)]
    if gone:
        note = f"not shown for want of width: {', '.join(gone)}; see --json"
        parts.append(Text(note, style="dim"))
    return parts[0] if len(parts) == 1 else Group(*parts)


def _grid(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    widths: dict[int, int],
    *,
    with_header: bool = True,
) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=0, show_header=with_header, header_style="bold")
    for number, (place, width) in enumerate(widths.items()):
        column = columns[place]
        if number:
            made.add_column("", width=_GAP)
        made.add_column(
            column.title.upper(),
            justify="right" if column.right else "left",
            overflow="fold" if column.whole else "ellipsis",
            no_wrap=not column.whole,
            width=width,
        )
    for row in rows:
        cells = [cell for place in widths for cell in (Text(""), _text(row[place]))]
        made.add_row(*cells[1:])
    return made


def _widths(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], places: Sequence[int]
) -> dict[int, int]:
    """Of those of these columns that fit into a line, by place. The first is always among them."""
    available = console().width
    cells = [[_text(row[place]).plain for row in rows] for place in range(len(columns))]
    full = [
        max([len(column.title), *(_cell_len(cell) for cell in cells[place])])
        for place, column in enumerate(columns)
    ]
    least = [
        max(len(column.title), min(full[place], _least(column, cells[place])))
        for place, column in enumerate(columns)
    ]
    shown = list(places)

    def spare() -> int:
        return available - sum(least[place] for place in shown) - _GAP * (len(shown) - 1)

    order = sorted(shown, key=lambda place: (columns[place].optional, columns[place].below))
    while spare() < 0 and len(order) > 1:
        shown.remove(order.pop())
    widths = {place: least[place] for place in shown}
    if spare() < 0:
        return dict.fromkeys(shown, available)
    left = spare()
    # What is cut is lost, and what is wrapped isn't.
    for group in (False, True):
        wanting = [place for place in shown if columns[place].whole is group]
        wanted = {place: full[place] - least[place] for place in wanting}
        total = sum(wanted.values())
        given = min(left, total)
        for place, more in wanted.items():
            if total:
                part = -(-given * more // total)
                widths[place] += part
                given, total = given - part, total - more
                left -= part
    return widths


def _least(column: Column, cells: Sequence[str]) -> int:
    """Numbers and names are shown as a whole or not at all."""
    is_prose = any(" " in cell for cell in cells)
    if column.right or (column.whole and not is_prose):
        return WIDTH_OF_PIPES
    return _WRAPPED_LEAST if column.whole else _CUT_LEAST


def _cell_len(text: str) -> int:
    from rich.cells import cell_len

    return max((cell_len(line) for line in text.split("\n")), default=0)


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


def time_of_day(utc: Utc | None, now_ms: int) -> str:
    """As ``moment``, but without the date where that is today's."""
    text = moment(utc)
    return text.removeprefix(f"{utc_of(now_ms)[:10]} ")


def age(since: Utc, now_ms: int) -> str:
    """How long ago, or in how long, in its two largest units."""
    seconds = abs(now_ms - ms_of(since)) // 1000
    for unit_s, finer_s in ((86_400, 3600), (3600, 60), (60, 1)):
        if seconds >= unit_s:
            return format_duration(seconds - seconds % finer_s)
    return f"{seconds}s"


def _text(cell: Cell) -> Any:
    from rich.text import Text

    plain, style = cell if isinstance(cell, tuple) else (cell, "")
    return Text(clean(plain), style=style)
