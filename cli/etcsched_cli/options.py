"""Options that the environment can set as well, named after their flags."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from etcsched.core.errors import EtcschedError, UsageError

__all__ = ["confirm", "confirm_delete", "option", "read_params", "yes_option"]

F = TypeVar("F", bound=Callable[..., Any])


def option(flag: str, *names: str, of: str = "", **attributes: Any) -> Callable[[F], F]:
    """``--ttl`` is ETCSCHED_TTL, or of a command ``agent`` ETCSCHED_AGENT_TTL."""
    parts = ["etcsched", *([of] if of else []), flag.removeprefix("--").replace("-", "_")]
    return click.option(flag, *names, envvar="_".join(parts).upper(), **attributes)


def read_params(texts: Iterable[str]) -> dict[str, str]:
    """By the rules that job files have for them."""
    from etcsched.core.records import params_clash
    from etcsched.jobfile.fields import flaw_of_param

    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"--param {text!r}: write NAME=VALUE")
        flaw = flaw_of_param(name)
        if flaw is not None:
            raise UsageError(f"--param {text!r}: {flaw}")
        found[name] = value
    clash = params_clash(found, found)
    if clash is not None:
        raise UsageError(f"--param: {clash}")
    return found


def yes_option(command: F) -> F:
    return click.option("--yes", "-y", is_flag=True, help="Don't ask.")(command)


def confirm_delete(names: Iterable[str]) -> None:
    confirm(f"Delete {', '.join(names)}?", "nothing was deleted")


def confirm(question: str, declined: str) -> None:
    """``declined`` says what wasn't done: the one line of a no. Ctrl-C is click's."""
    try:
        if click.confirm(question, err=True):
            return
    except click.Abort as abort:
        if not isinstance(abort.__context__, EOFError):
            raise
        click.echo(err=True)
        raise UsageError(f"{declined}: nobody answered; say --yes") from None
    raise EtcschedError(declined)
