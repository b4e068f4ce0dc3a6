"""Asking the leader for the same of many runs, and telling what it said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import click

from etcsched.core.errors import Refused
from etcsched.core.states import RunState
from etcsched.core.times import utc_of
from etcsched.operator.bulk import Asked, Asker, Progress
from etcsched.operator.ids import request_id
from etcsched_cli.connect import run as run_connected
from etcsched_cli.output import Cell, Column, print_json, say, table
from etcsched_cli.settings import Settings
from etcsched_cli.signals import signals_raised

if TYPE_CHECKING:
    from rich.console import RenderableType

    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd

__all__ = ["SHOWN", "Asking", "count", "first_rows", "report", "states_counted"]

T = TypeVar("T")

SHOWN: Final = 20
"""Of many that are chosen, so many are shown one by one."""


class Asking:
    """What one command asks for, which began at ``now_ms``. Whoever interrupts it learns how far it
    came; errors say it themselves."""

    def __init__(self, settings: Settings, now_ms: int) -> None:
        self._settings = settings
        self._now_ms = now_ms
        self._progress = Progress()

    def look(self, work: Callable[[Etcd, Keys], Awaitable[T]]) -> T:
        """What ``work`` returns."""
        with self._told_if_interrupted():
            return run_connected(self._settings, work)

    def ask(self, work: Callable[[Etcd, Keys, Asker, Progress], Awaitable[T]]) -> T:
        """What ``work`` returns, which makes requests by the ``Asker``."""
        environment = self._settings.environment
        asker = Asker(
            request_id=request_id(self._now_ms, environment.entropy()),
            now=lambda: utc_of(environment.now_ms()),
            by=self._settings.operator,
            timeout_s=self._settings.timeout_s,
        )

        async def connected(etcd: Etcd, keys: Keys) -> T:
            with signals_raised():
                return await work(etcd, keys, asker, self._progress)

        return self.look(connected)

    @contextmanager
    def _told_if_interrupted(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            raise
        except BaseException:
            # Whoever isn't told of anything can't tell all from nothing.
            is_begun = self._progress.asked or self._progress.is_sending
            said = self._progress if is_begun else "nothing was asked for"
            click.echo(f"note: {said}", err=True)
            raise


def report(ctx: click.Context, asked: Sequence[Asked], as_json: bool, done: Iterable[str]) -> None:
    """``done``: lines that say what comes of it; then the refusals, and the exit code says whether
    there are any."""
    refused = [each for each in asked if not each.accepted]
    if as_json:
        print_json(asked)
    else:
        for line in done:
            click.echo(line)
        for each in refused:
            say(each.message)
    if refused:
        ctx.exit(Refused.exit_code)


def first_rows(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]]
) -> Iterable[RenderableType]:
    """A table of the first, and how many more there are."""
    yield table(columns, rows[:SHOWN])
    if len(rows) > SHOWN:
        yield f"... and {len(rows) - SHOWN} more"
    yield ""


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def states_counted(states: Iterable[RunState]) -> str:
    """``3 runs (2 failed, 1 died)``."""
    counted = Counter(state.value for state in states)
    each = ", ".join(f"{number} {state}" for state, number in counted.items())
    return f"{count(counted.total(), 'run')} ({each})"
