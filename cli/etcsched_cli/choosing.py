"""What runs are chosen by, wherever many are listed or asked for: --tag, --since, --until."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from etcsched.core.durations import parse_duration_s
from etcsched.core.errors import NotFound, UsageError
from etcsched.core.schedule import parse_at
from etcsched.core.states import RunState
from etcsched.core.times import Utc, utc_of
from etcsched.operator.choosing import Wanted, jobs_with
from etcsched_cli.connect import run as run_connected
from etcsched_cli.settings import Settings

if TYPE_CHECKING:
    from etcsched.keyspace.keys import Keys
    from etcsched.ports import Etcd

__all__ = [
    "chosen_or_named",
    "named_or_tagged",
    "read_time",
    "tags_of_jobs",
    "times",
]

F = TypeVar("F", bound=Callable[..., Any])


def tags_of_jobs(command: F) -> F:
    return click.option(
        "--tag", "tags", multiple=True, help="Of jobs with this tag (with each, if several)."
    )(command)


def times(command: F) -> F:
    since = click.option(
        "--since", metavar="TIME", help="Scheduled at or after TIME, or so long ago (12h)."
    )
    until = click.option("--until", metavar="TIME", help="Scheduled before TIME.")
    return since(until(command))


def read_time(option: str, text: str | None, now_ms: int) -> Utc | None:
    """An instant, without an offset in UTC, or a duration back from now."""
    if text is None:
        return None
    try:
        return utc_of(now_ms - round(parse_duration_s(text) * 1000))
    except ValueError:
        pass
    try:
        return parse_at(text, "UTC").time
    except ValueError as error:
        hint = str(error).removeprefix("at ")
        raise UsageError(f"{option} {hint}, or a duration like 12h") from None


def chosen_or_named(
    names: Sequence[str],
    job: str | None,
    tags: tuple[str, ...],
    states: Iterable[str],
    since: str | None,
    until: str | None,
    now_ms: int,
) -> Wanted | None:
    """What is wanted of runs that are chosen by options; None: they are named; never both."""
    wanted = Wanted(
        job=job,
        tags=tags,
        states=tuple(RunState(state) for state in states),
        since=read_time("--since", since, now_ms),
        until=read_time("--until", until, now_ms),
    )
    is_choice = wanted != Wanted()
    if bool(names) is is_choice:
        raise UsageError(
            "name runs, or choose them with --job, --tag, --state, --since and --until"
            + ("; not both" if names else "")
        )
    return wanted if is_choice else None


def named_or_tagged(
    settings: Settings, names: tuple[str, ...], tags: tuple[str, ...]
) -> tuple[str, ...]:
    """The jobs that are named, or all that have the tags, by name."""
    if bool(names) is bool(tags):
        raise UsageError("name jobs, or choose them with --tag" + ("; not both" if names else ""))
    if names:
        return names

    async def work(etcd: Etcd, keys: Keys) -> set[str]:
        return await jobs_with(etcd, keys, tags)

    found = run_connected(settings, work)
    if not found:
        raise NotFound(f"jobs with the tag {' and '.join(tags)}: there are none")
    return tuple(sorted(found))
