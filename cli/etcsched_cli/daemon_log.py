"""A daemon's log: one event a line on standard error, for people or as JSON."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
import msgspec

from etcsched.core.errors import EtcschedError
from etcsched_cli.options import option

__all__ = ["log_options", "logged"]

F = TypeVar("F", bound=Callable[..., Any])

_TIME = "%Y-%m-%dT%H:%M:%S"
_SUBJECT = ("job", "run", "attempt", "agent")
"""What an event may say of itself beside its text."""

log = logging.getLogger(__name__)


def log_options(of: str) -> Callable[[F], F]:
    """``--log-level`` and ``--log-format``, for ``logged``."""

    def decorate(command: F) -> F:
        command = option(
            "--log-format",
            of=of,
            show_envvar=True,
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="Lines for people, or one JSON object a line.",
        )(command)
        return option(
            "--log-level",
            of=of,
            show_envvar=True,
            type=click.Choice(["debug", "info", "warning", "error"]),
            default="info",
            show_default=True,
        )(command)

    return decorate


@contextlib.contextmanager
def logged(level: str, form: str, role: str, name: str) -> Iterator[None]:
    """What happens within goes to standard error. As JSON, so does the line that ends it."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(role, name) if form == "json" else _for_people())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    try:
        yield
    except EtcschedError as error:
        if form != "json":
            raise
        log.error("%s", error)  # noqa: TRY400
        raise SystemExit(error.exit_code) from None


def _for_people() -> logging.Formatter:
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(message)s", _TIME)
    formatter.converter = time.gmtime
    return formatter


class JsonLines(logging.Formatter):
    """``at``, ``level``, ``role``, ``node`` and ``message`` are in each; ``job``, ``run``,
    ``attempt`` and ``agent`` where the event is about one; ``error`` is a traceback."""

    def __init__(self, role: str, node: str) -> None:
        super().__init__()
        self._fixed = {"role": role, "node": node}

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime(_TIME, time.gmtime(record.created))
        entry: dict[str, Any] = {
            "at": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            **self._fixed,
            "message": _text(record.getMessage()),
        }
        for name in _SUBJECT:
            value = getattr(record, name, "")
            if value:
                entry[name] = value
        if record.exc_info:
            entry["error"] = _text(self.formatException(record.exc_info))
        return msgspec.json.encode(entry).decode()


def _text(text: str) -> str:
    """Half characters (of a file's name, say) have no place in JSON."""
    return text.encode(errors="backslashreplace").decode()
