"""Options that the environment can set as well, named after their flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from etcsched.core.errors import EtcschedError, UsageError

__all__ = ["confirm", "option", "read_param"]

F = TypeVar("F", bound=Callable[..., Any])


def option(flag: str, *names: str, of: str = "", **attributes: Any) -> Callable[[F], F]:
    """``--ttl`` is ETCSCHED_TTL, or of a command ``agent`` ETCSCHED_AGENT_TTL."""
    parts = ["etcsched", *([of] if of else []), flag.removeprefix("--").replace("-", "_")]
    return click.option(flag, *names, envvar="_".join(parts).upper(), **attributes)


def read_param(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"--param {text!r}: write NAME=VALUE")
    return name, value


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
