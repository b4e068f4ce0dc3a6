"""The watched screen: the same shown again every second, over what was there before."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from etcsched.core.errors import ClusterUnreachable
from etcsched_cli.console import clean, console, print_all, say
from etcsched_cli.signals import HUNG_UP, STOPS, Signalled, signals_raised, stop_as_asked
from etcsched_cli.typed import is_set_within, q_typed

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

__all__ = ["Fitting", "redrawn", "show_again"]

T = TypeVar("T")

_EVERY_S: Final = 1.0


async def show_again(
    read: Callable[[], Awaitable[T]],
    render: Callable[[T], Iterable[RenderableType]],
    *,
    as_json: bool,
) -> T:
    """Until somebody types q; returns what was shown last.

    As JSON, every look is one line. Ctrl-Z stops it, and it goes on after that.
    """
    shown: list[T] = []
    while True:
        try:
            with (
                signals_raised(*STOPS),
                _drawn(render, as_json) as draw,
                q_typed() as typed,
            ):
                await _show_until(typed, read, draw, shown)
                return shown[0]
        except Signalled as signalled:
            if signalled.number not in STOPS:
                raise
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # The terminal is gone, and the signal that says so is still on its way.
            raise Signalled(HUNG_UP) from None
        # The terminal is as it was, for whoever is there now.
        stop_as_asked()


async def _show_until(
    typed: asyncio.Event,
    read: Callable[[], Awaitable[T]],
    draw: Callable[[T, str], None],
    shown: list[T],
) -> None:
    """``shown`` holds the last picture, which stays while etcd is away; without one that ends
    this."""
    is_away = False
    while True:
        try:
            shown[:] = [await read()]
        except ClusterUnreachable as error:
            if not shown:
                raise
            if not is_away:
                draw(shown[0], f"{error}; looking again")
            is_away = True
        else:
            draw(shown[0], "")
            is_away = False
        if await is_set_within(typed, _EVERY_S):
            return


@contextlib.contextmanager
def _drawn(
    render: Callable[[T], Iterable[RenderableType]], as_json: bool
) -> Iterator[Callable[[T, str], None]]:
    """Draws a picture, or says what keeps a new one from coming."""
    if as_json:
        yield (
            lambda value, trouble: (
                say(trouble) if trouble else click.echo(msgspec.json.encode(value).decode())
            )
        )
        return
    with redrawn("q or Ctrl-C ends this") as draw:
        yield lambda value, trouble: draw(render(value), trouble)


class Fitting:
    """As much as the screen has room for, and how much is left out."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment
        from rich.text import Text

        lines = screen.render_lines(self._renderable, options.update(height=None), pad=False)
        room = screen.height
        shown = lines if len(lines) <= room else lines[: room - 1]
        for line in shown:
            yield from line
            yield Segment.line()
        if len(shown) < len(lines):
            left_out = len(lines) - len(shown)
            yield Text(f"... {left_out} more lines: the window is too low for them", style="dim")


@contextlib.contextmanager
def redrawn(hint: str) -> Any:
    """Draws over what it drew before on a terminal, trouble above it; elsewhere one below the
    other, and of trouble only the line."""
    if not sys.stdout.isatty():
        yield lambda renderables, trouble="": say(trouble) if trouble else print_all(renderables)
        return
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def draw(renderables: Iterable[RenderableType], trouble: str = "") -> None:
        # Above, since what doesn't fit on the screen is cut off below.
        top = [Text(hint, style="dim"), *([Text(clean(trouble), style="red")] if trouble else [])]
        live.update(Fitting(Group(*top, *renderables)), refresh=True)

    live = Live(console=console(), auto_refresh=False, screen=True)
    try:
        live.start()
        yield draw
    finally:
        # A terminal that is gone needs no mending.
        with contextlib.suppress(OSError):
            live.stop()
